"""SPPO, DNO and INPO on games without a winner: average against last iterate, stability, and what their rounds reach.

Exploitability is what a best response wins above one half; the games are those of ``self_play_laws.py``.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies import self_play_laws as laws
from setsail.lab.studies import self_play_rounds as play
from setsail.lab.studies.game_runs import claim, told
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Style, Table

REGRESSED = (0.1, 1.0, 5.0, 10.0, 100.0, 1000.0)


def _iterates() -> Table:
    run, game = laws.exponential_weights(), lab.uneven_cycle()
    best = game.duality_gap(laws.averages(run)) / 2
    rows: list[tuple[Cell, ...]] = [
        (
            "SPPO, eta 0.1 (DNO, eta 10)",
            "uneven cycle",
            count,
            None,
            told(run.gap[count].item() / 2),
            best[count].item(),
        )
        for count in (100, 1000, laws.ROUNDS)
    ]
    plain = lab.PreferenceGame(lab.rock_paper_scissors().preference, torch.zeros(3), 0.0)
    for eta in laws.ETAS:
        run = laws.inpo_run(eta)
        factor = lab.local_factor(lab.inpo_exact, lab.rock_paper_scissors(laws.TAU, laws.UNIFORM), eta)
        last, mean = (plain.duality_gap(each).item() / 2 for each in (run.last, run.average))
        rows.append(
            (f"INPO, tau 0.1, eta {eta:.2f}", "cycle", laws.ROUNDS, factor, told(last, 1e-15), told(mean, 1e-15))
        )
    return Table(
        name="iterates",
        title="Exploitability of the last and of the average iterate, exact rounds",
        columns={
            "rule": "",
            "game": "",
            "rounds": "d",
            "factor at rest": ".4f",
            "last iterate": ".1e",
            "average iterate": ".1e",
        },
        rows=rows,
    )


def _thresholds() -> Table:
    rows = []
    for tau, eta in ((0.1, 0.3), (0.2, 0.25), laws.PUBLISHED):
        factor = lab.local_factor(lab.inpo_exact, lab.rock_paper_scissors(tau, laws.UNIFORM), eta)
        rows.append((tau, laws.threshold(tau), (tau**2 + 1 / 12) / (2 * tau), eta, factor))
    return Table(
        name="thresholds",
        title="INPO on the cycle: the eta above which the last iterate converges, and the factor of a round at another",
        columns={
            "tau": "g",
            "threshold, measured": ".4f",
            "(tau^2 + 1/12) / (2 tau)": ".4f",
            "eta": "g",
            "factor a round": ".3f",
        },
        rows=rows,
    )


# One round, of the catalogue's methods.


@cache
def regression(eta: float) -> tuple[Tensor, Tensor]:
    """SPPO's regression minimized, and the exponential-weights step, from ``START`` on the uneven cycle."""
    game = lab.uneven_cycle()
    return play.next_policy(play.sppo(eta), play.START, game).exp(), lab.sppo_exact(play.START, game, eta).exp()


def regression_error(eta: float) -> float:
    """Largest difference of a probability."""
    fitted, exact = regression(eta)
    return (fitted - exact).abs().max().item()


def _regressions() -> Table:
    game, rows = lab.uneven_cycle(), []
    for eta in REGRESSED:
        fitted, exact = regression(eta)
        log_z = torch.logsumexp(play.START + eta * game.win_rates(play.START), -1).item()
        shares = [", ".join(f"{share:.4f}" for share in each.tolist()) for each in (exact, fitted)]
        rows.append((eta, log_z, eta / 2, *shares, (fitted - exact).abs().max().item()))
    return Table(
        name="regressions",
        title="A round of SPPO by its regression against the exponential-weights step",
        columns={
            "eta": "g",
            "log Z, nats": ".4g",
            "eta / 2": "g",
            "exponential weights": "",
            "regression": "",
            "largest difference": ".1e",
        },
        rows=rows,
    )


