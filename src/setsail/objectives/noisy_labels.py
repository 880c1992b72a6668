"""A known share of flipped labels, corrected without bias: rDPO.

Legend: ``d`` is the log-ratio difference of a pair, ``u = beta * d``, shape ``(pairs,)``, nats.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive
from setsail.objectives.soft_labels import label_average


def robust_dpo(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, label_smoothing: float = 0.1) -> Tensor:
    """Robust DPO (rDPO): labels flipped with a known rate, the loss of the clean labels estimated without bias.

        loss = P c(u) + (1 - P) c(-u),   c(u) = ((1 - eps) l(u) - eps l(-u)) / (1 - 2 eps),   l(u) = -log sigmoid(u)

    Averaged over a flip of rate eps, ``(1 - eps) c(u) + eps c(-u) = l(u)``: the loss of DPO on the label before it was
    flipped, for every policy. Conservative DPO, :func:`dpo` with ``label_smoothing``, is the opposite correction: it
    fits the flipped labels' probability, and its margin stops at ``logit(1 - eps)``. :func:`robust` is a third thing,
    the worst case over labels nearby.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, as observed (flips included), shape ``(pairs,)``; None = 1.
        beta: strength of the KL penalty to the reference, > 0.
        label_smoothing: eps, the rate at which labels are flipped, in [0, 0.5); 0 gives DPO.

    Returns:
        Loss of each pair, shape ``(pairs,)``; for eps > 0 it has no lower bound. Its gradient at a hard label is
        ``-beta (sigmoid(-u) + eps / (1 - 2 eps)) (s1 - s2)`` with ``s = grad log pi``: unlike DPO's, the pull never
        falls below ``beta eps / (1 - 2 eps)``, however large the margin. Where all copies of a pair carry one label,
        margins grow without end; an overestimated rate does that.

    Raises:
        ValueError: beta <= 0, label_smoothing outside [0, 0.5), p of another shape or outside [0, 1].

    Source: arXiv 2403.00409, section 3.1; eps 0.1 as in its experiments. The argument is named as in common trainers.

    >>> import torch
    >>> zero = torch.zeros(1)
    >>> round(robust_dpo(LogProbs(torch.tensor([10.0]), zero, zero, zero)).item(), 6)
    0.188262
    """
    check_positive("beta", beta)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing must lie in [0, 0.5), got {label_smoothing}: labels flipped half of the time say nothing"
        )
    u = beta * logps.log_ratio_difference()
    if_first, if_second = -functional.logsigmoid(u), -functional.logsigmoid(-u)
    kept, flipped = (1 - label_smoothing) / (1 - 2 * label_smoothing), label_smoothing / (1 - 2 * label_smoothing)
    return label_average(kept * if_first - flipped * if_second, kept * if_second - flipped * if_first, p, logps)
