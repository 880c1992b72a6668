"""DPO under other divergences: where f-DPO ends, and what reward costs on each divergence's scale.

One prompt, four responses of reward 1, 0.2, -0.5, 0.4 and reference probabilities 0.4, 0.3, 0.2, 0.1; every ordered
pair with its Bradley-Terry preference. ``t = pi / pi_ref``; the optimum of ``E[r] - beta D_f`` solves
``f'(t) = (r - lambda) / beta`` with lambda from normalization.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import torch
from scipy.optimize import brentq
from torch import Tensor

from setsail import lab
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get
from setsail.objectives import f_dpo
from setsail.policies.tabular import TabularPolicy

REWARD, REFERENCE, BETA = (1.0, 0.2, -0.5, 0.4), (0.4, 0.3, 0.2, 0.1), 0.7
MATCHED = 0.2


@dataclass(frozen=True, slots=True)
class Divergence:
    """``D_f(pi || ref) = E_ref[f(t)]``.

    Attributes:
        name: as the objective calls it, with alpha.
        divergence, alpha: the objective's own parameters.
        f: convex, ``f(1) = 0``.
        ratio: the inverse of f', in closed form.
        largest: the supremum of f'.
        published: the optimum's probabilities, to six digits.
        rate: a step size at which gradient descent ends there.
    """

    name: str
    divergence: str
    f: Callable[[Tensor], Tensor]
    ratio: Callable[[float], float]
    largest: float
    published: tuple[float, ...]
    alpha: float = 0.5
    rate: float = 8.0

    def method(self) -> Method:
        """DPO with this divergence."""
        parameters = {"beta": BETA, "divergence": self.divergence, "alpha": self.alpha}
        return get("dpo").with_parts(objective=f_dpo, parameters=parameters)


def _alpha(alpha: float, published: tuple[float, ...]) -> Divergence:
    def f(t: Tensor) -> Tensor:
        return t / alpha - t ** (1 - alpha) / (alpha * (1 - alpha)) + 1 / (1 - alpha)

    def ratio(slope: float) -> float:
        return float((1 - alpha * slope) ** (-1 / alpha))

    return Divergence(f"alpha {alpha:g}", "alpha", f, ratio, 1 / alpha, published, alpha)


DIVERGENCES = (
    Divergence(
        "reverse KL", "reverse_kl", lambda t: t * t.log(), math.exp, 60.0, (0.712285, 0.170364, 0.041782, 0.075569)
    ),
    _alpha(0.3, (0.704529, 0.169570, 0.053331, 0.072571)),
    _alpha(0.5, (0.698837, 0.170112, 0.059853, 0.071198)),
    _alpha(0.7, (0.692884, 0.171231, 0.065662, 0.070224)),
    Divergence(
        "forward KL",
        "forward_kl",
        lambda t: -t.log(),
        lambda slope: -1 / slope,
        0.0,
        (0.683722, 0.173622, 0.073317, 0.069340),
        rate=1.0,
    ),
    Divergence(
        "Jensen-Shannon",
        "jensen_shannon",
        lambda t: t * t.log() - (t + 1) * ((t + 1) / 2).log(),
        lambda slope: math.exp(slope) / (2 - math.exp(slope)),
        math.log(2),
        (0.858452, 0.083407, 0.017398, 0.040743),
    ),
)
REVERSE, FORWARD, SHANNON = DIVERGENCES[0], DIVERGENCES[4], DIVERGENCES[5]


def optimum(which: Divergence, beta: float = BETA) -> tuple[float, ...]:
    """The maximizer of ``E[r] - beta D_f``: closed form but for the multiplier, which is found by bracketing."""

    def policy(multiplier: float) -> list[float]:
        pairs = zip(REWARD, REFERENCE, strict=True)
        return [share * which.ratio((reward - multiplier) / beta) for reward, share in pairs]

    def excess(multiplier: float) -> float:
        return math.log(max(sum(policy(multiplier)), 1e-300))

    # Just above its least value the multiplier gives the best response more than all mass; far above, next to none.
    least = max(REWARD) - beta * which.largest
    found = brentq(excess, least + 1e-12 * beta, least + 1000 * (1 + beta), xtol=1e-15, rtol=1e-14)
    return tuple(policy(found))


def bandit() -> tuple[TabularPolicy, lab.TabularWorld]:
    """A policy at its reference, and every ordered pair as the data set."""
    reward = torch.tensor([REWARD], dtype=torch.float64)
    reference = TabularPolicy(torch.tensor([REFERENCE], dtype=torch.float64).log())
    indices, preference = torch.arange(len(REWARD)), lab.bradley_terry(reward)
    rows = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), indices, indices)
    data = lab.dataset_pairs(rows, preference[0, rows[:, 1], rows[:, 2]])
    return reference, lab.TabularWorld(reference.frozen(), data, preference, reward)


@cache
def trained(which: Divergence) -> tuple[float, ...]:
    """Where gradient descent on the expected loss ends."""
    policy, world = bandit()
    direction = partial(lab.mixture_gradient, which.method(), policy, world)
    lab.train_exact(policy, direction, rate=which.rate, steps=5000, tolerance=1e-9)
    return tuple(policy.log_probs().detach().exp()[0].tolist())


def reward_of(shares: tuple[float, ...]) -> float:
    """``E[r]``."""
    return sum(share * reward for share, reward in zip(shares, REWARD, strict=True))


def cost(shares: tuple[float, ...], scale: Divergence) -> float:
    """``D_f(pi || ref)``, on one divergence's scale."""
    reference = torch.tensor(REFERENCE, dtype=torch.float64)
    return (reference * scale.f(torch.tensor(shares, dtype=torch.float64) / reference)).sum().item()


