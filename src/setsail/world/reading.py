"""What a guest wants: the structure of a request, and reading it back from plain text.

The gold reward sees only text, so the structure is recovered with patterns. On requests of the grammar
(`setsail.world.asking`) the recovery is exact, which a test checks; on free text it degrades gracefully: what is not
recognized is not asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .lexicon import COUNTS, DAYS, MOOD_CUES, TIME
from .places import COLORS, FAULTS, GOODS, PLACES, hour_of


@dataclass(frozen=True)
class Ask:
    """One thing the guest wants to be told: a topic of the fact table at a place, `hour` where the topic needs one."""

    topic: str
    place: str
    hour: int | None = None


@dataclass(frozen=True)
class Request:
    """A request without its wording. `family` is one of ask, double, open, booking, lost, complaint, other."""

    family: str
    mood: str
    asks: tuple[Ask, ...]
    count: str | None = None
    day: str | None = None
    color: str | None = None
    good: str | None = None
    fault: str | None = None
    text: str = field(default="", compare=False)

    @property
    def places(self) -> tuple[str, ...]:
        """The places asked about, in order, each once."""
        return tuple(dict.fromkeys(ask.place for ask in self.asks))

    def details(self) -> tuple[str, ...]:
        """The guest's own particulars that a good answer takes up, in lower case."""
        noun = FAULTS[self.fault].noun if self.fault else None
        good = f"{self.color} {self.good}" if self.color and self.good else self.good
        own = [self.count, self.day, good, noun]
        named = [] if self.family == "lost" else list(self.places)
        return tuple(text.lower() for text in (*own, *named) if text)


_PLACE = re.compile(r"\b(" + "|".join(re.escape(name) for name in PLACES) + r")\b", re.I)
_CANONICAL = {name.lower(): name for name in PLACES}
_BOOK = re.compile(r"\b(book|reserve|put us down|keep a place)\b", re.I)
_LOST = re.compile(r"\b(lost|mislaid|left behind|forgot)\b", re.I)
_OPEN_AT = re.compile(r"\b(open|running) at\b", re.I)
_TOPICS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("rain", re.compile(r"\b(rain|rains|wet weather)\b", re.I)),
    ("dogs", re.compile(r"\b(dog|dogs|puppy)\b", re.I)),
    ("closes", re.compile(r"\b(close|closes|stop|stops|closing|until|stay open)\b", re.I)),
    ("opens", re.compile(r"\b(open|opens|start|starts|opening)\b", re.I)),
    ("price", re.compile(r"\b(how much|price|cost|costs|pay)\b", re.I)),
    ("where", re.compile(r"\b(where|find|way to|get to)\b", re.I)),
    ("keeper", re.compile(r"\b(who|keeper|in charge)\b", re.I)),
)


def places_in(text: str) -> list[tuple[int, str]]:
    """Places named in `text` as (position, name), in order."""
    return [(match.start(), _CANONICAL[match.group(1).lower()]) for match in _PLACE.finditer(text)]


def _first(options: tuple[str, ...], text: str) -> str | None:
    found = re.search(r"\b(" + "|".join(options) + r")\b", text, re.I)
    if found is None:
        return None
    return next(option for option in options if option.lower() == found.group(1).lower())


def _mood(text: str) -> str:
    return next((mood for mood, cue in MOOD_CUES.items() if cue.search(text)), "neutral")


def _fault(text: str) -> str | None:
    lowered = text.lower()
    return next((key for key, fault in FAULTS.items() if any(phrase in lowered for phrase in fault.phrases)), None)


def _questions(text: str) -> tuple[Ask, ...]:
    """Split at sentence ends and joining words; a clause that names no place speaks of the place before it."""
    asks: list[Ask] = []
    place: str | None = None
    for clause in re.split(r"[.!?;,]| and ", text):
        named = [name for _, name in places_in(clause)]
        place = named[0] if named else place
        topic = next((topic for topic, pattern in _TOPICS if pattern.search(clause)), None)
        if topic is not None and place is not None:
            asks.append(Ask(topic, place))
    return tuple(dict.fromkeys(asks))


def _timed(text: str) -> int | None:
    time = TIME.search(text)
    return None if time is None else hour_of(time.group(1), time.group(2))


def read_request(text: str) -> Request:
    """Recover the structure of a request from its text."""
    mood, named, hour = _mood(text), [name for _, name in places_in(text)], _timed(text)
    good, fault, day = _first(tuple(GOODS), text), _fault(text), _first(DAYS, text)
    if good is not None and _LOST.search(text):
        mood = "upset" if mood == "neutral" else mood
        ask = Ask("office", GOODS[good])
        return Request("lost", mood, (ask,), color=_first(COLORS, text), good=good, text=text)
    if fault is not None and named:
        return Request("complaint", "upset", (Ask("remedy", named[0]),), fault=fault, text=text)
    if hour is not None and named and _BOOK.search(text):
        ask = Ask("slot", named[0], hour)
        return Request("booking", mood, (ask,), count=_first(COUNTS, text), day=day, text=text)
    if hour is not None and named and _OPEN_AT.search(text):
        return Request("open", mood, (Ask("open_at", named[0], hour),), day=day, text=text)
    asks = _questions(text)
    return Request({0: "other", 1: "ask"}.get(len(asks), "double"), mood, asks, text=text)
