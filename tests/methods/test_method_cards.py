"""Every method has a card, every card a method; what they share is written once."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections import Counter
from importlib.resources import files
from typing import Any

import pytest

from setsail.core import SpecError
from setsail.methods import CATALOGUE, Method, cards, get
from setsail.methods.catalogue import COMPOSITIONS

TEXT = files("setsail.methods").joinpath("cards.toml").read_text(encoding="utf-8")
CARDS: dict[str, dict[str, Any]] = tomllib.loads(TEXT)
SHARED: dict[str, str] = CARDS.pop("shared")
each_card = pytest.mark.parametrize("name", CARDS)


def test_methods_and_cards_are_the_same() -> None:
    assert set(CARDS) == set(CATALOGUE)
    assert list(COMPOSITIONS) == list(CATALOGUE)


@each_card
def test_a_card_says_what_is_asked_and_nothing_else(name: str) -> None:
    card = CARDS[name]
    assert (
        {"summary", "equation", "paper"}
        <= card.keys()
        <= {
            "summary",
            "equation",
            "paper",
            "shared",
            "deviations",
            "presets",
        }
    )
    assert re.fullmatch(r"arXiv \d{4}\.\d{5}", card["paper"])
    assert not card["summary"].endswith(".")


@each_card
def test_a_method_carries_its_card(name: str) -> None:
    method, card = get(name), CARDS[name]
    assert (method.name, method.summary, method.paper) == (name, card["summary"], card["paper"])
    wanted = [SHARED[key] for key in card.get("shared", [])] + card.get("deviations", [])
    assert list(method.deviations) == wanted
    assert len(set(wanted)) == len(wanted)
    assert dict(method.presets) == card.get("presets", {})


@each_card
def test_presets_are_settings(name: str) -> None:
    known = set(inspect.signature(Method.configured).parameters) - {"self"}
    for settings in CARDS[name].get("presets", {}).values():
        assert settings
        assert settings.keys() <= known


def test_what_is_shared_is_shared() -> None:
    uses = Counter(key for card in CARDS.values() for key in card.get("shared", []))
    assert uses.keys() == SHARED.keys()
    own = [text for card in CARDS.values() for text in card.get("deviations", [])]
    assert not set(own) & set(SHARED.values())


def test_a_method_without_a_card_is_refused() -> None:
    with pytest.raises(SpecError, match=r"method 'mine' has no card; add a table \[mine\] to cards.toml"):
        cards.carded("mine", get("dpo"))


def test_a_card_that_shares_what_nobody_wrote_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"shared": {"known": "a sentence"}, "mine": {**CARDS["dpo"], "shared": ["known", "knwon", "other"]}}
    monkeypatch.setattr(cards, "_cards", lambda: made)
    with pytest.raises(SpecError, match="the card of 'mine' names shared deviations that do not exist: knwon, other"):
        cards.carded("mine", get("dpo"))


def test_a_card_gives_a_method_its_words(monkeypatch: pytest.MonkeyPatch) -> None:
    made = {"shared": {"known": "a sentence"}, "mine": {**CARDS["dpo"], "shared": ["known"], "deviations": ["another"]}}
    monkeypatch.setattr(cards, "_cards", lambda: made)
    method = cards.carded("mine", get("dpo"))
    assert (method.name, method.deviations) == ("mine", ("a sentence", "another"))
