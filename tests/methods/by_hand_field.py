"""Expected losses of the field's objectives written out by hand, one method each; see ``by_hand.py`` for the legend.

``w`` is the better answer of a pair and ``o`` the other, ``h`` a log-ratio, ``m`` a mean log-prob a token. What an
objective holds fixed is computed from the sampler's law, so that finite differences do not see it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations

from by_hand import Law, Loss, Numbers, Term, drawn, imitation

Better = Callable[[Numbers, int, int, int, Law], float]
"""The loss of a pair whose first answer is better."""
Listed = Callable[[Numbers, int, tuple[int, ...], list[float], Law], float]
"""The loss of a list of answers with their values."""


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def nls(z: float) -> float:
    """``-log sigmoid(z)``."""
    return math.log1p(math.exp(-z))


def mean(world: Numbers, y: int, lp: Law) -> float:
    return lp[y] / len(world.sequences[y])


def odds(log_q: float) -> float:
    return log_q - math.log(1 - math.exp(log_q))


# Pairs: the loss if the first is better.


def _cdpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    u = 0.1 * world.margin(x, w, o, lp)
    return 0.9 * nls(u) + 0.1 * nls(-u)


def _rdpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    u = 0.1 * world.margin(x, w, o, lp)
    return (0.9 * nls(u) - 0.1 * nls(-u)) / 0.8


def _f_dpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    def slope(y: int) -> float:
        t = math.exp(world.h(x, y, lp))
        return math.log(2 * t / (1 + t))

    return nls(0.1 * (slope(w) - slope(o)))


def _dpo_gamma(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    reference = math.log(world.reference[x][w] / world.reference[x][o])
    return nls(0.1 * (lp[w] - lp[o] - 0.5 * reference))


def _dpo_positive(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return nls(0.1 * (world.margin(x, w, o, lp) - 50 * max(0.0, -world.h(x, w, lp))))


def _dpo_length(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    longer = len(world.sequences[w]) - len(world.sequences[o])
    return nls(0.1 * world.margin(x, w, o, lp) + 0.2 * longer)


def _dpo_per_token(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return nls(5 * (world.h(x, w, lp) / len(world.sequences[w]) - world.h(x, o, lp) / len(world.sequences[o])))


def _cpl(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return nls(0.2 * world.h(x, w, lp) - 0.75 * 0.2 * world.h(x, o, lp))


def _exo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    q = sigmoid(0.1 * world.margin(x, w, o, lp))
    return q * math.log(q / 0.999) + (1 - q) * math.log((1 - q) / 0.001)


def _discopop(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    u = 0.05 * world.margin(x, w, o, lp)
    return (1 - sigmoid(u / 0.05)) * nls(u) + sigmoid(u / 0.05) * math.exp(-u)


def _nca(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    chosen, rejected = 0.01 * world.h(x, w, lp), 0.01 * world.h(x, o, lp)
    return nls(chosen) + nls(-chosen) / 2 + nls(-rejected) / 2


def _apo_zero(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return 1 - sigmoid(0.1 * world.h(x, w, lp)) + sigmoid(0.1 * world.h(x, o, lp))


def _apo_down(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return sigmoid(0.1 * world.h(x, w, lp)) + 1 - sigmoid(0.1 * world.margin(x, w, o, lp))


def _sppo_hard(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return (world.h(x, w, lp) - 500) ** 2 + (world.h(x, o, lp) + 500) ** 2


def _rpo(beta: float) -> Better:
    return lambda world, x, w, o, lp: nls(beta * world.margin(x, w, o, lp))


def logistic_pairs(beta: float) -> Callable[[Numbers], list[Term]]:
    """DPO on the data set's pairs."""
    return on_pairs(_rpo(beta))


def _simpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return nls(2.5 * (mean(world, w, lp) - mean(world, o, lp)) - 0.5)


def _cpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return nls(0.1 * (lp[w] - lp[o]))


