"""Which frozen policies a run holds, and what a policy gradient asks of the sampler."""

from __future__ import annotations

import pytest
import tiny
from tiny import Build

from setsail.core import ConfigError


def test_the_iterate_before_is_the_reference_the_user_gives(build: Build, moved_path: str) -> None:
    """dice: what the last round taught is policy against ref_model, so answers the policy learnt to like score high."""
    trainer = build(method="dice", ref_model=moved_path, num_generations=2, staleness_limit=1, ref_model_sync_steps=2)
    assert trainer.frozen.opponent is not None
    assert trainer.frozen.opponent.description == "the reference model given"
    assert tiny.same(tiny.weights(trainer.frozen.reference.module), tiny.weights(trainer.model))  # type: ignore[attr-defined]
    assert not tiny.same(tiny.weights(trainer.frozen.opponent.module), tiny.weights(trainer.model))  # type: ignore[attr-defined]


def test_the_anchor_of_a_product_is_the_reference_the_user_gives(build: Build, moved_path: str) -> None:
    trainer = build(method="inpo", ref_model=moved_path, num_generations=2, staleness_limit=1, ref_model_sync_steps=2)
    (anchor, share), (moving, rest) = trainer.reference.parts
    assert (share, rest) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert anchor.description == "the reference model given"
    assert tiny.same(tiny.weights(moving.module), tiny.weights(trainer.model))  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["nash-md", "nash-ema"])
def test_a_policy_gradient_needs_the_policys_own_draws(build: Build, method: str) -> None:
    with pytest.raises(ConfigError, match=r"needs answers drawn from the policy itself.*temperature=0.7"):
        build(method=method, temperature=0.7)
