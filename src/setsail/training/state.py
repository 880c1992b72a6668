"""What one process of a run must remember besides weights, optimizer, schedule and generators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from setsail.training import checkpoint
from setsail.training.alarms import Drift

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer


def forget(trainer: SailTrainer) -> None:
    """Drop everything that belongs to an earlier call of ``train``."""
    trainer.feed.clear()
    trainer.buffer.load([], {})
    trainer.meter.load({})
    trainer.drift = Drift()
    trainer.facts.forget()
    if trainer.lookahead is not None:
        trainer.lookahead.load({})
    trainer.step_seconds.clear()
    trainer.pending_alarms = []
    trainer.current_flos = 0


def collect(trainer: SailTrainer) -> dict[str, Any]:
    """The state as plain data."""
    guard = getattr(trainer.labeler, "state_dict", None)
    return {
        "buffer": trainer.buffer.state(),
        "meter": trainer.meter.state(),
        "drift": trainer.drift.state(),
        "raised": trainer.alarms.raised,
        "facts": trainer.facts.state(),
        "labeler": guard() if guard else None,
        # The Trainer's own running loss since the last log, so that a resumed log line equals the uninterrupted one.
        "running_loss": float(getattr(trainer, "_tr_loss", 0.0)),
        "last_logged": getattr(trainer, "_globalstep_last_logged", 0),
        "total_loss": float(getattr(trainer, "_total_loss_scalar", 0.0)),
    }


def restore(trainer: SailTrainer, source: Path) -> None:
    """Load what :func:`collect` gave, and the reference if it had moved."""
    state = checkpoint.read_state(source, trainer.args.process_index)
    buffered = {entry["row_id"] for entry in state["buffer"]}
    rows = (
        {row.prompt.row_id: row for row in trainer.train_dataset if row.prompt.row_id in buffered} if buffered else {}
    )
    trainer.buffer.load(state["buffer"], rows)
    trainer.meter.load(state["meter"])
    trainer.drift.load(state["drift"])
    trainer.alarms.raised = dict(state["raised"])
    trainer.facts.load(state["facts"])
    if state["labeler"] is not None and trainer.labeler is not None:
        trainer.labeler.load_state_dict(state["labeler"])  # type: ignore[attr-defined]
    trainer._tr_loss = torch.tensor(state["running_loss"], device=trainer.args.device)
    trainer._globalstep_last_logged = state["last_logged"]
    trainer._total_loss_scalar = state["total_loss"]
    for name in FROZEN:
        weights = checkpoint.read_weights(source, name)
        if weights is not None:
            trainer.frozen.restore(name, weights)
    if trainer.lookahead is not None:
        trainer.lookahead.load(checkpoint.read_weights(source, LOOKAHEAD) or {})


FROZEN = ("reference", "opponent", "momentum")
LOOKAHEAD = "lookahead"


def frozen_weights(trainer: SailTrainer) -> dict[str, dict[str, Tensor]]:
    """Weights beside the policy's that a checkpoint must hold: what has moved, and a look-ahead in progress."""
    kept = trainer.frozen.weights()
    ahead = trainer.lookahead.tensors() if trainer.lookahead is not None else {}
    return {**kept, LOOKAHEAD: ahead} if ahead else kept
