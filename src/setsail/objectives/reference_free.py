"""Objectives without a reference: SimPO, CPO, ORPO, ASFT, SLiC-HF.

Legend: ``lp(y) = log pi(y|x)``, summed over tokens, and ``m(y) = lp(y) / |y|``, its mean, shape ``(pairs,)``, nats;
``w`` is the preferred completion and ``l`` the other. Each equation is for a hard label; a soft one averages both. The
reference's log-probs in the record are not read.

Nothing here holds the policy near where it started but a small step size or a likelihood term, which is an addend of
the method, not part of these.
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from setsail.objectives.records import LogProbs, check_positive
from setsail.objectives.soft_labels import label_average, over_both_labels

# exp(m) counts as at most 1 - 1e-7: a completion whose every token is certain has infinite odds.
LARGEST_MEAN = -1e-7


def simpo(logps: LogProbs, p: Tensor | None = None, beta: float = 2.5, gamma: float = 0.5) -> Tensor:
    """Simple preference optimization: mean log-probs and a target margin.

        loss = - log sigmoid(beta (m(w) - m(l)) - gamma)

    Args:
        logps: log-probs of the pairs, nats, with lengths.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the mean log-probs, > 0; far larger than DPO's, since these are nats a *token*.
        gamma: margin in the units of the logit, >= 0: the gap ``m(w) - m(l)`` it asks for is ``gamma / beta``. Settings
            given as a ratio (``gamma_beta_ratio``) have to be multiplied by beta first.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(gamma - u) (s_w / |w| - s_l / |l|)`` with
        ``u = beta (m(w) - m(l))`` and ``s = grad log pi``.

    Raises:
        ValueError: beta <= 0, gamma < 0, no lengths in the record, p of another shape or outside [0, 1].

    Source: arXiv 2405.14734, equation 6; beta and gamma within the range published (2 to 2.5, 0.25 to 1.6).

    >>> import torch
    >>> logps = LogProbs(torch.tensor([-4.0]), torch.tensor([-12.0]), torch.zeros(1), torch.zeros(1),
    ...                  torch.tensor([4]), torch.tensor([10]))
    >>> round(simpo(logps).item(), 6)
    0.693147
    """
    check_positive("beta", beta)
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma is a margin of 0 or more, got {gamma}; a negative one would ask for the wrong order")
    means = logps.per_token()
    u = beta * (means.policy_first - means.policy_second)
    return label_average(-functional.logsigmoid(u - gamma), -functional.logsigmoid(-u - gamma), p, logps)


def cpo(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Contrastive preference optimization, its preference term: DPO with a uniform reference.

        loss = - log sigmoid(beta (lp(w) - lp(l)))

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the margin, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta sigmoid(-beta (lp(w) - lp(l))) (s_w - s_l)``.

    Raises:
        ValueError: beta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2401.08417, equation 3. The paper adds the likelihood of the chosen completion, which is an addend.

    >>> import torch
    >>> logps = LogProbs(torch.tensor([-4.0]), torch.tensor([-12.0]), torch.zeros(1), torch.zeros(1))
    >>> round(cpo(logps).item(), 6)
    0.371101
    """
    check_positive("beta", beta)
    u = beta * (logps.policy_first - logps.policy_second)
    return label_average(-functional.logsigmoid(u), -functional.logsigmoid(-u), p, logps)


def orpo(logps: LogProbs, p: Tensor | None = None, beta: float = 0.1) -> Tensor:
    """Odds ratio preference optimization, its preference term: the log odds ratio of mean likelihoods.

        loss = - beta log sigmoid(o(w) - o(l)),   o(y) = log(q / (1 - q)),   q = exp(m(y))

    Args:
        logps: log-probs of the pairs, nats, with lengths.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: weight of the term beside a likelihood term of weight 1, > 0. Not a scale inside the sigmoid; lambda of
            the paper, named as in common trainers.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is
        ``-beta sigmoid(o(l) - o(w)) (s_w / (|w| (1 - q_w)) - s_l / (|l| (1 - q_l)))`` with ``s = grad log pi``. q is
        capped at 1 - 1e-7 in ``1 - q``, where the odds end.

    Raises:
        ValueError: beta <= 0, no lengths in the record, p of another shape or outside [0, 1].

    Source: arXiv 2403.07691, equations 4 and 7. The paper adds the mean negative log-likelihood of the chosen
    completion, which is an addend.

    >>> import torch
    >>> logps = LogProbs(*torch.tensor([[0.6], [0.3], [1.0], [1.0]]).log(), torch.tensor([1]), torch.tensor([1]))
    >>> round(orpo(logps, beta=0.5).item(), 6)
    0.125657
    """
    check_positive("beta", beta)
    means = logps.per_token()
    log_odds_ratio = _log_odds(means.policy_first) - _log_odds(means.policy_second)
    return beta * label_average(
        -functional.logsigmoid(log_odds_ratio), -functional.logsigmoid(-log_odds_ratio), p, logps
    )


