"""Drawing one token a row from next-token logits. Axis legend: ``R`` rows, ``V`` vocabulary."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from setsail.core import Sampling


def warp(logits: Tensor, sampling: Sampling, previous_ids: Tensor) -> Tensor:
    """Reshape logits as ``sampling`` says: repetition penalty, temperature, top-k, top-p, min-p, in that order.

    Args:
        logits: float32, shape ``(R, V)``.
        previous_ids: every token of the row so far, shape ``(R, any)``; read by the repetition penalty.

    Returns:
        float32, shape ``(R, V)``; the very same tensor where the settings change nothing.
    """
    if sampling.is_policy:
        return logits
    from transformers.generation import logits_process as reshape

    steps: list[Any] = []
    if sampling.repetition_penalty != 1.0:
        steps.append(reshape.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    if sampling.temperature != 1.0:
        steps.append(reshape.TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k > 0:
        steps.append(reshape.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1.0:
        steps.append(reshape.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0.0:
        steps.append(reshape.MinPLogitsWarper(sampling.min_p))
    for step in steps:
        logits = step(previous_ids, logits)
    return logits


BLOCK = 256
"""Tokens of a block of the cumulative sum."""


def inverse_cdf(logits: Tensor, uniform: Tensor) -> Tensor:
    """The token at which the cumulative softmax passes ``uniform``: one draw a row, decided by one number.

    Args:
        logits: float32, shape ``(R, V)``; ``-inf`` marks tokens that cannot be drawn.
        uniform: float64 draws from [0, 1), shape ``(R,)``.

    Returns:
        Token ids, shape ``(R,)``. Sums run over blocks of tokens first and then inside one block, in float64 across
        blocks: large vocabularies keep their tails, and one pass over the logits is enough.

    >>> inverse_cdf(torch.tensor([[0.0, 0.0], [0.0, 0.0]]), torch.tensor([0.4, 0.6], dtype=torch.float64)).tolist()
    [0, 1]
    """
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    weights = functional.pad(weights, (0, -weights.shape[-1] % BLOCK)).view(len(weights), -1, BLOCK)
    blocks = weights.sum(-1).double()
    until = blocks.cumsum(-1)
    threshold = (uniform.to(until) * until[:, -1]).unsqueeze(-1)
    block = torch.searchsorted(until, _below(threshold, until), right=True)
    inside = weights[torch.arange(len(weights), device=weights.device), block.squeeze(-1)].double().cumsum(-1)
    rest = (threshold - (until - blocks).gather(-1, block)).clamp(min=0)
    return (block * BLOCK + torch.searchsorted(inside, _below(rest, inside), right=True)).squeeze(-1)


def _below(threshold: Tensor, cumulative: Tensor) -> Tensor:
    """The threshold kept below the end of the sum: rounding never passes the last token that can be drawn."""
    end = cumulative[:, -1:]
    return torch.minimum(threshold, torch.nextafter(end, torch.zeros_like(end)))
