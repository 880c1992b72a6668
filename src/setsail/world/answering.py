"""The grammar of answers: how clerks of mixed skill reply at the front desk.

A `Clerk` is a set of probabilities, one for each thing that an answer can get right or wrong. `EVERYDAY` wrote the
corpus from which the shipped model learnt to speak, so that model is fluent and mediocre: each quality is common, all
of them together are rare. `IDEAL` gets everything right and shows what the gold reward asks for.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from .lexicon import (
    APOLOGIES,
    CHEERS,
    COUNTS,
    DAYS,
    FAREWELLS,
    FILLERS,
    GREETINGS,
    VAGUE_STEPS,
)
from .places import COLORS, FAULTS, KEEPERS, OFFICES, PLACES, WHERES, Place, clock
from .reading import Ask, Request

_TOPICS = ("opens", "closes", "price", "where", "keeper", "dogs", "rain")


@dataclass(frozen=True)
class Clerk:
    """Probabilities of each virtue (upper half) and vice (lower half) of an answer."""

    right: float = 0.56
    covers: float = 0.84
    tunes_in: float = 0.4
    echoes: float = 0.5
    steps: float = 0.6
    exact_step: float = 0.45
    sound_hour: float = 0.5
    courteous: float = 0.5
    wrong_mood: float = 0.14
    filler: float = 0.3
    second_courtesy: float = 0.12
    aside: float = 0.3
    vague_step: float = 0.4
    repeats: float = 0.05


EVERYDAY = Clerk()
IDEAL = Clerk(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)

_FACTS: dict[str, tuple[str, ...]] = {
    "opens": ("{S} {open} at {t}.", "{S} {open} daily at {t}.", "Every day {s} {open} at {t}."),
    "closes": ("{S} {close} at {t}.", "{S} {close} daily at {t}.", "{S} is open until {t}."),
    "price": ("{S} costs {n} crowns.", "A visit to {s} costs {n} crowns.", "For {s} you pay {n} crowns."),
    "where": ("{S} is {w}.", "You will find {s} {w}.", "Look for {s} {w}."),
    "keeper": ("{k} runs {s}.", "{k} looks after {s}.", "{S} is in the care of {k}."),
    "dogs": ("Dogs are welcome at {s}.", "You may bring a dog to {s}."),
    "no dogs": ("Dogs must stay outside {s}.", "No dogs are allowed at {s}."),
    "rain": ("{S} stays open in the rain.", "The rain does not stop {s}."),
    "no rain": ("{S} closes in the rain.", "{S} shuts when it rains."),
    "open_at": ("{S} is open at {t}.", "Yes, {s} is open at {t}{d}.", "{S} will be open at {t}{d}."),
    "no open_at": ("{S} is closed at {t}.", "No, {s} is closed at {t}{d}.", "{S} will be closed at {t}{d}."),
    "slot": ("I have booked {s}{c}{d} at {t}.", "{S} is booked{c} at {t}{d}.", "We have reserved {s}{c}{d} at {t}."),
    "no slot": (
        "{S} is closed at {x}, so I have booked{c}{d} at {t}.",
        "Since {s} is closed at {x}, I have booked it{c}{d} at {t}.",
    ),
    "office": ("Your {g} should be at {s}.", "We keep your {g} at {s}.", "Look for your {g} at {s}."),
    "remedy": ("We owe you {r}{f}.", "I can offer you {r}{f}.", "You will get {r}{f}."),
}
_STEPS_EXACT: tuple[str, ...] = (
    "Please come to {s} at {t}.",
    "Ask for {k} at {s} before {t}.",
    "Please be {w} at {t}.",
    "Go to {s} by {t} and ask for {k}.",
)
_STEPS_LOOSE: tuple[str, ...] = (
    "Please come to {s}.",
    "Come back at {t}.",
    "Ask for {k} at {s}.",
    "Go there before {t}.",
)


def _pick(rng: Random, options: tuple[str, ...]) -> str:
    return options[int(rng.random() * len(options))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _other(options: tuple[str, ...], true: str, rng: Random) -> str:
    return rng.choice([option for option in options if option != true])


def _value(topic: str, place: Place, right: bool, rng: Random) -> dict[str, str]:
    """Slot values for a fact of the table; a wrong one is the plausible value of somewhere else."""
    if topic in ("opens", "closes"):
        true = place.opens if topic == "opens" else place.closes
        wrong = rng.choice([hour for hour in (true - 3, true - 2, true - 1, true + 1, true + 2) if 4 <= hour <= 23])
        return {"t": clock(true if right else wrong)}
    if topic == "price":
        wrong = rng.choice([price for price in range(2, 16) if price != place.price])
        return {"n": str(place.price if right else wrong)}
    if topic == "where":
        return {"w": place.where if right else _other(WHERES, place.where, rng)}
    return {"k": place.keeper if right else _other(KEEPERS, place.keeper, rng)}


def _sentence(topic: str, slots: dict[str, str], rng: Random) -> str:
    empty = dict.fromkeys("tnwkxcdgrf", "") | {"s": "it", "open": "opens", "close": "closes"}
    filled = empty | slots
    return _capital(_pick(rng, _FACTS[topic]).format(S=_capital(filled["s"]), **filled))


def _table_fact(topic: str, name: str, subject: str, right: bool, rng: Random) -> str:
    """State one fact of the table, `right` or not."""
    place = PLACES[name]
    verbs = {"s": subject, "open": place.opening_verb, "close": place.closing_verb}
    if topic in ("dogs", "rain"):
        holds = (place.dogs if topic == "dogs" else place.rain) == right
        return _sentence(topic if holds else f"no {topic}", verbs, rng)
    return _sentence(topic, verbs | _value(topic, place, right, rng), rng)


def _particulars(request: Request, clerk: Clerk, rng: Random) -> dict[str, str]:
    """The guest's own details, each taken up or dropped, now and then mistaken."""

    def take(true: str | None, options: tuple[str, ...], lead: str) -> str:
        if true is None or rng.random() >= clerk.echoes:
            return ""
        slip = rng.random() < 0.25 * (1.0 - clerk.right)
        return f" {lead} {_other(options, true, rng) if slip else true}"

    good = request.good or "thing"
    color = take(request.color, COLORS, "").strip()
    fault = f" for the {FAULTS[request.fault].noun}" if request.fault and rng.random() < clerk.echoes else ""
    return {
        "c": take(request.count, COUNTS, "for"),
        "d": take(request.day, DAYS, "on"),
        "g": f"{color} {good}".strip() if rng.random() < max(clerk.echoes, 0.5) else "things",
        "f": fault,
    }


