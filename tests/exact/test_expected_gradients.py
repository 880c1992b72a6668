"""Acceptance tests 3, 4, 5, 7, 8, 10: the expected gradient of each surrogate is that of its objective.

Everything is enumerated in float64; the comparison is central finite differences of the objective (arXiv 2406.15567).
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
from surrogates import oracle, self_averaged, self_sampled
from torch import Tensor

from setsail import lab
from setsail.lab import Surrogate, TabularWorld, WeightedPairs
from setsail.objectives import LogProbs, dpo, online_correction, self_labeled_sampled
from setsail.policies.tabular import EnumerablePolicy, TabularTokenPolicy

World = tuple[EnumerablePolicy, TabularWorld]
EXACT = 1e-6
WRONG = 1e-2


def _relative_error(found: Tensor, wanted: Tensor) -> float:
    return ((found - wanted).norm() / wanted.norm()).item()


def _oracle_error(world: World, beta: float, surrogate: Surrogate, labels: str = "sampled") -> float:
    """Relative distance between a surrogate's expected gradient and the gradient of -J."""
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    found = lab.expected_gradient(policy, tabular.reference, pairs, surrogate, labels)
    wanted = lab.finite_difference(
        lambda: -lab.oracle_objective(policy, tabular.reference, tabular.preference, beta), lab.parameters(policy)
    )
    return _relative_error(found, wanted)


def _self_error(world: World, beta: float, surrogate: Surrogate, labels: str = "sampled") -> float:
    """Relative distance between a surrogate's expected gradient and the gradient of -J'."""
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen()).self_labeled(policy, tabular.reference, beta)
    found = lab.expected_gradient(policy, tabular.reference, pairs, surrogate, labels)
    wanted = lab.finite_difference(lambda: -lab.self_objective(policy, tabular.reference, beta), lab.parameters(policy))
    return _relative_error(found, wanted)


def _ddp_error(world: World, beta: float, r: float, rho: float, surrogate: Surrogate) -> float:
    """Relative distance between the mixture's expected gradient and that of (1-r) DPO + r rho entropy."""
    policy, tabular = world
    own = tabular.data.self_labeled(policy, tabular.reference, beta)
    offline = lab.expected_gradient(policy, tabular.reference, tabular.data, partial(dpo, beta=beta))
    relabeled = lab.expected_gradient(policy, tabular.reference, own, surrogate)
    wanted = lab.finite_difference(
        lambda: lab.ddp_objective(policy, tabular.reference, tabular.data, r, rho, beta), lab.parameters(policy)
    )
    return _relative_error((1 - r) * offline + r * relabeled, wanted)


@pytest.mark.parametrize("labels", ["sampled", "averaged"])
@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_acceptance_3_oracle_labels(world: World, beta: float, labels: str, baseline: float) -> None:
    assert _oracle_error(world, beta, oracle(beta, baseline=baseline), labels) < EXACT


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_acceptance_4_self_labels_sampled(world: World, beta: float, baseline: float) -> None:
    assert _self_error(world, beta, self_sampled(beta, baseline=baseline)) < EXACT


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_acceptance_4_self_labels_averaged(world: World, beta: float, baseline: float) -> None:
    assert _self_error(world, beta, self_averaged(beta, baseline=baseline), "averaged") < EXACT


@pytest.mark.parametrize(("r", "rho"), [(0.4, 0.2), (0.4, 0.0), (0.3, 1.0)])
def test_acceptance_4_relabeled_data_set(world: World, beta: float, r: float, rho: float) -> None:
    assert _ddp_error(world, beta, r, rho, self_sampled(beta, correction=0.0, label_score=rho)) < EXACT


@pytest.mark.parametrize("correction", [-1.0, 0.0], ids=["flipped", "dropped"])
def test_acceptance_5_a_wrong_response_score_term_is_noticed(world: World, beta: float, correction: float) -> None:
    assert _oracle_error(world, beta, oracle(beta, correction)) > WRONG
    assert _self_error(world, beta, self_sampled(beta, correction)) > WRONG
    assert _self_error(world, beta, self_averaged(beta, correction), "averaged") > WRONG


def test_acceptance_5_a_missing_label_score_is_noticed(world: World, beta: float) -> None:
    assert _self_error(world, beta, self_sampled(beta, label_score=0.0)) > WRONG
    assert _self_error(world, beta, self_averaged(beta, label_score=False), "averaged") > WRONG
    assert _ddp_error(world, beta, 0.3, 1.0, self_sampled(beta, correction=0.0, label_score=0.0)) > WRONG


def test_acceptance_7_the_self_labeled_gradient_has_mean_zero_for_every_pair(world: World, beta: float) -> None:
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen()).self_labeled(policy, tabular.reference, beta)
    assert pairs.p is not None
    each = pairs.p.unsqueeze(-1) * lab.per_pair_gradients(
        policy, tabular.reference, pairs, partial(dpo, beta=beta), torch.ones_like(pairs.p)
    ) + (1 - pairs.p).unsqueeze(-1) * lab.per_pair_gradients(
        policy, tabular.reference, pairs, partial(dpo, beta=beta), torch.zeros_like(pairs.p)
    )
    assert each.abs().max().item() < 1e-12


