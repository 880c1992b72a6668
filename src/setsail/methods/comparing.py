"""From judged candidates to what is learnt from them: which are compared, under which label or values.

Pure; used by training and by the lab, so that what is proven by enumeration is what trains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from setsail.core import Judgement
from setsail.methods.parts import Route
from setsail.pairing import Standing, win_rates
from setsail.pairing.rules import Groups


@dataclass(frozen=True, slots=True)
class Comparison:
    """Candidates that are compared with each other.

    Attributes:
        indices: which candidates.
        p: of a pair, the probability that its first is preferred; None where missing, or labeled inside the loss.
        values: one number each for objectives over groups; None where one is missing.
    """

    indices: tuple[int, ...]
    p: float | None
    values: tuple[float, ...] | None


def compare(route: Route, judgement: Judgement | None, count: int, uniform: Callable[[], float]) -> list[Comparison]:
    """What is compared among ``count`` judged candidates of a prompt on ``route``.

    Args:
        route: how its pairs are chosen and labeled.
        judgement: what the labeler said; None where the policy labels inside the loss or the first is better by
            construction.
        count: number of candidates.
        uniform: draws from [0, 1) from the row's own stream, for rules that choose at random.
    """
    return _labeled(route, judgement, count, route.rule.select(_standing(route, judgement, count), uniform))


def comparison_law(route: Route, judgement: Judgement | None, count: int) -> list[tuple[float, list[Comparison]]]:
    """Everything :func:`compare` may return, with its probability."""
    standing = _standing(route, judgement, count)
    return [(chance, _labeled(route, judgement, count, groups)) for chance, groups in route.rule.law(standing)]


def _standing(route: Route, judgement: Judgement | None, count: int) -> Standing:
    """The candidates as the pairing rule sees them: the last one is only a yardstick where values are ``last``."""
    compared = count - 1 if route.values == "last" else count
    if judgement is None or not route.rule.reads_values:
        return Standing(compared)
    values = _ranking(judgement)[:compared]
    return Standing(compared, values, tuple(row[:compared] for row in judgement.preference[:compared]))


def _ranking(judgement: Judgement) -> Sequence[float | None]:
    """Scores rank candidates where there are any; a labeler that only compares ranks them by win rate."""
    return win_rates(judgement.preference) if judgement.scores is None else judgement.scores


def _labeled(route: Route, judgement: Judgement | None, count: int, groups: Groups) -> list[Comparison]:
    if judgement is None:
        certain = 1.0 if route.preference == "first" else None
        return [Comparison(indices, certain, None) for indices in groups]
    # Once for all comparisons: win rates run over all candidates.
    rates = win_rates(judgement.preference) if route.label == "win-rates" else None
    values = _values(route, judgement, count)
    return [Comparison(indices, _label(route, judgement, rates, indices), _of(values, indices)) for indices in groups]


def _label(
    route: Route, judgement: Judgement, rates: Sequence[float | None] | None, indices: tuple[int, ...]
) -> float | None:
    """The p of a pair; None for groups of another size."""
    if len(indices) != 2:
        return None
    i, j = indices
    if rates is not None:
        first, second = rates[i], rates[j]
        return None if first is None or second is None else 1 / (1 + math.exp(second - first))
    p = judgement.preference[i][j]
    if p is None or route.label == "preference":
        return p
    return 0.5 if p == 0.5 else float(p > 0.5)


def _values(route: Route, judgement: Judgement, count: int) -> Sequence[float | None]:
    """One number a candidate, as the route says."""
    if route.values == "last":
        return [row[count - 1] for row in judgement.preference]
    return win_rates(judgement.preference) if route.values == "win-rates" else _ranking(judgement)


def _of(values: Sequence[float | None], indices: tuple[int, ...]) -> tuple[float, ...] | None:
    """The values of some candidates; None where one is missing."""
    given = [values[index] for index in indices]
    return None if None in given else tuple(float(value) for value in given if value is not None)
