"""Token log-probs of completions under a causal language model.

Axis legend: ``R`` rows (one prompt with one completion), ``W`` padded width, ``T`` completion positions. Prompts are
padded on the left and completions on the right, so that all completions start at one column and logits are computed
for completion positions only. Positions are explicit: padding changes nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class ScoringBatch:
    """Prompts and completions as padded tensors.

    Attributes:
        input_ids, attention_mask, position_ids: shape ``(R, W)``.
        completion_ids: shape ``(R, T)``, padded on the right.
        completion_mask: shape ``(R, T)``, True at the completion's own tokens.
    """

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor
    completion_ids: Tensor
    completion_mask: Tensor


def collate(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> ScoringBatch:
    """Pad prompts (left) and completions (right) into one batch.

    Raises:
        ValueError: a prompt is empty: the first token of its completion would have nothing to be predicted from.
    """
    refuse_empty(prompts)
    prompt_width = max(map(len, prompts))
    completion_width = max(1, *map(len, completions))
    ids, mask = [], []
    for prompt, completion in zip(prompts, completions, strict=True):
        left, right = prompt_width - len(prompt), completion_width - len(completion)
        ids.append([pad_id] * left + [*prompt, *completion] + [pad_id] * right)
        mask.append([0] * left + [1] * (len(prompt) + len(completion)) + [0] * right)
    input_ids = torch.tensor(ids, device=device)
    attention_mask = torch.tensor(mask, device=device)
    return ScoringBatch(
        input_ids=input_ids,
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
        completion_ids=input_ids[:, prompt_width:],
        completion_mask=attention_mask[:, prompt_width:].bool(),
    )


def refuse_empty(prompts: Sequence[Sequence[int]]) -> None:
    """Refuse a prompt without tokens: the first token of its completion would have nothing to be predicted from."""
    if any(len(prompt) == 0 for prompt in prompts):
        raise ValueError("a prompt has no tokens; the first completion token needs at least one token before it")


def pad_left(
    prompts: Iterable[Sequence[int]], *, pad_id: int, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Ids and attention mask of prompts padded on the left, shape ``(B, P)`` each."""
    prompts = list(prompts)
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


def positions(attention_mask: Tensor) -> Tensor:
    """Position of each token among its row's real tokens, shape as the mask; 0 at padding before them."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


def unwrapped(model: nn.Module) -> Any:
    """The language model itself, without DDP's and PEFT's wrappers."""
    inner: Any = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def forward_arguments(model: nn.Module) -> frozenset[str]:
    """Names of the arguments that the model's forward takes, seen through wrappers (DDP, PEFT)."""
    inner = unwrapped(model)
    # The class's own signature: mixed precision replaces the instance's forward by a wrapper.
    return frozenset(inspect.signature(type(inner).forward).parameters)


def completion_logits(model: nn.Module, batch: ScoringBatch) -> Tensor:
    """Logits that predict each completion token, shape ``(R, T, vocabulary)``."""
    accepted = forward_arguments(model)
    count = batch.completion_ids.shape[1]
    arguments: dict[str, object] = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if "position_ids" in accepted:
        arguments["position_ids"] = batch.position_ids
    if "logits_to_keep" in accepted:
        arguments["logits_to_keep"] = count + 1
    logits: Tensor = model(**arguments, use_cache=False).logits
    return logits[:, -count - 1 : -1]


def token_logps(model: nn.Module, batch: ScoringBatch) -> Tensor:
    """``log pi(token | everything before it)`` of every completion token, at temperature 1.

    Returns:
        float32, shape ``(R, T)``, nats; exactly 0 at padding, so that a sum over T is the completion's log-prob.
    """
    logits = completion_logits(model, batch)
    # Row by row: the float32 copy of a low-precision row is freed before the next one is made.
    rows = [selected(row, ids) for row, ids in zip(logits, batch.completion_ids, strict=True)]
    return torch.stack(rows).masked_fill(~batch.completion_mask, 0.0)


def selected(logits: Tensor, ids: Tensor) -> Tensor:
    """Log-probs of ``ids`` under ``logits`` in float32, shape of ``ids``; ``logits`` has one more axis."""
    logits = logits.float()
    chosen = logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return chosen - torch.logsumexp(logits, dim=-1)
