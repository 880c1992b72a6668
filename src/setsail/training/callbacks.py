"""What happens around the optimizer step: alarms, skipped updates, moves of the reference."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from setsail.core import Completion, Row
from setsail.training.state import forget, restore

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer

logger = logging.getLogger("setsail")


class SailCallback(TrainerCallback):
    """Hooks of :class:`~setsail.training.trainer.SailTrainer` into the Trainer's loop."""

    def __init__(self, trainer: SailTrainer) -> None:
        self.trainer = trainer
        self.probe: list[torch.Tensor] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore what a checkpoint of ours holds, and remember what the reference says now."""
        forget(self.trainer)
        if self.trainer.resume_source is not None:
            restore(self.trainer, self.trainer.resume_source)
        self.probe = self._look()
        if self.trainer.lookahead is not None and state.max_steps % 2 and self.trainer.directory.writes:
            logger.warning(
                "the run has %d optimizer steps, and method %s takes them in twos; the last one only looks ahead and "
                "is taken back at the end, so give an even max_steps",
                state.max_steps,
                self.trainer.method.name,
            )

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sound pending alarms; an update whose gradient is not finite is not made."""
        trainer = self.trainer
        pending = trainer.gather(trainer.pending_alarms)
        trainer.pending_alarms = []
        # The step in progress: the Trainer counts it once it is done.
        step = state.global_step + 1
        broken = [alarm for alarm in pending if alarm[0] == "non_finite"]
        if broken or not self._gradients_are_finite():
            rows = tuple(row for _, _, alarm_rows in broken for row in alarm_rows)
            rows = rows or tuple(trainer.gather(list(trainer.step_rows)))
            what = broken[0][1] if broken else "the loss is finite, its gradient is not"
            for parameter in trainer.model.parameters():
                parameter.grad = None
            shown = f"{list(rows)[:8]}{' ...' if len(rows) > 8 else ''}"
            message = f"{what}; the update is skipped. Rows of the step: {shown}"
            trainer.alarms.sound("non_finite", step, message, rows)
        for name, message, rows in pending:
            if name != "non_finite":
                trainer.alarms.sound(name, step, message, rows)

    def _gradients_are_finite(self) -> bool:
        """Processes hold the same gradients here, so they decide alike."""
        if getattr(self.trainer.accelerator, "scaler", None) is not None:
            # float16 loss scaling probes for the largest scale by overflowing, and skips those updates itself.
            return True
        gradients = [p.grad for p in self.trainer.model.parameters() if p.grad is not None]
        return not gradients or bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all())

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note where the step's time went; stop between two steps if an alarm asked for it."""
        for phase in ("generation", "labeling", "scoring", "update"):
            self.trainer.meter.add(f"sail/seconds/{phase}", self.trainer.step_seconds.pop(phase, 0.0))
        self.trainer.alarms.settle()

    def before_step(self, done: int) -> None:
        """Move reference and opponent where their rules say so, once ``done`` steps are behind and one is to follow.

        Not at once after the step: so the last step moves nothing, an evaluation compares with the reference that was
        trained against, and a run that is made longer later moves where the uninterrupted one did.
        """
        if self.trainer.frozen.after_step(done, is_last=False):
            self.probe = self._look()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What is kept is what was trained, not a look-ahead; the best checkpoint, where that was loaded, stays."""
        trainer = self.trainer
        if trainer.lookahead is None or (args.load_best_model_at_end and state.best_model_checkpoint is not None):
            return
        trainer.lookahead.finish(trainer.model, trainer.optimizer)

    def after_log(self, logs: Mapping[str, float]) -> None:
        """Alarms that a log calls for, sounded once its line is written."""
        trainer = self.trainer
        step = trainer.state.global_step
        for name, message in trainer.drift.check(logs, trainer.meter.popped.get("completions/mean_length", 0)):
            trainer.alarms.sound(name, step, message)
        self._check_reference(step)
        if trainer.args.log_completions and trainer.directory.writes and trainer.last_record is not None:
            print(_shown(trainer.last_record))
        trainer.alarms.settle()

    def _check_reference(self, step: int) -> None:
        """A reference that its rule has not moved must give the very same log-probs."""
        if self.probe is None:
            return
        now = self._look()
        changed = any(not torch.equal(before, after) for before, after in zip(self.probe, now, strict=True))
        if any(self.trainer.gather([changed])):
            self.probe = now
            self.trainer.alarms.sound(
                "reference_changed",
                step,
                "the reference gives other log-probs than at the start, though its rule has not moved it; something "
                "writes to its weights (shared parameters, a callback, an adapter left active?)",
            )

    def _look(self) -> list[torch.Tensor]:
        """The reference's token log-probs on the first training row."""
        row: Row = self.trainer.train_dataset[0]
        sides = [side for side in (row.chosen, row.rejected) if side is not None]
        if not sides:
            sides = [Completion(token_ids=row.prompt.token_ids[-1:], text="")]
        return self.trainer.scorer.under_reference([row.prompt] * len(sides), sides)


def _shown(record: Mapping[str, Any]) -> str:
    """A drawn group, for people to read."""
    if "completions" in record:
        values = record["values"] or [None] * len(record["completions"])
        sides = [
            f"answer ({'labeled by the policy' if value is None else f'value {value:.3g}'}): {text}"
            for value, text in zip(values, record["completions"], strict=True)
        ]
    else:
        p = "labeled by the policy" if record["p"] is None else f"preferred with probability {record['p']:.2f}"
        sides = [f"{name} ({p if name == 'chosen' else 'other'}): {record[name]}" for name in ("chosen", "rejected")]
    return "\n".join([f"row {record['row_id']}, route {record['route']}: {record['prompt']}", *sides])
