"""Game methods on preferences that no reward explains: where each comes to rest, and what its rounds solve exactly."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from exact_rounds import game_world, law, played, shares
from torch import Tensor

from setsail import lab
from setsail.core import Judgement
from setsail.lab import PreferenceGame, TabularWorld, exact_kl
from setsail.methods import Method, Source, compare, get
from setsail.objectives import dpo
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy
from setsail.reference import average, every, fixed


def _policy(log_probs: Tensor) -> TabularPolicy:
    return TabularPolicy(log_probs[None])


def _total_variation(first: EnumerablePolicy, log_probs: Tensor) -> float:
    return 0.5 * (first.log_probs()[0].exp() - log_probs.exp()).abs().sum().item()


# SPPO: a regression that is almost the exponential-weights step.


@pytest.mark.parametrize(("eta", "off"), [(0.1, 2.24402e-8), (1.0, 2.07925e-5), (5.0, 2.02825e-3)])
def test_a_round_of_sppo_is_nearly_the_exponential_weights_step(eta: float, off: float) -> None:
    """On two answers a prompt, where nothing is selected: the published distances of the regression."""
    game, start = lab.uneven_cycle(), torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
    method = get("sppo").configured(parameters={"beta": 1 / eta}, pairing="first-two", generations=2)
    [reached] = played(method, _policy(start), game_world(game, start), 1)
    found = (reached.log_probs()[0].exp() - lab.sppo_exact(start, game, eta).exp()).abs().max().item()
    assert found == pytest.approx(off, rel=1e-4, abs=0)


def test_answers_beyond_the_compared_two_sharpen_win_rates_without_bias() -> None:
    """The expected win rate of a drawn answer against the others is its win rate against the policy."""
    game, start = lab.uneven_cycle(), torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
    world, policy = game_world(game, start), _policy(torch.tensor([0.1, 0.2, -0.4], dtype=torch.float64))
    slopes = [
        lab.mixture_gradient(
            get("sppo").configured(pairing="first-two", generations=n), policy, world, sampler=_policy(start)
        )
        for n in (2, 4)
    ]
    torch.testing.assert_close(*slopes, atol=1e-10, rtol=1e-12)


def test_rounds_of_sppo_leave_from_the_last_iterate() -> None:
    game, start = lab.uneven_cycle(), torch.tensor([0.3, -0.2, 0.0], dtype=torch.float64).log_softmax(-1)
    method = get("sppo").configured(parameters={"beta": 10.0}, pairing="first-two", generations=2)
    rounds = played(method, _policy(start), game_world(game, start), 20)
    exact = lab.iterate(lab.sppo_exact, game, start, 20, step=0.1).log_probs
    for number, after in enumerate(rounds, start=1):
        assert _total_variation(after, exact[number]) < 1e-6
    stays = played(method.configured(reference=fixed()), _policy(start), game_world(game, start), 20)
    assert _total_variation(stays[-1], exact[-1]) > 1e-2


# DNO: soft DPO toward differences of win rates.


def _candidates(game: PreferenceGame, counts: list[int]) -> tuple[list[int], Judgement]:
    """Each answer as often as said, judged by the game."""
    answers = [answer for answer, count in enumerate(counts) for _ in range(count)]
    matrix = game.preference[answers][:, answers]
    return answers, Judgement(preference=tuple(map(tuple, matrix.tolist())), scores=None, labeler="game")


@pytest.mark.parametrize("eta", [0.05, 0.2, 1.0])
def test_many_candidates_make_dno_a_step_of_soft_policy_iteration(eta: float) -> None:
    """Candidates in the policy's own proportions: each label is that of win rates stretched by K / (K - 1)."""
    counts = [3, 4, 5, 8, 8, 12]
    start, game, far = torch.tensor(counts, dtype=torch.float64).div(40).log(), lab.random_game(0, 6, 0.0), []
    for times in (1, 10):
        answers, judgement = _candidates(game, [count * times for count in counts])
        k, rates = len(answers), game.win_rates(start)
        label = torch.full((6, 6), 0.5, dtype=torch.float64)
        route = replace(get("dno").routes[0], pairing="all-pairs")
        for each in compare(route, judgement, k, lambda: 0.0):
            i, j = (answers[index] for index in each.indices)
            assert each.p is not None
            label[i, j], label[j, i] = (each.p, 1 - each.p) if i != j else (0.5, 0.5)
        stretched = k / (k - 1) * (rates.unsqueeze(-1) - rates)
        torch.testing.assert_close(label, torch.sigmoid(stretched), atol=1e-13, rtol=0)
        # The minimum of soft DPO on these labels, from whatever pairs: the step, with eta scaled alike.
        exact = lab.dno_exact(start, game, eta * (k - 1) / k)
        pairs = lab.policy_pairs(TabularPolicy.uniform(1, 6).frozen(), label[None])
        slope = lab.expected_gradient(_policy(exact), _policy(start), pairs, lambda logps, p: dpo(logps, p, eta))
        assert slope.abs().max().item() < 1e-14
        far.append(_total_variation(_policy(exact), lab.dno_exact(start, game, eta)))
    assert far[1] < 0.11 * far[0] < 0.11 * 0.2


