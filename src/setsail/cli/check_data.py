"""``setsail check-data``: what is in a preference set, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence

from setsail.cli.parsing import Parser, parse, parse_columns


def _parser() -> Parser:
    parser = Parser(prog="setsail check-data", description="Read and check a preference set, without a model.")
    parser.add_argument("dataset", help="a file, a directory or a hub id")
    parser.add_argument("--split", help="which split (default: train)")
    parser.add_argument("--columns", help="other column names, e.g. prompt=question,chosen=good,rejected=bad")
    parser.add_argument("--pairs", default="best-worst", help="pairs of several scored answers: best-worst or all")
    parser.add_argument("--limit", type=int, help="read at most this many rows")
    parser.add_argument(
        "--needs", help="what a row must hold: pairs (default), lists, singles, demonstrations or prompts"
    )
    parser.add_argument("--prompts_only", "--prompts-only", action="store_true", help="accept prompts without answers")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Print the report; 1 if training would refuse the data."""
    import json

    from rich.console import Console

    from setsail.data import check_preferences, load_preferences

    given = parse(_parser(), arguments)
    options = {
        "split": given.split,
        "columns": parse_columns(given.columns),
        "needs": "prompts" if given.prompts_only else given.needs,
        "pairs": given.pairs,
        "limit": given.limit,
    }
    report = check_preferences(given.dataset, **options)
    if given.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        Console().print(report)
    # The same reading as training's: it refuses what training would refuse.
    load_preferences(given.dataset, **options)
    return 0
