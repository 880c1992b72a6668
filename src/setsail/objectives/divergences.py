"""DPO under another divergence from the reference: f-DPO.

Legend: ``h(y) = log pi(y|x) - log pi_ref(y|x)``, shape ``(pairs,)``, nats; ``t = exp(h)`` the ratio of probabilities.
A *link* is f'(t) of the divergence ``D_f = E_ref[f(t)]``, as a function of h and up to a constant, which cancels in
a difference. Ratios are never formed: links are computed from h.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.pairwise import dpo
from setsail.objectives.records import LogProbs, check_positive
from setsail.objectives.soft_labels import label_average

Divergence = Literal["reverse_kl", "forward_kl", "jensen_shannon", "alpha"]


def _bounded(exponent: Tensor) -> Tensor:
    """The exponent clamped from above, so that the square of its exponential (a gradient's norm) is representable."""
    return exponent.clamp(max=0.4 * math.log(torch.finfo(exponent.dtype).max))


def _forward_kl(log_ratio: Tensor, alpha: float) -> Tensor:
    return -_bounded(-log_ratio).exp()


def _jensen_shannon(log_ratio: Tensor, alpha: float) -> Tensor:
    return functional.logsigmoid(log_ratio)


def _alpha(log_ratio: Tensor, alpha: float) -> Tensor:
    return -_bounded(-alpha * log_ratio).expm1() / alpha


LINKS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "forward_kl": _forward_kl,
    "jensen_shannon": _jensen_shannon,
    "alpha": _alpha,
}


def f_dpo(
    logps: LogProbs,
    p: Tensor | None = None,
    beta: float = 0.1,
    divergence: Divergence = "reverse_kl",
    alpha: float = 0.5,
) -> Tensor:
    """DPO whose optimum pays for reward with another divergence from the reference than KL(pi || pi_ref).

        loss = - P log sigmoid(w) - (1 - P) log sigmoid(-w),   w = beta (f'(t1) - f'(t2)),   t = exp(h)

        reverse_kl      f'(t) = log t          KL(pi || pi_ref): DPO itself
        forward_kl      f'(t) = - 1 / t        KL(pi_ref || pi)
        jensen_shannon  f'(t) = log(2t / (1 + t))
        alpha           f'(t) = (1 - t^-alpha) / alpha, between the two: alpha to 0 is reverse, alpha to 1 forward

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: strength of the penalty, > 0. Its scale depends on the divergence: the forward direction grows
            as ``1 / t`` and was published with betas down to 1e-5.
        divergence: one of the four above.
        alpha: in (0, 1), read for the alpha divergence only.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta (P - sigmoid(w)) (a1 s1 - a2 s2)`` with
        ``s = grad log pi`` and ``a = t f''(t)``: 1, 1/t, 1/(1 + t) and t^-alpha. It vanishes where ``sigmoid(w) = P``:
        for P from rewards R, where ``f'(pi / pi_ref) = R / beta`` up to a constant of the prompt. A constant on both
        log-probs cancels for reverse_kl only. Exponents above 0.4 log(largest float), 35 in float32, are clamped: a
        completion that the policy has driven that far down has no gradient of its own.

    Raises:
        ValueError: beta <= 0, a divergence of another name, alpha outside (0, 1), p of another shape or outside [0, 1].

    Source: arXiv 2309.16240, the generalized loss and its table of derivatives f'. The alpha here is the paper's; TRL's
    ``f_alpha_divergence_coef`` is one minus it (equal only at the default, 0.5).

    >>> logps = LogProbs(torch.tensor([1.0]), torch.tensor([-1.0]), torch.zeros(1), torch.zeros(1))
    >>> [round(f_dpo(logps, divergence=each).item(), 6) for each in ("reverse_kl", "forward_kl", "jensen_shannon")]
    [0.598139, 0.582517, 0.644397]
    """
    if divergence == "reverse_kl":
        return dpo(logps, p, beta)
    check_positive("beta", beta)
    if divergence not in LINKS:
        raise ValueError(f"divergence must be one of reverse_kl, {', '.join(LINKS)}, got {divergence!r}")
    if divergence == "alpha" and not 0 < alpha < 1:
        raise ValueError(
            f"alpha must lie strictly between 0 and 1, got {alpha}; its limits are divergence='reverse_kl' (alpha 0) "
            "and 'forward_kl' (alpha 1)"
        )
    link = LINKS[divergence]
    first = link(logps.policy_first - logps.reference_first, alpha)
    second = link(logps.policy_second - logps.reference_second, alpha)
    w = beta * (first - second)
    return label_average(-functional.logsigmoid(w), -functional.logsigmoid(-w), p, logps)
