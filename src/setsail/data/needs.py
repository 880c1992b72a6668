"""What a method learns from, and what a row of each kind gives it.

A *pair* gives lists of two and two single answers, scored answers give pairs, lists and single answers, and each of
them a demonstration: what is better than something else is taken to be good. The reverse does not hold: nothing says
which of two demonstrations is better, so single answers never become pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from setsail.core import ConfigError, DataError, nearest
from setsail.data import lists
from setsail.data.conversations import check_answers, check_pair
from setsail.data.examples import Example, Text, canonical
from setsail.data.faults import NEITHER, SAME_LISTED, TIE, RowFault
from setsail.data.scored import Scored, ScoredPairs

Need = Literal["pairs", "lists", "singles", "demonstrations", "prompts"]
NEEDS: tuple[Need, ...] = get_args(Need)

DESIRABLE, UNDESIRABLE = 1.0, -1.0

HARDENED = "soft preferences (p neither 0 nor 1) are read as which answer is the likelier one"
REPEATED = "answers that repeat another of their row, score and all, are left out"
CONTRADICTED = "answers of equal text and different scores are left out"
AT_THE_MEAN = "answers whose score is the mean of their row are left out"
UNDESIRABLE_LEFT_OUT = "undesirable answers are left out"
PAIRS_LEFT_OUT = "pairs of answers with equal scores or equal texts are left out"


@dataclass(frozen=True, slots=True)
class Content:
    """What one example holds besides its prompt; the fields are those of :class:`setsail.data.Example`."""

    chosen: Text | None = None
    rejected: Text | None = None
    p: float = 1.0
    answers: tuple[Text, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def texts(self) -> tuple[Text, ...]:
        """Every answer once."""
        return self.answers or tuple(side for side in (self.chosen, self.rejected) if side is not None)


@dataclass(frozen=True, slots=True)
class Given:
    """What a row gives: contents of one example each, and counts of what a reader should know about them."""

    contents: tuple[Content, ...] = ()
    remarks: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_passed_over(self) -> bool:
        """Whether a sound row gives nothing of what is needed."""
        return not self.contents


def resolve_need(needs: str | None, needs_pairs: bool | None) -> Need:
    """What is needed, from either way of saying it; pairs, where nothing is said.

    Raises:
        ConfigError: an unknown need, or both are given.
    """
    if needs is None:
        return "prompts" if needs_pairs is False else "pairs"
    if needs_pairs is not None:
        raise ConfigError(f"needs={needs!r} and needs_pairs={needs_pairs!r} say the same thing twice; leave one out.")
    for known in NEEDS:
        if needs == known:
            return known
    raise ConfigError(f"needs={needs!r} is not one of {', '.join(NEEDS)}{nearest(needs, NEEDS) or '.'}")


# What each kind of row gives.


def from_pair(need: Need, chosen: Text, rejected: Text, p: float) -> Given:
    """Of a pair: itself; a list of two with scores p and 1 - p; two single answers; or the better one.

    Raises:
        RowFault: p = 0.5 where one answer must be the good one.
    """
    if need == "lists":
        return Given((Content(chosen, rejected, p, (chosen, rejected), (p, 1 - p)),))
    if need not in ("singles", "demonstrations"):
        return Given((Content(chosen, rejected, p),))
    if p == 0.5:
        raise RowFault(NEITHER)
    better, worse = (chosen, rejected) if p > 0.5 else (rejected, chosen)
    remarks = {} if p in (0.0, 1.0) else {HARDENED: 1}
    if need == "demonstrations":
        return Given((Content(better),), remarks)
    return Given((_single(better, DESIRABLE), _single(worse, UNDESIRABLE)), remarks)


def from_scored(
    need: Need, prompt: Text, answers: Sequence[Scored], pair: Callable[[Sequence[Scored]], ScoredPairs]
) -> Given:
    """Of scored answers: the pairs of a rule; the list of them; each by its side of their mean; or the best.

    Args:
        need: what is wanted.
        prompt: what they answer.
        answers: those that have a score and a text; at least two.
        pair: the rule that makes pairs.

    Raises:
        RowFault: nothing is better than anything else, or an answer is not the assistant's.
    """
    if need in ("pairs", "prompts"):
        found, left_out = pair(answers)
        sides = [check_pair(prompt, better.text, worse.text) for better, worse in found]
        return Given(tuple(Content(*two) for two in sides), {PAIRS_LEFT_OUT: left_out})
    texts = check_answers(prompt, *(answer.text for answer in answers))
    scores = [answer.value for answer in answers]
    names = [canonical(text) for text in texts]
    kept = lists.distinct(names, scores)
    staying = {names[index] for index in kept}
    contradicted = sum(name not in staying for name in names)
    remarks = {REPEATED: len(names) - len(kept) - contradicted, CONTRADICTED: contradicted}
    texts, scores = tuple(texts[index] for index in kept), [scores[index] for index in kept]
    if len(kept) < 2:
        raise RowFault(SAME_LISTED, prompt)
    ends = lists.ends(scores)
    if ends is None:
        raise RowFault(TIE, prompt)
    best, worst = texts[ends[0]], texts[ends[1]]
    if need == "demonstrations":
        return Given((Content(best),))
    if need == "lists":
        return Given((Content(best, worst, 1.0, texts, tuple(scores)),), remarks)
    sides_of = lists.sides_of_mean(scores)
    singles = tuple(_single(text, side) for text, side in zip(texts, sides_of, strict=True) if side)
    return Given(singles, {**remarks, AT_THE_MEAN: sides_of.count(0.0)})


def from_labeled(need: Need, answer: Text, desirable: bool) -> Given:
    """Of one labeled answer: itself, or a demonstration if it is desirable."""
    if need == "demonstrations":
        return Given((Content(answer),)) if desirable else Given((), {UNDESIRABLE_LEFT_OUT: 1})
    return Given((_single(answer, DESIRABLE if desirable else UNDESIRABLE),))


def _single(answer: Text, score: float) -> Content:
    return Content(answers=(answer,), scores=(score,))


# A set that is already loaded.


def check_holds(name: str, examples: Sequence[Example], need: Need, read_as: str) -> None:
    """Refuse a loaded set whose examples lack what is needed.

    Raises:
        DataError: saying how to load it instead.
    """
    lacking = [example.source_row + 1 for example in examples if not _HOLDS[need](example)]
    if lacking:
        raise DataError(
            f"{name}: it was loaded with needs={read_as!r}, but {need} are needed here, and {len(lacking):,} of "
            f"{len(examples):,} examples hold none (the first is of row {lacking[0]}). Load it again with "
            f"load_preferences(..., needs={need!r}), which says so if the source has none either."
        )


_HOLDS: Mapping[Need, Callable[[Example], bool]] = {
    "pairs": lambda example: example.has_pair,
    "lists": lambda example: len(example.answers) > 1,
    "singles": lambda example: len(example.answers) == 1,
    "demonstrations": lambda example: example.chosen is not None and example.p > 0.5,
    "prompts": lambda example: True,
}
