"""How a row of each form is read: its columns -> its prompt and what it gives of what is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from setsail.data.conversations import (
    as_answer,
    check_answers,
    check_pair,
    is_blank,
    open_prompt,
    read_text,
    settle,
    split_shared,
)
from setsail.data.dialogues import split_dialogues
from setsail.data.examples import Text
from setsail.data.faults import BAD_LABEL, BAD_P, EMPTY_ANSWER, NO_LABEL, NO_P, TOO_FEW_SCORED, RowFault
from setsail.data.needs import Content, Given, Need, from_labeled, from_pair, from_scored
from setsail.data.scored import Scored, ScoredPairs, number, read_scored

Row = Mapping[str, Any]
Pair = tuple[Text, Text, Text]
"""``(prompt, chosen, rejected)``."""

UNSCORED = "answers without a score are left out"
EMPTY = "empty answers are left out"


@dataclass(frozen=True, slots=True)
class Reading:
    """What one row says.

    Attributes:
        prompt: the prompt, sound.
        given: the contents of its examples; one without answers in a set of prompts.
        keep: columns to keep in a tidied form.
    """

    prompt: Text
    given: Given = field(default_factory=lambda: Given((Content(),)))
    keep: Mapping[str, Any] = field(default_factory=dict)


# Pairs.


def read_pair(need: Need, pair: Callable[[Row], Pair], row: Row) -> Reading:
    """A row of two answers, with the probability that the first is preferred."""
    p = _preference(row)
    prompt, chosen, rejected = pair(row)
    return Reading(prompt, from_pair(need, chosen, rejected, p))


def explicit_pair(prompt_column: str, row: Row) -> Pair:
    """Both answers beside their prompt."""
    sides = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    prompt, answers = settle(prompt_of(row, prompt_column), sides)
    return prompt, *check_pair(prompt, *answers)


def conversations(row: Row) -> Pair:
    """Two conversations that begin alike."""
    chosen, rejected = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    if chosen is None or rejected is None or is_blank(chosen) or is_blank(rejected):
        raise RowFault(EMPTY_ANSWER)
    prompt, answers = split_shared(as_answer(chosen), as_answer(rejected))
    return prompt, *check_pair(prompt, *answers)


def dialogues(row: Row) -> Pair:
    """Two dialogues, each written as one string."""
    chosen, rejected = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RowFault(EMPTY_ANSWER)
    prompt, *answers = split_dialogues(chosen, rejected)
    return open_prompt(prompt), *check_pair(prompt, *answers)


def _preference(row: Row) -> float:
    value = row.get("p", 1.0)
    if value is None or value == "":  # a CSV file writes nothing as an empty string
        # A data set that states preferences and leaves one out has no preference there: it is missing, not certain.
        raise RowFault(NO_P)
    p = None if isinstance(value, bool) else number(value)
    if p is None or not 0 <= p <= 1:
        raise RowFault(BAD_P)
    return p


# Scored answers.


def read_scored_answers(
    need: Need,
    prompt_column: str,
    column: str,
    scores: str | None,
    pair: Callable[[Sequence[Scored]], ScoredPairs],
    row: Row,
) -> Reading:
    """A row of several answers, each with a score."""
    listed = read_scored(row.get(column), row.get(scores) if scores else None, column)
    usable = [answer for answer in listed if answer.is_usable]
    prompt, texts = settle(prompt_of(row, prompt_column), [answer.text for answer in usable])
    if len(usable) < 2:
        raise RowFault(TOO_FEW_SCORED, prompt)
    answers = [replace(answer, text=text) for answer, text in zip(usable, texts, strict=True)]
    try:
        given = from_scored(need, prompt, answers, pair)
    except RowFault as fault:
        raise RowFault(fault.kind, prompt) from None
    if need in ("lists", "singles"):
        empty = sum(is_blank(answer.text) for answer in listed)
        unscored = len(listed) - len(usable) - empty
        given = replace(given, remarks={**given.remarks, EMPTY: empty, UNSCORED: unscored})
    return Reading(prompt, given, {"responses": tuple(answer.as_column() for answer in listed)})


# One answer a row.


def read_labeled(need: Need, prompt_column: str, row: Row) -> Reading:
    """One answer that is marked as desirable or not."""
    prompt, answer = _prompt_and_answer(prompt_column, "completion", row)
    return Reading(prompt, from_labeled(need, answer, _label(row.get("label"), prompt)))


def read_demonstration(prompt_column: str, column: str, row: Row) -> Reading:
    """One good answer."""
    prompt, answer = _prompt_and_answer(prompt_column, column, row)
    return Reading(prompt, Given((Content(answer),)))


def read_conversation(row: Row) -> Reading:
    """A conversation that ends with the assistant: its last answer is the demonstration."""
    whole = as_answer(read_text(row.get("messages"), "messages") or ())
    prompt, answers = split_shared(whole)
    [answer] = check_answers(prompt, *answers)
    return Reading(prompt, Given((Content(answer),)))


def _prompt_and_answer(prompt_column: str, column: str, row: Row) -> tuple[Text, Text]:
    prompt, answers = settle(prompt_of(row, prompt_column), [read_text(row.get(column), column)])
    [answer] = check_answers(prompt, *answers)
    return prompt, answer


_LABELS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


def _label(value: Any, prompt: Text) -> bool:
    """A label as data write it: true and false, 1 and 0, or these as text."""
    if value is None or value == "":
        raise RowFault(NO_LABEL, prompt)
    label = _LABELS.get(str(value).strip().lower())
    if label is None:
        raise RowFault(BAD_LABEL, prompt)
    return label


# No answer.


def read_prompt(prompt_column: str, row: Row) -> Reading:
    """A prompt alone."""
    return Reading(open_prompt(prompt_of(row, prompt_column)))


def prompt_of(row: Row, column: str) -> Text | None:
    """The prompt as the row gives it; an instruction with its input."""
    prompt = read_text(row.get(column), column)
    extra = row.get("input") if column == "instruction" else None
    if isinstance(prompt, str) and isinstance(extra, str) and extra.strip():
        return f"{prompt}\n\n{extra}"
    return prompt
