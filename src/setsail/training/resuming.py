"""Taking the run directory: a new run in an empty one, or the run that is there, from its newest checkpoint."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError, SetsailError
from setsail.training import checkpoint
from setsail.training.description import describe_run

if TYPE_CHECKING:
    from setsail.training.trainer import SailTrainer

IDENTITY = "identity"


def identity(trainer: SailTrainer) -> dict[str, Any]:
    """What a resumed run must share with the run it goes on with: with any of it changed, it would be another run."""
    method, args = trainer.method, trainer.args
    facts = {
        "method": method.name,
        "objective": {"name": method.objective.__name__, **method.parameters, "robust_radius": method.robust_radius},
        "routes": [asdict(route) for route in method.routes],
        "addends": {addend.name: addend.coefficient for addend in method.addends},
        "reference": str(method.reference),
        "opponent": str(method.opponent),
        "update": method.update,
        "form": method.form,
        "soup_model": args.soup_model,
        "staleness": method.staleness,
        "sampling": {**args.sampling.as_dict(), "num_generations": method.generations},
        "training data": trainer.train_dataset.fingerprint,
        "seed": args.seed,
        "processes": args.world_size,
        "rows a step": args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def take_directory(trainer: SailTrainer, given: str | os.PathLike[str] | bool | None) -> Path | None:
    """Claim ``output_dir`` and return the checkpoint to go on from; None = from the first step.

    The main process looks and writes; every process gets its answer, or its error.

    Raises:
        ConfigError: the directory holds another run, or the run to be resumed is not this one.
        CheckpointError: the checkpoint named is incomplete or damaged.
    """
    answer: tuple[Path | None, SetsailError | None] | None = None
    if trainer.is_world_process_zero():
        try:
            answer = (_take(trainer, given), None)
        except SetsailError as error:
            answer = (None, error)
    source, refusal = next(each for each in trainer.gather([answer]) if each is not None)
    if refusal is not None:
        raise refusal
    return source  # type: ignore[no-any-return]


def _take(trainer: SailTrainer, given: str | os.PathLike[str] | bool | None) -> Path | None:
    resuming, directory = bool(given), trainer.directory
    directory.claim(resuming=resuming)
    source = _checkpoint(given, directory.path)
    step = 0
    if source is not None:
        marker = checkpoint.check(source)
        _same_run(marker.get(IDENTITY, {}), identity(trainer), source.name)
        step = marker["step"]
    elif trainer.started:
        raise ConfigError(
            "this trainer has trained already, and there is no complete checkpoint to go back to; build a new "
            "SailTrainer"
        )
    if resuming:
        directory.rewind(step)
    describe_run(trainer, resumed_from=source.name if source else None)
    return source


def _checkpoint(given: str | os.PathLike[str] | bool | None, output_dir: Path) -> Path | None:
    if given is None or isinstance(given, bool):
        return checkpoint.newest(output_dir) if given else None
    return Path(given)


def _same_run(before: dict[str, Any], now: dict[str, Any], source: str) -> None:
    changed = [name for name, value in before.items() if now.get(name) != value]
    if changed:
        what = "; ".join(f"{name} was {_short(before[name])}, is {_short(now.get(name))}" for name in changed)
        raise ConfigError(
            f"{source} belongs to another run: {what}. Resume with the settings and data it was started with, or "
            "start a new run in another output_dir (its model can be the checkpoint)"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 160 else text[:157] + "..."
