"""Run-time alarms: things that must not happen, or that a user wants to know while they happen."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import TrainingError
from setsail.training.batch import MicroBatch
from setsail.training.run_directory import RunDirectory

logger = logging.getLogger("setsail")

LENGTH_DRIFT = 1.5
"""Mean answer length, relative to the first answers', past which (or below whose inverse) the drift is reported."""
LENGTH_ANSWERS = 64
"""Answers that a mean length is taken over: the lengths of a handful differ by chance."""
DISPLACEMENT = 1.0
"""Fall of the mean log-prob of chosen answers, in nats a completion, that counts as displacement."""
AGREEMENT = {"float32": 1e-3, "other": 0.25}
"""Largest difference a token between a sampled and a scored log-prob that rounding can explain, in nats."""


@dataclass(slots=True)
class Alarms:
    """Reports each alarm in the log, in alarms.jsonl and, if asked to, by stopping the run.

    An alarm may sound in the middle of a step, where a checkpoint would hold half of it. So sounding only asks for the
    stop; :meth:`settle` stops, between two steps. All processes sound the same alarms, so they stop together.

    Attributes:
        stops: whether an alarm stops the run (after its state was saved).
        save: saves the state; called before stopping.
        raised: how often each alarm sounded.
    """

    directory: RunDirectory
    stops: bool
    save: Callable[[], None]
    raised: dict[str, int] = field(default_factory=dict)
    _stop: str | None = None

    def sound(self, name: str, step: int, message: str, row_ids: Sequence[int] = ()) -> None:
        """Report one alarm of optimizer step ``step``; the log shows each kind's first three, the file holds all."""
        self.raised[name] = self.raised.get(name, 0) + 1
        self.directory.append(
            "alarms", [{"step": step, "alarm": name, "message": message, "row_ids": list(row_ids)[:64]}]
        )
        if self.stops and self._stop is None:
            self._stop = f"alarm {name} at step {step}: {message}; the state was saved (on_alarm=warn goes on)"
        if self.raised[name] <= 3 and self.directory.writes:
            more = " (further ones go to alarms.jsonl alone)" if self.raised[name] == 3 else ""
            logger.warning("alarm %s at step %d: %s%s", name, step, message, more)

    def settle(self) -> None:
        """Stop the run if an alarm asked for it. To be called between two steps.

        Raises:
            TrainingError: an alarm stops the run; its state was saved.
        """
        if self._stop is not None:
            message, self._stop = self._stop, None
            self.save()
            raise TrainingError(message)


Fault = tuple[str, str, tuple[int, ...]]
"""Name of an alarm, its message, and the rows it concerns."""


def agreement(model: nn.Module, mixed_precision: str) -> float:
    """Difference a token between a sampled and a scored log-prob that rounding can explain, in nats."""
    low = mixed_precision != "no" or next(model.parameters()).dtype != torch.float32
    return AGREEMENT["other" if low else "float32"]


def faults(batch: MicroBatch, scored: Sequence[Tensor], loss: float, allowed: float | None) -> list[Fault]:
    """What is wrong with a micro-batch.

    Args:
        batch: the micro-batch.
        scored: the policy's token log-probs of each answer.
        loss: the micro-batch's.
        allowed: difference a token between a sampled and a scored log-prob; None = they are not compared.
    """
    rows = tuple(group.prompt.row_id for group in batch.groups)
    found: list[Fault] = [] if math.isfinite(loss) else [("non_finite", f"the loss is {loss}", rows)]
    message = None if allowed is None else _disagreement(batch, scored, allowed)
    return found if message is None else [*found, ("sampler_disagrees", message, rows)]


def _disagreement(batch: MicroBatch, scored: Sequence[Tensor], allowed: float) -> str | None:
    """Say so if a completion's scored log-prob is not the one it was sampled with, at version gap 0."""
    fresh = {
        index
        for group, members in zip(batch.groups, batch.members, strict=True)
        for index in members
        if group.policy_version == batch.policy_version
    }
    for index in sorted(fresh):
        answer = batch.answers[index]
        completion = answer.completion
        if completion.origin != "policy":
            continue
        gap = abs(float(scored[index].sum()) - (completion.logp or 0.0))
        if not gap <= allowed * completion.length:
            return (
                f"an answer to row {answer.prompt.row_id} was sampled with log-prob {completion.logp:.4f} "
                "but is scored "
                f"{float(scored[index].sum()):.4f} by the same weights: sampler and scorer disagree (attention "
                "implementation, precision, position ids?), so on-policy gradients are biased"
            )
    return None


class Drift:
    """Watches the logs for likelihood displacement and for answers growing or shrinking."""

    def __init__(self) -> None:
        self.first_length: float | None = None
        self._tokens = self._answers = 0.0

    def check(self, logs: Mapping[str, float], answers: float) -> list[tuple[str, str]]:
        """Alarms that the metrics of one log call for, as ``(name, message)``.

        Args:
            logs: the metrics.
            answers: how many drawn answers their mean length is over.
        """
        return [alarm for alarm in (self._length(logs, answers), self._displacement(logs)) if alarm is not None]

    def _length(self, logs: Mapping[str, float], answers: float) -> tuple[str, str] | None:
        self._answers += answers
        self._tokens += answers * logs.get("completions/mean_length", 0.0)
        if self._answers < LENGTH_ANSWERS:
            return None
        length = self._tokens / self._answers
        self._tokens = self._answers = 0.0
        if self.first_length is None:
            self.first_length = length
            return None
        ratio = length / max(self.first_length, 1e-9)
        if 1 / LENGTH_DRIFT <= ratio <= LENGTH_DRIFT:
            return None
        return (
            "length_drift",
            f"drawn answers have {length:.1f} tokens on average, {ratio:.2f} times the first {self.first_length:.1f}; "
            "check that the labeler does not reward length itself",
        )

    def _displacement(self, logs: Mapping[str, float]) -> tuple[str, str] | None:
        if "rewards/chosen" not in logs:
            return None
        # Rewards are beta times the log-ratio to the reference, so rewards / beta is the change in log-prob; an
        # objective without beta has log-ratios for rewards.
        beta = logs.get("beta", 1.0)
        now = (logs["rewards/chosen"] / beta, logs["rewards/rejected"] / beta)
        if not (now[0] < -DISPLACEMENT and now[1] < -DISPLACEMENT):
            return None
        return (
            "likelihood_displacement",
            f"chosen and rejected answers both became less likely ({now[0]:+.1f} and {now[1]:+.1f} nats against the "
            "reference): probability moves to answers in neither; a larger beta, a smaller learning rate or on-policy "
            "pairs help",
        )

    def state(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {"first_length": self.first_length, "tokens": self._tokens, "answers": self._answers}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` returned."""
        self.first_length, self._tokens, self._answers = state["first_length"], state["tokens"], state["answers"]
