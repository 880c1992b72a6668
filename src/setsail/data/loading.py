"""Reading a data set: find the rows, recognize the form, check every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError, DataError
from setsail.data.columns import check_mapped, check_mapping, renamed, union
from setsail.data.examples import Example, Text, plain_text
from setsail.data.faults import BROKEN_TEXT, RowFault, ShapeFault, Tally, refuse_if_too_many
from setsail.data.forms import Form, recognize
from setsail.data.needs import Need, check_holds, resolve_need
from setsail.data.preferences import PreferenceSet
from setsail.data.readings import Reading
from setsail.data.refusals import EXPECTED
from setsail.data.report import CheckReport, describe
from setsail.data.scored import pairing
from setsail.data.sources import read_rows

if TYPE_CHECKING:
    from setsail.data.sources import Source


def load_preferences(
    source: Source | PreferenceSet,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    needs: str | None = None,
    needs_pairs: bool | None = None,
    pairs: str = "best-worst",
    limit: int | None = None,
    max_faulty: float = 0.2,
    strict: bool = False,
    where: str = "dataset",
) -> PreferenceSet:
    """Read and check a data set.

    Args:
        source: a JSON-lines, JSON, CSV or Parquet file (the text ones also as .gz), a directory of such files or
            one written by ``Dataset.save_to_disk``, a hub id ``owner/name``, a ``datasets`` object, or a list of
            dicts. A :class:`PreferenceSet` is returned as it is, if it holds what ``needs`` names.
        split: which split; "train" where there are several and none is named.
        columns: part -> column, for data with other names: ``{"prompt": "question", "chosen": "good"}``.
        needs: what the method learns from, and so what an example is: "pairs" (the default); "lists", a prompt with two
            or more scored answers; "singles", a prompt with one answer marked as desirable or not;
            "demonstrations", a prompt with one good answer; or "prompts", which accepts prompts alone, reads pairs
            where they are there, and keeps the prompt of a row whose answers cannot be used.
        needs_pairs: another way of saying needs="pairs" (True) or needs="prompts" (False).
        pairs: which pairs several scored answers give: "best-worst" (one a prompt) or "all".
        limit: read at most this many rows from the start; a streamed data set needs it.
        max_faulty: largest share of rows that may be left out as faulty, in [0, 1].
        strict: refuse at the first faulty row instead of counting it.
        where: what the data set is to the user ("train_dataset", say); messages begin with it.

    Raises:
        DataError: the data cannot be read, have no usable form, or too many rows are faulty. The message names
            rows (counted from 1), the columns found and the expected shape.
        ConfigError: an option that cannot be used.

    >>> data = load_preferences([{"question": "1+1?", "good": "2", "bad": "3", "level": 1}],
    ...                         columns={"prompt": "question", "chosen": "good", "rejected": "bad"})
    >>> data[0].prompt, data[0].chosen, dict(data[0].columns)
    ('1+1?', '2', {'level': 1})
    >>> rivers = [{"prompt": "A river?", "responses": ["Loire", "Paris", "Rhine"], "scores": [9, 2, 9]}]
    >>> load_preferences(rivers, needs="lists")[0].scores
    (9.0, 2.0, 9.0)
    >>> [(one.answers, one.scores) for one in load_preferences(rivers, needs="singles")]
    [(('Loire',), (1.0,)), (('Paris',), (-1.0,)), (('Rhine',), (1.0,))]
    """
    need = resolve_need(needs, needs_pairs)
    if isinstance(source, PreferenceSet):
        if needs is not None or needs_pairs is not None:
            check_holds(source.name, source, need, source.report.needs)
        return source
    loaded = _load(source, split, columns or {}, _Options(need, pairs, limit, max_faulty, strict, where))
    report = loaded.report
    refuse_if_too_many(report.name, report.rows, report.usable, report.faults, max_faulty, report.passed_over)
    return loaded


def check_preferences(
    source: Source,
    *,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    needs: str | None = None,
    needs_pairs: bool | None = None,
    pairs: str = "best-worst",
    limit: int | None = None,
    where: str = "dataset",
) -> CheckReport:
    """What :func:`load_preferences` would find, without a verdict on how many rows are faulty.

    The arguments are those of :func:`load_preferences`.

    Raises:
        DataError: the data cannot be read or have no usable form.

    >>> print(check_preferences([{"prompt": "1+1?", "chosen": "2", "rejected": "2"}]).faults)
    {'chosen equal to rejected': FaultCount(total=1, first_rows=(1,))}
    """
    need = resolve_need(needs, needs_pairs)
    return _load(source, split, columns or {}, _Options(need, pairs, limit, 1.0, False, where)).report


@dataclass(frozen=True, slots=True)
class _Options:
    need: Need
    pairs: str
    limit: int | None
    max_faulty: float
    strict: bool
    where: str

    def __post_init__(self) -> None:
        pairing(self.pairs)
        if not 0 <= self.max_faulty <= 1:
            raise ConfigError(f"max_faulty={self.max_faulty!r} is a share of the rows: it must lie in [0, 1].")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit={self.limit!r} must be at least 1 row, or None for all.")


def _load(source: Source, split: str | None, columns: Mapping[str, str], options: _Options) -> PreferenceSet:
    check_mapping(columns, options.where)
    title, rows = read_rows(source, split=split, limit=options.limit, where=options.where)
    if not rows:
        raise DataError(f"{title}: empty, there are no rows to train on. {EXPECTED[options.need]}, one a row.")
    check_mapped(columns, union(rows), title)
    if columns:
        rows = [renamed(row, columns) for row in rows]
    form = recognize(union(rows), rows, options.need, options.pairs, title)
    reader = _RowReader(form, options, title)
    for index, row in enumerate(rows):
        reader.add(index, row)
    report = describe(
        reader.examples,
        name=title,
        form=form.name,
        needs=options.need,
        rows=len(rows),
        faults=reader.tally.counts(),
        passed_over=reader.passed_over,
        notes=reader.notes(),
    )
    return PreferenceSet(reader.examples, report)


@dataclass(slots=True)
class _RowReader:
    """Turns rows into examples and counts the faulty ones."""

    form: Form
    options: _Options
    title: str
    examples: list[Example] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    remarks: Counter[str] = field(default_factory=Counter)
    passed_over: Counter[str] = field(default_factory=Counter)

    def add(self, index: int, row: Mapping[str, Any]) -> None:
        try:
            reading = self.form.read(row)
            _check_characters(reading)
        except ShapeFault as fault:
            raise DataError(f"{self.title}: row {index + 1}: {fault}. Columns found: {', '.join(row)}.") from None
        except RowFault as fault:
            self._count(index, row, fault)
        else:
            self._keep(index, row, reading)

    def _count(self, index: int, row: Mapping[str, Any], fault: RowFault) -> None:
        if self.options.strict:
            raise DataError(f"{self.title}: row {index + 1} cannot be used: {fault.kind}. Correct or remove it.")
        self.tally.add(fault.kind, index)
        if fault.prompt is not None and self.options.need == "prompts":
            self._keep(index, row, Reading(fault.prompt))

    def _keep(self, index: int, row: Mapping[str, Any], reading: Reading) -> None:
        given = reading.given
        if given.is_passed_over:
            self.passed_over.update(given.remarks)
            return
        kept = {name: value for name, value in row.items() if name not in self.form.uses}
        kept.update(reading.keep)
        for content in given.contents:
            example = Example(
                row_id=len(self.examples) if self.form.several else index,
                source_row=index,
                prompt=reading.prompt,
                chosen=content.chosen,
                rejected=content.rejected,
                p=content.p,
                answers=content.answers,
                scores=content.scores,
                columns=kept,
            )
            self.examples.append(example)
        self.remarks.update(given.remarks)

    def notes(self) -> tuple[str, ...]:
        notes = [f"{count:,} {kind}" for kind, count in (self.passed_over + self.remarks).items()]
        repeated = sum(_repeats_prompt(example) for example in self.examples)
        if repeated > len(self.examples) / 2:
            answers = "both answers begin" if self.examples[0].has_pair else "the answer begins"
            answers = "every answer begins" if self.options.need == "lists" else answers
            notes.append(
                f"in {repeated:,} examples {answers} with the whole prompt: if they repeat it, remove it "
                "from the answers, since it would be trained on as part of them"
            )
        return tuple(notes)


def _check_characters(reading: Reading) -> None:
    """A JSON escape can write half a surrogate pair, which no tokenizer can encode."""
    texts: Sequence[Text] = [reading.prompt, *(text for content in reading.given.contents for text in content.texts)]
    try:
        for text in texts:
            plain_text(text).encode()
    except UnicodeEncodeError:
        raise RowFault(BROKEN_TEXT) from None


def _repeats_prompt(example: Example) -> bool:
    prompt, answers = example.prompt, [text for text in example.texts if text is not None]
    return (
        isinstance(prompt, str)
        and bool(answers)
        and all(isinstance(text, str) and text.startswith(prompt) for text in answers)
    )
