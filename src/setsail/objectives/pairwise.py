"""Pairwise objectives of the log-ratio difference: DPO, IPO, SLiC.

Legend: ``h(y) = log pi(y|x) - log pi_ref(y|x)``, ``d = h(y1) - h(y2)`` and ``u = beta * d`` (nats). Each objective
is a loss of ``d`` when the first completion is preferred; a soft label ``p`` averages the two hard-label losses,
``p * loss(d) + (1 - p) * loss(-d)``, so a gradient through ``p`` is the label-score term of a label drawn from it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive, check_preference
from setsail.objectives.soft_labels import label_average


def dpo(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, label_smoothing: float = 0.0) -> Tensor:
    """Direct preference optimization: the label's negative log-likelihood under the implicit reward.

        loss = - P log sigmoid(u) - (1 - P) log sigmoid(-u),   u = beta * d,   P = (1 - eps) p + eps (1 - p)

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: inverse strength of the KL penalty to the reference, > 0.
        label_smoothing: eps in [0, 0.5), the assumed share of flipped labels (conservative DPO).

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta (P - sigmoid(u)) (s1 - s2)`` with
        ``s = grad log pi`` (plus ``-u grad P`` where p carries gradient): the pair's margin moves until
        ``sigmoid(u) = P``.

    Raises:
        ValueError: beta <= 0, label_smoothing outside [0, 0.5), p of another shape or outside [0, 1].

    Source: arXiv 2305.18290, equation 7; label smoothing as in its conservative variant.

    >>> zero = torch.zeros(1)
    >>> round(dpo(LogProbs(zero, zero, zero, zero)).item(), 6)
    0.693147
    """
    check_positive("beta", beta)
    if not 0 <= label_smoothing < 0.5:
        raise ValueError(f"label_smoothing must lie in [0, 0.5), got {label_smoothing}: at 0.5 a label says nothing")
    u = beta * logps.log_ratio_difference()
    if label_smoothing:
        p = torch.ones_like(u) if p is None else p
        # Before smoothing, which would pull a p outside [0, 1] back in.
        check_preference(p, logps)
        p = (1 - label_smoothing) * p + label_smoothing * (1 - p)
    return label_average(-functional.logsigmoid(u), -functional.logsigmoid(-u), p, logps)


def ipo(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, length_normalize: bool = False) -> Tensor:
    """Identity preference optimization: regress the log-ratio difference onto a fixed margin.

        loss = P (d - 1/(2 beta))^2 + (1 - P) (d + 1/(2 beta))^2

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred; None = 1. It may carry gradient.
        beta: tau of the paper, > 0.
        length_normalize: divide each log-prob by its completion's length first. The paper's equation has
            sums; its authors and the common implementations use means, so that long answers do not dominate.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient vanishes at ``d = (2P - 1) / (2 beta)``: unlike
        DPO, a certain label asks for a finite margin.

    Raises:
        ValueError: beta <= 0; length_normalize without lengths in the record.

    Source: arXiv 2310.12036, equation 17. For soft P the label average differs from
    ``(d - (2P - 1)/(2 beta))^2`` by a term without gradient in d.

    >>> d = torch.tensor([5.0]); zero = torch.zeros(1)
    >>> ipo(LogProbs(d, zero, zero, zero)).item()
    0.0
    """
    check_positive("beta", beta)
    d = (logps.per_token() if length_normalize else logps).log_ratio_difference()
    margin = 1 / (2 * beta)
    return label_average((d - margin).square(), (d + margin).square(), p, logps)


def slic(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Hinge loss on the implicit reward margin (the calibration term of SLiC-HF, with a reference).

        loss = P max(0, 1 - u) + (1 - P) max(0, 1 + u),   u = beta * d

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred; None = 1. It may carry gradient.
        beta: scale of the margin, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``. A pair stops pulling once its margin exceeds 1.

    Raises:
        ValueError: beta <= 0.

    Source: arXiv 2305.10425, equation 1, with the log-ratio to the reference in place of the log-prob, as in
    arXiv 2309.06657 (hinge in table 1) and the common implementations. The paper's separate
    likelihood regularizer is not part of it.

    >>> zero = torch.zeros(1)
    >>> slic(LogProbs(zero, zero, zero, zero)).item()
    1.0
    """
    check_positive("beta", beta)
    u = beta * logps.log_ratio_difference()
    return label_average(functional.relu(1 - u), functional.relu(1 + u), p, logps)
