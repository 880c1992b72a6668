"""``setsail env``: versions and hardware."""

from __future__ import annotations

from collections.abc import Sequence

from setsail.cli.parsing import Parser, parse


def run(arguments: Sequence[str]) -> int:
    """Print what a bug report needs; no paths, no names, no keys."""
    import json

    from rich.console import Console
    from rich.table import Table

    from setsail.training.description import environment

    parser = Parser(prog="setsail env", description="Versions and hardware, for bug reports.")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parse(parser, arguments)
    facts = environment()
    if given.json:
        print(json.dumps(facts, indent=2))
        return 0
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, value in facts.items():
        if isinstance(value, dict):
            for package, version in value.items():
                table.add_row(package, version)
        else:
            table.add_row(name.replace("_", " "), ", ".join(value) or "none" if isinstance(value, list) else str(value))
    Console().print(table)
    return 0
