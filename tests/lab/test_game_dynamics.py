"""Exact update rules: published steps and distances, stability thresholds, and the objectives they are minima of."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.dynamics import Rule
from setsail.lab.games import PreferenceGame, exact_kl
from setsail.objectives import dpo, ipo
from setsail.policies.tabular import TabularPolicy

UNIFORM = (1 / 3, 1 / 3, 1 / 3)
TILTED_START = (0.2, 0.3, 0.5)


def _log(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


def _close(found: Tensor, *expected: float) -> None:
    torch.testing.assert_close(found.exp(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def _logits(responses: int, *name: int) -> Tensor:
    return torch.from_numpy(stream(0, "test-dynamics", *name).normal(size=responses))


# Nash-MD.


def test_one_step_of_nash_md() -> None:
    game, start = lab.rock_paper_scissors(beta=0.1), _log(*TILTED_START)
    _close(game.mixed(start, 0.2), 0.273326, 0.329115, 0.397560)
    _close(lab.nash_md(start, game, 2.0), 0.254257, 0.371209, 0.374534)
    # The same mixture moved by the win rates against the policy itself is the other rule.
    _close(lab.mirror_descent(start, game, 2.0), 0.217735, 0.432257, 0.350009)


def test_nash_md_with_decreasing_steps_reaches_the_equilibrium() -> None:
    game = lab.rock_paper_scissors(beta=0.1)
    run = lab.iterate(lab.nash_md, game, game.reference, 20_000, lab.harmonic_steps(game))
    assert run.kl[100].item() == pytest.approx(1.6e-5, rel=0.03)
    assert run.kl[1000].item() == pytest.approx(8.5e-7, rel=0.01)
    assert run.kl[20_000].item() == pytest.approx(2.5e-9, rel=0.02)
    # The theorem's bound holds, and is loose.
    bound = 8 / (0.1**2 * (torch.arange(20_001) + 1))
    assert (run.kl <= bound).all()
    assert (bound / run.kl)[1:].min().item() > 200
    # The first step has weight 1 on the reference: the start is forgotten.
    elsewhere = lab.iterate(lab.nash_md, game, _log(*TILTED_START), 2, lab.harmonic_steps(game))
    torch.testing.assert_close(elsewhere.last, run.log_probs[2], atol=1e-14, rtol=0)


def test_nash_md_takes_the_step_of_its_theorem() -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    target = lab.equilibrium(game)
    for seed in range(20):
        start = _logits(3, 1, seed).log_softmax(-1) * 2
        before = exact_kl(target, start.log_softmax(-1))
        for step in (0.01, 0.1, 1.0):
            after = exact_kl(target, lab.nash_md(start, game, step))
            assert after <= (1 - step * 0.5) * before + 2 * step**2


def test_nash_md_with_a_constant_step_comes_to_rest_elsewhere() -> None:
    game = lab.rock_paper_scissors(beta=0.05)
    run = lab.iterate(lab.nash_md, game, game.reference, 2000, step=1.0)
    torch.testing.assert_close(run.last, lab.equilibrium(game, mixture=0.05), atol=1e-10, rtol=0)
    assert run.kl[-1].item() == pytest.approx(7.6e-4, rel=0.005)
    # With the same step, self-play without the mixture does reach the equilibrium.
    assert lab.iterate(lab.mirror_descent, game, game.reference, 2000, step=1.0).kl[-1].item() < 1e-15


# INPO.


def test_the_inpo_step_has_its_closed_form() -> None:
    game = lab.rock_paper_scissors(beta=0.1)
    _close(lab.inpo_exact(_log(*TILTED_START), game, 0.3), 0.217834, 0.521300, 0.260866)
    # With eta = tau it forgets where it was: the best response to the sampler.
    torch.testing.assert_close(
        lab.inpo_exact(_log(*TILTED_START), game, 0.1), game.best_response(_log(*TILTED_START)), atol=1e-13, rtol=0
    )


def test_the_inpo_step_is_the_minimum_of_ipo_on_pairs_of_the_sampler() -> None:
    game, sampler, eta = lab.rock_paper_scissors(beta=0.1), TabularPolicy(_log(*TILTED_START)[None]), 0.3
    anchor = TabularPolicy(game.mixed(_log(*TILTED_START), game.beta / eta)[None])
    policy = TabularPolicy(lab.inpo_exact(_log(*TILTED_START), game, eta)[None])
    loss = partial(ipo, beta=eta)
    own = lab.policy_pairs(sampler.frozen(), game.preference[None])
    assert lab.expected_gradient(policy, anchor, own, loss).abs().max().item() < 1e-14
    # Pairs drawn from elsewhere have another minimum.
    uniform = lab.policy_pairs(TabularPolicy.uniform(1, 3).frozen(), game.preference[None])
    assert lab.expected_gradient(policy, anchor, uniform, loss).abs().max().item() > 1e-2
    fitted = TabularPolicy.uniform(1, 3)
    lab.train_exact(fitted, lambda: lab.expected_gradient(fitted, anchor, uniform, loss), rate=0.5, tolerance=1e-12)
    _close(fitted.log_probs()[0].detach(), 0.327467, 0.340579, 0.331953)


def test_inpo_converges_on_a_strongly_regularized_game() -> None:
    game = lab.rock_paper_scissors(beta=0.5)
    run = lab.iterate(lab.inpo_exact, game, game.reference, 10, step=1.0)
    assert run.kl[1].item() == pytest.approx(1.2e-2, rel=0.04)
    assert run.kl[5].item() == pytest.approx(9.9e-5, rel=0.01)
    assert run.kl[10].item() == pytest.approx(2.2e-7, rel=0.02)


def test_the_stability_threshold_of_inpo_on_a_cycle() -> None:
    game = lab.rock_paper_scissors(0.1, UNIFORM)
    threshold = (0.1**2 + 1 / 12) / (2 * 0.1)
    assert threshold == pytest.approx(0.466667, abs=1e-6)
    assert lab.local_factor(lab.inpo_exact, game, threshold) == pytest.approx(1, abs=1e-12)
    runs = {eta: lab.iterate(lab.inpo_exact, game, _log(0.34, 0.33, 0.33), 4000, eta) for eta in (0.46, 0.48)}
    third = torch.full((3,), 1 / 3, dtype=torch.float64)
    off = {eta: (run.last.exp() - third).abs().max().item() for eta, run in runs.items()}
    assert off[0.46] == pytest.approx(0.0613, abs=5e-5)
    assert off[0.48] == pytest.approx(4.5e-13, rel=0.01, abs=0)
    for run in runs.values():
        assert (run.average.exp() - third).abs().max().item() < 3e-5
    rate = lab.fit_rate(runs[0.48].kl, floor=1e-24)
    assert rate.is_linear
    assert rate.slope == pytest.approx(2 * math.log(lab.local_factor(lab.inpo_exact, game, 0.48)), rel=1e-4)
    assert lab.fit_rate(runs[0.46].kl).kind == "none"


@pytest.mark.parametrize(("beta", "eta"), [(0.1, 0.46), (0.1, 0.48), (0.5, 1.0), (0.0025, 0.0075)])
def test_the_local_factor_has_its_closed_form_on_the_uniform_cycle(beta: float, eta: float) -> None:
    found = lab.local_factor(lab.inpo_exact, lab.rock_paper_scissors(beta, UNIFORM), eta)
    assert found == pytest.approx(math.sqrt((1 - beta / eta) ** 2 + 1 / (12 * eta**2)), rel=1e-9)


def test_the_published_constants_of_inpo_are_far_from_stable_on_a_cycle() -> None:
    game = lab.rock_paper_scissors(0.0025, UNIFORM)
    assert lab.local_factor(lab.inpo_exact, game, 0.0075) == pytest.approx(38.5, abs=0.05)
    first = lab.inpo_exact(_log(0.34, 0.33, 0.33), game, 0.0075)
    second = lab.inpo_exact(first, game, 0.0075)
    assert second.exp().max().item() > 0.999  # a vertex


# SPPO.


def test_the_average_of_exponential_weights_converges_and_the_last_iterate_does_not() -> None:
    game = lab.uneven_cycle(beta=0.0)
    run = lab.iterate(lab.sppo_exact, game, torch.tensor([0.3, -0.2, 0.0]), 4000, step=0.1)
    # What a best response wins above one half.
    assert game.duality_gap(run.average).item() / 2 == pytest.approx(0.0015, abs=5e-5)
    assert run.gap[-1].item() / 2 == pytest.approx(0.110, abs=5e-4)
    assert run.kl[-1].item() > run.kl[0].item()


def test_exponential_weights_do_not_see_the_penalty() -> None:
    game, start = lab.rock_paper_scissors(beta=0.5), _log(*TILTED_START)
    by_hand = (start + 2 * game.preference @ start.exp()).softmax(-1)
    torch.testing.assert_close(lab.sppo_exact(start, game, 2.0).exp(), by_hand, atol=1e-15, rtol=0)
    torch.testing.assert_close(lab.dno_exact(start, game, 0.5).exp(), by_hand, atol=1e-15, rtol=0)


def _regression(policy: Tensor, target: Tensor) -> Tensor:
    """The minimum of ``E_{y ~ policy}[(log pi(y) / policy(y) - target(y))^2]`` over policies, by Newton's method."""

    def loss(logits: Tensor) -> Tensor:
        return (policy.exp() * (logits.log_softmax(-1) - policy - target).square()).sum()

    logits = (policy + target).clone()
    for _ in range(60):
        point = logits.requires_grad_()
        slope = torch.autograd.functional.jacobian(loss, point)
        curvature = torch.autograd.functional.hessian(loss, point)
        logits = (logits - torch.linalg.lstsq(curvature, slope.unsqueeze(-1), driver="gelsd").solution[:, 0]).detach()
    return logits.log_softmax(-1)


