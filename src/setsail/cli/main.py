"""Which verb, and how errors look."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from setsail.core import ConfigError, SetsailError, nearest

VERBS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "demo": (
            "setsail.cli.demo",
            "align an embedded model with four methods, offline, on a CPU, in about 3 minutes",
        ),
        "train": ("setsail.cli.train", "align a model on a preference set"),
        "check-data": ("setsail.cli.check_data", "read and check a preference set, without a model"),
        "methods": ("setsail.cli.methods", "list the methods, or describe one"),
        "lab": ("setsail.cli.lab", "list the studies on enumerable policies, or run one"),
        "env": ("setsail.cli.env", "versions and hardware, for bug reports"),
    }
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0, or 1 after one readable line on standard error: what was given, why it cannot work, what to do. 130 after
        an interrupt. ``--debug`` shows the traceback instead.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        return _run(arguments)
    except KeyboardInterrupt:
        print(
            "setsail: interrupted; a run goes on from its last checkpoint with --resume_from_checkpoint true",
            file=sys.stderr,
        )
        return 130
    except SetsailError as error:
        if debug:
            raise
        print(f"setsail: {_one_line(error)}", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            raise
        kind = type(error).__name__
        print(
            f"setsail: unexpected {kind}: {_one_line(error)}; run it again with --debug for the traceback",
            file=sys.stderr,
        )
        return 1


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_help()
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(version("setsail"))
        return 0
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise ConfigError(f"there is no command {verb!r}{nearest(verb, VERBS)}; the commands are {', '.join(VERBS)}")
    module = importlib.import_module(VERBS[verb][0])
    status: int = module.run(rest)
    return status


def _print_help() -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    console.print("\n[bold]setsail[/bold]  online preference alignment of language models\n")
    table = Table(box=None, show_header=False, padding=(0, 2))
    for verb, (_, what) in VERBS.items():
        table.add_row(f"[cyan]setsail {verb}[/cyan]", what)
    console.print(table)
    console.print("\n  Each takes [cyan]--help[/cyan]; [cyan]--debug[/cyan] shows tracebacks.\n")
