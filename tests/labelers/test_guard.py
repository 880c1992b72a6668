"""The guard: failures become missing, missing is counted, too much of it stops the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest

from setsail.core import Candidates, ConfigError, Judgement, LabelerError
from setsail.labelers import MissingGuard, Scripted

from .conftest import group_of

GOOD = {("q", "a"): 1.0, ("q", "b"): 0.0}


class Returning:
    """A labeler that returns what it was told to."""

    name = "odd"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def label(self, groups: Sequence[Candidates]) -> Any:
        if isinstance(self.answer, BaseException):
            raise self.answer
        return self.answer


def judged(preference: Any, scores: Any = None) -> Judgement:
    return Judgement(preference=preference, scores=scores, labeler="odd")


def test_sound_judgements_pass_unchanged() -> None:
    labeler = Scripted(GOOD)
    guard = MissingGuard(labeler)
    groups = [group_of("a", "b"), group_of("b", "a")]
    assert guard.label(groups) == labeler.label(groups)
    assert (guard.name, guard.seen, guard.missing, guard.last_reason) == ("scripted", 2, 0, "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (RuntimeError("the judge\nis down"), "RuntimeError: the judge is down"),
        (LabelerError("no quota"), "LabelerError: no quota"),
        ([], "it returned 0 judgements for 1 groups"),
        (None, "TypeError: 'NoneType' object is not iterable"),
        ([0.5], "it returned a float where a Judgement is due"),
        ([judged(((0.5,),))], "its preference matrix has 1 rows of [1] entries for 2 candidates"),
        ([judged(((0.5, 0.5), (0.5,)))], "its preference matrix has 2 rows of [1, 2] entries for 2 candidates"),
        ([judged(((0.5, 1.5), (-0.5, 0.5)))], "its preference 1.5 is no probability"),
        ([judged(((0.5, float("nan")), (0.5, 0.5)))], "its preference nan is no probability"),
        ([judged(((0.5, "A"), (0.5, 0.5)))], "its preference 'A' is no probability"),
        ([judged(((0.5, 0.5), (0.5, 0.5)), (1.0,))], "it gave 1 scores for 2 candidates"),
        ([judged(((0.5, 0.5), (0.5, 0.5)), (1.0, float("inf")))], "its score inf is not a finite number"),
    ],
)
def test_whatever_is_wrong_becomes_missing_with_its_reason(answer: Any, reason: str) -> None:
    guard = MissingGuard(Returning(answer))
    [judgement] = guard.label([group_of("a", "b")])
    assert judgement.preference == ((None, None), (None, None))
    assert judgement.scores == (None, None)
    assert judgement.labeler == "odd"
    assert judgement.reason == guard.last_reason == reason
    assert (guard.seen, guard.missing) == (1, 1)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ConfigError("scores cannot be added")])
def test_interrupts_and_set_up_errors_pass_through(error: BaseException) -> None:
    with pytest.raises(type(error)):
        MissingGuard(Returning(error)).label([group_of("a", "b")])


def test_pairs_are_counted_once_each() -> None:
    guard = MissingGuard(Scripted({("q", "a"): 1.0, ("q", "b"): 0.0, ("q", "c"): 2.0}))
    guard.label([group_of("a", "b", "c", "unknown"), group_of("a")])
    assert (guard.seen, guard.missing) == (6, 3)


def test_one_missing_direction_makes_the_pair_missing() -> None:
    guard = MissingGuard(Returning([judged(((0.5, 0.7), (None, 0.5)))]))
    guard.label([group_of("a", "b")])
    assert (guard.missing, guard.last_reason) == (1, "the labeler gave no reason")


def test_the_rate_stops_the_run_once_enough_is_seen() -> None:
    guard = MissingGuard(Scripted(GOOD, name="judge-7"), max_missing_rate=0.25, min_seen=8)
    good, bad = group_of("a", "b"), group_of("a", "unknown")
    guard.label([good, bad, bad, good])  # half is missing, but only four pairs are seen
    guard.label([good, good, good, good])  # 2 of 8 = the rate itself
    with pytest.raises(LabelerError) as caught:
        guard.label([bad])
    assert str(caught.value) == (
        "labeler 'judge-7': 3 of 9 preferences are missing (at most 25% may be); last reason: the script has no score "
        "for a completion of this prompt. Repair the labeler, or raise max_missing_rate if that many pairs have no "
        "answer by nature"
    )


def test_three_wholly_missing_calls_stop_the_run_even_if_every_pair_may_be_missing() -> None:
    guard = MissingGuard(Returning(OSError("refused")), max_missing_rate=1.0, min_seen=1000)
    guard.label([group_of("a", "b")])
    guard.label([])  # a call without pairs says nothing
    guard.label([group_of("a", "b")])
    with pytest.raises(LabelerError, match=r"'odd': 3 of 3 preferences are missing; last reason: OSError: refused"):
        guard.label([group_of("a", "b")])


def test_min_seen_wholly_missing_pairs_stop_the_run_in_the_first_call() -> None:
    guard = MissingGuard(Returning(OSError("refused")), max_missing_rate=1.0, min_seen=4)
    with pytest.raises(LabelerError, match="4 of 4"):
        guard.label([group_of("a", "b")] * 4)


def test_a_rate_of_one_tolerates_anything_but_silence() -> None:
    guard = MissingGuard(Scripted(GOOD), max_missing_rate=1.0, min_seen=4)
    guard.label([group_of("a", "b")])
    for _ in range(10):
        guard.label([group_of("a", "unknown")] * 10)
    assert (guard.seen, guard.missing) == (101, 100)


def test_each_kind_of_reason_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    labeler = Returning(OSError("port 80"))
    guard = MissingGuard(labeler, min_seen=1000)
    guard.seen = 500  # so that silence does not stop it
    with caplog.at_level(logging.WARNING, logger="setsail"):
        for error in (OSError("port 80"), OSError("port 81"), ValueError("other")):
            labeler.answer = error
            guard.label([group_of("a", "b")])
    assert [record.getMessage() for record in caplog.records] == [
        "labeler 'odd': preference missing: OSError: port 80 (pairs without one are dropped)",
        "labeler 'odd': preference missing: ValueError: other (pairs without one are dropped)",
    ]


def test_the_log_stays_short_when_every_reason_is_different(caplog: pytest.LogCaptureFixture) -> None:
    labeler = Returning(None)
    guard = MissingGuard(labeler, min_seen=10_000)
    guard.seen = 5000
    with caplog.at_level(logging.WARNING, logger="setsail"):
        for index in range(50):
            labeler.answer = ValueError("x" * index)
            guard.label([group_of("a", "b")])
    assert len(caplog.records) == 21
    assert "no more are shown" in caplog.records[-1].getMessage()


def test_counting_goes_on_from_a_checkpoint() -> None:
    first = MissingGuard(Scripted(GOOD), min_seen=4)
    first.label([group_of("a", "unknown"), group_of("a", "b")])
    state = json.loads(json.dumps(first.state_dict()))
    second = MissingGuard(Scripted(GOOD), min_seen=4)
    second.load_state_dict(state)
    assert second.state_dict() == first.state_dict()
    second.label([group_of("a", "b")])
    with pytest.raises(LabelerError, match="3 of 5"):
        second.label([group_of("a", "unknown")] * 2)


@pytest.mark.parametrize("options", [{"max_missing_rate": -0.1}, {"max_missing_rate": 1.1}, {"min_seen": 0}])
def test_unusable_options(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        MissingGuard(Scripted(GOOD), **options)
