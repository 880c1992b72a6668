"""What the check of a data set found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
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
class ListCounts:
    """What lists of scored answers look like.

    Attributes:
        fewest, median, most: answers a list.
        lowest, highest: scores, over all lists.
        tied: lists in which two answers have the same score.
    """

    fewest: int
    median: float
    most: int
    lowest: float
    highest: float
    tied: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelCounts:
    """How many single answers are desirable and how many are not.

    Attributes:
        contradicted: distinct answers that are marked both ways for the same prompt.
    """

    desirable: int
    undesirable: int
    contradicted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckReport:
    """What was read, what was left out and why, and what the usable part looks like.

    Attributes:
        name: the data set, as messages name it.
        form: the form that was recognized.
        needs: what an example is: a pair, a list, a single answer, a demonstration or a prompt.
        rows: rows read; ``usable`` of them give at least one example.
        examples: examples they give; ``pairs`` of these have both answers.
        faults: fault -> how many rows have it, and which first (counted from 1). The rows are left out; where
            prompts alone are needed, a row whose answers alone are at fault stays, as a prompt.
        passed_over: rows that are sound but give nothing of what is needed, by why; no faults.
        prompts: distinct prompts.
        duplicates: examples that repeat an earlier one, word for word.
        longer_chosen: share of the pairs whose chosen answer has more characters than the rejected one.
        prompt_chars, chosen_chars, rejected_chars, answer_chars: lengths in characters, the last of the answers of
            lists and of single answers; None where there is none.
        lists: answers and scores of the lists; None where there is none.
        labels: labels of the single answers; None where there is none.
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
    needs: str = "pairs"
    passed_over: Mapping[str, int] = field(default_factory=dict)
    answer_chars: Lengths | None = None
    lists: ListCounts | None = None
    labels: LabelCounts | None = None

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values, for JSON."""
        return asdict(self)

    def lines(self) -> list[tuple[str, str]]:
        """The report as ``(what, value)``, in reading order."""
        unused = self.rows - self.usable
        lines = [
            ("form", self.form),
            ("read as", self.needs),
            ("rows", f"{self.rows:,}"),
            ("usable", f"{self.usable:,}" + (f" ({unused:,} left out)" if unused else "")),
            *((f"  {kind}", f"{count.total:,}: {count}") for kind, count in self.faults.items()),
            ("examples", f"{self.examples:,}" + (f", {self.pairs:,} with a pair" if self._may_have_pairs else "")),
            *self._list_lines(),
            ("distinct prompts", f"{self.prompts:,}"),
            ("duplicate examples", f"{self.duplicates:,}"),
        ]
        lengths = {
            "prompt": self.prompt_chars, "chosen": self.chosen_chars, "rejected": self.rejected_chars,
            "answer": self.answer_chars,
        }  # fmt: skip
        lines += [(f"{part} characters", str(value)) for part, value in lengths.items() if value is not None]
        if self.longer_chosen is not None:
            lines.append(("chosen is the longer", f"{self.longer_chosen:.1%} of the pairs"))
        lines.append(("columns kept", ", ".join(self.columns) or "none"))
        return lines + [("note", note) for note in self.notes]

    @property
    def _may_have_pairs(self) -> bool:
        return bool(self.pairs) or self.needs in ("pairs", "prompts")

    def _list_lines(self) -> list[tuple[str, str]]:
        lines = []
        if (lists := self.lists) is not None:
            several = f"{lists.fewest} to {lists.most}, median {lists.median:g}"
            lines.append(("answers a row", f"{lists.most}" if lists.fewest == lists.most else several))
            lines.append(("scores", f"{lists.lowest:g} to {lists.highest:g}"))
            lines.append(("rows with tied scores", f"{lists.tied:,}"))
        if (labels := self.labels) is not None:
            share = labels.desirable / (labels.desirable + labels.undesirable)
            balance = f"{labels.desirable:,} desirable ({share:.1%}), {labels.undesirable:,} undesirable"
            lines.append(("labels", balance))
            lines.append(("marked both ways", f"{labels.contradicted:,}"))
        return lines

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
    needs: str = "pairs",
    passed_over: Mapping[str, int] | None = None,
) -> CheckReport:
    """The report of a set of examples.

    >>> report = describe([Example(row_id=0, source_row=0, prompt="1+1?", chosen="It is 2.", rejected="3")],
    ...                   name="sums", form="explicit prompt", rows=1, faults={})
    >>> report.prompts, report.longer_chosen, report.chosen_chars.median
    (1, 1.0, 8.0)
    """
    pairs = [example for example in examples if example.has_pair]
    chosen = [len(plain_text(example.chosen)) for example in examples if example.chosen is not None]
    rejected = [len(plain_text(example.rejected)) for example in examples if example.rejected is not None]
    longer = [len(plain_text(one.chosen or "")) > len(plain_text(one.rejected or "")) for one in pairs]
    contents = {
        (*map(canonical, (one.prompt, one.chosen, one.rejected, *one.answers)), *one.scores) for one in examples
    }
    return CheckReport(
        name=name,
        form=form,
        needs=needs,
        rows=rows,
        usable=len({example.source_row for example in examples}),
        examples=len(examples),
        pairs=len(pairs),
        faults=dict(faults),
        passed_over=dict(passed_over or {}),
        prompts=len({content[0] for content in contents}),
        duplicates=len(examples) - len(contents),
        longer_chosen=sum(longer) / len(longer) if longer else None,
        prompt_chars=_lengths([len(plain_text(example.prompt)) for example in examples]),
        chosen_chars=_lengths(chosen),
        rejected_chars=_lengths(rejected),
        answer_chars=_lengths([len(plain_text(answer)) for example in examples for answer in example.answers]),
        lists=_list_counts([example.scores for example in examples if len(example.answers) > 1]),
        labels=_label_counts([example for example in examples if len(example.answers) == 1]),
        columns=tuple(dict.fromkeys(column for example in examples for column in example.columns)),
        notes=notes,
    )


def _list_counts(scores: Sequence[Sequence[float]]) -> ListCounts | None:
    if not scores:
        return None
    sizes = [len(row) for row in scores]
    return ListCounts(
        fewest=min(sizes),
        median=float(np.median(sizes)),
        most=max(sizes),
        lowest=min(map(min, scores)),
        highest=max(map(max, scores)),
        tied=sum(len(set(row)) < len(row) for row in scores),
    )


def _label_counts(singles: Sequence[Example]) -> LabelCounts | None:
    if not singles:
        return None
    marks: dict[tuple[str, str], set[float]] = {}
    for single in singles:
        key = canonical(single.prompt), canonical(single.answers[0])
        marks.setdefault(key, set()).add(single.scores[0])
    desirable = sum(single.scores[0] > 0 for single in singles)
    return LabelCounts(
        desirable=desirable,
        undesirable=len(singles) - desirable,
        contradicted=sum(len(both) > 1 for both in marks.values()),
    )


def _lengths(values: Sequence[int]) -> Lengths | None:
    if not values:
        return None
    return Lengths(float(np.median(values)), float(np.percentile(values, 95)), max(values))
