"""Win rates: ties, missing verdicts, which interval, both orders, and who may judge."""

from __future__ import annotations

import math

import pytest

from setsail.core import ConfigError, DataError
from setsail.evaluation import bootstrap_mean, both_orders, check_judge, share_interval, wilson, win_rate


def test_counts_and_wilsons_interval_for_certain_verdicts() -> None:
    found = win_rate([1, 0, None, 1, 1, math.nan, 1, 1, 1, 1, 0, 1])
    assert (found.wins, found.ties, found.losses, found.missing, found.n) == (8, 0, 2, 2, 10)
    assert found.rate == wilson(8, 10)
    assert str(found) == "0.800 [0.490, 0.943] (8 wins, 0 ties, 2 losses, 2 missing)"


def test_ties_are_one_half_and_narrow_the_interval() -> None:
    outcomes = [1, 0.5, 0, 0.5 + 1e-12, 1]
    found = win_rate(outcomes)
    assert (found.wins, found.ties, found.losses, found.tie_rate) == (2, 2, 1, 0.4)
    assert found.rate.estimate == pytest.approx(0.6)
    assert found.rate == share_interval(outcomes)
    decided = win_rate([1] * 60 + [0] * 40)
    tied = win_rate([1] * 20 + [0.5] * 80)
    assert decided.rate.estimate == tied.rate.estimate
    assert tied.rate.high - tied.rate.low < 0.5 * (decided.rate.high - decided.rate.low)


def test_a_bootstrap_interval_on_request() -> None:
    outcomes = [1, 0.5, 0, 1, 1, 0.5]
    assert win_rate(outcomes, interval="bootstrap", seed=3).rate == bootstrap_mean(outcomes, seed=3)
    assert win_rate([1, 1, 1], interval="bootstrap").rate == wilson(3, 3)
    with pytest.raises(ConfigError, match="interval='normal': a win rate has a 'score' or a 'bootstrap' interval"):
        win_rate([1, 0], interval="normal")


def test_probabilities_are_averaged() -> None:
    found = win_rate([0.9, 0.6, 0.3])
    assert found.rate.estimate == pytest.approx(0.6)
    assert (found.wins, found.losses) == (2, 1)


def test_comparisons_of_one_prompt_are_resampled_together() -> None:
    outcomes = [1, 1, 1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0, None, 1, 1, 0]
    clusters = [index // 4 for index in range(len(outcomes))]
    alone, together = win_rate(outcomes), win_rate(outcomes, clusters=clusters)
    assert together.rate.estimate == alone.rate.estimate
    assert together.rate.high - together.rate.low > 1.3 * (alone.rate.high - alone.rate.low)


def test_distinct_clusters_are_no_clusters() -> None:
    assert win_rate([1, 0, 1], clusters=["a", "b", "c"]) == win_rate([1, 0, 1])


def test_unanimous_clusters_do_not_look_certain() -> None:
    found = win_rate([1] * 12, clusters=[index // 4 for index in range(12)])
    assert (found.rate.low, found.rate.high) == (wilson(3, 3).low, 1.0)
    assert found.rate.n == 12


@pytest.mark.parametrize(
    ("outcomes", "message"),
    [
        ([1, 1.5], "outcome 1 is 1.5"),
        ([None, None], "none of 2 comparisons has a verdict"),
        ([], "none of 0 comparisons"),
    ],
)
def test_what_is_no_outcome(outcomes: list[float | None], message: str) -> None:
    with pytest.raises(DataError, match=message):
        win_rate(outcomes)


def test_clusters_must_match() -> None:
    with pytest.raises(DataError, match="1 clusters for 2 outcomes"):
        win_rate([1, 0], clusters=["a"])


@pytest.mark.parametrize(
    ("p_ab", "p_ba", "expected"),
    [
        (1.0, 0.0, 1.0),  # A both times
        (0.0, 1.0, 0.0),  # B both times
        (1.0, 1.0, 0.5),  # the first place both times
        (0.0, 0.0, 0.5),  # the second place both times
        (0.9, 0.8, 0.5),  # the same, in probabilities whose mean is not one half
        (0.9, 0.3, 0.8),
        (0.5, 0.0, 0.75),  # undecided once, A once
        (0.5, 0.5, 0.5),
        (None, 1.0, None),
        (1.0, None, None),
        (math.nan, 1.0, None),
    ],
)
def test_both_orders(p_ab: float | None, p_ba: float | None, expected: float | None) -> None:
    assert both_orders(p_ab, p_ba) == (None if expected is None else pytest.approx(expected))


def test_both_orders_take_probabilities() -> None:
    with pytest.raises(DataError, match=r"1\.2 is no probability"):
        both_orders(0.5, 1.2)


@pytest.mark.parametrize(
    ("judges", "trained"),
    [("rm", ["rm"]), (["rm"], ["rm", "length"]), ("rm", ["rm+length"]), (["rm", "length"], ["length+rm"])],
)
def test_the_labeler_that_trained_may_not_be_the_only_judge(judges: str | list[str], trained: list[str]) -> None:
    with pytest.raises(ConfigError, match=r"the only judge, 'rm'.*also labeled the training pairs.*or pass allow=True"):
        check_judge(judges, trained)
    check_judge(judges, trained, allow=True)


@pytest.mark.parametrize(
    ("judges", "trained"),
    [("gold", ["rm"]), (["rm", "gold"], ["rm"]), ("rm+gold", ["rm"]), ("rm", []), ("rm-2", ["rm"])],
)
def test_a_judge_that_took_no_part_is_welcome(judges: str | list[str], trained: list[str]) -> None:
    check_judge(judges, trained)


def test_some_judge_must_be_named() -> None:
    with pytest.raises(ConfigError, match="no judge given"):
        check_judge([], ["rm"])
