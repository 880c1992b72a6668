"""``setsail demo``: the main job on an embedded default."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from setsail.cli.parsing import Parser, parse

EXPECTED = "2 to 3 minutes on 2 CPU cores"


def _parser() -> Parser:
    parser = Parser(
        prog="setsail demo",
        description="Align the embedded model with several methods, for equal steps, and compare; offline, on a CPU.",
    )
    parser.add_argument(
        "--output_dir", "--output-dir", default="setsail-demo", help="where the runs go (default: %(default)s)"
    )
    parser.add_argument("--steps", type=int, default=None, help="optimizer steps of each method")
    parser.add_argument("--prompts", type=int, default=None, help="held-out prompts to measure on, up to 256")
    parser.add_argument("--beta", type=float, default=None, help="strength of the KL penalty")
    parser.add_argument("--learning_rate", "--learning-rate", type=float, default=None, help="learning rate")
    parser.add_argument("--seed", type=int, default=None, help="seed of everything random")
    parser.add_argument("--methods", nargs="+", default=None, help="methods to compare (default: dpo and SAIL's three)")
    return parser


def run(arguments: Sequence[str]) -> int:
    """Train, compare, show, save."""
    from rich.console import Console

    from setsail import methods
    from setsail.core import ConfigError
    from setsail.demo.run import fresh_directory, run_demo
    from setsail.demo.study import METHODS, DemoSettings

    given = parse(_parser(), arguments)
    chosen = tuple(given.methods or METHODS)
    for name in chosen:
        methods.get(name)
    names = ("steps", "prompts", "beta", "learning_rate", "seed")
    changed = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    for name in ("steps", "prompts"):
        if changed.get(name, 1) < 1:
            raise ConfigError(f"--{name} must be at least 1, got {changed[name]}")
    settings = DemoSettings(output_dir=fresh_directory(Path(given.output_dir)), **changed)
    console = Console(highlight=False)
    console.print(
        "\n[bold]setsail demo[/bold]: the front desk of a small harbor town learns to answer better. "
        f"{len(chosen)} methods, "
        f"{settings.steps} steps each, from one starting model and one set of preference pairs.\n"
        f"Expected time: {EXPECTED if not (given.methods or changed) else 'depends on what you changed'}.\n"
    )
    run_demo(settings, chosen, console)
    return 0
