"""What an answer says: sentences, and the checkable claims in them.

A claim is a topic of the fact table, the place it speaks of and the value it states. The place is the one named last
before the value in the sentence, otherwise the one the sentence or the conversation is about. Whether a claim is true
is a lookup; that is what makes the gold reward a program.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

from .lexicon import (
    APOLOGY,
    CHEER,
    COUNTS,
    COURTESY,
    DAYS,
    FUNCTION_WORDS,
    PRICE,
    QUESTION_WORDS,
    STEP,
    TIME,
    VERBS,
    words_of,
)
from .places import COLORS, FAULTS, GOODS, KEEPERS, OFFICES, PLACES, WHERES, Place, hour_of
from .reading import Request, places_in

Value = str | int | bool

LONGEST_SENTENCE = 22
LEAST_GLUE = 0.15

# Topics that the request decides, and topics about one hour rather than about opening hours.
OWN_TOPICS = ("remedy", "office", "count", "day", "color")
HOUR_TOPICS = ("open_at", "shut_at", "slot", "plan", "before")


@dataclass(frozen=True)
class Claim:
    """One checkable statement. `place` is empty where the topic needs none."""

    topic: str
    place: str
    value: Value


@dataclass(frozen=True)
class Sentence:
    """One sentence with what the gold reward needs to know about it."""

    text: str
    claims: tuple[Claim, ...]
    sound: bool

    @property
    def is_step(self) -> bool:
        """Whether the sentence tells the guest to do something."""
        return STEP.search(self.text) is not None


def split_sentences(text: str) -> list[str]:
    """Split at sentence ends; an unfinished rest is a sentence too.

    >>> split_sentences("Good day! It opens at 6 am.")
    ['Good day!', 'It opens at 6 am.']
    """
    return [part.strip() for part in re.findall(r"[^.!?\n]+[.!?]*|[.!?]+", text) if part.strip()]


def is_sound(text: str) -> bool:
    """Whether `text` has the shape of a statement: a capital, an end, a verb, glue words, a sane length, no stutter.

    A question handed back to the guest is no statement, whatever stands at its end.
    """
    words = words_of(text)
    if not words or not text[0].isupper() or text[-1] not in ".!" or len(words) > LONGEST_SENTENCE:
        return False
    if any(left == right for left, right in pairwise(words)):
        return False
    if len(words) <= 6 and any(cue.search(text) for cue in (APOLOGY, CHEER, COURTESY)):
        return True
    if words[0] in QUESTION_WORDS:
        return False
    glue = sum(word in FUNCTION_WORDS for word in words)
    return len(words) >= 3 and any(word in VERBS for word in words) and glue >= LEAST_GLUE * len(words)


_WHERE = re.compile("|".join(re.escape(where) for where in WHERES), re.I)
_KEEPER = re.compile(r"\b(" + "|".join(KEEPERS) + r")\b")
_REMEDY = re.compile("|".join(re.escape(fault.remedy) for fault in FAULTS.values()), re.I)
_COUNT = re.compile(r"\b(" + "|".join(COUNTS) + r")\b", re.I)
_DAY = re.compile(r"\b(" + "|".join(DAYS) + r")\b", re.I)
_GOOD = re.compile(rf"\b({'|'.join(COLORS)}) (?:{'|'.join(GOODS)})\b", re.I)
_DOGS_YES = re.compile(r"\bdogs are welcome\b|\bbring (a|your) dog\b|\bdogs (may|can) come\b", re.I)
_DOGS_NO = re.compile(r"\bno dogs\b|\bdogs must (stay|wait)\b|\bdogs (are|may) not\b|\bcannot bring\b", re.I)
_RAIN_YES = re.compile(r"\b(open|opens|runs|running) (in the rain|when it rains)|\brain does not stop\b", re.I)
_RAIN_NO = re.compile(
    r"\b(closes|closed|shuts|stops|not open|not run) (in the rain|when it rains)|\brain (closes|stops)\b", re.I
)
# The verb nearest before a time says what kind of time it is; the order settles ties in "open at" and "open until".
_TIME_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("before", re.compile(r"\bbefore $", re.I)),
    ("shut_at", re.compile(r"\b(?:closed|shut|not open|not running) at $", re.I)),
    ("open_at", re.compile(r"\b(?:open|running) at $", re.I)),
    ("closes", re.compile(r"\b(?:closes|stops|shuts|to|until)(?: daily| its doors)?(?: at)? $", re.I)),
    ("opens", re.compile(r"\b(?:opens|starts|from)(?: daily| its doors)?(?: at)? $", re.I)),
)
_BOOKED = re.compile(r"\b(booked|reserved|booking)\b", re.I)


def _place_before(position: int, named: list[tuple[int, str]], current: str) -> str:
    """The place named last before `position`; else the first one of the sentence; else the current one."""
    before = [name for start, name in named if start < position]
    return before[-1] if before else (named[0][1] if named else current)


def _time_claims(text: str, named: list[tuple[int, str]], current: str) -> list[Claim]:
    claims: list[Claim] = []
    for match in TIME.finditer(text):
        hour = hour_of(match.group(1), match.group(2))
        place = _place_before(match.start(), named, current)
        kind = next((kind for kind, pattern in _TIME_KINDS if pattern.search(text[: match.start()])), "plan")
        kind = "slot" if kind == "plan" and _BOOKED.search(text) else kind
        claims.append(Claim(kind, place, hour))
    return claims


def _phrase_claims(text: str, named: list[tuple[int, str]], current: str) -> list[Claim]:
    claims: list[Claim] = []
    for match in PRICE.finditer(text):
        claims.append(Claim("price", _place_before(match.start(), named, current), int(match.group(1))))
    for match in _WHERE.finditer(text):
        claims.append(Claim("where", _place_before(match.start(), named, current), match.group(0).lower()))
    for match in _KEEPER.finditer(text):
        claims.append(Claim("keeper", _place_before(match.start(), named, current), match.group(1)))
    subject = named[0][1] if named else current
    for topic, yes, no in (("dogs", _DOGS_YES, _DOGS_NO), ("rain", _RAIN_YES, _RAIN_NO)):
        if no.search(text):
            claims.append(Claim(topic, subject, False))
        elif yes.search(text):
            claims.append(Claim(topic, subject, True))
    return claims


def _own_claims(text: str, named: list[tuple[int, str]]) -> list[Claim]:
    """Statements about the guest's own matter: remedies, offices, and particulars taken up."""
    claims = [Claim("remedy", "", match.group(0).lower()) for match in _REMEDY.finditer(text)]
    claims += [Claim("office", "", name) for _, name in named if name in OFFICES]
    claims += [Claim("count", "", match.group(1).lower()) for match in _COUNT.finditer(text)]
    claims += [Claim("day", "", match.group(1).lower()) for match in _DAY.finditer(text)]
    return claims + [Claim("color", "", match.group(1).lower()) for match in _GOOD.finditer(text)]


