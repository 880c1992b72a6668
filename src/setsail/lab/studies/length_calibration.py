"""The part of the study of rounds that is about length: what the implicit reward learnt of it, and how it is taken out.

DICE labels a round's answers by ``log pi_t - log pi_{t-1} - alpha length``, with the alpha at which the best and the
worst answers are equally long.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.core import Judgement, stream
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Table
from setsail.methods import Method, compare, get
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

# Scores with a known price of length, of drawn answers.

PROMPTS, ANSWERS, PRICE = 400, 8, 0.01
GRID = [place / 1000 for place in range(21)]


def _implicit_only(beta: float = 1.0) -> Method:
    """The catalogue's DICE without its offline half."""
    method = get("dice").configured(parameters={"beta": beta}, generations=2)
    return method.with_parts(routes=(replace(method.routes[0], weight=1.0),), offline=False)


@cache
def synthetic_gaps() -> list[float]:
    """Mean length of the best minus that of the worst of eight, for each alpha of the grid."""
    lengths, scores = drawn_scores()
    return [_gap((scores - alpha * lengths).tolist(), lengths.tolist()) for alpha in GRID]


def drawn_scores() -> tuple[Tensor, Tensor]:
    """Lengths of 400 prompts' eight answers, and scores that pay 0.01 a token beside a quality of N(0, 1)."""
    length, quality = torch.from_numpy(stream(0, "study", "rounds", "lengths").normal(size=(2, PROMPTS, ANSWERS)))
    lengths = 300 + 100 * length
    return lengths, quality + PRICE * lengths


def _gap(net: Sequence[Sequence[float]], lengths: Sequence[Sequence[float]]) -> float:
    route = _implicit_only().routes[0]
    unasked = ((None,) * ANSWERS,) * ANSWERS
    gaps = []
    for row, sizes in zip(net, lengths, strict=True):
        judgement = Judgement(preference=unasked, scores=tuple(map(float, row)), labeler="the score")
        [pair] = compare(route, judgement, ANSWERS, lambda: 0.0)
        gaps.append(float(sizes[pair.indices[0]] - sizes[pair.indices[1]]))
    return sum(gaps) / len(gaps)


# Exact rounds: fifteen answers of three lengths, whose first labeler paid for length.

LENGTHS = torch.tensor([40.0, 80.0, 120.0], dtype=torch.float64).repeat_interleave(5)
BIAS, STEPS, RATE = 0.02, 16, 1.0


def _quality() -> Tensor:
    """Normal draws, with the same mean at every length."""
    drawn = torch.from_numpy(stream(0, "study", "rounds", "quality").normal(size=(3, 5)))
    return (drawn - drawn.mean(1, keepdim=True)).flatten()


@dataclass(frozen=True, slots=True)
class LengthRound:
    """A policy of the rounds: the alpha it was labeled with, its mean length and its mean quality."""

    alpha: float
    length: float
    quality: float


@cache
def _rounds(calibrated: bool) -> tuple[LengthRound, ...]:
    """After the first DPO run (on labels that pay for length), and after two rounds of DICE."""
    start = TabularPolicy.uniform(prompts=1, responses=len(LENGTHS))
    policy = lab.optimal_policy(start, (_quality() + BIAS * LENGTHS).unsqueeze(0), beta=1.0)
    last: EnumerablePolicy = start
    found = [_measured(0.0, policy)]
    method = _implicit_only().configured(staleness=STEPS - 1)
    for _ in range(2):
        now = policy.frozen()
        alpha = min(GRID_OF_ROUNDS, key=lambda one: abs(_exact_gap(one, now, last))) if calibrated else 0.0
        for _ in lab.train(method, policy, _world(alpha, now, last), steps=STEPS, rate=RATE):
            pass
        found.append(_measured(alpha, policy))
        last = now
    return tuple(found)


GRID_OF_ROUNDS = [place / 500 for place in range(16)]


