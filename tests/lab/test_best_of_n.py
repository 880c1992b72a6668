"""Best of n against enumeration of all draws, published figures and brute force over subsets."""

from __future__ import annotations

from itertools import combinations, permutations, product

import numpy as np
import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.policies.tabular import TabularPolicy

POLICY = TabularPolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log())
REWARD = torch.tensor([[0.0, 1.0, 2.0, 3.0]], dtype=torch.float64)


def _by_enumeration(share: Tensor, reward: Tensor, n: int) -> Tensor:
    """Every sequence of n draws; one of the draws of the highest reward is returned, all equally likely."""
    law = torch.zeros_like(share)
    for draws in product(range(len(share)), repeat=n):
        chance = share[list(draws)].prod()
        best = max(reward[draw].item() for draw in draws)
        winners = [draw for draw in draws if reward[draw].item() == best]
        for winner in winners:
            law[winner] += chance / len(winners)
    return law


@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("reward", [(0, 1, 2, 3), (2, 0, 3, 1), (1, 1, 0, 2), (5, 5, 5, 0), (1, 1, 1, 1)])
def test_the_law_is_that_of_all_draws(n: int, reward: tuple[float, ...]) -> None:
    table = torch.tensor([reward], dtype=torch.float64)
    found = lab.best_of_n_policy(POLICY, table, n).log_probs().detach().exp()
    expected = _by_enumeration(POLICY.log_probs().detach().exp()[0], table[0], n)
    torch.testing.assert_close(found[0], expected, atol=1e-14, rtol=0)


def test_each_prompt_has_its_own_law() -> None:
    policy = TabularPolicy(torch.from_numpy(stream(0, "test-best-of-n").normal(size=(3, 5))))
    reward = torch.from_numpy(stream(1, "test-best-of-n").normal(size=(3, 5)))
    found = lab.best_of_n_policy(policy, reward, 3).log_probs()
    kl = []
    for prompt in range(3):
        alone = TabularPolicy(policy.log_probs()[prompt : prompt + 1])
        one = lab.best_of_n_policy(alone, reward[prompt : prompt + 1], 3).log_probs()
        torch.testing.assert_close(found[prompt : prompt + 1], one, atol=1e-13, rtol=0)
        kl.append(lab.best_of_n_kl(alone, reward[prompt : prompt + 1], 3))
    assert lab.best_of_n_kl(policy, reward, 3) == pytest.approx(sum(kl) / 3, abs=1e-14)


def test_rounds_of_perfect_imitation_are_one_larger_best_of_n() -> None:
    once = lab.best_of_n_policy(POLICY, REWARD, 4).log_probs().detach().exp()[0]
    assert once.tolist() == pytest.approx([0.0256, 0.2145, 0.4160, 0.3439], abs=5e-5)
    policy = POLICY
    for _ in range(3):
        policy = lab.best_of_n_policy(policy, REWARD, 4)
    rounds, directly = policy.log_probs().detach(), lab.best_of_n_policy(POLICY, REWARD, 64).log_probs().detach()
    torch.testing.assert_close(rounds, directly, atol=1e-13, rtol=0)  # of log-probs: to the rarest response
    assert directly[0, 0].exp().item() == pytest.approx(0.4**64, rel=1e-12, abs=0)
    assert directly[0, 1:].exp().tolist() == pytest.approx([1.2198e-10, 1.17902e-3, 0.998821], rel=5e-5, abs=0)


def test_drawing_at_another_temperature_has_another_law() -> None:
    cooled = TabularPolicy(POLICY.log_probs() / 0.85)
    found = lab.best_of_n_policy(cooled, REWARD, 4).log_probs().detach().exp()[0]
    assert found.tolist() == pytest.approx([0.0327, 0.2490, 0.4246, 0.2937], abs=5e-5)


def test_sampling_agrees_with_the_law() -> None:
    draws = POLICY.sample(torch.zeros(1, dtype=torch.int64), torch.from_numpy(stream(2, "lab").random((1, 800_000))))
    kept = draws.view(200_000, 4).amax(1)  # the reward is the index
    found = torch.bincount(kept, minlength=4).double() / 200_000
    law = lab.best_of_n_policy(POLICY, REWARD, 4).log_probs().detach().exp()[0]
    assert (found - law).abs().max().item() < 5e-3


def test_only_the_order_of_the_rewards_counts() -> None:
    stretched = lab.best_of_n_policy(POLICY, REWARD.exp() * 7 - 3, 5).log_probs()
    torch.testing.assert_close(stretched, lab.best_of_n_policy(POLICY, REWARD, 5).log_probs(), atol=0, rtol=0)


def test_rare_responses_keep_their_digits() -> None:
    # A best response of probability 1e-30 is found by n draws with probability n 1e-30, not 0.
    policy = TabularPolicy(torch.tensor([[0.0, -69.07755278982137]], dtype=torch.float64))
    found = lab.best_of_n_policy(policy, torch.tensor([[0.0, 1.0]]), 8).log_probs()[0, 1].exp().item()
    assert found == pytest.approx(8e-30, rel=1e-9, abs=0)


