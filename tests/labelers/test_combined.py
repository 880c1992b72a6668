"""Labelers together, the policy's own reward, and the scripted one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from setsail.core import ConfigError, Judgement, Labeler, LabelerError
from setsail.labelers import Combined, ImplicitReward, Scripted

from .conftest import group_of

GROUP = group_of("a", "b")


def gap(nats: float | None, **options: Any) -> Scripted:
    """A labeler that scores "a" at ``nats`` and "b" at 0."""
    return Scripted({("q", "a"): nats, ("q", "b"): 0.0}, **options)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


class Verdict:
    """A labeler without scores."""

    name = "verdict"

    def label(self, groups: Any) -> list[Judgement]:
        return [Judgement(preference=((0.5, 0.9), (0.1, 0.5)), scores=None, labeler="verdict") for _ in groups]


def test_probabilities_are_averaged() -> None:
    [judgement] = Combined([gap(1.0), gap(-2.0), Verdict()], weights=[1, 2, 1]).label([GROUP])
    expected = (sigmoid(1.0) + 2 * sigmoid(-2.0) + 0.9) / 4
    assert judgement.preference[0][1] == pytest.approx(expected, abs=1e-15)
    assert judgement.preference[1][0] == pytest.approx(1 - expected, abs=1e-15)
    assert judgement.scores is None
    assert judgement.labeler == "scripted+scripted+verdict"


def test_scores_are_added() -> None:
    [judgement] = Combined([gap(1.0), gap(4.0)], weights=[1, -0.5], over="scores", scale=2.0).label([GROUP])
    assert judgement.scores == (-1.0, 0.0)
    assert judgement.preference[0][1] == pytest.approx(sigmoid(-0.5))


def test_the_two_ways_differ_where_one_labeler_is_sure() -> None:
    averaged, added = (
        Combined([gap(100.0), gap(-3.0)], over=over).label([GROUP])[0].preference[0][1]
        for over in ("preference", "scores")
    )
    assert averaged == pytest.approx((1 + sigmoid(-3.0)) / 2)
    assert added == pytest.approx(1.0)


@pytest.mark.parametrize(("nats", "p"), [(2.5, 1.0), (1.5, 0.0), (2.0, 0.5)])
def test_hard_is_decided_after_combining(nats: float, p: float) -> None:
    added = Combined([gap(nats), gap(-2.0)], over="scores", hard=True).label([GROUP])[0]
    averaged = Combined([gap(nats), gap(-2.0)], hard=True).label([GROUP])[0]
    assert added.preference[0][1] == averaged.preference[0][1] == p


@pytest.mark.parametrize("over", ["preference", "scores"])
def test_missing_if_any_is_missing(over: Any) -> None:
    silent = gap(None, name="silent")
    [judgement] = Combined([gap(1.0), silent], over=over).label([GROUP])
    assert judgement.preference[0][1] is None
    assert judgement.reason == "silent: the script has no score for a completion of this prompt"
    [judgement] = Combined([gap(1.0), silent], weights=[1, 0], over=over).label([GROUP])
    assert judgement.preference[0][1] == pytest.approx(sigmoid(1.0))


def test_a_failing_member_is_named() -> None:
    def fail(prompt: str, text: str) -> float:
        raise TimeoutError("after 60 s")

    [judgement] = Combined([gap(1.0), Scripted(fail, name="slow")]).label([GROUP])
    assert judgement.preference == ((None, None), (None, None))
    assert judgement.reason == "slow: TimeoutError: after 60 s"


def test_scores_that_do_not_exist_cannot_be_added() -> None:
    with pytest.raises(ConfigError, match="'verdict' gives preferences but no scores"):
        Combined([gap(1.0), Verdict()], over="scores").label([GROUP])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labelers": []}, "no labeler to combine"),
        ({"over": "votes"}, "over='votes'"),
        ({"weights": [1]}, "1 weights for 2 labelers"),
        ({"weights": [1, -1]}, "no negative weights"),
    ],
)
def test_unusable_combinations(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Combined(**({"labelers": [gap(1.0), gap(2.0)]} | options))


def test_implicit_reward_is_bradley_terry_in_nats() -> None:
    labeler = ImplicitReward(lambda groups: [[0.7, 0.0, math.nan] for _ in groups])
    assert isinstance(labeler, Labeler)
    [judgement] = labeler.label([group_of("a", "b", "c")])
    assert judgement.preference[0][1] == pytest.approx(sigmoid(0.7))
    assert judgement.preference[0][2] is None
    assert judgement.labeler == "implicit"
    hard = ImplicitReward(lambda groups: [[0.7, 0.7001]], hard=True)
    assert hard.label([GROUP])[0].preference[0][1] == 0.0


@pytest.mark.parametrize("rewards", [[], [[1.0]], [[1.0, 2.0], [1.0, 2.0]]])
def test_implicit_rewards_must_match_the_candidates(rewards: list[list[float]]) -> None:
    with pytest.raises(LabelerError, match=r"for groups of \[2\] candidates"):
        ImplicitReward(lambda groups: rewards).label([GROUP])


def test_scripted_by_function_and_by_table() -> None:
    labeler = Scripted(lambda prompt, text: float(len(prompt + text)), scale=2.0)
    assert labeler.label([group_of("a", "bbb", prompt="qq")])[0].scores == (3.0, 5.0)
    assert labeler.label([]) == []
    assert labeler.calls == [1, 0]
    assert Scripted({}).label([GROUP])[0].scores == (None, None)
