"""What is said about each method in words: summary, equation, source, deviations, and presets by name (cards.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from setsail.core import SpecError
from setsail.methods.spec import Method

SHARED = "shared"
"""The table of deviations that several methods have in common; a card names them by key."""


@cache
def _cards() -> Mapping[str, Mapping[str, Any]]:
    return tomllib.loads(files("setsail.methods").joinpath("cards.toml").read_text(encoding="utf-8"))


def carded(name: str, method: Method) -> Method:
    """``method`` under its name, with its card.

    Raises:
        SpecError: there is no card of that name, or it names a shared deviation that does not exist.
    """
    cards = _cards()
    if name not in cards:
        raise SpecError(f"method {name!r} has no card; add a table [{name}] to cards.toml")
    card, common = cards[name], cards[SHARED]
    unknown = [key for key in card.get(SHARED, ()) if key not in common]
    if unknown:
        raise SpecError(f"the card of {name!r} names shared deviations that do not exist: {', '.join(unknown)}")
    deviations = (*(common[key] for key in card.get(SHARED, ())), *card.get("deviations", ()))
    return method.with_parts(
        name=name,
        summary=card["summary"],
        equation=card["equation"].strip("\n"),
        paper=card["paper"],
        deviations=deviations,
        presets=card.get("presets", {}),
    )
