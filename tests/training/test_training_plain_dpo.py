"""Mixtures that are switched off, and the mixture itself."""

from __future__ import annotations

from collections import Counter

import pytest
import tiny
from tiny import Build

from setsail import methods
from setsail.core import ConfigError
from setsail.training.mixture import draw_route


@pytest.mark.parametrize(
    "options",
    [
        {"method": "sail-mix", "route_weights": {"ddp": 0.0, "dpp": 0.0, "dpr": 0.0}},
        {
            "method": "sail-mix",
            "route_weights": {"ddp": 0.0, "dpp": 0.0, "dpr": 0.0},
            "route_coefficients": {"ddp": 0.7, "dpp": 0.6},
            "route_corrections": {"dpp": 0.5, "dpr": 0.4},
        },
    ],
    ids=["weights 0", "weights 0, coefficients set"],
)
def test_without_routes_every_bit_is_dpo(build: Build, options: dict[str, object]) -> None:
    """Acceptance test 9: r = p = g = 0 gives plain DPO's losses, gradients and weights over 50 steps."""
    recorders = tiny.Recorder(), tiny.Recorder()
    plain = build(out="plain", max_steps=50, callbacks=[recorders[0]])
    mixed = build(out="mixed", max_steps=50, callbacks=[recorders[1]], **options)
    start = tiny.weights(plain.model)
    plain.train()
    mixed.train()
    losses = [[log["loss"] for log in trainer.state.log_history if "loss" in log] for trainer in (plain, mixed)]
    assert len(losses[0]) == 50
    assert losses[0] == losses[1]
    assert all(tiny.same(*pair) for pair in zip(recorders[0].gradients, recorders[1].gradients, strict=True))
    assert tiny.same(tiny.weights(plain.model), tiny.weights(mixed.model))
    assert tiny.relative_difference(start, tiny.weights(plain.model)) > 1e-3


def test_a_route_changes_the_run(build: Build) -> None:
    """The test above can fail: with weight on a route, losses differ."""
    plain, mixed = build(out="plain"), build(out="mixed", method="sail-ddp", route_weights={"ddp": 0.5})
    plain.train()
    mixed.train()
    assert plain.state.log_history[0]["loss"] != mixed.state.log_history[0]["loss"]


def test_route_counts_are_multinomial() -> None:
    """Acceptance test 12: over 1e5 rows each route's count is within 4.5 standard deviations of its weight."""
    method = methods.get("sail-mix").configured(weights={"ddp": 0.2, "dpp": 0.3, "dpr": 0.1})
    count = 100_000
    drawn = (draw_route(method, seed=11, row_id=row, epoch=0) for row in range(count))
    found = Counter("offline" if route is None else route.name for route in drawn)
    for name, weight in {"ddp": 0.2, "dpp": 0.3, "dpr": 0.1, "offline": 0.4}.items():
        assert abs(found[name] - count * weight) <= 4.5 * (count * weight * (1 - weight)) ** 0.5, (name, found)


def test_routes_depend_on_row_and_epoch_alone() -> None:
    method = methods.get("sail-mix")
    first = [draw_route(method, 0, row, 0) for row in range(200)]
    assert [draw_route(method, 0, row, 0) for row in reversed(range(200))] == first[::-1]
    assert [draw_route(method, 0, row, 1) for row in range(200)] != first
    assert [draw_route(method, 1, row, 0) for row in range(200)] != first


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"ddp": 0.5, "dpp": 0.3, "dpr": 0.2}, "sum to 1, which leaves no offline pairs"),
        ({"ddp": 0.9, "dpp": 0.3, "dpr": 0.2}, r"sum to 1.4, which leaves no offline pairs"),
        ({"dpr": -0.1}, "weight must be a probability"),
    ],
)
def test_weights_that_cannot_be_are_refused(build: Build, weights: dict[str, float], message: str) -> None:
    """Acceptance test 12: r + p + g >= 1 and negative weights are refused with a message."""
    with pytest.raises(ConfigError, match=message):
        build(method="sail-mix", route_weights=weights)
