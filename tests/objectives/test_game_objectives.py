"""Objectives of preference games against equilibria, minimizers and gradients that are known without sampling.

The game of rock, paper, scissors is cyclic: no reward explains it. With the reference (0.6, 0.3, 0.1) its regularized
equilibria are known to six digits (the game of arXiv 2312.00886).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from bandit import ROCK_PAPER_SCISSORS, chance, every_pair, groups_of_two, minimizer, numbers, random_game
from torch import Tensor, nn

from setsail import lab
from setsail.core import stream
from setsail.objectives import GroupLogProbs, LogProbs, ipo, nash_policy_gradient, online_ipo, sppo
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

REFERENCE = numbers(0.6, 0.3, 0.1).log()
CYCLE = torch.tensor([[0.5, 0.9, 0.2], [0.1, 0.5, 0.8], [0.8, 0.2, 0.5]], dtype=torch.float64)


def _equilibrium(preference: Tensor, reference: Tensor, beta: float) -> Tensor:
    """``log pi`` with ``pi = pi_ref exp(P pi / beta) / Z``, by mirror descent."""
    logits = reference
    for _ in range(4000):
        logits = 0.98 * logits + 0.02 * (reference + preference @ logits.softmax(-1) / beta)
    return logits.log_softmax(-1)


# SPPO.


@pytest.mark.parametrize("completions", [1, 2, 5])
def test_sppo_is_the_mean_of_squared_distances_to_each_target(completions: int) -> None:
    drawn = torch.from_numpy(stream(0, "sppo").normal(size=(2, 3, completions)))
    rates = torch.from_numpy(stream(0, "rates").random((3, completions)))
    found = sppo(GroupLogProbs(drawn[0], drawn[1]), rates, beta=0.25)
    for row in range(3):
        squares = [
            (drawn[0][row][k] - drawn[1][row][k] - 4.0 * (rates[row][k] - 0.5)).item() ** 2 for k in range(completions)
        ]
        assert found[row].item() == pytest.approx(sum(squares) / completions, rel=1e-12)


@pytest.mark.parametrize("eta", [0.1, 1.0, 1000.0])
def test_at_the_reference_each_completion_of_sppo_moves_with_its_own_win_rate(eta: float) -> None:
    policy = torch.full((1, 2), -20.0, dtype=torch.float64, requires_grad=True)
    rates = torch.tensor([[0.8, 0.4]], dtype=torch.float64)
    (slope,) = torch.autograd.grad(sppo(GroupLogProbs(policy, policy.detach()), rates, beta=1 / eta), policy)
    assert slope[0].tolist() == pytest.approx([-eta * 0.3, eta * 0.1], rel=1e-12)


def test_in_sppo_a_constant_on_both_log_probs_counts() -> None:
    """The winner is to rise and the loser to fall; a loss of the difference would be IPO."""
    rates = torch.tensor([[1.0, 0.0]])
    there = GroupLogProbs(torch.tensor([[2.0, -2.0]]), torch.zeros(1, 2))
    shifted = replace(there, policy=there.policy + 1)
    assert sppo(there, rates, beta=0.25).item() == 0.0
    assert sppo(shifted, rates, beta=0.25).item() == 1.0


@pytest.mark.parametrize(("eta", "distance"), [(0.1, 2.2e-8), (1.0, 2.1e-5), (5.0, 2.0e-3)])
def test_a_round_of_sppo_is_nearly_the_exponential_weights_step(eta: float, distance: float) -> None:
    """Nearly: the log of the normalizer is taken to be eta / 2, which holds for small eta only."""
    previous = numbers(0.3, -0.2, 0.0).log_softmax(-1)
    rates = CYCLE @ previous.exp()

    def risk(policy: Tensor) -> Tensor:
        each = sppo(GroupLogProbs(policy[:, None], previous[:, None]), rates[:, None], beta=1 / eta)
        return (previous.exp() * each).sum()

    wanted = (previous + eta * rates).softmax(-1)
    assert (minimizer(risk, 3).exp() - wanted).abs().max().item() == pytest.approx(distance, rel=0.05)


# Online IPO.


def test_the_gradient_of_online_ipo_is_a_mirror_step() -> None:
    """For uniform pairs: ``4/n (e - mean e)`` with ``e = h - P(y > pi'') / beta``."""
    arms, beta, preference = 6, 0.3, random_game(6, "mirror")
    reference, opponent = torch.from_numpy(stream(0, "mirror").normal(size=(2, arms))).log_softmax(-1)
    policy = TabularPolicy(torch.from_numpy(stream(0, "mirror", "policy").normal(size=(1, arms))))
    table = policy.log_probs()[0]
    rates = preference @ opponent.exp()
    loss = online_ipo(groups_of_two(table, reference), every_pair(rates), beta=beta)
    excess = (table - reference - rates / beta).detach()
    wanted = 4 / arms * (excess - excess.mean())
    torch.testing.assert_close(lab.gradient(loss.mean(), policy), wanted, atol=1e-12, rtol=0)


def _online_ipo_slope(law: Tensor, label: Callable[[Tensor], Tensor]) -> float:
    """Largest coordinate of the expected gradient at the equilibrium, the third completion drawn from the policy."""
    beta, preference = 0.3, random_game(6, "equilibrium")
    reference = torch.from_numpy(stream(0, "equilibrium").normal(size=6)).log_softmax(-1)
    policy = TabularPolicy(_equilibrium(preference, reference, beta)[None])
    table = policy.log_probs()[0]
    value = torch.zeros((), dtype=torch.float64)
    for third, share in enumerate(table.detach().exp()):
        rates = every_pair(label(preference[:, third]))
        value = value + share * (law * online_ipo(groups_of_two(table, reference), rates, beta=beta)).sum()
    return lab.gradient(value, policy).abs().max().item()


@pytest.mark.parametrize("law", ["uniform", "skewed"])
def test_online_ipo_rests_at_the_regularized_equilibrium(law: str) -> None:
    drawn = torch.ones(6, dtype=torch.float64) if law == "uniform" else torch.arange(1, 7, dtype=torch.float64)
    law_of_pairs = chance(drawn / drawn.sum(), drawn.flip(0) / drawn.sum())
    assert _online_ipo_slope(law_of_pairs, lambda p: p) < 1e-14


def test_labels_of_the_likelier_side_move_the_equilibrium_of_online_ipo() -> None:
    uniform = torch.full((36,), 1 / 36, dtype=torch.float64)
    assert _online_ipo_slope(uniform, lambda p: (p > 0.5).double() + 0.5 * (p == 0.5)) > 0.05


def test_on_policy_pairs_without_a_third_completion_are_those_of_ipo() -> None:
    beta, preference = 0.3, random_game(6, "equilibrium")
    reference = torch.from_numpy(stream(0, "equilibrium").normal(size=6)).log_softmax(-1)
    policy = TabularPolicy(_equilibrium(preference, reference, beta)[None])
    table = policy.log_probs()[0]
    law = chance(table.detach().exp(), table.detach().exp())
    loss = ipo(groups_of_two(table, reference).pair(), preference.flatten(), beta=beta)
    assert lab.gradient((law * loss).sum(), policy).abs().max().item() < 1e-14
    moved = TabularPolicy(policy.logits.detach() + 0.1 * torch.arange(6))
    loss = ipo(groups_of_two(moved.log_probs()[0], reference).pair(), preference.flatten(), beta=beta)
    assert lab.gradient((law * loss).sum(), moved).abs().max().item() > 1e-3


@pytest.mark.parametrize("objective", [sppo, online_ipo])
def test_win_rates_are_probabilities(objective: Callable[..., Tensor]) -> None:
    logps = GroupLogProbs(torch.zeros(3, 2), torch.zeros(3, 2))
    with pytest.raises(ValueError, match=r"values must be win rates in \[0, 1\], got 1.5"):
        objective(logps, torch.tensor([[0.5, 1.0], [0.0, 1.5], [1.2, 0.0]]))
    with pytest.raises(ValueError, match=r"win rates in \[0, 1\], got -0.25; turn scores into preferences"):
        objective(logps, torch.tensor([[0.5, 1.0], [0.0, -0.25], [0.2, 0.0]]))
    with pytest.raises(ValueError, match="values must be finite numbers"):
        objective(logps, torch.full((3, 2), float("nan")))


# What SPPO promises as an objective of groups (online IPO: with the contrasts).


def _record() -> tuple[GroupLogProbs, Tensor]:
    drawn = torch.from_numpy(stream(0, "sppo", "contract").normal(size=(2, 4, 3))) * 4 - 20
    return GroupLogProbs(drawn[0], drawn[1]), torch.from_numpy(stream(0, "sppo", "rates").random((4, 3)))


def test_the_order_of_completions_means_nothing_to_sppo() -> None:
    logps, rates = _record()
    order = torch.tensor([2, 0, 1])
    permuted = GroupLogProbs(logps.policy[:, order], logps.reference[:, order])
    torch.testing.assert_close(sppo(permuted, rates[:, order]), sppo(logps, rates), atol=0, rtol=1e-12)


def test_policy_and_reference_enter_sppo_as_a_ratio() -> None:
    logps, rates = _record()
    shift = numbers(2.0, -1.0, 0.5)
    shifted = GroupLogProbs(logps.policy + shift, logps.reference + shift)
    torch.testing.assert_close(sppo(shifted, rates, beta=0.3), sppo(logps, rates, beta=0.3), atol=1e-10, rtol=0)


def test_the_gradient_of_sppo_is_that_of_finite_differences() -> None:
    logps, rates = _record()
    policy = nn.Parameter(logps.policy.clone())
    value = sppo(GroupLogProbs(policy, logps.reference), rates, beta=0.3).sum()
    (found,) = torch.autograd.grad(value, policy)
    wanted = lab.finite_difference(
        lambda: sppo(GroupLogProbs(policy, logps.reference), rates, beta=0.3).sum(), [policy]
    )
    torch.testing.assert_close(found.flatten(), wanted, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("objective", [sppo, nash_policy_gradient])
@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan")])
def test_a_game_needs_a_positive_beta(objective: Callable[..., Tensor], beta: float) -> None:
    logps, rates = _record()
    arguments = (logps.pair(), rates[:, 0]) if objective is nash_policy_gradient else (logps, rates)
    with pytest.raises(ValueError, match="beta must be positive, got"):
        objective(*arguments, beta=beta)


# The Nash policy gradient.


class _TwoTokens(EnumerablePolicy):
    """Two tokens of a vocabulary of three, no EOS: nine responses, first token slowest."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def tokens(self) -> tuple[Tensor, Tensor]:
        """Log-prob of each response's first and second token, both of shape ``(9,)``."""
        return self.first.log_softmax(-1).repeat_interleave(3), self.second.log_softmax(-1).flatten()

    def log_probs(self) -> Tensor:
        first, second = self.tokens()
        return (first + second)[None]


