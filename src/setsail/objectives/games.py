"""Objectives of preference games: SPPO, online IPO, the Nash policy gradient.

A preference model ``P(y > y')`` need not come from a reward: it may be cyclic. What is looked for is the policy that no
other one beats, the Nash equilibrium of the game, possibly with a KL penalty to the reference on both players.

Two relatives need no objective of their own. Direct Nash optimization (arXiv 2404.03715) is
:func:`setsail.objectives.dpo` with ``p = sigmoid(v_1 - v_2)``, v the win rates against the previous iterate, which is
the reference; its eta is beta. INPO (arXiv 2407.00617) is :func:`setsail.objectives.ipo` on pairs of the previous
iterate ``pi_t``, with ``(tau/eta) log pi_0 + (1 - tau/eta) log pi_t`` as the reference's log-probs; its eta is beta.

Legend: ``groups`` and ``K`` completions of each, or ``pairs``; ``h(y) = log pi(y|x) - log pi_ref(y|x)``, nats; a *win
rate* is the probability, in [0, 1], that a completion is preferred to one drawn from some policy.
"""

from __future__ import annotations

import torch
from torch import Tensor

from setsail.objectives.contrastive import contrast
from setsail.objectives.records import GroupLogProbs, LogProbs, check_positive, check_preference, check_values


def _check_win_rates(values: Tensor, logps: GroupLogProbs) -> None:
    """Refuse values that are no win rates; their range is looked at on the CPU only, where looking is free."""
    check_values(values, logps, at_least=1)
    if values.device.type == "cpu" and bool(((values < 0) | (values > 1)).any()):
        worst = values.flatten()[(values - 0.5).abs().argmax()].item()
        raise ValueError(
            f"values must be win rates in [0, 1], got {worst}; turn scores into preferences first, such as "
            "sigmoid(score_1 - score_2) averaged over the opponent's completions"
        )


def sppo(logps: GroupLogProbs, values: Tensor, beta: float = 0.001) -> Tensor:
    """Self-play preference optimization: regress each completion's log-ratio onto its own win rate.

        loss = 1/K sum_k (h(y_k) - (v_k - 1/2) / beta)^2

    The reference is the previous iterate ``pi_t``, which also draws the completions: each round approximates the
    exponential-weights step ``pi_t exp(v / beta) / Z`` with ``log Z`` replaced by ``1 / (2 beta)``. That is close for
    large beta (a policy error of 2e-5 at beta 1 on a game of three) and not at all at the paper's beta of 0.001.

    Args:
        logps: log-probs of K completions of each prompt, shape ``(groups, K)``, nats; the reference is the policy
            that drew them.
        values: win rate of each completion against the policy that drew them, in [0, 1], shape ``(groups, K)``;
            constants. Averaged over the other completions of the group: a completion's tie with itself would pull
            its rate toward 1/2.
        beta: 1 / eta of the paper, > 0. Not the beta of a KL penalty to a fixed reference.

    Returns:
        Loss of each group, shape ``(groups,)``. Its gradient is ``2/K sum_k (h(y_k) - (v_k - 1/2) / beta) s_k``: each
        completion is pulled to its own target, unlike in DPO and IPO, where only differences count.

    Raises:
        ValueError: beta <= 0; values of another shape, not finite or (on the CPU) outside [0, 1].

    Source: arXiv 2405.00675, algorithm 1 and the loss on a winner and a loser, which is the case K = 2.

    >>> logps = GroupLogProbs(torch.tensor([[0.5, -0.5]]), torch.zeros(1, 2))
    >>> sppo(logps, torch.tensor([[0.75, 0.25]]), beta=0.25).item()
    0.25
    """
    check_positive("beta", beta)
    _check_win_rates(values, logps)
    return (logps.log_ratio() - (values - 0.5) / beta).square().mean(-1)


