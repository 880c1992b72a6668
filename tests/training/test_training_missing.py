"""Preferences that could not be obtained: dropped, counted, never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build

from setsail.core import LabelerError

SILENT = {1, 4, 6, 7, 10, 11}


def _none(number: int) -> float | None:
    return None


def _nan(number: int) -> float | None:
    return float("nan")


def _scorer(missing: Any, silent: set[int]) -> Any:
    def score(prompts: Sequence[str], completions: Sequence[str], number: Sequence[int], **_: Any) -> Any:
        scores = tiny.reward(prompts, completions)
        return [missing(i) if i in silent else value for i, value in zip(number, scores, strict=True)]

    return score


def _written(tmp_path: Path) -> list[dict[str, Any]]:
    return tiny.lines(tmp_path / "run" / "pairs.jsonl")


@pytest.mark.parametrize("missing", [_none, _nan])
def test_rows_without_a_score_are_dropped_and_counted(build: Build, tmp_path: Path, missing: Any) -> None:
    """12 rows in 3 steps of 4: the share of missing labels of each log is that of its rows."""
    trainer = build(
        method="online-dpo", labeler=_scorer(missing, SILENT), data=tiny.preferences(12), max_steps=3,
        train_sampling_strategy="sequential", max_missing_rate=0.9,
    )  # fmt: skip
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert [log["sail/dpr/missing"] for log in logs] == [1 / 4, 3 / 4, 2 / 4]
    assert {each["row_id"] for each in _written(tmp_path)} == set(range(12)) - SILENT
    assert len(_written(tmp_path)) == 6


def test_the_share_is_one_of_routed_rows(build: Build) -> None:
    """Over a run, missing / labeled rows of the route, whatever number of pairs a row makes."""
    asked: list[int] = []

    def score(prompts: Sequence[str], completions: Sequence[str], number: Sequence[int], **_: Any) -> Any:
        asked.extend(number)
        return [None if i % 3 == 0 else len(text) for i, text in zip(number, completions, strict=True)]

    trainer = build(
        method="sail-dpr", route_weights="dpr=0.7", labeler=score, max_steps=6, logging_steps=6, num_generations=3,
        pairing="all-pairs", max_missing_rate=0.9,
    )  # fmt: skip
    trainer.train()
    rows = set(asked)
    assert len(rows) > 8
    log = trainer.state.log_history[0]
    assert log["sail/dpr/missing"] == pytest.approx(sum(i % 3 == 0 for i in rows) / len(rows), abs=1e-12)


def test_a_row_missing_in_part_counts(build: Build, tmp_path: Path) -> None:
    """One of three candidates has no score: the pair of the other two is trained on, the row counts as missing."""
    calls: list[int] = []

    def score(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> Any:
        calls.append(len(completions))
        return [None if i % 3 == 0 else float(i) for i in range(len(completions))]

    trainer = build(
        method="online-dpo", labeler=score, max_steps=1, num_generations=3, pairing="all-pairs", max_missing_rate=0.9
    )
    trainer.train()
    assert trainer.state.log_history[0]["sail/dpr/missing"] == 1.0
    assert len(_written(tmp_path)) == 4


def test_missing_rows_leave_no_trace_in_the_weights(build: Build) -> None:
    """The run equals one whose data set lacks the silent rows' on-policy pairs: same losses, same weights."""
    options = {
        "method": "online-dpo", "max_steps": 1, "per_device_train_batch_size": 12, "max_missing_rate": 0.9,
        "train_sampling_strategy": "sequential",
    }  # fmt: skip
    rows = tiny.preferences(12)
    gappy = build(out="gappy", labeler=_scorer(_none, SILENT), data=rows, **options)
    recorder = tiny.Recorder()
    gappy.add_callback(recorder)
    gappy.train()
    kept = [row for row in range(12) if row not in SILENT]
    whole = build(out="whole", data=rows, **options)
    expected = tiny.Recorder()
    whole.add_callback(expected)
    # The same rows with the same ids, so that the same answers are drawn; the silent ones are not fed.
    whole.train_dataset = [whole.train_dataset[i] for i in kept]  # type: ignore[assignment]
    whole.train_dataset = _Fingerprinted(whole.train_dataset)  # type: ignore[assignment,arg-type]
    whole.train()
    assert tiny.relative_difference(expected.gradients[0], recorder.gradients[0]) < 1e-5
    assert gappy.state.log_history[0]["loss"] == pytest.approx(whole.state.log_history[0]["loss"], rel=1e-5)


