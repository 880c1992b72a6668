"""Intervals: published numbers, closed forms, and whether they cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from setsail.core import ConfigError, DataError
from setsail.evaluation import Interval, bootstrap_mean, mean_interval, wilson


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_against_published_numbers(successes: int, trials: int, low: float, high: float) -> None:
    interval = wilson(successes, trials)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.estimate == successes / trials
    assert (interval.n, interval.confidence) == (trials, 0.95)


@pytest.mark.parametrize(("successes", "trials", "confidence"), [(8, 10, 0.95), (3, 40, 0.9), (999, 1000, 0.99)])
def test_wilson_against_scipy(successes: int, trials: int, confidence: float) -> None:
    theirs = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    ours = wilson(successes, trials, confidence)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_wilson_is_symmetric_and_solves_its_equation() -> None:
    one, other = wilson(3, 17, 0.9), wilson(14, 17, 0.9)
    assert one.low == pytest.approx(1 - other.high, abs=1e-15)
    for end in (one.low, one.high):  # the ends are where the z statistic is exactly the quantile
        assert abs(3 / 17 - end) / math.sqrt(end * (1 - end) / 17) == pytest.approx(1.6448536269514722)
    assert wilson(17, 17).high == 1.0


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_what_is_no_share(successes: int, trials: int) -> None:
    with pytest.raises(DataError, match=f"{successes} successes in {trials} trials"):
        wilson(successes, trials)


def test_mean_interval_is_students() -> None:
    interval = mean_interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert interval.estimate == 3.0
    assert interval.high - 3.0 == pytest.approx(2.7764451051977987 * math.sqrt(2.5 / 5))


@pytest.mark.parametrize("clusters", [None, list(range(200))])
def test_the_bootstrap_agrees_with_the_normal_interval_for_many_values(clusters: list[int] | None) -> None:
    values = np.random.default_rng(0).normal(2.0, 3.0, 200)
    bootstrap, normal = bootstrap_mean(values, clusters=clusters), mean_interval(values)
    assert bootstrap.low == pytest.approx(normal.low, abs=0.06)
    assert bootstrap.high == pytest.approx(normal.high, abs=0.06)


def test_the_bootstrap_depends_on_its_seed_alone() -> None:
    values = [0.1, 0.5, 0.9, 0.3, 0.7]
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    assert bootstrap_mean(values, clusters="aabbc", seed=1) == bootstrap_mean(values, clusters="aabbc", seed=1)


def test_clusters_widen_the_interval_of_correlated_values_by_the_design_effect() -> None:
    generator = np.random.default_rng(1)
    prompts, each = 60, 8
    values = np.repeat(generator.normal(size=prompts), each) + 0.5 * generator.normal(size=prompts * each)
    clusters = np.repeat(np.arange(prompts), each).tolist()
    naive, clustered = bootstrap_mean(values), bootstrap_mean(values, clusters=clusters)
    # Within-cluster correlation 1 / 1.25 = 0.8: the variance is 1 + 7 * 0.8 = 6.6 times the naive one.
    ratio = (clustered.high - clustered.low) / (naive.high - naive.low)
    assert ratio == pytest.approx(math.sqrt(6.6), rel=0.15)
    assert clustered.estimate == pytest.approx(values.mean())


def test_unequal_clusters_weigh_by_their_values() -> None:
    interval = bootstrap_mean([0.0, 0.0, 0.0, 1.0], clusters=["a", "a", "a", "b"])
    assert interval.estimate == 0.25
    assert (interval.low, interval.high) == (0.0, 1.0)


def test_coverage() -> None:
    """95 % intervals cover the truth about 95 times in 100."""
    generator = np.random.default_rng(2)
    runs, covered = 300, {"wilson": 0, "bca": 0, "clusters": 0}
    for _ in range(runs):
        interval = wilson(int(generator.binomial(40, 0.85)), 40)
        covered["wilson"] += interval.low <= 0.85 <= interval.high
        interval = bootstrap_mean(generator.exponential(size=60), resamples=400)
        covered["bca"] += interval.low <= 1.0 <= interval.high
        values = np.repeat(generator.normal(size=50), 4) + generator.normal(size=200)
        interval = bootstrap_mean(values, clusters=np.repeat(np.arange(50), 4).tolist(), resamples=400)
        covered["clusters"] += interval.low <= 0.0 <= interval.high
    # Binomial spread of 300 runs: 1.3 points, and small-sample bootstraps cover a little less.
    assert all(0.90 <= count / runs <= 0.99 for count in covered.values()), covered


def test_too_little_to_tell() -> None:
    for interval in (
        mean_interval([2.0]),
        bootstrap_mean([2.0]),
        bootstrap_mean([1.0, 3.0], clusters=["a", "a"]),
    ):
        assert interval.estimate == 2.0
        assert math.isnan(interval.low)
        assert math.isnan(interval.high)
        assert str(interval).startswith("2.000 [no interval, n = ")
    assert str(bootstrap_mean([2.0, 2.0])) == "2.000 [2.000, 2.000]"


def test_missing_values_are_not_averaged() -> None:
    with pytest.raises(DataError, match="value 1 is nan: leave out what is missing"):
        bootstrap_mean([1.0, math.nan])
    with pytest.raises(DataError, match="at least one"):
        mean_interval([])
    with pytest.raises(DataError, match="1 clusters for 2 values"):
        bootstrap_mean([1.0, 2.0], clusters=["a"])


def test_unusable_options() -> None:
    for bad in (0.0, 1.0, 95):
        with pytest.raises(ConfigError, match="strictly between 0 and 1"):
            wilson(1, 2, bad)
    with pytest.raises(ConfigError, match="resamples=10"):
        bootstrap_mean([1.0, 2.0], resamples=10)


def test_how_it_reads() -> None:
    assert str(Interval(0.6123, 0.5714, 0.6519, 0.95, 500)) == "0.612 [0.571, 0.652]"
