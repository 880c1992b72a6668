"""``setsail lab``: list the studies, or run one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING

from setsail.cli.parsing import Parser, parse

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table as Shown

    from setsail.lab.studies import Study, StudyResult, Table

EVERY = "all"
WIDEST = 200


def _parser() -> Parser:
    parser = Parser(
        prog="setsail lab",
        description="Studies on enumerable policies: a question each, answered exactly, on a CPU, in seconds.",
    )
    parser.add_argument("study", nargs="?", help=f"a study, or `{EVERY}`; none = list them")
    parser.add_argument(
        "--out", default="setsail-lab", help="folder for the JSON and the figures (default: %(default)s)"
    )
    return parser


def run(arguments: Sequence[str]) -> int:
    """List the studies, run one, or run all."""
    given = parse(_parser(), arguments)

    import torch
    from rich.console import Console

    from setsail.lab import studies

    console = Console(highlight=False)
    if given.study is None:
        _list(console)
        return 0
    chosen = studies.names() if given.study == EVERY else (studies.get(given.study).name,)
    folder = _folder(given.out)
    # Tables of a few numbers: more threads only wait for each other.
    torch.set_num_threads(1)
    results = {}
    for name in chosen:
        study = studies.get(name)
        _announce(study, console)
        results[name] = studies.run(name)
        _show(results[name], console)
        _save(study, results[name], folder, console)
    if given.study == EVERY:
        _sum_up(results, console)
    return 0


def _folder(out: str) -> Path:
    from setsail.core import ConfigError

    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--out {out!r} cannot be made a folder: {error.strerror}; name one that can be written"
        ) from error
    return folder


def _list(console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table as Shown

    from setsail.lab import studies

    shown = Shown(box=None, padding=(0, 2, 1, 0), show_header=False)
    shown.add_column(no_wrap=True)
    shown.add_column(overflow="fold")
    shown.add_column(justify="right", no_wrap=True)
    for study in studies.STUDIES.values():
        what = f"{escape(study.question)}\n[dim]{escape(study.result)} ({study.source})[/dim]"
        shown.add_row(f"[cyan]{study.name}[/cyan]", what, f"{study.seconds:.0f} s")
    console.print(shown)
    console.print("[dim]setsail lab NAME runs one, setsail lab all runs them all; --out says where to.[/dim]")


def _announce(study: Study, console: Console) -> None:
    from rich.markup import escape

    console.print(f"\n[bold cyan]{study.name}[/bold cyan]  {escape(study.question)}")
    console.print(f"[dim]{escape(study.result)} ({study.source}); about {study.seconds:.0f} s[/dim]\n")


def _show(result: StudyResult, console: Console) -> None:
    from rich.console import Console
    from rich.markup import escape

    # Numbers are never cut: a table that is wider than the terminal wraps there.
    Console(highlight=False, width=max(console.width, WIDEST)).print(_numbers(result.tables[0]))
    for table in result.tables[1:]:
        console.print(f"[dim]also in the JSON: {escape(table.title)}[/dim]", soft_wrap=True)
    console.print(_verdicts(result))


def _numbers(table: Table) -> Shown:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as Shown

    shown = Shown(
        title=escape(table.title),
        title_justify="left",
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
    )
    rows = table.formatted()
    for index, (heading, form) in enumerate(table.columns.items()):
        width = max([_width(heading), *(len(row[index]) for row in rows)])
        shown.add_column(escape(heading), justify="right" if form else "left", width=width)
    for row in rows:
        shown.add_row(*map(escape, row))
    return shown


def _width(heading: str) -> int:
    """The smallest width at which a heading wraps between words to at most three lines; cells do not wrap."""
    longest = max(map(len, heading.split()))
    return next(width for width in range(longest, len(heading) + 1) if len(wrap(heading, width)) <= 3)


def _verdicts(result: StudyResult) -> Shown:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table as Shown

    shown = Shown(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("claim", "measured", "expected", ""):
        shown.add_column(heading, justify="right" if heading == "measured" else "left", no_wrap=heading != "claim")
    for claim in result.claims:
        verdict = "[green]reproduced[/green]" if claim.reproduced else "[bold red]not reproduced[/bold red]"
        shown.add_row(escape(claim.sentence), f"{claim.measured:.6g}", claim.expectation, verdict)
    return shown


def _save(study: Study, result: StudyResult, folder: Path, console: Console) -> None:
    from rich.markup import escape

    from setsail.core import ConfigError
    from setsail.lab import studies

    path = folder / f"{study.name}.json"
    path.write_text(studies.to_json(study, result), encoding="utf-8")
    console.print(f"\n  {result.seconds:.1f} s; numbers: [cyan]{escape(str(path))}[/cyan]", soft_wrap=True)
    for figure in result.figures:
        picture = folder / f"{study.name}-{figure.name}.png"
        try:
            studies.draw(figure, picture)
        except ConfigError as error:
            console.print(f"  [yellow]no figure: {escape(str(error))}[/yellow]", soft_wrap=True)
            return
        console.print(f"  figure: [cyan]{escape(str(picture))}[/cyan]", soft_wrap=True)


def _sum_up(results: dict[str, StudyResult], console: Console) -> None:
    claims = sum(len(result.claims) for result in results.values())
    reproduced = sum(result.reproduced for result in results.values())
    seconds = sum(result.seconds for result in results.values())
    console.print(
        f"\n{len(results)} studies in {seconds:.0f} s: [bold]{reproduced} of {claims} claims reproduced[/bold]"
    )
    for name, result in results.items():
        if result.reproduced < len(result.claims):
            console.print(f"  [red]{name}[/red]: {len(result.claims) - result.reproduced} not reproduced")
