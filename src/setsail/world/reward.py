"""The gold reward of Tidewell: a program that reads a request and an answer and knows what a good reply is.

    gold_reward = sum over qualities q of WEIGHTS[q] * explain(prompt, completion)[q]

Each quality is a small number computed from text alone; `docs/world.md` says why each trades off against others.
Virtues cost words or risk mistakes, and words have a budget, so no quality stands in for another and none is length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from .claims import OWN_TOPICS, Claim, Sentence, is_true, read_answer
from .lexicon import APOLOGY, CHEER, COURTESY, VAGUE, words_of
from .places import PLACES
from .reading import Ask, Request, read_request

WEIGHTS: dict[str, float] = {
    "facts": 1.2,
    "errors": -0.5,
    "mood": 0.5,
    "step": 0.8,
    "details": 0.6,
    "courtesy": 0.3,
    "clutter": -0.3,
    "vagueness": -0.3,
    "copying": -1.2,
    "repetition": -1.6,
    "wordiness": -0.08,
    "form": -1.2,
}

# Words before wordiness counts: a base, less for guests in a hurry, and more for each further thing asked.
BUDGET = 26
HURRIED_BUDGET = 16
BUDGET_PER_FURTHER_ASK = 8
MOST_WORDS_OVER = 60
# Runs of words shared with the request up to this length are normal; longer ones are copied.
LONGEST_SHARED_RUN = 6
MOST_COUNTED = 6
LEFT_OUT = -0.5

# A message list in the chat form, or plain text.
Text = str | Sequence[dict[str, Any]]


def _answers(claim: Claim, ask: Ask, request: Request) -> bool:
    """Whether a true claim tells the guest what `ask` wanted to know."""
    if ask.topic == "remedy":
        return claim.topic == "remedy"
    if ask.topic == "office":
        return claim.topic == "office" and claim.value == ask.place
    if claim.place != ask.place:
        return False
    if ask.topic in ("open_at", "slot"):
        open_then = ask.hour is not None and PLACES[ask.place].is_open(ask.hour)
        return claim.topic == (ask.topic if open_then else "shut_at") and claim.value == ask.hour
    return claim.topic == ask.topic


def _about(claim: Claim, ask: Ask) -> bool:
    """Whether a claim, true or not, speaks to `ask`: a right answer next to a wrong one is no answer."""
    if ask.topic in ("remedy", "office"):
        return claim.topic == ask.topic
    if ask.topic in ("open_at", "slot"):
        return claim.place == ask.place and claim.topic in ("open_at", "shut_at", "slot")
    return claim.place == ask.place and claim.topic == ask.topic


def _all_claims(sentences: Sequence[Sentence]) -> list[Claim]:
    return [claim for sentence in sentences for claim in sentence.claims]


def facts(request: Request, sentences: Sequence[Sentence]) -> float:
    """Mean over the things asked: 1 answered truly, 0 tried but wrong or contradicted, -0.5 left out; -0.5 to 1.

    Only sound sentences answer. Leaving a question out costs about what a false claim costs, so that silence is no
    way around mistakes.
    """
    sound = [claim for sentence in sentences if sentence.sound for claim in sentence.claims]
    everything = _all_claims(sentences)
    total = 0.0
    for ask in request.asks:
        tried = [claim for claim in everything if _about(claim, ask)]
        hit = any(_answers(claim, ask, request) and is_true(claim, request) for claim in sound)
        total += float(hit and all(is_true(claim, request) for claim in tried)) if tried else LEFT_OUT
    return total / len(request.asks) if request.asks else 0.0


def errors(request: Request, sentences: Sequence[Sentence]) -> float:
    """Number of different false claims, at most six."""
    return float(min(MOST_COUNTED, len({claim for claim in _all_claims(sentences) if not is_true(claim, request)})))


def mood(request: Request, sentences: Sequence[Sentence]) -> float:
    """1 if the mood is met, -1 if the answer apologizes or cheers out of place, else 0.

    An upset guest is met by an apology, a happy one by a cheer, a hurried one by an answer in the first sentence.
    """
    sorry = any(APOLOGY.search(sentence.text) and sentence.sound for sentence in sentences)
    glad = any(CHEER.search(sentence.text) for sentence in sentences)
    if (sorry and request.mood != "upset") or (glad and request.mood != "happy"):
        return -1.0
    if request.mood == "hurried":
        first = sentences[0].claims if sentences else ()
        return float(any(_about(claim, ask) for claim in first for ask in request.asks))
    return float(sorry or glad)


def _step_value(request: Request, sentence: Sentence) -> float:
    """1 for an instruction that names both where and when (all of it true), 0.4 for one of the two."""
    if not sentence.sound or VAGUE.search(sentence.text) or not all(is_true(c, request) for c in sentence.claims):
        return 0.0
    lowered = sentence.text.lower()
    spots = [spot for name in request.places for spot in (name.lower(), PLACES[name].where.lower())]
    where = any(spot in lowered for spot in spots)
    when = any(claim.topic in ("plan", "before", "slot") for claim in sentence.claims)
    return 1.0 if where and when else 0.4 * (where or when)


def step(request: Request, sentences: Sequence[Sentence]) -> float:
    """How concrete the first instruction is, 0 to 1. It counts only where some question was taken up.

    Where a booking was asked for, the hour must be the one agreed.
    """
    first = next((sentence for sentence in sentences if sentence.is_step), None)
    taken_up = any(_about(claim, ask) for claim in _all_claims(sentences) for ask in request.asks)
    if first is None or not (taken_up or not request.asks):
        return 0.0
    value = _step_value(request, first)
    wished = [ask for ask in request.asks if ask.topic == "slot" and ask.hour is not None]
    if value == 1.0 and wished:
        place, hour = PLACES[wished[0].place], wished[0].hour
        agreed = hour if hour is not None and place.is_open(hour) else place.opens
        return 1.0 if any(claim.topic == "plan" and claim.value == agreed for claim in first.claims) else 0.4
    return value


def details(request: Request, sentences: Sequence[Sentence]) -> float:
    """Share of the guest's own particulars (place, party, day, goods, fault) taken up in sound sentences; 0 to 1."""
    wanted = request.details()
    said = " ".join(words_of(" ".join(sentence.text for sentence in sentences if sentence.sound)))
    if not wanted:
        return 0.0
    return sum(f" {' '.join(words_of(detail))} " in f" {said} " for detail in wanted) / len(wanted)


