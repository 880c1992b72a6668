"""Writing one checkpoint, so that it counts only once it is complete and the previous one stays until then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from setsail.core import CheckpointError
from setsail.training import checkpoint, state
from setsail.training.resuming import IDENTITY, identity

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer


def save(trainer: SailTrainer, write_model: Callable[[], None]) -> None:
    """Write ``checkpoint-STEP``: what ``write_model`` writes, our own state, then the marker.

    Args:
        trainer: what is saved.
        write_model: writes weights, optimizer, schedule and generators into the same directory.

    Raises:
        CheckpointError: something could not be written; the directory is removed.
    """
    args, step = trainer.args, trainer.state.global_step
    output_dir = Path(str(args.output_dir))
    directory = output_dir / f"checkpoint-{step}"
    # Rotation is ours: the Trainer's own would count directories that are not complete.
    keep, args.save_total_limit = args.save_total_limit, None
    if trainer.is_world_process_zero():
        checkpoint.discard(directory)
    trainer.accelerator.wait_for_everyone()
    try:
        write_model()
        directory.mkdir(parents=True, exist_ok=True)
        checkpoint.write_state(directory, args.process_index, state.collect(trainer))
        if trainer.is_world_process_zero():
            for name, weights in state.frozen_weights(trainer).items():
                checkpoint.write_weights(directory, name, weights)
        trainer.accelerator.wait_for_everyone()
        if trainer.is_world_process_zero():
            facts = {"step": step, "processes": args.world_size, IDENTITY: identity(trainer)}
            checkpoint.seal(directory, **facts)
            checkpoint.rotate(output_dir, keep, trainer.state.best_model_checkpoint)
        trainer.saved_step = step
    except (OSError, RuntimeError, SafetensorError) as error:
        raise _failed(directory, error) from error
    finally:
        args.save_total_limit = keep


def _failed(directory: Path, error: Exception) -> CheckpointError:
    checkpoint.discard(directory)
    previous = checkpoint.newest(directory.parent)
    stays = f"the previous one, {previous.name}, is valid" if previous else "there is no earlier one"
    free = shutil.disk_usage(directory.parent).free / 2**20
    return CheckpointError(
        f"{directory.name} could not be written to {str(directory.parent)!r} ({free:,.0f} MiB free): {error}; {stays}. "
        "Free some space (or lower save_total_limit) and go on with resume_from_checkpoint=True"
    )
