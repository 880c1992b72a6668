"""Other curves of the log-ratio difference than the logistic loss: EXO, DiscoPOP.

Legend: ``d`` is the log-ratio difference of a pair, ``u = beta * d``, shape ``(pairs,)``, nats.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive
from setsail.objectives.soft_labels import label_average


def exo_pair(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1, label_smoothing: float = 1e-3) -> Tensor:
    """Efficient exact optimization: the *reverse* KL from the policy's preference to the label's, mode-seeking.

        loss = P KL(q || (1 - eps, eps)) + (1 - P) KL(q || (eps, 1 - eps)),   q = (sigmoid(u), sigmoid(-u))

    DPO is the forward KL, ``KL(label || q)``, of the same two distributions.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the margin, > 0.
        label_smoothing: eps in (0, 0.5): a hard label has no finite reverse KL, so it keeps this much doubt.

    Returns:
        Loss of each pair, shape ``(pairs,)``, nats. Its gradient is
        ``beta sigmoid(u) sigmoid(-u) (u - (2P - 1) logit(1 - eps)) (s1 - s2)``: at rest at a finite margin, 6.9 for
        the default eps, and nearly zero for pairs that the policy ranks wrong with confidence.

    Raises:
        ValueError: beta <= 0, label_smoothing outside (0, 0.5), p of another shape or outside [0, 1].

    Source: arXiv 2402.00856, equation 16 (preferences, K = 2). A soft label averages the two losses, as everywhere
    here; it is not the KL to the averaged label.

    >>> zero = torch.zeros(1)
    >>> round(exo_pair(LogProbs(zero, zero, zero, zero)).item(), 6)
    2.761231
    """
    check_positive("beta", beta)
    if not 0 < label_smoothing < 0.5:
        raise ValueError(
            f"label_smoothing must lie in (0, 0.5), got {label_smoothing}: the reverse KL to a certain label is "
            "infinite; 1e-3 is usual"
        )
    u = beta * logps.log_ratio_difference()
    chance, log_chance, log_other = torch.sigmoid(u), functional.logsigmoid(u), functional.logsigmoid(-u)
    log_high, log_low = math.log1p(-label_smoothing), math.log(label_smoothing)
    negative_entropy = chance * log_chance + torch.sigmoid(-u) * log_other
    if_first = negative_entropy - chance * log_high - torch.sigmoid(-u) * log_low
    if_second = negative_entropy - chance * log_low - torch.sigmoid(-u) * log_high
    return label_average(if_first, if_second, p, logps)


def discopop(logps: LogProbs, p: Tensor | None = None, beta: float = 0.05, tau: float = 0.05) -> Tensor:
    """DiscoPOP, the log-ratio modulated loss: exponential beyond the reference's margin, logistic before it.

        loss = P f(u) + (1 - P) f(-u),   f(u) = (1 - sigmoid(u / tau)) (-log sigmoid(u)) + sigmoid(u / tau) exp(-u)

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the margin, > 0.
        tau: width of the transition, in units of u, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``. It is not convex in u: around u = 0 it rises with the margin where the
        exponential takes over from the logistic (its value at 0 is (1 + log 2) / 2, above log 2).

    Raises:
        ValueError: beta <= 0, tau <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2406.08414, equation 5; beta and tau as published.

    >>> zero = torch.zeros(1)
    >>> round(discopop(LogProbs(zero, zero, zero, zero)).item(), 6)
    0.846574
    """
    check_positive("beta", beta)
    check_positive("tau", tau)
    u = beta * logps.log_ratio_difference()
    return label_average(_modulated(u, tau), _modulated(-u, tau), p, logps)


def _modulated(u: Tensor, tau: float) -> Tensor:
    # The weight of the exponential goes inside its exponent: apart, 0 times infinity at a large negative margin.
    exponential = (functional.logsigmoid(u / tau) - u).exp()
    return torch.sigmoid(-u / tau) * -functional.logsigmoid(u) + exponential
