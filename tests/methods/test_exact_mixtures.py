"""The expected training gradient is that of the stated objective, where there is one; by enumeration in float64.

Stated are objectives of pairs on independent completions; ``test_gradients_by_hand.py`` proves the other methods.

Without a correction the completions are held fixed: the gradient is that of the expected loss on today's samples
(``frozen`` below), which is what on-policy DPO follows. With ``correction = coefficient`` it is the gradient of the
whole expectation, the sampling included (arXiv 2406.15567).
"""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import SpecError
from setsail.lab import TabularWorld
from setsail.methods import CATALOGUE, Method, get, route_loss
from setsail.objectives import dpo, implicit_preference, leave_one_out, robust
from setsail.policies.tabular import EnumerablePolicy

World = tuple[EnumerablePolicy, TabularWorld]


def _is_stated(method: Method) -> bool:
    policy, world = lab.golden_world()
    try:
        lab.stated_objective(method, policy, world)
    except SpecError:
        return False
    return True


VARIANTS = [
    (name, preset)
    for name, method in CATALOGUE.items()
    if _is_stated(method)
    for preset in ("default", *method.presets)
]


@pytest.fixture(params=["softmax", "autoregressive"])
def world(request: pytest.FixtureRequest) -> World:
    return lab.golden_world() if request.param == "softmax" else lab.token_world()


def _variant(name: str, preset: str, beta: float) -> Method:
    method = get(name) if preset == "default" else get(name).preset(preset)
    return method.configured(parameters={"beta": beta})


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def _error(method: Method, world: World, baseline: float = 0.0) -> float:
    policy, tabular = world
    frozen = policy.frozen()
    wanted = lab.finite_difference(
        lambda: lab.stated_objective(method, policy, tabular, frozen), lab.parameters(policy)
    )
    return _relative_error(lab.mixture_gradient(method, policy, tabular, baseline), wanted)


def test_the_methods_on_independent_pairs_have_a_stated_objective() -> None:
    independent = {
        name
        for name, method in CATALOGUE.items()
        if not method.reads_values
        and all(not route.draws or route.is_on_policy for route in method.routes)
        and all((route.pairing, route.label) == ("first-two", "preference") for route in method.routes)
    }
    assert {name for name, _ in VARIANTS} == independent
    assert len(independent) >= 19


@pytest.mark.parametrize("beta", [0.1, 0.5])
@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_training_follows_the_stated_objective(name: str, preset: str, beta: float, world: World) -> None:
    assert _error(_variant(name, preset, beta), world) < 1e-6


