"""Rounds solved by Newton's method end at the known minima, and nothing else is different from gradient descent."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from setsail import lab
from setsail.core import SpecError
from setsail.lab.newton import Newton, newton_step
from setsail.methods import Method, get
from setsail.policies.tabular import TabularPolicy
from setsail.reference import every, fixed

STEPS = 12


def _rounds(method: Method, rounds: int = 1) -> tuple[TabularPolicy, lab.TabularWorld]:
    policy, world = lab.golden_world()
    policy = TabularPolicy(world.reference.log_probs())
    method = method.configured(staleness=STEPS - 1)
    list(lab.train(method, policy, world, steps=rounds * STEPS, direction=Newton()))
    return policy, world


def _apart(policy: TabularPolicy, other: TabularPolicy) -> float:
    return (policy.log_probs() - other.log_probs()).abs().max().item()


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_a_round_of_dpo_ends_at_the_optimum_of_rlhf(beta: float) -> None:
    policy, world = _rounds(get("iterative-dpo").configured(parameters={"beta": beta}, reference=fixed()))
    assert world.reward is not None
    assert _apart(policy, lab.optimal_policy(world.reference, world.reward, beta)) < 1e-11


def test_groups_are_drawn_anew_when_sampler_and_reference_move() -> None:
    method = get("iterative-dpo").configured(parameters={"beta": 1.0}, reference=every(STEPS))
    policy, world = _rounds(method, rounds=3)
    assert world.reward is not None
    assert _apart(policy, lab.optimal_policy(world.reference, world.reward, 1 / 3)) < 1e-11


def test_a_round_ends_where_gradient_descent_ends() -> None:
    method = get("iterative-dpo").configured(parameters={"beta": 1.0, "label_smoothing": 0.1}, reference=fixed())
    solved, world = _rounds(method)
    walked = TabularPolicy(world.reference.log_probs())
    list(lab.train(method.configured(staleness=1999), walked, world, steps=2000, rate=5.0))
    assert _apart(solved, walked) < 1e-9


def test_routes_count_by_their_weight() -> None:
    """Under preferences that no reward explains, two samplers have two minima."""
    policy, world = lab.golden_world()
    cycle = torch.tensor([[[0.5, 0.9, 0.3], [0.1, 0.5, 0.6], [0.7, 0.4, 0.5]]], dtype=torch.float64)
    world = replace(world, preference=cycle, reward=None)
    method = get("samplers-mix-p").configured(parameters={"beta": 0.5}, weights={"uniform": 0.9, "tilted": 0.1})
    sampler, found = policy.frozen(), TabularPolicy(policy.log_probs())
    newton = Newton()
    for _ in range(STEPS):
        step = newton(method, found, world, sampler)
        with torch.no_grad():
            found.logits.sub_(step.view_as(found.logits))
    assert lab.mixture_gradient(method, found, world, sampler=sampler).abs().max().item() < 1e-12


def test_what_is_kept_is_not_used_for_other_frozen_policies() -> None:
    policy, world = lab.golden_world()
    method = get("dice").configured(parameters={"beta": 1.0}, generations=2)
    method = method.with_parts(routes=(replace(method.routes[0], weight=1.0),), offline=False)
    one, two = (
        replace(world, opponent=TabularPolicy(torch.tensor([row]))) for row in ([0.0, 0.3, 0.9], [0.9, 0.3, 0.0])
    )
    newton, sampler = Newton(), policy.frozen()
    newton(method, policy, one, sampler)
    found = newton(method, policy, two, sampler)
    torch.testing.assert_close(found, Newton()(method, policy, two, sampler), atol=0, rtol=0)
    assert not torch.equal(found, Newton()(method, policy, one, sampler))


def test_a_step_is_shortened_as_a_whole() -> None:
    policy = TabularPolicy(torch.tensor([[3.0, -6.0, 0.0]]))
    value = (policy.logits - 1.0).square().sum()
    torch.testing.assert_close(newton_step(value, policy, longest=100.0), policy.logits.detach()[0] - 1)
    assert newton_step(value, policy, longest=3.5).tolist() == pytest.approx([1.0, -3.5, -0.5])


def test_what_the_loss_does_not_depend_on_stays() -> None:
    """The fourth logit, and the sum of the others."""
    policy = TabularPolicy(torch.tensor([[0.3, -0.4, 0.2, 5.0]]))
    value = (policy.logits[0, 0] - policy.logits[0, 1] - 1).square() + (
        policy.logits[0, 1] - policy.logits[0, 2]
    ).square()
    step = newton_step(value, policy)
    assert step[3].item() == pytest.approx(0, abs=1e-12)
    assert step.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("name", ["dpo", "sail-dpp", "sail-dpr", "xpo"])
def test_methods_with_other_terms_are_refused(name: str) -> None:
    policy, world = lab.golden_world()
    with pytest.raises(SpecError, match="Newton steps cover routes with fixed labels alone"):
        Newton()(get(name), policy, world, policy.frozen())
    sampled = get("online-dpo").configured(labels="sampled")
    with pytest.raises(SpecError, match="Newton steps cover"):
        Newton()(sampled, policy, world, policy.frozen())
