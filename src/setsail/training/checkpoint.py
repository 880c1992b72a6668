"""What a checkpoint holds beyond the Trainer's own files, and when it counts as complete.

The marker ``setsail.json`` is written last, with the size of every file: a directory without it was cut short by a kill
or a full disk and is never resumed from. Each process's ``setsail-rank-N.json`` holds its pair buffer, its running
means, the alarms' memory and the labeler's counts; a reference that has moved is in ``reference.safetensors``.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from setsail.core import CheckpointError

logger = logging.getLogger("setsail")

MARKER = "setsail.json"


def rank_file(rank: int) -> str:
    """Name of the file with one process's own state."""
    return f"setsail-rank-{rank}.json"


def write_state(directory: Path, rank: int, state: Mapping[str, Any]) -> None:
    """Write one process's state (buffer, running means) into a checkpoint directory."""
    (directory / rank_file(rank)).write_text(json.dumps(state))


def read_state(directory: Path, rank: int) -> dict[str, Any]:
    """What :func:`write_state` wrote.

    Raises:
        CheckpointError: the checkpoint was written by fewer processes.
    """
    file = directory / rank_file(rank)
    if not file.exists():
        raise CheckpointError(
            f"checkpoint {directory.name} holds no state for process {rank}: it was written by fewer "
            "processes; resume with "
            "as many as wrote it"
        )
    return _read_json(file)


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
    except ValueError as error:
        raise CheckpointError(
            f"checkpoint {str(file.parent)!r} is damaged: {file.name} cannot be read ({error}); resume from an earlier "
            "checkpoint"
        ) from error
    return content


def write_weights(directory: Path, name: str, weights: Mapping[str, Tensor]) -> None:
    """Write the weights of something that is not the policy: a reference that has moved, a look-ahead."""
    from safetensors.torch import save_file

    plain = {key: weight.detach().contiguous().cpu() for key, weight in weights.items()}
    save_file(plain, directory / f"{name}.safetensors")


def read_weights(directory: Path, name: str) -> dict[str, Tensor] | None:
    """What :func:`write_weights` wrote; None where there is none of that name."""
    from safetensors.torch import load_file

    file = directory / f"{name}.safetensors"
    return load_file(file) if file.exists() else None


def seal(directory: Path, **facts: Any) -> None:
    """Declare a checkpoint complete: every file on the disk itself, then the marker."""
    files = [file for file in sorted(directory.rglob("*")) if file.is_file() and file.name != MARKER]
    for file in files:
        _flush(file)
    sizes = {str(file.relative_to(directory)): file.stat().st_size for file in files}
    temporary = directory / f".{MARKER}.part"
    temporary.write_text(json.dumps({"files": sizes, **facts}, indent=1))
    _flush(temporary)
    os.replace(temporary, directory / MARKER)


def _flush(file: Path) -> None:
    """Wait until a file is on the disk: after a power cut the marker must not outlive what it vouches for."""
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check(directory: Path) -> dict[str, Any]:
    """The marker of a complete checkpoint.

    Raises:
        CheckpointError: there is none, or a file is not as long as it was.
    """
    if not directory.is_dir():
        raise CheckpointError(f"there is no checkpoint at {str(directory)!r}; give an existing checkpoint-N directory")
    if not (directory / MARKER).exists():
        raise CheckpointError(
            f"checkpoint {str(directory)!r} is incomplete (no {MARKER}): the run was killed, or the disk was "
            "full, while it was "
            "written; resume from an earlier one, or give resume_from_checkpoint=True to take the newest complete one"
        )
    marker = _read_json(directory / MARKER)
    for name, size in marker["files"].items():
        file = directory / name
        found = file.stat().st_size if file.exists() else None
        if found != size:
            what = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise CheckpointError(
                f"checkpoint {str(directory)!r} is damaged: {name} {what}; resume from an earlier checkpoint"
            )
        if file.suffix == ".safetensors":
            _check_weights(file)
    return marker


def _check_weights(file: Path) -> None:
    """Read the header, which says where each tensor lies; the tensors themselves are not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt"):
            pass
    except SafetensorError as error:
        raise CheckpointError(
            f"checkpoint {str(file.parent)!r} is damaged: {file.name} cannot be read ({error}); resume from an earlier "
            "checkpoint"
        ) from error


def newest(output_dir: Path) -> Path | None:
    """The newest complete checkpoint under ``output_dir``; incomplete ones are named in the log and passed over."""
    for directory in sorted(output_dir.glob("checkpoint-*"), key=_step, reverse=True):
        try:
            check(directory)
            return directory
        except CheckpointError as error:
            logger.warning("passing over %s: %s", directory.name, error)
    return None


def discard(directory: Path) -> None:
    """Remove a checkpoint that could not be completed."""
    shutil.rmtree(directory, ignore_errors=True)


def rotate(output_dir: Path, keep: int | None, best: str | None) -> None:
    """Remove the oldest complete checkpoints beyond ``keep``; the best one and the newest one stay."""
    if not keep or keep <= 0:
        return
    complete = sorted((path for path in output_dir.glob("checkpoint-*") if (path / MARKER).exists()), key=_step)
    for directory in complete[:-keep]:
        if best is None or directory.resolve() != Path(best).resolve():
            discard(directory)


def _step(directory: Path) -> int:
    number = directory.name.rsplit("-", 1)[-1]
    return int(number) if number.isdigit() else -1
