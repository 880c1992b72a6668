"""EGPO against online IPO and Nash-MD: last iterates on cyclic and random games, as exact laws and as whole methods.

Gaps are duality gaps, in win rate; a step of EGPO takes two gradients, one of every other rule takes one.
"""

from __future__ import annotations

import math
from statistics import median

from setsail import lab
from setsail.lab.studies.egpo_runs import (
    COSTS,
    DECREASING,
    EGPO,
    GAMES,
    METHODS,
    NASH_MD,
    ONLINE_IPO,
    RESPONSES,
    RULES,
    SHIPPED_STEPS,
    UNIFORM,
    WIDE_STEP,
    best_step,
    bias,
    bound_violations,
    cycle_run,
    evaluations,
    gradient_error,
    largest_step,
    method_path,
    random_run,
    steps_of,
    trained,
    uniform_egpo,
)
from setsail.lab.studies.game_runs import claim, curve, told
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Table

CYCLES = [(0.01, 0.3, name) for name in RULES] + [(0.01, 1.0, name) for name in (EGPO, ONLINE_IPO)]
CYCLES += [(0.1, 0.3, name) for name in RULES]


def _cycles() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for beta, step, name in CYCLES:
        found = cycle_run(beta, step, name)
        last = found.trajectory
        size: Cell = "2 / (beta (t + 2))" if name == DECREASING else f"{step:g}"
        measured = None if name == DECREASING else found.measured
        end = (told(last.gap[-1].item()), told(last.kl[-1].item()))
        rows.append((beta, name, size, len(last.gap) - 1, *end, found.factor, measured))
    return Table(
        name="cycles",
        title="Last iterates on the tilted cycle (rock-paper-scissors, reference logits 0.5, 0, -0.5)",
        columns={
            "beta": "g",
            "rule": "",
            "step s": "",
            "steps": "d",
            "gap": ".1e",
            "KL(pi* || pi), nats": ".1e",
            "factor at rest": ".5f",
            "measured factor": ".5f",
        },
        rows=rows,
    )