def _rounds() -> Table:
    """One round of each method with a mild scale, as derived and as shipped."""
    nash, game = lab.uneven_cycle(), lab.uneven_cycle(0.1, tuple(play.START.exp().tolist()))
    rows: list[tuple[Cell, ...]] = []

    def add(name: str, what: str, after: Tensor, exact: Tensor) -> None:
        rows.append((name, what, told((after.exp() - exact.exp()).abs().max().item(), 1e-12)))

    step = lab.sppo_exact(play.START, nash, 1.0)
    add("sppo, beta 1", "2 answers, both learnt from", play.next_policy(play.sppo(1.0), play.START, nash), step)
    for answers in (3, 5):
        made = play.sppo(1.0, answers, shipped=True)
        add("sppo, beta 1", f"best and worst of {answers}", play.next_policy(made, play.START, nash), step)
    step = lab.dno_exact(play.START, nash, 0.3)
    add("dno, beta 0.3", "exact win rates", play.dno_by_law(0.3, play.START, nash, play.START), step)
    for answers in (2, 3, 5, 7):
        made = play.dno(0.3, answers)
        add("dno, beta 0.3", f"win rates among {answers}", play.next_policy(made, play.START, nash), step)
    step = lab.inpo_exact(play.START, game, 0.3)
    add("inpo, beta 0.3", "2 answers, probability as label", play.next_policy(play.inpo(0.3), play.START, game), step)
    for answers in (2, 3, 5, 7):
        made = play.inpo(0.3, answers, shipped=True)
        name = f"best and worst of {answers}, verdict as label"
        add("inpo, beta 0.3", name, play.next_policy(made, play.START, game), step)
    return Table(
        name="rounds",
        title="The catalogue's methods, one round minimized to the end, against the closed-form step (uneven cycle)",
        columns={"method": "", "what is learnt from": "", "largest difference of a probability": ".1e"},
        rows=rows,
    )


SHIPPED = (("sppo", 1e-3), ("dno", 0.1), ("inpo", 7.5e-3), ("sppo", 1.0), ("dno", 1.0), ("inpo", 0.3))
SHIPPED_ROUNDS = 12


def _shipped() -> Table:
    nash, rows = lab.uneven_cycle(), []
    for name, scale in SHIPPED:
        path = play.rounds(name, scale, 5, SHIPPED_ROUNDS)
        top, gap = path.exp().amax(-1), nash.duality_gap(path) / 2
        collapsed = len(path) - 1 if top[-1] >= play.COLLAPSED else "not in 12"
        note = "default" if scale < 0.2 else "mild"
        mean = nash.duality_gap(path.exp().mean(0).log()).item() / 2
        rows.append((name, scale, note, top[1].item(), collapsed, gap[0].item(), gap[-1].item(), mean))
    return Table(
        name="shipped",
        title="Methods as shipped, 5 answers, rounds minimized to the end, on the uneven cycle",
        columns={
            "method": "",
            "beta": "g",
            "setting": "",
            "largest share after round 1": ".3f",
            "round that leaves one answer": "d",
            "exploitability, start": ".3f",
            "last": ".3f",
            "average": ".3f",
        },
        rows=rows,
    )


# What the numbers say.


def _claims_on_sppo() -> list[Claim]:
    run, game = laws.exponential_weights(), lab.uneven_cycle()
    average, last = game.duality_gap(run.average).item() / 2, run.gap[-1].item() / 2
    fitted, exact = regression(1000.0)
    return [
        claim("SPPO, eta 0.1, 4000 rounds: exploitability of the average iterate", average, "=", 0.0015, 5e-5),
        claim("SPPO, eta 0.1, 4000 rounds: exploitability of the last iterate", last, "=", 0.110, 5e-4),
        claim("SPPO's regression off the step, eta 0.1", regression_error(0.1), "=", 2.3e-8, 1e-9),
        claim("SPPO's regression off the step, eta 1", regression_error(1.0), "=", 2.1e-5, 1e-6),
        claim("SPPO's regression off the step, eta 5", regression_error(5.0), "=", 2.0e-3, 1e-4),
        claim("eta 1000: largest share after the exponential-weights step", exact.max().item(), ">=", 1 - 1e-9),
        claim("eta 1000: largest share after SPPO's regression", fitted.max().item(), "<=", 0.8),
    ]


