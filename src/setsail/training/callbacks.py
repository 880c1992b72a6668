"""What happens around the optimizer step: alarms, skipped updates, moves of the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from setsail.core import Completion, Row
from setsail.training.state import restore

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer


class SailCallback(TrainerCallback):
    """Hooks of :class:`~setsail.training.trainer.SailTrainer` into the Trainer's loop."""

    def __init__(self, trainer: SailTrainer) -> None:
        self.trainer = trainer
        self.probe: list[torch.Tensor] | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Restore what a checkpoint of ours holds, and remember what the reference says now."""
        self.trainer.feed.clear()
        if self.trainer.resume_source is not None:
            restore(self.trainer, self.trainer.resume_source)
        self.probe = self._look()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Sound pending alarms; an update whose gradient is not finite is not made."""
        trainer = self.trainer
        pending = trainer.gather(trainer.pending_alarms)
        trainer.pending_alarms = []
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        broken = [alarm for alarm in pending if alarm[0] == "non_finite"]
        if gradients and not bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients))).all()):
            rows = tuple(row for _, _, alarm_rows in broken for row in alarm_rows) or trainer.step_rows
            what = broken[0][1] if broken else "the loss is finite, its gradient is not"
            for parameter in trainer.model.parameters():
                parameter.grad = None
            trainer.alarms.sound(
                "non_finite",
                state.global_step,
                f"{what}; the update is skipped. Rows of the step: {list(rows)[:8]}{' ...' if len(rows) > 8 else ''}",
                rows,
            )
        for name, message, rows in pending:
            if name != "non_finite":
                trainer.alarms.sound(name, state.global_step, message, rows)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note where the step's time went; move the reference when its rule says so."""
        for phase in ("generation", "labelling", "scoring", "update"):
            self.trainer.meter.add(f"sail/seconds/{phase}", self.trainer.step_seconds.pop(phase, 0.0))
        rule = self.trainer.method.reference
        if rule.moves_after(state.global_step):
            self.trainer.reference.move(rule.mixup)
            self.probe = self._look()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """A reference that its rule has not moved must give the very same log-probs."""
        if self.probe is None or "loss" not in (logs or {}):
            return
        now = self._look()
        if any(not torch.equal(before, after) for before, after in zip(self.probe, now, strict=True)):
            self.probe = now
            self.trainer.alarms.sound(
                "reference_changed",
                state.global_step,
                "the reference gives other log-probs than at the start, though its rule has not moved it; "
                "something writes to "
                "its weights (shared parameters, a callback, an adapter left active?)",
            )

    def _look(self) -> list[torch.Tensor]:
        """The reference's token log-probs on the first training row."""
        row: Row = self.trainer.train_dataset[0]
        sides = [side for side in (row.chosen, row.rejected) if side is not None]
        if not sides:
            sides = [Completion(token_ids=row.prompt.token_ids[-1:], text="")]
        return self.trainer.scorer.under_reference([row.prompt] * len(sides), sides)
