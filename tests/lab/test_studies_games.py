"""The parts of the studies of preference games: rounds solved to the end, judges, token gradients, resting points."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies import egpo_runs, hard_labels, nash_ema, position_bias
from setsail.lab.studies import nash_md_tokens as tokens
from setsail.lab.studies import self_play_laws as laws
from setsail.lab.studies import self_play_rounds as play
from setsail.lab.studies.game_runs import curve, drawn_from, game_world, iterates, told
from setsail.methods import Source, get
from setsail.policies.tabular import TabularPolicy, TabularTokenPolicy


def _log(*shares: float) -> Tensor:
    return torch.tensor(shares, dtype=torch.float64).log()


# What the studies share.


def test_a_curve_ends_where_its_values_reach_the_floor() -> None:
    drawn = curve("gap", [10.0**-step for step in range(30)], floor=1e-5)
    assert drawn.x == [0, 1, 2, 3, 4]
    assert drawn.y == [1.0, 0.1, 1e-2, 1e-3, 1e-4]
    thinned = curve("gap", torch.ones(1001), points=100, style="dashed", color=2)
    assert (len(thinned.x), thinned.x[1], thinned.style, thinned.color) == (101, 10, "dashed", 2)


def test_a_number_below_the_floor_is_not_told() -> None:
    assert told(2e-20) == 2e-20
    assert told(0.0) == "< 1e-20"
    assert told(1e-13, 1e-12) == "< 1e-12"


def test_a_game_trains_on_its_own_win_rates() -> None:
    game = lab.rock_paper_scissors(0.5)
    path = iterates(
        get("nash-md").configured(parameters={"beta": 0.5}), game_world(game), game.reference, steps=4, rate=1.0
    )
    assert path.shape == (5, 3)
    torch.testing.assert_close(path[0], game.reference)
    start = path[0].clone().requires_grad_()
    (slope,) = torch.autograd.grad(game.payoff(start, game.mixed(path[0], 0.125)), start)
    torch.testing.assert_close(path[1], (path[0] + slope).log_softmax(-1), atol=1e-14, rtol=0)


def test_only_every_so_many_iterates_are_kept() -> None:
    game = lab.rock_paper_scissors(0.5)
    method = drawn_from(get("nash-md"), Source(origin="policy"), Source(origin="policy"))
    whole = iterates(method, game_world(game), game.reference, steps=6, rate=1.0)
    assert torch.equal(iterates(method, game_world(game), game.reference, steps=6, rate=1.0, every=3), whole[::3])


# EGPO.


def test_the_largest_stable_step_of_extragradient_is_the_root_of_its_eigenvalue() -> None:
    for beta in (0.1, 0.01):
        step = egpo_runs.largest_step(beta, egpo_runs.EGPO)
        pull, turn = 1 - step * beta, step / math.sqrt(12)
        assert abs(complex(pull - turn**2, turn * pull)) == pytest.approx(1, abs=1e-9)


def test_two_answers_can_stand_in_for_three() -> None:
    game = lab.random_game(4, responses=4, beta=0.2)
    policy = TabularPolicy(torch.linspace(-1, 1, 4, dtype=torch.float64)[None])
    slopes = [
        lab.mixture_gradient(make().configured(parameters={"beta": 0.2}), policy, game_world(game))
        for make, _ in (
            egpo_runs.METHODS["egpo, y1 and y2 from the policy"],
            egpo_runs.METHODS["online-ipo, extragradient"],
        )
    ]
    torch.testing.assert_close(*slopes, atol=1e-13, rtol=0)


def test_a_run_that_circles_has_no_measured_factor() -> None:
    assert egpo_runs.cycle_run(0.01, 1.0, egpo_runs.ONLINE_IPO).measured == "none"


# Nash-MD.


def test_the_token_local_gradient_is_each_score_times_its_own_log_ratio() -> None:
    policy, reference = tokens.two_tokens(tokens.POLICY), tokens.two_tokens(tokens.REFERENCE)
    surrogate = torch.zeros((), dtype=torch.float64)
    chances = policy.log_probs()[0].detach().exp()
    for place, sequence in enumerate(policy.sequences()):
        own, other = (each.token_log_probs(0, sequence) for each in (policy, reference))
        surrogate = surrogate + chances[place] * ((own - other).detach() * own).sum()
    exact, local = tokens.kl_gradients(policy, reference)
    torch.testing.assert_close(local, lab.gradient(surrogate, policy), atol=1e-14, rtol=0)
    whole = lab.finite_difference(lambda: lab.reverse_kl(policy, reference), lab.parameters(policy))
    torch.testing.assert_close(exact, whole, atol=1e-8, rtol=0)


def test_answers_of_the_token_worlds_have_their_full_length() -> None:
    policy = tokens.two_tokens(tokens.POLICY)
    drawn = tokens.answers(policy)
    assert len(drawn) == 9
    assert policy.log_probs()[0, drawn].exp().sum().item() == pytest.approx(1, abs=1e-15)


def test_answers_of_one_token_have_no_later_tokens_to_forget() -> None:
    one, other = (TabularTokenPolicy(torch.tensor([[[0.3, -0.2, 0.5]]]) * sign, 1) for sign in (1.0, -1.0))
    exact, local = tokens.kl_gradients(one, other)
    torch.testing.assert_close(exact, local, atol=1e-7, rtol=0)


def test_an_average_that_follows_at_once_is_the_policy_itself() -> None:
    game, rate = lab.rock_paper_scissors(0.1, nash_ema.UNIFORM), 2.0
    found = nash_ema.average_factor(game, rate, 1.0)
    # Self-play: the covariance is 1/3 and the table turns by 1 / sqrt(12).
    assert found == pytest.approx(abs(1 + rate / 3 * complex(-0.1, 1 / math.sqrt(12))), abs=1e-12)


@pytest.mark.parametrize(("beta", "circles"), [(0.13, True), (0.16, False)])
def test_averages_circle_below_half_the_turn_of_the_cycle(beta: float, circles: bool) -> None:
    game = lab.rock_paper_scissors(beta, nash_ema.UNIFORM)
    factor = nash_ema.average_factor(game, nash_ema.RATE, nash_ema.RATE * beta / 3)
    assert (factor > 1) == circles


# Rounds of self-play.


def test_a_round_ends_at_the_minimum_of_its_loss() -> None:
    wanted = _log(0.2, 0.5, 0.3)
    found = play.minimize(lambda policy: (policy.log_probs()[0] - wanted).square().sum(), torch.zeros(3))
    torch.testing.assert_close(found, wanted, atol=1e-14, rtol=0)


def test_rounds_of_dno_with_two_answers_take_the_pair_for_the_policy() -> None:
    """With two answers the win rates are the pair's own preference: the labels are sigmoid(2 P - 1)."""
    game = lab.uneven_cycle()
    found = play.next_policy(play.dno(0.3, 2), play.START, game)
    target = torch.sigmoid(2 * game.preference - 1)
    policy, reference = TabularPolicy(found[None]), TabularPolicy(play.START[None])
    pairs = lab.policy_pairs(reference.frozen(), target[None])
    slope = lab.expected_gradient(
        policy, reference, pairs, get("dpo").configured(parameters={"beta": 0.3}).bound_objective()
    )
    assert slope.abs().max().item() < 1e-13


