"""What can be wrong with one row, and the count of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from setsail.core import DataError
from setsail.data.examples import Text

EMPTY_PROMPT = "empty prompt"
EMPTY_ANSWER = "empty answer"
SAME_ANSWERS = "chosen equal to rejected"
PROMPTS_DIFFER = "chosen and rejected answer different prompts"
ANSWERS_DIFFER = "answers to different prompts"
NO_ANSWER_TURN = "no assistant turn at the end"
PROMPT_NOT_OPEN = "prompt ends with an assistant turn"
TIE = "tie between the scored answers"
TOO_FEW_SCORED = "fewer than two scored answers"
SAME_LISTED = "fewer than two different answers"
NEITHER = "neither answer is preferred (p is 0.5)"
BAD_LABEL = "label is neither true nor false"
NO_LABEL = "no label (label is empty)"
BAD_P = "p is not a number in [0, 1]"
NO_P = "no preference (p is empty)"
BROKEN_TEXT = "broken characters (half of a surrogate pair)"

SHOWN_ROWS = 5
"""How many row numbers a message or a report lists for one fault."""


class RowFault(Exception):
    """One row cannot be used. Never leaves this room: it is counted, or becomes a DataError.

    ``prompt`` is set where the row's prompt is sound and only its answers are not.
    """

    def __init__(self, kind: str, prompt: Text | None = None) -> None:
        super().__init__(kind)
        self.kind = kind
        self.prompt = prompt


class ShapeFault(Exception):
    """A value has a type that no row of the form may have. Never leaves this room: it becomes a DataError."""


@dataclass(frozen=True, slots=True)
class FaultCount:
    """How often one fault occurs, and in which rows first (numbers counted from 1)."""

    total: int
    first_rows: tuple[int, ...]

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.first_rows))
        more = self.total - len(self.first_rows)
        return f"row{'s' if self.total > 1 else ''} {rows}" + (f" and {more} more" if more else "")


@dataclass(slots=True)
class Tally:
    """Faulty rows as they are met."""

    totals: dict[str, int] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)

    def add(self, kind: str, index: int) -> None:
        """Count the row of 0-based ``index``."""
        self.totals[kind] = self.totals.get(kind, 0) + 1
        first = self.rows.setdefault(kind, [])
        if len(first) < SHOWN_ROWS:
            first.append(index + 1)

    def counts(self) -> dict[str, FaultCount]:
        """The counts, most frequent first."""
        order = sorted(self.totals, key=lambda kind: (-self.totals[kind], kind))
        return {kind: FaultCount(self.totals[kind], tuple(self.rows[kind])) for kind in order}


def refuse_if_too_many(
    title: str,
    rows: int,
    usable: int,
    faults: Mapping[str, FaultCount],
    allowed: float,
    passed_over: Mapping[str, int] | None = None,
) -> None:
    """Refuse a data set of which no row, or too small a share, can be used.

    Args:
        title: names the data set in the message.
        rows, usable: rows read, and rows that give at least one example.
        faults: what was wrong with the others.
        allowed: largest share of faulty rows that is accepted, in [0, 1].
        passed_over: rows that are sound but hold nothing of what is needed, by what they hold.

    Raises:
        DataError: naming each fault and the rows that have it.
    """
    passed_over = passed_over or {}
    faulty = rows - usable - sum(passed_over.values())
    if usable and faulty <= allowed * rows:
        return
    reasons = "; ".join(f"{kind} in {count}" for kind, count in faults.items())
    if not usable:
        others = "; ".join(f"{count:,} {kind}" for kind, count in passed_over.items())
        raise DataError(
            f"{title}: none of the {rows} rows can be used: {'; '.join(filter(None, (reasons, others)))}. Correct the "
            'rows, or map the columns that are meant, for example columns={"prompt": "question"}.'
        )
    raise DataError(
        f"{title}: {faulty} of {rows} rows ({faulty / rows:.1%}) cannot be used, more than the {allowed:.0%} "
        f"allowed: {reasons}. Correct or remove those rows, or raise max_faulty."
    )
