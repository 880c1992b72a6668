"""Reward functions in TRL's form: what they are given, what they may return, what becomes missing."""

from __future__ import annotations

import asyncio
import functools
import math
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from setsail.core import Candidates, ConfigError, Labeler
from setsail.labelers import RewardFunctions

from .conftest import group_of


def length(completions: list[str], **kwargs: Any) -> list[float]:
    """A module-level function, so that it can be pickled."""
    return [float(len(text)) for text in completions]


def test_one_call_scores_every_completion_of_every_group() -> None:
    calls = []

    def reward(prompts: list[str], completions: list[str], completion_ids: list[list[int]]) -> list[float]:
        calls.append((prompts, completions, completion_ids))
        return [float(len(text)) for text in completions]

    judgements = RewardFunctions(reward).label([group_of("a", "bb", prompt="p"), group_of("ccc", "", "d", prompt="r")])
    assert calls == [
        (["p", "p", "r", "r", "r"], ["a", "bb", "ccc", "", "d"], [[97], [98, 98], [99, 99, 99], [], [100]])
    ]
    assert [judgement.scores for judgement in judgements] == [(1.0, 2.0), (3.0, 0.0, 1.0)]
    assert judgements[0].preference[1][0] == pytest.approx(0.7310585786300049)
    assert isinstance(RewardFunctions(reward), Labeler)


def test_columns_are_repeated_for_every_completion() -> None:
    def correct(completions: list[str], answer: list[str]) -> list[float]:
        return [float(text == right) for text, right in zip(completions, answer, strict=True)]

    groups = [group_of("4", "5", answer="4", unused=1), group_of("4", "5", answer="5")]
    assert [j.scores for j in RewardFunctions(correct).label(groups)] == [(1.0, 0.0), (0.0, 1.0)]


def test_a_column_that_a_row_lacks_is_none() -> None:
    seen = []

    def reward(completions: list[str], answer: list[Any]) -> list[float]:
        seen.extend(answer)
        return [0.0] * len(completions)

    RewardFunctions(reward).label([group_of("a", answer=1), group_of("b")])
    assert seen == [1, None]


def test_conversational_prompts_arrive_as_messages() -> None:
    seen: dict[str, Any] = {}

    def reward(prompts: Any, completions: Any) -> list[float]:
        seen.update(prompts=prompts, completions=completions)
        return [float(len(turn[0]["content"])) for turn in completions]

    messages = ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    [judgement] = RewardFunctions(reward).label([group_of("x", "yy", prompt="Hi", messages=messages)])
    assert seen["prompts"] == [list(messages)] * 2
    assert seen["completions"] == [[{"role": "assistant", "content": text}] for text in ("x", "yy")]
    assert judgement.scores == (1.0, 2.0)


def test_a_function_cannot_change_what_the_next_one_sees() -> None:
    def vandal(prompts: list[str], completions: list[str]) -> list[float]:
        completions[:] = ["gone"] * len(completions)
        return [0.0] * len(completions)

    assert RewardFunctions([vandal, length]).label([group_of("a", "bb")])[0].scores == (1.0, 2.0)


def test_only_accepted_arguments_are_passed_and_kwargs_take_all() -> None:
    seen: dict[str, Any] = {}

    def everything(**kwargs: Any) -> list[float]:
        seen.update(kwargs)
        kwargs["log_metric"]("name", 1.0)
        kwargs["log_extra"]("column", ["x"])
        return [0.0] * len(kwargs["completions"])

    def state(completions: list[str], trainer_state: Any) -> list[float]:
        return [float(trainer_state)] * len(completions)

    labeler = RewardFunctions([everything, state])
    labeler.trainer_state = 7
    assert labeler.label([group_of("a", answer=1, prompts="a column of that name")])[0].scores == (7.0,)
    assert set(seen) == {
        "prompts",
        "completions",
        "completion_ids",
        "answer",
        "trainer_state",
        "log_extra",
        "log_metric",
    }
    assert seen["prompts"] == ["q"]


def test_weights_make_a_sum_and_zero_is_not_called() -> None:
    def never(completions: list[str]) -> list[float]:
        raise AssertionError("called")

    def cost(completions: list[str]) -> list[float]:
        return [10.0, 20.0]

    labeler = RewardFunctions([length, never, cost], weights=[2, 0, -0.1])
    assert labeler.label([group_of("a", "bb")])[0].scores == (2.0 - 1.0, 4.0 - 2.0)
    assert labeler.name == "length+never+cost"