def test_the_label_of_dno_is_no_preference_between_the_two() -> None:
    """A cycle, in which all win rates are 1/2 at the uniform policy: nothing to learn, although P is 0 or 1."""
    game = lab.rock_paper_scissors(0.1, (1 / 3, 1 / 3, 1 / 3))
    answers, judgement = _candidates(game, [1, 1, 1])
    assert [each.p for each in compare(get("dno").routes[0], judgement, len(answers), lambda: 0.0)] == [0.5]


# INPO: IPO against the product of start and last iterate.


def test_one_round_of_inpo_from_an_iterate_away_from_the_start() -> None:
    """tau 0.1, eta 0.3 on rock-paper-scissors, start (.6, .3, .1), iterate (.2, .3, .5)."""
    game, iterate = lab.rock_paper_scissors(beta=0.1), law(0.2, 0.3, 0.5)
    anchored = get("inpo").configured(parameters={"beta": 0.3}, generations=2)
    assert anchored.reference.anchor == 1 / 3
    [reached] = played(anchored, iterate, game_world(game), 1)
    assert shares(reached) == pytest.approx((0.217834, 0.521300, 0.260866), abs=1e-6)
    # Other references are other rounds: the start alone, the shares swapped, the iterate alone.
    others = {
        fixed(): (game.reference, (0.426007, 0.490115, 0.083878)),
        every(1, anchor=2 / 3): (game.reference, (0.317978, 0.527618, 0.154404)),
        every(1): (iterate.log_probs().detach()[0], (0.135046, 0.466108, 0.398846)),
    }
    for rule, (reference, wanted) in others.items():
        [other] = played(anchored.configured(reference=rule), iterate, game_world(game, reference), 1)
        assert shares(other) == pytest.approx(wanted, abs=1e-6)


def test_rounds_of_inpo_anchor_the_last_iterate_to_the_start() -> None:
    """tau = beta 0.5 and eta 1: the anchor's share is tau / eta; the distances to the Nash policy are published."""
    game = lab.rock_paper_scissors(beta=0.5)
    method = get("inpo").configured(parameters={"beta": 1.0}, reference=every(1, anchor=0.5), generations=2)
    rounds = played(method, _policy(game.reference), game_world(game), 10)
    exact = lab.iterate(lab.inpo_exact, game, game.reference, 10, step=1.0)
    for number, after in enumerate(rounds, start=1):
        torch.testing.assert_close(after.log_probs()[0], exact.log_probs[number], atol=1e-9, rtol=0)
    # Shares that are not alike: the larger one is the iterate's.
    gentle = get("inpo").configured(parameters={"beta": 2.0}, reference=every(1, anchor=0.25), generations=2)
    for after, wanted in zip(
        played(gentle, _policy(game.reference), game_world(game), 4),
        lab.iterate(lab.inpo_exact, game, game.reference, 4, step=2.0).log_probs[1:],
        strict=True,
    ):
        torch.testing.assert_close(after.log_probs()[0], wanted, atol=1e-9, rtol=0)
    kl = [exact_kl(lab.equilibrium(game), after.log_probs()[0]).item() for after in rounds]
    assert (kl[0], kl[4], kl[9]) == pytest.approx((1.2e-2, 9.9e-5, 2.2e-7), rel=0.04)


