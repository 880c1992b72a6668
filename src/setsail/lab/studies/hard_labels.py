"""What a judge's verdicts do to training, compared with probabilities: moved equilibria, margins without end, bias.

A *verdict* is 1 for the likelier side, 0 for the other; a *drawn* label is 1 with the judge's probability. Margins are
differences of log-ratios, nats.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.studies import position_bias
from setsail.lab.studies.game_runs import claim, game_world, told
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get
from setsail.policies.tabular import TabularPolicy

PROBABILITY, DRAWN, VERDICT = "probability", "drawn", "verdict"
LABELS = (PROBABILITY, DRAWN, VERDICT)


def labeled(method: Method, label: str) -> Method:
    """The method with another kind of label on its only route."""
    if label == DRAWN:
        return method.configured(labels="sampled")
    (route,) = method.routes
    return method.with_parts(routes=(replace(route, label="hard" if label == VERDICT else "preference"),))


# Two answers, one pair.

MARGIN_BETA, Q, MARGIN_RATE, MARGIN_STEPS = 0.1, 0.8, 5.0, 5000
ENDLESS = "DPO, verdict"
MARGINS = {
    "DPO, probability 0.8": ("dpo", Q, 0.0),
    ENDLESS: ("dpo", 1.0, 0.0),
    "DPO, verdict smoothed by 0.1": ("dpo", 1.0, 0.1),
    "IPO, probability 0.8": ("ipo", Q, 0.0),
    "IPO, verdict": ("ipo", 1.0, 0.0),
}
SETTLED = {"dpo": 1000, "ipo": 200}
"""Steps after which a margin with a limit is there."""


@cache
def margins(name: str) -> tuple[float, ...]:
    """The margin before every step of training on one pair, and after the last."""
    method, p, smoothing = MARGINS[name]
    parameters = {"beta": MARGIN_BETA}
    parameters |= {"label_smoothing": smoothing} if method == "dpo" else {"length_normalize": False}
    policy = TabularPolicy.uniform(1, 2)
    tie = torch.full((1, 2, 2), 0.5, dtype=torch.float64)
    pair = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([p], dtype=torch.float64))
    world = lab.TabularWorld(policy.frozen(), pair, tie)
    found = [0.0]
    # The curvature of IPO is 2, that of DPO at most beta^2 / 4.
    rate = MARGIN_RATE if method == "dpo" else 0.05
    steps = MARGIN_STEPS if name == ENDLESS else SETTLED[method]
    for _ in lab.train(get(method).configured(parameters=parameters), policy, world, steps=steps, rate=rate):
        found.append((policy.logits[0, 0] - policy.logits[0, 1]).item())
    return tuple(found)


def law(step: int) -> float:
    """DPO's margin under verdicts by the differential equation: ``e^u + u - 1 = 2 rate beta^2 t``, u = beta margin."""
    wanted, u = 1 + 2 * MARGIN_RATE * MARGIN_BETA**2 * step, 0.0
    for _ in range(100):
        u = math.log(wanted - u)
    return u / MARGIN_BETA


def _limit(name: str) -> Cell:
    method, p, smoothing = MARGINS[name]
    if method == "ipo":
        return (2 * p - 1) / (2 * MARGIN_BETA)
    p = (1 - smoothing) * p + smoothing * (1 - p)
    return "none" if p == 1 else math.log(p / (1 - p)) / MARGIN_BETA


def _margins() -> Table:
    found = [(name, margins(name)) for name in MARGINS]
    return Table(
        name="margins",
        title="Margin on one pair by training step, nats, beta 0.1",
        columns={
            "objective and label": "",
            "50 steps": ".2f",
            "200 steps": ".2f",
            "1000 steps": ".2f",
            "5000 steps": ".2f",
            "limit": ".2f",
        },
        rows=[
            (name, *(path[step] if step < len(path) else None for step in (50, 200, 1000, 5000)), _limit(name))
            for name, path in found
        ],
    )


# Online DPO on six answers.

ONLINE_STEPS = {PROBABILITY: 200, DRAWN: 100, VERDICT: 1000}


@cache
def online_run(label: str) -> tuple[tuple[float, float], ...]:
    """Mean reward and KL of online DPO at beta 1, before every step and after the last."""
    policy, world, reward = lab.six_responses()
    method = labeled(get("online-dpo").configured(parameters={"beta": 1.0}), label)
    found = []
    for step in range(ONLINE_STEPS[label] + 1):
        found.append((lab.expected_reward(policy, reward).item(), lab.reverse_kl(policy, world.reference).item()))
        if step < ONLINE_STEPS[label]:
            lab.train_exact(policy, lambda: lab.mixture_gradient(method, policy, world), rate=4.0, steps=1)
    return tuple(found)


def _online() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for label in LABELS:
        for step in sorted({10, 100, ONLINE_STEPS[label]}):
            reward, kl = online_run(label)[step]
            rows.append((label, step, reward, kl, reward - kl))
    _, world, rewards = lab.six_responses()
    best = lab.optimal_policy(world.reference, rewards, 1.0)
    reward, kl = lab.expected_reward(best, rewards).item(), lab.reverse_kl(best, world.reference).item()
    rows.append(("optimum of RLHF", None, reward, kl, reward - kl))
    return Table(
        name="online-dpo",
        title="Online DPO on six answers of reward 0 to 2.5, beta 1, by what the judge says",
        columns={"label": "", "steps": "d", "E[r]": ".3f", "KL, nats": ".3f", "E[r] - KL": ".3f"},
        rows=rows,
    )


# Online IPO on random games.

GAMES, ANSWERS, BETA = 10, 6, 0.3


