"""Token log-probs where several completions share a prompt: the prompt is computed once.

Axis legend: ``B`` distinct prompts, ``P`` prompt width, ``R`` rows (completions), ``T`` completion positions. The
prompt's keys and values are computed once, repeated for each of its completions, and carry gradient; logits are
computed at completion positions only. The same log-probs and the same gradient as
:func:`setsail.policies.token_logps`, up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from setsail.policies.scoring import (
    collate,
    forward_arguments,
    pad_left,
    positions,
    refuse_empty,
    selected,
    token_logps,
    unwrapped,
)


@dataclass(frozen=True, slots=True)
class SharedBatch:
    """Completions grouped by prompt.

    Attributes:
        prompt_ids, prompt_mask: distinct prompts, padded on the left, shape ``(B, P)``.
        group: index of each row's prompt, shape ``(R,)``.
        completion_ids, completion_mask: padded on the right, shape ``(R, T)``.
    """

    prompt_ids: Tensor
    prompt_mask: Tensor
    group: Tensor
    completion_ids: Tensor
    completion_mask: Tensor


def collate_shared(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> SharedBatch:
    """Group rows by equal prompts and pad.

    Raises:
        ValueError: a prompt is empty.
    """
    refuse_empty(prompts)
    index: dict[tuple[int, ...], int] = {}
    group = [index.setdefault(tuple(prompt), len(index)) for prompt in prompts]
    limit = max(1, *map(len, completions))
    prompt_ids, prompt_mask = pad_left(index, pad_id=pad_id, device=device)
    completion_ids = [[*ids] + [pad_id] * (limit - len(ids)) for ids in completions]
    completion_mask = [[True] * len(ids) + [False] * (limit - len(ids)) for ids in completions]
    return SharedBatch(
        prompt_ids=prompt_ids,
        prompt_mask=prompt_mask,
        group=torch.tensor(group, device=device),
        completion_ids=torch.tensor(completion_ids, device=device),
        completion_mask=torch.tensor(completion_mask, device=device),
    )


def shared_token_logps(model: nn.Module, batch: SharedBatch) -> Tensor:
    """``log pi(token | everything before it)`` of every completion token, at temperature 1.

    Returns:
        float32, shape ``(R, T)``, nats; exactly 0 at padding.
    """
    accepted = forward_arguments(model)
    prompt: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
    rest: dict[str, Any] = {}
    if "position_ids" in accepted:
        prompt["position_ids"] = positions(batch.prompt_mask)
    output = model(input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask, use_cache=True, **prompt)
    first = selected(output.logits[:, -1][batch.group], batch.completion_ids[:, 0])
    parts = [first.unsqueeze(-1)]
    # The last completion token predicts nothing that is asked for, so it is never fed.
    fed = batch.completion_ids[:, :-1]
    if fed.shape[1]:
        cache = output.past_key_values
        cache.batch_select_indices(batch.group)
        mask = torch.cat([batch.prompt_mask[batch.group], batch.completion_mask[:, :-1].long()], dim=1)
        if "position_ids" in accepted:
            rest["position_ids"] = positions(mask)[:, -fed.shape[1] :]
        logits = model(input_ids=fed, attention_mask=mask, past_key_values=cache, use_cache=True, **rest).logits
        targets = batch.completion_ids[:, 1:]
        parts.append(torch.stack([selected(row, ids) for row, ids in zip(logits, targets, strict=True)]))
    return torch.cat(parts, dim=1).masked_fill(~batch.completion_mask, 0.0)


def can_share(model: nn.Module) -> bool:
    """Whether prompts can be computed once: the model keeps keys and values, and they carry gradient.

    Not with activation checkpointing in training, which recomputes layers and so forbids a cache; not for recurrent
    models, whose state is not a list of keys and values; not through a wrapper of several processes, whose forward
    passes communicate: all processes must make equally many.
    """
    if hasattr(model, "module"):
        return False
    base = unwrapped(model)
    if getattr(base, "_is_stateful", False) or "past_key_values" not in forward_arguments(model):
        return False
    return not (model.training and any(getattr(module, "gradient_checkpointing", False) for module in base.modules()))


def completion_logps(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
    share: bool = True,
) -> Tensor:
    """Token log-probs of each completion after its prompt; a prompt that rows share is computed once where possible.

    Args:
        model: a causal LM, possibly wrapped.
        prompts, completions: token ids, one list a row.
        share: False computes every row by itself.

    Returns:
        float32, shape ``(R, T)``, nats; exactly 0 at padding.
    """
    if share and len({tuple(prompt) for prompt in prompts}) < len(prompts) and can_share(model):
        return shared_token_logps(model, collate_shared(prompts, completions, pad_id=pad_id, device=device))
    return token_logps(model, collate(prompts, completions, pad_id=pad_id, device=device))


@torch.no_grad()
def score(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str,
    batch_size: int = 16,
    share: bool = True,
) -> list[Tensor]:
    """Token log-probs of each completion, without gradient, in evaluation mode and in batches of similar length.

    Returns:
        One float32 CPU tensor a completion, as long as the completion.
    """
    was_training = model.training
    model.eval()
    # Rows of one prompt lie together, so that they share it; prompts of one length, so that little is padded.
    order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row], len(completions[row]), row))
    result: list[Tensor] = [torch.empty(0)] * len(prompts)
    try:
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            rows = [prompts[index] for index in chunk], [completions[index] for index in chunk]
            logps = completion_logps(model, *rows, pad_id=pad_id, device=device, share=share).cpu()
            for row, index in enumerate(chunk):
                result[index] = logps[row, : len(completions[index])]
    finally:
        model.train(was_training)
    return result