def test_an_anchor_of_tau_over_eta_of_one_is_ipo_on_the_start() -> None:
    game = lab.rock_paper_scissors(beta=0.1)
    method = get("inpo").configured(parameters={"beta": 0.1}, reference=fixed(), generations=2)
    start = law(0.2, 0.3, 0.5)
    [reached] = played(method, start, game_world(game), 1)
    torch.testing.assert_close(
        reached.log_probs()[0], game.best_response(start.log_probs().detach()[0]), atol=1e-9, rtol=0
    )


# Policy gradients against an opponent.


def _with_share(share: float) -> Method:
    route = get("nash-md").routes[0]
    opponent = replace(route.candidates[1], share=share)
    method = get("nash-md").with_parts(routes=(replace(route, candidates=(route.candidates[0], opponent)),))
    return method.configured(parameters={"beta": 0.5})


@pytest.mark.parametrize(
    ("share", "rest"),
    [
        (0.0, (0.643506, 0.193193, 0.163301)),
        (0.125, (0.649997, 0.188903, 0.161100)),
        (0.375, (0.663614, 0.181749, 0.154637)),
        (1.0, (0.698086, 0.173330, 0.128584)),
    ],
)
def test_where_nash_md_rests(share: float, rest: tuple[float, ...]) -> None:
    game, policy = lab.rock_paper_scissors(beta=0.5), TabularPolicy.uniform(1, 3)
    for _ in lab.train(_with_share(share), policy, game_world(game), steps=300, rate=5.0):
        pass
    assert shares(policy) == pytest.approx(rest, abs=1e-6)
    torch.testing.assert_close(policy.log_probs().detach()[0], lab.equilibrium(game, mixture=share), atol=1e-6, rtol=0)


def test_the_default_of_nash_md_is_a_share_of_an_eighth() -> None:
    assert get("nash-md").routes[0].candidates[1] == Source(origin="mixture", share=0.125)


def test_nash_ema_follows_its_own_past_to_the_equilibrium() -> None:
    """The opponent is an average of weights, so it ends where the policy does: without a mixture's bias."""
    game, policy = lab.rock_paper_scissors(beta=0.5), TabularPolicy.uniform(1, 3)
    method = get("nash-ema").with_parts(opponent=average(0.1)).configured(parameters={"beta": 0.5})
    for _ in lab.train(method, policy, game_world(game), steps=500, rate=5.0):
        pass
    assert shares(policy) == pytest.approx((0.643506, 0.193193, 0.163301), abs=1e-6)


def test_the_opponent_of_nash_ema_is_the_average_and_not_the_policy() -> None:
    game, policy = lab.rock_paper_scissors(beta=0.5), TabularPolicy.uniform(1, 3)
    method = get("nash-ema").with_parts(opponent=average(0.25))
    seen: list[Tensor] = []

    def watched(method: Method, policy: EnumerablePolicy, world: TabularWorld, sampler: EnumerablePolicy) -> Tensor:
        assert world.opponent is not None
        seen.append(next(world.opponent.parameters()).detach().clone())
        return lab.mixture_gradient(method, policy, world, sampler=sampler)

    expected = _policy(game.reference).logits.detach().clone()
    for step in lab.train(method, policy, game_world(game), steps=6, rate=5.0, direction=watched):
        torch.testing.assert_close(seen[step.number - 1], expected, atol=1e-15, rtol=0)
        expected = 0.75 * expected + 0.25 * policy.logits.detach()