def _two_tokens() -> tuple[_TwoTokens, _TwoTokens]:
    drawn = torch.Generator().manual_seed(0)
    parts = [torch.randn(shape, dtype=torch.float64, generator=drawn) for shape in ((3,), (3, 3)) * 2]
    return _TwoTokens(*parts[:2]), _TwoTokens(*parts[2:]).requires_grad_(False)


def _bandit() -> tuple[EnumerablePolicy, EnumerablePolicy]:
    return TabularPolicy(torch.tensor([[0.3, -0.7, 0.4]])), TabularPolicy(REFERENCE[None]).requires_grad_(False)


def _expected(
    policy: EnumerablePolicy, reference: EnumerablePolicy, opponent: Tensor, preference: Tensor, beta: float
) -> Tensor:
    """The expected gradient of the surrogate: first completion from the policy, second from the opponent."""
    logps = groups_of_two(policy.log_probs()[0], reference.log_probs()[0]).pair()
    law = chance(policy.log_probs().detach()[0].exp(), opponent.detach().exp())
    return lab.gradient((law * nash_policy_gradient(logps, preference.flatten(), beta)).sum(), policy)


@pytest.mark.parametrize("world", [_bandit, _two_tokens], ids=["bandit", "two tokens"])
@pytest.mark.parametrize("beta", [0.05, 0.5])
def test_the_expected_nash_gradient_is_that_of_the_payoff(world: Callable[[], tuple], beta: float) -> None:
    policy, reference = world()
    arms = policy.log_probs().shape[1]
    preference = ROCK_PAPER_SCISSORS if arms == 3 else random_game(arms, "tokens")
    opponent = torch.from_numpy(stream(0, "opponent").normal(size=arms)).log_softmax(-1)

    def payoff() -> Tensor:
        wins = policy.log_probs()[0].exp() @ preference @ opponent.exp()
        return wins - 0.5 - beta * lab.reverse_kl(policy, reference)

    wanted = -lab.finite_difference(payoff, lab.parameters(policy))
    found = _expected(policy, reference, opponent, preference, beta)
    assert ((found - wanted).norm() / wanted.norm()).item() < 1e-8


