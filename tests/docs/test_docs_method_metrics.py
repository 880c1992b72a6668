"""Every metric that a method's page names is one that a run of the method can log."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import text
from rendered import DOCS

from setsail import methods
from setsail.methods import Method
from setsail.objectives import SURROGATES

OF_A_ROUTE = re.compile(r"`sail/<route>/(\w+)`")
NAMED = re.compile(r"`((?:sail|rewards|logps|completions|eval|grad)[_/][\w/*]+)`")


def _general() -> tuple[set[str], set[str]]:
    """The metrics of a route, and all others, as the page of metrics has them."""
    page = text(DOCS / "metrics.md")
    return set(OF_A_ROUTE.findall(page)), set(re.findall(r"`([\w/]+)`", page))


def _page(method: str) -> Path:
    return DOCS / "methods" / f"{method}.md"


def _problem(metric: str, method: Method) -> str | None:
    of_a_route, others = _general()
    parts = metric.split("/")
    if metric.startswith("sail/") and len(parts) == 2:
        known = {addend.name for addend in method.addends}
        return None if parts[1] in known else f"no added term {parts[1]!r}"
    if metric.startswith("sail/") and parts[1] not in ("seconds", "*"):
        routes = {route.name for route in method.active_routes} | ({"offline"} if method.offline_weight else set())
        if parts[1] not in routes:
            return f"no route {parts[1]!r}"
        return None if parts[2] in of_a_route | {"*"} else f"no metric {parts[2]!r} of a route"
    if metric == "eval_loss" and (method.reads_values or method.objective in SURROGATES):
        return "no loss at evaluation"
    return None if "*" in metric or metric in others else "no such metric"


@pytest.mark.parametrize("method", methods.names())
def test_a_page_names_metrics_of_its_method(method: str) -> None:
    # "There is no ..." names what is missing on purpose.
    prose = re.sub(r"(?:There (?:is|are) no|no|That there is no) `[^`]+`", "", text(_page(method)))
    wrong = {metric: why for metric in NAMED.findall(prose) if (why := _problem(metric, methods.get(method)))}
    assert wrong == {}


@pytest.mark.parametrize("method", methods.names())
def test_a_page_says_what_to_look_at(method: str) -> None:
    section = text(_page(method)).partition("\n## What to look at\n")[2].partition("\n## ")[0]
    assert NAMED.search(section) or "As for" in section


@pytest.mark.parametrize(
    ("metric", "method"),
    [
        ("sail/dpp/margin", "sail-dpr"),
        ("sail/offline/loss", "online-dpo"),
        ("sail/dpr/marign", "online-dpo"),
        ("sail/optimism", "online-dpo"),
        ("eval_loss", "sppo"),
        ("eval_los", "dpo"),
        ("rewards/chosn", "dpo"),
    ],
)
def test_the_check_notices_what_is_wrong(metric: str, method: str) -> None:
    assert _problem(metric, methods.get(method))
