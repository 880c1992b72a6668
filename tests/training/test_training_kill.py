"""A run that was killed (SIGKILL, no goodbye) and resumed is the uninterrupted run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import child
import pytest
import tiny
import torch

CHILD = Path(__file__).parent / "small" / "child.py"
OPTIONS: dict[str, Any] = {
    "method": "sail-mix", "route_weights": "ddp=0.2,dpp=0.3,dpr=0.3", "max_steps": 7, "save_strategy": "steps",
    "save_steps": 2, "logging_steps": 3,
}  # fmt: skip


class Runner:
    """Starts ``child.py`` on one case."""

    def __init__(self, folder: Path, model: str, env: dict[str, str]) -> None:
        self.folder, self.model, self.env = folder, model, env

    def start(self, name: str, **case: Any) -> subprocess.Popen[bytes]:
        out = str(self.folder / name)
        plan = self.folder / f"{name}-{len(case)}.json"
        plan.write_text(json.dumps([{"name": name, "model": self.model, "out": out, "config": OPTIONS, **case}]))
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen([sys.executable, str(CHILD), str(plan)], env=self.env, stdout=log, stderr=log)

    def finish(self, name: str, **case: Any) -> dict[str, Any]:
        status = self.start(name, **case).wait(timeout=120)
        assert status == 0, (self.folder / f"{name}.log").read_text()[-3000:]
        found: dict[str, Any] = torch.load(self.folder / f"{name}.pt", weights_only=True)
        return found

    def kill(self, name: str, **case: Any) -> None:
        """Start, wait until the child says that it is where the hook is, kill it."""
        child = self.start(name, **case)
        flag = self.folder / f"{name}.flag"
        try:
            deadline = time.monotonic() + 120
            while not flag.exists():
                assert child.poll() is None, (self.folder / f"{name}.log").read_text()[-3000:]
                assert time.monotonic() < deadline
                time.sleep(0.02)
        finally:
            child.send_signal(signal.SIGKILL)
            child.wait()


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory, model_path: str, child_environment: dict[str, str]) -> Runner:
    return Runner(tmp_path_factory.mktemp("kill"), model_path, child_environment)


@pytest.fixture(scope="module")
def whole(runner: Runner) -> dict[str, Any]:
    case = {"name": "whole", "model": runner.model, "out": str(runner.folder / "whole"), "config": OPTIONS}
    child.run(case)
    found: dict[str, Any] = torch.load(runner.folder / "whole.pt", weights_only=True)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "hook", "left"),
    [
        ("before the first checkpoint", "2", []),
        ("writing the second checkpoint", "checkpoint", ["checkpoint-2", "checkpoint-4"]),
        ("in step 6", "6", ["checkpoint-2", "checkpoint-4"]),
    ],
)
def test_killed_and_resumed(runner: Runner, whole: dict[str, Any], name: str, hook: str, left: list[str]) -> None:
    runner.kill(name, hook=hook)
    folder = runner.folder / name
    assert sorted(each.name for each in folder.glob("checkpoint-*")) == left
    complete = sorted(each.parent.name for each in folder.glob("checkpoint-*/setsail.json"))
    assert complete == (left[:1] if hook == "checkpoint" else left)
    before = (folder / "pairs.jsonl").read_text().split("\n")
    resumed = runner.finish(name, resume=True)
    assert tiny.same(whole["weights"], resumed["weights"])
    uninterrupted = runner.folder / "whole"
    assert (folder / "pairs.jsonl").read_bytes() == (uninterrupted / "pairs.jsonl").read_bytes()
    metrics = [tiny.timeless(tiny.lines(each / "metrics.jsonl")) for each in (folder, uninterrupted)]
    assert metrics[0] == metrics[1]
    old = folder / "superseded" / "pairs.jsonl"
    kept = set((folder / "pairs.jsonl").read_text().split("\n")) | set(
        old.read_text().split("\n") if old.exists() else ()
    )
    assert set(before) <= kept, "a pair that was drawn before the kill is nowhere"
    status = json.loads((folder / "run.json").read_text())
    assert status["status"] == "finished"
    assert status["resumed_from"] == {"2": None, "checkpoint": "checkpoint-2", "6": "checkpoint-4"}[hook]