def test_the_opponent_is_held_fixed_even_when_it_is_the_policy() -> None:
    policy, reference = _bandit()
    frozen = policy.frozen()

    def payoff() -> Tensor:
        wins = policy.log_probs()[0].exp() @ ROCK_PAPER_SCISSORS @ frozen.log_probs()[0].exp()
        return wins - 0.1 * lab.reverse_kl(policy, reference)

    wanted = -lab.finite_difference(payoff, lab.parameters(policy))
    found = _expected(policy, reference, policy.log_probs()[0], ROCK_PAPER_SCISSORS, 0.1)
    torch.testing.assert_close(found, wanted, atol=1e-9, rtol=0)


def _token_local(policy: _TwoTokens, reference: _TwoTokens) -> Tensor:
    """The penalty as it is not: each token's score times its own log-ratio."""
    parts = zip(policy.tokens(), reference.tokens(), strict=True)
    each = sum((own - other).detach() * own for own, other in parts)
    return lab.gradient((policy.log_probs().detach()[0].exp() * each).sum(), policy)


def test_the_penalty_is_that_of_the_whole_completion() -> None:
    """On ties the surrogate is the KL penalty alone; token by token it would be 12 % off."""
    policy, reference = _two_tokens()
    wanted = lab.gradient(lab.reverse_kl(policy, reference), policy)
    ties = torch.full((9, 9), 0.5, dtype=torch.float64)
    found = _expected(policy, reference, policy.log_probs()[0], ties, beta=1.0)
    torch.testing.assert_close(found, wanted, atol=1e-14, rtol=0)
    local = _token_local(policy, reference)
    assert ((local - wanted).norm() / wanted.norm()).item() == pytest.approx(0.121, abs=5e-4)
    assert torch.cosine_similarity(local, wanted, dim=0).item() == pytest.approx(0.998, abs=5e-4)


