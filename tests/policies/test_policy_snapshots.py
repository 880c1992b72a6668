"""A snapshot puts weights and optimizer state back exactly: the look-ahead step leaves no trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from frozen_policies import KINDS, VOCABULARY, start
from torch import nn

from setsail.core import CheckpointError, ConfigError
from setsail.policies import Snapshot

IDS = torch.randint(2, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(0))
OPTIMIZERS: dict[str, Any] = {
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.05),
    "fused AdamW": lambda parameters: torch.optim.AdamW(parameters, lr=0.05, fused=True),
    "SGD with momentum": lambda parameters: torch.optim.SGD(parameters, lr=0.05, momentum=0.9),
    "plain SGD": lambda parameters: torch.optim.SGD(parameters, lr=0.05),
}


def _step(policy: Any, optimizer: Any, sign: float = 1.0) -> None:
    optimizer.zero_grad()
    (sign * policy(input_ids=IDS, labels=IDS).loss).backward()
    optimizer.step()


def _everything(policy: Any, optimizer: Any) -> dict[str, Any]:
    names = {parameter: name for name, parameter in policy.named_parameters()}
    found: dict[str, Any] = {name: p.detach().clone() for name, p in policy.named_parameters()}
    for parameter, entries in optimizer.state.items():
        for key, value in entries.items():
            found[f"{names[parameter]} {key}"] = value.clone() if isinstance(value, torch.Tensor) else value
    return found


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(
        torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one
    )


def _policy(kind: str, optimizer: str) -> tuple[Any, Any]:
    policy, _ = start(kind)
    return policy, OPTIMIZERS[optimizer]([p for p in policy.parameters() if p.requires_grad])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_look_ahead_leaves_no_trace(kind: str, name: str) -> None:
    """A step, look ahead two steps, come back, another step: as if the look-ahead had not been."""
    policy, optimizer = _policy(kind, name)
    _step(policy, optimizer)
    here = _everything(policy, optimizer)
    snapshot = Snapshot.take(policy, optimizer)
    _step(policy, optimizer)
    there = _everything(policy, optimizer)
    assert not _same(here, there)
    # As often as one likes, and whatever was done in between.
    for sign in (1.0, -1.0):
        snapshot.restore(policy, optimizer)
        assert _same(_everything(policy, optimizer), here)
        _step(policy, optimizer, sign)
    snapshot.restore(policy, optimizer)
    _step(policy, optimizer)
    assert _same(_everything(policy, optimizer), there)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_before_the_first_step_there_is_no_state(name: str) -> None:
    """Coming back means that the optimizer has none again: its first step is a first step."""
    policy, optimizer = _policy("full weights", name)
    snapshot = Snapshot.take(policy, optimizer)
    _step(policy, optimizer)
    there = _everything(policy, optimizer)
    snapshot.restore(policy, optimizer)
    assert not any(optimizer.state.values())
    _step(policy, optimizer)
    assert _same(_everything(policy, optimizer), there)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_it_can_be_written_and_read(tmp_path: Path, kind: str, name: str) -> None:
    """As safetensors, and into a policy and an optimizer built anew."""
    from safetensors.torch import load_file, save_file

    policy, optimizer = _policy(kind, name)
    _step(policy, optimizer)
    _step(policy, optimizer)
    here = _everything(policy, optimizer)
    save_file(Snapshot.take(policy, optimizer).weights(), tmp_path / "snapshot.safetensors")
    _step(policy, optimizer)
    there = _everything(policy, optimizer)
    other, fresh = _policy(kind, name)
    Snapshot.from_weights(load_file(tmp_path / "snapshot.safetensors")).restore(other, fresh)
    assert _same(_everything(other, fresh), here)
    _step(other, fresh)
    assert all(torch.allclose(a, there[key], atol=1e-6) for key, a in _everything(other, fresh).items())


def test_the_schedule_and_the_gradients_are_left_alone() -> None:
    policy, optimizer = _policy("full weights", "AdamW")
    snapshot = Snapshot.take(policy, optimizer)
    _step(policy, optimizer)
    optimizer.param_groups[0]["lr"] = 0.01
    gradients = [p.grad.clone() for p in policy.parameters() if p.grad is not None]
    assert gradients
    snapshot.restore(policy, optimizer)
    assert optimizer.param_groups[0]["lr"] == 0.01
    assert all(torch.equal(p.grad, g) for p, g in zip(policy.parameters(), gradients, strict=True))


def test_state_keeps_its_own_dtype() -> None:
    """Moments in float32 beside weights in bfloat16: loading a torch state dict would round them."""
    policy = nn.Linear(3, 1).to(torch.bfloat16)
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.1)
    moment = torch.tensor([1 / 3])
    optimizer.state[policy.bias] = {"moment": moment, "steps": 7, "scale": 1 / 3, "warm": True}
    flat = Snapshot.take(policy, optimizer).weights()
    assert all(isinstance(value, torch.Tensor) for value in flat.values())
    for snapshot in (Snapshot.take(policy, optimizer), Snapshot.from_weights(flat)):
        optimizer.state[policy.bias] = {}
        snapshot.restore(policy, optimizer)
        found = optimizer.state[policy.bias]
        assert torch.equal(found.pop("moment"), moment)
        assert found == {"steps": 7, "scale": 1 / 3, "warm": True}
        assert [type(value) for value in found.values()] == [int, float, bool]


def test_a_snapshot_shares_nothing() -> None:
    policy, optimizer = _policy("full weights", "AdamW")
    _step(policy, optimizer)
    here = _everything(policy, optimizer)
    snapshot = Snapshot.take(policy, optimizer)
    snapshot.restore(policy, optimizer)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.zero_()
            for value in optimizer.state[parameter].values():
                value.zero_()
    snapshot.restore(policy, optimizer)
    assert _same(_everything(policy, optimizer), here)


def test_extragradient_converges_on_a_cyclic_game() -> None:
    """EGPO with a snapshot between its two steps, rock-paper-scissors, beta .01, eta .3: duality gap 0 in 3000 rounds.

    One step a round circles at a gap of .338, and so do two steps without coming back in between. The direction is
    ``theta - theta_ref - P pi / beta``, at theta_t both times; the look-ahead point only gives the opponent pi.
    """
    game = torch.tensor([[0.5, 1, 0], [0, 0.5, 1], [1, 0, 0.5]], dtype=torch.float64)
    beta, eta, anchor = 0.01, 0.3, torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)

    def gap(kind: str, rounds: int = 3000) -> float:
        policy = nn.ParameterList([nn.Parameter(anchor.clone())])
        optimizer = torch.optim.SGD(policy.parameters(), lr=eta * beta, foreach=False)

        def step(opponent: torch.Tensor) -> None:
            policy[0].grad = policy[0].detach() - anchor - (game @ opponent) / beta
            optimizer.step()

        def current() -> torch.Tensor:
            return policy[0].detach().softmax(-1)

        for _ in range(rounds):
            before = Snapshot.take(policy, optimizer) if kind == "extragradient" else None
            step(current())
            if kind != "one step":
                ahead = current()
                if before is not None:
                    before.restore(policy, optimizer)
                step(ahead)
        pi, reference = current(), anchor.log_softmax(-1)
        best = beta * float((reference + (game @ pi) / beta).logsumexp(-1))
        return 2 * (best - 0.5 + beta * float((pi * (pi.log() - reference)).sum()))

    assert gap("extragradient") < 1e-12
    assert gap("one step") == pytest.approx(0.338, abs=1e-3)
    assert gap("no way back") > 0.3


def test_another_policy_is_refused() -> None:
    policy, other = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    snapshot = Snapshot.take(policy, torch.optim.SGD(policy.parameters()))
    with pytest.raises(
        CheckpointError, match=r"the snapshot holds 2 weights and the policy trains 1; .*'bias' for one"
    ):
        snapshot.restore(other, torch.optim.SGD(other.parameters()))
    with pytest.raises(ConfigError, match="no parameter of the policy wants gradient"):
        Snapshot.take(policy.requires_grad_(False), torch.optim.SGD(policy.parameters()))


def test_state_that_cannot_be_written_is_refused() -> None:
    policy = nn.Linear(1, 1)
    optimizer = torch.optim.SGD(policy.parameters())
    optimizer.state[policy.bias] = {"history": [1, 2]}
    snapshot = Snapshot.take(policy, optimizer)
    snapshot.restore(policy, optimizer)
    assert optimizer.state[policy.bias] == {"history": [1, 2]}
    with pytest.raises(CheckpointError, match="keeps 'history' of 'bias' as list, which a checkpoint cannot hold"):
        snapshot.weights()
