"""A small policy and a frozen one beside it, held in each of the ways there are."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import tiny
import torch

from setsail.core import Candidates, Prompt, Sampling
from setsail.policies import Reference, add_adapter, hold_reference

KINDS = ("full weights", "fresh adapter", "existing adapter")
VOCABULARY = 12
PROMPTS = [tuple(2 + (i * k) % 10 for k in range(1, 3 + i % 5)) for i in range(1, 8)]


def decoder() -> Any:
    """What an engine needs of a tokenizer."""
    return SimpleNamespace(pad_token_id=0, batch_decode=lambda rows, **_: [str(row) for row in rows])


def small(seed: int = 1) -> Any:
    """A language model over twelve tokens whose answers are a few tokens long."""
    return tiny.favor_eos(tiny.perturbed(tiny.llama(VOCABULARY, seed=seed), scale=0.1, seed=seed), 1.5).eval()


def start(kind: str, **options: Any) -> tuple[Any, Reference]:
    """A policy, and what it was at the start as the frozen one."""
    from peft import LoraConfig

    policy = small()
    if kind != "full weights":
        fresh = kind == "fresh adapter"
        config = LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["q_proj", "v_proj"], init_lora_weights=fresh)
        policy = add_adapter(policy, config, seed=2).eval()
    return policy, hold_reference(policy, **{"fresh_adapter": kind == "fresh adapter", "moves": False, **options})


def moved(kind: str) -> tuple[Any, Reference]:
    """The same, with noise on the trained weights: policy and reference are two policies."""
    policy, reference = start(kind)
    scale = 0.05 if kind == "full weights" else 0.25
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return policy, reference


def train(policy: Any, steps: int = 3) -> None:
    """A few optimizer steps on made-up tokens."""
    optimizer = torch.optim.AdamW([p for p in policy.parameters() if p.requires_grad], lr=0.05)
    ids = torch.randint(2, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        policy(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()


def draw(engine: Any, prompts: list[tuple[int, ...]] = PROMPTS, *, n: int = 3, **sampling: Any) -> list[Candidates]:
    """Completions from named streams."""
    groups: list[Candidates] = engine.generate(
        [Prompt(row_id=i, text="", token_ids=ids) for i, ids in enumerate(prompts)],
        n=n,
        sampling=Sampling(**{"max_completion_length": 10, **sampling}),
        streams=[("sample", i, 0) for i in range(len(prompts))],
        seed=3,
        policy_version=4,
    )
    return groups


def said(groups: list[Candidates]) -> list[list[tuple[tuple[int, ...], float | None]]]:
    """Tokens and log-probs, without who is said to have written them."""
    return [[(answer.token_ids, answer.logp) for answer in group.completions] for group in groups]


def tokens(found: list[list[tuple[tuple[int, ...], float | None]]]) -> list[list[tuple[int, ...]]]:
    """The tokens alone: where two modules hold the same weights, their log-probs may differ by rounding."""
    return [[ids for ids, _ in group] for group in found]


def state(policy: Any) -> dict[str, Any]:
    """What drawing must leave as it was."""
    return {
        "training": [module.training for module in policy.modules()],
        "wants gradient": {name: p.requires_grad for name, p in policy.named_parameters()},
        "adapter": getattr(policy, "active_adapter", None),
        "weights": {name: copy.deepcopy(p.detach().tolist()) for name, p in policy.named_parameters()},
    }
