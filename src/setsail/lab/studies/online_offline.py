"""Online against offline alignment: the same loss on the same pairs, in their order, shuffled, and on a fixed set.

The worlds are those of :mod:`setsail.lab.studies.tandem_replay`. Frontiers come from expected gradients, trained to the
end at each beta.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import torch

from setsail import lab
from setsail.core import DataError
from setsail.lab.studies.matched_kl import at_matched_kl, check_matched
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.lab.studies.tandem_replay import (
    BETA,
    EVERY,
    UPDATES,
    Measured,
    measured,
    online,
    replayed,
    shuffled,
    without_lengths,
    world_of,
)
from setsail.objectives import implicit_preference
from setsail.policies.tabular import EnumerablePolicy

WORLDS, WORST = 3, 4
BETAS = (3.0, 2.0, 1.0, 0.7, 0.5, 0.3, 0.2)
ONLINE, FULL, NARROW = "online", "offline, reference's pairs", "offline, worst four responses"
MISLEADING, NARROWEST = 0, 1
TOGETHER = 0.1


def narrowed(world: lab.TabularWorld) -> lab.TabularWorld:
    """The world whose data set has pairs of the worst responses only."""
    assert world.reward is not None
    worst = world.reward[0].argsort()[:WORST].tolist()
    rows = torch.tensor([[0, one, other] for one in worst for other in worst if one != other])
    return replace(world, data=lab.dataset_pairs(rows, world.preference[0, rows[:, 1], rows[:, 2]]))


@cache
def frontier(seed: int, which: str) -> tuple[Measured, ...]:
    """Where training ends at each beta, and how well the policy ranks the narrow data set's pairs at the last."""
    return tuple(one for one, _ in _ends(seed, which))


@cache
def _ends(seed: int, which: str) -> tuple[tuple[Measured, float], ...]:
    policy, world = world_of(seed)
    narrow = narrowed(world)
    trained_in = narrow if which == NARROW else world
    name = "oaif-ipo" if which == ONLINE else "ipo"
    found, before = [], BETAS[0]
    for beta in BETAS:
        with torch.no_grad():
            # Offline, weights go exactly as 1 / beta; online that is a good start.
            policy.weights.mul_(before / beta)
        before = beta
        direction = partial(lab.mixture_gradient, without_lengths(name, beta), policy, trained_in)
        lab.train_exact(policy, direction, rate=0.1, steps=4000, tolerance=1e-6)
        found.append((measured(policy, world), _accuracy(policy, narrow)))
    return tuple(found)


def _accuracy(policy: EnumerablePolicy, world: lab.TabularWorld) -> float:
    """Share of the data set's pairs whose likelier side the implicit reward prefers."""
    assert world.data.p is not None
    own = implicit_preference(world.data.log_probs(policy, world.reference), 1.0)
    return ((own > 0.5) == (world.data.p > 0.5)).double().mean().item()


def _misled() -> dict[str, Measured]:
    """Online, and offline on the worst responses, at one beta."""
    at = BETAS.index(BETA)
    return {which: frontier(MISLEADING, which)[at] for which in (ONLINE, NARROW)}


def _refused() -> bool:
    """Whether the two, at one beta but at different KL, are refused as a comparison."""
    try:
        check_matched({which: one.kl for which, one in _misled().items()})
    except DataError:
        return True
    return False


def _matched(seed: int) -> dict[str, float]:
    """Win rates at one KL."""
    paths = {
        which: [(0.0, 0.5), *((one.kl, one.win) for one in frontier(seed, which))] for which in (ONLINE, FULL, NARROW)
    }
    return at_matched_kl(paths, TOGETHER)


def _replay_table() -> Table:
    rows = []
    for seed in range(WORLDS):
        fresh, ordered, mixed = online(seed), replayed(seed), shuffled(seed)
        apart = [(other.weights - fresh.weights).norm().item() for other in (ordered, mixed)]
        ends = [number for run in (fresh, mixed) for number in (run.path[-1].kl, run.path[-1].win)]
        rows.append((seed, *apart, *ends))
    return Table(
        name="replay",
        title=f"{UPDATES} updates on single pairs, and offline on the same pairs: distance of the weights, and the end",
        columns={
            "world": "d",
            "in order": ".1f",
            "shuffled": ".3f",
            "online: KL, nats": ".3f",
            "online: win rate": ".3f",
            "shuffled: KL, nats": ".3f",
            "shuffled: win rate": ".3f",
        },
        rows=rows,
    )


def _frontier_table() -> Table:
    rows: list[tuple[str | float, ...]] = []
    for seed in (MISLEADING, NARROWEST):
        for which in (ONLINE, FULL, NARROW):
            one, accuracy = _ends(seed, which)[BETAS.index(BETA)]
            rows.append((seed, which, one.kl, one.win, _matched(seed)[which], accuracy))
    return Table(
        name="matched",
        title=f"Trained to the end at beta {BETA:g}: raw win rates, and at {TOGETHER:g} nats",
        columns={
            "world": "d",
            "pairs": "",
            "KL, nats": ".3f",
            "raw win rate": ".4f",
            "win rate at matched KL": ".4f",
            "accuracy on the worst four's pairs": ".2f",
        },
        rows=rows,
    )


