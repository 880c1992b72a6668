"""Scores become a judgement: the one place where a missing score is kept missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from setsail.core import ConfigError, Judgement

Preference = tuple[tuple[float | None, ...], ...]
"""K x K: ``preference[i][j]`` is the probability that candidate i is preferred to candidate j."""


def finite_score(value: Any) -> float | None:
    """``value`` as a float, or None where it is not a finite number (NaN, inf, text, None).

    Numbers of numpy and one-element tensors count as numbers; text never does, even "1.0".

    >>> finite_score(2), finite_score(float("inf")), finite_score("1.0")
    (2.0, None, None)
    """
    if value is None or isinstance(value, str | bytes):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None
    return number if math.isfinite(number) else None


def _sigmoid(gap: float) -> float:
    if gap >= 0:
        return 1.0 / (1.0 + math.exp(-gap))
    odds = math.exp(gap)
    return odds / (1.0 + odds)


def _preferred(first: float | None, second: float | None, hard: bool, scale: float) -> float | None:
    if first is None or second is None:
        return None
    if hard:
        return 0.5 if first == second else float(first > second)
    return _sigmoid((first - second) / scale)


def check_scale(scale: float) -> float:
    """``scale``, if it is a finite positive number.

    Raises:
        ConfigError: it is not.
    """
    if not (math.isfinite(scale) and scale > 0):
        raise ConfigError(
            f"scale={scale}: P is sigmoid(score gap / scale), so the scale is a positive number in units of the score; "
            "1 is the Bradley-Terry reading of a reward model, a larger one makes labels softer"
        )
    return scale


def judgement_from_scores(
    scores: Sequence[float | None],
    *,
    labeler: str,
    hard: bool = False,
    scale: float = 1.0,
    reason: str = "",
) -> Judgement:
    """The judgement that one score a candidate implies.

        P_ij = sigmoid((s_i - s_j) / scale)          soft: the Bradley-Terry model
        P_ij = 1 if s_i > s_j, 0 if s_i < s_j, else 0.5    hard

    A score that is None, NaN or infinite is missing, and so is P for every pair it takes part in: it never
    stands for a low score, and ``+inf`` wins nothing.

    Args:
        scores: K scores, higher is better, any unit.
        labeler: who gives them.
        hard: the higher score wins with certainty.
        scale: score gap that counts as one nat of log-odds; positive.
        reason: why scores are missing. Left empty, the missing candidates are named; dropped if none is missing.

    Returns:
        ``preference`` of shape K x K (diagonal 0.5, or None where the score is missing) and the K scores.

    Raises:
        ConfigError: ``scale`` is not a finite positive number.

    >>> judgement = judgement_from_scores([1.0, 0.0, None], labeler="example")
    >>> round(judgement.preference[0][1], 4), judgement.preference[0][2]
    (0.7311, None)
    >>> judgement.reason
    'no finite score for candidate 2 of 0..2'
    """
    check_scale(scale)
    clean = tuple(finite_score(score) for score in scores)
    missing = [str(index) for index, score in enumerate(clean) if score is None]
    if missing and not reason:
        plural = "s" if len(missing) > 1 else ""
        reason = f"no finite score for candidate{plural} {', '.join(missing)} of 0..{len(clean) - 1}"
    return Judgement(
        preference=tuple(tuple(_preferred(first, second, hard, scale) for second in clean) for first in clean),
        scores=clean,
        labeler=labeler,
        reason=reason if missing else "",
    )


def missing_judgement(count: int, *, labeler: str, reason: str) -> Judgement:
    """The judgement of ``count`` candidates of which nothing is known, and why.

    >>> missing_judgement(2, labeler="judge", reason="timed out").preference
    ((None, None), (None, None))
    """
    row = (None,) * count
    return Judgement(preference=(row,) * count, scores=row, labeler=labeler, reason=reason)
