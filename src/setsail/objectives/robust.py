"""Robustness to wrong labels, as a transform of any pairwise objective."""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.objectives.records import LogProbs, PairwiseObjective, check_preference


def robust(objective: PairwiseObjective, radius: float) -> PairwiseObjective:
    """The worst case of ``objective`` over preferences within ``radius`` of the given one.

        loss_robust(p) = max over p' in [p - radius, p + radius], 0 <= p' <= 1, of loss(p')

    Every objective here is linear in p, so the worst case sits at an end of the interval. For DPO it is
    ``loss + radius |u|`` in the interior and ``-F + radius max(u, 0)`` for a hard label: a penalty on confident
    margins, which counters the sharpening of self-labeled routes.

    Args:
        objective: a pairwise objective with its parameters bound.
        radius: largest label error assumed, in [0, 1]; 0 returns ``objective`` itself.

    Raises:
        ValueError: radius outside [0, 1].

    Source: arXiv 2602.20457 (pointwise oracle uncertainty); the closed forms are derived and tested here.

    >>> from setsail.objectives import dpo
    >>> u = torch.tensor([7.0]); zero = torch.zeros(1)
    >>> round(robust(dpo, 0.1)(LogProbs(u, zero, zero, zero), torch.tensor([0.6])).item(), 6)
    0.753186
    """
    if not 0 <= radius <= 1:
        raise ValueError(f"the robust radius is a label error in [0, 1], got {radius}")
    if radius == 0:
        return objective

    def worst_case(logps: LogProbs, p: Tensor | None = None) -> Tensor:
        p = torch.ones_like(logps.policy_first) if p is None else p
        # Before clamping, which would hide a p outside [0, 1].
        check_preference(p, logps)
        low, high = (p - radius).clamp(min=0.0), (p + radius).clamp(max=1.0)
        return torch.maximum(objective(logps, low), objective(logps, high))

    return worst_case
