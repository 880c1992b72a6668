"""The public data sets beside the repository, a tokenizer and a small Llama trained for nothing, 50 steps."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback

from setsail import SailTrainer
from setsail.data import load_preferences

STEPS = 50
FILES = {"alpaca": "alpaca-eval/responses.jsonl.gz", "hh": "hh-rlhf/harmless-base-test.jsonl.gz"}


def _file(shared_data: Path, name: str) -> Path:
    file = shared_data / FILES[name]
    if not file.exists():
        pytest.skip(f"{FILES[name]} is not beside the repository")
    return file


@pytest.fixture(scope="module")
def policy_path(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Byte-level BPE with 2,000 tokens from the data's text, and a random Llama of that vocabulary."""
    with gzip.open(_file(shared_data, "alpaca"), "rt", encoding="utf-8") as file:
        texts = [
            text for line in file for row in [json.loads(line)] for text in (row["prompt"], row["responses"][0]["text"])
        ]
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer, bpe.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts[:400],
        trainers.BpeTrainer(vocab_size=2000, special_tokens=["<pad>", "</s>"], initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=256, eos_token_id=1, pad_token_id=0, bos_token_id=None,
    )  # fmt: skip
    path = tmp_path_factory.mktemp("real") / "policy"
    tiny.favor_eos(LlamaForCausalLM(config)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def _brief(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> list[float]:
    """Prefers answers of about 30 characters that hold the letter e."""
    return [-abs(len(text) - 30) / 10 + 0.5 * text.count("e") for text in completions]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "data"), [("sail-dpp", "hh"), ("sail-dpr", "alpaca")])
def test_fifty_steps(shared_data: Path, policy_path: str, tmp_path: Path, method: str, data: str) -> None:
    rows = load_preferences(str(_file(shared_data, data)), limit=600)
    config = tiny.config(
        tmp_path / "run", method=method, max_steps=STEPS, max_prompt_length=64, max_completion_length=24,
        long_prompts="keep-end", save_strategy="steps", save_steps=25, logging_steps=10, learning_rate=5e-4,
    )  # fmt: skip
    labeler = _brief if method == "sail-dpr" else None
    trainer = SailTrainer(policy_path, args=config, train_dataset=rows, labeler=labeler)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert len(logs) == 5
    for log in logs:
        assert all(math.isfinite(value) for value in log.values())
        assert 0.3 < log["loss"] < 1.0
        assert 0 < log["completions/mean_length"] <= 24
        assert 0 <= log["completions/clipped_ratio"] <= 1
        assert abs(log["logps/chosen"]) < 24 * 12
    assert not [each for each in trainer.directory.read("alarms") if each["alarm"] != "likelihood_displacement"]
    _complete(tmp_path / "run")
    _trainable(tmp_path, policy_path, route=method[-3:])


def _complete(folder: Path) -> None:
    names = {each.name for each in folder.iterdir()}
    assert {
        "config.yaml", "run.json", "environment.json", "metrics.jsonl", "pairs.jsonl", "checkpoint-25", "checkpoint-50",
        "config.json", "model.safetensors", "tokenizer.json",
    } <= names  # fmt: skip
    assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == 64
    assert len(tiny.lines(folder / "metrics.jsonl")) == 6


def _trainable(tmp_path: Path, policy_path: str, route: str) -> None:
    """pairs.jsonl is a preference data set: datasets loads it, and what has a label can be trained on again."""
    from datasets import load_dataset

    file = tmp_path / "run" / "pairs.jsonl"
    loaded = load_dataset("json", data_files=str(file), split="train", cache_dir=str(tmp_path / "cache"))
    written = tiny.lines(file)
    assert len(loaded) == len(written) > 20
    assert {"prompt", "chosen", "rejected", "p", "row_id", "route", "policy_version", "scores"} <= set(
        loaded.column_names
    )
    assert set(loaded["route"]) == {route}
    if route == "dpp":
        assert all(p is None for p in loaded["p"])
        return
    assert all(0.5 <= p <= 1 for p in loaded["p"])
    assert all(a >= b for a, b in loaded["scores"])
    config = tiny.config(
        tmp_path / "again", max_steps=2, max_prompt_length=64, max_completion_length=24, long_prompts="keep-end"
    )
    again = SailTrainer(policy_path, args=config, train_dataset=str(file))
    again.remove_callback(PrinterCallback)
    again.train()
    assert again.state.global_step == 2
    assert {row.p for row in again.train_dataset} <= {each["p"] for each in written}