def _randoms() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for beta, name, step, steps in (
        *((0.1, name, steps_of(0.1), 1000) for name in RULES),
        *((0.01, name, steps_of(0.01), 1000) for name in RULES),
        (0.01, ONLINE_IPO, steps_of(0.01), 5000),
        (0.01, EGPO, WIDE_STEP, 1000),
    ):
        found = [random_run(beta, name, seed, step) for seed in range(GAMES)]
        gaps = sorted(each.trajectory.gap[steps].item() for each in found)
        factors = [each.factor for each in found if each.factor is not None]
        unstable = sum(factor > 1 for factor in factors) if factors else None
        size = "decreasing" if name == DECREASING else f"{step:g}"
        middle = (gaps[GAMES // 2 - 1] + gaps[GAMES // 2]) / 2
        rows.append((beta, name, size, steps, told(gaps[0]), told(middle), told(gaps[-1]), unstable))
    return Table(
        name="random-games",
        title="Gap of the last iterate on ten random games of ten responses",
        columns={
            "beta": "g",
            "rule": "",
            "step s": "",
            "steps": "d",
            "smallest": ".1e",
            "median": ".1e",
            "largest": ".1e",
            "games with a factor above 1": "d",
        },
        rows=rows,
    )


def _stability() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for beta in (0.1, 0.01):
        for name, cost in COSTS.items():
            game, theorem = lab.rock_paper_scissors(beta, UNIFORM), 1 / (beta + 3)
            factor = lab.local_factor(RULES[name], game, theorem, at=game.reference)
            count = cost * math.log(10) / (-2 * math.log(factor)) if factor < 1 else "diverges"
            rows.append((beta, name, largest_step(beta, name), theorem, count, *best_step(beta, name)))
    return Table(
        name="stability",
        title="Gradients that divide the gap by ten, on rock-paper-scissors with a uniform reference",
        columns={
            "beta": "g",
            "rule": "",
            "largest stable s": ".4f",
            "EGPO's theorem: s": ".3f",
            "gradients there": ".0f",
            "best s": ".2f",
            "gradients at the best": ".0f",
        },
        rows=rows,
    )


def _methods() -> Table:
    game, rows = lab.tilted_rock_paper_scissors(0.01), []
    for name, (make, answers) in METHODS.items():
        path, is_plain = method_path(name), make().update == "plain"
        law = lab.iterate(
            lab.mirror_descent if is_plain else lab.extragradient, game, game.reference, len(path) - 1, 1.0
        )
        off = (path - law.log_probs).abs().max().item()
        gap = told(game.duality_gap(path[-1]).item())
        rows.append((name, 1 if is_plain else 2, answers, told(off, 1e-10), gap))
    return Table(
        name="methods",
        title=f"The catalogue's methods trained on the tilted cycle, beta 0.01, s = 1, {SHIPPED_STEPS} steps",
        columns={
            "method": "",
            "gradients a step": "d",
            "answers a gradient": "d",
            "largest distance from the law, nats": ".1e",
            "gap at the end": ".1e",
        },
        rows=rows,
    )


def _claims_on_cycles() -> list[Claim]:
    game = lab.tilted_rock_paper_scissors(0.01)
    small, large = (cycle_run(0.01, step, EGPO).trajectory for step in (0.3, 1.0))
    small_ipo, large_ipo = (cycle_run(0.01, step, ONLINE_IPO).trajectory for step in (0.3, 1.0))
    residual = game.residual(large.last).item()
    return [
        claim("tilted cycle, beta 0.01, s 0.3, 3000 steps: gap of EGPO", small.gap[-1].item(), "<=", 1e-12),
        claim(
            "tilted cycle, beta 0.01, s 0.3, 3000 steps: gap of online IPO", small_ipo.gap[-1].item(), "=", 0.338, 5e-4
        ),
        claim(
            "tilted cycle, beta 0.01, s 1, 3000 steps: gap of online IPO", large_ipo.gap[-1].item(), "=", 0.631, 5e-4
        ),
        claim(
            "tilted cycle, beta 0.01, s 1, EGPO: largest |log pi - log(ref exp(P pi / beta) / Z)|, nats",
            residual,
            "<=",
            1e-10,
        ),
    ]


def _claims_on_random_games() -> list[Claim]:
    found = {
        name: [random_run(0.01, name, seed, steps_of(0.01)) for seed in range(GAMES)] for name in (EGPO, ONLINE_IPO)
    }
    egpo = max(run.trajectory.gap[1000].item() for run in found[EGPO])
    worst = max(found[ONLINE_IPO], key=lambda run: run.factor or 0.0)
    predicted = sum((run.factor or 0.0) > 1 for run in found[ONLINE_IPO])
    left = sum(run.trajectory.gap[-1].item() > 1e-3 for run in found[ONLINE_IPO])
    easy = [
        random_run(0.1, name, seed, steps_of(0.1)).trajectory for name in (EGPO, ONLINE_IPO) for seed in range(GAMES)
    ]
    stalled = [random_run(0.1, NASH_MD, seed, steps_of(0.1)) for seed in range(GAMES)]
    games = [lab.random_game(seed, RESPONSES, 0.1) for seed in range(GAMES)]
    weight = 0.1 * steps_of(0.1)
    errors = [
        abs(run.trajectory.kl[-1].item() / bias(game, weight) - 1) for game, run in zip(games, stalled, strict=True)
    ]
    halved = [bias(game, weight / 2) / bias(game, weight) for game in games]
    return [
        claim("ten random games, beta 0.01, 1000 steps: largest gap of EGPO", egpo, "<=", 1e-8),
        claim(
            "the same games and steps: gap of online IPO in the hardest", worst.trajectory.gap[1000].item(), ">=", 1e-3
        ),
        claim(
            "the same games: those not solved to 1e-3 by online IPO in 5000 steps, against those of a factor above 1",
            left,
            "=",
            predicted,
        ),
        claim(
            "ten random games, beta 0.1, 1000 steps: largest gap of EGPO and online IPO",
            max(run.gap[-1].item() for run in easy),
            "<=",
            1e-20,
        ),
        claim(
            "the same games and steps: smallest gap of Nash-MD",
            min(run.trajectory.gap[-1].item() for run in stalled),
            ">=",
            1e-5,
        ),
        claim(
            "the same: KL of Nash-MD against the derived resting point's, largest relative error",
            max(errors),
            "<=",
            1e-6,
        ),
        claim(
            "KL of the resting point of half that mixture over that of the whole, median",
            median(halved),
            "=",
            0.25,
            0.01,
        ),
    ]


def _claims_on_rates() -> list[Claim]:
    rates = {
        "EGPO, tilted cycle, beta 0.01, s 0.3": cycle_run(0.01, 0.3, EGPO),
        "EGPO, random game, beta 0.01": random_run(0.01, EGPO, 0, steps_of(0.01)),
        "online IPO, tilted cycle, beta 0.1, s 0.3": cycle_run(0.1, 0.3, ONLINE_IPO),
    }
    claims = [
        claim(f"{name}: measured factor a step, against the Jacobian's", run.measured, "=", run.factor, 5e-5)
        for name, run in rates.items()
        if isinstance(run.measured, float) and run.factor is not None
    ]
    closed = {beta: 2 * beta / (beta**2 + 1 / 12) for beta in (0.1, 0.01)}
    return [
        *claims,
        claim("iterates of EGPO above (1 - s beta)^t KL_0, of 7200, s = 1 / (beta + 3)", bound_violations(), "=", 0),
        *(
            claim(
                f"largest stable s of online IPO on the cycle, beta {beta:g}, against 2 beta / (beta^2 + 1/12)",
                largest_step(beta, ONLINE_IPO),
                "=",
                wanted,
                1e-9,
            )
            for beta, wanted in closed.items()
        ),
    ]


def _claims_on_methods() -> list[Claim]:
    game = lab.random_game(0, RESPONSES, 0.1)
    path = trained(uniform_egpo(), game, steps_of(0.1), 5)
    law = lab.iterate(lab.extragradient, game, game.reference, 5, steps_of(0.1)).log_probs
    cycle = lab.tilted_rock_paper_scissors(0.01)
    long = lab.iterate(lab.extragradient, cycle, cycle.reference, SHIPPED_STEPS, 1.0).log_probs
    off = (method_path("egpo, y1 and y2 uniform") - long).abs().max().item()
    own, two = (method_path(name) for name in ("egpo, y1 and y2 from the policy", "online-ipo, extragradient"))
    return [
        claim(
            "catalogue's egpo on uniform pairs, random game, 5 steps: distance from the law, nats",
            (path - law).abs().max().item(),
            "<=",
            1e-12,
        ),
        claim(
            f"catalogue's egpo on uniform pairs, tilted cycle, {SHIPPED_STEPS} steps: distance from the law, nats",
            off,
            "<=",
            1e-11,
        ),
        claim(
            "its gradient against 4/n (e - mean e), e = h - P pi / beta: largest error", gradient_error(), "<=", 1e-13
        ),
        claim(
            "online-ipo with extragradient steps against egpo on the policy's own pairs: distance, nats",
            (own - two).abs().max().item(),
            "<=",
            1e-10,
        ),
    ]


COLORS = {EGPO: 0, ONLINE_IPO: 1, NASH_MD: 2, DECREASING: 3}


def _gaps() -> Figure:
    def panel(title: str, runs: dict[str, lab.Trajectory], steps: int) -> Panel:
        return Panel(
            title=title,
            x_label="step (EGPO's take two gradients each)",
            y_label="duality gap",
            y_scale="log",
            y_range=(1e-15, 2.0),
            curves=[
                curve(name, each.gap[: steps + 1], color=COLORS[name], style="dashed" if name == NASH_MD else "line")
                for name, each in runs.items()
            ],
        )

    return Figure(
        name="gaps",
        title="Does the last iterate converge?",
        panels=[
            panel(
                "Tilted cycle, beta 0.01, s 0.3",
                {name: cycle_run(0.01, 0.3, name).trajectory for name in RULES},
                3000,
            ),
            panel(
                f"A random game, beta 0.01, s {steps_of(0.01):g}",
                {name: random_run(0.01, name, 0, steps_of(0.01)).trajectory for name in RULES},
                1000,
            ),
            panel(
                f"A random game, beta 0.1, s {steps_of(0.1):g}",
                {name: random_run(0.1, name, 0, steps_of(0.1)).trajectory for name in RULES},
                1000,
            ),
        ],
    )


def _prices() -> Figure:
    def panel(beta: float) -> Panel:
        theorem = 1 / (beta + 3)
        curves = []
        for name in COSTS:
            steps, counts = zip(*evaluations(beta, name), strict=True)
            curves.append(Curve(label=name, x=steps, y=counts, color=COLORS[name]))
        low, high = (3.0, 1000.0) if beta == 0.1 else (10.0, 30_000.0)
        limit = Curve(
            label="EGPO's theorem: s = 1 / (beta + 3)", x=[theorem] * 2, y=[low, high], style="dashed", color=6
        )
        return Panel(
            title=f"beta {beta:g}",
            x_label="step s",
            y_label="gradients that divide the gap by ten",
            x_scale="log",
            y_scale="log",
            y_range=(low, high),
            curves=[*curves, limit],
        )

    return Figure(
        name="prices",
        title="What a digit costs near the equilibrium of rock-paper-scissors",
        panels=[panel(0.1), panel(0.01)],
    )


def find() -> StudyResult:
    """Follow the rules and train the methods, on the tilted cycle and on ten random games."""
    return StudyResult(
        tables=[_cycles(), _randoms(), _stability(), _methods()],
        claims=[*_claims_on_cycles(), *_claims_on_random_games(), *_claims_on_rates(), *_claims_on_methods()],
        figures=[_gaps(), _prices()],
    )


STUDY = Study(
    name="egpo",
    question="Does looking half a step ahead make the last iterate converge where online IPO circles?",
    result="EGPO converges linearly in every game; online IPO and Nash-MD do so only with steps small for the cycles",
    source="arXiv 2503.08942, theorem on the last iterate and simulations; arXiv 2312.00886",
    seconds=7,
    find=find,
)
