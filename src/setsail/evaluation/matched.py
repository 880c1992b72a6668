"""Comparing methods at one distance from the reference: reward, or win rate, at matched KL, over seeds.

A curve is the points of one run (a seed): one method at several strengths or training steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from setsail.core import DataError
from setsail.evaluation.frontier import FrontierPoint
from setsail.evaluation.intervals import Interval, difference_interval, mean_interval

Curve = Sequence[FrontierPoint]


def shared_kl(*methods: Sequence[Curve]) -> tuple[float, float]:
    """The least and the largest KL that every curve of every method reaches: where they can be compared.

    Raises:
        DataError: a method without a curve, a curve without a point or with one that is not finite, or no such KL.

    >>> def at(kl, reward):
    ...     return FrontierPoint(name="m", kl=Interval(kl, kl, kl, 0.95, 1), reward=Interval(reward, 0, 1, 0.95, 1))
    >>> shared_kl([[at(0.0, 0.0), at(3.0, 0.5)]], [[at(0.5, 0.1), at(8.0, 0.9)]])
    (0.5, 3.0)
    """
    spans = [_span(curve) for method in methods for curve in _some(method)]
    low, high = max(span[0] for span in spans), min(span[1] for span in spans)
    if low > high:
        raise DataError(
            f"no KL that all reach: one curve begins at {low:g} nats where another ended at {high:g}; evaluate them at "
            "more steps or strengths, the untrained policy (KL 0) included"
        )
    return low, high


def reward_at_kl(curves: Sequence[Curve], kl: float, *, confidence: float = 0.95) -> Interval:
    """The reward of a method at a given KL, with the t interval over its seeds.

    Each seed's curve is interpolated between the two points around ``kl``, linearly in sqrt(KL), along which reward
    rises about linearly near the reference. Nothing is extrapolated. The interval is of the seeds' spread, which the
    error of each evaluation is part of; the points' own intervals are not used.

    Args:
        curves: one a seed. Add the untrained policy at KL 0 to each for values below the first evaluation.
        kl: nats an answer, >= 0.
        confidence: two-sided, in (0, 1).

    Returns:
        The mean over seeds; NaN ends for one seed.

    Raises:
        DataError: a curve that does not reach ``kl`` on both sides, is empty, or has a point that is not finite.
        ConfigError: ``confidence`` outside (0, 1).

    >>> def at(kl, reward):
    ...     return FrontierPoint(name="m", kl=Interval(kl, kl, kl, 0.95, 1), reward=Interval(reward, 0, 1, 0.95, 1))
    >>> print(reward_at_kl([[at(0.0, 0.5), at(4.0, 0.7)], [at(0.0, 0.5), at(1.0, 0.62)]], kl=1.0))
    0.610 [0.483, 0.737]
    """
    return mean_interval([_at(curve, kl) for curve in _some(curves)], confidence)


def difference_at_kl(
    first: Sequence[Curve], second: Sequence[Curve], kl: float, *, confidence: float = 0.95
) -> Interval:
    """How much more reward the first method has than the second at the same KL, paired by seed.

    Args:
        first, second: one curve a seed, of the same seeds in the same order (same prompts, same data order).
        kl: nats an answer; see :func:`shared_kl`.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: another number of seeds, or what :func:`reward_at_kl` refuses; also where the two were never at
            one KL, however near: rewards at different KL are not comparable.
        ConfigError: ``confidence`` outside (0, 1).

    >>> def at(kl, reward):
    ...     return FrontierPoint(name="m", kl=Interval(kl, kl, kl, 0.95, 1), reward=Interval(reward, 0, 1, 0.95, 1))
    >>> difference_at_kl([[at(0.0, 0.5), at(4.0, 0.7)]], [[at(0.0, 0.5), at(1.0, 0.5)]], kl=1.0).estimate.__round__(3)
    0.1
    """
    if len(first) != len(second):
        raise DataError(f"{len(first)} and {len(second)} seeds: differences are taken seed by seed")
    return difference_interval(
        [_at(curve, kl) for curve in _some(first)], [_at(curve, kl) for curve in _some(second)], confidence=confidence
    )


def _some(curves: Sequence[Curve]) -> Sequence[Curve]:
    if not curves:
        raise DataError("a method without a curve: give the points of at least one seed")
    return curves


def _span(curve: Curve) -> tuple[float, float]:
    if not curve:
        raise DataError("a curve without a point: give each seed's policies with their KL and reward")
    for point in curve:
        if not (math.isfinite(point.kl.estimate) and math.isfinite(point.reward.estimate)):
            raise DataError(f"{point.name!r} has KL {point.kl.estimate} and reward {point.reward.estimate}: not finite")
    kls = [max(0.0, point.kl.estimate) for point in curve]
    return min(kls), max(kls)


def _at(curve: Curve, kl: float) -> float:
    low, high = _span(curve)
    if not low <= kl <= high:
        raise DataError(
            f"{curve[0].name!r} was evaluated between {low:g} and {high:g} nats of KL, not at {kl:g}: rewards at "
            "different KL are not comparable and nothing is extrapolated; see shared_kl"
        )
    rewards: dict[float, list[float]] = {}
    for point in curve:
        # k1 can give a KL below zero, where the truth is none.
        rewards.setdefault(math.sqrt(max(0.0, point.kl.estimate)), []).append(point.reward.estimate)
    roots = sorted(rewards)
    return float(np.interp(math.sqrt(kl), roots, [float(np.mean(rewards[root])) for root in roots]))
