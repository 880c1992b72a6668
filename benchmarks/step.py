"""One optimizer step against TRL's on the same machine: online (generate 2, label, score, update) and offline.

The model has random weights and the prompts random tokens, so that lengths are exact and nothing but the step's work
differs. Reported: median seconds of a step, the median of each round, and peak resident memory of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

Setting = dict[str, int]

SETTINGS: dict[str, Setting] = {
    "short": {"prompt": 40, "answer": 128, "vocabulary": 16_000, "batch": 8, "steps": 4},
    "long": {"prompt": 256, "answer": 64, "vocabulary": 16_000, "batch": 8, "steps": 4},
    "equal": {"prompt": 64, "answer": 64, "vocabulary": 16_000, "batch": 8, "steps": 5},
    "triple": {"prompt": 192, "answer": 64, "vocabulary": 16_000, "batch": 8, "steps": 5},
    "vocabulary": {"prompt": 40, "answer": 128, "vocabulary": 150_000, "batch": 4, "steps": 3},
}
OFFLINE_SETTINGS = ("equal", "triple")


def build(setting: Setting, folder: Path) -> tuple[Path, list[dict[str, str]]]:
    """A random Llama of 6 layers and width 384 (about 17M parameters at the small vocabulary), tokenizer and rows."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    size = setting["vocabulary"]
    words = {"<pad>": 0, "<eos>": 1, **{f"w{i}": i for i in range(2, size)}}
    core = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", eos_token="<eos>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size, hidden_size=384, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=6,
        num_key_value_heads=6, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=None,
        eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    path = folder / "model"
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    generator = torch.Generator().manual_seed(1)

    def text(length: int) -> str:
        return " ".join(f"w{i}" for i in torch.randint(2, size, (length,), generator=generator).tolist())

    # An answer's last token is its EOS.
    lengths = {"prompt": setting["prompt"], "chosen": setting["answer"] - 1, "rejected": setting["answer"] - 1}
    count = setting["batch"] * (setting["steps"] + 2)
    return path, [{part: text(length) for part, length in lengths.items()} for _ in range(count)]


def score(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
    """A reward that costs nothing."""
    return [float(len(completion) % 7) for completion in completions]


def timer() -> tuple[Any, list[float]]:
    """A callback that notes the seconds of every optimizer step."""
    from transformers import TrainerCallback

    seconds: list[float] = []

    class Timer(TrainerCallback):
        last = 0.0

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            self.last = time.perf_counter()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = time.perf_counter()
            seconds.append(now - self.last)
            self.last = now

    return Timer(), seconds


def arguments(setting: Setting, folder: Path) -> dict[str, Any]:
    """What every contestant is given."""
    return {
        "output_dir": str(folder / "out"), "max_steps": setting["steps"], "learning_rate": 1e-6,
        "per_device_train_batch_size": setting["batch"], "report_to": "none", "use_cpu": True, "save_strategy": "no",
        "disable_tqdm": True, "logging_steps": 1000, "seed": 0, "bf16": False,
    }  # fmt: skip


def run_setsail(method: str, setting: Setting, folder: Path) -> list[float]:
    """Our step."""
    from setsail import SailConfig, SailTrainer

    path, rows = build(setting, folder)
    callback, seconds = timer()
    config = SailConfig(
        **arguments(setting, folder), method=method, max_prompt_length=1024, generation_batch_size=64,
        max_completion_length=setting["answer"],
    )  # fmt: skip
    labeler = score if config.resolved_method().needs_labeler else None
    trainer = SailTrainer(str(path), args=config, train_dataset=rows, labeler=labeler, callbacks=[callback])
    trainer.train()
    return seconds


def run_trl_online(tuned: bool, setting: Setting, folder: Path) -> list[float]:
    """TRL's online DPO: as it comes, or with the KV cache on and without gradient checkpointing."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    path, rows = build(setting, folder)
    callback, seconds = timer()
    tuning = {"gradient_checkpointing": False, "generation_kwargs": {"use_cache": True}} if tuned else {}
    config = OnlineDPOConfig(
        **arguments(setting, folder), max_new_tokens=setting["answer"], temperature=1.0,
        max_length=setting["prompt"] + setting["answer"], **tuning,
    )  # fmt: skip
    trainer = OnlineDPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path),
        reward_funcs=score,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": row["prompt"]} for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(path, padding_side="left"),
        callbacks=[callback],
    )
    trainer.train()
    return seconds


def run_trl_offline(setting: Setting, folder: Path) -> list[float]:
    """TRL's DPO, without gradient checkpointing."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    path, rows = build(setting, folder)
    callback, seconds = timer()
    config = DPOConfig(**arguments(setting, folder), max_length=1024, gradient_checkpointing=False)
    spaced = [{**row, "chosen": f" {row['chosen']}", "rejected": f" {row['rejected']}"} for row in rows]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(path),
        args=config,
        train_dataset=Dataset.from_list(spaced),
        processing_class=AutoTokenizer.from_pretrained(path),
        callbacks=[callback],
    )
    trainer.train()
    return seconds


