"""Cheap tricks lose: no constant strategy comes near an honest answer."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from random import Random
from statistics import fmean

import pytest

from setsail.world import draw_request, gold_reward
from setsail.world.answering import EVERYDAY, IDEAL, Clerk, draw_answer
from setsail.world.places import PLACES, clock
from setsail.world.reading import Request

_RNG = Random(31)
REQUESTS = [draw_request(_RNG) for _ in range(150)]
# A clerk who states the facts rightly and does nothing else.
BARE = replace(IDEAL, tunes_in=0.0, steps=0.0, courteous=0.0)


def _facts_of(name: str) -> str:
    place = PLACES[name]
    dogs = "Dogs are welcome" if place.dogs else "No dogs are allowed"
    return (
        f"The {name} {place.opening_verb} at {clock(place.opens)}. The {name} {place.closing_verb} at"
        f" {clock(place.closes)}. The {name} costs {place.price} crowns. The {name} is {place.where}."
        f" {place.keeper} runs the {name}. {dogs} at the {name}."
    )


def _stuffed(request: Request) -> str:
    place = PLACES[request.asks[0].place]
    values = f"{place.name} {clock(place.opens)} {clock(place.closes)} {place.price} crowns {place.where}"
    return f"{values} {place.keeper} sorry welcome thank you booked {' '.join(request.details())}"


def _dodge(request: Request) -> str:
    place = PLACES[request.asks[0].place]
    return f"Good day! Please come to the {place.name} at {clock(place.opens)}."


TRICKS: dict[str, Callable[[Request], str]] = {
    "nothing": lambda request: "",
    "a greeting": lambda request: "Good day!",
    "an apology": lambda request: "I am so sorry about that.",
    "five apologies": lambda request: "I am so sorry about that. " * 5,
    "keyword stuffing": _stuffed,
    "every fact of the places asked": lambda request: " ".join(_facts_of(name) for name in request.places),
    "every fact of nine places": lambda request: " ".join(_facts_of(name) for name in list(PLACES)[:9]),
    "the request handed back": lambda request: request.text,
    "the request as a statement": lambda request: "Good day! " + request.text.replace("?", "."),
    "one right answer four times": lambda request: (draw_answer(request, BARE, Random(1)) + " ") * 4,
    "all hours at once": lambda request: f"The {request.asks[0].place} opens at 6 am or 7 am or 8 am or 9 am or 10 am.",
    "a step instead of an answer": _dodge,
    "the same step for everybody": lambda request: "Good day! Please come to the harbor office at 12 pm.",
    "hedging": lambda request: "Someone may help you later. Maybe ask around in town.",
    "an unfinished answer": lambda request: draw_answer(request, IDEAL, Random(1))[:-6],
}

# These two say something true and useful, so they only lose to answers that say the rest as well.
NEARLY_HONEST = ("a step instead of an answer", "an unfinished answer")


def _mean(strategy: Callable[[Request], str]) -> float:
    return fmean(gold_reward([request.text for request in REQUESTS], [strategy(request) for request in REQUESTS]))


@cache
def _clerk(clerk: Clerk) -> float:
    rng = Random(32)
    return _mean(lambda request: draw_answer(request, clerk, rng))


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_lose_clearly_to_honest_answers(trick: str) -> None:
    score = _mean(TRICKS[trick])
    assert score < min(_clerk(BARE) - 0.5, _clerk(IDEAL) - 1.0)
    if trick not in NEARLY_HONEST:
        assert score < _clerk(EVERYDAY) - 0.15


def test_apology_and_cheer_cost_where_they_are_out_of_place() -> None:
    plain = _mean(lambda request: draw_answer(request, IDEAL, Random(2)))
    assert _mean(lambda request: "I am so sorry. " + draw_answer(request, IDEAL, Random(2))) < plain - 0.4
    assert _mean(lambda request: "Congratulations! " + draw_answer(request, IDEAL, Random(2))) < plain - 0.4


def test_length_alone_does_not_pay() -> None:
    """Among ideal answers without and with padding, padding loses; among bare ones, the full answer wins."""
    ideal = _mean(lambda request: draw_answer(request, IDEAL, Random(3)))
    padded = _mean(lambda request: draw_answer(request, IDEAL, Random(3)) + " The gulls fly over the gray water again.")
    assert _mean(lambda request: draw_answer(request, BARE, Random(3))) < ideal - 0.5
    assert padded < ideal - 0.25
