"""Nash-MD and its relatives: where they come to rest, how fast, and what a token-local KL gradient costs.

The game is rock-paper-scissors with the reference (0.6, 0.3, 0.1) where it is not said otherwise; beta is the paper's
tau, and a mixture's weight that of the reference. Policy gradients are trained as whole methods of the catalogue.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies import nash_ema
from setsail.lab.studies import nash_md_tokens as tokens
from setsail.lab.studies.game_runs import claim, curve, drawn_from, game_world, iterates, told
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Style, Table
from setsail.methods import Method, Source, get
from setsail.reference import average

EQUILIBRIA = {
    0.05: (0.377434, 0.276500, 0.346065),
    0.1: (0.432065, 0.230329, 0.337605),
    0.5: (0.643506, 0.193193, 0.163301),
}
STATIONARY = {
    0.0: EQUILIBRIA[0.5],
    0.125: (0.649997, 0.188903, 0.161100),
    0.375: (0.663614, 0.181749, 0.154637),
    1.0: (0.698086, 0.173330, 0.128584),
}
"""At beta 0.5, by the mixture's weight."""
HARMONIC = {100: 1.6e-5, 1000: 8.5e-7, 20_000: 2.5e-9}
AVERAGES, TRAINED, RATE = (0.3, 0.1, 0.01, 0.001), 300, 2.0
POLICY = Source(origin="policy")


# Policy gradients.


def against_mixture(weight: float) -> Method:
    """The catalogue's Nash-MD with another opponent; weight 0 = the policy itself."""
    return drawn_from(get("nash-md"), POLICY, Source(origin="mixture", share=weight))


def against_average(share: float) -> Method:
    """The catalogue's Nash-EMA: the opponent's weights take over a share of the policy's each step."""
    return get("nash-ema").with_parts(opponent=average(share))


@cache
def trained(beta: float, kind: str, number: float) -> Tensor:
    """Iterates of a policy-gradient method from the reference, shape ``(TRAINED + 1, 3)``."""
    method = against_mixture(number) if kind == "mixture" else against_average(number)
    game = lab.rock_paper_scissors(beta)
    method = method.configured(parameters={"beta": beta})
    return iterates(method, game_world(game), game.reference, steps=TRAINED, rate=RATE)


def _policy_gradients() -> Table:
    rows: list[tuple[Cell, ...]] = []
    opponents = [("mixture", weight) for weight in STATIONARY] + [("average", share) for share in AVERAGES]
    for beta in (0.5, 0.1):
        game, target = lab.rock_paper_scissors(beta), lab.equilibrium(lab.rock_paper_scissors(beta))
        for kind, number in opponents:
            last = trained(beta, kind, number)[-1]
            rest = lab.equilibrium(game, mixture=number if kind == "mixture" else 0.0)
            off = (last.exp() - rest.exp()).abs().max().item()
            named = f"mixture, weight {number:g}" if number else "the policy itself"
            name = named if kind == "mixture" else f"average, share {number:g} a step"
            shares = ", ".join(f"{share:.4f}" for share in last.exp().tolist())
            ends = (told(lab.exact_kl(target, last).item()), told(game.duality_gap(last).item()))
            rows.append((beta, name, shares, told(off, 1e-10), *ends))
    return Table(
        name="policy-gradients",
        title=f"Policy gradients trained for {TRAINED} steps of rate {RATE:g}, by opponent",
        columns={
            "beta": "g",
            "opponent": "",
            "last policy": "",
            "off the derived rest": ".1e",
            "KL(pi* || pi), nats": ".1e",
            "duality gap": ".1e",
        },
        rows=rows,
    )


# The tabular rule.


@cache
def run(beta: float, step: float | None) -> lab.Trajectory:
    """Nash-MD with a constant step from the reference, or with decreasing steps (None)."""
    game = lab.rock_paper_scissors(beta)
    if step is None:
        return lab.iterate(lab.nash_md, game, game.reference, max(HARMONIC), lab.harmonic_steps(game))
    return lab.iterate(lab.nash_md, game, game.reference, 2000, step)


def bound(beta: float, steps: int) -> float:
    """The theorem's bound on the KL under decreasing steps."""
    return 8 / (beta**2 * (steps + 1))


def bias(beta: float, weight: float) -> tuple[float, float]:
    """KL from the equilibrium to the point where a mixture of that weight comes to rest, nats, and the gap there."""
    game = lab.rock_paper_scissors(beta)
    rest = lab.equilibrium(game, mixture=weight)
    return lab.exact_kl(lab.equilibrium(game), rest).item(), game.duality_gap(rest).item()