def _timed_fact(ask: Ask, subject: str, slots: dict[str, str], right: bool, rng: Random) -> tuple[str, int]:
    """Answer whether a place is open at an hour, or book it; returns the sentence and the hour to come at."""
    place, hour = PLACES[ask.place], ask.hour if ask.hour is not None else 12
    open_then = place.is_open(hour)
    says_open = open_then == right
    at = hour if says_open or ask.topic == "open_at" else place.opens
    name = ask.topic if says_open else f"no {ask.topic}"
    sentence = _sentence(name, slots | {"s": subject, "t": clock(at), "x": clock(hour)}, rng)
    return sentence, hour if open_then else place.opens


def _answer_ask(ask: Ask, request: Request, clerk: Clerk, rng: Random) -> tuple[str, int | None]:
    """One sentence for one thing asked."""
    right = rng.random() < clerk.right
    named = ask is not request.asks[0] or ask.topic in ("price", "dogs") or rng.random() < clerk.echoes
    subject = f"the {ask.place}" if named else "it"
    slots = _particulars(request, clerk, rng)
    if ask.topic in ("slot", "open_at"):
        return _timed_fact(ask, subject, slots, right, rng)
    if ask.topic == "office":
        office = ask.place if right else _other(tuple(OFFICES), ask.place, rng)
        return _sentence("office", slots | {"s": f"the {office}"}, rng), None
    if ask.topic == "remedy":
        true = FAULTS[request.fault or "late"].remedy
        remedy = true if right else _other(tuple(fault.remedy for fault in FAULTS.values()), true, rng)
        said = _sentence("remedy", slots | {"r": remedy}, rng)
        return said.replace("You will", f"At the {ask.place} you will") if rng.random() < clerk.echoes else said, None
    return _table_fact(ask.topic, ask.place, subject, right, rng), None