def _claims_on_inpo() -> list[Claim]:
    start = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64).log()
    game, strong = lab.rock_paper_scissors(0.1), lab.rock_paper_scissors(0.5)
    step = play.next_policy(play.inpo(0.3), start, game).exp()
    wanted = torch.tensor([0.217834, 0.521300, 0.260866], dtype=torch.float64)
    kl = lab.iterate(lab.inpo_exact, strong, strong.reference, 10, 1.0).kl
    tau, eta = laws.PUBLISHED
    cycle = lab.rock_paper_scissors(tau, laws.UNIFORM)
    second = lab.iterate(lab.inpo_exact, cycle, laws.NEAR, 2, eta).last.exp().max().item()
    return [
        claim(
            "catalogue's inpo, a round from (0.2, 0.3, 0.5), to (0.217834, 0.521300, 0.260866): largest error",
            (step - wanted).abs().max().item(),
            "<=",
            1e-6,
        ),
        *(
            claim(
                f"INPO, tau 0.5, eta 1: KL(pi* || pi) after round {count}", kl[count].item(), "=", value, 0.04 * value
            )
            for count, value in ((1, 1.2e-2), (5, 9.9e-5), (10, 2.2e-7))
        ),
        claim("INPO's threshold on the cycle at tau 0.1", laws.threshold(0.1), "=", (0.01 + 1 / 12) / 0.2, 1e-9),
        claim(
            "INPO, tau 0.1, eta 0.46, below the threshold: largest deviation after 4000 rounds",
            laws.off_uniform(laws.inpo_run(0.46).last).item(),
            "=",
            0.0613,
            5e-5,
        ),
        claim(
            "INPO, tau 0.1, eta 0.48, above the threshold: largest deviation after 4000 rounds",
            laws.off_uniform(laws.inpo_run(0.48).last).item(),
            "=",
            4.5e-13,
            1e-14,
        ),
        claim(
            "INPO, tau 0.1, eta 0.46: largest deviation of the average of 4000 rounds",
            laws.off_uniform(laws.inpo_run(0.46).average).item(),
            "<=",
            3e-5,
        ),
        claim(
            "INPO, published tau 0.0025 and eta 0.0075: factor a round",
            lab.local_factor(lab.inpo_exact, cycle, eta, at=cycle.reference),
            "=",
            38.5,
            0.05,
        ),
        claim(
            "INPO, published constants, from (0.34, 0.33, 0.33): largest share after two rounds", second, ">=", 0.999
        ),
    ]


def _claims_on_dno() -> list[Claim]:
    error, least = laws.monotonicity()
    return [
        claim(
            "DNO's minimum on arbitrary pairs against pi exp(P pi / eta) / Z: total variation",
            laws.dno_distance(),
            "<=",
            1e-8,
        ),
        claim("30 rounds of DNO: error of P(pi+ > pi) = 1/2 + eta (KL + KL back)", error, "<=", 1e-13),
        claim("30 rounds of DNO: least P(pi+ > pi) - 1/2 - eta KL", least, ">=", 0.0),
        claim(
            "DNO, eta 10, uneven cycle: exploitability after 4000 rounds over that of the start",
            (laws.exponential_weights().gap[-1] / laws.exponential_weights().gap[0]).item(),
            ">=",
            2.0,
        ),
    ]


