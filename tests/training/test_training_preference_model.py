"""Training on a preference model: probabilities that come from no score."""

from __future__ import annotations

import math
import zlib
from typing import Any

import pytest
from tiny import Build


def _circling(firsts: list[str], seconds: list[str], **columns: Any) -> list[float]:
    """Each answer falls into one of three classes; each class beats the next."""
    classes = [[zlib.crc32(text.encode()) % 3 for text in side] for side in (firsts, seconds)]
    beats = {0: 0.5, 1: 0.9, 2: 0.1}
    return [beats[(b - a) % 3] for a, b in zip(*classes, strict=True)]


@pytest.mark.parametrize("method", ["sppo", "dno", "nash-md", "egpo", "raft"])
def test_methods_learn_from_preferences_without_scores(build: Build, method: str) -> None:
    open_count = {} if method in ("nash-md", "egpo") else {"num_generations": 4}
    trainer = build(method=method, labeler=_circling, max_steps=2, **open_count)
    trainer.train()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert all(math.isfinite(value) for log in logs for value in log.values())
    [route] = trainer.method.active_routes
    assert any(f"sail/{route.name}/loss" in log for log in logs)
    assert not any(f"sail/{route.name}/score" in log for log in logs)
    records = trainer.directory.read("pairs") or trainer.directory.read("groups")
    assert records
    assert all(record["scores"] is None for record in records)
    assert {record["labeler"] for record in records} == {"_circling"}