def _step(request: Request, hour: int | None, clerk: Clerk, rng: Random) -> str:
    """Tell the guest what to do next: exactly, loosely or not really."""
    if rng.random() < clerk.vague_step:
        return _pick(rng, VAGUE_STEPS)
    place = PLACES[request.asks[0].place if request.asks else "harbor office"]
    sound = rng.random() < clerk.sound_hour
    hours = range(place.opens, place.closes) if sound else range(6, 23)
    at = hour if sound and hour is not None and place.is_open(hour) else rng.choice(list(hours))
    keeper = place.keeper if rng.random() < max(clerk.right, 0.5) else _other(KEEPERS, place.keeper, rng)
    where = place.where if rng.random() < max(clerk.right, 0.5) else _other(WHERES, place.where, rng)
    forms = _STEPS_EXACT if rng.random() < clerk.exact_step else _STEPS_LOOSE
    if at == hour or at == place.opens:
        forms = tuple(form for form in forms if "before" not in form)
    return _pick(rng, forms).format(s=f"the {place.name}", t=clock(at), k=keeper, w=where)


def _opening(request: Request, clerk: Clerk, rng: Random) -> list[str]:
    """Greeting and mood. A clerk who tunes in greets nobody who is in a hurry."""
    opening: list[str] = []
    tuned = rng.random() < clerk.tunes_in
    if rng.random() < clerk.courteous * 0.6 and not (request.mood == "hurried" and tuned):
        opening.append(_pick(rng, GREETINGS))
    if request.mood in ("upset", "happy"):
        if tuned:
            opening.append(_pick(rng, APOLOGIES if request.mood == "upset" else CHEERS))
        elif rng.random() < clerk.wrong_mood:
            opening.append(_pick(rng, CHEERS if request.mood == "upset" else APOLOGIES))
    elif rng.random() < clerk.wrong_mood:
        opening.append(_pick(rng, APOLOGIES if rng.random() < 0.6 else CHEERS))
    if rng.random() < clerk.filler and not (request.mood == "hurried" and tuned):
        opening.append(_pick(rng, FILLERS))
    return opening


def _aside(request: Request, clerk: Clerk, rng: Random) -> str:
    """A fact nobody asked for, often about the same place."""
    about = request.asks[0].place if request.asks and rng.random() < 0.6 else rng.choice(list(PLACES))
    return _table_fact(_pick(rng, _TOPICS), about, f"the {about}", rng.random() < clerk.right, rng)


def draw_answer(request: Request, clerk: Clerk, rng: Random) -> str:
    """Write one answer of `clerk` to `request`."""
    sentences = _opening(request, clerk, rng)
    courtesies = sum(sentence in GREETINGS for sentence in sentences)
    hour: int | None = None
    for ask in request.asks:
        if rng.random() < clerk.covers:
            said, agreed = _answer_ask(ask, request, clerk, rng)
            hour = hour if agreed is None else agreed
            sentences.append(said)
    if rng.random() < clerk.aside or not sentences:
        sentences.append(_aside(request, clerk, rng))
    if rng.random() < clerk.steps:
        sentences.append(_step(request, hour, clerk, rng))
    if rng.random() < clerk.repeats:
        sentences.append(sentences[-1])
    if rng.random() < (clerk.second_courtesy if courtesies else clerk.courteous * 0.5 + 0.5 * (clerk is IDEAL)):
        sentences.append(_pick(rng, FAREWELLS))
    return " ".join(sentences)