def _claims_on_training() -> list[Claim]:
    game = lab.uneven_cycle(0.5 / 3, tuple(play.START.exp().tolist()))
    law = lab.iterate(lab.inpo_exact, game, play.START, 3, 0.5).log_probs
    found = {"inpo": (play.trained_rounds(play.inpo(0.5), game, play.START, 3, 1.0) - law).abs().max().item()}
    for name, method, rate in (("sppo", play.sppo(1.0), 1.2), ("dno", play.dno(1.0), 8.0)):
        solved = [play.START]
        for _ in range(3):
            solved.append(play.next_policy(method, solved[-1], lab.uneven_cycle()))
        trained = play.trained_rounds(method, lab.uneven_cycle(), play.START, 3, rate)
        found[name] = (trained - torch.stack(solved)).abs().max().item()
    against = {"inpo": "the closed-form steps", "sppo": "minimized rounds", "dno": "minimized rounds"}
    return [
        claim(f"{name} trained in 3 rounds of 60 gradient steps against {against[name]}, nats", off, "<=", 1e-10)
        for name, off in found.items()
    ]


def _spaced(label: str, values: Tensor, color: int, floor: float = 1e-14) -> Curve:
    """Values of rounds 1, 2, ..., as many in each decade."""
    rounds = sorted({round((len(values) - 1) ** (place / 130)) for place in range(131)})
    shown = [value if value > floor else None for value in values[rounds].tolist()]
    return Curve(label=label, x=rounds, y=shown, color=color)


def _spiral() -> Panel:
    """Last and average iterates on the triangle: the shares of the second and third answer."""
    run = laws.exponential_weights()

    def path(label: str, log_probs: Tensor, color: int) -> Curve:
        shares = log_probs[:1600:8].exp()
        return Curve(label=label, x=shares[:, 1].tolist(), y=shares[:, 2].tolist(), color=color)

    return Panel(
        title="SPPO and DNO, uneven cycle, 1600 rounds",
        x_label="share of answer 2",
        y_label="share of answer 3",
        equal=True,
        curves=[
            path("last iterate", run.log_probs, 1),
            path("average iterate", laws.averages(run), 0),
            Curve(label="Nash policy", x=[0.3], y=[0.4], style="points", color=6),
        ],
    )


def _distances() -> Panel:
    return Panel(
        title="INPO on the cycle, tau 0.1",
        x_label="round",
        y_label="largest deviation of a probability",
        x_scale="log",
        y_scale="log",
        curves=[
            _spaced(f"eta {eta:.2f}", laws.off_uniform(laws.inpo_run(eta).log_probs), color)
            for eta, color in zip(laws.ETAS, (1, 3, 2, 0), strict=True)
        ],
    )


def _errors() -> Panel:
    etas = [10 ** (-1 + place / 8) for place in range(33)]
    fits = [regression(eta) for eta in etas]
    sides: tuple[tuple[int, str, Style], ...] = ((1, "step", "dashed"), (0, "regression", "line"))
    return Panel(
        title="One round of SPPO",
        x_label="eta",
        y_label="probability",
        x_scale="log",
        y_range=(-0.02, 1.02),
        curves=[
            Curve(
                label=f"answer {answer + 1}, {name}",
                x=etas,
                y=[fit[side][answer].item() for fit in fits],
                style=style,
                color=answer,
            )
            for side, name, style in sides
            for answer in range(3)
        ],
    )


def find() -> StudyResult:
    """Follow the closed-form steps, minimize rounds of the catalogue's methods, and compare."""
    figure = Figure(
        name="rounds",
        title="Self-play without a winner: spirals, a threshold, and a regression that is not the step",
        panels=[_spiral(), _distances(), _errors()],
    )
    return StudyResult(
        tables=[_iterates(), _thresholds(), _regressions(), _rounds(), _shipped()],
        claims=[*_claims_on_sppo(), *_claims_on_inpo(), *_claims_on_dno(), *_claims_on_training()],
        figures=[figure],
    )


STUDY = Study(
    name="self-play",
    question="Do SPPO, DNO and INPO settle where preferences go in circles?",
    result="averages approach the Nash policy; last iterates circle, INPO's unless eta exceeds a threshold",
    source="arXiv 2405.00675; arXiv 2404.03715; arXiv 2407.00617",
    seconds=3,
    find=find,
)
