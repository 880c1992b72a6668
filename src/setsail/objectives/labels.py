"""The policy as its own labeler: the preference that its implicit reward states."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive


def implicit_preference(logps: LogProbs, beta: float = 0.1) -> Tensor:
    """``q = sigmoid(u)``: how likely the policy's implicit reward finds the first completion better.

    ``u = beta * d`` with d the log-ratio difference; shape ``(pairs,)``. Gradient flows into the policy: used as
    the label ``p`` of an objective, it gives the label-score term of a self-labeled pair.

    Source: arXiv 2406.15567, the self-improvement oracle; arXiv 2305.18290, equation 5.

    >>> zero = torch.zeros(1)
    >>> implicit_preference(LogProbs(zero, zero, zero, zero)).item()
    0.5
    """
    check_positive("beta", beta)
    return torch.sigmoid(beta * logps.log_ratio_difference())


def preference_entropy(logps: LogProbs, beta: float = 0.1) -> Tensor:
    """Entropy of the implicit preference, ``H(sigmoid(u))``, nats, shape ``(pairs,)``.

    ``dH/du = -u sigmoid(u) sigmoid(-u)``: minimizing it drives u away from zero, that is, it sharpens what the
    policy already prefers. It equals :func:`dpo` with ``p = implicit_preference(logps)``.

    >>> u = torch.tensor([7.0]); zero = torch.zeros(1)
    >>> round(preference_entropy(LogProbs(u, zero, zero, zero)).item(), 6)
    0.635455
    """
    check_positive("beta", beta)
    u = beta * logps.log_ratio_difference()
    return torch.sigmoid(u) * functional.softplus(-u) + torch.sigmoid(-u) * functional.softplus(u)


def draw_preference(p: Tensor, uniform: Tensor) -> Tensor:
    """A hard label drawn from ``p``: 1 (first preferred) where ``uniform < p``, else 0. No gradient.

    Args:
        p: probability that the first is preferred, shape ``(pairs,)``.
        uniform: one draw from [0, 1) a pair, from a named stream.

    >>> draw_preference(torch.tensor([0.3, 0.3]), torch.tensor([0.2, 0.4])).tolist()
    [1.0, 0.0]
    """
    if uniform.shape != p.shape:
        raise ValueError(f"one uniform a pair is needed, shape {tuple(p.shape)}, got {tuple(uniform.shape)}")
    return (uniform < p.detach()).to(p.dtype)
