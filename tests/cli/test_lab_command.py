"""``setsail lab`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType

import pytest

from setsail.cli.main import main
from setsail.core import ConfigError
from setsail.lab import studies
from setsail.lab.studies import Claim, Curve, Figure, Panel, Study, StudyResult, Table, catalogue

QUICK = "f-divergences"


def shown(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())


def tiny(name: str, measured: float) -> Study:
    """A study that takes no time and has all parts; wide, with brackets that are no markup."""
    wide = {f"heading {i} of a wide table [r]": ".9f" for i in range(12)}

    def find() -> StudyResult:
        panel = Panel(x_label="x", y_label="y", curves=[Curve(label="c", x=[0, 1], y=[0, 1])])
        return StudyResult(
            tables=[
                Table(name="wide", title="Wide [r]", columns={"name": "", **wide}, rows=[("a [b]", *[1 / 7] * 12)]),
                Table(name="more", title="More [s]", columns={"name": ""}, rows=[("a",)]),
            ],
            claims=[Claim(sentence="E[r] of it", measured=measured, expected=1.0, tolerance=0.1)],
            figures=[Figure(name="line", title="A line", panels=[panel])],
        )

    return Study(
        name=name, question="Is E[r] one?", result="E[r] is one", source="arXiv 2406.15567", seconds=1, find=find
    )


@pytest.fixture
def two_studies(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {name: tiny(name, measured) for name, measured in (("first-one", 1.0), ("second-one", 3.0))}
    monkeypatch.setattr(catalogue, "STUDIES", MappingProxyType(pair))
    monkeypatch.setattr(studies, "STUDIES", MappingProxyType(pair))


def test_the_list_has_each_study_with_its_question_result_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab"]) == 0
    lines = shown(capsys)
    for study in studies.STUDIES.values():
        assert study.name in lines
        assert study.question.split()[-1] in lines
        assert f"{study.seconds:.0f} s" in lines
    assert "setsail lab NAME runs one" in lines


def test_one_study_prints_its_table_and_claims_and_writes_its_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", QUICK, "--out", str(tmp_path / "new" / "out")]) == 0
    lines, folder = shown(capsys), tmp_path / "new" / "out"
    study, result = studies.get(QUICK), studies.read_json(folder / f"{QUICK}.json")
    assert study.question in lines
    for row in result.tables[0].formatted():
        assert " ".join(row) in lines
    assert lines.count(" reproduced") == len(result.claims)
    assert "not reproduced" not in lines
    pictures = [folder / f"{QUICK}-{figure.name}.png" for figure in result.figures]
    for path in (folder / f"{QUICK}.json", *pictures):
        assert str(path).replace(" ", "") in lines.replace(" ", "")
        assert path.stat().st_size > 1000


def test_all_runs_all_and_counts_claims(two_studies: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "all", "--out", str(tmp_path)]) == 0
    lines = shown(capsys)
    assert "2 studies in 0 s: 1 of 2 claims reproduced" in lines
    assert "second-one: 1 not reproduced" in lines
    names = [f"{study}{part}" for study in ("first-one", "second-one") for part in ("-line.png", ".json")]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_brackets_and_wide_tables_are_shown_whole(
    two_studies: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["lab", "second-one", "--out", str(tmp_path)]) == 0
    lines = shown(capsys)
    assert lines.count("0.142857143") == 12
    for words in ("a [b]", "Wide [r]", "also in the JSON: More [s]", "E[r] of it 3 1 ± 0.1 not reproduced"):
        assert words in lines
    assert "…" not in lines


def test_a_missing_matplotlib_costs_the_figure_alone(
    two_studies: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(figure: Figure, path: Path) -> Path:
        raise ConfigError("drawing needs matplotlib: pip install 'setsail[report]'")

    monkeypatch.setattr(studies, "draw", refuse)
    assert main(["lab", "first-one", "--out", str(tmp_path)]) == 0
    assert "no figure: drawing needs matplotlib: pip install 'setsail[report]'" in shown(capsys)
    assert json.loads((tmp_path / "first-one.json").read_text(encoding="utf-8"))["name"] == "first-one"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["lab", "sail-objectiv"], "there is no study 'sail-objectiv'; did you mean 'sail-objective'?"),
        (["lab", QUICK, "--ot", "x"], "unknown flag --ot; did you mean '--out'?"),
        (["lab", QUICK, "samplers"], "unexpected argument 'samplers'"),
    ],
)
def test_what_is_refused(
    arguments: list[str],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 1
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert words in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file_is_refused_before_anything_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "out"
    taken.write_text("mine")
    assert main(["lab", QUICK, "--out", str(taken)]) == 1
    assert "--out" in capsys.readouterr().err
    assert taken.read_text() == "mine"
