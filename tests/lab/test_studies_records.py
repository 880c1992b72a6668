"""A study's records, their JSON and their pictures: what is refused, what comes back, what a picture carries."""

from __future__ import annotations

import builtins
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from setsail.core import ConfigError, DataError
from setsail.lab.studies import Claim, Curve, Figure, Panel, Study, StudyResult, Table, draw, read_json, to_json
from setsail.lab.studies.matched_kl import at_matched_kl, check_matched
from setsail.lab.studies.picture import DIGEST, digest

TABLE = Table(
    name="ends", title="Where it ends", columns={"policy": "", "KL, nats": ".2f", "seed": "d"}, rows=[("a|b", 0.25, 3)]
)
CLAIM = Claim(sentence="one third", measured=1 / 3, expected=0.33, tolerance=0.01)
CURVES = [
    Curve(label="line", x=[0, 1, 2], y=[0.1, None, 0.3]),
    Curve(label="bars", x=[0, 1], y=[0.2, 0.4], error=[0.01, 0.02], style="bars"),
    Curve(label="", x=[0.5], y=[0.2], style="points", color=3),
]
PANEL = Panel(x_label="step", y_label="KL, nats", curves=CURVES, x_range=(0.0, 2.0))
FIGURE = Figure(name="path", title="A path", panels=[PANEL, replace(PANEL, legend="right", ticks=("a", "b\nc", "d"))])
RESULT = StudyResult(tables=[TABLE], claims=[CLAIM], figures=[FIGURE], seconds=1.5)
STUDY = Study(
    name="my-study",
    question="Does it end?",
    result="it does",
    source="arXiv 2406.15567",
    seconds=1,
    find=lambda: RESULT,
)


@pytest.mark.parametrize(
    ("relation", "measured", "reproduced"),
    [
        ("=", 1.09, True),
        ("=", 0.91, True),
        ("=", 1.11, False),
        ("<=", -5.0, True),
        ("<=", 1.09, True),
        ("<=", 1.11, False),
        (">=", 5.0, True),
        (">=", 0.91, True),
        (">=", 0.89, False),
        ("=", math.nan, False),
        (">=", math.inf, False),
        ("<=", -math.inf, False),
    ],
)
def test_a_claim_holds_within_its_tolerance(relation: Any, measured: float, reproduced: bool) -> None:
    claim = Claim(sentence="s", measured=measured, expected=1.0, tolerance=0.1, relation=relation)
    assert claim.reproduced is reproduced


def test_a_claim_says_what_it_expects() -> None:
    claim = Claim(sentence="s", measured=0.0, expected=0.25, tolerance=0.05)
    shown = [replace(claim, relation=relation).expectation for relation in ("=", "<=", ">=")]
    assert shown == ["0.25 ± 0.05", "at most 0.25 + 0.05", "at least 0.25 - 0.05"]