@pytest.mark.parametrize(("step", "expected"), [(0.1, 2.24402e-8), (1.0, 2.07925e-5), (5.0, 2.02825e-3)])
def test_the_sppo_regression_is_the_exact_step_only_for_small_steps(step: float, expected: float) -> None:
    game, start = lab.uneven_cycle(beta=0.0), torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
    fitted = _regression(start, step * (game.win_rates(start) - 0.5))
    off = (fitted.exp() - lab.sppo_exact(start, game, step).exp()).abs().max().item()
    assert off == pytest.approx(expected, rel=1e-5, abs=0)


# DNO.


@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
def test_the_dno_step_is_the_minimum_of_soft_label_dpo_on_any_pairs(eta: float) -> None:
    game, start = lab.random_game(0, responses=6, beta=0.0), _logits(6, 2).log_softmax(-1)
    rates = game.win_rates(start)
    label = lab.bradley_terry(rates[None])
    policy = TabularPolicy(lab.dno_exact(start, game, eta)[None])
    for sampler in (start, _logits(6, 3)):
        pairs = lab.policy_pairs(TabularPolicy(sampler[None]).frozen(), label)
        found = lab.expected_gradient(policy, TabularPolicy(start[None]), pairs, partial(dpo, beta=eta))
        assert found.abs().max().item() < 1e-14
    # The preference itself in place of the difference of win rates is another target.
    wrong = lab.policy_pairs(TabularPolicy(start[None]).frozen(), game.preference[None])
    assert lab.expected_gradient(policy, TabularPolicy(start[None]), wrong, partial(dpo, beta=eta)).abs().max() > 1e-4


