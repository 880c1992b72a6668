"""The demo's table, its reading in words, three prompts side by side, and the picture."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from setsail import world
from setsail.core import ConfigError
from setsail.demo.study import MethodResult
from setsail.evaluation import FrontierPoint, Interval, draw_frontier

SHOWN_PROMPTS = 3


def _around(interval: Interval) -> str:
    return f"{interval.estimate:.2f} ±{(interval.high - interval.low) / 2:.2f}"


def _share(interval: Interval) -> str:
    return f"{interval.estimate:.0%} [{interval.low:.0%}, {interval.high:.0%}]"


def render_table(results: Sequence[MethodResult]) -> Table:
    """One row a policy; ± and brackets are 95 % intervals over the prompts."""
    table = Table(
        title="held-out prompts, after equal steps", title_justify="left", title_style="bold", box=SIMPLE_HEAD
    )
    for column in ("policy", "gold reward", "wins vs start", "KL, nats", "tokens", "seconds"):
        table.add_column(column, justify="left" if column == "policy" else "right")
    start = results[0].snapshots[0]
    table.add_row("start", _around(start.reward), "", "0", f"{start.length:.1f}", "")
    for result in results:
        end = result.snapshots[-1]
        numbers = (_around(end.reward), _share(end.win_rate), _around(end.kl), f"{end.length:.1f}")
        table.add_row(result.method, *numbers, f"{result.seconds:.0f}")
    return table


def show_reading(results: Sequence[MethodResult], console: Console) -> None:
    """What the table says, from its numbers alone."""
    best = max(results, key=lambda result: result.snapshots[-1].reward.estimate)
    end = best.snapshots[-1]
    rivals = [
        result.method for result in results if result is not best and result.snapshots[-1].reward.high >= end.reward.low
    ]
    tie = f"; its interval overlaps that of {', '.join(rivals)}" if rivals else "; its interval overlaps no other's"
    console.print(
        f"Highest gold reward: [bold]{best.method}[/bold] at {end.reward.estimate:.2f}{tie}. One seed, and the methods "
        "stand at different KL: compare along the picture's curves. sail-dpr learns from the gold reward "
        "itself; the others "
        "from the offline pairs alone.\n"
    )


def show_answers(results: Sequence[MethodResult], console: Console) -> None:
    """Three held-out prompts with the starting model's and every method's answer, gold reward in front.

    The prompts are those at which the methods gained the least, the median and the most on average.
    """
    start = results[0].snapshots[0]
    gains = [
        sum(result.snapshots[-1].rewards[i] for result in results) / len(results) - start.rewards[i]
        for i in range(len(start.rewards))
    ]
    order = sorted(range(len(gains)), key=lambda i: (gains[i], i))
    chosen = [order[0], order[len(order) // 2], order[-1]][:SHOWN_PROMPTS]
    prompts = [json.loads(line) for line in world.held_out_path().read_text(encoding="utf-8").splitlines()]
    for name, i in zip(("least gain", "median gain", "most gain"), chosen, strict=True):
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column()
        table.add_row("start", f"{start.rewards[i]:+.1f}", escape(start.answers[i]))
        for result in results:
            end = result.snapshots[-1]
            table.add_row(result.method, f"{end.rewards[i]:+.1f}", escape(end.answers[i]))
        console.print(f"[dim]{name}:[/dim] [italic]{escape(prompts[i]['prompt'][-1]['content'])}[/italic]")
        console.print(table)
        console.print()


def draw_picture(results: Sequence[MethodResult], path: Path, console: Console) -> None:
    """Reward against KL along each run."""
    points = [
        FrontierPoint(name=result.method, kl=snapshot.kl, reward=snapshot.reward)
        for result in results
        for snapshot in result.snapshots[1:]
    ]
    start = results[0].snapshots[0].reward.estimate
    try:
        draw_frontier(points, path, title="Embedded world: reward against KL", reward_label="gold reward", start=start)
    except ConfigError as error:
        console.print(f"[yellow]no picture: {error}[/yellow]")
        return
    console.print(f"reward against KL along the runs: [cyan]{path}[/cyan]")
