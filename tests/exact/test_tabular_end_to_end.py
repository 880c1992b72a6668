"""Acceptance test 27: where training on each objective ends, on one prompt with six responses at beta 1.

Rewards 0, 0.5, ..., 2.5, uniform reference, Bradley-Terry labels; the data set holds every ordered pair. The values
are those of an exact solution of each objective (arXiv 2406.15567's routes); rows read J, E[r], KL, E[r] - beta KL and
the best E[r] that any policy reaches at that KL.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies import sail_objective
from setsail.objectives import dpo
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

GOLDEN = {
    "reference": (-0.6931, 1.2500, 0.0, 1.2500, 1.2500),
    "pi*": (-0.6037, 1.8864, 0.2965, 1.5899, 1.8864),
    "T2 only": (-0.6037, 1.8864, 0.2965, 1.5899, 1.8864),
    "T1 0.3": (-0.5931, 1.8215, 0.2382, 1.5833, 1.8242),
    "maximizer of J": (-0.5870, 1.7385, 0.1853, 1.5532, 1.7595),
    "DPR": (-0.6016, 1.8737, 0.2840, 1.5897, 1.8737),
    "DPP": (-0.6368, 2.0618, 0.5421, 1.5196, 2.0857),
    "DDP": (-0.6130, 1.9510, 0.3655, 1.5855, 1.9510),
}
ROWS = dict(zip(GOLDEN, sail_objective.ROWS, strict=True))
"""The same rows, as the lab's study names them."""


@pytest.mark.parametrize("name", GOLDEN)
def test_acceptance_27_table_of_solutions(name: str) -> None:
    found = sail_objective.solution(ROWS[name])
    numbers = (found.objective, found.reward, found.kl, found.rlhf, found.best_reward)
    assert numbers == pytest.approx(GOLDEN[name], abs=6e-5)


def test_acceptance_27_training_ends_where_the_gradient_vanishes() -> None:
    """The study's policies are solutions: the expected gradient at each is zero."""
    _, world, _ = lab.six_responses()
    for name, method in sail_objective.METHODS.items():
        shares = torch.tensor([sail_objective.solution(name).shares], dtype=torch.float64)
        slope = lab.mixture_gradient(method, TabularPolicy(shares.log()), world)
        assert slope.abs().max().item() <= 1e-7


def test_acceptance_27_on_policy_dpo_reaches_the_optimal_policy() -> None:
    best, found = (sail_objective.solution(ROWS[name]).shares for name in ("pi*", "T2 only"))
    assert found == pytest.approx(best, abs=1e-3)


def test_acceptance_27_the_exact_gradient_reaches_another_policy() -> None:
    """It keeps more mass on the worst response (0.080 against 0.034): pairs become easier to predict."""
    found = sail_objective.solution(ROWS["maximizer of J"]).shares
    assert found == pytest.approx((0.080, 0.088, 0.102, 0.132, 0.205, 0.394), abs=5.1e-4)
    assert sail_objective.solution(ROWS["pi*"]).shares[0] == pytest.approx(0.034, abs=5e-4)


def test_the_maximizer_of_the_objective_beats_the_optimal_policy_on_it_alone() -> None:
    """Maximizing J is not solving RLHF: each wins on its own scale."""
    ours, best = (sail_objective.solution(ROWS[name]) for name in ("maximizer of J", "pi*"))
    assert ours.objective > best.objective + 0.01
    assert best.rlhf > ours.rlhf + 0.01


def _fit_one_pair(direction: Callable[[EnumerablePolicy, EnumerablePolicy], Tensor]) -> float:
    """P(first preferred) that training on a single pair ends with."""
    policy = TabularPolicy.uniform(prompts=1, responses=2)
    reference = policy.frozen()
    fit = lab.train_exact(policy, lambda: direction(policy, reference), rate=4.0)
    assert fit.residual <= 1e-9
    index = torch.tensor([0])
    u = policy.pair_log_probs(reference, index, index, index + 1).log_ratio_difference()
    return torch.sigmoid(u).item()


@pytest.mark.parametrize(("r", "rho", "fitted"), [(0.4, 0.2, 0.7258), (0.4, 1.0, 0.848), (0.4, 0.0, 0.7)])
def test_acceptance_27_self_labeling_is_over_confident(r: float, rho: float, fitted: float) -> None:
    """A pair with true P = 0.70: the more weight the policy's own label has, the more certain it ends up."""
    pairs = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([0.7], dtype=torch.float64))
    found = _fit_one_pair(
        lambda policy, reference: lab.gradient(lab.ddp_objective(policy, reference, pairs, r, rho, beta=1.0), policy)
    )
    assert found == pytest.approx(fitted, abs=6e-4)


def test_offline_dpo_fits_the_preference_of_a_pair() -> None:
    pairs = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([0.7], dtype=torch.float64))
    found = _fit_one_pair(
        lambda policy, reference: lab.gradient(lab.risk(policy, reference, pairs, partial(dpo, beta=1.0)), policy)
    )
    assert found == pytest.approx(0.7, abs=1e-6)