@cache
def reward_at(which: Divergence, scale: Divergence, wanted: float = MATCHED) -> float:
    """``E[r]`` of the optimum of ``which`` at the beta at which it costs ``wanted`` on another's scale."""

    def excess(log_beta: float) -> float:
        return cost(optimum(which, math.exp(log_beta)), scale) - wanted

    return reward_of(optimum(which, math.exp(brentq(excess, math.log(0.1), math.log(10.0), xtol=1e-12))))


def _table() -> Table:
    rows: list[tuple[str | float, ...]] = [
        (
            one.name,
            *trained(one),
            reward_of(trained(one)),
            cost(trained(one), REVERSE),
            cost(trained(one), FORWARD),
            reward_at(one, REVERSE),
            reward_at(one, FORWARD),
        )
        for one in DIVERGENCES
    ]
    columns = {
        "divergence": "",
        **{f"r = {reward:g}": ".6f" for reward in REWARD},
        "E[r]": ".3f",
        "KL to ref., nats": ".3f",
        "KL from ref., nats": ".3f",
        f"E[r] at {MATCHED:g} nats to": ".4f",
        f"E[r] at {MATCHED:g} nats from": ".4f",
    }
    return Table(
        name="optima",
        title=f"Where f-DPO ends at beta {BETA:g}, and E[r] at equal KL to or from the reference",
        columns=columns,
        rows=rows,
    )


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def _margins(which: Divergence) -> float:
    """How far the margins of ``beta f'`` at the trained policy are from those of the reward."""
    _, world = bandit()
    policy = TabularPolicy(torch.tensor([trained(which)], dtype=torch.float64).log())
    logps = world.data.log_probs(policy, world.reference)
    # At the optimum the loss is the entropy of the label, pair by pair.
    learned = which.method().bound_objective()(logps, world.data.p)
    p = world.data.p
    assert p is not None
    entropy = -(p * p.log() + (1 - p) * (1 - p).log())
    return (learned - entropy).abs().max().item()


