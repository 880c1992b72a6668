"""Faulty rows: left out, counted with their numbers, refused when they are too many; and the report."""

from __future__ import annotations

import json

import pytest

from setsail.core import ConfigError, DataError
from setsail.data import check_preferences, load_preferences

GOOD = {"prompt": "1+1?", "chosen": "2", "rejected": "three"}


def rows_with(bad, count=9):
    return [{**GOOD, "prompt": f"{i}?"} for i in range(count)] + [{**GOOD, **bad}]


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ({"prompt": ""}, "empty prompt"),
        ({"prompt": " \n"}, "empty prompt"),
        ({"prompt": None}, "empty prompt"),
        ({"prompt": []}, "empty prompt"),
        ({"chosen": ""}, "empty answer"),
        ({"rejected": None}, "empty answer"),
        ({"rejected": [{"role": "assistant", "content": " "}]}, "empty answer"),
        ({"rejected": "2"}, "chosen equal to rejected"),
        ({"prompt": [{"role": "assistant", "content": "Hi."}]}, "prompt ends with an assistant turn"),
        ({"p": 1.2}, "p is not a number in [0, 1]"),
        ({"p": -0.1}, "p is not a number in [0, 1]"),
        ({"p": "much"}, "p is not a number in [0, 1]"),
        ({"p": float("nan")}, "p is not a number in [0, 1]"),
        ({"p": True}, "p is not a number in [0, 1]"),
        ({"chosen": json.loads('"a\\ud800"')}, "broken characters (half of a surrogate pair)"),
    ],
)
def test_faulty_row(bad, kind):
    loaded = load_preferences(rows_with(bad))
    assert len(loaded) == 9
    assert {name: (count.total, count.first_rows) for name, count in loaded.report.faults.items()} == {kind: (1, (10,))}
    with pytest.raises(DataError) as caught:
        load_preferences(rows_with(bad), strict=True)
    assert f"row 10 cannot be used: {kind}. Correct or remove it." in str(caught.value)


def test_row_ids_are_those_of_the_source():
    loaded = load_preferences([{**GOOD, "prompt": ""}, *rows_with({})])
    assert [example.row_id for example in loaded] == list(range(1, 11))


def test_row_without_the_column(write):
    rows = rows_with({})
    del rows[4]["rejected"]
    report = load_preferences(write("a.jsonl", rows)).report
    assert report.faults["empty answer"].first_rows == (5,)


def test_too_many_faulty_rows():
    rows = rows_with({"chosen": ""}, 7) + [{**GOOD, "prompt": ""}] * 2
    with pytest.raises(DataError) as caught:
        load_preferences(rows)
    assert str(caught.value) == (
        "dataset (list): 3 of 10 rows (30.0%) cannot be used, more than the 20% allowed: empty prompt in rows 9, 10; "
        "empty answer in row 8. Correct or remove those rows, or raise max_faulty."
    )
    assert len(load_preferences(rows, max_faulty=0.3)) == 7


def test_exactly_the_allowed_share():
    assert len(load_preferences(rows_with({"chosen": ""}, 4))) == 4


def test_all_faulty():
    with pytest.raises(
        DataError, match=r"none of the 7 rows can be used: empty answer in rows 1, 2, 3, 4, 5 and 2 more"
    ):
        load_preferences([{**GOOD, "chosen": ""}] * 7, max_faulty=1.0)


def test_share_must_be_a_share():
    with pytest.raises(ConfigError, match=r"max_faulty=20 is a share of the rows: it must lie in \[0, 1\]"):
        load_preferences([GOOD], max_faulty=20)


def test_report_numbers():
    rows = [
        {"prompt": "ab", "chosen": "1234", "rejected": "12", "source": "x"},
        {"prompt": "ab", "chosen": "1234", "rejected": "12"},
        {"prompt": "ab", "chosen": "1", "rejected": "12"},
        {"prompt": "abcd", "chosen": "12", "rejected": "34"},
        {"prompt": "", "chosen": "12", "rejected": "34"},
    ]
    report = check_preferences(rows)
    assert (report.rows, report.usable, report.examples, report.pairs) == (5, 4, 4, 4)
    assert (report.prompts, report.duplicates, report.longer_chosen) == (2, 1, 0.5)
    assert (report.prompt_chars.median, report.prompt_chars.longest) == (2.0, 4)
    assert report.chosen_chars.median == 3.0
    assert report.chosen_chars.p95 == pytest.approx(4.0)
    assert report.columns == ("source",)
    assert report.form == "explicit prompt"
    assert report.as_dict()["faults"] == {"empty prompt": {"total": 1, "first_rows": (5,)}}
    assert json.loads(json.dumps(report.as_dict()))["rows"] == 5


def test_check_gives_no_verdict():
    report = check_preferences([{**GOOD, "chosen": ""}] * 3)
    assert (report.usable, report.faults["empty answer"].total) == (0, 3)
    assert report.chosen_chars is None


def test_report_as_text_and_table():
    from rich.console import Console

    report = check_preferences(rows_with({"chosen": ""}), where="[data]")
    text = str(report)
    assert text.startswith("[data] (list)\n")
    assert "usable                  9 (1 left out)" in text
    assert "  empty answer          1: row 10" in text
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(report)
    table = console.export_text()
    assert "[data] (list)" in table
    assert "chosen is the longer" in table
    assert "0.0% of the pairs" in table


def test_answers_that_repeat_the_prompt_are_noted():
    rows = [{"prompt": f"{i}?", "chosen": f"{i}? Yes", "rejected": f"{i}? No"} for i in range(3)]
    assert "in 3 examples both answers begin with the whole prompt" in check_preferences(rows).notes[0]
