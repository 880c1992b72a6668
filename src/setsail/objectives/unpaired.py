"""Objectives of single completions marked desirable or undesirable: KTO and BCO.

Legend: ``groups`` G, ``K`` completions of one prompt, usually 1. ``h = log pi(y|x) - log pi_ref(y|x)`` (nats), the
implicit reward is ``beta h``. ``v`` is +1 for a desirable completion and -1 for an undesirable one. Both objectives
need a number that only a batch can give; it is an argument, and a pure function computes it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import GroupLogProbs, check_positive, check_values


def kto(
    logps: GroupLogProbs,
    values: Tensor,
    beta: float = 0.1,
    *,
    reference_point: Tensor | float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimization: a gain or loss, measured from a reference point, that saturates both ways.

        loss = mean_k lambda_v (1 - sigmoid(v_k beta (h_k - z)))

    Args:
        logps: log-probs of the completions, nats.
        values: +1 desirable, -1 undesirable, shape ``(groups, K)``; K may be 1.
        beta: how fast gains and losses saturate with the log-ratio, > 0.
        reference_point: z >= 0, nats, a number of the whole batch, from :func:`kto_reference_point`; treated as a
            constant, and as 0 where negative.
        desirable_weight, undesirable_weight: lambda of each kind, > 0. The paper balances them with the counts n:
            ``desirable_weight n_desirable / (undesirable_weight n_undesirable)`` between 1 and 4/3.

    Returns:
        Loss of each group, shape ``(groups,)``, in (0, lambda). Its gradient is
        ``-lambda v beta sigmoid'(beta (h - z)) s``: completions far from the reference point, on either side, hardly
        count, so that a hopeless or wrong mark does little.

    Raises:
        ValueError: beta or a weight <= 0; values of another shape, or other than +1 and -1.

    Source: arXiv 2402.01306, section 4.1: the paper's ``lambda - v(x, y)``.

    >>> record = GroupLogProbs(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    >>> kto(record, torch.tensor([[1.0]]), reference_point=2.0).item()
    0.5
    """
    check_positive("beta", beta)
    check_positive("desirable_weight", desirable_weight)
    check_positive("undesirable_weight", undesirable_weight)
    _check_marks(values, logps)
    point = _constant(reference_point, logps).clamp(min=0.0)
    weight = torch.where(values > 0, _constant(desirable_weight, logps), _constant(undesirable_weight, logps))
    return (weight * torch.sigmoid(-values * beta * (logps.log_ratio() - point))).mean(-1)


def kto_reference_point(mismatched: GroupLogProbs) -> Tensor:
    """``max(0, mean h)`` over completions put behind the wrong prompts: KTO's estimate of the KL. No gradient.

    Args:
        mismatched: log-probs of pairs ``(x_i, y_j)`` of the batch with i != j, for example each prompt with the next
            row's completion, under the current policy and the reference. Give those of the *global* batch: the mean
            of means is theirs only for equal shares, and clamping comes last.

    Returns:
        A scalar, nats, >= 0. It is neither unbiased for the KL nor meant to be: it says how far the policy has moved
        on text that answers something else.

    Raises:
        ValueError: no completions.

    Source: arXiv 2402.01306, section 4.1.

    >>> kto_reference_point(GroupLogProbs(torch.tensor([[-3.0], [-5.0]]), torch.tensor([[-6.0], [-4.0]]))).item()
    1.0
    """
    if not mismatched.policy.numel():
        raise ValueError("the reference point is a mean over mismatched completions of the batch, got none")
    return mismatched.log_ratio().detach().mean().clamp(min=0.0)


def bco(logps: GroupLogProbs, values: Tensor, beta: float = 0.1, *, shift: Tensor | float) -> Tensor:
    """Binary classifier optimization: the implicit reward, shifted, as the logit of "desirable".

        loss = mean_k -log sigmoid(v_k (beta h_k - delta))

    Args:
        logps: log-probs of the completions, nats.
        values: +1 desirable, -1 undesirable, shape ``(groups, K)``; K may be 1.
        beta: inverse strength of the KL penalty to the reference, > 0.
        shift: delta, in units of the implicit reward, from :func:`bco_reward_shift`, or a running mean of it over
            batches; treated as a constant.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient is ``-beta v sigmoid(-v (beta h - delta)) s``. The losses
        of a desirable and an undesirable completion together are an upper bound of :func:`setsail.objectives.dpo` on
        the two, for every shift; it is closest where the shift lies halfway between the two rewards.

    Raises:
        ValueError: beta <= 0; values of another shape, or other than +1 and -1.

    Source: arXiv 2404.04656. The paper's matching of the two kinds' prompt distributions weighs the undesirable losses
    by a density ratio: multiply the losses by it.

    >>> record = GroupLogProbs(torch.tensor([[3.0]]), torch.tensor([[1.0]]))
    >>> round(bco(record, torch.tensor([[1.0]]), shift=0.2).item(), 6)
    0.693147
    """
    check_positive("beta", beta)
    _check_marks(values, logps)
    return -functional.logsigmoid(values * (beta * logps.log_ratio() - _constant(shift, logps))).mean(-1)


def bco_reward_shift(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """Halfway between the mean implicit rewards of desirable and of undesirable completions. No gradient.

        delta = ( mean_{v = +1} beta h + mean_{v = -1} beta h ) / 2

    Args:
        logps: log-probs of the completions of the *global* batch, nats.
        values: +1 desirable, -1 undesirable, shape ``(groups, K)``.
        beta: as in :func:`bco`.

    Returns:
        A scalar. Each kind counts half, however many there are.

    Raises:
        ValueError: beta <= 0; values of another shape, other than +1 and -1, or all of one kind: keep the running
            mean of earlier batches then.

    Source: arXiv 2404.04656, the reward shift.

    >>> record = GroupLogProbs(torch.tensor([[4.0], [2.0], [0.0]]), torch.zeros(3, 1))
    >>> bco_reward_shift(record, torch.tensor([[1.0], [1.0], [-1.0]]), beta=1.0).item()
    1.5
    """
    check_positive("beta", beta)
    _check_marks(values, logps)
    reward, desirable = beta * logps.log_ratio().detach(), values > 0
    if bool(desirable.all()) or not bool(desirable.any()):
        raise ValueError(
            "the reward shift needs a desirable and an undesirable completion in the batch, got only one kind; "
            "keep the running mean of earlier batches"
        )
    return (reward[desirable].mean() + reward[~desirable].mean()) / 2


def _constant(number: Tensor | float, logps: GroupLogProbs) -> Tensor:
    return torch.as_tensor(number, dtype=logps.policy.dtype, device=logps.policy.device).detach()


def _check_marks(values: Tensor, logps: GroupLogProbs) -> None:
    check_values(values, logps, at_least=1)
    if values.device.type == "cpu" and not bool((values.abs() == 1).all()):
        worst = values[values.abs() != 1][0].item()
        raise ValueError(f"values must be +1 (desirable) or -1 (undesirable), got {worst}; drop unmarked completions")