CONTESTANTS: dict[str, Callable[[Setting, Path], list[float]]] = {
    **{f"setsail {method}": partial(run_setsail, method) for method in ("online-dpo", "dpo", "sail-ddp", "sail-dpp")},
    "setsail sail-dpr": partial(run_setsail, "sail-dpr"),
    "trl online-dpo tuned": partial(run_trl_online, True),
    "trl online-dpo default": partial(run_trl_online, False),
    "trl dpo": run_trl_offline,
}


def measure_here(name: str, setting: Setting, threads: int) -> None:
    """Run one contestant in this process; the last line printed is its seconds and peak memory as JSON."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        seconds = CONTESTANTS[name](setting, Path(folder))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # The first step warms caches and allocators up.
    print(json.dumps({"seconds": seconds[1:], "peak_mib": peak}))


def measure(name: str, setting: str, threads: int) -> dict[str, Any]:
    """Run one contestant in a process of its own."""
    command = [sys.executable, __file__, "--setting", setting, "--one", name, "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def summarize(runs: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians over rounds, and the first contestant's time as a share of each."""
    table = {
        name: {
            "median_s": statistics.median(seconds for run in found for seconds in run["seconds"]),
            "rounds_s": [statistics.median(run["seconds"]) for run in found],
            "peak_mib": max(run["peak_mib"] for run in found),
        }
        for name, found in runs.items()
    }
    first = next(iter(table.values()))["median_s"]
    return {name: {**row, "times_first": row["median_s"] / first} for name, row in table.items()}


def main() -> None:
    """Alternate the contestants, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--setting", choices=SETTINGS, default="short")
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=None)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--one", default=None, help=argparse.SUPPRESS)
    given = parser.parse_args()
    setting = SETTINGS[given.setting]
    if given.one:
        measure_here(given.one, setting, given.threads)
        return
    offline = given.setting in OFFLINE_SETTINGS
    names = given.contestants or (
        ["setsail dpo", "trl dpo"] if offline else ["setsail online-dpo", "trl online-dpo tuned"]
    )
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for _ in range(given.rounds):
        for name in names:
            runs[name].append(measure(name, given.setting, given.threads))
    table = summarize(runs)
    print(f"{given.setting}: {setting}, {given.threads} threads, {platform.machine()}")
    for name, row in table.items():
        rounds = ", ".join(f"{seconds:.2f}" for seconds in row["rounds_s"])
        times, peak = row["times_first"], row["peak_mib"]
        print(f"  {name:<24} {row['median_s']:7.2f} s a step (rounds {rounds})  {times:5.2f}x  {peak:7.0f} MiB")
    if given.out:
        found = {"setting": setting, "threads": given.threads, "machine": platform.platform(), "results": table}
        given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
