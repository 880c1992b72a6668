"""Each method's expected training gradient is the derivative of an expected loss written out by hand, to 1e-6.

The hand-written side (``by_hand.py``) loops over all candidates in plain numbers and differentiates by finite
differences, samples held fixed; it shares nothing with the routes and objectives it is compared with. Methods whose
objective :func:`setsail.lab.stated_objective` states are proven in ``test_exact_mixtures.py``, presets included.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from by_hand import (
    Law,
    Numbers,
    Term,
    best_and_worst,
    decided,
    drawn,
    greedy,
    hinge,
    imitation,
    logistic,
    mixed,
    numbers,
    payoff,
    squared,
    tempered,
    token_kl,
    total,
    win_rates,
)
from by_hand_field import FIELD
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab import TabularWorld
from setsail.methods import CATALOGUE, Method, get
from setsail.methods.parts import token_forward_kl
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy, TabularTokenPolicy

GENERATIONS = 3
Pair = Callable[[Numbers, int, int, int, float, float], Callable[[Law], float]]


def _fresh(world: Numbers, loss: Pair, beta: float) -> list[Term]:
    """Two draws of the policy, soft labels."""
    return [
        (chance, x, loss(world, x, a, b, world.preference[x][a][b], beta))
        for chance, x, (a, b) in drawn(world, world.sampler, world.sampler)
    ]


def _extremes(world: Numbers, laws: list[list[Law]], loss: Pair, beta: float) -> list[Term]:
    """The best against the worst candidate, the likelier side winning for certain; ties teach nothing."""
    terms = []
    for chance, x, answers in drawn(world, *laws):
        places = best_and_worst(world, x, answers)
        if places is not None:
            first, second = answers[places[0]], answers[places[1]]
            terms.append((chance, x, loss(world, x, first, second, decided(world, x, first, second), beta)))
    return terms


def _scaled(terms: list[Term], share: float) -> list[Term]:
    return [(share * chance, x, loss) for chance, x, loss in terms]


def _offline(world: Numbers) -> list[Term]:
    return [(weight, x, logistic(world, x, a, b, p, 0.1)) for weight, x, a, b, p in world.data]


def _best_of_policy(world: Numbers, loss: Pair, beta: float) -> list[Term]:
    return _extremes(world, [world.sampler] * GENERATIONS, loss, beta)


def _tilted_by_reward(world: Numbers) -> list[Term]:
    """Half fresh pairs; half one candidate drawn by exp(r) against one drawn by exp(-r)."""
    terms = _scaled(_fresh(world, logistic, 0.1), 0.5)
    for chance, x, answers in drawn(world, *[world.sampler] * GENERATIONS):
        assert world.reward is not None
        reward = torch.tensor([world.reward[x][y] for y in answers], dtype=torch.float64)
        up, down = reward.softmax(-1).tolist(), (-reward).softmax(-1).tolist()
        for i, a in enumerate(answers):
            for j, b in enumerate(answers):
                if i != j:
                    loss = logistic(world, x, a, b, world.preference[x][a][b], 0.1)
                    terms.append((0.5 * chance * up[i] * down[j], x, loss))
    return terms


def _tilted_by_mixture(world: Numbers) -> list[Term]:
    """Half fresh pairs; half a draw away from the reference against one toward it."""
    pairs = drawn(world, mixed(world, -0.5), mixed(world, 0.5))
    tilted = [(chance, x, logistic(world, x, a, b, world.preference[x][a][b], 0.1)) for chance, x, (a, b) in pairs]
    return _scaled(_fresh(world, logistic, 0.1), 0.5) + _scaled(tilted, 0.5)


def _dice(world: Numbers) -> list[Term]:
    """Half offline pairs; half best against worst by what the reference has learnt over the opponent."""
    taught = [
        [float(torch.tensor(new).log() - torch.tensor(old).log()) for new, old in zip(*laws, strict=True)]
        for laws in zip(world.reference, world.opponent, strict=True)
    ]
    implicit = replace(world, reward=taught, preference=lab.bradley_terry(torch.tensor(taught)).tolist())
    return _scaled(_offline(world), 0.5) + _scaled(_best_of_policy(implicit, logistic, 0.1), 0.5)


def _spin(world: Numbers) -> list[Term]:
    """The data set's chosen answer always beats a draw of the policy."""
    return [
        (weight * world.sampler[x][y], x, logistic(world, x, chosen, y, 1.0, 0.1))
        for weight, x, chosen, _, _ in world.data
        for y in world.responses
    ]