def _schedules() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for beta, step in ((0.05, 1.0), (0.1, 1.0), (0.1, 0.1), (0.1, None)):
        found = run(beta, step)
        for steps in HARMONIC:
            if steps < len(found.kl):
                kl = found.kl[steps].item()
                rests = bias(beta, step * beta)[0] if step else 0.0
                loose = bound(beta, steps) / kl if step is None else None
                size = f"{step:g}" if step else "2 / (beta (t + 2))"
                rows.append((beta, size, steps, kl, rests, found.gap[steps].item(), loose))
    return Table(
        name="schedules",
        title="Tabular Nash-MD: a constant step comes to rest elsewhere, a decreasing one is slow",
        columns={
            "beta": "g",
            "step s": "",
            "steps": "d",
            "KL(pi* || pi), nats": ".2e",
            "KL at its rest": ".2e",
            "duality gap": ".2e",
            "theorem's bound / KL": ".0f",
        },
        rows=rows,
    )


def _biases() -> Table:
    rows = [(beta, weight, *bias(beta, weight)) for beta in (0.008, 0.05, 0.1, 0.5) for weight in (0.125, 0.375)]
    return Table(
        name="biases",
        title="Where Nash-MD policy gradients with the paper's mixtures come to rest",
        columns={"beta": "g", "reference's weight": "g", "KL(pi* || pi), nats": ".2e", "duality gap": ".2e"},
        rows=rows,
    )


# What the numbers say.


def _off(policy: Tensor, shares: tuple[float, ...]) -> float:
    return (policy.exp() - torch.tensor(shares, dtype=torch.float64)).abs().max().item()


def _claims_on_games() -> list[Claim]:
    """Why a preference is more than a reward, and the equilibria that the rest is measured against."""
    cycle = lab.ranking_game([(0, 1, 2), (1, 2, 0), (2, 0, 1)], (0.925 / 3, 1.15 / 3, 0.925 / 3))
    reward = torch.tensor([[1.0, 9.0, 2.0]], dtype=torch.float64).log()
    spread = torch.tensor([2 / 3, 1 / 3, 0.0], dtype=torch.float64)
    sure = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
    preferred = (sure @ lab.bradley_terry(reward)[0] @ spread).item()
    equilibria = max(_off(lab.equilibrium(lab.rock_paper_scissors(beta)), found) for beta, found in EQUILIBRIA.items())
    return [
        claim("rewards 0, ln 9, ln 2: mean reward of (2/3, 1/3, 0)", (spread @ reward[0]).item(), "=", 0.7324, 5e-5),
        claim("rewards 0, ln 9, ln 2: mean reward of (0, 0, 1)", (sure @ reward[0]).item(), "=", 0.6931, 5e-5),
        claim("how often (0, 0, 1) is preferred to (2/3, 1/3, 0) all the same", preferred, "=", 50 / 99, 1e-9),
        claim(
            "three kinds of annotators in a cycle, equilibrium (0.38333, 0.38333, 0.23333): largest error",
            _off(lab.equilibrium(cycle), (1.15 / 3, 1.15 / 3, 0.7 / 3)),
            "<=",
            1e-9,
        ),
        claim("equilibria of the cycle, beta 0.05, 0.1, 0.5: largest error of a probability", equilibria, "<=", 6e-7),
    ]


def _claims_on_the_rule() -> list[Claim]:
    game = lab.rock_paper_scissors(0.1)
    after = lab.nash_md(torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log(), game, 2.0)
    decreasing, constant = run(0.1, None), run(0.05, 1.0)
    steps = torch.arange(len(decreasing.kl))
    loosest = (8 / (0.01 * (steps + 1)) / decreasing.kl)[1:].min().item()
    self_play = lab.rock_paper_scissors(0.05)
    exact = lab.iterate(lab.mirror_descent, self_play, self_play.reference, 2000, 1.0).kl[-1].item()
    slope = math.log(bias(0.1, 0.01)[0] / bias(0.1, 0.005)[0]) / math.log(2)
    return [
        claim(
            "one step of Nash-MD from (0.2, 0.3, 0.5), beta 0.1, s 2, to (0.254257, 0.371209, 0.374534): largest error",
            _off(after, (0.254257, 0.371209, 0.374534)),
            "<=",
            6e-7,
        ),
        claim(
            "Nash-MD, constant step 1, beta 0.05: KL(pi* || pi) after 2000 steps",
            constant.kl[-1].item(),
            "=",
            7.6e-4,
            5e-6,
        ),
        claim("self-play without a mixture, step 1, beta 0.05: KL(pi* || pi) after 2000 steps", exact, "<=", 1e-15),
        *(
            claim(
                f"Nash-MD, decreasing steps, beta 0.1: KL(pi* || pi) after {count}",
                decreasing.kl[count].item(),
                "=",
                kl,
                0.03 * kl,
            )
            for count, kl in HARMONIC.items()
        ),
        claim(
            "decreasing steps, beta 0.1: the theorem's bound over the KL, smallest of 20000 steps", loosest, ">=", 200
        ),
        claim("power of the mixture's weight that the KL of its rest grows with", slope, "=", 2, 0.05),
    ]


