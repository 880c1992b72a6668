"""Run the methods side by side, one process a core, and write what came out."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from setsail.core import TrainingError
from setsail.demo.show import draw_picture, render_table, show_answers, show_reading
from setsail.demo.study import DemoSettings, MethodResult, train_one


def run_demo(settings: DemoSettings, methods: Sequence[str], console: Console) -> list[MethodResult]:
    """Train every method, show the table, three prompts and the picture, and write results.json and table.md."""
    results = _train_all(settings, methods, console)
    table = render_table(results)
    console.print()
    console.print(table)
    show_reading(results, console)
    show_answers(results, console)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    plain = {"settings": asdict(settings), "results": [asdict(result) for result in results]}
    (settings.output_dir / "results.json").write_text(json.dumps(plain, indent=1, default=str) + "\n")
    draw_picture(results, settings.output_dir / "frontier.png", console)
    console.print(f"runs, answers and results.json are in [cyan]{settings.output_dir}[/cyan]\n")
    return results


def fresh_directory(wanted: Path) -> Path:
    """``wanted``, or the first of wanted-2, wanted-3, ... that is not there yet: an earlier demo is never touched."""
    if not wanted.exists():
        return wanted
    number = 2
    while (candidate := wanted.with_name(f"{wanted.name}-{number}")).exists():
        number += 1
    return candidate


def _train_all(settings: DemoSettings, methods: Sequence[str], console: Console) -> list[MethodResult]:
    workers = max(1, min(len(methods), len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 2))
    context = multiprocessing.get_context("spawn")
    columns = (TextColumn("{task.description:<10}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
        Progress(*columns, TimeRemainingColumn(), console=console) as progress,
    ):
        messages = manager.Queue()
        bars = {method: progress.add_task(method, total=settings.steps, start=False) for method in methods}
        futures = {method: pool.submit(_work, method, settings, messages) for method in methods}
        while not all(future.done() for future in futures.values()):
            _forward(messages, progress, bars)
        return [_result(method, futures[method]) for method in methods]


def _work(method: str, settings: DemoSettings, messages: Any) -> MethodResult:
    """One method, in a process of its own with one thread: two busy processes share two cores better than threads."""
    messages.put((method, 0))
    return train_one(method, replace(settings, threads=1), lambda name, step: messages.put((name, step)))


def _forward(messages: Any, progress: Progress, bars: dict[str, Any]) -> None:
    try:
        method, step = messages.get(timeout=0.2)
    except queue.Empty:
        return
    progress.start_task(bars[method])
    progress.update(bars[method], completed=step)


def _result(method: str, future: Future[MethodResult]) -> MethodResult:
    error = future.exception()
    if error is not None:
        raise TrainingError(f"the demo's run of {method} failed: {type(error).__name__}: {error}") from error
    return future.result()