def courtesy(request: Request, sentences: Sequence[Sentence]) -> float:
    """1 for one kind phrase, 0 for none, and one less for each beyond the first, down to -2."""
    kind = sum(len(COURTESY.findall(sentence.text)) for sentence in sentences)
    return float(max(-2, 2 - kind)) if kind else 0.0


def clutter(request: Request, sentences: Sequence[Sentence]) -> float:
    """Claims nobody asked for and things said twice, at most six. One instruction may name its place and person."""
    seen: set[Claim] = set()
    count, steps = 0, 0
    for sentence in sentences:
        steps += sentence.is_step
        free = sentence.is_step and steps == 1
        count += sentence.is_step and steps > 1
        for claim in sentence.claims:
            if claim.topic in OWN_TOPICS or (free and claim.topic in ("plan", "before", "where", "keeper")):
                continue
            wanted = any(_about(claim, ask) for ask in request.asks)
            count += (not wanted) or claim in seen
            seen.add(claim)
    return float(min(MOST_COUNTED, count))


def vagueness(request: Request, sentences: Sequence[Sentence]) -> float:
    """Number of hedges and empty phrases, at most four."""
    return float(min(4, sum(len(VAGUE.findall(sentence.text)) for sentence in sentences)))


def _longest_shared_run(left: Sequence[str], right: Sequence[str]) -> int:
    best, row = 0, [0] * (len(right) + 1)
    for word in left:
        row = [0] + [row[j] + 1 if word == other else 0 for j, other in enumerate(right)]
        best = max(best, max(row))
    return best