def online_ipo(logps: GroupLogProbs, values: Tensor, beta: float = 0.1) -> Tensor:
    """Online IPO: regress the log-ratio difference of two completions onto the difference of their win rates.

        loss = (h(y1) - h(y2) - (v_1 - v_2) / beta)^2,   v_k = P(y_k > y''),   y'' an independent third completion

    With y'' drawn from the current policy, no gradient through it, the expected gradient vanishes at the equilibrium of
    the KL-regularized game, ``pi = pi_ref exp(P(y > pi) / beta) / Z``, whatever law of full support draws y1 and y2.

    Args:
        logps: log-probs of two completions of each prompt, shape ``(groups, 2)``, nats.
        values: probability that each of the two is preferred to y'', in [0, 1], shape ``(groups, 2)``; constants. As
            probabilities, or labels drawn with that probability; labels of the likelier side have another equilibrium.
        beta: strength of the KL penalty, > 0.

    Returns:
        Loss of each group, shape ``(groups,)``. For every ordered pair of n responses equally likely, the gradient in
        the logits of a tabular policy is ``4/n (e - mean e)`` with ``e = h - P(y > pi'') / beta``: a gradient step is
        a mirror-descent step.

    Raises:
        ValueError: beta <= 0; other than two completions a group; values of another shape, not finite or (on the CPU)
            outside [0, 1].

    Source: arXiv 2503.08942, the generalized online IPO loss. arXiv 2403.08635 has the form without a third
    completion: y1 and y2 from the policy itself with the target ``(P(y1 > y2) - 1/2) / beta``, which is
    :func:`setsail.objectives.ipo` on completions of the policy.

    >>> logps = GroupLogProbs(torch.tensor([[0.5, -0.5]]), torch.zeros(1, 2))
    >>> online_ipo(logps, torch.tensor([[0.75, 0.25]]), beta=0.25).item()
    1.0
    """
    check_positive("beta", beta)
    _check_win_rates(values, logps)
    d, difference = contrast(logps, values)
    return (d - difference / beta).square()


def nash_policy_gradient(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Policy gradient against an opponent, as a surrogate: its gradient is the statement, its value means nothing.

        surrogate = - sg[P(y > y') - 1/2 - beta h(y)] log pi(y),   sg = no gradient

    The first completion, y, is drawn from the policy; the second, y', from an opponent: the policy itself, a mixture of
    it with the reference (Nash-MD) or an average of its past (Nash-EMA).

    Args:
        logps: log-probs of the pairs, nats, *summed* over tokens. Only ``policy_first`` and ``reference_first`` are
            read: a completion of the opponent is not trained on, even where the opponent is the policy.
        p: probability P that the first is preferred to the second, shape ``(pairs,)``; None = 1. A constant: no
            gradient flows through it.
        beta: tau of the paper, the strength of the KL penalty, > 0.

    Returns:
        Shape ``(pairs,)``. With y from the policy, the expected gradient is minus that of
        ``P(pi > opponent) - beta KL(pi || pi_ref)``, the opponent held fixed. The log-ratio of the *whole* completion
        multiplies each token's score; a token's score times its own log-ratio only would drop the effect of a token
        on all that follow, and is not the gradient of the KL.

    Not symmetric: swapping the pair together with its label is another quantity, since the two completions have
    different roles. It is affine in P, so soft labels mean what they mean for every pairwise objective.

    Raises:
        ValueError: beta <= 0; p of another shape or outside [0, 1].

    Source: arXiv 2312.00886, Nash-MD-PG and Nash-EMA-PG. The baseline 1/2 is the paper's; the penalty is the whole
    sequence's, equal in expectation to the form in which a token's score meets only the log-ratios from that token on,
    and of more variance.

    >>> zero = torch.zeros(1)
    >>> nash_policy_gradient(LogProbs(torch.tensor([-2.0]), zero, torch.tensor([-2.0]), zero)).item()
    1.0
    """
    check_positive("beta", beta)
    p = torch.ones_like(logps.policy_first) if p is None else p
    check_preference(p, logps)
    log_ratio = logps.policy_first - logps.reference_first
    return -(p - 0.5 - beta * log_ratio).detach() * logps.policy_first
