"""Functions that compare two answers: both orders, circles, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest

from setsail.core import Candidates, Completion, ConfigError, Prompt
from setsail.labelers import PreferenceFunction, RewardFunctions, resolve
from setsail.methods import get
from setsail.methods.comparing import compare

BEATS = {("rock", "scissors"), ("scissors", "paper"), ("paper", "rock")}


def _group(*texts: str, row_id: int = 0, **columns: Any) -> Candidates:
    answers = tuple(Completion(token_ids=(2,), text=text) for text in texts)
    return Candidates(prompt=Prompt(row_id=row_id, text="q", token_ids=(1,), columns=columns), completions=answers)


def _circle(firsts: list[str], seconds: list[str]) -> list[float]:
    return [0.9 if pair in BEATS else 0.1 for pair in zip(firsts, seconds, strict=True)]


def test_a_preference_may_go_in_circles() -> None:
    [judgement] = PreferenceFunction(_circle).label([_group("rock", "scissors", "paper")])
    assert judgement.scores is None
    assert [judgement.preference[i][(i + 1) % 3] for i in range(3)] == pytest.approx([0.9] * 3)
    assert [row[i] for i, row in enumerate(judgement.preference)] == [0.5] * 3


def test_a_liking_for_the_first_place_cancels() -> None:
    """Latent gaps with a bias of 0.6 toward the first: one order says first four times of four."""
    gap = {"a": -0.4, "b": -0.1, "c": 0.1, "d": 0.4}

    def biased(firsts: list[str], seconds: list[str]) -> list[float]:
        return [min(1.0, max(0.0, 0.5 + (gap[a] - gap[b]) / 4 + 0.3)) for a, b in zip(firsts, seconds, strict=True)]

    assert min(biased(["a"], ["d"])) >= 0.5
    [judgement] = PreferenceFunction(biased, hard=True).label([_group("a", "b", "c", "d")])
    assert [judgement.preference[i][3] for i in range(3)] == [0.0, 0.0, 0.0]
    assert [judgement.preference[3][i] for i in range(3)] == [1.0, 1.0, 1.0]


def test_both_orders_add_up_to_one() -> None:
    [judgement] = PreferenceFunction(lambda firsts, seconds: [0.7] * len(firsts)).label([_group("a", "b")])
    assert judgement.preference == ((0.5, 0.5), (0.5, 0.5))


def test_what_has_no_answer_is_missing_and_says_why() -> None:
    def silent(firsts: list[str], seconds: list[str]) -> list[float | None]:
        return [None if "c" in pair else 1.5 if "b" in pair else 0.9 for pair in zip(firsts, seconds, strict=True)]

    [first, second] = PreferenceFunction(silent, name="judge").label([_group("a", "b", "c"), _group("a", "d")])
    assert first.preference[0][1:] == (None, None)
    assert "judge: it returned 1.5, which is no probability" in first.reason
    assert second.preference[0][1] == pytest.approx(0.5)
    assert second.reason == ""


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(lambda: [0.5], "it returned 1 scores for 2 completions"), (lambda: 1 / 0, "it raised ZeroDivisionError")],
)
def test_a_failing_function_gives_no_preference(answer: Any, reason: str) -> None:
    [judgement] = PreferenceFunction(lambda firsts, seconds: answer()).label([_group("a", "b")])
    assert judgement.preference[0][1] is None
    assert reason in judgement.reason


def test_columns_and_async_functions() -> None:
    async def right(firsts: list[str], seconds: list[str], answer: list[str]) -> list[float]:
        return [float(first == wanted) for first, wanted in zip(firsts, answer, strict=True)]

    [judgement] = PreferenceFunction(right).label([_group("4", "5", answer="4")])
    assert judgement.preference[0][1] == 1.0


def test_groups_do_not_mix() -> None:
    groups = [_group("rock", "paper"), _group("scissors"), _group("rock", "scissors")]
    first, alone, last = PreferenceFunction(_circle).label(groups)
    assert (first.preference[0][1], last.preference[0][1]) == (pytest.approx(0.1), pytest.approx(0.9))
    assert alone.preference == ((0.5,),)
    assert PreferenceFunction(_circle).label([]) == []


def test_it_is_known_by_its_arguments() -> None:
    assert isinstance(resolve(_circle), PreferenceFunction)
    assert isinstance(resolve(lambda prompts, completions: []), RewardFunctions)
    with pytest.raises(ConfigError, match="does not take the arguments firsts and seconds"):
        PreferenceFunction(lambda completions: [])
    with pytest.raises(ConfigError, match="it divides score gaps"):
        resolve(_circle, scale=2.0)


def test_in_a_list_it_is_averaged() -> None:
    labeler = resolve([_circle, lambda completions: [float(text == "rock") for text in completions]], hard=False)
    [judgement] = labeler.label([_group("rock", "paper")])
    assert judgement.preference[0][1] == pytest.approx((0.1 + 0.7310586) / 2)


def test_best_and_worst_are_ranked_by_win_rate() -> None:
    def mostly_a(firsts: list[str], seconds: list[str]) -> list[float]:
        order = "dbca"
        return [0.9 if order.index(a) > order.index(b) else 0.1 for a, b in zip(firsts, seconds, strict=True)]

    [judgement] = PreferenceFunction(mostly_a).label([_group("a", "b", "c", "d")])
    [pair] = compare(get("inpo").routes[0], judgement, 4, lambda: 0.5)
    assert pair.indices == (0, 3)
    assert pair.p == 1.0
