"""The examples of the page on data run, and their JSON rows load."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from setsail.core import DataError
from setsail.data import NEEDS, load_preferences

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_python_examples(plain, capsys):
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(block, names)
    shown = capsys.readouterr().out
    assert "What is 1 + 1? It is 2. It is 3. {'source': 'sums'}" in shown
    assert "1 (2,)\n95 5\n" in shown
    assert "lists The Loire. Paris. ('The Loire.', 'Paris.', 'The Rhine.') (9.0, 2.0, 8.0)\n" in shown
    assert "singles None None ('The Loire.',) (1.0,)\n" in shown
    assert "demonstrations The Loire. None () ()\n" in shown
    assert len(names["tokenized"](names["train"], plain)) == 95


FORMS = [
    ("Explicit prompt", 2, ("pairs", "lists", "singles", "demonstrations", "prompts")),
    ("Implicit prompt", 2, ("pairs", "lists", "singles", "demonstrations", "prompts")),
    ("Several scored answers", 2, ("pairs", "lists", "singles", "demonstrations", "prompts")),
    ("Labeled answers", 2, ("singles", "demonstrations", "prompts")),
    ("Demonstrations", 3, ("demonstrations",)),
    ("Prompts alone", 2, ("prompts",)),
]


@pytest.mark.parametrize(("form", "count", "needs"), FORMS, ids=[form for form, *_ in FORMS])
def test_json_rows(form, count, needs):
    """The rows of each form load as what the page's table says, and as nothing else that it denies."""
    section = re.split(r"\n##+ ", PAGE.partition(f"\n### {form}\n")[2])[0]
    rows = [json.loads(text) for block in _json(section) for text in re.split(r"\n(?=\{)", block.strip())]
    assert len(rows) == count
    for row in rows:
        for need in NEEDS:
            undesirable = need == "demonstrations" and row.get("label") is False
            if need in needs and not undesirable:
                assert load_preferences([row], needs=need).report.needs == need
            elif need != "prompts":  # a prompt can be had of almost anything
                with pytest.raises(DataError):
                    load_preferences([row], needs=need)


def test_every_form_of_the_page_is_tried():
    assert sum(count for _, count, _ in FORMS) == sum(
        len(re.split(r"\n(?=\{)", block.strip())) for block in _json(PAGE)
    )


def _json(text):
    return re.findall(r"```json\n(.*?)```", text, flags=re.S)