def _replay_claims() -> list[Claim]:
    same = max((replayed(seed).weights - online(seed).weights).abs().max().item() for seed in range(WORLDS))
    apart = min((shuffled(seed).weights - online(seed).weights).norm().item() for seed in range(WORLDS))
    return [
        Claim(
            sentence="offline on the recorded pairs in their order: largest difference of a weight from online",
            measured=same,
            expected=0.0,
        ),
        Claim(
            sentence="offline on the same pairs shuffled: least distance of the weights over the worlds",
            measured=apart,
            relation=">=",
            expected=0.1,
        ),
        Claim(
            sentence="online and offline at one beta stand at different KL: the comparison is refused (1 = yes)",
            measured=float(_refused()),
            expected=1.0,
        ),
    ]


def _frontier_claims() -> list[Claim]:
    raw = _misled()
    accuracy = {which: _ends(NARROWEST, which)[-1][1] for which in (ONLINE, NARROW)}
    return [
        Claim(
            sentence="world 0, beta 0.3: raw win rate of the worst responses' pairs minus that of online training",
            measured=raw[NARROW].win - raw[ONLINE].win,
            relation=">=",
            expected=0.0,
        ),
        Claim(
            sentence="world 0: the same difference at 0.1 nats; its sign turns",
            measured=_matched(MISLEADING)[NARROW] - _matched(MISLEADING)[ONLINE],
            relation="<=",
            expected=0.0,
        ),
        Claim(
            sentence="world 1: accuracy on the worst responses' pairs, trained on them",
            measured=accuracy[NARROW],
            expected=1.0,
        ),
        Claim(
            sentence="world 1: accuracy on the same pairs, trained online",
            measured=accuracy[ONLINE],
            relation="<=",
            expected=0.9,
        ),
        Claim(
            sentence="world 1: win rate at 0.1 nats, trained on the worst responses' pairs: worse than the reference",
            measured=_matched(NARROWEST)[NARROW],
            relation="<=",
            expected=0.5,
        ),
        Claim(
            sentence="world 1: online training's win rate at 0.1 nats minus that of training on the reference's pairs",
            measured=_matched(NARROWEST)[ONLINE] - _matched(NARROWEST)[FULL],
            expected=0.0,
            tolerance=1e-3,
        ),
    ]


def _replay_panel() -> Panel:
    updates = list(range(0, UPDATES + 1, EVERY))
    thinned = {"offline, in order": 2}
    runs = {"online": online(NARROWEST), "offline, in order": replayed(NARROWEST), "shuffled": shuffled(NARROWEST)}
    return Panel(
        title="World 1: one stream of pairs, three ways",
        x_label="update on one pair",
        y_label="win rate against the reference",
        curves=[
            Curve(
                label=name,
                x=updates[:: thinned.get(name, 1)],
                y=[one.win for one in run.path][:: thinned.get(name, 1)],
                style="points" if name in thinned else "line",
            )
            for name, run in runs.items()
        ],
    )


def _best_win_rate(world: lab.TabularWorld, kl: float) -> float:
    chance = (world.preference[0] @ world.reference.log_probs().detach().exp()[0]).unsqueeze(0)
    return lab.best_reward_at_kl(world.reference, chance, kl)


def _shortfall_panel() -> Panel:
    """World 0, where all three lie close: what each misses of the best win rate."""
    _, world = world_of(MISLEADING)
    curves = [
        Curve(
            label=which,
            x=[one.kl for one in frontier(MISLEADING, which)],
            y=[_best_win_rate(world, one.kl) - one.win for one in frontier(MISLEADING, which)],
            style="line+points",
        )
        for which in (ONLINE, FULL, NARROW)
    ]
    return Panel(
        title="World 0, each point a beta",
        x_label="KL(policy || reference), nats (square-root spacing)",
        y_label="win rate missed of the best at that KL",
        x_scale="sqrt",
        curves=curves,
    )


def _frontier_panel() -> Panel:
    _, world = world_of(NARROWEST)
    kls = [0.4 * (step / 30) ** 2 for step in range(31)]
    best = [_best_win_rate(world, kl) for kl in kls]
    curves = [
        Curve(
            label=which,
            x=[0.0, *(one.kl for one in frontier(NARROWEST, which))],
            y=[0.5, *(one.win for one in frontier(NARROWEST, which))],
            style="line+points",
        )
        for which in (ONLINE, FULL, NARROW)
    ]
    return Panel(
        title="World 1, each point a beta",
        x_label="KL(policy || reference), nats (square-root spacing)",
        y_label="win rate against the reference",
        x_scale="sqrt",
        curves=[*curves, Curve(label="best win rate at that KL", x=kls, y=best, style="dashed", color=6)],
    )


def find() -> StudyResult:
    """Replay streams of pairs, and trace win rate against KL for online and offline training."""
    figure = Figure(
        name="replay",
        title="Online and offline training with one loss",
        panels=[
            _replay_panel(),
            _shortfall_panel(),
            _frontier_panel(),
        ],
    )
    return StudyResult(
        tables=[_frontier_table(), _replay_table()],
        claims=[*_replay_claims(), *_frontier_claims()],
        figures=[figure],
    )


STUDY = Study(
    name="online-offline",
    question="What separates online from offline alignment, and what must be held equal to see it?",
    result="order alone matters in a replay; raw win rates at different KL mislead; ranking well is not answering well",
    source="arXiv 2405.08448, tandem replay, KL matching, policies as classifiers",
    seconds=12,
    find=find,
)
