"""What a training run shows in the terminal."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.logging import RichHandler
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text
from transformers import TrainerCallback

from setsail.cli import wording
from setsail.training.labeling import SELF

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer

console = Console(highlight=False, stderr=False)


def quiet_libraries() -> None:
    """Our warnings in one style; the libraries' progress bars and advice off."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from datasets.utils.logging import disable_progress_bar as quiet_datasets
    from transformers.utils import logging as library

    library.set_verbosity_error()  # type: ignore[no-untyped-call]
    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    quiet_datasets()
    handler = RichHandler(console=console, show_time=False, show_path=False, markup=False)
    logger = logging.getLogger("setsail")
    logger.handlers, logger.propagate = [handler], False


def show_start(trainer: SailTrainer, model: str, dataset: str) -> None:
    """What is about to happen: every choice that a user may want to check."""
    if not trainer.is_world_process_zero():
        return
    trainable = sum(parameter.numel() for parameter in trainer.model.parameters() if parameter.requires_grad)
    facts = {
        **_of_method(trainer),
        "model": [f"{model} ({trainable:,} of {trainer.parameter_count:,} parameters train)"],
        "data": [f"{dataset}: {len(trainer.train_dataset):,} rows"],
        "run directory": [str(trainer.args.output_dir)],
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for name, lines in facts.items():
        for number, line in enumerate(lines):
            table.add_row("" if number else name, Text(line))
    console.print()
    console.print(Padding(table, (0, 0, 0, 2)))
    console.print()


def _of_method(trainer: SailTrainer) -> dict[str, list[str]]:
    """The method as this run has it: loss, routes, frozen policies, update, judge and draws."""
    method, frozen = trainer.method, trainer.frozen
    modified = f", modified: {', '.join(method.modified)}" if method.modified else ""
    held = wording.reference(method) if method.soup_share else f"{frozen.reference.description}; {method.reference}"
    facts = {
        "method": [method.name + modified],
        "loss": wording.loss_lines(method),
        "routes": wording.route_lines(method),
        "reference": [held],
    }
    if frozen.opponent is not None:
        facts["opponent"] = [f"{frozen.opponent.description}; {method.opponent}"]
    if method.update in wording.UPDATES:
        facts["update"] = [wording.UPDATES[method.update]]
    if (rounds := wording.rounds(method)) is not None:
        facts["rounds"] = [rounds]
    name = getattr(trainer.labeler, "name", None)
    facts["labeler"] = [f"{name} (the policy judges its own answers)" if name == SELF else name or "none"]
    if method.draws:
        sampling = trainer.args.sampling
        law = "" if sampling.is_policy else " (not the policy's own distribution)"
        facts["answers"] = [f"up to {sampling.max_completion_length} tokens, temperature {sampling.temperature:g}{law}"]
    return facts


SHOWN = (
    ("loss", "loss", "{:.4f}"),
    ("rewards/margins", "margin", "{:+.3f}"),
    ("rewards/accuracies", "accuracy", "{:.0%}"),
    ("completions/mean_length", "length", "{:.1f}"),
    ("completions/clipped_ratio", "cut", "{:.0%}"),
    ("grad_norm", "grad", "{:.2f}"),
)
"""Metrics of a log line, in order: name, what it is called there, format."""


def log_line(logs: Mapping[str, float], step: int) -> str:
    """One line of a training log: step, the usual metrics, KL of each route that draws answers."""
    parts = [f"[bold]step {step:>5}[/bold]"]
    parts += [f"{short} {form.format(logs[name])}" for name, short, form in SHOWN if name in logs]
    parts += [
        f"KL {name.split('/')[1]} {value:+.3f}" for name, value in sorted(logs.items()) if name.endswith("/kl_k1")
    ]
    seconds = {name.rsplit("/", 1)[1]: value for name, value in logs.items() if name.startswith("sail/seconds/")}
    if seconds:
        parts.append(f"[dim]{sum(seconds.values()):.2f} s a step[/dim]")
    return "  ".join(parts)


class Progress(TrainerCallback):
    """A progress bar with a line a log above it."""

    def __init__(self) -> None:
        self.bar: Bar | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"))
        self.bar = Bar(*columns, TimeRemainingColumn(), console=console)
        self.bar.start()
        self.task = self.bar.add_task("training", total=state.max_steps, completed=state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        if self.bar is not None and logs and "loss" in logs:
            self.bar.console.print(log_line(logs, state.global_step), soft_wrap=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None


def show_result(trainer: SailTrainer, metrics: Mapping[str, float]) -> None:
    """Where everything is, and what held-out data say."""
    if not trainer.is_world_process_zero():
        return
    if metrics:
        table = Table(title="held out", box=None, show_header=False, padding=(0, 2), title_justify="left")
        for name, value in metrics.items():
            if name != "epoch":
                table.add_row(name.removeprefix("eval_"), f"{value:.4f}")
        console.print(table)
    for name, count in sorted(trainer.alarms.raised.items()):
        console.print(f"[yellow]alarm {name}: {count} times, see alarms.jsonl[/yellow]")
    console.print(f"\nmodel, metrics and pairs are in [cyan]{trainer.args.output_dir}[/cyan]")
