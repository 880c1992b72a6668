"""The forms a preference set may have, each a function from a row to what it says, and how one is recognized."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from setsail.core import DataError, nearest
from setsail.data import scored
from setsail.data.columns import PARTS
from setsail.data.conversations import (
    as_answer,
    as_question,
    check_answers,
    is_blank,
    open_prompt,
    read_text,
    split_shared,
    starts_with_prompt,
    without_prompt,
)
from setsail.data.dialogues import is_dialogue, split_dialogues
from setsail.data.examples import Text
from setsail.data.faults import EMPTY_ANSWER, PROMPTS_DIFFER, RowFault

EXPECTED = 'Expected: {"prompt": "...", "chosen": "...", "rejected": "..."}'
EXPECTED_PROMPTS = 'Expected: {"prompt": "..."}'


@dataclass(frozen=True, slots=True)
class Reading:
    """What one row says.

    Attributes:
        prompt: the prompt, sound.
        pairs: ``(chosen, rejected)``, none in a set of prompts.
        keep: columns to keep in a tidied form.
        left_out: pairs of scored answers left out because they were tied or identical.
    """

    prompt: Text
    pairs: tuple[tuple[Text, Text], ...] = ()
    keep: Mapping[str, Any] = field(default_factory=dict)
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Form:
    """A recognized form: its name for the report, the columns it uses up, and how a row is read."""

    name: str
    uses: frozenset[str]
    read: Callable[[Mapping[str, Any]], Reading]


def recognize(
    columns: Sequence[str], rows: Iterable[Mapping[str, Any]], needs_pairs: bool, pairs: str, title: str
) -> Form:
    """The form of a data set, from its columns and, where they leave a choice, from its first rows.

    Raises:
        DataError: the columns fit no form, or none that has what the method needs.
    """
    has = set(columns)
    prompt = next((name for name in ("prompt", "instruction") if name in has), None)
    answers = next((name for name in scored.RESPONSES if name in has), None)
    if {"chosen", "rejected"} <= has:
        return _explicit(prompt, has) if prompt else _implicit(rows, columns, title)
    if needs_pairs and has & {"chosen", "rejected"}:
        _refuse_half_pair(columns, title)
    if answers and (prompt or "messages" in has):
        scores = next((name for name in scored.SCORES if name in has), None)
        if scores or _records_have_scores(rows, answers):
            return _scored(prompt or "messages", answers, scores, has, pairs)
    if prompt or "messages" in has:
        if needs_pairs:
            _refuse_prompts(columns, title)
        return _prompts(prompt or "messages", has)
    return _refuse_unknown(columns, needs_pairs, title)


# Reading, form by form.


def _explicit(prompt: str, has: set[str]) -> Form:
    return Form("explicit prompt", _prompt_uses(prompt, has) | {"chosen", "rejected", "p"}, partial(_read_pair, prompt))


def _read_pair(prompt_column: str, row: Mapping[str, Any]) -> Reading:
    chosen, rejected = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    if starts_with_prompt(chosen) and starts_with_prompt(rejected):
        return _read_whole_conversations(row.get(prompt_column), chosen, rejected)
    prompt = open_prompt(_prompt_of(row, prompt_column))
    if chosen is None or rejected is None:
        raise RowFault(EMPTY_ANSWER, prompt)
    if not all(isinstance(text, str) for text in (prompt, chosen, rejected)):
        prompt, chosen, rejected = as_question(prompt), as_answer(chosen), as_answer(rejected)
    return Reading(prompt, (check_answers(prompt, chosen, rejected),))


def _read_whole_conversations(given: Any, chosen: Text | None, rejected: Text | None) -> Reading:
    """Answers that repeat the prompt, as in UltraFeedback binarized; a prompt given as messages must be theirs."""
    whole = as_answer(chosen or ()), as_answer(rejected or ())
    prompt = read_text(given, "prompt")
    if isinstance(prompt, tuple) and prompt:
        open_prompt(prompt)
        cut = tuple(without_prompt(prompt, side) for side in whole)
        if any(starts_with_prompt(side) for side in cut):
            raise RowFault(PROMPTS_DIFFER)
        return Reading(prompt, (check_answers(prompt, *cut),))
    shared, *answers = split_shared(*whole)
    return Reading(open_prompt(shared), (check_answers(shared, *answers),))


def _implicit(rows: Iterable[Mapping[str, Any]], columns: Sequence[str], title: str) -> Form:
    uses = frozenset({"chosen", "rejected", "p"})
    first = next((row["chosen"] for row in rows if row.get("chosen")), None)
    if not isinstance(first, str):
        return Form("implicit prompt, conversations", uses, _read_conversations)
    if is_dialogue(first):
        return Form("implicit prompt, Human/Assistant dialogues", uses, _read_dialogues)
    raise DataError(
        f"{title}: no prompt. Columns found: {', '.join(columns)}. chosen and rejected are strings without a "
        '"\\n\\nHuman: ... \\n\\nAssistant: ..." dialogue, so the prompt cannot be told from the answer. '
        f'{EXPECTED}. If another column is the prompt, say columns={{"prompt": "its name"}}.'
    )


def _read_conversations(row: Mapping[str, Any]) -> Reading:
    chosen, rejected = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    if chosen is None or rejected is None or is_blank(chosen) or is_blank(rejected):
        raise RowFault(EMPTY_ANSWER)
    prompt, *answers = split_shared(as_answer(chosen), as_answer(rejected))
    return Reading(open_prompt(prompt), (check_answers(prompt, *answers),))


def _read_dialogues(row: Mapping[str, Any]) -> Reading:
    chosen, rejected = read_text(row.get("chosen"), "chosen"), read_text(row.get("rejected"), "rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RowFault(EMPTY_ANSWER)
    prompt, *answers = split_dialogues(chosen, rejected)
    return Reading(open_prompt(prompt), (check_answers(prompt, *answers),))


def _scored(prompt: str, answers: str, scores: str | None, has: set[str], pairs: str) -> Form:
    uses = _prompt_uses(prompt, has) | {answers} | ({scores} if scores else set())
    return Form(f"scored answers, {pairs}", uses, partial(_read_scored, prompt, answers, scores, scored.pairing(pairs)))


def _read_scored(
    prompt_column: str,
    column: str,
    scores: str | None,
    pair: Callable[[Sequence[scored.Scored]], scored.ScoredPairs],
    row: Mapping[str, Any],
) -> Reading:
    prompt = open_prompt(_prompt_of(row, prompt_column))
    answers = scored.read_scored(row.get(column), row.get(scores) if scores else None, column)
    try:
        found, left_out = pair(answers)
    except RowFault as fault:
        raise RowFault(fault.kind, prompt) from None
    sides = [(better.text or "", worse.text or "") for better, worse in found]
    if not isinstance(prompt, str) or not all(isinstance(side, str) for two in sides for side in two):
        prompt, sides = as_question(prompt), [(as_answer(better), as_answer(worse)) for better, worse in sides]
    checked = tuple(check_answers(prompt, *two) for two in sides)
    return Reading(prompt, checked, {"responses": tuple(answer.as_column() for answer in answers)}, left_out)


def _records_have_scores(rows: Iterable[Mapping[str, Any]], column: str) -> bool:
    for row in rows:
        value = row.get(column)
        if isinstance(value, Mapping):
            return bool(value.keys() & set(scored.SCORE_KEYS))
        if isinstance(value, Sequence) and value:
            return any(isinstance(item, Mapping) and item.keys() & set(scored.SCORE_KEYS) for item in value)
    return False


def _prompts(prompt: str, has: set[str]) -> Form:
    return Form("prompts only", _prompt_uses(prompt, has), partial(_read_prompt, prompt))


def _read_prompt(prompt_column: str, row: Mapping[str, Any]) -> Reading:
    return Reading(open_prompt(_prompt_of(row, prompt_column)))


def _prompt_uses(prompt: str, has: set[str]) -> frozenset[str]:
    return frozenset({prompt, "input"} if prompt == "instruction" and "input" in has else {prompt})


def _prompt_of(row: Mapping[str, Any], column: str) -> Text | None:
    prompt = read_text(row.get(column), column)
    extra = row.get("input") if column == "instruction" else None
    if isinstance(prompt, str) and isinstance(extra, str) and extra.strip():
        return f"{prompt}\n\n{extra}"
    return prompt


# Refusals: what was found, why it cannot work, what to do.


def _refuse_half_pair(columns: Sequence[str], title: str) -> None:
    missing = "rejected" if "chosen" in columns else "chosen"
    others = [name for name in columns if name not in ("prompt", "chosen", "rejected")]
    raise DataError(
        f"{title}: no column {missing!r}. Columns found: {', '.join(columns)}{nearest(missing, others) or '.'} "
        f'{EXPECTED}. If the column has another name, say columns={{"{missing}": "its name"}}.'
    )


def _refuse_prompts(columns: Sequence[str], title: str) -> None:
    guesses = [nearest(part, [name for name in columns if name not in PARTS]) for part in ("chosen", "rejected")]
    found = f"Columns found: {', '.join(columns)}{''.join(guesses) or '.'}"
    if "label" in columns and "completion" in columns:
        raise DataError(
            f"{title}: unpaired answers (prompt, completion, label) are not supported. {found} Supported are pairs "
            "(prompt, chosen, rejected), several scored answers (prompt, responses) and, for purely online methods, "
            f"prompts alone. {EXPECTED}."
        )
    if set(columns) & set(scored.RESPONSES):
        raise DataError(
            f"{title}: several answers a prompt, but no scores to compare them by. {found} Expected: "
            '{"prompt": "...", "responses": [{"text": "...", "score": 7}, ...]}, or a column "scores" beside them.'
        )
    raise DataError(
        f"{title}: prompts without answers to compare. {found} Only purely online methods "
        f"(whose pairs are all drawn during training) learn from prompts alone; this one needs pairs. {EXPECTED}."
    )


def _refuse_unknown(columns: Sequence[str], needs_pairs: bool, title: str) -> Form:
    parts = ("prompt", "chosen", "rejected") if needs_pairs else ("prompt",)
    guesses = {part: hint for part in parts if (hint := nearest(part, columns))}
    close = "".join(f" For {part!r}{hint}" for part, hint in guesses.items())
    example = {part: f"your {part} column" for part in parts}
    raise DataError(
        f"{title}: no column that can be the prompt. Columns found: {', '.join(columns)}.{close} "
        f"{EXPECTED if needs_pairs else EXPECTED_PROMPTS}. Other names are mapped with columns={example!r}."
    )
