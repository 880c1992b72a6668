"""Objectives of each completion's own log-ratio, not only of their difference: NCA, SPPO with hard labels, APO.

A loss of the difference alone can be lowered while the likelihood of both completions falls; these say for each of the
two where it has to go, relative to the reference.

Legend: ``h(y) = log pi(y|x) - log pi_ref(y|x)`` and ``r(y) = beta * h(y)``, shape ``(pairs,)``, nats; ``w`` is the
preferred completion and ``l`` the other. Each equation is for a hard label; a soft one averages both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive
from setsail.objectives.soft_labels import over_both_labels


def _rewards(pair: LogProbs, beta: float) -> tuple[Tensor, Tensor]:
    """Implicit rewards of the first and of the second completion."""
    return beta * (pair.policy_first - pair.reference_first), beta * (pair.policy_second - pair.reference_second)


def nca_pair(logps: LogProbs, p: Tensor | None = None, beta: float = 0.01) -> Tensor:
    """Noise contrastive alignment of a pair: is this completion the chosen one, or a draw of the reference?

        loss = - log sigmoid(r(w)) - 1/2 log sigmoid(-r(w)) - 1/2 log sigmoid(-r(l))

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the implicit reward, > 0 (alpha of the paper).

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is
        ``-beta [(1 - 3/2 sigmoid(r(w))) s_w - 1/2 sigmoid(r(l)) s_l]`` with ``s = grad log pi``: the chosen completion
        is at rest where ``r(w) = log 2`` and comes back from beyond; the rejected one falls without end, ever slower.
        With a soft label P it is at rest where ``sigmoid(r(y)) = p / (p + 1/2)``, p the completion's share of P.

    Raises:
        ValueError: beta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2402.05369, section 4.1 (preference data, K = 2); beta as published.

    >>> zero = torch.zeros(1)
    >>> round(nca_pair(LogProbs(zero, zero, zero, zero)).item(), 6)
    1.386294
    """
    check_positive("beta", beta)

    def first_preferred(pair: LogProbs) -> Tensor:
        chosen, rejected = _rewards(pair, beta)
        noise = functional.logsigmoid(-chosen) + functional.logsigmoid(-rejected)
        return -functional.logsigmoid(chosen) - noise / 2

    return over_both_labels(first_preferred, logps, p)


def sppo_hard(logps: LogProbs, p: Tensor | None = None, beta: float = 0.001) -> Tensor:
    """Self-play preference optimization with a hard label: two regressions, the winner up and the loser down.

        loss = (h(w) - 1/(2 beta))^2 + (h(l) + 1/(2 beta))^2

    Args:
        logps: log-probs of the pairs, nats; the reference is the previous iterate.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: 1 / eta of the paper, > 0. Not a KL strength: at the default each target is 500 nats away.

    Returns:
        Loss of each pair, shape ``(pairs,)``: twice :func:`sppo` of the group with win rates 1 and 0. Its gradient is
        ``2 (h(w) - 1/(2 beta)) s_w + 2 (h(l) + 1/(2 beta)) s_l``. A soft label has the gradient of regressing on
        ``(P - 1/2) / beta`` and ``(1/2 - P) / beta``, the paper's soft targets.

    Raises:
        ValueError: beta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2405.00675, equation 4.7 with probabilities 1 and 0, as in common trainers; beta as published
    (eta 1000).

    >>> zero = torch.zeros(1)
    >>> sppo_hard(LogProbs(zero, zero, zero, zero), beta=0.5).item()
    2.0
    """
    check_positive("beta", beta)
    target = 1 / (2 * beta)

    def first_preferred(pair: LogProbs) -> Tensor:
        chosen, rejected = _rewards(pair, 1.0)
        return (chosen - target).square() + (rejected + target).square()

    return over_both_labels(first_preferred, logps, p)


def apo_zero(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Anchored preference optimization, zero: the chosen completion becomes likelier, the rejected one less likely.

        loss = 1 - sigmoid(r(w)) + sigmoid(r(l))

    For data whose chosen completions are better than what the policy writes.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the implicit reward, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``, in (0, 2). Its gradient is
        ``-beta [sigmoid'(r(w)) s_w - sigmoid'(r(l)) s_l]``: largest at the reference, fading in both directions. A
        pair that is far on the wrong side hardly pulls.

    Raises:
        ValueError: beta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2408.06266, equation 7, plus the constant 1 of common trainers; beta as published. Anchored, not the
    accelerated preference optimization of arXiv 2410.06293 with the same initials.

    >>> zero = torch.zeros(1)
    >>> apo_zero(LogProbs(zero, zero, zero, zero)).item()
    1.0
    """
    check_positive("beta", beta)

    def first_preferred(pair: LogProbs) -> Tensor:
        chosen, rejected = _rewards(pair, beta)
        return torch.sigmoid(-chosen) + torch.sigmoid(rejected)

    return over_both_labels(first_preferred, logps, p)


def apo_down(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Anchored preference optimization, down: both completions become less likely, the rejected one more so.

        loss = sigmoid(r(w)) + 1 - sigmoid(r(w) - r(l))

    For data whose chosen completions are worse than what the policy writes.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the implicit reward, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``, in (0, 2). Its gradient is
        ``beta [(sigmoid'(r(w)) - sigmoid'(r(w) - r(l))) s_w + sigmoid'(r(w) - r(l)) s_l]``: at the reference the two
        pulls on the chosen completion cancel and only the rejected one moves.

    Raises:
        ValueError: beta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2408.06266, equation 8, plus the constant 1 of common trainers; beta as published.

    >>> zero = torch.zeros(1)
    >>> apo_down(LogProbs(zero, zero, zero, zero)).item()
    1.0
    """
    check_positive("beta", beta)

    def first_preferred(pair: LogProbs) -> Tensor:
        chosen, rejected = _rewards(pair, beta)
        return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)

    return over_both_labels(first_preferred, logps, p)
