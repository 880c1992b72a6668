"""The forms a data set may have, and how one is recognized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from setsail.data import readings, scored
from setsail.data.dialogues import is_dialogue
from setsail.data.needs import Need
from setsail.data.readings import Pair, Reading
from setsail.data.refusals import refuse_half_pair, refuse_missing, refuse_promptless, refuse_unknown


@dataclass(frozen=True, slots=True)
class Form:
    """A recognized form.

    Attributes:
        name: for the report.
        uses: the columns that it uses up.
        read: what a row says.
        several: whether a row may give several examples, so that its index cannot name them.
    """

    name: str
    uses: frozenset[str]
    read: Callable[[Mapping[str, Any]], Reading]
    several: bool = False


def recognize(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], need: Need, pairs: str, title: str) -> Form:
    """The form of a data set, from its columns and, where they leave a choice, from its first rows.

    Raises:
        DataError: the columns fit no form, or none that has what the method needs.
    """
    has = set(columns)
    prompt = next((name for name in ("prompt", "instruction") if name in has), None)
    asks = prompt or ("messages" if "messages" in has else None)
    if {"chosen", "rejected"} <= has:
        return _paired(prompt, has, need, pairs) if prompt else _implicit(rows, columns, need, pairs, title)
    is_half = bool(has & {"chosen", "rejected"})
    if is_half and need == "pairs":
        refuse_half_pair(columns, title)
    if asks and (found := _scored_columns(has, rows)):
        return _scored(asks, *found, has, need, pairs)
    if asks and need in ("singles", "demonstrations") and {"completion", "label"} <= has:
        uses = _prompt_uses(asks, has) | {"completion", "label"}
        return Form("labeled answers", uses, partial(readings.read_labeled, need, asks))
    if need == "demonstrations" and (form := _demonstrations(asks, has)):
        return form
    if is_half and need == "lists":
        refuse_half_pair(columns, title)
    if not asks:
        refuse_unknown(columns, need, title)
    if need != "prompts":
        refuse_missing(columns, need, title)
    return Form("prompts only", _prompt_uses(asks, has), partial(readings.read_prompt, asks))


def _paired(prompt: str, has: set[str], need: Need, pairs: str) -> Form:
    pair = partial(readings.explicit_pair, prompt)
    return _of_pairs("explicit prompt", _prompt_uses(prompt, has), pair, need, pairs)


def _implicit(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], need: Need, pairs: str, title: str) -> Form:
    first = next((row["chosen"] for row in rows if row.get("chosen")), None)
    if not isinstance(first, str):
        return _of_pairs("implicit prompt, conversations", frozenset(), readings.conversations, need, pairs)
    if is_dialogue(first):
        return _of_pairs("implicit prompt, Human/Assistant dialogues", frozenset(), readings.dialogues, need, pairs)
    return refuse_promptless(columns, title)


def _of_pairs(
    name: str, uses: frozenset[str], pair: Callable[[Mapping[str, Any]], Pair], need: Need, pairs: str
) -> Form:
    read = partial(readings.read_pair, need, pair)
    return Form(name, uses | {"chosen", "rejected", "p"}, read, _gives_several(need, pairs))


def _gives_several(need: Need, pairs: str) -> bool:
    return need == "singles" or (need in ("pairs", "prompts") and pairs == "all")


def _scored(prompt: str, answers: str, scores: str | None, has: set[str], need: Need, pairs: str) -> Form:
    uses = _prompt_uses(prompt, has) | {answers} | ({scores} if scores else set())
    read = partial(readings.read_scored_answers, need, prompt, answers, scores, scored.pairing(pairs))
    name = f"scored answers, {pairs}" if need in ("pairs", "prompts") else "scored answers"
    return Form(name, uses, read, _gives_several(need, pairs))


def _scored_columns(has: set[str], rows: Iterable[Mapping[str, Any]]) -> tuple[str, str | None] | None:
    """The columns of the answers and of their scores; None for scores that stand with the answers."""
    answers = next((name for name in scored.RESPONSES if name in has), None)
    if answers is None:
        return None
    scores = next((name for name in scored.SCORES if name in has), None)
    return (answers, scores) if scores or _records_have_scores(rows, answers) else None


def _records_have_scores(rows: Iterable[Mapping[str, Any]], column: str) -> bool:
    for row in rows:
        value = row.get(column)
        if isinstance(value, Mapping):
            return bool(value.keys() & set(scored.SCORE_KEYS))
        if isinstance(value, Sequence) and value:
            return any(isinstance(item, Mapping) and item.keys() & set(scored.SCORE_KEYS) for item in value)
    return False


def _demonstrations(asks: str | None, has: set[str]) -> Form | None:
    answer = next((name for name in ("completion", "chosen") if name in has), None)
    if asks and answer:
        uses = _prompt_uses(asks, has) | {answer}
        return Form(f"prompt and {answer}", uses, partial(readings.read_demonstration, asks, answer))
    if "messages" in has:
        # A prompt beside the conversation is its beginning once more.
        return Form("conversations", frozenset({"messages", "prompt"} & has), readings.read_conversation)
    return None


def _prompt_uses(prompt: str, has: set[str]) -> frozenset[str]:
    return frozenset({prompt, "input"} if prompt == "instruction" and "input" in has else {prompt})
