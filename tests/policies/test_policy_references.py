"""Several frozen policies beside one that trains: each is what it says, and none of them touches the policy."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from frozen_policies import KINDS, PROMPTS, moved, small, start, state, train
from torch import Tensor

from setsail.core import ConfigError
from setsail.policies import DisabledAdapter, FrozenAdapter, FrozenCopy, Reference, collate, hold_reference, token_logps

BATCH = collate(PROMPTS, [(3, 4, 1)] * len(PROMPTS), pad_id=0)


@torch.no_grad()
def _says(held: Reference) -> Tensor:
    with held.active() as module:
        return token_logps(module.eval(), BATCH)


@torch.no_grad()
def _policy_says(policy: Any) -> Tensor:
    return token_logps(policy.eval(), BATCH)


def _hold(policy: Any, name: str, **options: Any) -> Any:
    return hold_reference(policy, **{"fresh_adapter": False, "moves": True, "name": name, **options})


@pytest.mark.parametrize("kind", KINDS[::2])
def test_the_iterate_before_the_last(kind: str) -> None:
    """At each round's end: opponent <- reference, then reference <- policy. Bit for bit, round after round."""
    policy, _ = start(kind, name="start")
    reference, opponent = _hold(policy, "reference"), _hold(policy, "opponent")
    iterates = [_says(reference)]
    for _ in range(3):
        train(policy)
        opponent.follow(reference)
        reference.move(1.0)
        assert torch.equal(_says(opponent), iterates[-1])
        iterates.append(_says(reference))
        assert torch.allclose(iterates[-1], _policy_says(policy), atol=1e-5)
        assert float((iterates[-1] - iterates[-2]).abs().max()) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_frozen_policies_stay_while_the_policy_trains(kind: str) -> None:
    """Three of them, taken at three moments."""
    policy, first = start(kind)
    held = [first]
    for name in ("opponent", "earlier"):
        train(policy, 2)
        held.append(_hold(policy, name))
    before = [_says(each) for each in held]
    assert all(float((a - b).abs().max()) > 0.05 for a, b in pairwise(before))
    assert torch.allclose(before[-1], _policy_says(policy), atol=1e-5)
    train(policy)
    for each, then in zip(held, before, strict=True):
        assert torch.equal(_says(each), then)
    assert [each.name for each in held] == ["reference", "opponent", "earlier"]


@pytest.mark.parametrize("kind", KINDS)
def test_looking_at_any_of_them_leaves_the_policy(kind: str) -> None:
    """Adapter, mode, weights and hand-set gradient flags, also where the look ends in an error."""
    policy, first = moved(kind)
    held = [first, _hold(policy, "opponent"), _hold(policy, "earlier")]
    lora = next(p for p in policy.parameters() if p.requires_grad)
    lora.requires_grad_(False)
    before = state(policy.train())
    for each in held:
        with each.active() as module:
            assert not any(
                p.requires_grad for name, p in module.named_parameters() if not isinstance(each, DisabledAdapter)
            )
        assert state(policy) == before
        with pytest.raises(RuntimeError, match="inside"), each.active():
            raise RuntimeError("inside")
        assert state(policy) == before
    assert not lora.requires_grad
    if kind != "full weights":
        wanted = {name for name, wants in before["wants gradient"].items() if wants}
        assert wanted
        assert all(".default" in name for name in wanted)


@pytest.mark.parametrize("kind", KINDS[1:])
def test_frozen_adapters_can_be_looked_at_within_one_another(kind: str) -> None:
    policy, _ = moved(kind)
    outer, inner = _hold(policy, "outer"), _hold(policy, "inner")
    train(policy)
    outer.move(1.0)
    train(policy)
    alone = _says(outer)
    with outer.active() as module:
        _says(inner)
        with torch.no_grad():
            assert torch.equal(token_logps(module, BATCH), alone)
    assert policy.active_adapter == "default"


def test_gradients_flow_to_the_trained_adapter_alone() -> None:
    policy, _ = moved("existing adapter")
    _hold(policy, "opponent")
    token_logps(policy, BATCH).sum().backward()
    with_gradient = {name for name, p in policy.named_parameters() if p.grad is not None}
    assert with_gradient
    assert all("lora" in name and ".default." in name for name in with_gradient)


def test_only_the_trained_adapter_is_saved(tmp_path: Path) -> None:
    from peft import PeftModel

    policy, _ = moved("existing adapter")
    _hold(policy, "opponent")
    policy.save_pretrained(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.suffix != ".md") == [
        "adapter_config.json", "adapter_model.safetensors",
    ]  # fmt: skip
    loaded = PeftModel.from_pretrained(small(), str(tmp_path))
    assert list(loaded.peft_config) == ["default"]
    assert torch.equal(_policy_says(loaded), _policy_says(policy))