def raising(completions: list[str]) -> list[float]:
    raise ZeroDivisionError("division\nby zero")


def needing(completions: list[str], answer: list[str]) -> list[float]:
    return []


async def async_raising(completions: list[str]) -> list[float]:
    raise TimeoutError


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raising, "raising: it raised ZeroDivisionError: division by zero"),
        (async_raising, "async_raising: it raised TimeoutError"),
        (lambda completions: [1.0], "<lambda>: it returned 1 scores for 2 completions"),
        (lambda completions: None, "<lambda>: it returned NoneType instead of a list of scores"),
        (lambda completions: 3.0, "<lambda>: it returned one float instead of a list of scores"),
        (lambda completions: "ab", "<lambda>: it returned str instead of a list of scores"),
        (lambda completions: [math.nan] * 2, "<lambda>: it returned nan for a completion"),
        (lambda completions: ["1", "2"], "<lambda>: it returned '1' for a completion; <lambda>: it returned '2' for"),
        (needing, "needing: it requires the argument 'answer', which is no column of the data set (columns: topic)"),
    ],
)
def test_a_broken_function_is_missing_with_its_reason_and_never_zero(function: Callable[..., Any], reason: str) -> None:
    [judgement] = RewardFunctions([length, function]).label([group_of("a", "bb", topic="x")])
    assert judgement.scores == (None, None)
    assert judgement.preference == ((None, None), (None, None))
    assert judgement.reason.startswith(reason)


def test_none_is_missing_for_that_completion_alone() -> None:
    def some(completions: list[str]) -> list[float | None]:
        return [-1.0, None, -2.0]

    [judgement] = RewardFunctions([some, length]).label([group_of("a", "b", "c")])
    assert judgement.scores == (0.0, None, -1.0)
    assert judgement.preference[0][1] is None
    assert judgement.preference[0][2] == pytest.approx(0.7310585786300049)
    assert judgement.reason == "some: it returned None for a completion"


def test_infinity_is_missing() -> None:
    def endless(completions: list[str]) -> list[float]:
        return [math.inf, 0.0]

    assert RewardFunctions(endless).label([group_of("a", "b")])[0].scores == (None, 0.0)


def test_an_interrupt_passes_through() -> None:
    def interrupted(completions: list[str]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RewardFunctions(interrupted).label([group_of("a", "b")])


def test_async_functions_run_at_the_same_time_on_one_kept_loop() -> None:
    loops = []
    meeting: list[asyncio.Event] = []

    async def first(completions: list[str]) -> list[float]:
        loops.append(asyncio.get_running_loop())
        meeting.append(asyncio.Event())
        await asyncio.wait_for(meeting[-1].wait(), timeout=5)
        return [1.0] * len(completions)

    class Second:
        async def __call__(self, completions: list[str]) -> list[float]:
            while not meeting:
                await asyncio.sleep(0)
            meeting[-1].set()
            return [2.0] * len(completions)

    labeler = RewardFunctions([first, Second(), length])
    assert labeler.name == "first+Second+length"
    assert labeler.label([group_of("a", "bb")])[0].scores == (4.0, 5.0)

    async def notebook() -> Any:
        return labeler.label([group_of("a")])[0].scores

    assert asyncio.run(notebook()) == (4.0,)
    assert loops[0] is loops[1]
    assert sum(thread.name == "setsail-reward-functions" for thread in threading.enumerate()) >= 1


def test_partials_and_pickling() -> None:
    def scaled(completions: list[str], by: float) -> list[float]:
        return [by * len(text) for text in completions]

    labeler = RewardFunctions(functools.partial(scaled, by=3.0))
    assert labeler.name == "scaled"
    assert labeler.label([group_of("a")])[0].scores == (3.0,)
    copy = pickle.loads(pickle.dumps(RewardFunctions(length)))
    assert copy.label([group_of("abc")])[0].scores == (3.0,)


def test_nothing_to_judge() -> None:
    empty: Candidates = group_of()
    assert RewardFunctions(raising).label([]) == []
    assert RewardFunctions(raising).label([empty])[0].preference == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([],), "no reward function given"),
        ((3,), "must be callable, got 3"),
        (([length], [1, 2]), "2 weights for 1 labelers"),
        (([length], [0]), "at least one not zero"),
        (([length], [math.nan]), "must be finite"),
    ],
)
def test_what_cannot_be_set_up(arguments: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RewardFunctions(*arguments)
