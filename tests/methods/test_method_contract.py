"""What every method keeps to, whatever it is: order, batches, coefficients, labels, and plain DPO at the end of it."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from offline_batches import facts, offline
from torch import Tensor

from setsail import lab
from setsail.core import SpecError, stream
from setsail.lab import TabularWorld
from setsail.methods import CATALOGUE, Method, Route, get, route_loss
from setsail.objectives import GroupLogProbs, leave_one_out, nash_policy_gradient
from setsail.policies.tabular import TabularTokenPolicy

each_method = pytest.mark.parametrize("name", CATALOGUE)
SMOOTH_PAIRS = [name for name, method in CATALOGUE.items() if not method.reads_values and not method.robust_radius]
MIXED = [name for name, method in CATALOGUE.items() if method.offline and method.routes]
ONLINE = [name for name, method in CATALOGUE.items() if not method.offline]


def _world() -> tuple[TabularTokenPolicy, TabularWorld]:
    """The token world, with an opponent of its own."""
    policy, world = lab.token_world()
    return policy, replace(world, opponent=lab.token_world(seed=1)[0].frozen())


def _small(name: str) -> Method:
    return get(name).configured(generations=2)


Batch = tuple[Route | None, GroupLogProbs, Tensor | None, Tensor | None]


def _batches(method: Method) -> list[Batch]:
    """Eight groups of each route, and of the offline pairs, with their labels and values."""
    policy, world = _world()
    batches: list[Batch] = []
    if method.offline:
        batches.append((None, *offline(method, policy, world)))
    for route in method.routes:
        [groups] = lab.route_groups(method, route, policy.frozen(), world)
        some = torch.from_numpy(stream(0, "contract").permutation(len(groups.weight))[:8])
        logps = groups.log_probs(policy, world.reference).select(some)
        p, values = (None if each is None else each[some] for each in (groups.p, groups.values))
        batches.append((route, logps, p, values))
    return batches


def _turned(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.flip(-1)


@each_method
def test_the_order_of_the_completions_means_nothing_where_the_objective_says_so(name: str) -> None:
    """A pair with its label, a group with its values, turned around: only one policy gradient tells its sides apart."""
    method = _small(name)
    for route, logps, p, values in _batches(method):
        length = _turned(logps.length)
        turned = GroupLogProbs(logps.policy.flip(-1), logps.reference.flip(-1), length)
        if p is None and not (method.reads_values or (route is not None and route.is_self_labeled)):
            p = torch.ones(8, dtype=torch.float64)
        given, other = facts(method, logps, values), facts(method, turned, _turned(values))
        there = route_loss(method, route, logps, p, values, given).surrogate
        back = route_loss(method, route, turned, None if p is None else 1 - p, _turned(values), other).surrogate
        is_alike = torch.allclose(there, back, atol=1e-10, rtol=1e-12)
        assert is_alike == (method.objective is not nash_policy_gradient)


def _slope(method: Method, batch: Batch, cuts: list[int]) -> Tensor:
    """The gradient of the mean loss in the policy's log-probs, the batch dealt to micro-batches."""
    route, logps, p, values = batch
    leaf = logps.policy.detach().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    known = facts(method, logps, values)
    for start, stop in pairwise([0, *cuts, len(leaf)]):
        index = torch.arange(start, stop)
        part = replace(logps.select(index), policy=leaf[index])
        given = (None if each is None else each[index] for each in (p, values))
        mine = {name: each[index] if each.ndim else each for name, each in known.items()}
        total = total + route_loss(method, route, part, *given, mine).surrogate.sum() / len(leaf)
    return torch.autograd.grad(total, leaf)[0]


@each_method
def test_micro_batches_give_the_gradient_of_the_batch(name: str) -> None:
    """Acceptance 16, over pairs and groups: a part knows the size of the whole and nothing else."""
    for batch in _batches(_small(name)):
        whole = _slope(get(name), batch, [])
        assert whole.any()
        for cuts in ([4], [1, 2, 3, 4, 5, 6, 7], [3, 5]):
            torch.testing.assert_close(_slope(get(name), batch, cuts), whole, atol=1e-13, rtol=1e-12)


