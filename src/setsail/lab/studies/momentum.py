"""What momentum between rounds buys: fewer rounds along the very path of plain iterative DPO.

A round of DPO under a true Bradley-Terry labeler adds ``reward / beta`` to the logits. With momentum the rounds add
more and more of it; the direction does not change, so neither does the curve of reward against KL.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from scipy.optimize import brentq
from torch import Tensor

from setsail import lab
from setsail.lab.newton import Newton
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get
from setsail.policies import Extrapolation
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy
from setsail.reference import every

STEPS = 12
MOMENTA = (0.0, 0.3, 0.6)


def _method(momentum: float, beta: float) -> Method:
    return get("apo-accelerated").configured(
        parameters={"beta": beta}, reference=every(STEPS, momentum=momentum), staleness=STEPS - 1
    )


def _world(start: Tensor, reward: Tensor) -> lab.TabularWorld:
    nothing = lab.dataset_pairs(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    return lab.TabularWorld(TabularPolicy(start).frozen(), nothing, lab.bradley_terry(reward), reward)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Log-probs, shape ``(prompts, responses)``, of a run in exact rounds.

    Attributes:
        trained: what each round was trained to.
        starts: what each round started from; with momentum that lies beyond what the round before was trained to.
    """

    trained: tuple[Tensor, ...]
    starts: tuple[Tensor, ...]


def solved(method: Method, world: lab.TabularWorld, rounds: int) -> Rounds:
    """Some rounds of a dozen Newton steps; the last step of each only confirms the one before."""
    policy = TabularPolicy(world.reference.log_probs())
    newton, seen = Newton(), []

    def watched(method: Method, policy: EnumerablePolicy, world: lab.TabularWorld, sampler: EnumerablePolicy) -> Tensor:
        seen.append(policy.log_probs().detach())
        return newton(method, policy, world, sampler)

    for _ in lab.train(method, policy, world, steps=rounds * STEPS, rate=1.0, direction=watched):
        pass
    return Rounds(tuple(seen[STEPS - 1 :: STEPS]), tuple(seen[::STEPS]))


# The published recursion: three responses, reward / beta = 0, .5, 1, a uniform start.

LADDER = torch.tensor([[0.0, 0.5, 1.0]], dtype=torch.float64)


def _multiple(log_probs: Tensor) -> float:
    """How many times ``reward / beta`` was added to the logits of a policy that started uniform."""
    return float(log_probs[0, 2] - log_probs[0, 0])


@cache
def _ladder(momentum: float) -> Rounds:
    return solved(_method(momentum, 1.0), _world(torch.zeros_like(LADDER), LADDER), 4)


@cache
def _recursion(momentum: float, rounds: int) -> float:
    """The multiple after rounds that add ``reward / beta`` exactly, extrapolated by the code that trains."""
    policy = TabularPolicy.uniform(prompts=1, responses=3)
    extrapolation = Extrapolation(policy, momentum)
    found = 0.0
    for _ in range(rounds):
        with torch.no_grad():
            policy.logits.add_(LADDER)
        found = _multiple(policy.log_probs().detach())
        extrapolation.step()
    return found


def closed_form(momentum: float, rounds: int) -> float:
    """``[T - a (1 - a^T) / (1 - a)] / (1 - a)``, a the momentum: the multiple that round T is trained to."""
    return (rounds - momentum * (1 - momentum**rounds) / (1 - momentum)) / (1 - momentum)


def _table() -> Table:
    rows: list[tuple[float | None, ...]] = []
    for momentum in MOMENTA:
        for rounds in (1, 2, 3, 10, 50):
            multiple = _recursion(momentum, rounds)
            ladder, shown = _ladder(momentum), rounds <= 3
            trained = _multiple(ladder.trained[rounds - 1]) if shown else None
            start = _multiple(ladder.starts[rounds]) if shown else None
            rows.append((momentum, rounds, trained, multiple, start, multiple / rounds, 1 / (1 - momentum)))
    return Table(
        name="multiples",
        title="How often reward / beta has been added to the logits",
        columns={
            "momentum": ".1f",
            "round": "d",
            "trained": ".4f",
            "recursion": ".4f",
            "next start, trained": ".4f",
            "speed-up": ".3f",
            "its limit": ".3f",
        },
        rows=rows,
    )


