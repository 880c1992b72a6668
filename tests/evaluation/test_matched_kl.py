"""Rewards at one distance from the reference, over seeds."""

from __future__ import annotations

import math

import pytest

from setsail.core import DataError, stream
from setsail.evaluation import (
    FrontierPoint,
    Interval,
    difference_at_kl,
    difference_interval,
    mean_interval,
    reward_at_kl,
    shared_kl,
)


def point(kl: float, reward: float) -> FrontierPoint:
    return FrontierPoint(
        name="method", kl=Interval(kl, kl, kl, 0.95, 100), reward=Interval(reward, reward, reward, 0.95, 100)
    )


def curve(gain: float, *kls: float) -> list[FrontierPoint]:
    """A run whose reward is ``gain * sqrt(KL)``."""
    return [point(kl, gain * math.sqrt(kl)) for kl in kls]


GAINS = (0.31, 0.28, 0.35, 0.3, 0.29)


def test_rewards_along_the_square_root_are_met_exactly() -> None:
    """Evaluated at other KL than asked, at others for each seed, in any order."""
    runs = [curve(gain, 4.0 + index, 0.0, 0.7 * index + 0.1) for index, gain in enumerate(GAINS)]
    found = reward_at_kl(runs, kl=2.3)
    expected = mean_interval([gain * math.sqrt(2.3) for gain in GAINS])
    assert (found.estimate, found.low, found.high) == pytest.approx((expected.estimate, expected.low, expected.high))
    assert found.n == 5


def test_a_point_that_was_evaluated_is_returned_and_doubles_are_averaged() -> None:
    assert reward_at_kl([[point(1.0, 0.4), point(2.0, 0.9)]], kl=2.0).estimate == 0.9
    assert reward_at_kl([[point(1.0, 0.4), point(1.0, 0.6)]], kl=1.0).estimate == pytest.approx(0.5)
    assert math.isnan(reward_at_kl([[point(1.0, 0.4)]], kl=1.0).low), "one seed has no spread"


def test_a_negative_estimate_of_the_kl_is_none() -> None:
    assert reward_at_kl([[point(-0.01, 0.4), point(4.0, 0.8)]], kl=1.0).estimate == pytest.approx(0.6)


def test_the_difference_is_paired_by_seed() -> None:
    first = [curve(gain + 0.1, 0.0, 3.0) for gain in GAINS]
    second = [curve(gain, 0.0, 5.0) for gain in GAINS]
    found = difference_at_kl(first, second, kl=2.0)
    assert found.estimate == pytest.approx(0.1 * math.sqrt(2))
    assert found.high - found.low == pytest.approx(0.0, abs=1e-12), "the seeds move both alike"
    noise = [list(row) for row in stream(0, "seeds").normal(size=(2, 5))]
    runs = [[[point(0.0, 0.0), point(1.0, reward)] for reward in side] for side in noise]
    assert difference_at_kl(*runs, kl=1.0) == difference_interval(*noise)


def test_rewards_at_different_kl_are_not_compared() -> None:
    """One ended at 0.104 nats with 51.6 %, the other at 0.015 with 50.9 %."""
    online, fixed = [[point(0.104, 0.516)]], [[point(0.015, 0.509)]]
    for kl in (0.104, 0.015, 0.05):
        with pytest.raises(DataError, match="rewards at different KL are not comparable and nothing is extrapolated"):
            difference_at_kl(online, fixed, kl=kl)
    with pytest.raises(DataError, match=r"begins at 0.104 nats where another ended at 0.015"):
        shared_kl(online, fixed)
    # With the untrained policy in both they can be, where both have been.
    start = point(0.0, 0.5)
    both = [[[start, *run] for run in side] for side in (online, fixed)]
    assert shared_kl(*both) == (0.0, 0.015)
    assert difference_at_kl(*both, kl=0.015).estimate == pytest.approx(0.5 + 0.016 * math.sqrt(0.015 / 0.104) - 0.509)


def test_what_is_no_curve() -> None:
    with pytest.raises(DataError, match="a method without a curve"):
        reward_at_kl([], kl=1.0)
    with pytest.raises(DataError, match="a curve without a point"):
        reward_at_kl([[]], kl=1.0)
    with pytest.raises(DataError, match="'method' has KL nan"):
        reward_at_kl([[point(math.nan, 0.3)]], kl=1.0)
    with pytest.raises(DataError, match="2 and 1 seeds"):
        difference_at_kl([curve(1, 1.0)] * 2, [curve(1, 1.0)], kl=1.0)