def _rs_dpo(world: Numbers) -> list[Term]:
    """Every clear win among draws of the reference; the wins of one prompt share its weight."""
    terms = []
    for chance, x, answers in drawn(world, *[world.reference] * GENERATIONS):
        wins = [(a, b) for a in answers for b in answers if world.preference[x][a][b] >= 0.85]
        terms += [(chance / len(wins), x, logistic(world, x, a, b, 1.0, 0.1)) for a, b in wins]
    return terms


def _imitated(world: Numbers, ties: bool = True) -> list[tuple[float, int, int]]:
    """The best of the policy's draws; of equals the first drawn, also where all are equal."""
    best = []
    for chance, x, answers in drawn(world, *[world.sampler] * GENERATIONS):
        assert world.reward is not None
        scores = [world.reward[x][y] for y in answers]
        if ties or min(scores) < max(scores):
            best.append((chance, x, answers[scores.index(max(scores))]))
    return best


def _superhf(world: Numbers) -> list[Term]:
    terms = []
    for chance, x, y in _imitated(world):
        terms += [(chance, x, imitation(world, y)), (0.35 * chance, x, token_kl(world, x, y))]
    return terms


def _optimism(world: Numbers, alpha: float) -> list[Term]:
    """``alpha log pi(y)`` of the reference's draws."""
    return [(alpha * chance, x, lambda lp, y=y: lp[y]) for chance, x, (y,) in drawn(world, world.reference)]


def _xpo(world: Numbers, alpha: float = 1e-5) -> list[Term]:
    pairs = drawn(world, world.sampler, world.reference)
    terms = [(chance, x, logistic(world, x, a, b, world.preference[x][a][b], 0.1)) for chance, x, (a, b) in pairs]
    return terms + _optimism(world, alpha)


def _selm(world: Numbers, coefficient: float = 1e-5, floor: float = -10.0) -> list[Term]:
    terms = []
    for weight, x, chosen, rejected, _ in world.data:
        answers = (greedy(world, x), chosen, rejected)
        places = best_and_worst(world, x, answers)
        assert places is not None
        first, second = answers[places[0]], answers[places[1]]
        terms.append((weight, x, logistic(world, x, first, second, decided(world, x, first, second), 0.01)))
        explored = partial(world.h, x, answers[0])
        terms.append((coefficient * weight, x, lambda lp, explored=explored: max(explored(lp), floor)))
    return terms


def _sppo(world: Numbers) -> list[Term]:
    """Best and worst of the draws, each to its own win rate among all of them."""
    terms = []
    for chance, x, answers in drawn(world, *[world.sampler] * GENERATIONS):
        rates, places = win_rates(world, x, answers), best_and_worst(world, x, answers)
        for k in places or ():

            def loss(lp: Law, x: int = x, y: int = answers[k], rate: float = rates[k]) -> float:
                return 0.5 * (world.h(x, y, lp) - (rate - 0.5) / 1e-3) ** 2

            terms.append((chance, x, loss))
    return terms


def _dno(world: Numbers) -> list[Term]:
    """The first two of the draws, labeled by the difference of their win rates among all of them."""
    terms = []
    for chance, x, answers in drawn(world, *[world.sampler] * GENERATIONS):
        first, second, *_ = win_rates(world, x, answers)
        p = float(torch.sigmoid(torch.tensor(first - second, dtype=torch.float64)))
        terms.append((chance, x, logistic(world, x, *answers[:2], p, 0.1)))
    return terms


def _nash(world: Numbers, opponents: list[Law]) -> list[Term]:
    return [(1 / len(world.prompts), x, payoff(world, x, opponents[x], 8e-3)) for x in world.prompts]