# A proxy that is wrong where the start does not go: fourteen responses, ever rarer.

PLACES = torch.arange(14, dtype=torch.float64).unsqueeze(0)
COMMON = -PLACES.square() / 8
PROXY = PLACES / 4
GOLD = (-((PLACES - 4) / 4).square()).exp()
BETA, ROUNDS = 1.5, 12


@cache
def _rounds(momentum: float) -> list[tuple[float, float, float, tuple[float, ...]]]:
    """(KL to the start, proxy, gold, probabilities) of the policy that each round is trained to, the start first."""
    world = _world(COMMON, PROXY)
    tables = solved(_method(momentum, BETA), world, ROUNDS).trained
    policies: list[EnumerablePolicy] = [world.reference, *map(TabularPolicy, tables)]
    return [
        (
            lab.reverse_kl(policy, world.reference).item(),
            lab.expected_reward(policy, PROXY).item(),
            lab.expected_reward(policy, GOLD).item(),
            tuple(policy.log_probs().detach()[0].exp().tolist()),
        )
        for policy in policies
    ]


def _at(multiple: float) -> EnumerablePolicy:
    return TabularPolicy(COMMON + multiple * PROXY / BETA)


@cache
def _distance_to_the_curve(momentum: float) -> float:
    """Largest gap in gold reward between a round and the policy on the curve ``pi_0 exp(c proxy / beta)`` of its KL."""
    start = _at(0.0)
    gaps = []
    for kl, _, gold, _ in _rounds(momentum)[1:]:
        multiple = brentq(lambda c, kl=kl: lab.reverse_kl(_at(c), start).item() - kl, 0.0, 60.0, xtol=1e-13)
        gaps.append(abs(lab.expected_reward(_at(multiple), GOLD).item() - gold))
    return max(gaps)


def _peak(momentum: float) -> int:
    """The round with the best gold reward."""
    golds = [gold for _, _, gold, _ in _rounds(momentum)]
    return golds.index(max(golds))


def _proxy_table() -> Table:
    rows = []
    for momentum in MOMENTA:
        rounds = _rounds(momentum)
        best = rounds[_peak(momentum)]
        eighth, last = rounds[8], rounds[-1]
        rows.append((momentum, _peak(momentum), best[0], best[2], eighth[0], eighth[2], last[0], last[1], last[2]))
    return Table(
        name="proxy",
        title="Twelve rounds on a proxy that is wrong about rare responses",
        columns={
            "momentum": ".1f",
            "best round": "d",
            "KL there, nats": ".3f",
            "gold there": ".4f",
            "KL, round 8": ".3f",
            "gold, round 8": ".4f",
            "KL, round 12": ".3f",
            "proxy, round 12": ".4f",
            "gold, round 12": ".4f",
        },
        rows=rows,
    )


def _recursion_claims() -> list[Claim]:
    ladder = _ladder(0.3)
    published = torch.tensor([0.0211, 0.1336, 0.8453])
    values = [
        ("momentum 0.3: multiple that the third round is trained to", _multiple(ladder.trained[2]), 3.690, 1e-9),
        ("momentum 0.3: multiple that the fourth round starts from", _multiple(ladder.starts[3]), 4.107, 1e-9),
        ("momentum 0: multiple of the third round", _multiple(_ladder(0.0).trained[2]), 3.0, 1e-9),
        *(
            (f"momentum 0.3: speed-up after {rounds} rounds", _recursion(0.3, rounds) / rounds, wanted, 5e-4)
            for rounds, wanted in ((3, 1.230), (10, 1.367), (50, 1.416))
        ),
    ]
    worst = max(
        abs(_recursion(momentum, rounds) - closed_form(momentum, rounds))
        for momentum in MOMENTA
        for rounds in (1, 2, 3, 10, 50)
    )
    return [
        *(
            Claim(sentence=text, measured=found, expected=wanted, tolerance=slack)
            for text, found, wanted, slack in values
        ),
        Claim(
            sentence="momentum 0.3, third round: distance of its policy to (.0211, .1336, .8453)",
            measured=float((ladder.trained[2][0].exp() - published).abs().max()),
            relation="<=",
            expected=6e-5,
        ),
        Claim(
            sentence="recursion against closed form: largest difference", measured=worst, relation="<=", expected=1e-11
        ),
        Claim(
            sentence="numbers that differ between momentum 0 and iterative DPO, 36 steps, bit for bit",
            measured=_differing_numbers(),
            expected=0,
        ),
    ]


