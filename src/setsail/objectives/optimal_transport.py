"""Objectives that compare distributions of margins instead of pairs: AOT.

Unlike every other pairwise objective these are functions of the *batch*: sorting matches a quantile of one distribution
with the same quantile of the other. The loss of a pair depends on the pairs around it; micro-batches do not add up to
the batch, and larger batches estimate the quantiles better. Labels are hard.

Legend: ``h(y) = log pi(y|x) - log pi_ref(y|x)``, shape ``(pairs,)``, nats; ``w`` is the preferred completion, ``l`` the
other; ``sort`` ascends over the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive, check_preference


def aot(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Alignment by optimal transport, paired: the policy's margins dominate the reference's, quantile by quantile.

        loss_i = - log sigmoid(beta (m_i - m_ref(i))),  m = lp(w) - lp(l),  m_ref(i) the reference margin of its rank

    First-order stochastic dominance: it does not matter *which* pair has the large margin. A batch of one pair is DPO.

    Args:
        logps: log-probs of the pairs of one batch, nats.
        p: hard labels: 1 (first preferred) or 0, shape ``(pairs,)``; None = 1.
        beta: scale of the margin, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``, at the pair that holds the rank; the paper's loss is the mean. Its
        gradient is ``-beta sigmoid(-z_i) (s_w - s_l)``, z_i the logit; ranks are constants.

    Raises:
        ValueError: beta <= 0, p of another shape, or (on the CPU) other than 0 and 1.

    Source: arXiv 2406.05882, section 3, with hard sorting and the logistic loss.

    >>> logps = LogProbs(torch.tensor([10.0, 0.0]), torch.zeros(2), torch.tensor([-10.0, 10.0]), torch.zeros(2))
    >>> [round(each, 6) for each in aot(logps).tolist()]
    [0.693147, 0.313262]
    """
    check_positive("beta", beta)
    oriented = _preferred_first(logps, p)
    margins = oriented.policy_first - oriented.policy_second
    reference = oriented.reference_first - oriented.reference_second
    return -functional.logsigmoid(beta * (margins - _of_equal_rank(margins, reference)))


def aot_unpaired(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Alignment by optimal transport, unpaired: rewards of chosen completions dominate those of rejected ones.

        loss_i = - log sigmoid(beta (h(w_i) - h_l(i))),   h_l(i) the rejected log-ratio of h(w_i)'s rank in the batch

    Which rejected completion belonged to which chosen one is not used. A batch of one pair is DPO.

    Args:
        logps: log-probs of the pairs of one batch, nats.
        p: hard labels: 1 (first preferred) or 0, shape ``(pairs,)``; None = 1.
        beta: scale of the log-ratios, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``, at the pair of the chosen completion; the paper's loss is the mean. Its
        gradient is ``-beta sigmoid(-z_i) (s_w - s_l')``, with z_i the logit and l' the completion of equal rank.

    Raises:
        ValueError: beta <= 0, p of another shape, or (on the CPU) other than 0 and 1.

    Source: arXiv 2406.05882, section 3, with hard sorting and the logistic loss.

    >>> logps = LogProbs(torch.tensor([10.0, 0.0]), torch.tensor([-10.0, 10.0]), torch.zeros(2), torch.zeros(2))
    >>> [round(each, 6) for each in aot_unpaired(logps).tolist()]
    [0.693147, 0.313262]
    """
    check_positive("beta", beta)
    oriented = _preferred_first(logps, p)
    chosen = oriented.policy_first - oriented.reference_first
    rejected = oriented.policy_second - oriented.reference_second
    return -functional.logsigmoid(beta * (chosen - _of_equal_rank(chosen, rejected)))


def _of_equal_rank(values: Tensor, others: Tensor) -> Tensor:
    """For each value the element of ``others`` with its rank: what one-dimensional optimal transport sends it to."""
    ranks = values.detach().argsort(stable=True).argsort(stable=True)
    return others.sort(stable=True).values[ranks]


def _preferred_first(logps: LogProbs, p: Tensor | None) -> LogProbs:
    """The record with the completions of each pair exchanged where the second is preferred."""
    if p is None:
        return logps
    check_preference(p, logps)
    if p.device.type == "cpu" and not bool(((p == 0) | (p == 1)).all()):
        soft = p.detach()[(p != 0) & (p != 1)][0].item()
        raise ValueError(
            f"p must be 0 or 1 here, got {soft}: sorting a batch needs to know which completion is preferred; draw "
            "labels with draw_preference first"
        )
    swapped, second = logps.swapped(), p < 0.5
    return LogProbs(
        torch.where(second, swapped.policy_first, logps.policy_first),
        torch.where(second, swapped.policy_second, logps.policy_second),
        torch.where(second, swapped.reference_first, logps.reference_first),
        torch.where(second, swapped.reference_second, logps.reference_second),
    )