@pytest.mark.parametrize("name", [name for name in CATALOGUE if any(r.is_on_policy for r in CATALOGUE[name].routes)])
def test_a_corrected_route_is_cut_like_any_other(name: str) -> None:
    """Where a correction is allowed at all, its baseline is that of the whole batch."""
    try:
        method = _small(name).configured(
            corrections={route.name: 0.3 for route in get(name).routes if route.is_on_policy}
        )
    except SpecError:
        method = _small(name)
        assert (
            method.staleness or method.reads_values or any(r.rule.reads_values or r.acquire < 1 for r in method.routes)
        )
        return
    for route, logps, p, values in _batches(method):
        if route is None or not route.correction:
            continue
        baseline = leave_one_out(route_loss(method, route, logps, p, values).value)
        whole = route_loss(method, route, logps, p, values, baseline=baseline).surrogate
        for index in (torch.arange(0, 3), torch.arange(3, 8)):
            given = None if p is None else p[index]
            part = route_loss(method, route, logps.select(index), given, baseline=baseline[index]).surrogate
            torch.testing.assert_close(part, whole[index], atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", MIXED)
def test_weights_of_zero_are_plain_dpo(name: str) -> None:
    """Bit for bit; robustness and addends left out as well."""
    policy, world = _world()
    method = get(name)
    bare = method.configured(
        weights={route.name: 0.0 for route in method.routes},
        coefficients={route.name: 3.0 for route in method.routes},
        addends={addend.name: 0.0 for addend in method.addends},
        robust_radius=0.0,
    )
    assert not bare.draws
    assert not bare.needs_labeler
    assert torch.equal(*(lab.mixture_gradient(each, policy, world) for each in (bare, get("dpo"))))
    assert not torch.equal(*(lab.mixture_gradient(each, policy, world) for each in (_small(name), get("dpo"))))


@pytest.mark.parametrize("name", ONLINE)
def test_coefficients_scale_the_gradient(name: str) -> None:
    policy, world = _world()
    method = _small(name).with_parts(addends=())
    scaled = method.configured(coefficients={route.name: 0.25 for route in method.routes})
    slope = lab.mixture_gradient(method, policy, world)
    assert slope.any()
    torch.testing.assert_close(lab.mixture_gradient(scaled, policy, world), slope / 4, atol=1e-13, rtol=1e-12)
    nothing = method.configured(coefficients={route.name: 0.0 for route in method.routes})
    assert not lab.mixture_gradient(nothing, policy, world).any()


@pytest.mark.parametrize("name", SMOOTH_PAIRS)
def test_sampled_labels_have_the_expectation_of_averaged_ones(name: str) -> None:
    """Whatever compares pairs; a robust loss is no average over labels, and groups have none."""
    policy, world = _world()
    averaged = _small(name)
    sampled = averaged.configured(labels="sampled")
    slopes = [lab.mixture_gradient(method, policy, world) for method in (averaged, sampled)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-10)


@each_method
def test_training_is_the_same_when_it_is_run_again(name: str) -> None:
    runs = []
    for _ in range(2):
        policy, world = lab.golden_world()
        steps = list(lab.train(_small(name), policy, world, steps=3, rate=0.1))
        runs.append((torch.stack([step.gradient for step in steps]), policy.logits.detach()))
    assert torch.equal(runs[0][0], runs[1][0])
    assert torch.equal(runs[0][1], runs[1][1])
    assert runs[0][0].isfinite().all()


@each_method
def test_the_worlds_reference_and_policies_are_not_touched_by_training(name: str) -> None:
    policy, world = lab.golden_world()
    world = replace(world, opponent=world.reference.frozen())
    before = [world.reference.log_probs().clone(), world.opponent.log_probs().clone()]
    moving = _small(name)
    for _ in lab.train(moving, policy, world, steps=moving.staleness + 2, rate=0.5):
        pass
    assert torch.equal(world.reference.log_probs(), before[0])
    assert torch.equal(world.opponent.log_probs(), before[1])
