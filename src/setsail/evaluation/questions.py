"""Questions in MT-Bench's form: JSON lines of ``question_id``, ``category``, ``turns``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from setsail.core import DataError

SHAPE = '{"question_id": 81, "category": "writing", "turns": ["...", "..."]}'


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A conversation to hold: each turn is asked after the model's answer to the one before.

    Attributes:
        question_id: names it within the set.
        category: such as ``"writing"``.
        turns: what the user says, in order; MT-Bench has two.
        reference: an answer to each turn for the judge, or empty.
    """

    question_id: int | str
    category: str
    turns: tuple[str, ...]
    reference: tuple[str, ...] = ()


def read_questions(text: str) -> list[Question]:
    """The questions in a file's text, one JSON object a line; extra keys are ignored.

    Raises:
        DataError: no question, a line that is no JSON object, a key that is missing or of another type, no turn,
            another number of reference answers than of turns, or an id that occurs twice; with the line's number.

    >>> found = read_questions('{"question_id": 81, "category": "writing", "turns": ["Write.", "Shorter."]}')
    >>> found[0].turns
    ('Write.', 'Shorter.')
    """
    questions: dict[int | str, Question] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        question = _question(line, number)
        if question.question_id in questions:
            raise DataError(f"line {number}: question_id {question.question_id!r} occurs twice")
        questions[question.question_id] = question
    if not questions:
        raise DataError(f"no questions; expected one a line: {SHAPE}")
    return list(questions.values())


def _question(line: str, number: int) -> Question:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"line {number} is no JSON ({error}); expected {SHAPE}") from error
    if not isinstance(row, dict):
        raise DataError(f"line {number} is no object; expected {SHAPE}")
    name, category = row.get("question_id"), row.get("category")
    if isinstance(name, bool) or not isinstance(name, int | str) or not isinstance(category, str):
        raise DataError(
            f"line {number}: question_id {name!r} and category {category!r}; expected a number or a name, and a "
            f"string, as in {SHAPE}"
        )
    turns, reference = _strings(row, "turns", number), _strings(row, "reference", number)
    if not turns:
        raise DataError(f"line {number}: no turns, so nothing is asked; expected {SHAPE}")
    if reference and len(reference) != len(turns):
        raise DataError(f"line {number}: {len(reference)} reference answers for {len(turns)} turns: one each, or none")
    return Question(question_id=name, category=category, turns=turns, reference=reference)


def _strings(row: dict[str, object], key: str, number: int) -> tuple[str, ...]:
    found = row.get(key) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise DataError(f"line {number}: {key!r} is no list of strings; expected {SHAPE}")
    return tuple(found)
