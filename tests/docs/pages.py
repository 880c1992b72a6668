"""What the tests read from the pages: links, headings, blocks of code, command lines."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from rendered import DOCS, ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Every page that users read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def name(page: Path) -> str:
    """The page as messages name it."""
    return str(page.relative_to(ROOT))


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return [body for found, body in FENCE.findall(text(page)) if found == language]


def links(page: Path) -> list[str]:
    """Targets of links within the repository."""
    prose = FENCE.sub("", text(page))
    return [target for target in LINK.findall(prose) if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Names of a page's headings, as a link spells them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", text(page)), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@dataclass(frozen=True)
class Command:
    """One ``setsail ...`` that a page shows."""

    page: str
    line: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line, comments=True)[1:]


def commands(page: Path) -> list[Command]:
    """Command lines in blocks (fenced or indented) and between backticks."""
    joined = text(page).replace("\\\n", " ")
    block = "\n".join(body for _, body in FENCE.findall(joined))
    block += "\n".join(line for line in FENCE.sub("", joined).splitlines() if line.startswith("    "))
    shown = [line.strip().removeprefix("$ ") for line in block.splitlines()]
    found = [line for line in shown if line.startswith("setsail ")]
    # A command between backticks may be broken over two lines.
    inline = re.findall(r"(?<!`)`(setsail [^`]+)`(?!`)", FENCE.sub("", joined))
    found += [" ".join(line.split()) for line in inline]
    return [Command(name(page), line) for line in found]
