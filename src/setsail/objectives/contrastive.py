"""Objectives that contrast two completions of a prompt by the numbers they were given: contrastive policy gradient.

Legend: ``groups``, K = 2 completions of each; ``h(y) = log pi(y|x) - log pi_ref(y|x)`` and ``d = h(y1) - h(y2)``, nats.
"""

from __future__ import annotations

from torch import Tensor

from setsail.objectives.records import GroupLogProbs, check_positive, check_values


def contrast(logps: GroupLogProbs, values: Tensor) -> tuple[Tensor, Tensor]:
    """First minus second completion: ``(h(y1) - h(y2), values_1 - values_2)``, each of shape ``(groups,)``.

    Raises:
        ValueError: a group does not hold exactly two completions; values as :func:`check_values` has it.

    >>> import torch
    >>> logps = GroupLogProbs(torch.tensor([[0.5, -0.25]]), torch.zeros(1, 2))
    >>> [part.item() for part in contrast(logps, torch.tensor([[1.0, 3.0]]))]
    [0.75, -2.0]
    """
    check_values(values, logps)
    if values.shape[1] != 2:
        raise ValueError(
            f"this objective contrasts exactly two completions of a prompt, got {values.shape[1]}; choose two of them "
            "with a pairing rule, or pass every pair as a group of its own"
        )
    return logps.pair().log_ratio_difference(), values[:, 0] - values[:, 1]


def copg(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """Contrastive policy gradient: a policy gradient on pairs that needs neither on-policy data nor a baseline.

        loss = - (R_{beta/2}(y1) - R_{beta/2}(y2)) (h(y1) - h(y2)),   R_b(y) = R(y) - b h(y)

    Everything is differentiated, the log-ratios inside ``R_{beta/2}`` too; that turns its beta / 2 into beta. Written
    with beta there, the loss would be minimized at twice the temperature.

    Args:
        logps: log-probs of two completions of each prompt, shape ``(groups, 2)``, nats, summed over tokens. They may
            come from any two policies that give every completion a chance: the optimum does not depend on them.
        values: reward of each completion, any scale, shape ``(groups, 2)``; constants.
        beta: strength of the KL penalty, in units of reward a nat, > 0.

    Returns:
        Loss of each group, shape ``(groups,)``; it has no lower bound of 0, only differences mean something. Its
        gradient is ``-(R_beta(y1) - R_beta(y2)) (s1 - s2)`` with ``s = grad log pi``: zero where the log-ratio
        difference is ``(R(y1) - R(y2)) / beta``, as in ``pi_ref exp(R / beta) / Z``. With both completions drawn from
        the policy its expectation is minus twice the gradient of ``E[R] - beta KL(pi || pi_ref)``.

    Raises:
        ValueError: beta <= 0; other than two completions a group; values of another shape or not finite.

    Source: arXiv 2406.19185, the sample loss of contrastive policy gradient, with the sign turned: the paper's is
    maximized. It equals ``beta / 2 * online_ipo(logps, values, beta)`` up to a term without gradient.

    >>> import torch
    >>> logps = GroupLogProbs(torch.tensor([[0.4, -0.3]]), torch.zeros(1, 2))
    >>> round(copg(logps, torch.tensor([[1.0, 0.2]]), beta=0.5).item(), 6)
    -0.4375
    """
    check_positive("beta", beta)
    d, reward_difference = contrast(logps, values)
    return -(reward_difference - beta / 2 * d) * d