def _orpo(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return 0.1 * nls(odds(mean(world, w, lp)) - odds(mean(world, o, lp)))


def _asft(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return -mean(world, w, lp) - math.log(1 - math.exp(mean(world, o, lp)))


def _slic_hf(world: Numbers, x: int, w: int, o: int, lp: Law) -> float:
    return max(0.0, 1 - lp[w] + lp[o])


def on_pairs(better: Better) -> Callable[[Numbers], list[Term]]:
    """The data set's pairs: each label with its probability."""

    def terms(world: Numbers) -> list[Term]:
        found: list[Term] = []
        for weight, x, a, b, p in world.data:
            found.append((weight * p, x, lambda lp, x=x, a=a, b=b: better(world, x, a, b, lp)))
            found.append((weight * (1 - p), x, lambda lp, x=x, a=a, b=b: better(world, x, b, a, lp)))
        return found

    return terms


# Lists: the pair with its probabilities as values.


def _margin_dpo(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    (a, b), offset = ys, abs(v[0] - v[1])
    u = 0.1 * world.margin(x, a, b, lp)
    if v[0] == v[1]:
        return (nls(u) + nls(-u)) / 2
    return nls((u if v[0] > v[1] else -u) - offset)


def _ranked(world: Numbers, x: int, ys: tuple[int, ...], beta: float, lp: Law, worse: list[list[int]]) -> float:
    """Plackett-Luce: each answer against those that are worse."""
    s = [beta * world.h(x, y, lp) for y in ys]
    return sum(math.log(math.exp(s[k]) + sum(math.exp(s[j]) for j in worse[k])) - s[k] for k in range(len(ys)))


def _below(values: list[float]) -> list[list[int]]:
    return [[j for j in range(len(values)) if values[j] < values[k]] for k in range(len(values))]


def _pl_dpo(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    return _ranked(world, x, ys, 0.1, lp, _below(v))


def _today(world: Numbers, x: int, ys: tuple[int, ...]) -> list[float]:
    """Log-ratios under the sampler, which is the policy of the moment."""
    return [math.log(world.sampler[x][y] / world.reference[x][y]) for y in ys]


def _robust_listwise(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    # Listed from the lowest score up: the lowest is "best", so those of higher score are "worse".
    worst = _below([-h for h in _today(world, x, ys)])
    return 0.95 * _pl_dpo(world, x, ys, v, lp) + 0.05 * _ranked(world, x, ys, 0.1, lp, worst)


def _lipo(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    now, loss = _today(world, x, ys), 0.0
    rank = [1 + sum(other > mine for other in now) for mine in now]
    for i, j in combinations(range(len(ys)), 2):
        if v[i] == v[j]:
            continue
        w, o = (i, j) if v[i] > v[j] else (j, i)
        gain = 2 ** v[w] - 2 ** v[o]
        swap = abs(1 / math.log(1 + rank[w]) - 1 / math.log(1 + rank[o]))
        loss += gain * swap * nls(0.05 * world.margin(x, ys[w], ys[o], lp))
    return loss


def _rank_net(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    below = _below(v)
    return sum(nls(0.05 * world.margin(x, ys[k], ys[j], lp)) for k in range(len(ys)) for j in below[k])


def _list_net(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    label = [math.exp(each) / sum(math.exp(other) for other in v) for each in v]
    s = [math.exp(0.05 * world.h(x, y, lp)) for y in ys]
    return -sum(share * math.log(each / sum(s)) for share, each in zip(label, s, strict=True))


def _pro(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    m, loss = [mean(world, y, lp) for y in ys], 0.0
    for k, below in enumerate(_below(v)):
        gap = v[k] - min(v)
        mine, others = math.exp(m[k] * gap), [math.exp(m[i] * (v[k] - v[i])) for i in below]
        loss -= math.log(mine / (mine + sum(others)))
    return loss


def _rrhf(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    below = _below(v)
    return sum(max(0.0, mean(world, ys[j], lp) - mean(world, ys[k], lp)) for k in range(len(ys)) for j in below[k])


def _a_lol(world: Numbers, x: int, ys: tuple[int, ...], v: list[float], lp: Law) -> float:
    ratios = [min(max(math.exp(h), 0.1), 1.9) for h in _today(world, x, ys)]
    weights = [max(0.0, each - sum(v) / len(v)) * ratio for each, ratio in zip(v, ratios, strict=True)]
    return -sum(weight * lp[y] for weight, y in zip(weights, ys, strict=True)) / len(ys)


def on_lists(loss: Listed) -> Callable[[Numbers], list[Term]]:
    """The data set's pairs as lists of two, valued p and 1 - p."""

    def terms(world: Numbers) -> list[Term]:
        return [
            (weight, x, lambda lp, x=x, ys=(a, b), v=[p, 1 - p]: loss(world, x, ys, v, lp))
            for weight, x, a, b, p in world.data
        ]

    return terms


# Single answers, the batch's number at 0.


def on_singles(loss: Callable[[float], float]) -> Callable[[Numbers], list[Term]]:
    """Both answers of a pair, each marked by itself; ``loss`` is a function of the signed log-ratio."""

    def terms(world: Numbers) -> list[Term]:
        found: list[Term] = []
        for weight, x, a, b, p in world.data:
            for y, mark in ((a, 1 if p >= 0.5 else -1), (b, -1 if p >= 0.5 else 1)):
                found.append((weight / 2, x, lambda lp, x=x, y=y, mark=mark: loss(mark * world.h(x, y, lp))))
        return found

    return terms


# Added terms.


def likelihood(coefficient: float, per_token: bool) -> Callable[[Numbers], list[Term]]:
    """``-log pi`` of the preferred answer, a mean over the pairs that have one."""

    def terms(world: Numbers) -> list[Term]:
        decided = [(weight, x, a if p > 0.5 else b) for weight, x, a, b, p in world.data if p != 0.5]
        whole = sum(weight for weight, _, _ in decided)
        return [
            (coefficient * weight / whole, x, imitation(world, y) if per_token else lambda lp, y=y: -lp[y])
            for weight, x, y in decided
        ]

    return terms


def both(*parts: Callable[[Numbers], list[Term]]) -> Callable[[Numbers], list[Term]]:
    return lambda world: [term for part in parts for term in part(world)]


# Policy gradients.


def objective_j(beta: float, factor: float = 1.0) -> Callable[[Numbers], list[Term]]:
    """Minus ``E[r] - beta KL(policy || reference)``, summed over the policy instead of sampled."""

    def terms(world: Numbers) -> list[Term]:
        reward = world.reward
        assert reward is not None

        def loss(x: int) -> Loss:
            return lambda lp: -sum(math.exp(lp[y]) * (reward[x][y] - beta * world.h(x, y, lp)) for y in world.responses)

        return [(factor / len(world.prompts), x, loss(x)) for x in world.prompts]

    return terms


def _penalized(world: Numbers, x: int, y: int, beta: float) -> float:
    assert world.reward is not None
    return world.reward[x][y] - beta * _today(world, x, (y,))[0]


def pf_reinforce(world: Numbers, count: int) -> list[Term]:
    """Of ``count`` draws one is kept: the best half of the time, else any of the others."""
    assert world.reward is not None
    terms: list[Term] = []
    for chance, x, answers in drawn(world, *[world.sampler] * count):
        best = max(range(count), key=lambda k: world.reward[x][answers[k]])  # the first of several
        for k, y in enumerate(answers):
            kept, gain = 0.5 if k == best else 0.5 / (count - 1), _penalized(world, x, y, 0.1)
            terms.append((chance * kept, x, lambda lp, y=y, gain=gain: -gain * lp[y]))
    return terms


def grpo(world: Numbers, count: int) -> list[Term]:
    """Normalized rewards times the ratio to the sampler, and k3."""
    assert world.reward is not None
    terms: list[Term] = []
    for chance, x, answers in drawn(world, *[world.sampler] * count):
        rewards = [world.reward[x][y] for y in answers]
        center = sum(rewards) / count
        spread = math.sqrt(sum((r - center) ** 2 for r in rewards) / (count - 1))
        for r, y in zip(rewards, answers, strict=True):
            advantage = (r - center) / (spread + 1e-4)

            def loss(lp: Law, x: int = x, y: int = y, advantage: float = advantage) -> float:
                ratio, h = math.exp(lp[y]) / world.sampler[x][y], world.h(x, y, lp)
                return 0.04 * (math.exp(-h) - 1 + h) - advantage * ratio

            terms.append((chance / count, x, loss))
    return terms


def f_dpg(world: Numbers, count: int) -> list[Term]:
    """Forward KL to ``reference exp(r / beta) / Z``, Z estimated from the group's other draws."""
    assert world.reward is not None
    terms: list[Term] = []
    for chance, x, answers in drawn(world, *[world.sampler] * count):
        tilted = [math.exp(world.reward[x][y] / 0.1) * world.reference[x][y] / world.sampler[x][y] for y in answers]
        for k, y in enumerate(answers):
            partition = sum(tilted[j] for j in range(count) if j != k) / (count - 1)
            # -f'(t) = 1 / t = target / policy
            terms.append((chance / count, x, lambda lp, y=y, gain=tilted[k] / partition: -gain * lp[y]))
    return terms


def best_of_n(world: Numbers, count: int) -> list[Term]:
    """The best of the reference's draws; of equals the first."""
    assert world.reward is not None
    terms: list[Term] = []
    for chance, x, answers in drawn(world, *[world.reference] * count):
        best = max(answers, key=lambda y: world.reward[x][y])
        terms.append((chance, x, imitation(world, best)))
    return terms


GENERATIONS = 3
FIELD: dict[str, Callable[[Numbers], list[Term]]] = {
    "cdpo": on_pairs(_cdpo),
    "rdpo": on_pairs(_rdpo),
    "f-dpo": on_pairs(_f_dpo),
    "dpo-gamma": on_pairs(_dpo_gamma),
    "dpo-positive": on_pairs(_dpo_positive),
    "dpo-length": on_pairs(_dpo_length),
    "dpo-per-token": on_pairs(_dpo_per_token),
    "dpo-margin": on_lists(_margin_dpo),
    "cpl": on_pairs(_cpl),
    "exo": on_pairs(_exo),
    "discopop": on_pairs(_discopop),
    "nca": on_pairs(_nca),
    "apo-zero": on_pairs(_apo_zero),
    "apo-down": on_pairs(_apo_down),
    "sppo-hard": on_pairs(_sppo_hard),
    "rpo": both(on_pairs(_rpo(0.01)), likelihood(5e-5, per_token=False)),
    "rpo-per-token": both(on_pairs(_rpo(0.5)), likelihood(0.2, per_token=True)),
    "simpo": on_pairs(_simpo),
    "cpo": both(on_pairs(_cpo), likelihood(1.0, per_token=True)),
    "orpo": both(on_pairs(_orpo), likelihood(1.0, per_token=True)),
    "asft": both(on_pairs(_asft), likelihood(1.0, per_token=True)),
    "slic-hf": both(on_pairs(_slic_hf), likelihood(0.5, per_token=False)),
    "pl-dpo": on_lists(_pl_dpo),
    "robust-listwise": on_lists(_robust_listwise),
    "lipo": on_lists(_lipo),
    "rank-net": on_lists(_rank_net),
    "list-net": on_lists(_list_net),
    "pro": both(on_lists(_pro), likelihood(0.05, per_token=False)),
    "rrhf": both(on_lists(_rrhf), likelihood(1.0, per_token=False)),
    "a-lol": on_lists(_a_lol),
    "kto": on_singles(lambda signed: 1 - sigmoid(0.1 * signed)),
    "bco": on_singles(lambda signed: nls(0.1 * signed)),
    "best-of-n": lambda world: best_of_n(world, GENERATIONS),
    "reinforce": objective_j(0.1),
    "rloo": objective_j(0.1),
    "grpo": lambda world: grpo(world, GENERATIONS),
    "p3o": objective_j(0.1),
    "copg": objective_j(0.06, factor=2.0),
    "f-dpg": lambda world: f_dpg(world, GENERATIONS),
    "pf-reinforce": lambda world: pf_reinforce(world, GENERATIONS),
}
"""By method: its expected loss. Drawn groups hold ``GENERATIONS`` answers (reinforce 1, p3o and copg 2)."""
