"""How often a policy ranks the preferred completion of a pair above the other, and how often it could.

Axis legend: ``pairs``. Log-probs in nats, summed over a completion's tokens; lengths in tokens.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from setsail.core import ConfigError, DataError
from setsail.evaluation.intervals import Floats, Interval, finite, share_interval

Values = Sequence[float] | Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingAccuracy:
    """Share of pairs whose preferred completion is at least as likely as the other.

    Attributes:
        raw: by log-probs, with its interval; the policy's own ranking, without the reference.
        per_token: by log-probs a token; None where no lengths were given.
        ties: pairs with equal log-probs. They count as right, as in the definition: where there are many (a policy that
            cannot tell the completions apart) the accuracy flatters.
    """

    raw: Interval
    per_token: Interval | None
    ties: int


def ranking_accuracy(
    chosen: Values,
    rejected: Values,
    *,
    chosen_lengths: Values | None = None,
    rejected_lengths: Values | None = None,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> RankingAccuracy:
    """Mean of ``1[log pi(chosen) >= log pi(rejected)]``, and the same of log-probs a token.

    This is not :func:`reward_accuracy`, which trainers log: a policy may raise every margin against the reference and
    still find most rejected completions likelier.

    Args:
        chosen, rejected: log pi of the two completions, ``(pairs,)``.
        chosen_lengths, rejected_lengths: tokens of the completions, for the accuracy a token; both or neither.
        clusters: what pairs share, such as the prompt's row id.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: lists of different lengths, no pairs, a number that is not finite, a length that is not positive, or
            the lengths of one side only.
        ConfigError: ``confidence`` outside (0, 1).

    Source: arXiv 2405.19534, ranking accuracy.

    >>> found = ranking_accuracy([-12.0, -30.0], [-15.0, -20.0], chosen_lengths=[6, 20], rejected_lengths=[5, 10])
    >>> found.raw.estimate, found.per_token.estimate
    (0.5, 1.0)
    """
    mine, theirs = _alike(chosen=chosen, rejected=rejected)
    per_token = None
    if (chosen_lengths is None) != (rejected_lengths is None):
        raise DataError("lengths of one side only: the accuracy a token takes chosen_lengths and rejected_lengths")
    if chosen_lengths is not None and rejected_lengths is not None:
        _, long, other = _alike(chosen=mine, chosen_lengths=chosen_lengths, rejected_lengths=rejected_lengths)
        if min(long.min(), other.min()) <= 0:
            raise DataError("a length of 0 tokens: leave out pairs with an empty completion")
        per_token = share_interval(_ones(mine / long >= theirs / other), clusters=clusters, confidence=confidence)
    return RankingAccuracy(
        raw=share_interval(_ones(mine >= theirs), clusters=clusters, confidence=confidence),
        per_token=per_token,
        ties=int((mine == theirs).sum()),
    )


def idealized_ranking_accuracy(
    reference_chosen: Values, reference_rejected: Values, p: float | Values, beta: float
) -> float:
    """The ranking accuracy of a policy that fits the preferences perfectly, with DPO or RLHF at this ``beta``:

        mean of 1[ log pi_ref(chosen) - log pi_ref(rejected) + logit(p) / beta >= 0 ].

    For large beta it is the reference's accuracy, for small beta the share of pairs with p > 1/2 (and of ties that the
    reference ranks right). The accuracy a token has no such value: it depends on the normalizer of the optimum.

    Args:
        reference_chosen, reference_rejected: log pi_ref, ``(pairs,)``.
        p: share of annotators who prefer the chosen completion, in [0, 1]; one number for all pairs where only labels
            are known (the paper takes 0.75).
        beta: > 0.

    Raises:
        DataError: lists of different lengths, no pairs, a number that is not finite, or a p outside [0, 1].
        ConfigError: a beta that is not positive.

    Source: arXiv 2405.19534, idealized ranking accuracy.

    >>> idealized_ranking_accuracy([-12.0, -60.0], [-15.0, -20.0], p=0.75, beta=0.1)
    0.5
    """
    shares = np.full(len(reference_chosen), p) if isinstance(p, int | float) else p
    mine, theirs, liked = _alike(reference_chosen=reference_chosen, reference_rejected=reference_rejected, p=shares)
    if liked.min() < 0 or liked.max() > 1:
        raise DataError(f"p between {liked.min()} and {liked.max()}: it is a share of annotators, in [0, 1]")
    return float((mine - theirs + special.logit(liked) / _positive(beta) >= 0).mean())


def needed_loss(reference_chosen: Values, reference_rejected: Values, beta: float) -> Floats:
    """The DPO loss at or below which a pair is ranked right, ``(pairs,)``, nats:

        -log sigmoid(beta c),    c = log pi_ref(rejected) - log pi_ref(chosen).

    A pair is ranked right if and only if its loss is no larger. Where the reference ranks it wrongly by much, next to
    nothing may be left of the loss.

    Raises:
        DataError: lists of different lengths, no pairs, or a number that is not finite.
        ConfigError: a beta that is not positive.

    Source: arXiv 2405.19534, section 4.

    >>> needed_loss([-55.0, -80.0], [-50.0, -50.0], beta=0.1).round(4).tolist()
    [0.4741, 0.0486]
    """
    mine, theirs = _alike(reference_chosen=reference_chosen, reference_rejected=reference_rejected)
    return np.asarray(np.logaddexp(0.0, -_positive(beta) * (theirs - mine)))


def reward_accuracy(
    chosen: Values,
    rejected: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Interval:
    """Share of pairs whose preferred completion has the higher reward; equal rewards count one half.

    For an implicit reward give ``log pi - log pi_ref``: its scale, beta, does not matter. A scorer that has learnt
    nothing of a kind of pair gets one half of them.

    Args:
        chosen, rejected: rewards of the two completions, ``(pairs,)``.
        clusters: what pairs share, such as the prompt's row id.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: lists of different lengths, no pairs, or a number that is not finite.
        ConfigError: ``confidence`` outside (0, 1).

    >>> reward_accuracy([0.3, 1.2, 0.0, -0.5], [0.1, 0.4, 0.0, 0.2]).estimate
    0.625
    """
    mine, theirs = _alike(chosen=chosen, rejected=rejected)
    return share_interval((0.5 + np.sign(mine - theirs) / 2).tolist(), clusters=clusters, confidence=confidence)


def _ones(right: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[float]:
    return [float(each) for each in right]


def _positive(beta: float) -> float:
    if not beta > 0:
        raise ConfigError(f"beta={beta}: it must be positive")
    return beta


def _alike(**values: Values) -> list[Floats]:
    """Arrays of one length."""
    if len({len(each) for each in values.values()}) != 1:
        raise DataError(f"{', '.join(f'{len(each)} {name}' for name, each in values.items())}: give one of each a pair")
    return [finite(list(each)) for each in values.values()]
