"""Ranking objectives of mean log-probs, without a reference: PRO and RRHF.

Legend: ``groups`` G, ``K`` completions of one prompt. ``m_k = log pi(y_k|x) / |y_k|`` (nats a token), ``v_k`` the
completion's reward. The record's reference is not read; its lengths are. Both papers add the likelihood of the best
completion, summed over its tokens: that is a term of its own, added to the loss elsewhere.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.comparisons import differences
from setsail.objectives.records import GroupLogProbs, check_positive, check_values


def pro(logps: GroupLogProbs, values: Tensor, beta: float = 1.0) -> Tensor:
    """Preference ranking optimization: each completion against all worse ones, scaled by how much worse they are.

        loss = sum_k -log [ exp(m_k g_k) / ( exp(m_k g_k) + sum_{i: v_i < v_k} exp(m_i (v_k - v_i)) ) ]
        m = beta * mean log-prob,  g_k = max_i (v_k - v_i), the gap to the worst

    Args:
        logps: log-probs of the completions, nats, with their lengths.
        values: rewards, shape ``(groups, K)``, constants; a constant added to a group changes nothing, a factor does.
        beta: scale of the mean log-probs, > 0; 1 in the paper, whose inverse temperatures are the reward gaps.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient raises mean log-probs of better completions and lowers
        those of worse ones; a completion's own log-prob moves in proportion to 1/length. At K = 2 it is
        ``softplus(-(v_1 - v_2) (m_1 - m_2))``.

    Raises:
        ValueError: beta <= 0; no lengths in the record; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2306.17492, the ranking loss with reward gaps as inverse temperatures. Deviation: completions of equal
    value are masked out of each other's denominators, where the paper's temperature 1 / (v_k - v_i) is infinite. The
    paper's likelihood term (in its code ``.05 (K - 1)^2`` times the summed negative log-likelihood of the best) is
    not part of it.

    >>> record = GroupLogProbs(torch.tensor([[-4.0, -5.0]]), torch.zeros(1, 2), torch.tensor([[2, 2]]))
    >>> round(pro(record, torch.tensor([[1.5, 0.0]])).item(), 6)
    0.386871
    """
    check_positive("beta", beta)
    check_values(values, logps)
    score = beta * logps.per_token().policy
    gap = differences(values)
    own = score * gap.amax(-1)
    worse = torch.where(gap > 0, score.unsqueeze(-2) * gap, -torch.inf)
    return (torch.cat([own.unsqueeze(-1), worse], dim=-1).logsumexp(-1) - own).sum(-1)


def rrhf(logps: GroupLogProbs, values: Tensor, beta: float = 1.0) -> Tensor:
    """RRHF's ranking term: a hinge without margin on every pair whose mean log-probs are in the wrong order.

        loss = sum_{i, j: v_i > v_j} max(0, m_j - m_i),   m = beta * mean log-prob

    Args:
        logps: log-probs of the completions, nats, with their lengths.
        values: what ranks them, shape ``(groups, K)``, constants; only their order matters.
        beta: scale of the mean log-probs, > 0, hence of the loss against the likelihood term; 1 in the paper.

    Returns:
        Loss of each group, shape ``(groups,)``: zero, with zero gradient, once the order is right. Its gradient moves
        every misordered pair with the same force, however wrong.

    Raises:
        ValueError: beta <= 0; no lengths in the record; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2304.05302, the ranking loss. The negative log-likelihood of the best completion is not part of it;
    alone, the hinge does not keep the policy a language model.

    >>> record = GroupLogProbs(torch.tensor([[-4.0, -3.0]]), torch.zeros(1, 2), torch.tensor([[2, 2]]))
    >>> rrhf(record, torch.tensor([[1.0, 0.0]])).item()
    0.5
    """
    check_positive("beta", beta)
    check_values(values, logps)
    score = beta * logps.per_token().policy
    return ((differences(values) > 0) * functional.relu(-differences(score))).sum((-2, -1))
