"""The grammar of requests: what guests of Tidewell write to the front desk."""

from __future__ import annotations

import zlib
from dataclasses import replace
from random import Random

from .lexicon import COUNTS, DAYS, MOOD_PHRASES
from .places import COLORS, FAULTS, GOODS, HOUSES, clock
from .reading import Ask, Request

TOPICS = ("opens", "closes", "price", "where", "keeper", "dogs", "rain")

# {p} is the place with its article; the second tuple of a topic refers back to a place named before.
_QUESTIONS: dict[str, tuple[str, ...]] = {
    "opens": ("when does {p} open", "at what hour does {p} open", "what time does {p} open its doors"),
    "closes": ("when does {p} close", "how late does {p} stay open", "until when is {p} open"),
    "price": ("how much is a visit to {p}", "what does a visit to {p} cost", "what do we pay at {p}"),
    "where": ("where is {p}", "where can I find {p}", "how do I get to {p}"),
    "keeper": ("who runs {p}", "who is the keeper of {p}", "who is in charge at {p}"),
    "dogs": ("may I bring a dog to {p}", "are dogs allowed at {p}", "can my dog come along to {p}"),
    "rain": ("does {p} stay open in the rain", "is {p} open when it rains", "is {p} shut in wet weather"),
}
_LEADS = ("", "", "", "Excuse me, ", "Good day, ", "Hello, ", "Please tell me, ", "One question: ")
_JOINS = (", and ", ", and also ")
_COMPANY = ("aunt", "brother", "daughter", "grandmother", "neighbor", "sister", "uncle", "wife", "husband", "cousin")
_SCENES = (
    "I am here with my {c}.",
    "My {c} and I came by train.",
    "I am planning a day for my {c}.",
    "My {c} told me to write to you.",
)
_BOOKINGS = (
    "Please book {p} for {n} people at {t} on {d}.",
    "Can you reserve {p} for {n} of us on {d} at {t}?",
    "We would like to book {p} on {d} at {t}, there are {n} of us.",
    "Could you put us down for {p}, {n} guests, {d} at {t}?",
)
_OPEN = (
    "Is {p} open at {t} on {d}?",
    "We want to visit {p} on {d}. Is it open at {t}?",
    "Will {p} be open at {t} on {d}?",
)
_LOST = (
    "I lost my {g} at {p} on {d}.",
    "I left behind a {g} at {p} last {d}.",
    "I think I mislaid my {g} near {p}.",
    "My {c} lost a {g} on the way to {p}.",
)
_LOST_ENDS = ("Where can I get it back?", "Can you help me?", "What should I do?", "")
_COMPLAINTS = (
    "On {d}, {p} {f}.",
    "I must complain: {p} {f} on {d}.",
    "Last {d} {p} {f}, and nobody cared.",
    "I want to report that {p} {f}.",
)
_COMPLAINT_ENDS = ("What will you do about it?", "That is not good enough.", "Please put it right.", "")


