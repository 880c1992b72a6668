"""``setsail methods``: one line a method, one method in full, or where a name of TRL's leads."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from setsail.cli.parsing import Parser, parse

if TYPE_CHECKING:
    from rich.console import Console

    from setsail.methods import Method
    from setsail.methods.migrating import Migration

GAP = 2
ROUTES = 40
"""Columns for a mixture; longer ones are given by the names of their routes."""
OBJECTIVE = 20
"""Columns that an objective may be cut to, where the terminal is narrow."""
SYMBOLS: Mapping[str, str] = {
    "F": "F = log sigmoid(u)",
    "H": "H the entropy",
    "u": "u = beta d",
    "d": "d the difference of the two answers' log-ratios",
    "h": "h an answer's log-ratio to the reference",
    "P": "P the labeler's preference",
}
"""What the letters of an equation stand for; ``F`` and ``u`` bring the letters that they are made of."""
MADE_OF: Mapping[str, str] = {"F": "ud", "u": "d"}


def run(arguments: Sequence[str]) -> int:
    """Print the list, one method, or what a name of TRL's is called here."""
    from rich.console import Console

    from setsail import methods
    from setsail.methods.migrating import from_trl

    parser = Parser(prog="setsail methods", description="List the methods, or describe one.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("name", nargs="?", help="a method")
    which.add_argument("--from-trl", metavar="NAME", help="a loss type, trainer or argument of TRL's: the method here")
    given = parse(parser, arguments)
    console = Console(highlight=False)
    if given.from_trl is not None:
        _migrate(console, from_trl(given.from_trl))
    elif given.name is None:
        _list(console, [methods.get(name) for name in methods.names()])
    else:
        _describe(console, methods.get(given.name))
    return 0


# The list.


def _list(console: Console, every: Sequence[Method]) -> None:
    from rich.text import Text

    # Written to a file or a pipe, lines are as long as they are.
    width = console.width if console.is_terminal or "COLUMNS" in os.environ else 10**6
    rows = columns(every, width)
    for number, row in enumerate(rows):
        line = Text((" " * GAP).join(row).rstrip(), style="dim" if number == 0 else "")
        if number:
            line.stylize("cyan", 0, len(row[0].rstrip()))
        console.print(line, soft_wrap=True)
    console.print("\n[dim]`setsail methods NAME` describes one; docs/methods has a page of each[/dim]", soft_wrap=True)


def columns(every: Sequence[Method], width: int) -> list[list[str]]:
    """Header and a row a method, in as many columns as fit, padded."""
    from setsail.cli import wording

    head = ["method", "answers [labels]", "objective", "reference; opponent", "arXiv", "summary"]
    rows = [
        [
            each.name,
            wording.short_routes(each, ROUTES),
            wording.short_objective(each),
            wording.short_rule(each),
            each.paper.removeprefix("arXiv "),
            each.summary,
        ]
        for each in every
    ]
    wide = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    # An objective is cut where that makes room for one more column.
    shown, rest = next(
        (n, width - _total(wide[:n]) + wide[2])
        for n in range(len(head), 2, -1)
        if n == 3 or width - _total(wide[:n]) + wide[2] >= min(wide[2], OBJECTIVE)
    )
    wide[2] = max(1, min(wide[2], rest))
    return [[_fit(cell, size) for cell, size in zip(row[:shown], wide, strict=False)] for row in (head, *rows)]


def _total(sizes: Sequence[int]) -> int:
    return sum(sizes) + GAP * (len(sizes) - 1)


def _fit(cell: str, size: int) -> str:
    return cell.ljust(size) if len(cell) <= size else cell[: size - 1] + "…"


# One method.


def _describe(console: Console, method: Method) -> None:
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    title = Text.assemble((method.name, "bold cyan"), "  ", method.summary)
    facts = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    facts.add_column(style="cyan", no_wrap=True)
    facts.add_column(overflow="fold")
    every = described(method)
    room = console.width - max(len(name) for name, _ in every) - 2 * GAP - 2
    every = [(name, _packed(lines, room) if name == "defaults" else lines) for name, lines in every]
    for name, lines in every:
        for number, line in enumerate(lines):
            facts.add_row("" if number else name, Text(line))
    console.print()
    console.print(title)
    console.print()
    console.print(Padding(facts, (0, 0, 0, 2)))
    if method.deviations:
        console.print("\n  [cyan]deviations[/cyan] from the paper or its published code")
        for deviation in method.deviations:
            points = Table.grid(padding=(0, 1, 0, 0))
            points.add_row("-", Text(deviation))
            console.print(Padding(points, (0, 0, 0, 2)))
    console.print()


def _migrate(console: Console, migration: Migration) -> None:
    from rich.text import Text

    console.print(Text.assemble((migration.name, "bold cyan"), f"  {migration.kind} of TRL"), soft_wrap=True)
    for name, line in migrated(migration):
        # Not wrapped: a flag that is broken over two lines cannot be copied.
        console.print(Text.assemble("  ", (name.ljust(8), "cyan"), line), soft_wrap=True)


def migrated(migration: Migration) -> list[tuple[str, str]]:
    """What is said of a name of TRL's: method, flags, note."""
    flags = f"--method {migration.method} {migration.settings}".rstrip() if migration.method else ""
    said = [
        ("method", migration.method or "none"),
        ("flags", flags),
        ("note", migration.note),
        ("more", f"`setsail methods {migration.method}`" if migration.method else ""),
    ]
    return [(name, line) for name, line in said if line]


def described(method: Method) -> list[tuple[str, list[str]]]:
    """What is said of a method, in order: a name, and lines."""
    from setsail.cli import wording

    said: list[tuple[str, list[str | None]]] = [
        ("loss", [*method.equation.split("\n"), symbols(method.equation)]),
        ("source", [f"{method.paper}; docs/methods/{method.name}.md"]),
        ("objective", [*wording.loss_lines(method)]),
        ("routes", [*wording.route_lines(method)]),
        ("reference", [wording.reference(method)]),
        ("opponent", [None if method.opponent is None else wording.rule(method.opponent)]),
        ("update", [wording.UPDATES.get(method.update)]),
        ("rounds", [wording.rounds(method)]),
        ("data", [wording.data(method)]),
        ("labeler", [wording.judge(method)]),
        ("defaults", [*wording.settings(method)]),
    ]
    said += [(f"preset {name}", [preset_line(settings)]) for name, settings in method.presets.items()]
    said.append(("run it", [wording.command(method)]))
    kept = [(name, [line for line in lines if line is not None]) for name, lines in said]
    return [(name, lines) for name, lines in kept if lines]


def symbols(equation: str) -> str | None:
    """The letters of an equation, explained; None where it has none of them."""
    found = {letter for letter in SYMBOLS if re.search(rf"(?<![A-Za-z_]){letter}(?![A-Za-z])", equation)}
    found |= {part for letter in found for part in MADE_OF.get(letter, "")}
    return "; ".join(said for letter, said in SYMBOLS.items() if letter in found) or None


def _packed(flags: Sequence[str], room: int) -> list[str]:
    """Flags side by side, as many a line as fit, none of them broken."""
    lines: list[str] = []
    for flag in flags:
        if lines and len(lines[-1]) + GAP + len(flag) <= room:
            lines[-1] += " " * GAP + flag
        else:
            lines.append(flag)
    return lines


def preset_line(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """A preset's settings: ``weights dpr=0.3; corrections dpr=0.3``."""
    return "; ".join(
        f"{part} " + ", ".join(f"{k}={v}" if isinstance(v, str) else f"{k}={v:g}" for k, v in values.items())
        for part, values in settings.items()
    )
