"""Imitation of chosen completions: the negative log-likelihood. Legend: ``groups``, ``K`` completions of each; nats."""

from __future__ import annotations

from torch import Tensor

from setsail.objectives.records import GroupLogProbs, check_values


def likelihood(logps: GroupLogProbs, values: Tensor, length_normalize: bool = True) -> Tensor:
    """Negative log-likelihood of the completions that a selection kept (the best of n, a demonstration).

        loss = - 1/K sum_k log pi(y_k) / |y_k|

    Args:
        logps: log-probs of the K completions to imitate, shape ``(groups, K)``, nats; K = 1 is the usual case. The
            reference is not read.
        values: shape ``(groups, K)``; only the shape is used. The scores did their work when the completions were
            chosen; they are there so that this is called like every objective over groups.
        length_normalize: divide by the number of tokens |y_k|, so that long completions do not dominate. For
            completions of law q the minimizer over all policies is then proportional to ``q(y) / |y|``: shorter ones
            gain. False: the sum over tokens, minimized by q itself.

    Returns:
        Loss of each group, shape ``(groups,)``: nats a token, or nats with ``length_normalize=False``. Its gradient is
        ``- 1/K sum_k s_k / |y_k|`` with ``s = grad log pi``, whatever the values.

    Raises:
        ValueError: length_normalize without lengths in the record; values of another shape or not finite.

    Source: arXiv 2304.06767 (RAFT, best of n) and arXiv 2310.16763 (SuperHF, whose penalty is
    :func:`setsail.objectives.forward_kl_full` on the same completions). Their code averages over the tokens of a
    batch; here the average over tokens is each completion's own.

    >>> import torch
    >>> logps = GroupLogProbs(torch.tensor([[-6.0]]), torch.zeros(1, 1), torch.tensor([[3]]))
    >>> likelihood(logps, torch.ones(1, 1)).item()
    2.0
    """
    check_values(values, logps, at_least=1)
    return -(logps.per_token() if length_normalize else logps).policy.mean(-1)
