"""``setsail methods``: one line a method, or one method in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from setsail.cli.parsing import Parser, parse

if TYPE_CHECKING:
    from rich.console import Console

    from setsail.methods import Method


def run(arguments: Sequence[str]) -> int:
    """Print the list, or one method."""
    from rich.console import Console

    from setsail import methods

    parser = Parser(prog="setsail methods", description="List the methods, or describe one.")
    parser.add_argument("name", nargs="?", help="a method")
    given = parse(parser, arguments)
    console = Console(highlight=False)
    if given.name is None:
        width = max(map(len, methods.names()))
        for name in methods.names():
            console.print(f"[cyan]{name:<{width}}[/cyan]  {methods.get(name).summary}", soft_wrap=True)
        return 0
    _describe(console, methods.get(given.name))
    return 0


def _describe(console: Console, method: Method) -> None:
    from rich.markup import escape
    from rich.table import Table

    console.print(f"\n[bold cyan]{method.name}[/bold cyan]  {method.summary}\n")
    facts = Table(box=None, show_header=False, padding=(0, 2))
    facts.add_row("loss", escape(method.equation))
    facts.add_row("paper", method.paper)
    facts.add_row("objective", f"{method.objective.__name__}({_arguments(method)})")
    facts.add_row("reference", str(method.reference))
    facts.add_row("needs a labeler", "yes" if method.needs_labeler else "no")
    facts.add_row("draws answers", "yes" if method.draws else "no")
    for addend in method.addends:
        facts.add_row("added term", f"{addend.name}, coefficient {addend.coefficient:g}")
    if method.staleness:
        facts.add_row("staleness", f"up to {method.staleness} optimizer steps")
    for name, settings in method.presets.items():
        shown = "; ".join(
            f"{part} " + ", ".join(f"{k}={v:g}" for k, v in values.items()) for part, values in settings.items()
        )
        facts.add_row(f"preset {name}", shown)
    console.print(facts)
    if method.routes:
        console.print()
        console.print(_routes(method))
    if method.deviations:
        console.print("\n  Deviations from the paper or its published code:")
        for deviation in method.deviations:
            console.print(f"  - {escape(deviation)}", soft_wrap=True)
    console.print(f"\n  [dim]setsail train --method {method.name} --help; docs/methods/{method.name}.md[/dim]\n")


def _arguments(method: Method) -> str:
    shown = [f"{name}={value}" for name, value in method.parameters.items()]
    if method.robust_radius:
        shown.append(f"robust radius {method.robust_radius:g}")
    return ", ".join(shown)


def _routes(method: Method) -> object:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2))
    for column in ("route", "answers", "preference", "weight", "coefficient", "correction"):
        table.add_column(column, justify="right" if column in ("weight", "coefficient", "correction") else "left")
    if method.offline:
        table.add_row("offline", "dataset", "dataset", f"{method.offline_weight:g}", "1", "")
    for route in method.routes:
        numbers = [f"{value:g}" for value in (route.weight, route.coefficient, route.correction)]
        table.add_row(route.name, route.origins, route.preference, *numbers)
    return table
