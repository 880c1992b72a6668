"""MT-Bench's questions."""

from __future__ import annotations

import json

import pytest

from setsail.core import DataError
from setsail.evaluation import Question, read_questions


def line(**changes: object) -> str:
    row = {"question_id": 101, "category": "reasoning", "turns": ["Who is first?", "And then?"], **changes}
    return json.dumps({key: value for key, value in row.items() if value is not None})


def test_questions_with_two_turns_and_references() -> None:
    text = line() + "\n\n" + line(question_id="x-2", category="math", reference=["4", "5"], source="set") + "\n"
    assert read_questions(text) == [
        Question(question_id=101, category="reasoning", turns=("Who is first?", "And then?")),
        Question(question_id="x-2", category="math", turns=("Who is first?", "And then?"), reference=("4", "5")),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no questions; expected one a line"),
        ("{", "line 1 is no JSON"),
        ("[1]", "line 1 is no object"),
        (line() + "\n" + line(), "line 2: question_id 101 occurs twice"),
        (line(question_id=None), "line 1: question_id None and category 'reasoning'"),
        (line(question_id=True), "line 1: question_id True"),
        (line(category=3), "line 1: question_id 101 and category 3"),
        (line(turns=[]), "line 1: no turns"),
        (line(turns=None), "line 1: no turns"),
        (line(turns="Who?"), "line 1: 'turns' is no list of strings"),
        (line(turns=["a", 1]), "line 1: 'turns' is no list of strings"),
        (line(reference=["4"]), "line 1: 1 reference answers for 2 turns: one each, or none"),
    ],
)
def test_what_are_no_questions(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_questions(text)