def test_cells_are_formatted_by_column() -> None:
    rows = [("x", -0.001, 2.0), (None, "none", None)]
    table = Table(name="t", title="", columns={"a": "", "b": ".2f", "c": "d"}, rows=rows)
    assert table.formatted() == [("x", "0.00", "2"), ("", "none", "")]
    assert table.column("c") == [2.0, None]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: replace(TABLE, rows=[("a", 1.0)]), "a row needs 3 cells"),
        (lambda: replace(TABLE, name="Two Words"), "lower-case words with hyphens"),
        (lambda: replace(CURVES[0], x=[0, 1]), "as many y"),
        (lambda: replace(CURVES[1], error=[0.1]), "as many y"),
        (lambda: replace(PANEL, curves=[]), "has no curves"),
        (lambda: replace(FIGURE, panels=[PANEL] * 4), "one to three panels, got 4"),
        (lambda: replace(RESULT, tables=[TABLE, TABLE]), "share a name"),
        (lambda: replace(RESULT, claims=[]), "at least one table and one claim"),
        (lambda: replace(CLAIM, tolerance=-1.0), "tolerance >= 0"),
        (lambda: replace(CLAIM, expected=math.inf), "expected must be finite"),
        (lambda: replace(STUDY, question="It ends."), "question mark"),
        (lambda: replace(STUDY, source="a paper"), "must name a paper"),
    ],
)
def test_what_a_study_cannot_say_is_refused(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_json_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "my-study.json"
    path.write_text(to_json(STUDY, RESULT), encoding="utf-8")
    again = read_json(path)
    assert to_json(STUDY, again) == path.read_text(encoding="utf-8")
    assert again.tables[0].formatted() == TABLE.formatted()
    assert again.seconds == 1.5
    plain = json.loads(path.read_text(encoding="utf-8"))
    assert plain["question"] == "Does it end?"
    assert plain["claims"][0]["reproduced"] is True
    assert plain["figures"][0]["panels"][0]["curves"][0]["y"] == [0.1, None, 0.3]


def test_json_keeps_ten_digits_and_has_no_numbers_that_json_has_not() -> None:
    text = to_json(STUDY, replace(RESULT, claims=[CLAIM, replace(CLAIM, measured=math.nan)]))
    first, second = json.loads(text)["claims"]
    assert first["measured"] == 0.3333333333
    assert (second["measured"], second["reproduced"]) == (None, False)


def test_a_list_of_numbers_stands_on_one_line() -> None:
    assert '"y": [0.1, null, 0.3]' in to_json(STUDY, RESULT)


def test_a_picture_carries_the_fingerprint_of_its_figure(tmp_path: Path) -> None:
    drawn = draw(FIGURE, tmp_path / "a.png").read_bytes()
    assert drawn.startswith(b"\x89PNG")
    assert DIGEST.encode() + b"\0" + digest(FIGURE).encode() in drawn
    assert digest(replace(FIGURE, title="Another")) != digest(FIGURE)


@pytest.mark.parametrize("scale", ["linear", "log", "sqrt"])
def test_every_scale_and_legend_is_drawn(scale: Any, tmp_path: Path) -> None:
    curve = Curve(label="c", x=[0.01, 0.1, 1.0], y=[1e-5, 0.1, 2.0], style="line+points")
    for legend in ("inside", "below", "right", "none"):
        panel = Panel(x_label="x", y_label="y", curves=[curve], x_scale=scale, y_scale=scale, legend=legend)  # type: ignore[arg-type]
        figure = Figure(name="f", title="f", panels=[replace(panel, equal=scale == "linear")])
        assert draw(figure, tmp_path / f"{legend}.png").exists()


def test_a_missing_matplotlib_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return there(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install 'setsail\[report\]'"):
        draw(FIGURE, tmp_path / "a.png")


# Comparisons at one KL.


def test_policies_at_different_kl_are_not_compared() -> None:
    check_matched({"a": 0.1, "b": 0.0985})
    with pytest.raises(DataError, match=r"b at 0\.2 nats and a at 0\.1 nats"):
        check_matched({"a": 0.1, "b": 0.2})


def test_values_at_one_kl_are_exact_where_they_are_linear_in_its_root() -> None:
    paths = {name: [(kl, slope * math.sqrt(kl)) for kl in (0.3, 0.01, 0.05)] for name, slope in (("a", 1), ("b", 2))}
    found = at_matched_kl(paths, 0.1)
    assert found == pytest.approx({"a": math.sqrt(0.1), "b": 2 * math.sqrt(0.1)}, rel=1e-12)
    assert at_matched_kl(paths, 0.3)["a"] == pytest.approx(math.sqrt(0.3))


@pytest.mark.parametrize("kl", [0.005, 0.31])
def test_a_path_is_never_continued(kl: float) -> None:
    with pytest.raises(DataError, match="does not reach"):
        at_matched_kl({"a": [(0.01, 0.5), (0.3, 0.6)]}, kl)
