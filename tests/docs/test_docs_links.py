"""Links lead somewhere; nothing of the place where this was written shows."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
from pages import anchors, blocks, links, name, pages, text
from rendered import DOCS, ROOT

PAGES = pages()
OF_ELSEWHERE = re.compile(r"/work\b|\bsessions?\b|\bissues?\b|\b(?:TODO|FIXME|XXX)\b", re.IGNORECASE)
each_page = pytest.mark.parametrize("page", PAGES, ids=name)


@each_page
def test_links_resolve(page: Path) -> None:
    for link in links(page):
        target, _, anchor = link.partition("#")
        to = (page.parent / target).resolve() if target else page
        assert to.exists(), f"{name(page)} links to {link}, which is not there"
        assert to.is_relative_to(ROOT), f"{name(page)} links to {link}, outside of the repository"
        assert not anchor or anchor in anchors(to), f"{name(page)} links to {link}, a heading that is not there"


@each_page
def test_pages_do_not_speak_of_where_they_were_written(page: Path) -> None:
    found = OF_ELSEWHERE.search(text(page))
    assert found is None, f"{name(page)} says {found.group() if found else ''!r}"


@each_page
def test_files_that_pages_name_exist(page: Path) -> None:
    """Paths of the repository between backticks."""
    for path in re.findall(r"`((?:src|tests|docs|scripts)/[\w./-]+)`", text(page)):
        assert (ROOT / path).exists() or path == "docs/methods/NAME.md", f"{name(page)} names {path}"


def test_the_architecture_page_has_every_room_with_its_rank() -> None:
    spec = importlib.util.spec_from_file_location("house", ROOT / "tests" / "architecture" / "house.py")
    assert spec is not None
    assert spec.loader is not None
    house = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up.
    sys.modules.setdefault("house", house)
    spec.loader.exec_module(house)
    page = text(DOCS / "architecture.md")
    for room, rank in house.RANKS.items():
        if room != house.ROOT:
            assert f"| {rank} | `{room}` |" in page, f"docs/architecture.md: {room} has rank {rank}"


def test_every_decision_is_listed() -> None:
    folder = DOCS / "decisions"
    records = sorted(path.name for path in folder.glob("0*.md"))
    assert [path.partition("-")[0] for path in records] == [f"{n:04d}" for n in range(1, len(records) + 1)]
    assert set(links(folder / "README.md")) == set(records)
    for record in records:
        for part in ("Context", "Choice", "Why", "Consequences"):
            assert f"**{part}.**" in text(folder / record), f"{record} lacks {part}"


@pytest.mark.parametrize("number", range(len(blocks(DOCS / "python.md", "python"))))
def test_python_blocks_compile_and_name_what_is_there(number: int) -> None:
    block = blocks(DOCS / "python.md", "python")[number]
    compile(block, f"docs/python.md, block {number + 1}", "exec")
    for module, imported in re.findall(r"^from (setsail[\w.]*) import (.+)$", block, re.MULTILINE):
        found = importlib.import_module(module)
        for each in imported.split(","):
            assert hasattr(found, each.strip()), f"{module} has no {each.strip()}"
