"""A row counts once, however many pairs it gives: the mixture is the one that was asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import Build


def test_all_pairs_of_a_row_weigh_as_much_as_one_pair(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(
        method="sail-dpr", route_weights="dpr=0.5", pairing="all-pairs", num_generations=3, max_steps=2,
        per_device_train_batch_size=6,
    )  # fmt: skip
    batches: list[Any] = []
    compute_loss = trainer.compute_loss

    def noting(model: Any, inputs: Any, *args: Any, **options: Any) -> Any:
        batches.append(inputs["micro_batch"])
        return compute_loss(model, inputs, *args, **options)

    monkeypatch.setattr(trainer, "compute_loss", noting)
    trainer.train()
    routes = {pair.route for batch in batches for pair in batch.groups}
    assert routes == {"offline", "dpr"}
    for batch in batches:
        rows: dict[int, float] = {}
        for pair, weight in zip(batch.groups, batch.weights.tolist(), strict=True):
            rows[pair.prompt.row_id] = rows.get(pair.prompt.row_id, 0.0) + weight
        assert len(rows) == 6
        # Six rows a step, each with weight 1/6, whether it gave one pair or three.
        torch.testing.assert_close(torch.tensor(list(rows.values())), torch.full((6,), 1 / 6))
        assert len(batch.groups) > 6