@pytest.mark.parametrize("name", ["sail-ddp", "sail-dpp", "sail-dpr", "sail-mix", "online-dpo"])
def test_sampled_labels_have_the_same_expectation(name: str, world: World) -> None:
    policy, tabular = world
    corrections = {route.name: 0.2 for route in get(name).routes if route.draws}
    averaged = get(name).configured(parameters={"beta": 0.5}, corrections=corrections)
    sampled = averaged.configured(labels="sampled")
    assert _error(sampled, world) < 1e-6
    slopes = [lab.mixture_gradient(method, policy, tabular) for method in (averaged, sampled)]
    torch.testing.assert_close(*slopes, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", ["sail-dpp", "sail-dpr", "sail-revkl"])
def test_a_baseline_does_not_move_the_expectation(name: str, world: World) -> None:
    assert _error(_variant(name, "published", 0.5), world, baseline=math.log(2)) < 1e-6


def test_a_baseline_does_not_move_the_expectation_of_a_robust_loss(world: World) -> None:
    method = get("sail-robust").configured(parameters={"beta": 0.5}, corrections={"dpr": 0.3})
    assert _error(method, world, baseline=math.log(2)) < 1e-6


@pytest.mark.parametrize("labels", ["averaged", "sampled"])
@pytest.mark.parametrize("name", ["sail-dpp", "sail-dpr", "sail-mix"])
def test_coefficient_and_correction_scale_their_own_terms(name: str, labels: str, world: World) -> None:
    routes = [route for route in get(name).routes if route.draws]
    method = get(name).configured(
        parameters={"beta": 0.5},
        coefficients={route.name: 0.6 for route in routes},
        corrections={route.name: 0.25 for route in routes},
        labels=labels,
    )
    assert _error(method, world) < 1e-6


def test_online_ipo_takes_a_correction_too(world: World) -> None:
    method = get("online-ipo").configured(parameters={"beta": 0.5}, corrections={"dpr": 1.0})
    assert _error(method, world) < 1e-6


@pytest.mark.parametrize("name", ["sail-dpp", "sail-dpr", "online-dpo"])
def test_the_frozen_samples_matter(name: str, world: World) -> None:
    """Without correction the gradient is *not* that of the expectation under the moving policy."""
    policy, tabular = world
    method = _variant(name, "default", 0.5)
    moving = lab.gradient(lab.stated_objective(method, policy, tabular, policy), policy)
    assert _relative_error(lab.mixture_gradient(method, policy, tabular), moving) > 1e-3


# The closed forms that the catalogue states, written without the method's own parts.


def test_sail_ddp_is_dpo_and_entropy_in_closed_form(world: World) -> None:
    policy, tabular = world
    found = lab.mixture_gradient(_variant("sail-ddp", "published", 0.5), policy, tabular)
    wanted = lab.gradient(lab.ddp_objective(policy, tabular.reference, tabular.data, 0.4, 0.2, 0.5), policy)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


def test_sail_dpp_as_published_descends_on_a_fifth_of_the_self_objective(world: World) -> None:
    """Coefficient = correction = 0.2: the route's gradient is exactly 0.2 times that of -J'."""
    policy, tabular = world
    found = lab.mixture_gradient(_variant("sail-dpp", "published", 0.5), policy, tabular)
    offline = lab.gradient(lab.risk(policy, tabular.reference, tabular.data, partial(dpo, beta=0.5)), policy)
    sharpening = lab.finite_difference(
        lambda: -lab.self_objective(policy, tabular.reference, 0.5), lab.parameters(policy)
    )
    assert _relative_error(found, 0.7 * offline + 0.3 * 0.2 * sharpening) < 1e-6


def test_sail_dpr_with_a_correction_of_1_descends_on_the_oracle_objective(world: World) -> None:
    policy, tabular = world
    method = get("sail-dpr").configured(parameters={"beta": 0.5}, corrections={"dpr": 1.0})
    offline = lab.gradient(lab.risk(policy, tabular.reference, tabular.data, partial(dpo, beta=0.5)), policy)
    oracle = lab.finite_difference(
        lambda: -lab.oracle_objective(policy, tabular.reference, tabular.preference, 0.5), lab.parameters(policy)
    )
    assert _relative_error(lab.mixture_gradient(method, policy, tabular), 0.7 * offline + 0.3 * oracle) < 1e-6


def test_online_dpo_is_dpo_on_frozen_samples(world: World) -> None:
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    wanted = lab.gradient(lab.risk(policy, tabular.reference, pairs, partial(dpo, beta=0.5)), policy)
    found = lab.mixture_gradient(_variant("online-dpo", "default", 0.5), policy, tabular)
    torch.testing.assert_close(found, wanted, atol=1e-12, rtol=1e-10)


def test_sail_revkl_adds_the_gradient_of_the_forward_kl(world: World) -> None:
    policy, tabular = world
    with_penalty, without = (
        lab.mixture_gradient(_variant(name, "published", 0.5), policy, tabular) for name in ("sail-revkl", "sail-dpr")
    )
    kl = lab.finite_difference(lambda: lab.forward_kl(policy, tabular.reference), lab.parameters(policy))
    assert _relative_error(with_penalty - without, 1e-3 * kl) < 1e-6


def test_sail_robust_adds_the_mean_margin() -> None:
    """In the interior: sail-dpr plus radius times E|u|, for preferences farther than the radius from certainty."""
    policy, tabular = lab.token_world()
    tabular = TabularWorld(
        tabular.reference, tabular.data.labeled(torch.full((8,), 0.4, dtype=torch.float64)), tabular.preference
    )
    method = get("sail-robust").configured(parameters={"beta": 0.5}, robust_radius=0.01)
    plain = get("sail-dpr").configured(parameters={"beta": 0.5})
    frozen = policy.frozen()

    def margins() -> Tensor:
        on_policy = lab.policy_pairs(frozen, tabular.preference)
        sizes = [
            (pairs.weight * 0.5 * pairs.log_probs(policy, tabular.reference).log_ratio_difference().abs()).sum()
            for pairs in (tabular.data, on_policy)
        ]
        return 0.01 * (0.7 * sizes[0] + 0.3 * sizes[1])

    found = lab.mixture_gradient(method, policy, tabular) - lab.mixture_gradient(plain, policy, tabular)
    assert _relative_error(found, lab.finite_difference(margins, lab.parameters(policy))) < 1e-6


def test_acceptance_10_a_labeled_route_without_correction_is_dpo_on_its_pairs(world: World) -> None:
    policy, tabular = world
    logps = tabular.data.log_probs(policy, tabular.reference)
    method = get("sail-dpr")
    routed = route_loss(method, method.routes[0], logps.group(), tabular.data.p)
    offline = route_loss(method, None, logps.group(), tabular.data.p)
    assert torch.equal(routed.surrogate, offline.surrogate)


def test_the_logged_value_is_the_plain_loss(world: World) -> None:
    """Neither scaled by the coefficient nor corrected: baselines are means of it."""
    policy, tabular = world
    logps = tabular.data.log_probs(policy, tabular.reference)
    method = _variant("sail-dpp", "published", 0.5)
    loss = route_loss(method, method.routes[0], logps.group(), None, baseline=0.3)
    q = implicit_preference(logps, 0.5)
    torch.testing.assert_close(loss.value, dpo(logps, q, 0.5), atol=1e-12, rtol=0)
    total = logps.policy_first + logps.policy_second
    torch.testing.assert_close(loss.surrogate, 0.2 * loss.value + 0.2 * (loss.value - 0.3) * total, atol=1e-12, rtol=0)


def _loss_of_step(method: Method, world: World, cuts: list[int]) -> Tensor:
    """One step on eight pairs, dealt to micro-batches that know the global baseline and the global count."""
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    chosen = torch.arange(8) * 7 % len(pairs.weight)
    logps = pairs.log_probs(policy, tabular.reference).select(chosen)
    assert pairs.p is not None
    p, uniform = pairs.p[chosen], torch.linspace(0.05, 0.95, 8, dtype=torch.float64)
    route = method.routes[0]
    baseline = leave_one_out(route_loss(method, route, logps.group(), p, uniform=uniform).value)
    total = torch.zeros((), dtype=torch.float64)
    for start, stop in pairwise([0, *cuts, 8]):
        index = torch.arange(start, stop)
        part = route_loss(
            method, route, logps.select(index).group(), p[index], uniform=uniform[index], baseline=baseline[index]
        )
        total = total + part.surrogate.sum() / 8
    return lab.gradient(total, policy)


@pytest.mark.parametrize("labels", ["averaged", "sampled"])
@pytest.mark.parametrize("name", ["sail-dpp", "sail-dpr", "sail-robust"])
def test_acceptance_16_micro_batches_give_the_gradient_of_the_batch(name: str, labels: str, world: World) -> None:
    method = get(name)
    method = method.configured(labels=labels, corrections={route.name: 0.3 for route in method.routes})
    whole = _loss_of_step(method, world, [])
    for cuts in ([4], [1, 2, 3, 4, 5, 6, 7], [3, 5]):
        torch.testing.assert_close(_loss_of_step(method, world, cuts), whole, atol=1e-12, rtol=1e-10)


def test_robustness_reaches_every_route(world: World) -> None:
    policy, tabular = world
    logps = tabular.data.log_probs(policy, tabular.reference)
    wanted = robust(dpo, 0.05)(logps, tabular.data.p)
    method = get("sail-robust")
    for route in (None, *method.routes):
        value = route_loss(method, route, logps.group(), tabular.data.p).value
        torch.testing.assert_close(value, wanted, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sppo", "sppo: the stated objective is an expected loss over pairs, but sppo is over groups"),
        ("nash-md", "but nash_policy_gradient is a policy gradient, whose value means nothing"),
        ("dno", "is over independent pairs of the policy under the labeler's preference, but this route"),
        ("xpo", "but this route compares policy \\+ reference by first-two"),
    ],
)
def test_what_is_no_loss_of_independent_pairs_has_no_stated_objective_here(
    name: str, message: str, world: World
) -> None:
    policy, tabular = world
    with pytest.raises(SpecError, match=message):
        lab.stated_objective(get(name), policy, tabular)


def test_pairs_chosen_by_score_have_no_stated_objective_here(world: World) -> None:
    policy, tabular = world
    method = get("sail-dpr").configured(pairing="best-worst")
    with pytest.raises(SpecError, match="is over independent pairs of the policy"):
        lab.stated_objective(method, policy, tabular)
