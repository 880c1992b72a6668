"""Extragradient on games where one step circles, its bound, and its two gradient steps of online IPO."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.games import PreferenceGame, exact_kl
from setsail.objectives import ipo
from setsail.policies.tabular import TabularPolicy


def _logits(responses: int, *name: int) -> Tensor:
    return torch.from_numpy(stream(0, "test-extragradient", *name).normal(size=responses))


def _ten_responses(beta: float) -> PreferenceGame:
    """Win rates below the diagonal uniform, row by row, then standard normal reference logits."""
    numbers = np.random.default_rng(0)
    below = torch.zeros(10, 10, dtype=torch.float64)
    below[*torch.tril_indices(10, 10, -1)] = torch.from_numpy(numbers.random(45))
    table = below + (1 - below.T).triu(1) + 0.5 * torch.eye(10, dtype=torch.float64)
    return PreferenceGame(table, torch.from_numpy(numbers.normal(size=10)), beta)


@pytest.mark.parametrize(("step", "stuck"), [(0.3, 0.338), (1.0, 0.631)])
def test_extragradient_solves_the_tilted_cycle_where_one_step_does_not(step: float, stuck: float) -> None:
    game = lab.tilted_rock_paper_scissors(beta=0.01)
    run = lab.iterate(lab.extragradient, game, game.reference, 3000, step)
    assert run.gap[-1].item() < 1e-12
    assert game.residual(run.last).item() < 1e-6
    once = lab.iterate(lab.mirror_descent, game, game.reference, 3000, step)
    assert once.gap[-1].item() == pytest.approx(stuck, abs=5e-4)


def test_the_residual_of_the_last_extragradient_iterate_vanishes() -> None:
    game = lab.random_game(2, responses=10, beta=0.1)
    run = lab.iterate(lab.extragradient, game, game.reference, 1000, step=1 / 3.1)
    assert game.residual(run.last).item() < 1e-10
    torch.testing.assert_close(run.last, lab.equilibrium(game), atol=1e-11, rtol=0)


def test_a_small_penalty_separates_extragradient_from_mirror_descent() -> None:
    game = _ten_responses(beta=0.01)
    step = 0.008 / game.beta
    run = lab.iterate(lab.extragradient, game, game.reference, 1000, step)
    once = lab.iterate(lab.mirror_descent, game, game.reference, 1000, step)
    assert run.gap[-1].item() == pytest.approx(4e-10, rel=0.1, abs=0)
    assert once.gap[-1].item() == pytest.approx(5.5e-2, rel=0.01)
    # The slow direction of the one and the spiral of the other, at the equilibrium.
    assert lab.local_factor(lab.extragradient, game, step) == pytest.approx(1 - 0.008, abs=1e-3)
    assert lab.local_factor(lab.mirror_descent, game, step) > 0.999


@pytest.mark.parametrize("beta", [1.0, 0.1, 0.01])
def test_extragradient_keeps_its_bound_on_forty_random_games(beta: float) -> None:
    step = 1 / (beta + 3)
    bound = (1 - step * beta) ** torch.arange(61, dtype=torch.float64)
    for seed in range(40):
        game = lab.random_game(seed, responses=10, beta=beta)
        run = lab.iterate(lab.extragradient, game, game.reference, 60, step)
        assert (run.kl <= bound * run.kl[0] * (1 + 1e-12) + 1e-25).all()


def _population_ipo(logits: Tensor, game: PreferenceGame, opponent: Tensor) -> Tensor:
    """``E[(h(y) - h(y') - (P(y > y'') - P(y' > y'')) / beta)^2]``, y and y' uniform, y'' from the opponent."""
    h = logits.log_softmax(-1) - game.reference
    n = len(h)
    total = torch.zeros((), dtype=torch.float64)
    for third, chance in enumerate(opponent.log_softmax(-1).exp()):
        column = game.preference[:, third]
        wanted = (column.unsqueeze(1) - column.unsqueeze(0)) / game.beta
        total = total + chance * (h.unsqueeze(1) - h.unsqueeze(0) - wanted).square().sum() / n**2
    return total


def _ipo_step(logits: Tensor, game: PreferenceGame, opponent: Tensor, kappa: float) -> Tensor:
    """One gradient step on the population loss, its gradient taken at ``logits``."""
    point = logits.clone().requires_grad_()
    (slope,) = torch.autograd.grad(_population_ipo(point, game, opponent), point)
    return logits - kappa * slope


def test_the_gradient_of_population_ipo() -> None:
    game, logits, opponent = lab.random_game(5, responses=7, beta=0.3), _logits(7, 5), _logits(7, 6)
    point = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(_population_ipo(point, game, opponent), point)
    d = logits.log_softmax(-1) - game.reference - game.win_rates(opponent) / game.beta
    torch.testing.assert_close(found, 4 / 7 * (d - d.mean()), atol=1e-14, rtol=0)


def test_a_gradient_step_of_population_ipo_is_mirror_descent() -> None:
    game, logits, kappa = lab.random_game(5, responses=7, beta=0.3), _logits(7, 5), 0.2
    step = 4 * kappa / 7 / game.beta
    half = _ipo_step(logits, game, logits, kappa)
    torch.testing.assert_close(half.log_softmax(-1), lab.mirror_descent(logits, game, step), atol=1e-14, rtol=0)
    restored = _ipo_step(logits, game, half, kappa)
    expected = lab.extragradient(logits, game, step)
    torch.testing.assert_close(restored.log_softmax(-1), expected, atol=1e-14, rtol=0)
    # Going on from the half step, or sampling the opponent from the old policy again, is another method.
    for other in (_ipo_step(half, game, half, kappa), _ipo_step(logits, game, logits, kappa)):
        assert (other.log_softmax(-1) - expected).abs().max().item() > 1e-3


def test_online_ipo_is_at_rest_at_the_equilibrium() -> None:
    game = lab.random_game(6, responses=6, beta=0.3)
    policy = TabularPolicy(lab.equilibrium(game)[None])
    reference = TabularPolicy(game.reference[None])
    pairs = lab.policy_pairs(policy.frozen(), game.preference[None])
    loss = partial(ipo, beta=game.beta)
    assert lab.expected_gradient(policy, reference, pairs, loss).abs().max().item() < 1e-15
    hard = lab.policy_pairs(policy.frozen(), (game.preference[None] > 0.5).double())
    assert lab.expected_gradient(policy, reference, hard, loss).abs().max().item() > 1e-2


def test_constant_steps_on_a_random_game() -> None:
    game = _ten_responses(beta=0.1)
    runs = {
        rule: lab.iterate(rule, game, game.reference, 1000, step=0.04 / game.beta)
        for rule in (lab.extragradient, lab.mirror_descent, lab.nash_md)
    }
    assert runs[lab.extragradient].gap[-1].item() < 1e-25
    assert runs[lab.mirror_descent].gap[-1].item() < 1e-25
    # The bias of Nash-MD at s beta = 0.04.
    stalled = runs[lab.nash_md]
    assert stalled.gap[-1].item() == pytest.approx(1.4e-4, rel=0.04)
    assert stalled.kl[-1].item() == pytest.approx(2.5e-4, rel=0.01)
    expected = exact_kl(lab.equilibrium(game), lab.equilibrium(game, mixture=0.04)).item()
    assert stalled.kl[-1].item() == pytest.approx(expected, rel=1e-9, abs=0)
    decreasing = lab.iterate(lab.nash_md, game, game.reference, 1000, lab.harmonic_steps(game))
    assert decreasing.kl[-1].item() == pytest.approx(8e-7, rel=0.05)
