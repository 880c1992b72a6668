"""Models, tokenizers, data and settings small enough to train in a test; also for the tests' subprocesses."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from setsail import SailConfig, SailTrainer, methods

Build = Callable[..., SailTrainer]
"""The fixture that builds a trainer."""

SENTENCES = (
    "the boat leaves at noon from the north pier",
    "please bring two tickets and a warm coat",
    "the market is closed on monday morning",
    "naïve café, 12 €, 東京 and a wave 🌊",
)
CHAT = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TURNS = ["<|user|>", "<|assistant|>", "<|system|>"]


def tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE with about 320 tokens; with a chat template if asked for."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", *(TURNS if chat else [])]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        SENTENCES * 4, trainers.BpeTrainer(vocab_size=330, special_tokens=special, initial_alphabet=alphabet)
    )
    made = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="</s>", pad_token="<pad>")
    if chat:
        made.chat_template = CHAT
    return made


def llama(vocabulary: int, seed: int = 0, **changes: Any) -> LlamaForCausalLM:
    """A random Llama of two layers whose answers are a few tokens long."""
    settings: dict[str, Any] = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.1,
    }  # fmt: skip
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary, eos_token_id=1, pad_token_id=0, bos_token_id=None, **{**settings, **changes}
    )
    return favor_eos(LlamaForCausalLM(config))


@torch.no_grad()
def favor_eos(model: Any, logit: float = 4.5) -> Any:
    """Raise the logit of EOS (id 1), which is one of hundreds of tokens for a random model, so that answers end."""
    inputs, outputs = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    if inputs is outputs:
        return model
    inputs[:, 0] = 1.0
    outputs[:, 0] = 0.0
    outputs[1] = 0.0
    ids = torch.arange(2, len(inputs)).reshape(1, -1)[:, :64]
    last = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
    outputs[1, 0] = logit / float(last[..., 0].mean())
    return model


def perturbed(model: Any, scale: float = 0.05, seed: int = 7) -> Any:
    """The same model with noise on its weights: a policy that has moved away from its reference."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return model


def preferences(count: int = 24) -> list[dict[str, Any]]:
    """Rows whose prompt and answers carry the row's number; prompts differ in length."""
    return [
        {
            "prompt": f"question {i}: " + SENTENCES[i % 4][: 5 + 3 * (i % 9)],
            "chosen": f"{SENTENCES[(i + 1) % 4]} {i}",
            "rejected": SENTENCES[(i + 2) % 4][: 10 + i % 7] + f" {i}",
            "number": i,
        }
        for i in range(count)
    ]


def reward(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
    """A score that depends on the text alone."""
    return [-abs(len(text) - 20) / 5 + text.count("e") / 3 for text in completions]


def gappy_reward(prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float | None]:
    """No score for the second half of every eight rows."""
    return [
        None if number % 8 >= 4 else score
        for number, score in zip(columns["number"], reward(prompts, completions), strict=True)
    ]


def config(output_dir: Path | str, **changes: Any) -> SailConfig:
    """Four rows a step on the CPU, a log a step, no checkpoints unless asked for."""
    settings: dict[str, Any] = {
        "output_dir": str(output_dir), "method": "dpo", "max_steps": 3, "per_device_train_batch_size": 4,
        "learning_rate": 1e-3, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
        "max_completion_length": 10, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "seed": 3,
    }  # fmt: skip
    return SailConfig(**{**settings, **changes})


def shortened(name: str, steps: int = 4) -> dict[str, Any]:
    """Settings of a method for a test: at most four answers a prompt, rounds and moves every few steps."""
    method = methods.get(name)
    options: dict[str, Any] = {"method": name, "max_completion_length": 8}
    if method.generations > 4:
        options["num_generations"] = 4
    if method.staleness:
        options["staleness_limit"] = steps - 1
    if method.reference.moves:
        options["ref_model_sync_steps"] = steps
    return options


class Recorder(TrainerCallback):
    """Keeps the gradients of each step (before clipping only if max_grad_norm is 0)."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        named = kwargs["model"].named_parameters()
        self.gradients.append({name: p.grad.clone() for name, p in named if p.grad is not None})


class StopAfter(TrainerCallback):
    """Ends a run after a step, the way a user's interrupt would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def weights(model: Any) -> dict[str, torch.Tensor]:
    """A copy of the weights."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    """Whether two sets of tensors are equal, bit for bit."""
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def relative_difference(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm of the first, all tensors as one vector."""
    assert first.keys() == second.keys()
    one = torch.cat([first[name].double().flatten() for name in sorted(first)])
    two = torch.cat([second[name].double().flatten() for name in sorted(second)])
    return float((one - two).norm() / one.norm())


def lines(file: Path) -> list[dict[str, Any]]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]


CLOCK = ("seconds", "runtime", "per_second")


def timeless(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics without what a clock decides."""
    return [{name: value for name, value in each.items() if not any(c in name for c in CLOCK)} for each in records]
