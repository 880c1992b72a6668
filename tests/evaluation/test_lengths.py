"""Lengths and variety of completions."""

from __future__ import annotations

import pytest

from setsail.core import Completion, DataError
from setsail.evaluation import Lengths, describe_lengths, truncation_rate, wilson


def answer(text: str, tokens: int, finished: bool = True) -> Completion:
    return Completion(token_ids=(7,) * tokens, text=text, finished=finished)


def test_five_numbers() -> None:
    found = describe_lengths([answer("a b a", 4), answer("a b", 2, finished=False), answer("", 0)])
    assert found == Lengths(count=3, mean=2.0, truncated=1 / 3, distinct_1=2 / 5, distinct_2=2 / 3)


def test_repetition_shows() -> None:
    same, varied = [answer("yes of course", 3)] * 10, [answer(f"w{i} x{i} y{i}", 3) for i in range(10)]
    assert describe_lengths(same).distinct_2 == pytest.approx(0.1)
    assert describe_lengths(varied).distinct_2 == 1.0
    assert describe_lengths([answer("", 1)]).distinct_1 == 0.0


def test_no_completions() -> None:
    with pytest.raises(DataError, match="no completions"):
        describe_lengths([])
    with pytest.raises(DataError, match="no completions, so none was cut"):
        truncation_rate([])


def test_the_truncation_rate_has_an_interval() -> None:
    answers = [answer("a", 8, finished=index >= 6) for index in range(40)]
    assert truncation_rate(answers) == wilson(6, 40)
    assert truncation_rate(answers).estimate == describe_lengths(answers).truncated
    assert truncation_rate(answers, confidence=0.9).high < wilson(6, 40).high
