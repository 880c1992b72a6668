"""Train one method on the embedded world, and measure the policy on held-out prompts along the way."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setsail import world
from setsail.core import Candidates
from setsail.evaluation import Interval, kl_divergence, mean_interval, win_rate

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer

METHODS = ("dpo", "sail-ddp", "sail-dpp", "sail-dpr")
SNAPSHOTS = 3
"""Evaluations along a run, the last one at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What all methods of the demo share: equal steps, equal data, equal seeds."""

    output_dir: Path
    steps: int = 80
    batch_size: int = 32
    learning_rate: float = 2e-4
    beta: float = 0.1
    seed: int = 0
    prompts: int = 256
    threads: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A policy, measured on the held-out prompts; one answer a prompt, drawn with the same random numbers each time.

    Attributes:
        reward: mean gold reward.
        kl: KL(policy || starting model) of an answer, nats.
        win_rate: against the starting model's answers to the same prompts, by gold reward; a tie counts half.
        length: mean answer length in tokens.
        rewards, answers: per prompt.
    """

    step: int
    reward: Interval
    kl: Interval
    win_rate: Interval
    length: float
    rewards: tuple[float, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """One method's run: snapshots from the start to the end, and what the training took, evaluations left out."""

    method: str
    snapshots: tuple[Snapshot, ...]
    seconds: float


Report = Callable[[str, int], None]
"""``report(method, optimizer steps done)``."""


def train_one(method: str, settings: DemoSettings, report: Report) -> MethodResult:
    """Train ``method`` from the embedded model; equal settings for all methods."""
    import torch

    torch.set_num_threads(settings.threads)
    trainer = _trainer(method, settings)
    start = measure(trainer, settings, step=0, baseline=None)
    snapshots = [start]
    at = {round(settings.steps * (k + 1) / SNAPSHOTS) for k in range(SNAPSHOTS)}
    watch = _watcher(trainer, settings, report, snapshots, at)
    trainer.add_callback(watch)
    began = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - began - watch.seconds
    trainer.save_model()
    return MethodResult(method=method, snapshots=tuple(snapshots), seconds=seconds)


def _trainer(method: str, settings: DemoSettings) -> SailTrainer:
    from transformers import PrinterCallback
    from transformers.utils import logging as library

    from setsail.training import SailConfig, SailTrainer

    library.set_verbosity_error()  # type: ignore[no-untyped-call]
    library.disable_progress_bar()  # type: ignore[no-untyped-call]
    # The terminal belongs to the progress bars; alarms are in each run's alarms.jsonl.
    logging.getLogger("setsail").setLevel(logging.ERROR)
    config = SailConfig(
        output_dir=str(settings.output_dir / method),
        method=method,
        beta=settings.beta,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=5,
        logging_steps=5,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=settings.seed,
        max_prompt_length=128,
        max_completion_length=64,
        generation_batch_size=128,
    )
    held_out = [json.loads(line) for line in world.held_out_path().read_text(encoding="utf-8").splitlines()]
    trainer = SailTrainer(
        str(world.model_path()),
        args=config,
        train_dataset=str(world.pairs_path()),
        eval_dataset=held_out[: settings.prompts],
        labeler=world.gold_reward if config.resolved_method().needs_labeler else None,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _watcher(
    trainer: SailTrainer, settings: DemoSettings, report: Report, snapshots: list[Snapshot], at: set[int]
) -> Any:
    from transformers import TrainerCallback

    class Watch(TrainerCallback):
        """Reports each step and measures the policy at the snapshots; keeps the time that measuring took."""

        seconds = 0.0

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            report(trainer.method.name, state.global_step)
            if state.global_step in at:
                began = time.perf_counter()
                snapshots.append(measure(trainer, settings, step=state.global_step, baseline=snapshots[0]))
                self.seconds += time.perf_counter() - began

    return Watch()


def measure(trainer: SailTrainer, settings: DemoSettings, *, step: int, baseline: Snapshot | None) -> Snapshot:
    """Answer every held-out prompt once and compare with ``baseline``'s answers (None = this is the baseline)."""
    rows: Sequence[Any] = trainer.eval_dataset  # type: ignore[assignment]
    groups = trainer.engine.generate(
        [row.prompt for row in rows],
        n=1,
        sampling=trainer.args.sampling,
        streams=[("held-out", row.prompt.row_id) for row in rows],
        seed=settings.seed,
        policy_version=step,
    )
    answers = [group.completions[0] for group in groups]
    rewards = tuple(_gold(groups))
    prompts = [group.prompt for group in groups]
    policy = [logps.double().numpy() for logps in trainer.scorer.under_policy(prompts, answers)]
    reference = [logps.double().numpy() for logps in trainer.scorer.under_reference(prompts, answers)]
    before = rewards if baseline is None else baseline.rewards
    outcomes = [0.5 if new == old else float(new > old) for new, old in zip(rewards, before, strict=True)]
    return Snapshot(
        step=step,
        reward=mean_interval(rewards),
        kl=kl_divergence(policy, reference).kl(),
        win_rate=win_rate(outcomes).rate,
        length=sum(answer.length for answer in answers) / len(answers),
        rewards=rewards,
        answers=tuple(answer.text for answer in answers),
    )


def _gold(groups: Sequence[Candidates]) -> list[float]:
    return world.gold_reward(
        [[dict(message) for message in group.prompt.messages or ()] for group in groups],
        [[{"role": "assistant", "content": group.completions[0].text}] for group in groups],
    )