def asft(logps: LogProbs, p: Tensor | None = None, beta: float = 1.0, odds_scale: float = 1.0) -> Tensor:
    """Aligned supervised fine-tuning, its preference term: the odds of each completion for itself.

        loss = beta [- log sigmoid(c o(w)) - log sigmoid(- c o(l))],   o(y) = log(q / (1 - q)),   q = exp(m(y))

    With ``c = 1`` the bracket is ``- log q_w - log(1 - q_l)``, a binary cross-entropy; :func:`orpo` is this plus
    ``beta log(q_w (1 - q_l) + q_l (1 - q_w))``, hence never larger.

    Args:
        logps: log-probs of the pairs, nats, with lengths.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: weight of the term beside a likelihood term of weight 1, > 0; lambda of the paper.
        odds_scale: c, > 0; other than 1 it is the tempered form of arXiv 2502.01237, without a likelihood term there.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient with ``c = 1`` is
        ``-beta (s_w / |w| - q_l / (1 - q_l) s_l / |l|)``: a rejected completion that is already unlikely is left alone.
        q is capped at 1 - 1e-7 in ``1 - q``.

    Raises:
        ValueError: beta or odds_scale <= 0, no lengths in the record, p of another shape or outside [0, 1].

    Source: arXiv 2409.10571 (aligned, not the anchored fine-tuning with the same initials). The paper adds the mean
    negative log-likelihood of the chosen completion, which is an addend; lambda 1 is a re-implementation's.

    >>> import torch
    >>> logps = LogProbs(*torch.tensor([[0.6], [0.3], [1.0], [1.0]]).log(), torch.tensor([1]), torch.tensor([1]))
    >>> round(asft(logps).item(), 6)
    0.867501
    """
    check_positive("beta", beta)
    check_positive("odds_scale", odds_scale)

    def first_preferred(pair: LogProbs) -> Tensor:
        means = pair.per_token()
        chosen, rejected = odds_scale * _log_odds(means.policy_first), odds_scale * _log_odds(means.policy_second)
        return -beta * (functional.logsigmoid(chosen) + functional.logsigmoid(-rejected))

    return over_both_labels(first_preferred, logps, p)


def slic_hf(logps: LogProbs, p: Tensor | None = None, beta: float = 1.0, delta: float = 1.0) -> Tensor:
    """Sequence likelihood calibration as in its paper: a hinge on the policy's own log-probs.

        loss = max(0, delta - beta (lp(w) - lp(l)))

    :func:`slic` is the hinge on log-ratios to a reference, under which the name is better known.

    Args:
        logps: log-probs of the pairs, nats.
        p: probability that the first is preferred, shape ``(pairs,)``; None = 1. It may carry gradient.
        beta: scale of the log-probs, > 0; 1 in the paper.
        delta: margin, > 0.

    Returns:
        Loss of each pair, shape ``(pairs,)``. Its gradient is ``-beta (s_w - s_l)`` below the margin and 0 above.

    Raises:
        ValueError: beta or delta <= 0, p of another shape or outside [0, 1].

    Source: arXiv 2305.10425, equation 1. The paper's likelihood regularizer (weight 0.5) is an addend.

    >>> import torch
    >>> logps = LogProbs(torch.tensor([-4.0]), torch.tensor([-4.25]), torch.zeros(1), torch.zeros(1))
    >>> slic_hf(logps).item()
    0.75
    """
    check_positive("beta", beta)
    check_positive("delta", delta)
    gap = beta * (logps.policy_first - logps.policy_second)
    return label_average(functional.relu(delta - gap), functional.relu(delta + gap), p, logps)


def _log_odds(mean: Tensor) -> Tensor:
    """``log(q / (1 - q))`` of ``q = exp(mean)``, ``mean <= 0``."""
    # expm1, since 1 - exp(mean) has no digits left where q is nearly 1.
    return mean - (-mean.clamp(max=LARGEST_MEAN).expm1()).log()
