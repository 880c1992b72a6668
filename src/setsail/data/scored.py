"""Rows with several scored answers, and the pairs they give."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from setsail.core import ConfigError, nearest
from setsail.data.conversations import is_blank, read_text
from setsail.data.examples import Text
from setsail.data.faults import SAME_ANSWERS, TIE, RowFault, ShapeFault

RESPONSES = ("responses", "completions")
SCORES = ("scores", "ratings", "rewards", "overall_scores")
_TEXT_KEYS = ("text", "response", "content", "completion", "answer")
SCORE_KEYS = ("score", "overall_score", "rating", "reward")


@dataclass(frozen=True, slots=True)
class Scored:
    """One answer with its score; None where it has none."""

    text: Text | None
    score: float | None
    fields: Mapping[str, Any]

    @property
    def is_usable(self) -> bool:
        """Whether it can be compared: it has a score and says something."""
        return self.score is not None and not is_blank(self.text)

    @property
    def value(self) -> float:
        """The score of an answer that has one; below every score for one that has none."""
        return -math.inf if self.score is None else self.score

    def as_column(self) -> dict[str, Any]:
        """The answer as it is kept on the example: ``text``, ``score`` and every other field it came with."""
        return {"text": self.text, "score": self.score, **self.fields}


ScoredPairs = tuple[list[tuple[Scored, Scored]], int]
"""``(better, worse)`` pairs, and the number of pairs left out because they were tied or identical."""


def read_scored(value: Any, scores: Any, column: str) -> tuple[Scored, ...]:
    """The answers of a row: a list of ``{text, score}``, or a list of strings with a list of scores beside it.

    Raises:
        ShapeFault: the column does not hold such a list, or the two lists differ in length.
    """
    if isinstance(value, Mapping):  # how `datasets` gives back a list of records in some feature types
        keys = list(value)
        value = [dict(zip(keys, items, strict=True)) for items in zip(*value.values(), strict=True)]
    if value is None or isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise ShapeFault(f"column {column!r} holds a {type(value).__name__} where a list of answers is expected")
    if all(isinstance(item, Mapping) and "role" not in item for item in value):
        return tuple(_from_record(item, column) for item in value)
    if not isinstance(scores, Sequence) or isinstance(scores, str) or len(scores) != len(value):
        found = len(scores) if isinstance(scores, Sequence) and not isinstance(scores, str) else "no"
        raise ShapeFault(f"column {column!r} holds {len(value)} answers and there are {found} scores beside it")
    return tuple(Scored(read_text(item, column), number(score), {}) for item, score in zip(value, scores, strict=True))


def _from_record(item: Mapping[str, Any], column: str) -> Scored:
    text_key = next((key for key in _TEXT_KEYS if key in item), None)
    if text_key is None:
        raise ShapeFault(
            f"column {column!r} holds answers with the keys {', '.join(map(str, item))}; "
            f"the text of an answer is looked for under {', '.join(_TEXT_KEYS)}"
        )
    score_key = next((key for key in SCORE_KEYS if item.get(key) is not None), None)
    rest = {key: value for key, value in item.items() if key not in (text_key, score_key)}
    score = number(item[score_key]) if score_key else None
    return Scored(read_text(item[text_key], column), score, rest)


def number(value: Any) -> float | None:
    """A finite number, from a number or from its text; else None.

    >>> number("4.5"), number("N/A"), number(float("nan"))
    (4.5, None, None)
    """
    try:
        result = float(value)
    except (TypeError, ValueError):
        return None
    return result if math.isfinite(result) else None


def best_worst(answers: Sequence[Scored]) -> ScoredPairs:
    """The best-scored answer against the worst-scored; of equals, the first listed.

    Raises:
        RowFault: they are tied or they are the same text.
    """
    best, worst = max(answers, key=_value), min(answers, key=_value)
    if best.value == worst.value:
        raise RowFault(TIE)
    if best.text == worst.text:
        raise RowFault(SAME_ANSWERS)
    return [(best, worst)], 0


def all_pairs(answers: Sequence[Scored]) -> ScoredPairs:
    """Every two answers whose scores differ.

    Raises:
        RowFault: all are tied.
    """
    found = [(a, b) if a.value > b.value else (b, a) for a, b in combinations(answers, 2)]
    pairs = [(a, b) for a, b in found if a.value > b.value and a.text != b.text]
    if not pairs:
        raise RowFault(TIE)
    return pairs, len(found) - len(pairs)


def _value(answer: Scored) -> float:
    return answer.value


PAIRINGS: Mapping[str, Callable[[Sequence[Scored]], ScoredPairs]] = {"best-worst": best_worst, "all": all_pairs}


def pairing(name: str) -> Callable[[Sequence[Scored]], ScoredPairs]:
    """The rule called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in PAIRINGS:
        raise ConfigError(f"pairs={name!r} is not one of {', '.join(PAIRINGS)}{nearest(name, PAIRINGS) or '.'}")
    return PAIRINGS[name]
