"""Intervals: published numbers, closed forms, and whether they cover what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from setsail.core import ConfigError, DataError, stream
from setsail.evaluation import (
    Interval,
    bootstrap_mean,
    difference_interval,
    mean_interval,
    share_interval,
    wilson,
)


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
    values = stream(0, "values").normal(size=40)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)
    clusters = "abcd" * 10
    assert bootstrap_mean(values, clusters=clusters, seed=1) == bootstrap_mean(values, clusters=clusters, seed=1)


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
    # Twenty clusters of one 0 and twenty of nine 1s: the mean is 0.9, that of the clusters' means 0.5.
    values, clusters = [0.0] * 20 + [1.0] * 180, [*range(20), *np.repeat(range(20, 40), 9).tolist()]
    for found in (bootstrap_mean(values, clusters=clusters), mean_interval(values, clusters=clusters)):
        assert 0.7 < found.low < 0.9 < found.high < 1.0


def test_the_bootstrap_leans_to_the_long_tail() -> None:
    """Of skewed values the upper end is further away; mirrored values have the mirrored interval."""
    values = stream(0, "skewed").exponential(size=60)
    found, mirrored = bootstrap_mean(values), bootstrap_mean(-values)
    assert found.high - found.estimate > 1.05 * (found.estimate - found.low)
    assert (-mirrored.high, -mirrored.low) == pytest.approx((found.low, found.high), abs=1e-12)


def test_a_few_clusters_widen_the_bootstrap_as_they_do_the_t_interval() -> None:
    values = stream(0, "few clusters").normal(size=6)
    found, t = bootstrap_mean(values, resamples=20_000), mean_interval(values)
    assert found.high - found.low > 0.75 * (t.high - t.low)
    assert found.high - found.low > 2 * 1.96 * values.std(ddof=0) / math.sqrt(6)


# Shares.


@pytest.mark.parametrize(("wins", "losses"), [(8, 2), (0, 20), (333, 41)])
def test_a_share_of_wins_and_losses_is_wilsons(wins: int, losses: int) -> None:
    assert share_interval([1.0] * wins + [0.0] * losses) == wilson(wins, wins + losses)
    clusters = range(wins + losses)
    assert share_interval([1.0] * wins + [0.0] * losses, clusters=clusters) == wilson(wins, wins + losses)


def test_the_ends_of_a_share_are_where_the_t_statistic_is_the_quantile() -> None:
    """The variance of m scales as m (1 - m): ``|m - end| = t sqrt(end (1 - end) / n*)``."""
    values = np.array([1, 0.5, 0, 0.5, 1, 1, 0.5, 1, 0.25, 0.9])
    found, mean = share_interval(values), values.mean()
    worth = mean * (1 - mean) / (values.var(ddof=1) / 10)
    assert worth > 10, "ties are worth more than wins and losses"
    for end in (found.low, found.high):
        t = abs(mean - end) / math.sqrt(end * (1 - end) / worth)
        assert t == pytest.approx(stats.t.ppf(0.975, 9))


def test_clusters_that_repeat_each_verdict_are_worth_one_trial_each() -> None:
    """Wins and losses, four times each: as many trials as clusters, but for t in place of z and G - 1 in place of G."""
    verdicts = stream(0, "repeated").integers(2, size=400).astype(float)
    repeated = share_interval(np.repeat(verdicts, 4), clusters=np.repeat(np.arange(400), 4).tolist())
    alone = wilson(verdicts.sum(), 400)
    assert (repeated.low, repeated.high) == pytest.approx((alone.low, alone.high), abs=1e-3)
    assert repeated.n == 1600


@pytest.mark.parametrize("value", [0.0, 0.5, 0.1, 1.0])
def test_unanimity_is_not_certainty(value: float) -> None:
    found, trials = share_interval([value] * 30), wilson(30 * value, 30)
    assert (found.low, found.high) == pytest.approx((trials.low, trials.high), abs=1e-12)
    clusters = [index // 5 for index in range(30)]
    fewer = share_interval([value] * 30, clusters=clusters)
    assert (fewer.low, fewer.high) == pytest.approx((wilson(6 * value, 6).low, wilson(6 * value, 6).high), abs=1e-12)


def test_a_share_lies_between_0_and_1() -> None:
    with pytest.raises(DataError, match=r"value 1 is 1.5: a share is the mean of values in \[0, 1\]"):
        share_interval([1.0, 1.5])
    single = share_interval([0.7])
    assert math.isnan(single.low)
    assert math.isnan(share_interval([1.0, 0.0], clusters=["a", "a"]).high)


# Differences.


def test_a_difference_is_that_of_pairs() -> None:
    generator = stream(0, "pairs")
    prompts = 3 * generator.normal(size=200)
    first, second = prompts + generator.normal(0.5, 1.0, size=200), prompts + generator.normal(size=200)
    found = difference_interval(first, second)
    half = stats.t.ppf(0.975, 199) * (first - second).std(ddof=1) / math.sqrt(200)
    assert found.high - found.estimate == pytest.approx(half)
    assert found.low > 0
    mine, theirs = mean_interval(first), mean_interval(second)
    assert mine.low < theirs.high, "their own intervals overlap"
    with pytest.raises(DataError, match="2 and 1 values: a difference takes both on the same prompts"):
        difference_interval([1.0, 2.0], [1.0])


def test_clustered_t_intervals() -> None:
    """By hand: sums 3 and 1 over counts 2 and 1; m = 4/3, residuals 1/3 and -1/3, variance 2 * 2/9 / 9."""
    found = mean_interval([1.0, 2.0, 1.0], clusters=["a", "a", "b"])
    assert found.estimate == pytest.approx(4 / 3)
    assert found.high - found.estimate == pytest.approx(stats.t.ppf(0.975, 1) * math.sqrt(4 / 81))
    values = stream(0, "alone").normal(size=20)
    assert mean_interval(values, clusters=range(20)) == mean_interval(values)


def test_too_little_to_tell() -> None:
    for interval in (
        mean_interval([2.0]),
        bootstrap_mean([2.0]),
        bootstrap_mean([1.0, 3.0], clusters=["a", "a"]),
        mean_interval([1.0, 3.0], clusters=["a", "a"]),
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
