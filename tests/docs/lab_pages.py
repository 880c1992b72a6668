"""The pages of the lab's studies: ``python tests/docs/lab_pages.py [NAME ...]`` runs studies and fills the pages in.

For each study it writes ``docs/lab/results/NAME.json`` and ``docs/lab/images/NAME-FIGURE.png``; the parts of the pages
between ``<!-- generated: NAME/claims -->`` (or ``NAME/table/TABLE``, ``NAME/figure/FIGURE``, ``studies/index``) and
``<!-- /generated -->`` are then rendered from the JSON. ``--pages`` renders the pages alone, ``--pictures`` the
pictures and the pages, from the JSON that is there.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from setsail.lab import studies
from setsail.lab.studies import StudyResult

PAGES = Path(__file__).resolve().parents[2] / "docs" / "lab"
RESULTS, IMAGES = PAGES / "results", PAGES / "images"
PART = re.compile(r"<!-- generated: ([a-z0-9-]+/[a-z0-9/-]+) -->\n(.*?)<!-- /generated -->", re.DOTALL)


def recorded(name: str) -> StudyResult:
    """The study's result as it is kept beside the pages."""
    return studies.read_json(RESULTS / f"{name}.json")


def parts(name: str, result: StudyResult) -> list[str]:
    """Everything of a study that its page must show."""
    tables = [f"{name}/table/{table.name}" for table in result.tables]
    return [f"{name}/claims", *tables, *(f"{name}/figure/{figure.name}" for figure in result.figures)]


def render(part: str) -> str:
    """What belongs between the markers of ``part``."""
    study, what, *rest = part.split("/")
    if part == "studies/index":
        return _index()
    result = recorded(study)
    if what == "claims":
        return _claims(result)
    if what == "table":
        table = result.table(rest[0])
        aligned = ["---:" if form else "---" for form in table.columns.values()]
        return f"**{table.title}**\n\n" + _table(tuple(table.columns), aligned, table.formatted())
    figure = next(figure for figure in result.figures if figure.name == rest[0])
    return f"![{figure.title}](images/{study}-{figure.name}.png)\n"


def _table(header: Sequence[str], aligned: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(header), "|" + "|".join(aligned) + "|", *map(line, rows)]) + "\n"


def _claims(result: StudyResult) -> str:
    rows = [
        (claim.sentence, f"{claim.measured:.6g}", claim.expectation, "yes" if claim.reproduced else "**no**")
        for claim in result.claims
    ]
    return _table(("claim", "measured", "expected", "reproduced"), ("---", "---:", "---", "---"), rows)


def _index() -> str:
    rows = []
    for study in studies.STUDIES.values():
        if not (RESULTS / f"{study.name}.json").exists():
            continue
        result = recorded(study.name)
        count = f"{result.reproduced} of {len(result.claims)}"
        page = f"[{study.name}]({study.name}.md)"
        rows.append((page, study.question, f"{study.result} ({study.source})", count, f"{study.seconds:g} s"))
    header = ("study", "question", "result", "claims reproduced", "time")
    return _table(header, ("---", "---", "---", "---", "---:"), rows)


def rewritten(page: Path) -> str:
    """The page with all its generated parts as they should be."""

    def fresh(found: re.Match[str]) -> str:
        return f"<!-- generated: {found[1]} -->\n{render(found[1])}<!-- /generated -->"

    return PART.sub(fresh, page.read_text(encoding="utf-8"))


def _write_results(names: Sequence[str]) -> None:
    for name in names:
        result = studies.run(name)
        (RESULTS / f"{name}.json").write_text(studies.to_json(studies.get(name), result), encoding="utf-8")
        print(f"{name}: {result.seconds:.1f} s, {result.reproduced} of {len(result.claims)} claims reproduced")


def _write_pictures(names: Sequence[str]) -> None:
    for name in names:
        for figure in recorded(name).figures:
            studies.draw(figure, IMAGES / f"{name}-{figure.name}.png")


def main(arguments: Sequence[str]) -> None:
    """Run, draw, fill in."""
    torch.set_num_threads(1)
    asked = [argument for argument in arguments if not argument.startswith("--")] or list(studies.names())
    if not {"--pages", "--pictures"} & set(arguments):
        _write_results(asked)
    if "--pages" not in arguments:
        _write_pictures(asked)
    for page in sorted(PAGES.glob("*.md")):
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