def test_acceptance_7_a_self_labeled_route_with_coefficient_0_has_mean_zero(world: World, beta: float) -> None:
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen()).self_labeled(policy, tabular.reference, beta)

    def surrogate(logps: LogProbs, label: Tensor) -> Tensor:
        return self_labeled_sampled(partial(dpo, beta=beta), logps, 1 - label, 0.0, beta)

    assert lab.expected_gradient(policy, tabular.reference, pairs, surrogate).abs().max().item() < 1e-12


def test_acceptance_8_the_reference_is_stationary_for_self_improvement(world: World, beta: float) -> None:
    _, tabular = world
    policy = tabular.reference.frozen().requires_grad_(True)
    slope = lab.gradient(lab.self_objective(policy, tabular.reference, beta), policy)
    assert slope.abs().max().item() < 1e-12


def test_acceptance_8_the_response_score_term_has_mean_zero_at_the_reference(world: World, beta: float) -> None:
    _, tabular = world
    policy = tabular.reference.frozen().requires_grad_(True)
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    corrected = lab.expected_gradient(policy, tabular.reference, pairs, oracle(beta))
    plain = lab.expected_gradient(policy, tabular.reference, pairs, oracle(beta, correction=0.0))
    assert (corrected - plain).abs().max().item() < 1e-12
    assert plain.abs().max().item() > 1e-3


def test_acceptance_10_without_correction_policy_pairs_are_plain_dpo(world: World, beta: float) -> None:
    policy, tabular = world
    data = tabular.data
    corrected = lab.expected_gradient(policy, tabular.reference, data, oracle(beta, correction=0.0), "averaged")
    plain = lab.gradient(lab.risk(policy, tabular.reference, data, partial(dpo, beta=beta)), policy)
    assert torch.equal(corrected, plain)


def test_acceptance_23_samples_at_another_temperature_follow_another_gradient(beta: float) -> None:
    """The score identity needs draws from the policy itself: at temperature 0.9 the check of test 3 fails."""
    policy, tabular = lab.token_world()
    cooled = lab.policy_pairs(_cooled(policy, 0.9), tabular.preference)
    found = lab.expected_gradient(policy, tabular.reference, cooled, oracle(beta))
    wanted = lab.gradient(-lab.oracle_objective(policy, tabular.reference, tabular.preference, beta), policy)
    assert _relative_error(found, wanted) > 0.1


def _cooled(policy: EnumerablePolicy, temperature: float) -> EnumerablePolicy:
    """The policy whose next-token distributions are sharpened by a temperature."""
    cooled = policy.frozen()
    for parameter in cooled.parameters():
        parameter.div_(temperature)
    return cooled


def test_acceptance_19_answers_without_eos_are_draws_like_any_other(beta: float) -> None:
    """Cut answers belong to the enumeration (test 3 counts them); without them the correction is another.

    With the mask it follows ``E[(loss - b) 1{both finished}]``: a pair with a cut answer counts as one of loss b, so
    here the baseline matters and must be near the mean loss.
    """
    policy, tabular = lab.token_world()
    assert isinstance(policy, TabularTokenPolicy)
    frozen, finished, baseline = policy.frozen(), policy.finished(), 0.6
    pairs = lab.policy_pairs(frozen, tabular.preference)
    both = finished[pairs.first] & finished[pairs.second]

    def masked(logps: LogProbs, p: Tensor) -> Tensor:
        loss = dpo(logps, p, beta)
        return online_correction(loss, logps, 1.0, baseline, both) - loss

    def stated() -> Tensor:
        moving = lab.policy_pairs(policy, tabular.preference)
        loss = dpo(moving.log_probs(frozen, tabular.reference), moving.p, beta)
        return (moving.weight * (loss - baseline) * both).sum()

    found = lab.expected_gradient(policy, tabular.reference, pairs, masked, "averaged")
    assert _relative_error(found, lab.finite_difference(stated, lab.parameters(policy))) < EXACT


def test_the_exact_gradient_by_autograd_equals_finite_differences(world: World, beta: float) -> None:
    """The lab's objectives are differentiable through the sampling as well."""
    policy, tabular = world
    for objective in (
        lambda: lab.oracle_objective(policy, tabular.reference, tabular.preference, beta),
        lambda: lab.self_objective(policy, tabular.reference, beta),
        lambda: lab.ddp_objective(policy, tabular.reference, tabular.data, beta=beta),
    ):
        wanted = lab.finite_difference(objective, lab.parameters(policy))
        assert _relative_error(lab.gradient(objective(), policy), wanted) < EXACT


def test_policy_pairs_are_a_distribution(world: World) -> None:
    policy, tabular = world
    pairs: WeightedPairs = lab.policy_pairs(policy, tabular.preference)
    assert pairs.weight.sum().item() == pytest.approx(1, abs=1e-12)
    assert tabular.data.weight.sum().item() == pytest.approx(1, abs=1e-12)
