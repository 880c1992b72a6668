"""Preference games: payoffs, gaps and equilibria against published figures, definitions and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.lab.games import PreferenceGame, exact_kl
from setsail.policies.tabular import TabularPolicy

UNIFORM = (1 / 3, 1 / 3, 1 / 3)


def _shares(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _logits(responses: int, *name: int) -> Tensor:
    from setsail.core import stream

    return torch.from_numpy(stream(0, "test-games", *name).normal(size=responses))


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        (0.05, (0.377434, 0.276500, 0.346065)),
        (0.1, (0.432065, 0.230329, 0.337605)),
        (0.5, (0.643506, 0.193193, 0.163301)),
    ],
)
def test_regularized_nash_of_rock_paper_scissors(beta: float, expected: tuple[float, ...]) -> None:
    found = lab.equilibrium(lab.rock_paper_scissors(beta)).exp()
    torch.testing.assert_close(found, _shares(*expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("mixture", "expected"),
    [
        (0.0, (0.643506, 0.193193, 0.163301)),
        (0.125, (0.649997, 0.188903, 0.161100)),
        (0.375, (0.663614, 0.181749, 0.154637)),
        (1.0, (0.698086, 0.173330, 0.128584)),
    ],
)
def test_stationary_points_of_the_nash_md_policy_gradient(mixture: float, expected: tuple[float, ...]) -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    found = lab.equilibrium(game, mixture)
    torch.testing.assert_close(found.exp(), _shares(*expected), atol=1e-6, rtol=0)
    # E[grad log pi(y) (P(y > pi_m) - 1/2 - beta log(pi / ref))] by enumeration, in logits: pi (a - E a).
    advantage = game.win_rates(game.mixed(found, mixture)) - 0.5 - game.beta * (found - game.reference)
    gradient = found.exp() * (advantage - (found.exp() * advantage).sum())
    assert gradient.abs().max().item() < 1e-15


def test_the_gradient_of_the_payoff_is_the_policy_gradient() -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    logits = _logits(3, 1).requires_grad_()
    opponent = game.mixed(logits.detach(), 0.375)
    (found,) = torch.autograd.grad(game.payoff(logits, opponent), logits)
    policy = logits.detach().log_softmax(-1)
    advantage = game.win_rates(opponent) - 0.5 - game.beta * (policy - game.reference)
    expected = policy.exp() * (advantage - (policy.exp() * advantage).sum())
    torch.testing.assert_close(found, expected, atol=1e-15, rtol=0)


@pytest.mark.parametrize("beta", [1e6, 10.0, 1.0, 0.1, 0.01, 1e-3, 1e-5])
@pytest.mark.parametrize("responses", [2, 3, 10, 40])
def test_the_equilibrium_is_its_own_best_response_down_to_small_penalties(beta: float, responses: int) -> None:
    for seed in range(3):
        game = lab.random_game(seed, responses, beta)
        found = lab.equilibrium(game)
        assert found.exp().sum().item() == pytest.approx(1, abs=1e-13)
        # Rounding of win rates, 1e-16, is divided by beta in log-probs.
        again = (game.reference + game.preference @ found.exp() / beta).log_softmax(-1)
        assert (again - found).abs().max().item() < 1e-15 * max(1, responses / 10) * max(1, 1 / beta)


@pytest.mark.parametrize("beta", [0.1, 0.01, 1e-3])
@pytest.mark.parametrize("mixture", [0.125, 0.5, 0.9])
def test_mixed_opponents_have_a_fixed_point_down_to_small_penalties(
    beta: float, mixture: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("setsail.lab.equilibria._ITERATIONS", 50)  # Newton's method needs no more
    for seed in range(3):
        game = lab.random_game(seed, 10, beta)
        found = lab.equilibrium(game, mixture)
        mixed = ((1 - mixture) * found + mixture * game.reference).softmax(-1)
        again = (game.reference + game.preference @ mixed / beta).log_softmax(-1)
        assert (again - found).abs().max().item() < 1e-15 / beta


def test_small_penalties_on_the_tilted_cycle() -> None:
    beta = 0.01
    game = lab.tilted_rock_paper_scissors(beta)
    found = lab.equilibrium(game)
    assert game.residual(found).item() < 1e-12
    assert game.duality_gap(found).item() < 1e-24
    # To first order in beta: (P - 1/2) pi* = -beta (0.5, 0, -0.5), solved by hand.
    expected = _shares(1 + beta, 1 - 2 * beta, 1 + beta) / 3
    torch.testing.assert_close(found.exp(), expected, atol=3 * beta**2, rtol=0)


def test_a_transitive_game_without_opponent_dependence_is_solved_by_hand() -> None:
    # Two responses: logit(pi) = log ref ratio + (2 p - 1) / 2 / beta, whatever the opponent.
    game = PreferenceGame(_shares(0.5, 0.9, 0.1, 0.5).view(2, 2), _shares(0.3, 0.7).log(), beta=0.2)
    found = lab.equilibrium(game)
    assert (found[0] - found[1]).item() == pytest.approx(math.log(3 / 7) + 0.4 / 0.2, abs=1e-13)


def test_the_gap_is_what_best_responses_win_and_concede() -> None:
    for beta in (2.0, 0.1, 0.01):
        game = lab.random_game(4, 6, beta)
        policy = _logits(6, 2)
        best = game.best_response(policy)
        defined = game.payoff(best, policy) - game.payoff(policy, best)
        assert game.duality_gap(policy).item() == pytest.approx(defined.item(), abs=1e-13)
        # Nothing does better than the best response.
        for other in range(20):
            challenger = _logits(6, 3, other) * 4
            assert game.payoff(challenger, policy).item() <= game.payoff(best, policy).item()
        assert (game.payoff(policy, best) + game.payoff(best, policy)).item() == pytest.approx(1, abs=1e-13)


def test_the_gap_without_a_penalty_is_the_best_win_rate() -> None:
    game = lab.uneven_cycle(beta=0.0)
    policy = _shares(0.5, 0.25, 0.25).log()
    best = game.best_response(policy)
    assert best.exp().tolist() == [0.0, 0.0, 1.0]
    defined = game.payoff(best, policy) - game.payoff(policy, best)
    assert game.duality_gap(policy).item() == pytest.approx(defined.item(), abs=1e-15)
    near = PreferenceGame(game.preference, game.reference, beta=1e-6)
    assert near.duality_gap(policy).item() == pytest.approx(defined.item(), abs=1e-5)


def test_gap_and_payoff_take_a_whole_run_of_policies() -> None:
    game = lab.random_game(0, 5)
    run = torch.stack([_logits(5, 4, index) for index in range(3)])
    one_by_one = torch.stack([game.duality_gap(policy) for policy in run])
    torch.testing.assert_close(game.duality_gap(run), one_by_one, atol=1e-15, rtol=0)
    torch.testing.assert_close(game.payoff(run, run), torch.full((3,), 0.5, dtype=torch.float64), atol=1e-15, rtol=0)
    assert game.residual(run).shape == (3,)


def test_nash_policies_without_a_penalty() -> None:
    torch.testing.assert_close(
        lab.equilibrium(lab.uneven_cycle(beta=0.0)).exp(), _shares(0.3, 0.3, 0.4), atol=1e-15, rtol=0
    )
    for seed in range(10):
        game = lab.random_game(seed, 10 + 5 * seed, beta=0.0)
        nash = lab.equilibrium(game)
        assert abs(game.duality_gap(nash).item()) < 1e-14
        # Complementary slackness: every response in the support wins half of the time.
        assert (game.win_rates(nash)[nash.exp() > 0] - 0.5).abs().max().item() < 1e-14


@pytest.mark.parametrize("e", [0.0, 0.1, 0.3])
def test_three_kinds_of_annotators(e: float) -> None:
    shares = (1 / 3 - e / 4, 1 / 3 + e / 2, 1 / 3 - e / 4)
    game = lab.ranking_game([(0, 1, 2), (1, 2, 0), (2, 0, 1)], shares)
    expected = _shares(1 / 3 + e / 2, 1 / 3 + e / 2, 1 / 3 - e)
    torch.testing.assert_close(lab.equilibrium(game).exp(), expected, atol=1e-14, rtol=0)
    # A small penalty moves it by as little.
    regularized = PreferenceGame(game.preference, game.reference, beta=1e-5)
    torch.testing.assert_close(lab.equilibrium(regularized).exp(), expected, atol=1e-4, rtol=0)
    # Three types that all rank alike are no cycle: the first response is the Nash policy.
    unanimous = lab.ranking_game([(1, 2, 0)] * 3, shares)
    assert lab.equilibrium(unanimous).exp().tolist() == [0, 1, 0]


def test_a_better_reward_may_lose_more_often() -> None:
    reward = torch.tensor([0.0, math.log(9), math.log(2)], dtype=torch.float64)
    game = PreferenceGame(lab.bradley_terry(reward.unsqueeze(0))[0], torch.zeros(3), beta=0.0)
    mixed, sure = _shares(2 / 3, 1 / 3, 0), _shares(0, 0, 1)
    assert (mixed @ reward).item() == pytest.approx(0.7324, abs=5e-5)
    assert (sure @ reward).item() == pytest.approx(0.6931, abs=5e-5)
    assert game.payoff(sure.log(), mixed.log()).item() == pytest.approx(50 / 99, abs=1e-15)


def test_the_equilibrium_of_a_reward_is_not_the_policy_that_maximizes_it() -> None:
    # Both keep the order of the rewards; the game compares win rates, which saturate.
    reward = torch.tensor([[0.0, 3.0, 6.0]], dtype=torch.float64)
    reference = TabularPolicy.uniform(prompts=1, responses=3)
    game = PreferenceGame(lab.bradley_terry(reward)[0], torch.zeros(3), beta=0.5)
    found = lab.equilibrium(game).exp()
    best = lab.optimal_policy(reference, reward, beta=0.5).log_probs()[0].exp()
    assert found.argsort().tolist() == best.argsort().tolist() == [0, 1, 2]
    assert found.max().item() < 0.6 < 0.99 < best.max().item()


def test_divergence_is_exact_near_and_far() -> None:
    p, q = _logits(5, 5).log_softmax(-1), _logits(5, 6).log_softmax(-1)
    plain = (p.exp() * (p - q)).sum().item()
    assert exact_kl(p, q).item() == pytest.approx(plain, rel=1e-13)
    assert exact_kl(p, p).item() == 0
    # Second order around p: KL = Var_p(d) / 2, far below what sums of size 1 resolve.
    direction = _logits(5, 7)
    near = (p + 1e-9 * direction).log_softmax(-1)
    variance = (p.exp() * direction.square()).sum() - (p.exp() * direction).sum().square()
    assert exact_kl(p, near).item() == pytest.approx(0.5e-18 * variance.item(), rel=1e-5, abs=0)
    # A response that p never gives, and one that q all but never gives.
    assert exact_kl(_shares(1, 0).log(), _shares(0.25, 0.75).log()).item() == pytest.approx(math.log(4), abs=1e-15)
    assert exact_kl(_shares(0.5, 0.5).log(), torch.tensor([0.0, -900.0])).item() == pytest.approx(450 - math.log(2))
    assert exact_kl(torch.tensor([0.0, -900.0]), _shares(0.5, 0.5).log()).item() == pytest.approx(math.log(2))


def test_divergence_has_the_gradient_of_kl() -> None:
    p, q = _logits(4, 8).requires_grad_(), _logits(4, 9).requires_grad_()
    found = torch.autograd.grad(exact_kl(p.log_softmax(-1), q.log_softmax(-1)), (p, q))
    first, second = p.log_softmax(-1), q.log_softmax(-1)
    expected = torch.autograd.grad((first.exp() * (first - second)).sum(), (p, q))
    torch.testing.assert_close(found, expected, atol=1e-15, rtol=0)


def test_random_games_come_from_named_streams() -> None:
    game = lab.random_game(3, 7, beta=0.1)
    assert torch.equal(game.preference, lab.random_game(3, 7, beta=0.5).preference)
    assert not torch.equal(game.preference, lab.random_game(4, 7).preference)
    below = torch.cat([lab.random_game(seed, 30).preference.tril(-1).flatten() for seed in range(4)])
    below = below[below > 0]
    assert below.mean().item() == pytest.approx(0.5, abs=0.03)
    assert below.var().item() == pytest.approx(1 / 12, abs=0.01)


def test_tables_of_float32_are_evened_out() -> None:
    table = torch.tensor([[0.5, 0.9], [0.1, 0.5]])
    game = PreferenceGame(table, torch.zeros(2), 0.1)
    assert (game.preference + game.preference.T - 1).abs().max().item() == 0
    assert game.reference.exp().tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("preference", "reference", "beta", "message"),
    [
        (torch.full((2, 3), 0.5), torch.zeros(2), 0.1, "a square table"),
        (torch.full((2, 2), 0.5), torch.zeros(3), 0.1, "one log-prob a response"),
        (torch.tensor([[0.5, 1.5], [-0.5, 0.5]]), torch.zeros(2), 0.1, r"outside \[0, 1\]"),
        (torch.tensor([[0.5, 0.7], [0.7, 0.5]]), torch.zeros(2), 0.1, "off by up to 0.4"),
        (torch.tensor([[0.5, math.nan], [0.3, 0.5]]), torch.zeros(2), 0.1, r"outside \[0, 1\]"),
        (torch.full((2, 2), 0.5), torch.tensor([0.0, -math.inf]), 0.1, "must be finite"),
        (torch.full((2, 2), 0.5), torch.zeros(2), -0.1, "beta must be zero"),
        (torch.full((2, 2), 0.5), torch.zeros(2), math.nan, "beta must be zero"),
    ],
)
def test_a_table_that_is_no_game_is_refused(preference: Tensor, reference: Tensor, beta: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PreferenceGame(preference, reference, beta)


def test_what_needs_a_penalty_says_so() -> None:
    game = lab.rock_paper_scissors(beta=0.0)
    with pytest.raises(ValueError, match="use duality_gap"):
        game.residual(torch.zeros(3))
    with pytest.raises(ValueError, match="needs a penalty"):
        lab.equilibrium(game, mixture=0.1)
    with pytest.raises(ValueError, match="too small a penalty"):
        lab.equilibrium(lab.random_game(0, 10, beta=1e-13))
    with pytest.raises(ValueError, match=r"lies in \[0, 1\], got 1.5"):
        lab.equilibrium(lab.rock_paper_scissors(0.1), mixture=1.5)
    with pytest.raises(ValueError, match=r"lies in \[0, 1\], got -0.1"):
        game.mixed(torch.zeros(3), -0.1)


@pytest.mark.parametrize(
    ("rankings", "shares", "message"),
    [
        ([(0, 1)], (0.5,), "sum to 1"),
        ([(0, 1)], (0.5, 0.5), "each ranking needs a share"),
        ([(0, 1), (1, 1)], (0.5, 0.5), "each of the 2 responses once"),
    ],
)
def test_annotators_that_do_not_rank_are_refused(
    rankings: list[tuple[int, ...]], shares: tuple[float, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        lab.ranking_game(rankings, shares)


def test_an_equilibrium_that_was_not_found_is_not_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("setsail.lab.equilibria._ITERATIONS", 1)
    with pytest.raises(ArithmeticError, match="stopped at a residual of"):
        lab.equilibrium(lab.random_game(0, 10, beta=0.01))


def test_a_random_game_needs_two_responses() -> None:
    with pytest.raises(ValueError, match="at least two"):
        lab.random_game(0, responses=1)