@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
def test_a_dno_round_never_loses_to_the_policy_before_it(eta: float) -> None:
    for seed in range(10):
        game, start = lab.random_game(seed, responses=6, beta=0.0), _logits(6, 4, seed).log_softmax(-1)
        after = lab.dno_exact(start, game, eta)
        won = game.payoff(after, start).item()
        there, back = exact_kl(after, start).item(), exact_kl(start, after).item()
        assert won == pytest.approx(0.5 + eta * (there + back), abs=1e-14)
        assert won >= 0.5 + eta * there


def test_the_win_rate_of_a_dno_round() -> None:
    numbers = np.random.default_rng(1)
    below = torch.zeros(6, 6, dtype=torch.float64)
    below[*torch.tril_indices(6, 6, -1)] = torch.from_numpy(numbers.random(15))
    table = below + (1 - below.T).triu(1) + 0.5 * torch.eye(6, dtype=torch.float64)
    game = PreferenceGame(table, torch.zeros(6), beta=0.0)
    start = torch.from_numpy(numbers.normal(size=6)).log_softmax(-1)
    after = lab.dno_exact(start, game, 0.2)
    assert game.payoff(after, start).item() == pytest.approx(0.55545, abs=5e-6)
    assert 0.5 + 0.2 * exact_kl(after, start).item() == pytest.approx(0.52426, abs=5e-6)


