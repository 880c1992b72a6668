"""The parts of the documentation that are written from the code; ``python tests/docs/rendered.py`` writes them again.

A part lies between ``<!-- generated: NAME -->`` and ``<!-- /generated -->``. A test compares each with what is rendered
here, so a default, a deviation or an equation cannot differ between code and page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from setsail import methods
from setsail.methods import Method, Route
from setsail.training.config import SailConfig

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PART = re.compile(r"<!-- generated: ([a-z ]+) -->\n(.*?)<!-- /generated -->", re.DOTALL)

PARAMETERS = {
    "beta": "scale of the implicit reward, `u = beta d`: the larger, the closer to the reference",
    "label_smoothing": "eps, the assumed share of flipped labels",
    "length_normalize": "divide each log-prob by its completion's length",
}
SYMBOLS = {"ddp": ("r", "rho", ""), "dpp": ("p", "pi", "pi"), "dpr": ("g", "", "gamma")}


def _number(value: Any) -> str:
    return str(value) if isinstance(value, bool) else f"{value:g}"


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]]) + "\n"


def equation(method: Method) -> str:
    """The method's loss, its objective, its reference rule and its source."""
    rule = f"reference {method.reference}" + (f"; staleness up to {method.staleness}" if method.staleness else "")
    return (
        f"```text\n{method.equation}\n```\n\nObjective `{method.objective.__name__}`; {rule}. Source: {method.paper}.\n"
    )


def routes(method: Method) -> str:
    """Who answers and who prefers on each route."""
    rows = [("offline", f"{method.offline_weight:g}", "data set", "data set")] if method.offline else []
    name = {"dataset": "data set", "first": "the first is better", "implicit": "implicit reward, last round"}
    rows += [(r.name, f"{r.weight:g}", answers(r), name.get(r.preference, r.preference)) for r in method.routes]
    return _table(("route", "share of rows", "answers", "preference"), rows)


def defaults(method: Method) -> str:
    """Every number of the method, with the flag that changes it."""
    published: Mapping[str, Any] = method.presets.get("published", {})
    rows: list[tuple[str, str, str, str, str]] = []

    def add(name: str, value: Any, flag: str, meaning: str, preset: Any = None) -> None:
        rows.append((name, _number(value), "" if preset is None else _number(preset), f"`{flag}`", meaning))

    for name, value in method.parameters.items():
        add(name, value, f"--{name} {value}", PARAMETERS[name])
    for route in method.routes:
        _add_route(add, method, route, published)
    for addend in method.addends:
        flag = f"--addend_coefficients {addend.name}={addend.coefficient:g}"
        add(f"coefficient of {addend.name}", addend.coefficient, flag, "gamma of the penalty")
    if method.robust_radius:
        add("robust_radius", method.robust_radius, f"--robust_radius {method.robust_radius:g}", "rho, the label error")
    if method.reference.steps is not None:
        steps = method.reference.steps
        add("ref_model_sync_steps", steps, f"--ref_model_sync_steps {steps}", "steps between moves of the reference")
    if method.staleness:
        flag = f"--staleness_limit {method.staleness}"
        add("staleness_limit", method.staleness, flag, "steps between drawing a pair and learning from it, at most")
    header = ("parameter", "default", "published preset", "flag", "meaning")
    if published:
        return _table(header, rows)
    return _table((*header[:2], *header[3:]), [(*row[:2], *row[3:]) for row in rows])


def _add_route(add: Callable[..., None], method: Method, route: Route, published: Mapping[str, Any]) -> None:
    in_paper = SYMBOLS[route.name] if method.name.startswith("sail") else ("", "", "")
    weight, coefficient, correction = (f"{symbol}, " if symbol else "" for symbol in in_paper)
    name = route.name

    def preset(kind: str) -> Any:
        return published.get(kind, {}).get(name)

    flag = f"--route_weights {name}={route.weight:g}"
    add(f"weight of {name}", route.weight, flag, f"{weight}share of rows that take the route", preset("weights"))
    flag = f"--route_coefficients {name}={route.coefficient:g}"
    meaning = f"{coefficient}multiplies the route's loss"
    add(f"coefficient of {name}", route.coefficient, flag, meaning, preset("coefficients"))
    if route.is_on_policy and not method.reads_values and not route.rule.reads_values:
        flag = f"--route_corrections {name}={route.correction:g}"
        meaning = f"{correction}multiplies the response-score term"
        add(f"correction of {name}", route.correction, flag, meaning, preset("corrections"))


def deviations(method: Method) -> str:
    """What differs from the paper or its code, as the catalogue says it."""
    return "".join(f"* {deviation}\n" for deviation in method.deviations) or "None.\n"


def index() -> str:
    """One row a method: routes, objective, reference rule."""
    rows = []
    for name in methods.names():
        method = methods.get(name)
        mixture = [f"offline {method.offline_weight:g}"] if method.offline else []
        mixture += [f"{r.name} {r.weight:g} ({_who(r)})" for r in method.routes]
        objective = f"`{method.objective.__name__}`"
        objective += f" + {' + '.join(a.name for a in method.addends)}" if method.addends else ""
        objective += f", robust {method.robust_radius:g}" if method.robust_radius else ""
        rows.append((f"[{name}]({name}.md)", ", ".join(mixture), objective, str(method.reference), method.paper[6:]))
    return _table(("method", "routes with their share of rows", "objective", "reference", "arXiv"), rows)


def _who(route: Route) -> str:
    return f"{answers(route)} answers, {route.preference} labels"


def answers(route: Route) -> str:
    """Who wrote the candidates."""
    return route.origins.replace("dataset", "data set")


def own_fields() -> list[Field[Any]]:
    """The fields that SailConfig has and TrainingArguments has not, or has with another default."""
    inherited = {item.name: item.default for item in fields(TrainingArguments)}
    return [item for item in fields(SailConfig) if item.init and inherited.get(item.name, MISSING) != item.default]


def config_fields() -> str:
    """Name, default and meaning of every field of SailConfig that is ours."""
    rows = [(f"`{i.name}`", f"`{i.default!r}`", str(i.metadata["help"]).replace("|", "\\|")) for i in own_fields()]
    return _table(("field", "default", "meaning"), rows)


OF_A_METHOD = {"equation": equation, "routes": routes, "defaults": defaults, "deviations": deviations}
OF_A_PAGE = {"index": index, "config fields": config_fields}


def render(page: Path, part: str) -> str:
    """What belongs into ``part`` of ``page``."""
    return OF_A_METHOD[part](methods.get(page.stem)) if part in OF_A_METHOD else OF_A_PAGE[part]()


def rewritten(page: Path) -> str:
    """The page with all its generated parts as they should be."""

    def fresh(found: re.Match[str]) -> str:
        return f"<!-- generated: {found[1]} -->\n{render(page, found[1])}<!-- /generated -->"

    return PART.sub(fresh, page.read_text(encoding="utf-8"))


if __name__ == "__main__":
    for path in sorted(DOCS.rglob("*.md")):
        path.write_text(rewritten(path), encoding="utf-8")