def decided(game: lab.PreferenceGame) -> lab.PreferenceGame:
    """The game in which the likelier side always wins."""
    sides = (game.preference > 0.5).double() + 0.5 * (game.preference == 0.5).double()
    return lab.PreferenceGame(sides, game.reference, game.beta)


def slope(game: lab.PreferenceGame, at: Tensor, label: str) -> float:
    """Largest coordinate of online IPO's expected gradient at a policy."""
    method = get("online-ipo").configured(parameters={"beta": game.beta, "length_normalize": False})
    policy = TabularPolicy(at[None].clone())
    return lab.mixture_gradient(labeled(method, label), policy, game_world(game)).abs().max().item()


@cache
def moved(seed: int) -> tuple[float, ...]:
    """Gradients at the equilibrium by label, the verdicts' gradient at their own, its distance and its gap."""
    game = lab.random_game(seed, ANSWERS, BETA)
    target, other = lab.equilibrium(game), lab.equilibrium(decided(game))
    return (
        *(slope(game, target, label) for label in LABELS),
        slope(game, other, VERDICT),
        lab.exact_kl(target, other).item(),
        game.duality_gap(other).item(),
        game.duality_gap(game.reference).item(),
    )


def _moved() -> Table:
    rows = [(seed, *(told(value, 1e-13) for value in moved(seed))) for seed in range(GAMES)]
    return Table(
        name="online-ipo",
        title=f"Online IPO on random games of {ANSWERS} answers, beta {BETA}",
        columns={
            "game": "d",
            "gradient at pi*, probability": ".1e",
            "drawn": ".1e",
            "verdict": ".3f",
            "verdict, at its own rest": ".1e",
            "KL(pi* || that rest), nats": ".4f",
            "its duality gap": ".4f",
            "gap of the reference": ".4f",
        },
        rows=rows,
    )


# What the numbers say.


def _claims_on_margins() -> list[Claim]:
    endless = margins(ENDLESS)[-1]
    return [
        claim("DPO, probability 0.8, beta 0.1: margin", margins("DPO, probability 0.8")[-1], "=", 13.8629, 1e-4),
        claim("DPO, verdicts: margin after 5000 steps of rate 5", endless, "=", 62.0, 0.5),
        claim("DPO, verdicts: that margin against the differential equation's", endless, "=", law(MARGIN_STEPS), 0.05),
        claim(
            "IPO, probability 0.8: margin, (2 P - 1) / (2 beta)", margins("IPO, probability 0.8")[-1], "=", 3.0, 1e-6
        ),
        claim("IPO, verdicts: margin, 1 / (2 beta)", margins("IPO, verdict")[-1], "=", 5.0, 1e-6),
    ]


def _claims_on_games() -> list[Claim]:
    soft, drawn, hard, own, _, gaps, _ = zip(*(moved(seed) for seed in range(GAMES)), strict=True)
    return [
        claim("online IPO at the equilibrium, probabilities: largest gradient of ten games", max(soft), "<=", 1e-14),
        claim("the same with labels drawn from the probabilities: largest gradient", max(drawn), "<=", 1e-14),
        claim("the same with verdicts: smallest gradient", min(hard), ">=", 0.078),
        claim(
            "verdicts come to rest at the equilibrium of the rounded game: largest gradient there",
            max(own),
            "<=",
            1e-14,
        ),
        claim("where verdicts come to rest: largest duality gap of ten games", max(gaps), ">=", 0.05),
    ]


def _claims_on_dpo() -> list[Claim]:
    (_, drawn), (_, hard), (reward, kl) = (online_run(label)[-1] for label in (DRAWN, VERDICT, PROBABILITY))
    soft = online_run(PROBABILITY)[100][1]
    return [
        claim("online DPO, probabilities: E[r] - KL, the optimum of RLHF", reward - kl, "=", 1.5899, 6e-5),
        claim("online DPO, drawn labels: KL after 100 steps, that under probabilities", drawn, "=", soft, 1e-9),
        claim("online DPO, verdicts: KL after 1000 steps over that of the optimum", hard / 0.2965, ">=", 5.0),
    ]


def _log_spaced(values: tuple[float, ...]) -> tuple[list[int], list[float]]:
    steps = sorted({round((len(values) - 1) ** (place / 120)) for place in range(121)})
    return steps, [values[step] for step in steps]


def _panels() -> list[Panel]:
    first = [
        Curve(label=name, x=_log_spaced(margins(name))[0], y=_log_spaced(margins(name))[1], color=color)
        for name, color in zip(MARGINS, (0, 1, 3, 4, 2), strict=True)
    ]
    second = []
    for label, color in ((PROBABILITY, 0), (VERDICT, 1)):
        steps, values = _log_spaced(tuple(reward - kl for reward, kl in online_run(label)))
        second.append(Curve(label=label, x=steps, y=values, color=color))
    return [
        Panel(title="One pair", x_label="step", y_label="margin, nats", x_scale="log", curves=first),
        Panel(title="Online DPO, six answers", x_label="step", y_label="E[r] - KL", x_scale="log", curves=second),
        position_bias.panel(),
    ]


def find() -> StudyResult:
    """Train under probabilities, drawn labels and verdicts, and under a judge with a position bias."""
    figure = Figure(name="labels", title="What a judge's verdicts do", panels=_panels())
    return StudyResult(
        tables=[_online(), _margins(), _moved(), position_bias.orders_table(), position_bias.ends_table()],
        claims=[*_claims_on_margins(), *_claims_on_games(), *_claims_on_dpo(), *position_bias.claims()],
        figures=[figure],
    )


STUDY = Study(
    name="hard-labels",
    question="What is lost when a judge only says which answer is better?",
    result="DPO loses its optimum, online IPO rests at another equilibrium; two orders undo a position bias",
    source="arXiv 2402.04792; arXiv 2310.12036; arXiv 2503.08942",
    seconds=7,
    find=find,
)
