"""Twelve scored answers a row from a public file, cut to rows of different sizes: lists and marked answers of them."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
from tiny import Build

from setsail import methods
from setsail.cli.main import main

FILE = "alpaca-eval/responses.jsonl.gz"
LISTS = [name for name in methods.names() if methods.get(name).form == "lists"]
SINGLES = [name for name in methods.names() if methods.get(name).form == "singles"]
SIZES = (2, 5, 3, 12, 4, 7)


@pytest.fixture(scope="module")
def scored(shared_data: Path) -> list[dict[str, Any]]:
    """Rows of 2 to 12 answers, the answers brief enough for a tiny model."""
    file = shared_data / FILE
    if not file.exists():
        pytest.skip(f"{FILE} is not beside the repository")
    rows = []
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        for line, size in zip(lines, SIZES * 3, strict=False):
            row = json.loads(line)
            answers = [{"text": one["text"][:40], "score": one["score"]} for one in row["responses"][:size]]
            rows.append({"prompt": row["prompt"], "responses": answers})
    return rows


SETTINGS: dict[str, Any] = {
    "max_steps": 3, "per_device_train_batch_size": 6, "max_prompt_length": 48, "max_completion_length": 24,
    "long_prompts": "keep-end", "learning_rate": 1e-4,
}  # fmt: skip


def _logs(trainer: Any) -> list[dict[str, float]]:
    return [log for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("name", LISTS)
def test_lists_of_different_sizes_train(build: Build, scored: list[dict[str, Any]], name: str) -> None:
    trainer = build(data=scored, method=name, **SETTINGS)
    sizes = [len(row.answers) for row in trainer.train_dataset]
    assert len(set(sizes)) >= 5
    before = tiny.weights(trainer.model)
    trainer.train()
    logs = _logs(trainer)
    assert len(logs) == 3
    assert all(math.isfinite(value) for log in logs for value in log.values())
    assert all("sail/offline/loss" in log for log in logs)
    assert trainer.alarms.raised == {}
    assert tiny.relative_difference(before, tiny.weights(trainer.model)) > 1e-5


def test_a_list_counts_as_one_row_whatever_its_size(build: Build, scored: list[dict[str, Any]]) -> None:
    """At the reference every score is 0: the mean over rows of the log of each row's K factorial."""
    batch = {**SETTINGS, "max_steps": 1, "per_device_train_batch_size": len(scored)}
    trainer = build(data=scored, method="pl-dpo", **batch)
    trainer.train()
    wanted = []
    for row in trainer.train_dataset:
        wanted.append(sum(math.log(1 + sum(other < score for other in row.scores)) for score in row.scores))
    assert _logs(trainer)[0]["loss"] == pytest.approx(sum(wanted) / len(wanted), rel=1e-4)


@pytest.mark.parametrize("name", SINGLES)
def test_scored_answers_are_marked_by_the_mean_of_their_row(
    build: Build, scored: list[dict[str, Any]], name: str
) -> None:
    trainer = build(data=scored, method=name, **SETTINGS)
    assert {row.scores for row in trainer.train_dataset} == {(1.0,), (-1.0,)}
    assert len(trainer.train_dataset) > 2 * len(scored)
    trainer.train()
    logs = _logs(trainer)
    assert len(logs) == 3
    assert all(math.isfinite(value) for log in logs for value in log.values())
    # At the reference no answer is better than another: 1/2 for kto, log 2 for bco.
    assert logs[0]["loss"] == pytest.approx({"kto": 0.5, "bco": math.log(2)}[name], rel=1e-3)


@pytest.mark.parametrize("name", ["lipo", "kto"])
def test_the_command_trains_on_scored_answers(
    name: str, scored: list[dict[str, Any]], model_path: str, tmp_path: Path
) -> None:
    data, out = tmp_path / "scored.jsonl", tmp_path / "run"
    data.write_text("".join(json.dumps(row) + "\n" for row in scored), encoding="utf-8")
    given = [
        "train", "--model", model_path, "--dataset", str(data), "--output_dir", str(out), "--method", name,
        "--max_steps", "2", "--per_device_train_batch_size", "4", "--max_completion_length", "24",
        "--max_prompt_length", "48", "--long_prompts", "keep-end", "--use_cpu", "true", "--logging_steps", "1",
    ]  # fmt: skip
    assert main(given) == 0
    metrics = tiny.lines(out / "metrics.jsonl")
    losses = [each["loss"] for each in metrics if "loss" in each]
    assert len(losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in losses)
    assert (out / "model.safetensors").exists()
