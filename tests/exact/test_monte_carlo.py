"""Acceptance tests 11, 13, 14, 15: sampled gradients agree with exact ones; baselines are unbiased and pay off."""

from __future__ import annotations

import math
from functools import partial
from itertools import product

import pytest
import torch
from surrogates import oracle, self_averaged, self_sampled
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab import TabularWorld
from setsail.objectives import LogProbs, dpo, draw_preference, implicit_preference, leave_one_out, online_correction
from setsail.objectives import self_labeled as self_labeled_loss
from setsail.policies.tabular import EnumerablePolicy

World = tuple[EnumerablePolicy, TabularWorld]
SIGMAS = 4.5


def _batched_baseline(loss: Tensor, batch: int) -> Tensor:
    return torch.cat([leave_one_out(part) for part in loss.split(batch)])


@pytest.mark.parametrize("labels", ["sampled", "averaged"])
@pytest.mark.parametrize("baseline", [0.0, math.log(2)], ids=["plain", "baseline"])
def test_acceptance_13_oracle_labels(world: World, labels: str, baseline: float) -> None:
    policy, tabular = world
    estimate = lab.monte_carlo_gradient(
        policy, tabular.reference, oracle(0.5, baseline=baseline), preference=tabular.preference, labels=labels
    )
    exact = lab.gradient(-lab.oracle_objective(policy, tabular.reference, tabular.preference, 0.5), policy)
    assert estimate.z_scores(exact).max().item() < SIGMAS


@pytest.mark.parametrize("labels", ["sampled", "averaged"])
@pytest.mark.parametrize("baseline", [0.0, math.log(2)], ids=["plain", "baseline"])
def test_acceptance_13_self_labels(world: World, labels: str, baseline: float) -> None:
    policy, tabular = world
    surrogate = self_sampled if labels == "sampled" else self_averaged
    estimate = lab.monte_carlo_gradient(
        policy, tabular.reference, surrogate(0.5, baseline=baseline), labels=labels, beta=0.5
    )
    exact = lab.gradient(-lab.self_objective(policy, tabular.reference, 0.5), policy)
    assert estimate.z_scores(exact).max().item() < SIGMAS


def test_acceptance_13_notices_a_missing_term(world: World) -> None:
    policy, tabular = world
    estimate = lab.monte_carlo_gradient(
        policy, tabular.reference, oracle(0.5, correction=0.0), preference=tabular.preference
    )
    exact = lab.gradient(-lab.oracle_objective(policy, tabular.reference, tabular.preference, 0.5), policy)
    assert estimate.z_scores(exact).max().item() > 3 * SIGMAS


def test_acceptance_14_leave_one_out_in_batches_of_4_is_unbiased(world: World) -> None:
    policy, tabular = world

    def surrogate(logps: LogProbs, p: Tensor) -> Tensor:
        loss = dpo(logps, p, 0.5)
        return online_correction(loss, logps, 1.0, _batched_baseline(loss, 4))

    estimate = lab.monte_carlo_gradient(
        policy, tabular.reference, surrogate, preference=tabular.preference, batch=4, draws=40_000
    )
    exact = lab.gradient(-lab.oracle_objective(policy, tabular.reference, tabular.preference, 0.5), policy)
    assert estimate.z_scores(exact).max().item() < SIGMAS


def _response_score_term(own_mean: bool) -> Tensor:
    """E[(loss - b) (s1 + s2)] over all batches of two pairs of the golden world, enumerated."""
    policy, tabular = lab.golden_world()
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    assert pairs.p is not None
    logps = pairs.log_probs(policy.frozen(), tabular.reference)
    chance = torch.cat([pairs.weight * pairs.p, pairs.weight * (1 - pairs.p)])
    loss = torch.cat([dpo(logps, label, 0.5) for label in (torch.ones_like(pairs.p), torch.zeros_like(pairs.p))])
    table = lab.scores(policy)
    score = (table[pairs.prompt, pairs.first] + table[pairs.prompt, pairs.second]).repeat(2, 1)
    total = torch.zeros(score.shape[1], dtype=torch.float64)
    for one, other in product(range(len(loss)), repeat=2):
        batch = loss[[one, other]]
        baseline = batch.mean() if own_mean else leave_one_out(batch)
        total += chance[one] * chance[other] * ((batch - baseline).unsqueeze(-1) * score[[one, other]]).mean(0)
    return total


