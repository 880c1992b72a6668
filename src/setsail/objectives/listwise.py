"""Learning to rank on implicit rewards: LiPO's lambda-weighted loss, and its framework's RankNet and ListNet.

Legend: ``groups`` G, ``K`` completions of one prompt. ``s_k = beta * (log pi(y_k|x) - log pi_ref(y_k|x))`` is the
score of a completion, ``v_k`` its value. Only differences of scores matter, so the gradient over the K log-probs sums
to zero. The framework's list-MLE is :func:`setsail.objectives.plackett_luce_dpo`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.comparisons import differences, places
from setsail.objectives.records import GroupLogProbs, check_positive, check_values


def rank_net(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """Pair-logistic loss: DPO on every pair of the group whose values differ, summed.

        loss = sum_{i, j: v_i > v_j} -log sigmoid(s_i - s_j)

    Args:
        logps: log-probs of the completions, nats.
        values: what ranks them, shape ``(groups, K)``, constants; only their order matters.
        beta: inverse strength of the KL penalty to the reference, > 0.

    Returns:
        Loss of each group, shape ``(groups,)``: a sum over up to K (K - 1) / 2 pairs, not their mean. Its gradient
        widens each margin until the pair's order is certain; pairs of equal value do not count. At K = 2 it is
        :func:`setsail.objectives.dpo`.

    Raises:
        ValueError: beta <= 0; values of another shape, not finite, or fewer than two a group.

    Source: the pair-logistic member of the framework of arXiv 2402.01878.

    >>> zero = torch.zeros(1, 3)
    >>> round(rank_net(GroupLogProbs(zero, zero), torch.tensor([[0.2, 0.9, 0.5]])).item(), 6)
    2.079442
    """
    check_positive("beta", beta)
    check_values(values, logps)
    scores = beta * logps.log_ratio()
    return _weighted_pair_logistic(scores, (differences(values) > 0).to(scores.dtype))


def lipo(logps: GroupLogProbs, values: Tensor, beta: float = 0.05, discount_base: float = math.e) -> Tensor:
    """LiPO-lambda: the pair-logistic loss, each pair weighted by what swapping it does to a discounted gain.

        loss = sum_{i, j: v_i > v_j} D_ij * -log sigmoid(s_i - s_j)
        D_ij = |2^v_i - 2^v_j| * |1 / log(1 + rank_i) - 1 / log(1 + rank_j)|

    ``rank`` is the place by *current* score (1 = highest); the weights are constants of the step.

    Args:
        logps: log-probs of the completions, nats.
        values: shape ``(groups, K)``, constants, in [0, 1] in the paper: the mean probability that the completion beats
            the others of its group. Their differences count, not only their order.
        beta: inverse strength of the KL penalty to the reference, > 0; .05 in the paper.
        discount_base: base of the logarithm in D, > 1; e in the paper. Base 2, usual in ranking, multiplies every
            weight, hence the loss, by ln 2.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient is the weighted one of :func:`rank_net`. At K = 2 it is
        DPO times ``|2^v_1 - 2^v_2| (1/ln 2 - 1/ln 3)``, .53 at most for values in [0, 1]: the useful learning rate
        differs from DPO's.

    Raises:
        ValueError: beta <= 0; discount_base <= 1; values of another shape, not finite, or fewer than two a group.

    Source: arXiv 2402.01878 (the lambda loss). Deviation: equal scores, as at the start of training, are ranked by
    their values, not by their place in the list.

    >>> zero = torch.zeros(1, 2)
    >>> round(lipo(GroupLogProbs(zero, zero), torch.tensor([[1.0, 0.0]])).item(), 6)
    0.36907
    """
    check_positive("beta", beta)
    if not 1 < discount_base < math.inf:
        raise ValueError(f"discount_base is the base of a logarithm above 1, got {discount_base}; e or 2 are usual")
    check_values(values, logps)
    scores = beta * logps.log_ratio()
    # Sorted, not counted: equal scores would share a rank and get no weight, and no policy would leave its reference.
    rank = 1 + places(scores.detach(), values, descending=True)
    discount = math.log(discount_base) / torch.log1p(rank.to(scores.dtype))
    weight = differences(values.exp2()).abs() * differences(discount).abs()
    return _weighted_pair_logistic(scores, weight * (differences(values) > 0))


def list_net(logps: GroupLogProbs, values: Tensor, beta: float = 0.1, temperature: float = 1.0) -> Tensor:
    """Cross-entropy between the softmax of the values and the softmax of the scores.

        loss = - sum_k softmax(v / temperature)_k log softmax(s)_k

    Args:
        logps: log-probs of the completions, nats.
        values: rewards, shape ``(groups, K)``, constants; a constant added to a group changes nothing.
        beta: inverse strength of the KL penalty to the reference, > 0.
        temperature: how soft the labels are, > 0, in units of the values.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient in s is ``softmax(s) - softmax(v / temperature)``: it
        vanishes where the scores equal ``v / temperature`` up to a constant. So at temperature 1 the policy
        ``pi_ref exp(v / beta) / Z``, which maximizes reward minus beta times the KL, is an optimum whoever drew the
        completions. Equal values ask for equal scores.

    Raises:
        ValueError: beta or temperature <= 0; values of another shape, not finite, or fewer than two a group.

    Source: ListNet (Cao et al., ICML 2007), as a member of the framework of arXiv 2402.01878.

    >>> zero = torch.zeros(1, 2)
    >>> round(list_net(GroupLogProbs(zero, zero), torch.tensor([[3.0, -1.0]])).item(), 6)
    0.693147
    """
    check_positive("beta", beta)
    check_positive("temperature", temperature)
    check_values(values, logps)
    label = (values / temperature).softmax(-1)
    return -(label * (beta * logps.log_ratio()).log_softmax(-1)).sum(-1)


def _weighted_pair_logistic(scores: Tensor, weight: Tensor) -> Tensor:
    """``sum_ij weight_ij * -log sigmoid(s_i - s_j)`` of each group."""
    return (weight * -functional.logsigmoid(differences(scores))).sum((-2, -1))