def _egpo(world: Numbers) -> list[Term]:
    """Two warm draws, regressed onto the difference of their win rates against a third."""
    wide, terms = tempered(world, 2.0), []
    for chance, x, (a, b, third) in drawn(world, wide, wide, world.sampler):
        wanted = (world.preference[x][a][third] - world.preference[x][b][third]) / 0.1
        terms.append((chance, x, lambda lp, x=x, a=a, b=b, wanted=wanted: (world.margin(x, a, b, lp) - wanted) ** 2))
    return terms


BY_HAND: dict[str, Callable[[Numbers], list[Term]]] = {
    "oaif": lambda world: _fresh(world, logistic, 0.1),
    "oaif-ipo": lambda world: _fresh(world, squared, 1.0),
    "oaif-slic": lambda world: _fresh(world, hinge, 0.002),
    # Which pairs are worth a label is decided within a step; the loss of a pair that is labeled stays online-dpo's.
    "apl": lambda world: _fresh(world, logistic, 0.1),
    "samplers-mix-r": _tilted_by_reward,
    "samplers-mix-p": _tilted_by_mixture,
    "iterative-dpo": lambda world: _fresh(world, logistic, 0.1),
    "rlhf-workflow": lambda world: _best_of_policy(world, logistic, 0.1),
    "self-rewarding": lambda world: _best_of_policy(world, logistic, 0.1),
    "dice": _dice,
    "spin": _spin,
    "apo-accelerated": lambda world: _fresh(world, logistic, 0.1),
    "salsa": lambda world: _fresh(world, logistic, 0.1),
    "rs-dpo": _rs_dpo,
    "raft": lambda world: [(chance, x, imitation(world, y)) for chance, x, y in _imitated(world)],
    "superhf": _superhf,
    "xpo": _xpo,
    "selm": _selm,
    "sppo": _sppo,
    "dno": _dno,
    "inpo": lambda world: _best_of_policy(world, squared, 7.5e-3),
    "nash-md": lambda world: _nash(world, mixed(world, 0.125)),
    "nash-ema": lambda world: _nash(world, world.opponent),
    "egpo": _egpo,
}
SAIL = ("sail-ddp", "sail-dpp", "sail-dpr", "sail-mix", "sail-revkl", "sail-robust", "oracle-robust")
STATED = ("dpo", "ipo", "slic", *SAIL, "online-dpo", "online-ipo")
GAMES = ("rlhf-workflow", "samplers-mix-p", "sppo", "dno", "inpo", "nash-md", "nash-ema", "egpo")
World = tuple[EnumerablePolicy, TabularWorld]


def _softmax_world() -> World:
    policy, world = lab.golden_world()
    return policy, replace(world, opponent=TabularPolicy(torch.tensor([[0.2, -0.6, 0.4]])).frozen())


def _cyclic_world() -> World:
    """A labeler that only compares, and goes round in a circle."""
    policy, world = _softmax_world()
    return policy, replace(world, preference=lab.uneven_cycle().preference[None], reward=None)


def _token_world() -> World:
    """Two prompts, answers of one or two tokens, seven a prompt; scores and preferences that agree."""
    drawn_numbers = torch.from_numpy(stream(3, "by-hand").normal(size=(3, 2, 3, 3)))
    policy, reference, opponent = (TabularTokenPolicy(logits, max_length=2) for logits in drawn_numbers)
    reward = 2 * torch.from_numpy(stream(4, "by-hand").normal(size=(2, 7)))
    rows = torch.tensor([[0, 0, 1], [0, 5, 2], [0, 3, 6], [1, 4, 0], [1, 2, 6], [1, 1, 3]])
    data = lab.dataset_pairs(rows, torch.tensor([1.0, 0.7, 0.5, 0.0, 0.9, 0.2], dtype=torch.float64))
    preference = lab.bradley_terry(reward)
    return policy, TabularWorld(reference.frozen(), data, preference, reward, opponent.frozen())


WORLDS = {"softmax": _softmax_world, "tokens": _token_world, "cycle": _cyclic_world}
CASES = [(name, world) for name in BY_HAND for world in WORLDS if world != "cycle" or name in GAMES]


def _older(policy: EnumerablePolicy) -> EnumerablePolicy:
    """Other weights, from which a round's completions may come."""
    older = policy.frozen()
    for number, parameter in enumerate(older.parameters()):
        parameter.data += torch.from_numpy(stream(number, "older").normal(size=tuple(parameter.shape))) / 2
    return older