def test_a_collapsed_run_stops() -> None:
    path = play.rounds("inpo", 7.5e-3, 5, 12)
    assert len(path) == 2
    assert path[-1].exp().max().item() > play.COLLAPSED
    assert len(play.rounds("sppo", 1.0, 5, 12)) == 13


def test_inpo_rounds_mix_the_start_into_the_reference() -> None:
    start = tuple(play.START.exp().tolist())
    game, elsewhere = lab.uneven_cycle(0.1, start), lab.uneven_cycle(0.1, (0.2, 0.2, 0.6))
    policy = _log(0.5, 0.2, 0.3)
    for each in (game, elsewhere):
        found = play.next_policy(play.inpo(0.3), policy, each)
        torch.testing.assert_close(found, lab.inpo_exact(policy, each, 0.3), atol=1e-12, rtol=0)


def test_averages_are_of_probabilities_and_grow_with_the_run() -> None:
    run = lab.iterate(lab.sppo_exact, lab.uneven_cycle(), play.START, 5, 0.5)
    found = laws.averages(run)
    torch.testing.assert_close(found[0], run.log_probs[0])
    torch.testing.assert_close(found[-1], run.average, atol=1e-14, rtol=0)


# Labels.


def test_the_margin_under_verdicts_solves_its_equation() -> None:
    for step in (10, 5000):
        u = hard_labels.MARGIN_BETA * hard_labels.law(step)
        assert math.exp(u) + u - 1 == pytest.approx(2 * hard_labels.MARGIN_RATE * hard_labels.MARGIN_BETA**2 * step)


@pytest.mark.parametrize("judge", position_bias.JUDGES)
def test_two_orders_make_a_judge_even_handed(judge: str) -> None:
    gaps = torch.linspace(-2, 2, 9, dtype=torch.float64)
    both = position_bias.judged(gaps, judge) + position_bias.judged(-gaps, judge)
    assert (judge.startswith("both")) == bool(((both - 1).abs() < 1e-12).all())


def test_averaged_log_odds_are_unbiased_and_averaged_probabilities_too_even() -> None:
    gaps = torch.tensor([0.4, 2.0], dtype=torch.float64)
    true = torch.sigmoid(gaps)
    torch.testing.assert_close(position_bias.judged(gaps, position_bias.ODDS), true, atol=1e-15, rtol=0)
    averaged = position_bias.judged(gaps, position_bias.BOTH)
    assert ((averaged > 0.5) & (averaged < true)).all()


def test_a_rounded_game_keeps_its_ties() -> None:
    rounded = hard_labels.decided(lab.uneven_cycle(0.3))
    assert rounded.preference.tolist() == [[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]]
