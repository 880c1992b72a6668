"""What training did to the log-probs of the pairs it learnt from: likelihood displacement."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from setsail.core import DataError
from setsail.evaluation.intervals import Floats, Interval, finite, mean_interval, share_interval

Values = Sequence[float] | Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Displacement:
    """Changes of log-probs from before training to after it, over pairs; nats a completion.

    Attributes:
        chosen, rejected: mean change of log pi, with t intervals.
        margin: mean change of log pi(chosen) - log pi(rejected), paired.
        chosen_fell: share of pairs whose chosen completion lost probability.
        both_fell: share of pairs whose chosen and rejected completions did. Where the margin rises and this share is
            large, the probability went to completions that are in no pair.
    """

    chosen: Interval
    rejected: Interval
    margin: Interval
    chosen_fell: Interval
    both_fell: Interval


def likelihood_displacement(
    chosen_before: Values,
    chosen_after: Values,
    rejected_before: Values,
    rejected_after: Values,
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
) -> Displacement:
    """How far training moved chosen and rejected completions; the chosen may fall while every margin rises.

    Args:
        chosen_before, chosen_after, rejected_before, rejected_after: log pi before and after training, ``(pairs,)``,
            nats, summed over tokens; "before" is the reference where training began there.
        clusters: what pairs share, such as the prompt's row id.
        confidence: two-sided, in (0, 1).

    Raises:
        DataError: lists of different lengths, no pairs, or a number that is not finite.
        ConfigError: ``confidence`` outside (0, 1).

    Source: arXiv 2410.08847, which names the fall of the chosen completion.

    >>> found = likelihood_displacement([-10.0, -12.0], [-11.0, -11.5], [-10.0, -9.0], [-14.0, -10.0])
    >>> found.chosen.estimate, found.margin.estimate, found.both_fell.estimate
    (-0.25, 2.25, 0.5)
    """
    given = [list(values) for values in (chosen_before, chosen_after, rejected_before, rejected_after)]
    if len({len(values) for values in given}) != 1:
        raise DataError(f"{[len(values) for values in given]} log-probs: give all four of every pair")
    before, after, other_before, other_after = (finite(values) for values in given)
    chosen, rejected = after - before, other_after - other_before

    def mean(values: Floats) -> Interval:
        return mean_interval(values.tolist(), confidence, clusters=clusters)

    def share(values: Floats) -> Interval:
        return share_interval(values.tolist(), clusters=clusters, confidence=confidence)

    return Displacement(
        chosen=mean(chosen),
        rejected=mean(rejected),
        margin=mean(chosen - rejected),
        chosen_fell=share((chosen < 0).astype(np.float64)),
        both_fell=share(((chosen < 0) & (rejected < 0)).astype(np.float64)),
    )