# Extragradient.


def _egpo(beta: float) -> Method:
    """Its warm pair drawn at a temperature so high that all answers are equally likely."""
    route = get("egpo").routes[0]
    uniform = replace(route.candidates[0], sampling=(("temperature", 1e12),))
    routes = (replace(route, candidates=(uniform, *route.candidates[1:])),)
    return get("egpo").with_parts(routes=routes).configured(parameters={"beta": beta})


def _rate(game: PreferenceGame, step: float) -> float:
    """The step size kappa of a gradient step that is a mirror step of this size: ``step beta = 4 kappa / n``."""
    return step * game.beta * len(game.reference) / 4


def test_two_optimizer_steps_of_egpo_are_one_extragradient_step() -> None:
    game = lab.random_game(5, responses=4, beta=0.3)
    policy, at = _policy(game.reference), game.reference
    for step in lab.train(_egpo(0.3), policy, game_world(game), steps=10, rate=_rate(game, 0.8)):
        if step.number % 2:
            half = lab.mirror_descent(at, game, 0.8)
            torch.testing.assert_close(policy.log_probs().detach()[0], half, atol=1e-11, rtol=0)
        else:
            at = lab.extragradient(at, game, 0.8)
            torch.testing.assert_close(policy.log_probs().detach()[0], at, atol=1e-11, rtol=0)


def test_a_look_ahead_without_its_second_step_is_taken_back() -> None:
    game = lab.random_game(5, responses=4, beta=0.3)
    runs = []
    for steps in (4, 5):
        policy = _policy(game.reference)
        for _ in lab.train(_egpo(0.3), policy, game_world(game), steps=steps, rate=_rate(game, 0.8)):
            pass
        runs.append(policy.logits.detach())
    assert torch.equal(*runs)


def test_egpo_rests_at_the_equilibrium() -> None:
    """The default's warm pair will do: whatever law of full support draws it, the equilibrium is the same."""
    game = lab.random_game(2, responses=3, beta=0.1)
    policy = _policy(game.reference)
    for _ in lab.train(get("egpo"), policy, game_world(game), steps=1600, rate=0.5):
        pass
    assert game.residual(policy.log_probs().detach()[0]).item() < 1e-10
    slope = lab.mixture_gradient(get("egpo"), policy, game_world(game))
    assert slope.abs().max().item() < 1e-10


def test_egpo_solves_the_tilted_cycle_where_one_step_does_not() -> None:
    """beta 0.01, eta 0.3, 3000 rounds; without the look-ahead the gap stays at 0.338."""
    game = lab.tilted_rock_paper_scissors(beta=0.01)
    for method, steps in ((_egpo(0.01), 6000), (_egpo(0.01).with_parts(update="plain"), 3000)):
        policy = _policy(game.reference)
        for _ in lab.train(method, policy, game_world(game), steps=steps, rate=_rate(game, 0.3)):
            pass
        gap = game.duality_gap(policy.log_probs().detach()[0]).item()
        assert gap < 1e-12 if method.update == "extragradient" else gap == pytest.approx(0.338, abs=5e-4)


def test_labels_of_the_likelier_side_move_the_equilibrium() -> None:
    game = lab.random_game(6, responses=4, beta=0.3)
    policy, world = _policy(lab.equilibrium(game)), game_world(game)
    assert lab.mixture_gradient(_egpo(0.3), policy, world).abs().max().item() < 1e-12
    hard = replace(world, preference=(world.preference > 0.5).double() + 0.5 * (world.preference == 0.5))
    assert lab.mixture_gradient(_egpo(0.3), policy, hard).abs().max().item() > 1e-2