def _differing_numbers() -> int:
    """Entries of the weights and gradients of all steps that differ between the two methods."""
    traces = []
    plain = get("iterative-dpo").configured(parameters={"beta": 1.0}, reference=every(STEPS), staleness=STEPS - 1)
    for method in (_method(0.0, 1.0), plain):
        world = _world(torch.zeros_like(LADDER), LADDER)
        policy = TabularPolicy(world.reference.log_probs())
        trace = [
            torch.cat((step.gradient, policy.logits.detach().flatten()))
            for step in lab.train(method, policy, world, steps=3 * STEPS, rate=1.0)
        ]
        traces.append(torch.stack(trace))
    return int((traces[0] != traces[1]).sum())


def _proxy_claims() -> list[Claim]:
    smaller = max(
        abs(one - other)
        for rounds in (4, 8)
        for one, other in zip(
            _rounds(0.3)[rounds][3],
            _at(closed_form(0.3, rounds)).log_probs().detach()[0].exp().tolist(),
            strict=True,
        )
    )
    return [
        *(
            Claim(
                sentence=f"momentum {momentum:g}: distance in gold reward of its rounds to the curve of plain rounds",
                measured=_distance_to_the_curve(momentum),
                relation="<=",
                expected=1e-9,
            )
            for momentum in MOMENTA
        ),
        Claim(
            sentence="rounds 4 and 8 with momentum are optima of RLHF at beta over the multiple: largest difference",
            measured=smaller,
            relation="<=",
            expected=1e-9,
        ),
        Claim(
            sentence="rounds by which the best gold reward comes earlier with momentum 0.3",
            measured=_peak(0.0) - _peak(0.3),
            relation=">=",
            expected=1,
        ),
        Claim(
            sentence="gold reward lost at round 8 to momentum 0.3",
            measured=_rounds(0.0)[8][2] - _rounds(0.3)[8][2],
            relation=">=",
            expected=0.0,
        ),
    ]


def _figure() -> Figure:
    rounds = list(range(ROUNDS + 1))
    names = {momentum: f"momentum {momentum:g}" for momentum in MOMENTA}
    multiples = [
        Curve(
            label=names[momentum], x=rounds, y=[closed_form(momentum, number) for number in rounds], style="line+points"
        )
        for momentum in MOMENTA
    ]
    grid = [closed_form(0.6, ROUNDS) * (place / 80) for place in range(81)]
    start = _at(0.0)
    curve = Curve(
        label="pi_0 exp(c proxy / beta)",
        x=[lab.reverse_kl(_at(c), start).item() for c in grid],
        y=[lab.expected_reward(_at(c), GOLD).item() for c in grid],
        color=6,
    )
    points = [
        Curve(
            label=names[momentum], x=[one[0] for one in found], y=[one[2] for one in found], style="points", color=color
        )
        for color, momentum in enumerate(MOMENTA)
        for found in [_rounds(momentum)]
    ]
    golds = [
        Curve(label=names[momentum], x=rounds, y=[one[2] for one in _rounds(momentum)], style="line+points")
        for momentum in MOMENTA
    ]
    return Figure(
        name="path",
        title="Momentum moves faster along the same curve, past its top as well",
        panels=[
            Panel(title="How far", x_label="round", y_label="times reward / beta was added", curves=multiples),
            Panel(
                title="One curve",
                x_label="KL(policy || start), nats",
                y_label="gold reward",
                x_scale="sqrt",
                curves=[curve, *points],
            ),
            Panel(title="Round by round", x_label="round", y_label="gold reward", curves=golds),
        ],
    )


def find() -> StudyResult:
    """Solve rounds with and without momentum, on the true reward and on a proxy."""
    return StudyResult(
        tables=[_table(), _proxy_table()], claims=[*_recursion_claims(), *_proxy_claims()], figures=[_figure()]
    )


STUDY = Study(
    name="momentum",
    question="What does momentum between rounds buy?",
    result="1 / (1 - momentum) times the progress of a round, on the same curve of reward against KL: a smaller beta",
    source="arXiv 2410.06293, accelerated preference optimization",
    seconds=3,
    find=find,
)
