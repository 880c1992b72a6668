"""Two processes and one, few rows and many: the same step."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

CHILD = Path(__file__).parent / "small" / "child.py"
PUBLISHED: dict[str, dict[str, Any]] = {
    "dpp": {"method": "sail-dpp", "preset": "published", "route_weights": "dpp=0.6"},
    "dpr": {"method": "sail-dpr", "preset": "published", "route_weights": "dpr=0.6"},
    "dpp sampled": {"method": "sail-dpp", "preset": "published", "route_weights": "dpp=0.6", "labels": "sampled"},
    "dpr sampled": {"method": "sail-dpr", "preset": "published", "route_weights": "dpr=0.6", "labels": "sampled"},
    "dpo": {"method": "dpo"},
    "revkl": {"method": "sail-revkl", "addend_coefficients": "forward_kl=0.1"},
    "mixture": {"method": "nash-md"},
    "opponent": {"method": "nash-ema"},
    "acquire": {"method": "apl"},
    "distributions": {"method": "superhf", "num_generations": 4},
    "look-ahead": {"method": "egpo"},
}
SHARED = {"max_steps": 3, "max_grad_norm": 0.0, "eval_generations": 6}
GAPPY = {"method": "online-dpo", "train_sampling_strategy": "sequential", "max_missing_rate": 1.0, "max_steps": 2}
ROUNDS = {"method": "iterative-dpo", "staleness_limit": 1, "ref_model_sync_steps": 2}
# 21 rows: the third step of each epoch is short, and in two processes the loader repeats rows.
ODD = {"method": "sail-dpr", "route_weights": "dpr=0.5", "num_train_epochs": 2, "max_steps": -1}


def _plan(folder: Path, kind: str, split: dict[str, int], models: dict[str, str]) -> list[dict[str, Any]]:
    """Cases with 8 rows a step, split as told; the policy is not its reference, so corrections do not vanish."""
    common = {"model": models["moved"], "reference": models["start"]}
    cases = [
        {"name": name, "config": {**SHARED, **options, **split}, "evaluate": name == "dpr", **common}
        for name, options in PUBLISHED.items()
    ]
    cases.append({"name": "gappy", "config": {**SHARED, **GAPPY, **split}, "labeler": "gappy_reward", **common})
    cases.append({"name": "odd", "config": {**SHARED, **ODD, **split}, "rows": 21, **common})
    adapted = {"lora": {"r": 4, "init_lora_weights": False}, "model": models["start"]}
    # The reference is the base model under the adapter, switched on and off between forward and backward passes.
    cases.append({"name": "lora", "config": {**SHARED, **PUBLISHED["dpr"], **split}, **adapted})
    # The reference is a second adapter that moves, and answers are drawn for two steps ahead.
    cases.append({"name": "rounds", "config": {**SHARED, **ROUNDS, **split}, **adapted})
    return [{**case, "out": str(folder / f"{kind}-{case['name']}")} for case in cases]


def _run(plan: Path, cases: list[dict[str, Any]], launcher: list[str], env: Any) -> None:
    plan.write_text(json.dumps(cases))
    done = subprocess.run(
        [*launcher, str(CHILD), str(plan)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.fixture(scope="module")
def outcome(
    tmp_path_factory: pytest.TempPathFactory, model_path: str, moved_path: str, child_environment: dict[str, str]
) -> Any:
    """``outcome(kind, name)``: what a case came to when its 8 rows were split so."""
    folder = tmp_path_factory.mktemp("processes")
    models = {"start": model_path, "moved": moved_path}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    splits = {
        "1x8": {"per_device_train_batch_size": 8},
        "2x4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
        "8x1": {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
    }
    alone = [case for kind, split in splits.items() for case in _plan(folder, kind, split, models)]
    together = _plan(folder, "ranks", {"per_device_train_batch_size": 4}, models)
    _run(folder / "alone.json", alone, [sys.executable], child_environment)
    _run(folder / "together.json", together, torchrun, child_environment)

    def load(kind: str, name: str) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(folder / f"{kind}-{name}.pt", weights_only=True)
        return {**found, "directory": folder / f"{kind}-{name}"}

    return load


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2x4", "8x1", "ranks"])
@pytest.mark.parametrize("name", [*PUBLISHED, "odd", "gappy", "lora", "rounds"])
def test_a_step_does_not_depend_on_how_it_is_split(outcome: Any, kind: str, name: str) -> None:
    """Acceptance test 16: one batch of 8 = 2 x 4 = 8 x 1 = two processes of 4, corrections included, rel. 1e-5."""
    whole, split = outcome("1x8", name), outcome(kind, name)
    assert tiny.relative_difference(whole["gradients"][0], split["gradients"][0]) < 1e-5
    losses = [[log["loss"] for log in each["logs"] if "loss" in log] for each in (whole, split)]
    assert len(losses[0]) >= 2
    assert losses[0] == pytest.approx(losses[1], rel=1e-5, abs=1e-6)
    assert max(map(abs, losses[0])) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpp", "dpr"])
def test_the_correction_takes_part(outcome: Any, name: str) -> None:
    """The invariance above would be cheap if nothing on-policy entered: rows of step 1 were drawn, some finished."""
    log = outcome("ranks", name)["logs"][0]
    assert log[f"sail/{name}/truncated"] < 1
    assert log[f"sail/{name}/loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dpr", "gappy", "odd"])
def test_metrics_are_gathered(outcome: Any, name: str) -> None:
    """Every mean over pairs is one over the pairs of both processes."""
    pairs = zip(outcome("1x8", name)["logs"], outcome("ranks", name)["logs"], strict=True)
    compared = 0
    for whole, split in pairs:
        names = [each for each in whole if each.startswith(("sail/", "rewards/", "logps/", "completions/"))]
        for each in (name for name in names if "seconds" not in name):
            assert split[each] == pytest.approx(whole[each], rel=1e-4, abs=1e-5), each
            compared += 1
    assert compared >= 20


@pytest.mark.slow
def test_a_process_without_any_pair_stays_in_step(outcome: Any) -> None:
    """The second process's rows never get a label; the first one's pairs alone make the step."""
    log = outcome("ranks", "gappy")["logs"][0]
    assert log["sail/dpr/missing"] == 0.5
    written = tiny.lines(outcome("ranks", "gappy")["directory"] / "pairs.jsonl")
    assert sorted(each["row_id"] % 8 for each in written) == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["2x4", "8x1", "ranks"])
def test_the_rows_asked_about_are_those_of_the_whole_step(outcome: Any, kind: str) -> None:
    """Half of the step's pairs, the same ones however the rows are split and dealt out."""
    asked = []
    for each in ("1x8", kind):
        written = tiny.lines(outcome(each, "acquire")["directory"] / "pairs.jsonl")
        asked.append([(record["step"], record["row_id"]) for record in written if record["step"] == 0])
    assert asked[0] == asked[1]
    assert len(asked[0]) == 4


@pytest.mark.slow
def test_each_row_is_used_once_an_epoch(outcome: Any) -> None:
    """21 rows in two processes of 4: the loader repeats rows to fill its batches, training does not."""
    for kind in ("1x8", "ranks"):
        written = tiny.lines(outcome(kind, "odd")["directory"] / "pairs.jsonl")
        visits = [(each["epoch"], each["row_id"]) for each in written]
        assert len(visits) == len(set(visits)) > 10
        assert {epoch for epoch, _ in visits} == {0, 1}
    identical = [
        [(each["row_id"], each["token_ids"]) for each in tiny.lines(outcome(kind, "odd")["directory"] / "pairs.jsonl")]
        for kind in ("1x8", "ranks")
    ]
    assert len(identical[0]) == len(identical[1])
    assert identical[0][:8] == identical[1][:8]


@pytest.mark.slow
def test_evaluation_in_two_processes_equals_one(outcome: Any) -> None:
    whole, split = (outcome(kind, "dpr")["evaluation"] for kind in ("1x8", "ranks"))
    assert set(whole) == set(split)
    for name in set(whole) - {"eval_runtime"}:
        assert split[name] == pytest.approx(whole[name], rel=1e-4, abs=1e-5), name
