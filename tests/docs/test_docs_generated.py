"""What pages say about methods and settings is what the code has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import name, pages, text
from rendered import DOCS, OF_A_METHOD, PART, ROOT, SUMMARIES, render, summaries

from setsail import methods
from setsail.cli import train
from setsail.methods.migrating import migrations
from setsail.training.config import SailConfig

RENEW = "; run `python tests/docs/rendered.py`"
SHARED_PAGES = {"README", "games", "sail", "lists", "singles", "reference-free", "policy-gradients"}
PARTS = [(page, part) for page in pages() for part, _ in PART.findall(text(page))]


@pytest.mark.parametrize(("page", "part"), PARTS, ids=[f"{name(page)}-{part}" for page, part in PARTS])
def test_generated_parts_are_up_to_date(page: Path, part: str) -> None:
    found = dict(PART.findall(text(page)))[part]
    assert found == render(page, part), f"{name(page)}: {part!r} differs from the code{RENEW}"


@pytest.mark.parametrize("method", methods.names())
def test_every_method_has_a_page_with_all_its_parts(method: str) -> None:
    page = DOCS / "methods" / f"{method}.md"
    assert page.exists(), f"method {method} has no page docs/methods/{method}.md"
    assert {part for part, _ in PART.findall(text(page))} == set(OF_A_METHOD)


@pytest.mark.parametrize("method", methods.names())
def test_a_methods_page_holds_equation_paper_deviations_and_defaults(method: str) -> None:
    """Against the catalogue itself, not against the renderer."""
    spec, page = methods.get(method), text(DOCS / "methods" / f"{method}.md")
    assert page.startswith(f"# {method}\n")
    assert spec.equation in page
    assert page.count(spec.paper) >= 2, "the paper belongs beside the equation and under Source"
    for deviation in spec.deviations:
        assert f"* {deviation}\n" in page
    for parameter, value in spec.parameters.items():
        spelled = str(value).lower() if isinstance(value, bool) else value
        assert f"`--{parameter} {value}`" in page or f"`--objective_parameters {parameter}={spelled}`" in page
    for route in spec.routes:
        assert f"`--route_weights {route.name}={route.weight:g}`" in page
        assert f"`--route_coefficients {route.name}={route.coefficient:g}`" in page
    for heading in ("What the gradient is", "Settings", "Deviations", "Run it", "What to look at", "Source"):
        assert f"\n## {heading}\n" in page
    assert f"--method {method}" in page


def test_there_is_no_page_of_a_method_that_is_not_there() -> None:
    found = {page.stem for page in (DOCS / "methods").glob("*.md")}
    assert found - SHARED_PAGES == set(methods.names())


@pytest.mark.parametrize("method", methods.names())
def test_every_flag_of_a_settings_table_is_taken_and_is_the_default(method: str, tmp_path: Path) -> None:
    """A number that has a flag can be set, and the one shown is the one in force."""
    table = dict(PART.findall(text(DOCS / "methods" / f"{method}.md")))["defaults"]
    words = [word for flag in re.findall(r"`(--[^`]+)`", table) for word in flag.split()]
    assert words, f"{method} has no setting at all"
    given = ["--method", method, "--output_dir", str(tmp_path)]
    default, flagged = (train.read_arguments(line)[1].resolved_method() for line in (given, [*given, *_merged(words)]))
    assert flagged.modified == default.modified == ()


@pytest.mark.parametrize("name", [name for name, found in migrations().items() if found.settings])
def test_the_flags_beside_a_name_of_trls_are_taken(name: str, tmp_path: Path) -> None:
    found = migrations()[name]
    train.read_arguments(["--method", found.method, "--output_dir", str(tmp_path), *found.settings.split()])


def _merged(words: list[str]) -> list[str]:
    """Flags that stand once for each route, as the one flag that a command line can hold."""
    merged: dict[str, str] = {}
    for flag, value in zip(words[::2], words[1::2], strict=True):
        merged[flag] = f"{merged[flag]},{value}" if flag in merged else value
    return [word for pair in merged.items() for word in pair]


def test_the_readme_lists_every_method_with_its_summary() -> None:
    assert SUMMARIES.findall(text(ROOT / "README.md")) == [summaries()], f"README.md: the methods{RENEW}"


def test_every_field_of_ours_is_on_the_python_page_with_its_default() -> None:
    page = text(DOCS / "python.md")
    ours = SailConfig.__annotations__
    assert len(ours) > 30
    for field in ours:
        if field.startswith("_"):
            continue
        default = SailConfig.__dataclass_fields__[field].default
        assert f"| `{field}` | `{default!r}` |" in page, f"docs/python.md lacks {field}{RENEW}"


def test_the_readme_of_methods_lists_each_once() -> None:
    index = dict(PART.findall(text(DOCS / "methods" / "README.md")))["index"]
    assert re.findall(r"^\| \[([a-z0-9-]+)\]\(\1\.md\)", index, re.MULTILINE) == list(methods.names())