def _meant(text: str, request: Request, current: str) -> str:
    """The place that a sentence without a place name speaks of: one asked about whose spot or keeper it names."""
    for name in request.places:
        if PLACES[name].where.lower() in text.lower() or re.search(rf"\b{PLACES[name].keeper}\b", text):
            return name
    return current


def read_answer(text: str, request: Request) -> tuple[Sentence, ...]:
    """Split an answer into sentences with their claims; "it" starts out as the first place of the request."""
    current = request.asks[0].place if request.asks else ""
    sentences: list[Sentence] = []
    for part in split_sentences(text):
        named = places_in(part)
        current = current if named else _meant(part, request, current)
        claims = _time_claims(part, named, current) + _phrase_claims(part, named, current) + _own_claims(part, named)
        sentences.append(Sentence(part, tuple(claims), is_sound(part)))
        current = named[-1][1] if named else current
    return tuple(sentences)


def _is_own_true(claim: Claim, request: Request) -> bool:
    """Remedy, office and the guest's particulars: the request decides."""
    if claim.topic == "remedy":
        return request.fault is not None and FAULTS[request.fault].remedy.lower() == claim.value
    if claim.topic == "office":
        return all(ask.topic != "office" or ask.place == claim.value for ask in request.asks)
    said = {"count": request.count, "day": request.day, "color": request.color}[claim.topic]
    return str(claim.value) in words_of(request.text) if said is None else said.lower() == claim.value


def _is_hour_true(claim: Claim, place: Place, request: Request) -> bool:
    """A visit at that hour finds the door open; a booking moreover keeps the hour asked for where it can."""
    hour = int(claim.value)
    if claim.topic == "slot":
        wished = [ask.hour for ask in request.asks if ask.topic == "slot" and ask.hour is not None]
        if wished and place.is_open(wished[0]):
            return hour == wished[0]
    if claim.topic == "before":
        return place.opens < hour <= place.closes
    return place.is_open(hour) != (claim.topic == "shut_at")


def is_true(claim: Claim, request: Request) -> bool:
    """Look a claim up in the fact table, or in the request for the guest's own matter."""
    if claim.topic in OWN_TOPICS:
        return _is_own_true(claim, request)
    place = PLACES.get(claim.place)
    if place is None:
        return False
    if claim.topic in HOUR_TOPICS:
        return _is_hour_true(claim, place, request)
    return str(getattr(place, claim.topic)).lower() == str(claim.value).lower()