def _claims_on_policy_gradients() -> list[Claim]:
    low, high = nash_ema.derived_shares()
    found_low, found_high = nash_ema.unstable_shares()
    circling = min(
        lab.rock_paper_scissors(0.1).duality_gap(trained(0.1, "average", share)[-100:]).min().item()
        for share in (0.1, 0.01, 0.001)
    )
    return [
        *(
            claim(
                f"nash-md trained at beta 0.5, reference's weight {weight:g}: largest error of the stationary point",
                _off(trained(0.5, "mixture", weight)[-1], shares),
                "<=",
                6e-7,
            )
            for weight, shares in STATIONARY.items()
        ),
        claim(
            "nash-ema trained at beta 0.5, share 0.1: distance from the equilibrium",
            _off(trained(0.5, "average", 0.1)[-1], EQUILIBRIA[0.5]),
            "<=",
            6e-7,
        ),
        claim("nash-ema at beta 0.1, shares 0.1 to 0.001, last 100 of 300 steps: smallest gap", circling, ">=", 0.05),
        claim("averages that circle, beta 0.1: smallest u = 3 e / (r beta)", found_low, "=", low, 0.01 * low),
        claim("averages that circle, beta 0.1: largest u", found_high, "=", high, 0.01 * high),
    ]


def _distances() -> Panel:
    shown = 2000
    bounds = [bound(0.1, step) for step in range(shown + 1)]
    return Panel(
        title="The tabular rule, beta 0.1",
        x_label="step",
        y_label="KL(pi* || pi), nats",
        x_scale="log",
        y_scale="log",
        y_range=(1e-8, 1e4),
        curves=[
            _spaced("constant step 1", run(0.1, 1.0).kl[: shown + 1].tolist(), 1),
            _spaced("constant step 0.1", run(0.1, 0.1).kl[: shown + 1].tolist(), 5),
            _spaced("decreasing steps", run(0.1, None).kl[: shown + 1].tolist(), 3),
            _spaced("the theorem's bound for these", bounds, 6, "dashed"),
        ],
    )


def _spaced(label: str, values: list[float], color: int, style: Style = "line") -> Curve:
    """Values of steps 1, 2, ..., as many in each decade."""
    steps = sorted({round((len(values) - 1) ** (place / 120)) for place in range(121)})
    return Curve(label=label, x=steps, y=[values[step] for step in steps], color=color, style=style)


def _circles() -> Panel:
    game = lab.rock_paper_scissors(0.1)
    shown = {"the policy itself": ("mixture", 0.0, 0), "mixture, weight 0.125": ("mixture", 0.125, 2)}
    shown |= {
        f"average, share {share:g}": ("average", share, place) for place, share in ((1, 0.3), (3, 0.01), (5, 0.001))
    }
    return Panel(
        title="Policy gradients, beta 0.1, by opponent",
        x_label="step",
        y_label="duality gap",
        y_scale="log",
        y_range=(1e-10, 3.0),
        curves=[
            curve(name, game.duality_gap(trained(0.1, kind, number)), color=color, points=200)
            for name, (kind, number, color) in shown.items()
        ],
    )


def find() -> StudyResult:
    """Run the tabular rule, train the policy gradients, and compare the two KL gradients."""
    figure = Figure(
        name="opponents",
        title="Nash-MD: a biased rest, a slow schedule, averages that circle, and a gradient that is not one",
        panels=[_distances(), _circles(), tokens.errors_panel()],
    )
    return StudyResult(
        tables=[_policy_gradients(), _schedules(), _biases(), tokens.gradients_table(), tokens.rests_table()],
        claims=[*_claims_on_games(), *_claims_on_the_rule(), *_claims_on_policy_gradients(), *tokens.claims()],
        figures=[figure],
    )


STUDY = Study(
    name="nash-md",
    question="Where does Nash-MD come to rest, and what do its opponents and its KL gradient change?",
    result="constant steps and fixed mixtures rest beside the equilibrium; decreasing steps reach it, slowly",
    source="arXiv 2312.00886, Nash-MD, its theorem, Nash-MD-PG and Nash-EMA-PG",
    seconds=6,
    find=find,
)
