"""Checkpoints that are damaged, cut short, or cannot be written; run directories that hold something else."""

from __future__ import annotations

import errno
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build

from setsail.core import CheckpointError, ConfigError, TrainingError
from setsail.training import checkpoint
from setsail.training.run_directory import RunDirectory

SAVING: dict[str, Any] = {"method": "sail-dpp", "max_steps": 4, "save_strategy": "steps", "save_steps": 2}


@pytest.fixture
def finished(build: Build, tmp_path: Path) -> Path:
    """A finished run with checkpoints 2 and 4."""
    build(**SAVING).train()
    return tmp_path / "run"


def _cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def _scramble(file: Path) -> None:
    """Other bytes, the same length."""
    file.write_bytes(b"\xff" * 64 + file.read_bytes()[64:])


@pytest.mark.parametrize(
    ("name", "harm", "message"),
    [
        ("model.safetensors", _cut, "damaged: model.safetensors has .* bytes instead of"),
        ("optimizer.pt", _cut, "damaged: optimizer.pt has .* bytes instead of"),
        ("optimizer.pt", Path.unlink, "damaged: optimizer.pt is missing"),
        ("model.safetensors", _scramble, "damaged: model.safetensors cannot be read"),
        ("setsail.json", _scramble, "damaged: setsail.json cannot be read"),
        ("setsail-rank-0.json", _scramble, "damaged: setsail-rank-0.json cannot be read"),
        ("setsail.json", Path.unlink, "incomplete .no setsail.json."),
    ],
)
def test_a_damaged_checkpoint_is_refused(build: Build, finished: Path, name: str, harm: Any, message: str) -> None:
    harm(finished / "checkpoint-4" / name)
    with pytest.raises(CheckpointError, match=message):
        build(**{**SAVING, "max_steps": 6}).train(resume_from_checkpoint=str(finished / "checkpoint-4"))


def test_a_checkpoint_that_is_not_there(build: Build, finished: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint at"):
        build(**SAVING).train(resume_from_checkpoint=str(finished / "checkpoint-9"))


@pytest.mark.parametrize("harm", ["unmarked", "cut"])
def test_the_newest_complete_one_is_taken(build: Build, finished: Path, harm: str) -> None:
    """An incomplete or damaged newest checkpoint is passed over, and the run ends as it did."""
    before = tiny.lines(finished / "pairs.jsonl")
    last = finished / "checkpoint-4"
    weights = (last / "model.safetensors").read_bytes()
    if harm == "unmarked":
        (last / "setsail.json").unlink()
    else:
        _cut(last / "model.safetensors")
    again = build(**SAVING)
    again.train(resume_from_checkpoint=True)
    assert again.directory.read_run()["resumed_from"] == "checkpoint-2"
    assert (last / "model.safetensors").read_bytes() == weights
    assert tiny.lines(finished / "pairs.jsonl") == before
    checkpoint.check(last)


@contextmanager
def _largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow past ``size``, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 60_000, 200_000], ids=["nothing fits", "weights are cut", "optimizer is cut"])
def test_a_full_disk_leaves_the_previous_checkpoint(build: Build, tmp_path: Path, size: int) -> None:
    build(**{**SAVING, "max_steps": 2}).train()
    folder = tmp_path / "run"
    model = (folder / "checkpoint-2" / "model.safetensors").stat().st_size
    optimizer = (folder / "checkpoint-2" / "optimizer.pt").stat().st_size
    assert 60_000 < model < 200_000 < optimizer
    trainer = build(**SAVING)
    write = trainer._save_checkpoint

    def on_a_full_disk(*args: Any) -> None:
        with _largest_file(size):
            write(*args)

    trainer._save_checkpoint = on_a_full_disk  # type: ignore[method-assign]
    with pytest.raises(CheckpointError) as raised:
        trainer.train(resume_from_checkpoint=True)
    message = str(raised.value)
    assert message.startswith("checkpoint-4 could not be written")
    assert "the previous one, checkpoint-2, is valid" in message
    assert "MiB free" in message
    assert not (folder / "checkpoint-4").exists()
    assert checkpoint.newest(folder) == folder / "checkpoint-2"
    assert trainer.directory.read_run()["status"] == "stopped"
    # With space again the run goes on and ends.
    again = build(**SAVING)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4
    assert checkpoint.newest(folder) == folder / "checkpoint-4"