def _pick(rng: Random, options: tuple[str, ...]) -> str:
    return options[int(rng.random() * len(options))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _question(topic: str, rng: Random) -> str:
    return _pick(rng, _QUESTIONS[topic])


def _ask(rng: Random) -> tuple[str, Request]:
    place, topic = _pick(rng, tuple(HOUSES)), _pick(rng, TOPICS)
    text = _pick(rng, _LEADS) + _question(topic, rng).format(p=f"the {place}") + "?"
    return _capital(text), Request("ask", "neutral", (Ask(topic, place),))


def _double(rng: Random) -> tuple[str, Request]:
    first = _pick(rng, tuple(HOUSES))
    second = first if rng.random() < 0.5 else _pick(rng, tuple(name for name in HOUSES if name != first))
    topics = rng.sample(TOPICS, 2)
    back = "it" if second == first and topics[1] not in ("where", "price") else f"the {second}"
    clauses = (_question(topics[0], rng).format(p=f"the {first}"), _question(topics[1], rng).format(p=back))
    text = _pick(rng, _LEADS) + _pick(rng, _JOINS).join(clauses) + "?"
    return _capital(text), Request("double", "neutral", (Ask(topics[0], first), Ask(topics[1], second)))


def _hour_near(place: str, rng: Random) -> int:
    """Mostly an hour inside the opening hours, sometimes shortly outside of them."""
    house = HOUSES[place]
    inside = list(range(house.opens, house.closes))
    outside = [*range(house.opens - 3, house.opens), *range(house.closes, house.closes + 3)]
    hours = inside if rng.random() < 0.6 else [hour for hour in outside if 4 <= hour <= 23]
    return hours[int(rng.random() * len(hours))]


def _open(rng: Random) -> tuple[str, Request]:
    place, day = _pick(rng, tuple(HOUSES)), _pick(rng, DAYS)
    hour = _hour_near(place, rng)
    text = _pick(rng, _OPEN).format(p=f"the {place}", t=clock(hour), d=day)
    return text, Request("open", "neutral", (Ask("open_at", place, hour),), day=day)


def _booking(rng: Random) -> tuple[str, Request]:
    place, day, count = _pick(rng, tuple(HOUSES)), _pick(rng, DAYS), _pick(rng, COUNTS)
    hour = _hour_near(place, rng)
    text = _pick(rng, _BOOKINGS).format(p=f"the {place}", t=clock(hour), d=day, n=count)
    return text, Request("booking", "neutral", (Ask("slot", place, hour),), count=count, day=day)


def _lost(rng: Random) -> tuple[str, Request]:
    place, good, color = _pick(rng, tuple(HOUSES)), _pick(rng, tuple(GOODS)), _pick(rng, COLORS)
    core = _pick(rng, _LOST).format(g=f"{color} {good}", p=f"the {place}", d=_pick(rng, DAYS), c=_pick(rng, _COMPANY))
    text = f"{core} {_pick(rng, _LOST_ENDS)}".strip()
    return text, Request("lost", "upset", (Ask("office", GOODS[good]),), color=color, good=good)


def _complaint(rng: Random) -> tuple[str, Request]:
    place, fault = _pick(rng, tuple(HOUSES)), _pick(rng, tuple(FAULTS))
    core = _pick(rng, _COMPLAINTS).format(p=f"the {place}", f=_pick(rng, FAULTS[fault].phrases), d=_pick(rng, DAYS))
    text = f"{_capital(core)} {_pick(rng, _COMPLAINT_ENDS)}".strip()
    return text, Request("complaint", "upset", (Ask("remedy", place),), fault=fault)


_FAMILIES = (_ask, _double, _double, _open, _booking, _booking, _lost, _complaint)


def _with_mood(text: str, request: Request, rng: Random) -> tuple[str, Request]:
    """Add a sentence that shows a mood. Complaints and losses are upset already and show nothing else."""
    moods = ("upset",) if request.mood == "upset" else ("neutral", "neutral", "upset", "happy", "hurried")
    mood = _pick(rng, moods)
    if mood == "neutral" or (request.mood == "upset" and rng.random() < 0.6):
        return text, request
    phrase = _pick(rng, MOOD_PHRASES[mood])
    text = f"{phrase} {text}" if rng.random() < 0.5 else f"{text} {phrase}"
    return text, replace(request, mood=mood)


def draw_request(rng: Random) -> Request:
    """Draw one request; its wording is in `.text`, and `read_request(request.text) == request`.

    >>> draw_request(Random(1)).family in {"ask", "double", "open", "booking", "lost", "complaint"}
    True
    """
    text, request = _FAMILIES[int(rng.random() * len(_FAMILIES))](rng)
    text, request = _with_mood(text, request, rng)
    if rng.random() < 0.3:
        text = f"{_pick(rng, _SCENES).format(c=_pick(rng, _COMPANY))} {text}"
    return replace(request, text=text)


def is_held_out(text: str) -> bool:
    """Whether a request is set aside: one in thirty-two, by a checksum of its text, is never trained on."""
    return zlib.crc32(text.encode()) % 32 == 0
