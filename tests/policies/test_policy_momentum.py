"""Extrapolation at a round's end: the recursion's closed form, what it leaves alone, and its checkpoint."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from frozen_policies import KINDS, start, train
from torch import nn

from setsail.core import CheckpointError, ConfigError
from setsail.policies import Extrapolation
from setsail.policies.tabular import TabularPolicy


def _weights(policy: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in policy.named_parameters()}


def _rounds(policy: TabularPolicy, momentum: float, rounds: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each round's optimum adds r / beta to the logits; the last optimized and the next starting logits."""
    gain = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)
    extrapolation = Extrapolation(policy, momentum)
    for _ in range(rounds):
        with torch.no_grad():
            policy.logits += gain
        optimized = policy.logits.detach().clone()
        extrapolation.step()
    return optimized, policy.logits.detach()


def test_three_rounds_with_momentum() -> None:
    """r / beta = (0, .5, 1), momentum .3: coefficient 3.690 on the third optimum and 4.107 on the next start.

    The difference to the last extrapolated point instead gives 3.600 and 3.900.
    """
    policy = TabularPolicy.uniform(prompts=1, responses=3)
    optimized, following = _rounds(policy, 0.3, 3)
    assert optimized[0].tolist() == pytest.approx([0, 3.690 / 2, 3.690])
    assert following[0].tolist() == pytest.approx([0, 4.107 / 2, 4.107])
    assert optimized.softmax(-1)[0].tolist() == pytest.approx([0.0211, 0.1336, 0.8453], abs=5e-5)


@pytest.mark.parametrize(("rounds", "speed"), [(3, 1.230), (10, 1.367), (50, 1.416)])
def test_rounds_count_for_more(rounds: int, speed: float) -> None:
    """Coefficient [T - a (1 - a^T) / (1 - a)] / (1 - a); a plain iteration's is T."""
    found = _rounds(TabularPolicy.uniform(prompts=1, responses=3), 0.3, rounds)[0][0, 2].item()
    assert found == pytest.approx((rounds - 0.3 * (1 - 0.3**rounds) / 0.7) / 0.7)
    assert found / rounds == pytest.approx(speed, abs=5e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_without_momentum_nothing_changes(kind: str) -> None:
    """Bit for bit, signs of zeros included."""
    policy, _ = start(kind)
    extrapolation = Extrapolation(policy, 0.0)
    with torch.no_grad():
        next(p for p in policy.parameters() if p.requires_grad).view(-1)[:3] = -0.0
    before = _weights(policy)
    extrapolation.step()
    for name, weight in _weights(policy).items():
        assert torch.equal(weight, before[name])
        assert torch.equal(weight.signbit(), before[name].signbit())


@pytest.mark.parametrize("kind", KINDS)
def test_only_trained_weights_are_pushed(kind: str) -> None:
    policy, reference = start(kind)
    frozen = {name: weight.clone() for name, weight in reference.weights().items()}
    wants = {name for name, p in policy.named_parameters() if p.requires_grad}
    before = _weights(policy)
    extrapolation = Extrapolation(policy, 0.5)
    train(policy)
    trained = _weights(policy)
    extrapolation.step()
    for name, weight in _weights(policy).items():
        wanted = trained[name] + 0.5 * (trained[name] - before[name]) if name in wants else before[name]
        assert torch.allclose(weight, wanted, atol=1e-7), name
    assert {name for name, p in policy.named_parameters() if p.requires_grad} == wants
    assert all(torch.equal(weight, frozen[name]) for name, weight in reference.weights().items())
    # What it remembers is where training had brought the policy, not where it was pushed.
    assert all(torch.equal(weight, trained[name]) for name, weight in extrapolation.weights().items())


def test_low_precision_weights_are_pushed_in_float32() -> None:
    policy: Any = nn.Linear(40, 40, bias=False).to(torch.bfloat16)
    with torch.no_grad():
        policy.weight.copy_(torch.linspace(-2, 2, 1600).view(40, 40))
    extrapolation = Extrapolation(policy, 0.3)
    before = policy.weight.detach().clone()
    with torch.no_grad():
        policy.weight.mul_(3.1)
    now = policy.weight.detach().clone()
    extrapolation.step()
    wanted = (now.float() + 0.3 * (now.float() - before.float())).to(torch.bfloat16)
    assert policy.weight.dtype == torch.bfloat16
    assert torch.equal(policy.weight, wanted)


def test_a_policy_may_move_after_its_start_was_kept() -> None:
    """As a trainer moves it to its device: here to another dtype, which is the same kind of move."""
    policy = nn.Linear(1, 1, bias=False)
    nn.init.constant_(policy.weight, 1.0)
    extrapolation = Extrapolation(policy, 0.5)
    policy.double()
    policy.weight.data.fill_(2.0)
    extrapolation.step()
    assert (policy.weight.item(), policy.weight.dtype) == (2.5, torch.float64)


def test_a_resumed_run_is_the_uninterrupted_one() -> None:
    def run(interrupted: bool) -> list[float]:
        policy = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(policy.weight, 0.5)
        extrapolation = Extrapolation(policy, 0.4)
        for number in range(4):
            if interrupted and number == 2:
                saved = {name: each.clone() for name, each in extrapolation.weights().items()}
                extrapolation = Extrapolation(policy, 0.4)
                extrapolation.restore(saved)
                saved["weight"].zero_()
            policy.weight.data.mul_(1.1).add_(number)
            extrapolation.step()
        return [policy.weight.item(), extrapolation.weights()["weight"].item()]

    assert run(True) == run(False)


def test_another_policys_checkpoint_is_refused() -> None:
    extrapolation = Extrapolation(nn.Linear(2, 2), 0.3)
    with pytest.raises(CheckpointError, match=r"holds 1 weights and the policy trains 2; 1 are .*'bias' for one"):
        extrapolation.restore({"weight": torch.zeros(2, 2)})


@pytest.mark.parametrize("momentum", [-0.1, 1.0, float("nan")])
def test_momentum_lies_below_one(momentum: float) -> None:
    with pytest.raises(ConfigError, match=r"momentum must lie in \[0, 1\)"):
        Extrapolation(nn.Linear(1, 1), momentum)


def test_something_must_train() -> None:
    with pytest.raises(ConfigError, match="no parameter of the policy wants gradient"):
        Extrapolation(nn.Linear(1, 1).requires_grad_(False), 0.3)