def test_no_space_for_the_first_checkpoint(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    trainer = build(**SAVING)
    monkeypatch.setattr(checkpoint, "write_state", full)
    with pytest.raises(CheckpointError, match="No space left on device; there is no earlier one"):
        trainer.train()
    assert trainer.args.save_total_limit is None


def test_a_full_disk_outside_a_checkpoint(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """metrics.jsonl cannot grow: a readable error, also though run.json cannot be written either."""
    build(**{**SAVING, "max_steps": 2}).train()
    trainer = build(**SAVING)
    step = trainer.training_step

    def filling(*args: Any) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
        return step(*args)

    monkeypatch.setattr(trainer, "training_step", filling)
    soft = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(TrainingError, match=r"metrics.jsonl cannot be written in .*resume_from_checkpoint=True"):
            trainer.train(resume_from_checkpoint=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
    again = build(**SAVING)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 4


def test_rotation_keeps_the_newest_complete_ones(build: Build, tmp_path: Path) -> None:
    options = {**SAVING, "max_steps": 5, "save_steps": 1, "save_total_limit": 2}
    trainer = build(**options)
    trainer.train()
    folder = tmp_path / "run"
    assert sorted(each.name for each in folder.glob("checkpoint-*")) == ["checkpoint-4", "checkpoint-5"]
    assert trainer.args.save_total_limit == 2
    # An incomplete one does not count as one of the two.
    (folder / "checkpoint-5" / "setsail.json").unlink()
    (folder / "checkpoint-7").mkdir()
    checkpoint.rotate(folder, 1, None)
    assert (folder / "checkpoint-4").exists()
    assert checkpoint.newest(folder) == folder / "checkpoint-4"


def test_rotation_keeps_the_best(build: Build, tmp_path: Path) -> None:
    build(**{**SAVING, "save_steps": 1}).train()
    folder = tmp_path / "run"
    checkpoint.rotate(folder, 1, str(folder / "checkpoint-2"))
    assert sorted(each.name for each in folder.glob("checkpoint-*")) == ["checkpoint-2", "checkpoint-4"]


def test_the_best_model_is_loaded_at_the_end(build: Build, tmp_path: Path) -> None:
    trainer = build(
        **SAVING,
        learning_rate=3e-2,
        eval_dataset=tiny.preferences(6),
        eval_strategy="steps",
        eval_steps=2,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
    )
    trainer.train()
    losses = {log["step"]: log["eval_loss"] for log in trainer.state.log_history if "eval_loss" in log}
    best = max(losses, key=lambda step: losses[step])
    assert trainer.evaluate()["eval_loss"] == pytest.approx(losses[best], rel=1e-6)
    assert trainer.state.best_model_checkpoint == str(tmp_path / "run" / f"checkpoint-{best}")


def test_files_are_on_the_disk_before_the_marker(build: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a power cut a marker must not vouch for files that never reached the disk."""
    flushed: list[str] = []
    flush = checkpoint._flush

    def noting(file: Path) -> None:
        assert not (file.parent / checkpoint.MARKER).exists()
        flushed.append(file.name)
        flush(file)

    monkeypatch.setattr(checkpoint, "_flush", noting)
    build(**{**SAVING, "max_steps": 2}).train()
    marker = json.loads((tmp_path / "run" / "checkpoint-2" / checkpoint.MARKER).read_text())
    assert sorted(flushed[:-1]) == sorted(Path(name).name for name in marker["files"])
    assert flushed[-1] == f".{checkpoint.MARKER}.part"
    assert len(flushed) > 8


def test_another_runs_directory_is_refused(build: Build, finished: Path) -> None:
    before = (finished / "run.json").read_bytes()
    with pytest.raises(ConfigError, match=r"already holds a run \(status: finished\).*another output_dir"):
        build(**SAVING).train()
    assert (finished / "run.json").read_bytes() == before


def test_no_secret_and_no_pickled_arguments_are_written(build: Build, tmp_path: Path) -> None:
    trainer = build(**{**SAVING, "max_steps": 2, "hub_token": "hf_secretsecret", "warmup_steps": 1})
    trainer.train()
    trainer.save_model()
    folder = tmp_path / "run"
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert len(files) > 15
    assert not [file for file in files if b"hf_secretsecret" in file.read_bytes()]
    assert not [file for file in files if file.name == "training_args.bin"]
    assert "warmup_steps: 1" in (folder / "config.yaml").read_text()


# The run directory's lines.

ODD_TEXT = "a\u2028b\u0085c\u2029d\x0be\x1cf\ng"


def test_lines_hold_any_text(tmp_path: Path) -> None:
    """Drawn answers may contain line separators that JSON leaves as they are."""
    directory = RunDirectory(tmp_path)
    records = [{"step": step, "chosen": ODD_TEXT} for step in range(4)]
    directory.append("pairs", records)
    assert directory.read("pairs") == records
    directory.rewind(2)
    assert directory.read("pairs") == records[:2]
    assert tiny.lines(tmp_path / "superseded" / "pairs.jsonl") == records[2:]


def test_rewinding_keeps_what_the_checkpoint_knows(tmp_path: Path) -> None:
    """Metrics and alarms of step k were written after k steps; pairs of step k are made again."""
    directory = RunDirectory(tmp_path)
    for kind in ("metrics", "pairs", "alarms"):
        directory.append(kind, [{"step": step} for step in range(6)])
    with (tmp_path / "pairs.jsonl").open("a") as file:
        file.write('{"step": 5, "chosen": "cut by a ki')
    directory.rewind(3)
    assert [len(directory.read(kind)) for kind in ("metrics", "pairs", "alarms")] == [4, 3, 4]
    moved = (tmp_path / "superseded" / "pairs.jsonl").read_text().split("\n")
    assert [json.loads(line)["step"] for line in moved[:3]] == [3, 4, 5]
    assert moved[3].endswith("cut by a ki")


def test_a_line_cut_within_a_character(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path)
    directory.append("pairs", [{"step": 0, "chosen": "東京"}])
    with (tmp_path / "pairs.jsonl").open("ab") as file:
        file.write('{"step": 1, "chosen": "東'.encode()[:-1])
    assert directory.read("pairs") == [{"step": 0, "chosen": "東京"}]
    directory.rewind(1)
    assert tiny.lines(tmp_path / "pairs.jsonl") == [{"step": 0, "chosen": "東京"}]