# The rules, and runs of them.


@pytest.mark.parametrize("rule", [lab.mirror_descent, lab.extragradient])
def test_the_equilibrium_is_a_fixed_point(rule: Rule) -> None:
    game = lab.random_game(0, responses=8, beta=0.05)
    target = lab.equilibrium(game)
    torch.testing.assert_close(rule(target, game, 0.7), target, atol=1e-12, rtol=0)
    torch.testing.assert_close(lab.inpo_exact(target, game, 1 / 0.7), target, atol=1e-12, rtol=0)


@pytest.mark.parametrize("rule", [lab.mirror_descent, lab.nash_md, lab.extragradient, lab.sppo_exact, lab.dno_exact])
def test_rules_take_logits_and_many_policies_at_once(rule: Rule) -> None:
    game = lab.random_game(0, responses=4, beta=0.2)
    start = torch.stack([_logits(4, 7), _logits(4, 8)])
    together = rule(start, game, 0.5)
    alone = torch.stack([rule(each.log_softmax(-1), game, 0.5) for each in start])
    torch.testing.assert_close(together, alone, atol=1e-14, rtol=0)
    torch.testing.assert_close(together.exp().sum(-1), torch.ones(2, dtype=torch.float64), atol=1e-14, rtol=0)


def test_a_run_holds_its_start_and_measures_every_iterate() -> None:
    game, start = lab.random_game(0, responses=4, beta=0.2), _logits(4, 9)
    run = lab.iterate(lab.mirror_descent, game, start, 3, step=lambda t: 0.5 / (t + 1))
    by_hand = [start.log_softmax(-1)]
    for t in range(3):
        by_hand.append(lab.mirror_descent(by_hand[-1], game, 0.5 / (t + 1)))
    torch.testing.assert_close(run.log_probs, torch.stack(by_hand), atol=0, rtol=0)
    torch.testing.assert_close(run.average, torch.stack(by_hand).exp().mean(0).log(), atol=1e-15, rtol=0)
    assert run.gap[2].item() == pytest.approx(game.duality_gap(by_hand[2]).item(), rel=1e-12)
    assert run.kl[2].item() == pytest.approx(exact_kl(lab.equilibrium(game), by_hand[2]).item(), rel=1e-12)
    towards = lab.iterate(lab.mirror_descent, game, start, 0, 0.5, target=start.log_softmax(-1))
    assert towards.kl.tolist() == [0.0]


def test_a_local_factor_predicts_the_measured_rate() -> None:
    game = lab.random_game(0, responses=5, beta=0.2)
    run = lab.iterate(lab.nash_md, game, game.reference, 400, step=1.0)
    rest = lab.equilibrium(game, mixture=0.2)
    factor = lab.local_factor(lab.nash_md, game, 1.0, at=rest)
    rate = lab.fit_rate(exact_kl(rest, run.log_probs)[20:], floor=1e-24)
    assert rate.is_linear
    assert rate.slope == pytest.approx(2 * math.log(factor), rel=0.02)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda game, start: lab.mirror_descent(start, game, 0.0), "step must be positive"),
        (lambda game, start: lab.mirror_descent(start, game, 11.0), "use a step of at most 10"),
        (lambda game, start: lab.nash_md(start, game, 11.0), "use a step of at most 10"),
        (lambda game, start: lab.extragradient(start, game, 11.0), "use a step of at most 10"),
        (lambda game, start: lab.inpo_exact(start, game, 0.05), "weight of the reference"),
        (lambda game, start: lab.sppo_exact(start, game, -1.0), "step must be positive"),
        (lambda game, start: lab.dno_exact(start, game, 0.0), "step must be positive"),
        (lambda game, start: lab.iterate(lab.nash_md, game, start, -1, 1.0), "must not be negative"),
        (lambda game, start: lab.harmonic_steps(lab.uneven_cycle(0.0)), "beta must be positive"),
    ],
)
def test_steps_that_cannot_be_taken_are_refused(call: Callable[[PreferenceGame, Tensor], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(lab.rock_paper_scissors(0.1), torch.zeros(3))