@pytest.mark.parametrize(
    ("mixing", "wanted"),
    [
        (0.0, (0.643506, 0.193193, 0.163301)),
        (0.125, (0.649997, 0.188903, 0.161100)),
        (0.375, (0.663614, 0.181749, 0.154637)),
        (1.0, (0.698086, 0.173330, 0.128584)),
    ],
)
def test_where_the_nash_policy_gradient_rests(mixing: float, wanted: tuple[float, ...]) -> None:
    """Against itself at the equilibrium; against a mixture with the reference (its share: mixing) beside it."""
    policy, reference = TabularPolicy.uniform(prompts=1, responses=3), TabularPolicy(REFERENCE[None]).frozen()

    def direction() -> Tensor:
        opponent = ((1 - mixing) * policy.log_probs()[0] + mixing * REFERENCE).log_softmax(-1)
        return _expected(policy, reference, opponent, ROCK_PAPER_SCISSORS, beta=0.5)

    assert lab.train_exact(policy, direction, tolerance=1e-8).residual <= 1e-8
    assert policy.log_probs().exp()[0].tolist() == pytest.approx(wanted, abs=1e-6)


def _pairs() -> tuple[LogProbs, Tensor]:
    drawn = torch.from_numpy(stream(0, "nash").normal(size=(4, 5))) * 4 - 20
    parts = [part.clone().requires_grad_(index < 2) for index, part in enumerate(drawn)]
    return LogProbs(*parts), torch.from_numpy(stream(0, "nash", "p").random(5)).requires_grad_()


def test_only_the_first_completion_is_trained() -> None:
    logps, p = _pairs()
    slopes = torch.autograd.grad(
        nash_policy_gradient(logps, p, beta=0.3).sum(),
        (logps.policy_first, logps.policy_second, p),
        materialize_grads=True,
        allow_unused=True,
    )
    advantage = p - 0.5 - 0.3 * (logps.policy_first - logps.reference_first)
    torch.testing.assert_close(slopes[0], -advantage.detach(), atol=1e-12, rtol=0)
    assert not slopes[1].any()
    assert not slopes[2].any()


def test_the_two_completions_of_the_nash_policy_gradient_have_different_roles() -> None:
    logps, p = _pairs()
    swapped = LogProbs(logps.policy_second, logps.policy_first, logps.reference_second, logps.reference_first)
    assert not torch.allclose(nash_policy_gradient(swapped, 1 - p), nash_policy_gradient(logps, p))


def test_without_a_label_the_policy_won() -> None:
    logps, p = _pairs()
    assert torch.equal(nash_policy_gradient(logps), nash_policy_gradient(logps, torch.ones_like(p)))


def test_the_nash_surrogate_is_affine_in_the_preference() -> None:
    logps, p = _pairs()
    won, lost = (nash_policy_gradient(logps, label) for label in (torch.ones_like(p), torch.zeros_like(p)))
    torch.testing.assert_close(nash_policy_gradient(logps, p), p * won + (1 - p) * lost, atol=1e-12, rtol=0)


def test_the_nash_policy_gradient_refuses_what_is_no_preference() -> None:
    logps, _ = _pairs()
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\], got 2.0"):
        nash_policy_gradient(logps, torch.full((5,), 2.0))
