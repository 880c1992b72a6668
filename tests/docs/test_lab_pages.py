"""The lab's pages show every table, figure and claim of every study, as the recorded results have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from lab_pages import IMAGES, PAGES, PART, RESULTS, parts, recorded, render

from setsail.lab import studies
from setsail.lab.studies.picture import DIGEST, digest

RENEW = "; run `python tests/docs/lab_pages.py --pages`"
SHOWN = [
    (page, part) for page in sorted(PAGES.glob("*.md")) for part, _ in PART.findall(page.read_text(encoding="utf-8"))
]
each_study = pytest.mark.parametrize("name", studies.names())


@pytest.mark.parametrize(("page", "part"), SHOWN, ids=[part for _, part in SHOWN])
def test_a_generated_part_is_up_to_date(page: Path, part: str) -> None:
    found = dict(PART.findall(page.read_text(encoding="utf-8")))[part]
    assert found == render(part), f"{page.name}: {part!r} differs from the recorded result{RENEW}"


@each_study
def test_a_study_has_a_page_with_all_its_parts(name: str) -> None:
    page = PAGES / f"{name}.md"
    assert page.exists(), f"study {name} has no page docs/lab/{name}.md"
    shown = [part for part, _ in PART.findall(page.read_text(encoding="utf-8"))]
    assert sorted(shown) == sorted(parts(name, recorded(name)))


@each_study
def test_a_page_names_its_study_and_its_papers_and_says_where_it_departs(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {name}: ")
    assert f"\n    setsail lab {name}\n" in page
    for paper in re.findall(r"\d{4}\.\d{5}", studies.get(name).source):
        assert paper in page, f"docs/lab/{name}.md does not name arXiv {paper}"
    for heading in ("**What it says.**", "**Where it departs from"):
        assert heading in page, f"docs/lab/{name}.md lacks {heading!r}"


@each_study
def test_a_recorded_result_says_what_the_study_says_about_itself(name: str) -> None:
    plain = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    study = studies.get(name)
    assert [plain[field] for field in ("name", "question", "result", "source")] == [
        study.name, study.question, study.result, study.source,
    ]  # fmt: skip


@each_study
def test_a_picture_is_drawn_from_the_recorded_numbers(name: str) -> None:
    for figure in recorded(name).figures:
        picture = IMAGES / f"{name}-{figure.name}.png"
        carried = DIGEST.encode() + b"\0" + digest(figure).encode()
        assert carried in picture.read_bytes(), f"run `python tests/docs/lab_pages.py --pictures {name}`"


def test_the_index_lists_every_study_once() -> None:
    page = (PAGES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[([a-z0-9-]+)\]\(\1\.md\)", page, re.MULTILINE) == list(studies.names())


def test_nothing_is_kept_of_studies_that_are_gone() -> None:
    names = set(studies.names())
    assert {path.stem for path in RESULTS.iterdir()} == names
    assert {path.stem for path in PAGES.glob("*.md")} - {"README"} == names
    pictures = {f"{name}-{figure.name}" for name in names for figure in recorded(name).figures}
    assert {path.stem for path in IMAGES.iterdir()} == pictures


@each_study
def test_commands_on_a_page_name_studies(name: str) -> None:
    page = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    asked = re.findall(r"setsail lab ([a-z][a-z0-9-]*)", page)
    assert asked
    assert set(asked) <= {*studies.names(), "all"}