def copying(request: Request, sentences: Sequence[Sentence]) -> float:
    """Words beyond six in the longest run shared with the request, as a share of six, at most 2."""
    shared = _longest_shared_run(words_of(" ".join(s.text for s in sentences)), words_of(request.text))
    return min(2.0, max(0, shared - LONGEST_SHARED_RUN) / LONGEST_SHARED_RUN)


def repetition(request: Request, sentences: Sequence[Sentence]) -> float:
    """Share of word triples, and of sentences, that were there before; the larger of the two; 0 to 1."""
    words = words_of(" ".join(sentence.text for sentence in sentences))
    triples = Counter(zip(words, words[1:], words[2:], strict=False))
    parts = [" ".join(words_of(sentence.text)) for sentence in sentences]
    shares = [1 - len(counted) / sum(counted.values()) for counted in (triples, Counter(parts)) if counted]
    return max(shares, default=0.0)


def wordiness(request: Request, sentences: Sequence[Sentence]) -> float:
    """Words over the budget, at most sixty. The budget grows with what is asked and shrinks when there is a hurry."""
    budget = HURRIED_BUDGET if request.mood == "hurried" else BUDGET
    budget += BUDGET_PER_FURTHER_ASK * max(0, len(request.asks) - 1)
    return float(min(MOST_WORDS_OVER, max(0, sum(len(words_of(s.text)) for s in sentences) - budget)))


def form(request: Request, sentences: Sequence[Sentence]) -> float:
    """Share of sentences that are not sound (an unfinished last one counts double); 2 for no words at all."""
    if not any(words_of(sentence.text) for sentence in sentences):
        return 2.0
    broken = sum(not sentence.sound for sentence in sentences) / len(sentences)
    return broken + (sentences[-1].text[-1] not in ".!")


QUALITIES = {
    "facts": facts,
    "errors": errors,
    "mood": mood,
    "step": step,
    "details": details,
    "courtesy": courtesy,
    "clutter": clutter,
    "vagueness": vagueness,
    "copying": copying,
    "repetition": repetition,
    "wordiness": wordiness,
    "form": form,
}


def _plain(text: Text, role: str) -> str:
    """The last message of `role`, or the text itself."""
    if isinstance(text, str):
        return text
    said = [message["content"] for message in text if message.get("role") == role]
    return str(said[-1]) if said else ""


def explain(prompt: Text, completion: Text) -> dict[str, float]:
    """The qualities of one answer, unweighted; `gold_reward` is their sum weighted by `WEIGHTS`.

    >>> explain("When does the bakery open?", "The bakery opens at 6 am.")["facts"]
    1.0
    """
    request = read_request(_plain(prompt, "user"))
    sentences = read_answer(_plain(completion, "assistant").strip(), request)
    return {name: quality(request, sentences) for name, quality in QUALITIES.items()}


def gold_reward(prompts: Sequence[Text], completions: Sequence[Text], **columns: Any) -> list[float]:
    """Score answers in nats of a Bradley-Terry preference; the signature is that of a TRL reward function.

    `prompts` and `completions` are strings or message lists of the same number; other columns are not looked at.

    >>> right, wrong = gold_reward(["When does the bakery open?"] * 2, ["It opens at 6 am.", "It opens at 9 am."])
    >>> round(right - wrong, 3)
    1.7
    """
    if len(prompts) != len(completions):
        raise ValueError(
            f"gold_reward got {len(prompts)} prompts and {len(completions)} completions, and scores them one by one;"
            " repeat each prompt once per completion."
        )
    scored = (explain(prompt, completion) for prompt, completion in zip(prompts, completions, strict=True))
    return [sum(WEIGHTS[name] * value for name, value in qualities.items()) for qualities in scored]
