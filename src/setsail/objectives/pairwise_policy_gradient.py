"""P3O: policy gradient on reward differences. Legend as in :mod:`setsail.objectives.policy_gradient`, ``pairs`` the
K (K - 1) / 2 pairs of a group; ``_1`` and ``_2`` are the two completions of a pair.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from setsail.objectives.kl import k1
from setsail.objectives.policy_gradient import at_sampling, pessimistic
from setsail.objectives.records import GroupLogProbs, check_not_negative, check_positive, check_values


def p3o(
    logps: GroupLogProbs,
    values: Tensor,
    beta: float = 0.1,
    clip: float | None = 0.2,
    joint: bool = False,
    old_policy: Tensor | None = None,
) -> Tensor:
    """Pairwise proximal policy optimization: each completion against each other one of its group, with PPO's clipping.

        separate (V1)   -1/2 [ m(sg(D rho_2), rho_1) + m(sg(-D rho_1), rho_2) ],   m(w, rho) = min(w rho, w clip(rho))
        joint (V2)      -min(w u, w clip(u)),   w = sg(D rho_1 rho_2) / 2,   u = log rho_1 - log rho_2
        D = R_1 - R_2,   R = r - beta (log pi_old - log pi_ref),   the mean over the group's pairs

    Args:
        logps: log-probs of the completions, nats.
        values: rewards, shape ``(groups, K)``, constants; a constant added to a group changes nothing.
        beta: strength of the KL penalty, which stands in the reward, >= 0.
        clip: eps, > 0: ratios are kept in [1 - eps, 1 + eps], the joint log-ratio in +-log(1 + eps). None = unclipped.
        joint: clip the pair's log-ratio difference instead of each ratio.
        old_policy: log-probs when the completions were drawn, shape ``(groups, K)``; None = they are samples of the
            current policy and every ratio is 1.

    Returns:
        Surrogate of each group, shape ``(groups,)``. Its value has no meaning. Unclipped, its gradient is the mean over
        pairs of ``-1/2 D rho_1 rho_2 (s_1 - s_2)``, whose expectation is minus the gradient of ``E_pi[R]`` (of J where
        the completions are the current policy's); on policy it is the gradient of
        :func:`setsail.objectives.rloo`, for every K.

    Raises:
        ValueError: beta < 0 or clip <= 0; values or old_policy of another shape; values not finite or fewer than two.

    Source: arXiv 2310.00212 (pairwise policy gradient; V1 and V2 clipping). Deviations: the paper draws two completions
    a prompt, here all pairs of the group count; where exactly min and clip stand is our reading of "separate" and
    "joint". The gradient is that of a log-ratio *difference*: with ``log(pi(y1) pi(y2))``, as it is sometimes printed,
    its expectation would be zero.

    >>> record = GroupLogProbs(torch.tensor([[-2.0, -1.0]], requires_grad=True), torch.tensor([[-2.0, -1.0]]))
    >>> p3o(record, torch.tensor([[3.0, 1.0]])).sum().backward()
    >>> record.policy.grad.tolist()
    [[-1.0, 1.0]]
    """
    check_not_negative("beta", beta)
    if clip is not None:
        check_positive("clip", clip)
    check_values(values, logps)
    old = at_sampling(logps, old_policy)
    log_ratio = logps.policy - old
    reward = values - beta * k1(old, logps.reference)
    first, second = torch.triu_indices(values.shape[-1], values.shape[-1], offset=1, device=values.device)
    lead = (reward[:, first] - reward[:, second]).detach()
    gain = _joint if joint else _separate
    return -gain(lead, log_ratio[:, first], log_ratio[:, second], clip).mean(-1)


def _separate(lead: Tensor, first: Tensor, second: Tensor, clip: float | None) -> Tensor:
    """V1, to be maximized: each completion's ratio is clipped by itself, the other's is part of its weight."""
    low, high = (-math.inf, math.inf) if clip is None else (1 - clip, 1 + clip)
    ratio_first, ratio_second = first.exp(), second.exp()
    of_first = pessimistic((lead * ratio_second).detach(), ratio_first, low, high)
    of_second = pessimistic((-lead * ratio_first).detach(), ratio_second, low, high)
    return (of_first + of_second) / 2


def _joint(lead: Tensor, first: Tensor, second: Tensor, clip: float | None) -> Tensor:
    """V2, to be maximized: the difference of the two log-ratios is clipped."""
    bound = math.inf if clip is None else math.log1p(clip)
    return pessimistic((lead * (first + second).exp()).detach() / 2, first - second, -bound, bound)