class _Fingerprinted(list[Any]):
    """Rows that look like a tokenized data set."""

    fingerprint = "hand-made"
    counts: dict[str, int] = {}  # noqa: RUF012


def test_a_micro_batch_without_any_pair(build: Build) -> None:
    """All four rows of the second micro-batch are silent: the step is that of the first, no NaN, weights move."""
    options = {"method": "online-dpo", "max_steps": 1, "train_sampling_strategy": "sequential", "max_missing_rate": 0.9}
    first, both = tiny.Recorder(), tiny.Recorder()
    alone = build(out="alone", callbacks=[first], **options)
    alone.train()
    silent = _scorer(_none, {4, 5, 6, 7})
    trainer = build(out="both", labeler=silent, gradient_accumulation_steps=2, callbacks=[both], **options)
    trainer.train()
    assert tiny.relative_difference(first.gradients[0], both.gradients[0]) < 1e-5
    assert trainer.state.log_history[0]["loss"] == pytest.approx(alone.state.log_history[0]["loss"], rel=1e-5)
    assert "sail/offline/loss" not in trainer.state.log_history[0]


def test_a_step_without_any_pair_changes_nothing(build: Build) -> None:
    trainer = build(
        method="online-dpo", labeler=_scorer(_none, {0, 1, 2, 3}), max_steps=1, max_missing_rate=1.0,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    before = tiny.weights(trainer.model)
    trainer.train()
    assert tiny.same(before, tiny.weights(trainer.model))
    assert trainer.state.log_history[0]["loss"] == 0.0
    assert trainer.state.log_history[0]["sail/dpr/missing"] == 1.0


def test_a_labeler_that_raises_now_and_then(build: Build, tmp_path: Path) -> None:
    calls: list[int] = []

    def flaky(prompts: Sequence[str], completions: Sequence[str], **_: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise OSError("connection reset")
        return tiny.reward(prompts, completions)

    trainer = build(method="online-dpo", labeler=flaky, max_steps=4)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert sum(log["sail/dpr/missing"] for log in logs) == 1.0
    assert len(_written(tmp_path)) == 12


def test_too_many_missing_stop_the_run(build: Build) -> None:
    trainer = build(
        method="online-dpo", labeler=_scorer(_none, {i for i in range(64) if i % 4}), data=tiny.preferences(64),
        max_steps=16, max_missing_rate=0.4,
    )  # fmt: skip
    with pytest.raises(LabelerError, match=r"of 32 preferences are missing \(at most 40% may be\)"):
        trainer.train()
    assert trainer.state.global_step == 7
    assert trainer.directory.read_run()["status"] == "stopped"


def test_counts_of_the_guard_survive_a_resume(build: Build) -> None:
    options = {
        "method": "online-dpo", "labeler": _scorer(_none, SILENT), "save_strategy": "steps", "save_steps": 2,
        "max_missing_rate": 0.9,
    }  # fmt: skip
    first = build(max_steps=2, **options)
    first.train()
    resumed = build(max_steps=4, **options)
    resumed.train(resume_from_checkpoint=True)
    assert first.labeler.seen == 8  # type: ignore[attr-defined,union-attr]
    assert resumed.labeler.seen == 16  # type: ignore[attr-defined,union-attr]
