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
from setsail.methods import Method, get
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


def _online(correction: float) -> Method:
    return get("online-dpo").configured(parameters={"beta": 1.0}, corrections={"dpr": correction})


def _mixed(name: str, **changes: dict[str, float]) -> Method:
    return get(name).configured(parameters={"beta": 1.0}, **changes)


METHODS = {
    "T2 only": _online(0.0),
    "T1 0.3": _online(0.3),
    "maximizer of J": _online(1.0),
    "DPR": _mixed("sail-dpr", weights={"dpr": 0.3}, corrections={"dpr": 0.3}),
    "DPP": _mixed("sail-dpp", weights={"dpp": 0.3}, coefficients={"dpp": 1.0}, corrections={"dpp": 1.0}),
    "DDP": _mixed("sail-ddp", weights={"ddp": 0.4}, coefficients={"ddp": 0.2}),
}


def _solution(name: str) -> tuple[EnumerablePolicy, EnumerablePolicy, Tensor, Tensor]:
    """The policy that the row describes, with the world's reference, reward and preference."""
    policy, world, reward = lab.six_responses()
    if name == "pi*":
        return lab.optimal_policy(world.reference, reward, 1.0), world.reference, reward, world.preference
    if name in METHODS:
        fit = lab.train_exact(policy, lambda: lab.mixture_gradient(METHODS[name], policy, world), tolerance=1e-7)
        assert fit.residual <= 1e-7
    return policy, world.reference, reward, world.preference


@pytest.mark.parametrize("name", GOLDEN)
def test_acceptance_27_table_of_solutions(name: str) -> None:
    policy, reference, reward, preference = _solution(name)
    value = lab.oracle_objective(policy, reference, preference, 1.0).item()
    mean, kl = lab.expected_reward(policy, reward).item(), lab.reverse_kl(policy, reference).item()
    found = (value, mean, kl, mean - kl, lab.best_reward_at_kl(reference, reward, kl))
    assert found == pytest.approx(GOLDEN[name], abs=6e-5)


def test_acceptance_27_on_policy_dpo_reaches_the_optimal_policy() -> None:
    policy, reference, reward, _ = _solution("T2 only")
    best = lab.optimal_policy(reference, reward, 1.0).log_probs().exp()
    assert (policy.log_probs().exp() - best).abs().max().item() < 1e-3


def test_acceptance_27_the_exact_gradient_reaches_another_policy() -> None:
    """It keeps more mass on the worst response (0.080 against 0.034): pairs become easier to predict."""
    policy, reference, reward, _ = _solution("maximizer of J")
    wanted = torch.tensor([[0.080, 0.088, 0.102, 0.132, 0.205, 0.394]], dtype=torch.float64)
    torch.testing.assert_close(policy.log_probs().exp().detach(), wanted, atol=5.1e-4, rtol=0)
    best = lab.optimal_policy(reference, reward, 1.0).log_probs().exp()
    assert best[0, 0].item() == pytest.approx(0.034, abs=5e-4)


def test_the_maximizer_of_the_objective_beats_the_optimal_policy_on_it_alone() -> None:
    """Maximizing J is not solving RLHF: each wins on its own scale."""
    ours, reference, reward, preference = _solution("maximizer of J")
    best = lab.optimal_policy(reference, reward, 1.0)

    def both(policy: EnumerablePolicy) -> tuple[float, float]:
        rlhf = lab.expected_reward(policy, reward) - lab.reverse_kl(policy, reference)
        return lab.oracle_objective(policy, reference, preference, 1.0).item(), rlhf.item()

    assert both(ours)[0] > both(best)[0] + 0.01
    assert both(best)[1] > both(ours)[1] + 0.01


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
