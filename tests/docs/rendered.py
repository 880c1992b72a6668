"""The parts of the documentation that are written from the code; ``python tests/docs/rendered.py`` writes them again.

A part lies between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``, the README's list of methods between its
own marks. A test compares each with what is rendered here, so a default, a deviation or an equation cannot differ
between code and page.
"""

from __future__ import annotations

import re
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from method_parts import answers, compared, cost, defaults, deviations, equation, reference, routes, table
from transformers import TrainingArguments

from setsail import methods
from setsail.methods import Method
from setsail.methods.migrating import migrations
from setsail.training.config import SailConfig

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PART = re.compile(r"<!-- generated: ([a-z ]+) -->\n(.*?)<!-- /generated -->", re.DOTALL)
SUMMARIES = re.compile(r"<!-- methods:start -->\n(.*?)<!-- methods:end -->", re.DOTALL)


NEEDED = {"pairs": "pairs", "lists": "scored lists", "singles": "marked answers"}
"""What rows hold, by the form in which a method reads them."""


def index() -> str:
    """One row a method: what it needs, its routes, objective and frozen policies."""
    rows = []
    for name in methods.names():
        method = methods.get(name)
        objective = f"`{method.objective.__name__}`"
        objective += "".join(f" + {addend.name}" for addend in method.addends)
        objective += f", robust {method.robust_radius:g}" if method.robust_radius else ""
        objective += f", {method.update}" if method.update != "plain" else ""
        frozen = reference(method)
        frozen += f"; opponent {method.opponent}" if method.opponent is not None else ""
        cells = (f"[{name}]({name}.md)", needs(method), mixture(method), objective, frozen, method.paper[6:])
        rows.append(cells)
    return table(("method", "needs", "routes with their share of rows", "objective", "reference", "arXiv"), rows)


def needs(method: Method) -> str:
    """What a user must have."""
    said = [NEEDED[method.form] if method.needs_dataset_pairs else "prompts"]
    said += ["labeler"] if method.needs_labeler else []
    said += ["second model"] if method.soup_share else []
    return ", ".join(said)


def mixture(method: Method) -> str:
    """The routes in brief: share, answers, who prefers, and what is compared where it is a choice."""
    said = [f"offline {method.offline_weight:g}"] if method.offline else []
    for route in method.routes:
        facts = [answers(route, method), route.preference]
        facts += [chosen] if (chosen := compared(route, method)) != "the two" else []
        said.append(f"{route.name} {route.weight:g} ({'; '.join(facts)})")
    return ", ".join(said)


def summaries() -> str:
    """The README's list: each name with its summary."""
    width = max(map(len, methods.names()))
    lines = [f"{name:<{width}}  {methods.get(name).summary}" for name in methods.names()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def own_fields() -> list[Field[Any]]:
    """The fields that SailConfig has and TrainingArguments has not, or has with another default."""
    inherited = {item.name: item.default for item in fields(TrainingArguments)}
    return [item for item in fields(SailConfig) if item.init and inherited.get(item.name, MISSING) != item.default]


def config_fields() -> str:
    """Name, default and meaning of every field of SailConfig that is ours."""
    rows = [(f"`{i.name}`", f"`{i.default!r}`", str(i.metadata["help"]).replace("|", "\\|")) for i in own_fields()]
    return table(("field", "default", "meaning"), rows)


def coming_from_trl() -> str:
    """Where each name of TRL's leads."""
    rows = [
        (f"`{each.name}`", each.kind, _linked(each.method), f"`{each.settings}`" if each.settings else "", each.note)
        for each in migrations().values()
    ]
    return table(("there", "is a", "here", "flags for its setting", "note"), rows)


def _linked(method: str) -> str:
    return f"[{method}](methods/{method}.md)" if method else "none"


OF_A_METHOD = {
    "equation": equation,
    "routes": routes,
    "cost": cost,
    "defaults": defaults,
    "deviations": deviations,
}
OF_A_PAGE = {"index": index, "config fields": config_fields, "coming from trl": coming_from_trl}


def render(page: Path, part: str) -> str:
    """What belongs into ``part`` of ``page``."""
    return OF_A_METHOD[part](methods.get(page.stem)) if part in OF_A_METHOD else OF_A_PAGE[part]()


def rewritten(page: Path) -> str:
    """The page with all its generated parts as they should be."""

    def fresh(found: re.Match[str]) -> str:
        return f"<!-- generated: {found[1]} -->\n{render(page, found[1])}<!-- /generated -->"

    def list_of_methods(_: re.Match[str]) -> str:
        return f"<!-- methods:start -->\n{summaries()}<!-- methods:end -->"

    return SUMMARIES.sub(list_of_methods, PART.sub(fresh, page.read_text(encoding="utf-8")))


def written() -> list[Path]:
    """Pages that hold generated parts."""
    return [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


if __name__ == "__main__":
    for path in written():
        path.write_text(rewritten(path), encoding="utf-8")