@pytest.mark.parametrize("kind", KINDS[::2])
def test_weights_come_back_from_a_checkpoint(kind: str) -> None:
    """Each holder's own, also where two stand in one model."""
    policy, _ = start(kind, name="start")
    held = [_hold(policy, "reference"), _hold(policy, "opponent")]
    train(policy)
    held[1].move(0.5)
    saved = [{name: weight.clone() for name, weight in each.weights().items()} for each in held]
    before = [_says(each) for each in held]
    assert not torch.equal(*before)
    for each in held:
        each.move(1.0)
        assert not torch.equal(_says(each), before[held.index(each)])
    for each, weights in zip(held, saved, strict=True):
        each.restore(weights)
    assert all(torch.equal(_says(each), then) for each, then in zip(held, before, strict=True))
    if kind != "full weights":
        assert all(".opponent" in name for name in saved[1])


@pytest.mark.parametrize("kind", KINDS[::2])
def test_each_moves_by_itself(kind: str) -> None:
    policy, _ = start(kind, name="start")
    reference, opponent = _hold(policy, "reference"), _hold(policy, "opponent")
    train(policy)
    still = _says(opponent)
    before = {name: weight.clone() for name, weight in reference.weights().items()}
    reference.move(0.25)
    trained = dict(policy.named_parameters())
    for name, weight in reference.weights().items():
        target = trained[name.replace(".reference", ".default")].detach()
        assert torch.allclose(weight, 0.75 * before[name] + 0.25 * target, atol=1e-7)
    assert torch.equal(_says(opponent), still)


# How each is held, and what is refused.


@pytest.mark.parametrize(
    ("kind", "moves", "expected"),
    [
        ("full weights", False, FrozenCopy),
        ("full weights", True, FrozenCopy),
        ("fresh adapter", False, DisabledAdapter),
        ("fresh adapter", True, FrozenAdapter),
        ("existing adapter", False, FrozenAdapter),
    ],
)
def test_the_cheapest_way_to_hold(kind: str, moves: bool, expected: type) -> None:
    policy, held = start(kind, moves=moves)
    other = hold_reference(policy, fresh_adapter=kind == "fresh adapter", moves=moves, name="opponent")
    for each, name in ((held, "reference"), (other, "opponent")):
        assert type(each) is expected
        assert each.name == name
        assert each.parts == [(each, 1.0)]
        assert each.description
        assert torch.allclose(_says(each), _policy_says(policy), atol=1e-5)


def test_a_model_of_the_users_own_can_be_the_opponent() -> None:
    policy, reference = start("full weights")
    given = tiny.perturbed(small(), 0.05, seed=3)
    opponent = _hold(policy, "opponent", given=given)
    assert opponent.name == "opponent"
    assert not any(p.requires_grad for p in given.parameters())
    assert not torch.allclose(_says(opponent), _says(reference), atol=1e-2)
    with torch.no_grad():
        theirs = token_logps(given, BATCH)
    reference.follow(opponent)
    # Weights are taken over, not shared.
    with torch.no_grad():
        given.lm_head.weight.zero_()
    assert torch.allclose(_says(reference), theirs, atol=1e-5)


def test_the_base_under_an_adapter_cannot_move() -> None:
    policy, base = start("fresh adapter")
    opponent = _hold(policy, "opponent")
    with pytest.raises(ConfigError, match="the base model under an adapter cannot move; hold the reference as"):
        base.move(1.0)
    with pytest.raises(ConfigError, match="the base model under an adapter cannot move"):
        base.follow(opponent)
    with pytest.raises(
        ConfigError, match=r"'opponent' \(frozen copy of .*\) cannot take over the weights of 'reference'"
    ):
        opponent.follow(base)


def test_weights_of_another_kind_are_refused() -> None:
    policy, reference = start("full weights")
    other = FrozenCopy(policy, tiny.llama(15))
    with pytest.raises(ConfigError, match="cannot take over the weights of 'reference'"):
        reference.follow(other)
    adapted, adapter = start("existing adapter")
    with pytest.raises(ConfigError, match="not of one kind"):
        adapter.follow(reference)
    # The same names and shapes, over another base model.
    _, elsewhere = start("existing adapter")
    with pytest.raises(ConfigError, match="not of one kind"):
        adapter.follow(elsewhere)
    adapter.follow(_hold(adapted, "opponent"))


def test_a_name_is_taken_once() -> None:
    policy, _ = start("existing adapter")
    with pytest.raises(ConfigError, match="already has an adapter named 'reference'"):
        FrozenAdapter(policy)
    with pytest.raises(ConfigError, match="the model has a module named 'layers'"):
        FrozenAdapter(policy, "layers")
    assert list(policy.peft_config) == ["default", "reference"]
    assert policy.active_adapter == "default"