def _claims() -> list[Claim]:
    published = [
        Claim(
            sentence=f"{one.name}: closed form against the tabulated optimum, largest difference",
            measured=_apart(optimum(one), one.published),
            relation="<=",
            expected=6e-7,
        )
        for one in DIVERGENCES
    ]
    landed = [
        Claim(
            sentence=f"{one.name}: end of training against the closed form, largest difference",
            measured=_apart(trained(one), optimum(one)),
            relation="<=",
            expected=1e-6,
        )
        for one in DIVERGENCES
    ]
    others = [reward_at(one, REVERSE) for one in DIVERGENCES if one is not REVERSE]
    backward = [reward_at(one, FORWARD) for one in DIVERGENCES if one is not FORWARD]
    return [
        *published,
        *landed,
        Claim(
            sentence="loss of each pair at the end of training minus the entropy of its label, largest of all",
            measured=max(_margins(one) for one in DIVERGENCES),
            relation="<=",
            expected=1e-10,
        ),
        Claim(
            sentence="E[r] at 0.2 nats of KL(pi || ref): reverse KL minus the best of the others",
            measured=reward_at(REVERSE, REVERSE) - max(others),
            relation=">=",
            expected=0.0,
        ),
        Claim(
            sentence="E[r] at 0.2 nats of KL(ref || pi): forward KL minus the best of the others",
            measured=reward_at(FORWARD, FORWARD) - max(backward),
            relation=">=",
            expected=0.0,
        ),
    ]


BETAS = tuple(math.exp(math.log(0.2) + step * math.log(15) / 30) for step in range(31))


def _missed_panel(scale: Divergence, title: str, x_label: str) -> Panel:
    """What each divergence's optima miss of the reward that the scale's own have at the same cost."""
    curves = []
    for one in DIVERGENCES:
        costs = [cost(optimum(one, beta), scale) for beta in BETAS]
        inside = [(x, beta) for x, beta in zip(costs, BETAS, strict=True) if 0.01 < x < 0.6]
        missed = [reward_at(scale, scale, x) - reward_of(optimum(one, beta)) for x, beta in inside]
        curves.append(
            Curve(
                label=one.name,
                x=[x for x, _ in inside],
                y=missed,
                style="dashed" if one is scale else "line",
            )
        )
    return Panel(title=title, x_label=x_label, y_label="reward missed of the best at that cost", curves=curves)


def _reward_panel() -> Panel:
    curves = []
    for one in DIVERGENCES:
        points = [(cost(optimum(one, beta), REVERSE), reward_of(optimum(one, beta))) for beta in BETAS]
        kept = [point for point in points if point[0] < 0.8]
        curves.append(Curve(label=one.name, x=[x for x, _ in kept], y=[y for _, y in kept]))
    marks = [
        Curve(
            label="f-DPO, beta 0.7" if index == 0 else "",
            x=[cost(trained(one), REVERSE)],
            y=[reward_of(trained(one))],
            style="points",
            color=index,
        )
        for index, one in enumerate(DIVERGENCES)
    ]
    return Panel(
        title="Reward against KL(policy || reference)",
        x_label="KL(policy || reference), nats (square-root spacing)",
        y_label="expected reward",
        x_scale="sqrt",
        curves=[*curves, *marks],
    )


def find() -> StudyResult:
    """Train f-DPO on all pairs, solve for its optima, and trace reward against cost."""
    figure = Figure(
        name="divergences",
        title="What other divergences buy and cost",
        panels=[
            _reward_panel(),
            _missed_panel(REVERSE, "Missed at equal KL to the reference", "KL(policy || reference), nats"),
            _missed_panel(FORWARD, "Missed at equal KL from the reference", "KL(reference || policy), nats"),
        ],
    )
    return StudyResult(tables=[_table()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="f-divergences",
    question="Where does DPO end when another divergence takes the place of the KL?",
    result="at the optimum of E[r] - beta D_f, for each; every divergence is best on its own scale alone",
    source="arXiv 2309.16240, the generalized loss and its table of f'",
    seconds=1,
    find=find,
)
