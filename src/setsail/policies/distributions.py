"""Whole next-token distributions at a completion's positions, for penalties that sum over the vocabulary.

Axis legend: ``T`` completion positions, ``V`` vocabulary. Rows are padded as in :mod:`setsail.policies.scoring`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from setsail.policies.scoring import collate, completion_logits


def completion_distributions(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    pad_id: int,
    device: torch.device | str = "cpu",
) -> list[Tensor]:
    """``log pi(token | prompt, completion so far)`` of every token of the vocabulary, at each completion position.

    The entries at the completion's own tokens are the numbers of :func:`setsail.policies.token_logps`. Memory is that
    of ``T * V`` floats a row, several times over with gradient: give few rows at once.

    Args:
        model: a causal LM, possibly wrapped.
        prompts, completions: token ids, one list a row.

    Returns:
        One float32 tensor of shape ``(T, V)`` a row, nats, T the completion's own length; each line's exponentials sum
        to 1. With gradient where the model's weights have it; a frozen model is best run under ``torch.no_grad()``.

    Raises:
        ValueError: a prompt is empty.

    Example:
        >>> from types import SimpleNamespace
        >>> class Coin(nn.Module):
        ...     def forward(self, input_ids, attention_mask, use_cache=False):
        ...         return SimpleNamespace(logits=torch.zeros(1).expand(*input_ids.shape, 2))
        >>> [rows] = completion_distributions(Coin(), [(0,)], [(1, 1)], pad_id=0)
        >>> rows.exp().tolist()
        [[0.5, 0.5], [0.5, 0.5]]
    """
    batch = collate(prompts, completions, pad_id=pad_id, device=device)
    logits = completion_logits(model, batch)
    kept = (row[: len(ids)].float() for row, ids in zip(logits, completions, strict=True))
    return [row - row.logsumexp(-1, keepdim=True) for row in kept]
