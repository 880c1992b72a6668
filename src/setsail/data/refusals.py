"""Refusals of columns: what was found, why it cannot work, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from setsail.core import DataError, nearest
from setsail.data import scored
from setsail.data.columns import PARTS
from setsail.data.needs import Need

EXPECTED: Mapping[Need, str] = {
    "pairs": 'Expected: {"prompt": "...", "chosen": "...", "rejected": "..."}',
    "lists": 'Expected: {"prompt": "...", "responses": [{"text": "...", "score": 7}, {"text": "...", "score": 2}]}',
    "singles": 'Expected: {"prompt": "...", "completion": "...", "label": true}',
    "demonstrations": 'Expected: {"prompt": "...", "completion": "..."}',
    "prompts": 'Expected: {"prompt": "..."}',
}
_PARTS: Mapping[Need, tuple[str, ...]] = {
    "pairs": ("chosen", "rejected"),
    "lists": ("responses", "scores"),
    "singles": ("completion", "label"),
    "demonstrations": ("completion",),
    "prompts": (),
}
"""The columns, beside the prompt, that are expected of each need."""

_WORDS: Mapping[Need, str] = {
    "pairs": "pairs",
    "lists": "lists of scored answers",
    "singles": "labeled single answers",
    "demonstrations": "demonstrations",
    "prompts": "prompts",
}
_PAIRS = "pairs (prompt, chosen, rejected)"
_SCORED = "several scored answers (prompt, responses)"
_LABELED = "labeled answers (prompt, completion, label)"
_ANSWERS = "answers (prompt, completion)"
_SUPPORTED: Mapping[Need, str] = {
    "pairs": f"{_PAIRS} and {_SCORED}",
    "lists": f"{_SCORED} and {_PAIRS}",
    "singles": f"{_LABELED}, {_PAIRS} and {_SCORED}",
    "demonstrations": f"{_ANSWERS}, conversations (messages), {_LABELED}, {_PAIRS} and {_SCORED}",
    "prompts": "prompts (prompt)",
}
_ANSWER_NAMES = ("output", "response", "answer", "target")
"""Names that other projects give the one answer of a row."""


def refuse_half_pair(columns: Sequence[str], title: str) -> NoReturn:
    """A pair lacks one of its two columns."""
    missing = "rejected" if "chosen" in columns else "chosen"
    others = [name for name in columns if name not in ("prompt", "chosen", "rejected")]
    only_good = missing == "rejected" and "prompt" in columns
    alone = (
        " A prompt with its chosen answer alone is a demonstration, which methods read that learn from good answers "
        "(needs='demonstrations')."
    )
    raise DataError(
        f"{title}: no column {missing!r}. Columns found: {', '.join(columns)}{nearest(missing, others) or '.'} "
        f'{EXPECTED["pairs"]}. If the column has another name, say columns={{"{missing}": "its name"}}.'
        f"{alone if only_good else ''}"
    )


def refuse_missing(columns: Sequence[str], need: Need, title: str) -> NoReturn:
    """There are prompts, but not what the method learns from."""
    others = [name for name in columns if name not in PARTS]
    guesses = [nearest(part, others) for part in _PARTS[need]]
    found = f"Columns found: {', '.join(columns)}{''.join(guesses) or '.'}"
    supported = f"Supported here are {_SUPPORTED[need]}. {EXPECTED[need]}."
    if {"completion", "label"} <= set(columns):
        raise DataError(
            f"{title}: unpaired answers (prompt, completion, label), where {_WORDS[need]} are needed. {found} A label "
            "says of one answer whether it is good, not which of two is better; methods that learn from labeled "
            f"single answers (needs='singles') and from good ones (needs='demonstrations') read them. {supported}"
        )
    if set(columns) & set(scored.RESPONSES) and need != "demonstrations":
        raise DataError(
            f"{title}: several answers a prompt, but no scores to compare them by. {found} Expected: "
            '{"prompt": "...", "responses": [{"text": "...", "score": 7}, ...]}, or a column "scores" beside them.'
        )
    if "completion" in columns:
        without = "a label" if need == "singles" else "another to compare it with"
        raise DataError(
            f"{title}: one answer a prompt (prompt, completion) without {without}, where {_WORDS[need]} are needed. "
            f"{found} Methods that learn from good answers (needs='demonstrations') read them. {supported}"
        )
    raise DataError(_without_answers(columns, need, title, found))


def _without_answers(columns: Sequence[str], need: Need, title: str, found: str) -> str:
    lack = {"singles": "labeled answers", "demonstrations": "answers to learn from"}.get(need, "answers to compare")
    other = next((name for name in _ANSWER_NAMES if name in columns), None)
    mapped = f' If the answer is the column {other!r}, say columns={{"completion": "{other}"}}.' if other else ""
    asks_one = need in ("singles", "demonstrations")
    return (
        f"{title}: prompts without {lack}. {found} Only purely online methods "
        f"(whose pairs are all drawn during training) learn from prompts alone; this one needs {_WORDS[need]}. "
        f"{EXPECTED[need]}.{mapped if asks_one else ''}"
    )


def refuse_unknown(columns: Sequence[str], need: Need, title: str) -> NoReturn:
    """No column can be the prompt."""
    parts = ("prompt", *_PARTS[need])
    guesses = {part: hint for part in parts if (hint := nearest(part, columns))}
    close = "".join(f" For {part!r}{hint}" for part, hint in guesses.items())
    example = {part: f"your {part} column" for part in parts}
    raise DataError(
        f"{title}: no column that can be the prompt. Columns found: {', '.join(columns)}.{close} "
        f"{EXPECTED[need]}. Other names are mapped with columns={example!r}."
    )


def refuse_promptless(columns: Sequence[str], title: str) -> NoReturn:
    """Both answers are strings, and nothing says where the prompt ends."""
    raise DataError(
        f"{title}: no prompt. Columns found: {', '.join(columns)}. chosen and rejected are strings without a "
        '"\\n\\nHuman: ... \\n\\nAssistant: ..." dialogue, so the prompt cannot be told from the answer. '
        f'{EXPECTED["pairs"]}. If another column is the prompt, say columns={{"prompt": "its name"}}.'
    )