def test_acceptance_14_leave_one_out_is_exact_and_a_mean_with_the_pair_itself_halves_the_term() -> None:
    wanted = -torch.tensor([0.0315032754, -0.0347307659, 0.0032274905], dtype=torch.float64)
    torch.testing.assert_close(_response_score_term(own_mean=False), wanted, atol=1e-9, rtol=0)
    torch.testing.assert_close(_response_score_term(own_mean=True), wanted / 2, atol=1e-9, rtol=0)


def test_acceptance_15_at_the_reference_the_centered_term_is_zero_pair_by_pair(world: World) -> None:
    _, tabular = world
    policy = tabular.reference.frozen().requires_grad_(True)
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    for labels in ("sampled", "averaged"):
        p = pairs.p if labels == "averaged" else torch.ones_like(pairs.weight)
        assert p is not None
        corrected = lab.per_pair_gradients(policy, tabular.reference, pairs, oracle(0.5, baseline=math.log(2)), p)
        plain = lab.per_pair_gradients(policy, tabular.reference, pairs, oracle(0.5, correction=0.0), p)
        assert (corrected - plain).abs().max().item() < 1e-12


def test_acceptance_15_averaged_labels_and_a_baseline_cut_the_variance_of_oracle_pairs(world: World) -> None:
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen(), tabular.preference)
    baseline = -lab.oracle_objective(policy, tabular.reference, tabular.preference, 0.5).item()
    plain = lab.gradient_variance(policy, tabular.reference, pairs, oracle(0.5))
    reduced = lab.gradient_variance(policy, tabular.reference, pairs, oracle(0.5, baseline=baseline), "averaged")
    assert reduced <= 0.25 * plain


def test_acceptance_15_averaged_labels_and_a_baseline_cut_the_variance_of_self_labeled_pairs(world: World) -> None:
    policy, tabular = world
    pairs = lab.policy_pairs(policy.frozen()).self_labeled(policy, tabular.reference, 0.5)
    baseline = -lab.self_objective(policy, tabular.reference, 0.5).item()
    plain = lab.gradient_variance(policy, tabular.reference, pairs, self_sampled(0.5))
    reduced = lab.gradient_variance(policy, tabular.reference, pairs, self_averaged(0.5, baseline=baseline), "averaged")
    assert reduced <= 0.05 * plain


@pytest.mark.parametrize("u", [-3.0, -1.0, 0.0, 0.5, 2.0])
def test_acceptance_11_labels_are_drawn_with_the_implicit_preference(u: float) -> None:
    draws = 100_000
    zero = torch.zeros(draws, dtype=torch.float64)
    preference = implicit_preference(LogProbs(zero + u, zero, zero, zero), beta=1.0)
    uniform = torch.from_numpy(stream(0, "label", str(u)).random(draws))
    frequency = draw_preference(preference, uniform).mean().item()
    chance = 1 / (1 + math.exp(-u))
    assert abs(frequency - chance) < SIGMAS * math.sqrt(chance * (1 - chance) / draws)


def test_a_label_average_is_the_mean_over_drawn_labels(world: World) -> None:
    """Averaging the label and enumerating it give the same loss, pair by pair."""
    policy, tabular = world
    logps = tabular.data.log_probs(policy, tabular.reference)
    q = implicit_preference(logps, 0.5)
    objective = partial(dpo, beta=0.5)
    drawn = q * objective(logps, torch.ones_like(q)) + (1 - q) * objective(logps, torch.zeros_like(q))
    torch.testing.assert_close(self_labeled_loss(objective, logps, 0.5), drawn, atol=1e-12, rtol=0)
