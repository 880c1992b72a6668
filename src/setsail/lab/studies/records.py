"""What a study says, as plain data: tables, figures, and claims with the numbers they rest on.

Nothing here draws, prints or computes; :mod:`setsail.lab.studies.recorded` writes these records as JSON and
:mod:`setsail.lab.studies.picture` draws the figures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Cell = str | float | None
Relation = Literal["=", "<=", ">="]
Style = Literal["line", "dashed", "points", "line+points", "bars"]
Scale = Literal["linear", "log", "sqrt"]
Legend = Literal["inside", "below", "right", "none"]

NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


def check_name(what: str, name: str) -> None:
    """Refuse a name that cannot stand in a file name or a page.

    Raises:
        ValueError: it is not made of lower-case words with hyphens between them.
    """
    if not NAME.fullmatch(name):
        raise ValueError(f"{what} needs a name of lower-case words with hyphens between them, got {name!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One sentence, and the number that it stands or falls with.

    Attributes:
        sentence: what is claimed, with the unit of the number.
        measured: what the study found.
        expected: the published or derived number.
        tolerance: how far ``measured`` may be from it (``=``), or beyond it (``<=``, ``>=``).
        relation: whether the number is to be met, or is a bound.

    >>> Claim(sentence="a fair coin", measured=0.502, expected=0.5, tolerance=0.01).reproduced
    True
    >>> Claim(sentence="below the bound", measured=0.3, relation="<=", expected=0.2).reproduced
    False
    """

    sentence: str
    measured: float
    expected: float
    tolerance: float = 0.0
    relation: Relation = "="

    def __post_init__(self) -> None:
        if not (self.tolerance >= 0 and math.isfinite(self.expected)):
            raise ValueError(
                f"claim {self.sentence!r}: expected must be finite and tolerance >= 0, got {self.expected} and "
                f"{self.tolerance}"
            )

    @property
    def reproduced(self) -> bool:
        """Whether the measured number is what was claimed; never for one that is not finite."""
        if not math.isfinite(self.measured):
            return False
        beyond = self.measured - self.expected
        return {
            "=": abs(beyond) <= self.tolerance,
            "<=": beyond <= self.tolerance,
            ">=": beyond >= -self.tolerance,
        }[self.relation]

    @property
    def expectation(self) -> str:
        """The expected number in words.

        >>> Claim(sentence="", measured=1, expected=2.5, tolerance=0.1).expectation
        '2.5 ± 0.1'
        >>> Claim(sentence="", measured=1, expected=2.5, relation=">=").expectation
        'at least 2.5'
        """
        words, sign = {"=": ("", "±"), "<=": ("at most ", "+"), ">=": ("at least ", "-")}[self.relation]
        slack = f" {sign} {self.tolerance:.2g}" if self.tolerance else ""
        return f"{words}{self.expected:.6g}{slack}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Named columns and rows of cells.

    Attributes:
        name: lower-case words with hyphens; a page shows the table by it.
        title: what the rows are.
        columns: heading (with its unit) to format: ``""`` for text, a format specification for numbers (``".4f"``,
            ``".2e"``, ``"d"``).
        rows: one cell a column; None is an empty cell, and text may stand in a column of numbers.

    >>> Table(name="t", title="", columns={"policy": "", "KL, nats": ".2f"}, rows=[("start", -1e-9)]).formatted()
    [('start', '0.00')]
    """

    name: str
    title: str
    columns: Mapping[str, str]
    rows: Sequence[Sequence[Cell]]

    def __post_init__(self) -> None:
        check_name("a table", self.name)
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"table {self.name!r} has the columns {', '.join(self.columns)}, so a row needs "
                    f"{len(self.columns)} cells, got {tuple(row)}"
                )
        self.formatted()

    def formatted(self) -> list[tuple[str, ...]]:
        """Every cell as text."""
        return [
            tuple(_text(cell, form) for cell, form in zip(row, self.columns.values(), strict=True)) for row in self.rows
        ]

    def column(self, heading: str) -> list[Cell]:
        """The cells below one heading."""
        index = list(self.columns).index(heading)
        return [row[index] for row in self.rows]


def _text(cell: Cell, form: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or ""
    if not form:
        return f"{cell:g}"
    text = format(int(cell) if form.endswith("d") else cell, form)
    # Rounding leaves a sign on some zeros.
    return text[1:] if text.startswith("-") and not text.strip("-0.") else text


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """One series of a panel.

    Attributes:
        label: its entry in the legend; "" for none.
        x, y: as many numbers each; a y of None is a gap.
        error: half-length of each point's bar, such as one standard error; None = no bars.
        style: how it is drawn; ``bars`` stand side by side at each x, which then counts 0, 1, 2, ...
        color: place in the palette, to give curves of two panels the same color; None = the next one.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    error: Sequence[float] | None = None
    style: Style = "line"
    color: int | None = None

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (self.error is not None and len(self.error) != len(self.y)):
            raise ValueError(
                f"curve {self.label!r} needs as many y (and errors) as x, got {len(self.x)} x and {len(self.y)} y"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One pair of axes.

    Attributes:
        x_label, y_label: quantity and unit.
        curves: what is drawn.
        title: above the panel; "" where the figure's title says it all.
        x_scale, y_scale: spacing of the axis; ``sqrt`` suits a KL.
        ticks: names at x = 0, 1, 2, ... in place of numbers.
        legend: where it stands.
        equal: one unit of x is as long as one of y (maps, triangles).
        x_range, y_range: ends of the axis; None = what the curves need.
    """

    x_label: str
    y_label: str
    curves: Sequence[Curve]
    title: str = ""
    x_scale: Scale = "linear"
    y_scale: Scale = "linear"
    ticks: Sequence[str] = ()
    legend: Legend = "below"
    equal: bool = False
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if not self.curves:
            raise ValueError(f"panel {self.title or self.y_label!r} has no curves")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One picture: panels side by side, at most three."""

    name: str
    title: str
    panels: Sequence[Panel]

    def __post_init__(self) -> None:
        check_name("a figure", self.name)
        if not 1 <= len(self.panels) <= 3:
            raise ValueError(f"figure {self.name!r} needs one to three panels, got {len(self.panels)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What a study found.

    Attributes:
        tables: at least one; the first is what the terminal shows.
        figures: none or some.
        claims: at least one.
        seconds: CPU time that it took; 0 until it is run by :func:`setsail.lab.studies.run`.
    """

    tables: Sequence[Table]
    claims: Sequence[Claim]
    figures: Sequence[Figure] = ()
    seconds: float = 0.0

    def __post_init__(self) -> None:
        for what, parts in (("table", self.tables), ("figure", self.figures)):
            names = [part.name for part in parts]
            if len(set(names)) != len(names):
                raise ValueError(f"two {what}s of a study share a name among {names}")
        if not self.tables or not self.claims:
            raise ValueError("a study needs at least one table and one claim")

    @property
    def reproduced(self) -> int:
        """How many of the claims are."""
        return sum(claim.reproduced for claim in self.claims)

    def table(self, name: str) -> Table:
        """The table called ``name``."""
        return next(table for table in self.tables if table.name == name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """A question that the lab answers, with the result that it reproduces.

    Attributes:
        name: what the command takes: lower-case words with hyphens.
        question: one line, a question.
        result: the published or derived result that is reproduced, one line.
        source: ``arXiv 2406.15567, gradient of the upper-level objective``, or several of that form.
        seconds: about the CPU time it takes.
        find: a pure function: no arguments, no files, no clock, its randomness from :func:`setsail.core.stream`; the
            same findings each time, to the last bit on one machine.
    """

    name: str
    question: str
    result: str
    source: str
    seconds: float
    find: Callable[[], StudyResult] = field(repr=False)

    def __post_init__(self) -> None:
        check_name("a study", self.name)
        if not self.question.endswith("?") or "arXiv " not in self.source:
            raise ValueError(
                f"study {self.name!r}: its question must end with a question mark and its source must name a paper as "
                f"'arXiv 2406.15567', got {self.question!r} and {self.source!r}"
            )
