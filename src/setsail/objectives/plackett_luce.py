"""The likelihood of a ranking under the implicit rewards (Plackett-Luce), and its worst case over rankings.

Legend: ``groups`` G, ``K`` completions of one prompt. ``s_k = beta * (log pi(y_k|x) - log pi_ref(y_k|x))`` is the
implicit reward up to a constant of the prompt, which cancels in every objective here. A ranking is the order of the
values, highest first: only their order matters, any increasing transform of them gives the same loss. Completions of
equal value are not compared with each other.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.objectives.comparisons import differences, places
from setsail.objectives.records import GroupLogProbs, check_positive, check_values


def plackett_luce_dpo(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """DPO on a ranking of K completions: the ranking's negative log-likelihood under the implicit rewards.

        loss = sum_k [ log( exp(s_k) + sum_{j: v_j < v_k} exp(s_j) ) - s_k ]

    Each completion is drawn, in turn, from those ranked no higher. :data:`list_mle` is another name for it.

    Args:
        logps: log-probs of the completions, nats.
        values: what ranks them, shape ``(groups, K)``, constants.
        beta: inverse strength of the KL penalty to the reference, > 0.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient raises each completion's log-prob by beta and lowers
        those of its pool by beta times their share ``exp(s_j) / sum exp(s)``, over all k; it sums to zero over K.
        At K = 2 it is :func:`setsail.objectives.dpo`.

    Raises:
        ValueError: beta <= 0; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2305.18290, appendix A.3; as list-MLE in arXiv 2402.01878. Deviation: neither defines
    ties. Here a completion's pool leaves out the others of equal value, so that the loss does not depend on the order
    in which they are listed; where all values are equal it is zero.

    >>> zero = torch.zeros(1, 3)
    >>> round(plackett_luce_dpo(GroupLogProbs(zero, zero), torch.tensor([[0.2, 0.9, 0.5]])).exp().item(), 4)
    6.0
    """
    check_positive("beta", beta)
    check_values(values, logps)
    return _negative_log_likelihood(beta * logps.log_ratio(), differences(values) > 0)


list_mle = plackett_luce_dpo
"""The same function under its name in learning to rank."""


def robust_listwise(logps: GroupLogProbs, values: Tensor, beta: float = 0.1, radius: float = 0.1) -> Tensor:
    """The worst case of :func:`plackett_luce_dpo` over rankings within total variation ``radius`` of the observed one.

        loss = (1 - radius) PL(observed ranking) + radius PL(completions in ascending order of s)

    The most unlikely ranking, of all K!, lists the completions from the lowest current score to the highest.

    Args:
        logps: log-probs of the completions, nats.
        values: what ranks them, shape ``(groups, K)``, constants.
        beta: inverse strength of the KL penalty to the reference, > 0.
        radius: largest probability that the observed ranking is wrong, in [0, 1]; 0 is the plain loss.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient is the plain one times (1 - radius) plus one that
        flattens the scores: confident margins cost. Where scores are equal, every order of them is as unlikely, and
        the observed one is taken: at the reference the gradient is that of the plain loss. At K = 2 and distinct
        values it is ``-log sigmoid(u) + radius max(u, 0)``, :func:`setsail.objectives.robust` of DPO at a hard label.

    Raises:
        ValueError: beta <= 0; radius outside [0, 1]; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2607.01715 (the decomposition, and the ascending order as the worst case). Its response-score term
    belongs to the sampling, not to this loss.

    >>> record = GroupLogProbs(torch.tensor([[7.0, 0.0]]), torch.zeros(1, 2))
    >>> round(robust_listwise(record, torch.tensor([[1.0, 0.0]]), radius=0.1).item(), 6)
    0.473186
    """
    if not 0 <= radius <= 1:
        raise ValueError(f"the robust radius is the probability of a wrong ranking, in [0, 1], got {radius}")
    observed = plackett_luce_dpo(logps, values, beta)
    if radius == 0:
        return observed
    scores = beta * logps.log_ratio()
    place = places(scores.detach(), values, descending=False)
    worst = _negative_log_likelihood(scores, differences(place) < 0)
    return (1 - radius) * observed + radius * worst


def _negative_log_likelihood(scores: Tensor, above: Tensor) -> Tensor:
    """``sum_k [logsumexp of s over k and those it stands above - s_k]``; ``above[g, k, j]``: k ranks above j."""
    itself = torch.eye(scores.shape[-1], dtype=torch.bool, device=scores.device)
    pool = torch.where(above | itself, scores.unsqueeze(-2), -torch.inf)
    return (pool.logsumexp(-1) - scores).sum(-1)