def _error(method: Method, terms: Callable[[Numbers], list[Term]], made: World) -> float:
    policy, world = made
    sampler = _older(policy) if method.staleness else policy.frozen()
    expected = terms(numbers(sampler, world))

    def loss() -> Tensor:
        return torch.tensor(total(expected, policy.log_probs()), dtype=torch.float64)

    wanted = lab.finite_difference(loss, lab.parameters(policy))
    found = lab.mixture_gradient(method, policy, world, sampler=sampler)
    return ((found - wanted).norm() / wanted.norm()).item()


def test_every_method_of_the_catalogue_is_proven() -> None:
    assert {*BY_HAND, *STATED, *FIELD} == set(CATALOGUE)
    assert len(BY_HAND) + len(STATED) + len(FIELD) == len(CATALOGUE)
    assert not any(CATALOGUE[name].presets for name in BY_HAND)


@pytest.mark.parametrize(("name", "world"), CASES)
def test_the_expected_gradient_is_that_of_the_loss_written_by_hand(name: str, world: str) -> None:
    method = get(name).configured(generations=GENERATIONS)
    assert _error(method, BY_HAND[name], WORLDS[world]()) < 1e-6


@pytest.mark.parametrize("world", ["softmax", "tokens"])
def test_a_large_exploration_bonus_has_its_sign_and_size(world: str) -> None:
    """At the defaults the bonus is a millionth of the gradient."""
    xpo, selm = (get(name).configured(addends={"optimism": 0.3}) for name in ("xpo", "selm"))
    assert _error(xpo, partial(_xpo, alpha=0.3), WORLDS[world]()) < 1e-6
    assert _error(selm, partial(_selm, coefficient=0.3), WORLDS[world]()) < 1e-6


def _read_once(world: Numbers, coefficient: float) -> list[Term]:
    """A token KL on every answer that is compared, offline ones too; an answer drawn twice is read once."""
    counts: dict[tuple[int, int], float] = defaultdict(float)
    for weight, x, first, second, _ in world.data:
        for y in {first, second}:
            counts[x, y] += 0.7 * weight
    for chance, x, answers in drawn(world, world.sampler, world.sampler):
        for y in set(answers):
            counts[x, y] += 0.3 * chance
    whole = sum(counts.values())
    return [(coefficient * count / whole, x, token_kl(world, x, y)) for (x, y), count in counts.items()]


@pytest.mark.parametrize("world", ["softmax", "tokens"])
def test_a_term_on_compared_answers_is_their_mean(world: str) -> None:
    method = get("sail-dpr").with_parts(addends=(token_forward_kl(coefficient=0.5),))

    def terms(world: Numbers) -> list[Term]:
        pairs = _scaled(_offline(world), 0.7) + _scaled(_fresh(world, logistic, 0.1), 0.3)
        return pairs + _read_once(world, 0.5)

    assert _error(method, terms, WORLDS[world]()) < 1e-6


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_sources_keep_their_places_in_a_mixture_with_another_share(weight: float) -> None:
    route = get("nash-md").routes[0]
    opponent = replace(route.candidates[1], share=weight)
    method = get("nash-md").with_parts(routes=(replace(route, candidates=(route.candidates[0], opponent)),))
    for made in WORLDS.values():
        assert _error(method, lambda world: _nash(world, mixed(world, weight)), made()) < 1e-6


WRONG = {
    "raft": lambda world: [(chance, x, imitation(world, y)) for chance, x, y in _imitated(world, ties=False)],
    "sppo": lambda world: _sppo(replace(world, sampler=world.reference)),
    "dno": lambda world: _fresh(world, logistic, 0.1),
    "spin": lambda world: _offline(world),
    "nash-ema": lambda world: _nash(world, mixed(world, 0.125)),
    "xpo": lambda world: _fresh(world, logistic, 0.1),
    "rs-dpo": lambda world: _best_of_policy(world, logistic, 0.1),
}


@pytest.mark.parametrize("name", WRONG)
def test_another_loss_is_noticed(name: str) -> None:
    method = get(name).configured(generations=GENERATIONS)
    assert _error(method, WRONG[name], _softmax_world()) > 1e-3
