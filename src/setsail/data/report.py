"""What the check of a data set found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from setsail.data.examples import Example, canonical, plain_text
from setsail.data.faults import FaultCount

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths in characters."""

    median: float
    p95: float
    longest: int

    def __str__(self) -> str:
        return f"median {self.median:,.0f}, 95 % below {self.p95:,.0f}, longest {self.longest:,}"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was read, what was left out and why, and what the usable part looks like.

    Attributes:
        name: the data set, as messages name it.
        form: the form that was recognized.
        rows: rows read; ``usable`` of them give at least one example.
        examples: examples they give; ``pairs`` of these have both answers.
        faults: fault -> how many rows have it, and which first (counted from 1). The rows are left out; where
            ``needs_pairs=False``, a row whose answers alone are at fault stays, as a prompt.
        prompts: distinct prompts.
        duplicates: examples that repeat an earlier one, word for word.
        longer_chosen: share of the pairs whose chosen answer has more characters than the rejected one.
        prompt_chars, chosen_chars, rejected_chars: lengths in characters; None where there is none.
        columns: columns kept on the examples.
        notes: whatever else a reader should know.
    """

    name: str
    form: str
    rows: int
    usable: int
    examples: int
    pairs: int
    faults: Mapping[str, FaultCount]
    prompts: int
    duplicates: int
    longer_chosen: float | None
    prompt_chars: Lengths | None
    chosen_chars: Lengths | None
    rejected_chars: Lengths | None
    columns: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """The report as ``(what, value)``, in reading order."""
        unused = self.rows - self.usable
        lines = [
            ("form", self.form),
            ("rows", f"{self.rows:,}"),
            ("usable", f"{self.usable:,}" + (f" ({unused:,} left out)" if unused else "")),
            *((f"  {kind}", f"{count.total:,}: {count}") for kind, count in self.faults.items()),
            ("examples", f"{self.examples:,}, {self.pairs:,} with a pair"),
            ("distinct prompts", f"{self.prompts:,}"),
            ("duplicate examples", f"{self.duplicates:,}"),
        ]
        lengths = {"prompt": self.prompt_chars, "chosen": self.chosen_chars, "rejected": self.rejected_chars}
        lines += [(f"{part} characters", str(value)) for part, value in lengths.items() if value is not None]
        if self.longer_chosen is not None:
            lines.append(("chosen is the longer", f"{self.longer_chosen:.1%} of the pairs"))
        lines.append(("columns kept", ", ".join(self.columns) or "none"))
        return lines + [("note", note) for note in self.notes]

    def __str__(self) -> str:
        return "\n".join([self.name, *(f"{what:<24}{value}" for what, value in self.lines())])

    def __rich__(self) -> Table:
        from rich.table import Table
        from rich.text import Text

        table = Table(title=Text(self.name), show_header=False)
        for what, value in self.lines():
            table.add_row(Text(what), Text(value))
        return table


def describe(
    examples: Sequence[Example],
    *,
    name: str,
    form: str,
    rows: int,
    faults: Mapping[str, FaultCount],
    notes: tuple[str, ...] = (),
) -> CheckReport:
    """The report of a set of examples.

    >>> report = describe([Example(row_id=0, source_row=0, prompt="1+1?", chosen="It is 2.", rejected="3")],
    ...                   name="sums", form="explicit prompt", rows=1, faults={})
    >>> report.prompts, report.longer_chosen, report.chosen_chars.median
    (1, 1.0, 8.0)
    """
    pairs = [example for example in examples if example.has_pair]
    chosen = [len(plain_text(example.chosen or "")) for example in pairs]
    rejected = [len(plain_text(example.rejected or "")) for example in pairs]
    longer = [first > second for first, second in zip(chosen, rejected, strict=True)]
    contents = {
        (canonical(example.prompt), canonical(example.chosen), canonical(example.rejected)) for example in examples
    }
    return CheckReport(
        name=name,
        form=form,
        rows=rows,
        usable=len({example.source_row for example in examples}),
        examples=len(examples),
        pairs=len(pairs),
        faults=dict(faults),
        prompts=len({prompt for prompt, _, _ in contents}),
        duplicates=len(examples) - len(contents),
        longer_chosen=sum(longer) / len(longer) if longer else None,
        prompt_chars=_lengths([len(plain_text(example.prompt)) for example in examples]),
        chosen_chars=_lengths(chosen),
        rejected_chars=_lengths(rejected),
        columns=tuple(dict.fromkeys(column for example in examples for column in example.columns)),
        notes=notes,
    )


def _lengths(values: Sequence[int]) -> Lengths | None:
    if not values:
        return None
    return Lengths(float(np.median(values)), float(np.percentile(values, 95)), max(values))