@pytest.mark.parametrize(
    ("n", "exact", "bound"), [(2, 0.182117, 0.193147), (4, 0.607400, 0.636294), (16, 1.477437, 1.835089)]
)
def test_the_formula_is_only_a_bound_on_a_small_policy(n: int, exact: float, bound: float) -> None:
    policy = TabularPolicy(torch.from_numpy(np.random.default_rng(0).normal(size=(1, 6))))
    reward = torch.arange(6, dtype=torch.float64).unsqueeze(0)
    assert lab.best_of_n_kl(policy, reward, n) == pytest.approx(exact, abs=1e-6)
    assert lab.best_of_n_kl_bound(n) == pytest.approx(bound, abs=1e-6)
    for order in permutations(range(6)):
        assert lab.best_of_n_kl(policy, torch.tensor([order], dtype=torch.float64), n) <= lab.best_of_n_kl_bound(n)


def test_the_kl_of_best_of_four() -> None:
    assert lab.best_of_n_kl(POLICY, REWARD, 4) == pytest.approx(0.58711, abs=1e-5)
    assert lab.best_of_n_kl(POLICY, torch.ones(1, 4), 4) == pytest.approx(0, abs=1e-15)
    assert lab.best_of_n_kl(POLICY, REWARD, 10_000) == pytest.approx(-np.log(0.1), abs=1e-9)


def test_the_formula_is_exact_where_no_reward_comes_twice() -> None:
    fine = TabularPolicy.uniform(prompts=1, responses=2000)
    reward = torch.arange(2000, dtype=torch.float64).unsqueeze(0)
    assert lab.best_of_n_kl(fine, reward, 4) == pytest.approx(lab.best_of_n_kl_bound(4), abs=1e-5)
    assert lab.best_of_n_kl(fine, reward, 4) < lab.best_of_n_kl_bound(4)


def _over_subsets(proxy: Tensor, gold: Tensor, n: int) -> float:
    values = []
    for subset in combinations(range(len(proxy)), n):
        chosen = torch.tensor(subset)
        best = chosen[proxy[chosen] == proxy[chosen].max()]
        values.append(gold[best].mean().item())
    return sum(values) / len(values)


@pytest.mark.parametrize("n", [1, 3, 5, 12])
@pytest.mark.parametrize("ties", [False, True])
def test_the_estimate_is_the_mean_over_all_subsets(n: int, ties: bool) -> None:
    numbers = torch.from_numpy(stream(3, "test-best-of-n").normal(size=(2, 12)))
    proxy, gold = numbers[0], numbers[1]
    if ties:
        proxy = (2 * proxy).round()
        assert len(proxy.unique()) < 9
    found = lab.best_of_n_estimate(proxy, gold, n)
    assert found.item() == pytest.approx(_over_subsets(proxy, gold, n), abs=1e-12)
    shuffle = torch.from_numpy(stream(4, "test-best-of-n").permutation(12))
    assert lab.best_of_n_estimate(proxy[shuffle], gold[shuffle], n).item() == pytest.approx(found.item(), abs=1e-14)


def test_the_estimate_is_unbiased_for_the_exact_law() -> None:
    share = POLICY.log_probs().detach().exp()[0]
    proxy, gold = torch.tensor([0.0, 1.0, 1.0, 2.0]), torch.tensor([0.3, -1.0, 2.0, 0.7], dtype=torch.float64)
    law = lab.best_of_n_policy(POLICY, proxy.unsqueeze(0), 2).log_probs().detach().exp()[0]
    draws = torch.tensor(list(product(range(4), repeat=5)))
    expected = (share[draws].prod(-1) * lab.best_of_n_estimate(proxy[draws], gold[draws], 2)).sum()
    assert expected.item() == pytest.approx((law @ gold).item(), abs=1e-14)


def test_one_draw_estimates_the_mean_and_all_draws_the_best() -> None:
    proxy, gold = torch.tensor([0.2, 0.9, 0.5]), torch.tensor([1.0, 2.0, 6.0])
    assert lab.best_of_n_estimate(proxy, gold, 1).item() == pytest.approx(3)
    assert lab.best_of_n_estimate(proxy, gold, 3).item() == pytest.approx(2)


def test_numbers_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one draw, got n = 0"):
        lab.best_of_n_policy(POLICY, REWARD, 0)
    with pytest.raises(ValueError, match="at least one draw"):
        lab.best_of_n_kl_bound(0)
    with pytest.raises(ValueError, match=r"shape \(1, 4\), got \(4,\)"):
        lab.best_of_n_policy(POLICY, REWARD[0], 2)
    with pytest.raises(ValueError, match="one finite number a response"):
        lab.best_of_n_policy(POLICY, REWARD * float("nan"), 2)
    with pytest.raises(ValueError, match="best of 4 cannot be estimated from 3 draws"):
        lab.best_of_n_estimate(torch.zeros(3), torch.zeros(3), 4)
    with pytest.raises(ValueError, match="one number a draw"):
        lab.best_of_n_estimate(torch.zeros(3), torch.zeros(4), 2)
