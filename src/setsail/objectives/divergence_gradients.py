"""f-DPG: fit the policy to a target distribution in any f-divergence, by policy gradient with a pseudo-reward.

Legend: ``groups`` G, ``K`` completions of one prompt. The target is ``p(y|x) = pi_ref(y|x) exp(r / beta) / Z(x)``, the
policy that maximizes reward minus beta times the KL; it is known up to Z. ``t = pi(y|x) / p(y|x)``. A divergence is
``D_f(pi || p) = E_{y ~ p}[f(t)]``; *forward* has the target first, *reverse* the policy first.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.policy_gradient import above_baseline, at_sampling, score_surrogate
from setsail.objectives.records import GroupLogProbs, check_positive, check_values

Divergence = Literal["forward_kl", "reverse_kl", "total_variation", "jensen_shannon", "forward_chi2", "reverse_chi2"]


def _power(exponent: Tensor) -> Tensor:
    """``exp(exponent) - 1``, the exponent clamped from above so that the square of the result is representable."""
    return exponent.clamp(max=0.4 * math.log(torch.finfo(exponent.dtype).max)).expm1()


# -f'(t) as a function of log t.
_PSEUDO_REWARDS: Mapping[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {
        "forward_kl": lambda log_t: _power(-log_t) + 1,
        "reverse_kl": lambda log_t: -(log_t + 1),
        "total_variation": lambda log_t: -0.5 * torch.sign(log_t),
        "jensen_shannon": lambda log_t: -(math.log(2) + functional.logsigmoid(log_t)),
        "forward_chi2": lambda log_t: _power(-2 * log_t),
        "reverse_chi2": lambda log_t: -2 * _power(log_t),
    }
)


def f_dpg(
    logps: GroupLogProbs,
    values: Tensor,
    beta: float = 0.1,
    divergence: Divergence = "forward_kl",
    log_partition: Tensor | None = None,
    baseline: Tensor | float = 0.0,
    old_policy: Tensor | None = None,
) -> Tensor:
    """Distributional policy gradient for any f-divergence between the policy and the tilted reference.

        loss = - mean_k sg( rho_k (-f'(t_k) - b) ) log pi(y_k),   log t = h - r / beta + log Z

    Args:
        logps: log-probs of the completions, nats; samples of the policy, or of ``old_policy``.
        values: rewards r, shape ``(groups, K)``, constants.
        beta: temperature of the target, > 0.
        divergence: ``forward_kl`` KL(p || pi), ``reverse_kl`` KL(pi || p), ``total_variation``, ``jensen_shannon``
            (twice the usual one), ``forward_chi2`` (p || pi) or ``reverse_chi2`` (pi || p).
        log_partition: log Z(x), one a group, shape ``(groups,)``; None = estimated for each completion from the
            *others* of its group, :func:`log_partition_leave_one_out`.
        baseline: b, a number or one a group, in units of the pseudo-reward; a running mean of
            :func:`f_pseudo_reward` is the paper's. It must not depend on the group's own completions.
        old_policy: log-probs under the policy that drew the completions, shape ``(groups, K)``; None = the current one.

    Returns:
        Surrogate of each group, shape ``(groups,)``. Its value has no meaning; given Z, the expectation of its
        gradient is that of D_f, whatever the baseline. With the estimate, a constant added to a group's rewards
        changes nothing, and the expectation is exact for ``reverse_kl`` and ``reverse_chi2`` (linear in log Z and Z),
        right up to a factor E[Z / Z_estimate] >= 1 for ``forward_kl``, and biased for the others, less so the larger K.
        ``reverse_kl`` is :func:`setsail.objectives.reinforce` with rewards r / beta and a KL penalty of 1.

    Raises:
        ValueError: beta <= 0; an unknown divergence; a tensor of another shape; values not finite; one completion a
            group where Z is to be estimated.

    Source: arXiv 2302.08215, theorem 1 and table 1. Deviation: Z is the paper's moving average of each prompt only if
    the caller keeps one. Pseudo-rewards of the forward divergences grow like p / pi or its square, that of
    ``reverse_chi2`` like pi / p; exponents above 0.4 log(largest float), 35 in float32, are clamped.

    >>> record = GroupLogProbs(torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2))
    >>> f_dpg(record, torch.zeros(1, 2), log_partition=torch.zeros(1)).sum().backward()
    >>> record.policy.grad.tolist()
    [[-0.5, -0.5]]
    """
    check_positive("beta", beta)
    check_values(values, logps, at_least=2 if log_partition is None else 1)
    if log_partition is None:
        log_z = log_partition_leave_one_out(logps, values, beta, old_policy)
    elif log_partition.shape == values.shape[:1]:
        log_z = log_partition.unsqueeze(-1)
    else:
        raise ValueError(
            f"log_partition must hold one number a group, shape {tuple(values.shape[:1])}, "
            f"got {tuple(log_partition.shape)}"
        )
    log_t = logps.log_ratio() - values / beta + log_z
    ratio = (logps.policy - at_sampling(logps, old_policy)).exp()
    return score_surrogate(logps, ratio * above_baseline(f_pseudo_reward(log_t, divergence), baseline))


def f_pseudo_reward(log_t: Tensor, divergence: Divergence) -> Tensor:
    """``-f'(t)`` at ``t = pi / p``, any shape: what policy gradient maximizes to minimize ``D_f(pi || p)``.

    ==================  ==========================================  ====================
    divergence          f(t)                                        -f'(t)
    ==================  ==========================================  ====================
    forward_kl          -log t                                      1 / t
    reverse_kl          t log t                                     -log t - 1
    total_variation     abs(1 - t) / 2                              -sign(t - 1) / 2
    jensen_shannon      t log(2t / (t+1)) + log(2 / (t+1))          -log(2t / (t+1))
    forward_chi2        (t - 1)^2 / t                               1 / t^2 - 1
    reverse_chi2        (t - 1)^2                                   -2 (t - 1)
    ==================  ==========================================  ====================

    Args:
        log_t: log t, nats.
        divergence: one of :data:`Divergence`.

    Raises:
        ValueError: an unknown divergence.

    Source: arXiv 2302.08215, table 1.

    >>> f_pseudo_reward(torch.zeros(1), "forward_kl").item()
    1.0
    """
    if divergence not in _PSEUDO_REWARDS:
        raise ValueError(f"unknown divergence {divergence!r}; choose one of {', '.join(_PSEUDO_REWARDS)}")
    return _PSEUDO_REWARDS[divergence](log_t)


def log_partition_leave_one_out(
    logps: GroupLogProbs, values: Tensor, beta: float = 0.1, old_policy: Tensor | None = None
) -> Tensor:
    """``log mean_{j != k} pi_ref(y_j) exp(r_j / beta) / q(y_j)``, q who drew them: log Z(x) without completion k.

    Returns:
        Shape ``(groups, K)``, without gradient. The mean is unbiased for Z and independent of ``y_k``; its logarithm is
        too small on average (Jensen), by about its relative variance / 2.

    Raises:
        ValueError: beta <= 0; values of another shape, not finite, or fewer than two a group.

    >>> zero = torch.zeros(1, 3)
    >>> log_partition_leave_one_out(GroupLogProbs(zero, zero), torch.tensor([[0.1, 0.1, 0.2]])).tolist()[0][2]
    1.0
    """
    check_positive("beta", beta)
    check_values(values, logps)
    log_weight = logps.reference - at_sampling(logps, old_policy) + values / beta
    count = log_weight.shape[-1]
    itself = torch.eye(count, dtype=torch.bool, device=log_weight.device)
    others = torch.where(itself, -torch.inf, log_weight.unsqueeze(-2))
    return others.logsumexp(-1) - math.log(count - 1)
