"""Rewards from comparisons: the fit has no slope, the pessimistic fit is RPO, policies lie at the KL asked for."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.learnt_reward import Comparisons, compare_draws, fit_reward, rare_is_worse, tilted_to
from setsail.lab.newton import newton_step
from setsail.objectives import dpo
from setsail.policies.tabular import TabularPolicy

REFERENCE = TabularPolicy(torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64).log()).frozen()


def _four() -> Tensor:
    wins = torch.zeros(1, 4, 4, dtype=torch.float64)
    for (won, lost), share in {(0, 1): 0.35, (1, 0): 0.15, (1, 2): 0.3, (2, 1): 0.2}.items():
        wins[0, won, lost] = share
    return wins


def _drawn_wins(prompts: int = 3, comparisons: int = 40) -> tuple[TabularPolicy, Tensor, Comparisons]:
    numbers = stream(0, "test-learnt-reward")
    reference, gold = rare_is_worse(numbers, prompts=prompts, responses=6)
    uniforms = torch.from_numpy(numbers.random((prompts, comparisons, 3)))
    return reference, gold, compare_draws(reference, gold, uniforms)


def test_two_responses_are_as_far_apart_as_their_odds() -> None:
    reward = fit_reward(torch.tensor([[[0.0, 7.0], [2.0, 0.0]]]))[0]
    assert (reward[0] - reward[1]).item() == pytest.approx(math.log(7 / 2))
    assert reward.sum().item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("ridge", "pessimism"), [(0.1, 0.0), (1.0, 0.0), (0.1, 2.0), (0.0, 2.0)])
def test_the_slope_of_the_objective_is_zero_at_the_fit(ridge: float, pessimism: float) -> None:
    reference, _, data = _drawn_wins()
    wins, base, beta = data.wins(), data.chosen(), 0.7
    reward = fit_reward(wins, ridge=ridge, pessimism=pessimism, reference=reference, base=base, beta=beta)
    reward = reward.clone().requires_grad_()
    value = (wins * torch.nn.functional.softplus(reward.unsqueeze(-2) - reward.unsqueeze(-1))).sum()
    value = value + ridge / 2 * reward.square().sum()
    log_partition = (reference.log_probs().detach() + reward / beta).logsumexp(-1)
    value = value + pessimism * (beta * log_partition - (base * reward).sum(-1)).sum()
    [slope] = torch.autograd.grad(value, reward)
    assert slope.abs().max().item() < 1e-10


def test_the_pessimistic_reward_leads_to_the_policy_of_rpo() -> None:
    """arXiv 2405.16436: max over policies, min over rewards, with the chosen responses as the base."""
    wins = _four()
    reward = fit_reward(wins, pessimism=0.3, reference=REFERENCE, base=wins.sum(-1), beta=0.5)
    found = lab.optimal_policy(REFERENCE, reward, 0.5).log_probs().exp()[0]
    assert found.tolist() == pytest.approx([0.5916, 0.2851, 0.1233, 0.0], abs=1e-4)


def test_without_pessimism_the_best_policy_of_the_fit_is_that_of_dpo() -> None:
    wins, policy = _four(), TabularPolicy(REFERENCE.log_probs())
    best = lab.optimal_policy(REFERENCE, fit_reward(wins), 0.5).log_probs()[0, :3].log_softmax(-1)
    prompt, won, lost = wins.nonzero().T
    pairs = lab.WeightedPairs(prompt, won, lost, wins[prompt, won, lost], torch.ones(4, dtype=torch.float64))
    for _ in range(30):
        loss = lab.risk(policy, REFERENCE, pairs, partial(dpo, beta=0.5))
        step = newton_step(loss, policy)
        with torch.no_grad():
            policy.logits.sub_(step.view_as(policy.logits))
    # The fourth is never compared: DPO says nothing of its share.
    torch.testing.assert_close(policy.log_probs()[0, :3].log_softmax(-1), best, atol=1e-10, rtol=0)


def test_responses_that_are_never_compared_tie_exactly() -> None:
    wins = torch.zeros(2, 5, 5, dtype=torch.float64)
    wins[:, 1, 3], wins[:, 3, 1] = 2.0, 1.0
    reward = fit_reward(wins, ridge=0.05)
    assert reward[:, [0, 2, 4]].abs().max().item() == 0
    assert (reward[:, 1] > 0).all()


def test_each_prompt_is_fitted_alone() -> None:
    wins = _drawn_wins()[2].wins()
    together = fit_reward(wins, ridge=0.3)
    for prompt in range(3):
        alone = fit_reward(wins[prompt : prompt + 1], ridge=0.3)
        torch.testing.assert_close(together[prompt : prompt + 1], alone, atol=1e-10, rtol=0)


def test_a_response_that_always_won_is_held_by_the_ridge_alone() -> None:
    wins = torch.tensor([[[0.0, 3.0], [0.0, 0.0]]])
    assert (fit_reward(wins)[0, 0] - fit_reward(wins)[0, 1]).item() > 20
    reward = fit_reward(wins, ridge=0.5)[0, 0].item()
    assert 3 / (1 + math.exp(2 * reward)) == pytest.approx(0.5 * reward)


def test_a_fit_that_does_not_end_is_refused() -> None:
    """Steps are at most beta long, and so small a beta does not get to rewards of a nat."""
    wins, even = torch.tensor([[[0.0, 9.0], [1.0, 0.0]]]), TabularPolicy.uniform(1, 2)
    base = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    with pytest.raises(ValueError, match="give a larger ridge or beta"):
        fit_reward(wins, ridge=1e-3, pessimism=1e-3, reference=even, base=base, beta=1e-3)


def test_pessimism_asks_for_what_it_is_measured_against() -> None:
    with pytest.raises(ValueError, match="give both"):
        fit_reward(_four(), pessimism=0.1)


def test_comparisons_are_counted() -> None:
    data = Comparisons(torch.tensor([[0, 0, 2]]), torch.tensor([[1, 2, 1]]), responses=3)
    assert data.wins().tolist() == [[[0, 1, 1], [0, 0, 0], [0, 1, 0]]]
    assert data.chosen()[0].tolist() == pytest.approx([2 / 3, 0, 1 / 3])
    again = data.resampled(stream(0, "test-learnt-reward", "again"))
    assert again.wins().sum().item() == 3
    assert {*zip(again.won[0].tolist(), again.lost[0].tolist(), strict=True)} <= {(0, 1), (0, 2), (2, 1)}


def test_labels_are_drawn_by_the_gold_reward() -> None:
    reference, gold = TabularPolicy.uniform(1, 2), torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    uniforms = torch.from_numpy(stream(1, "test-learnt-reward").random((1, 20_000, 3)))
    wins = compare_draws(reference, gold, uniforms).wins()[0]
    share = wins[1, 0] / (wins[1, 0] + wins[0, 1])
    assert share.item() == pytest.approx(1 / (1 + math.exp(-1)), abs=0.02)
    assert (wins.trace() / 20_000).item() == pytest.approx(0.5, abs=0.02)


def test_in_these_worlds_what_is_rare_is_mostly_worse() -> None:
    reference, gold = rare_is_worse(stream(0, "test-learnt-reward", "worlds"), prompts=200, responses=50)
    log_probs = reference.log_probs().detach()
    centered = log_probs - log_probs.mean(-1, keepdim=True)
    assert gold.var().item() == pytest.approx(1, abs=0.03)
    assert centered.std().item() == pytest.approx(2, abs=0.06)
    assert torch.corrcoef(torch.stack((centered.flatten(), gold.flatten())))[0, 1].item() == pytest.approx(
        0.7, abs=0.02
    )


def test_a_policy_is_tilted_to_the_kl_that_is_asked_for() -> None:
    reference, gold, _ = _drawn_wins()
    start = reference.log_probs().detach()
    wanted = torch.tensor([0.05, 0.3, 0.8], dtype=torch.float64)
    for kl in (0.2, wanted):
        table = tilted_to(reference, gold, kl).log_probs().detach()
        found = (table.exp() * (table - start)).sum(-1)
        torch.testing.assert_close(found, torch.as_tensor(kl, dtype=torch.float64).expand(3), atol=1e-9, rtol=0)
        # The tilt is along the reward: log-ratios are linear in it.
        ratio = table - start
        slope = (ratio[:, 1:] - ratio[:, :1]) / (gold[:, 1:] - gold[:, :1])
        torch.testing.assert_close(slope, slope[:, :1].expand_as(slope), atol=1e-9, rtol=1e-9)


def test_beyond_the_furthest_policy_there_is_only_the_best_response() -> None:
    shares = tilted_to(TabularPolicy.uniform(1, 2), torch.tensor([[0.0, 1.0]]), 5.0).log_probs().exp()[0]
    assert shares.tolist() == pytest.approx([0, 1])