def _world(alpha: float, now: EnumerablePolicy, last: EnumerablePolicy) -> lab.TabularWorld:
    """Scores are ``log pi_t - log pi_{t-1} - alpha length``: the price of length stands in the opponent's logits."""
    paid = TabularPolicy(last.log_probs().detach() + alpha * LENGTHS).frozen()
    nothing = lab.dataset_pairs(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    even = torch.full((1, len(LENGTHS), len(LENGTHS)), 0.5, dtype=torch.float64)
    return lab.TabularWorld(now, nothing, even, opponent=paid)


def _exact_gap(alpha: float, now: EnumerablePolicy, last: EnumerablePolicy) -> float:
    method = _implicit_only()
    [groups] = lab.route_groups(method, method.routes[0], now, _world(alpha, now, last))
    best, worst = LENGTHS[groups.members].unbind(-1)
    return float((groups.weight * (best - worst)).sum() / groups.weight.sum())


def _measured(alpha: float, policy: EnumerablePolicy) -> LengthRound:
    share = policy.log_probs().detach()[0].exp()
    return LengthRound(alpha, float(share @ LENGTHS), float(share @ _quality()))


def table() -> Table:
    """Mean length and quality round by round, with and without the correction for length."""
    rows = [
        (name, number, one.alpha if number and calibrated else None, one.length, one.quality)
        for name, calibrated in (("plain", False), ("length-calibrated", True))
        for number, one in enumerate(_rounds(calibrated))
    ]
    return Table(
        name="lengths",
        title="DICE after a first labeler who paid 0.02 nats a token (round 0 is the DPO run on its labels)",
        columns={"labels": "", "round": "d", "alpha": ".3f", "mean length, tokens": ".1f", "mean quality": ".3f"},
        rows=rows,
    )


def figure() -> Figure:
    """The length gap against alpha, and the length of the answers round by round."""
    gap = Panel(
        title="Scores that pay 0.01 a token",
        x_label="alpha, nats a token",
        y_label="length of best - length of worst, tokens",
        curves=[
            Curve(label="400 prompts, best and worst of 8", x=GRID, y=synthetic_gaps(), style="line+points"),
            Curve(label="equally long", x=[GRID[0], GRID[-1]], y=[0.0, 0.0], style="dashed", color=6),
        ],
    )
    lengths = Panel(
        title="Rounds of DICE",
        x_label="round",
        y_label="mean length, tokens",
        ticks=["the DPO run", "1", "2"],
        curves=[
            Curve(label=name, x=[0, 1, 2], y=[one.length for one in _rounds(calibrated)], style="line+points")
            for name, calibrated in (("plain", False), ("length-calibrated", True))
        ],
    )
    return Figure(
        name="lengths", title="A price on length, found where best and worst are equally long", panels=[gap, lengths]
    )


def claims() -> list[Claim]:
    """What the search for alpha finds, and what it does to the length of the answers."""
    gaps = synthetic_gaps()
    place = min(range(len(GRID)), key=lambda index: abs(gaps[index]))
    plain, calibrated = _rounds(False), _rounds(True)
    return [
        Claim(
            sentence="DICE: alpha found for scores that pay 0.01 a token",
            measured=GRID[place],
            expected=0.010,
            tolerance=0.002,
        ),
        Claim(sentence="DICE: mean length gap without alpha, tokens", measured=gaps[0], expected=200, tolerance=20),
        Claim(
            sentence="DICE: size of the gap at that alpha, tokens",
            measured=abs(gaps[place]),
            relation="<=",
            expected=15,
        ),
        Claim(
            sentence="DICE, exact rounds: alpha found after a labeler who paid 0.02 a token",
            measured=calibrated[1].alpha,
            expected=0.02,
            tolerance=0.004,
        ),
        Claim(
            sentence="DICE, exact rounds: tokens gained in the first round, share of those gained without alpha",
            measured=(calibrated[1].length - calibrated[0].length) / (plain[1].length - plain[0].length),
            relation="<=",
            expected=0.25,
        ),
    ]
