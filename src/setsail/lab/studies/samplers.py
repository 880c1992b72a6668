"""Samplers in online DPO: with the right pairs, weighted right, exact gradient steps are Newton steps.

One prompt, 20 responses, a uniform reference, Bradley-Terry labels. The error of a pair is
``delta(y, y') = r(y) - r(y') - beta (h(y) - h(y'))`` with h the log-ratio to the reference; a step has the size
``1 / (beta^2 n)``. Rewards lie in [0, 1], both ends taken, where it is not said otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.rates import Rate
from setsail.lab.studies.records import Cell, Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import get
from setsail.objectives import dpo
from setsail.policies.tabular import TabularPolicy

RESPONSES, UPDATES, SEEDS, BETAS = 20, 6, 3, (0.1, 1.0, 3.0)
UNIFORM, BY_REWARD, BY_POLICY = "uniform", "mixed by reward", "mixed by policy"
BOUNDS: dict[str, Callable[[int], float]] = {
    UNIFORM: lambda t: 0.588**t,
    BY_REWARD: lambda t: 0.5 ** (2**t - 1),
    BY_POLICY: lambda t: 0.611 ** (2**t - 1),
}
ROUNDING = 1e-13

GRID = torch.cartesian_prod(torch.zeros(1, dtype=torch.int64), torch.arange(RESPONSES), torch.arange(RESPONSES))
PROMPT, FIRST, SECOND = GRID.unbind(-1)

Weights = Callable[[Tensor, Tensor, float], Tensor]
"""``weights(reward, h, beta)``: of each ordered pair, alpha times its probability under the samplers."""


def gap(value: Tensor) -> Tensor:
    """``value(y) - value(y')`` of every ordered pair."""
    return value[FIRST] - value[SECOND]


SAMPLERS: dict[str, Weights] = {
    # alpha = 2 n^2 on two uniform draws.
    UNIFORM: lambda reward, h, beta: torch.full((RESPONSES**2,), 2.0, dtype=torch.float64),
    # n^2 on two uniform draws; sum of exp(r - r') on draws from exp(r) and exp(-r). Both orders of a pair together
    # weigh 2 + e^x + e^-x = 1 / sigmoid'(x): a Newton step.
    BY_REWARD: lambda reward, h, beta: 1 + gap(reward).exp(),
    BY_POLICY: lambda reward, h, beta: 1 + gap(beta * h).exp(),
}


def _reused_alpha(reward: Tensor, h: Tensor, beta: float) -> Tensor:
    tilted = gap(reward).exp()
    return 1 + RESPONSES**2 * tilted / tilted.sum()


WRONG: dict[str, tuple[Weights, float]] = {
    "tilted pairs alone": (lambda reward, h, beta: 2 * gap(reward).exp(), 4e-4),
    "alpha of the uniform half for both": (_reused_alpha, 1e-5),
    "exponent without beta, beta 3": (lambda reward, h, beta: 1 + gap(h).exp(), 8e-5),
}
THROUGH = "gradient through the sampler"


def rewards(seed: int) -> Tensor:
    """Twenty rewards in [0, 1], with a 0 and a 1 among them."""
    drawn = torch.from_numpy(stream(seed, "study", "samplers").random(RESPONSES))
    return (drawn - drawn.min()) / (drawn.max() - drawn.min())


def exact_run(weights: Weights, reward: Tensor, beta: float, through: bool = False) -> list[float]:
    """Largest ``|delta|`` before each update and after the last, exact gradients of :func:`setsail.objectives.dpo`.

    Args:
        through: whether gradient flows through the samplers, which is wrong.
    """
    policy = TabularPolicy.uniform(1, RESPONSES)
    reference, preference = policy.frozen(), lab.bradley_terry(reward.unsqueeze(0))[0, FIRST, SECOND]
    found = []
    for _ in range(UPDATES + 1):
        h = (policy.log_probs() - reference.log_probs())[0]
        found.append((gap(reward) - beta * gap(h.detach())).abs().max().item())
        pairs = lab.WeightedPairs(
            PROMPT, FIRST, SECOND, weights(reward, h if through else h.detach(), beta), preference
        )
        slope = lab.gradient(lab.risk(policy, reference, pairs, partial(dpo, beta=beta)), policy)
        _step(policy, slope, 1 / (beta**2 * RESPONSES))
    return found


@torch.no_grad()
def _step(policy: TabularPolicy, slope: Tensor, size: float) -> None:
    policy.logits.sub_(size * slope.view_as(policy.logits))


# Sampled pairs: the released setting of the paper's tabular experiment.

NOISY_STEPS, NOISY_PAIRS, NOISY_RATE, NOISY_BETA, EVERY = 3000, 8192, 0.05, 3.0, 25


@cache
def noisy_run(kind: str) -> tuple[float, ...]:
    """Mean ``|delta|`` every 25 steps, 8192 sampled pairs with sampled labels a step, rewards normal.

    The joint weights are normalized; those by the policy are clipped at the largest the rewards allow.
    """
    numbers = stream(0, "study", "samplers", "noise", kind)
    reward = torch.from_numpy(stream(0, "study", "samplers", "normal").normal(size=RESPONSES))
    most = 2 + 2 * math.cosh(gap(reward).max().item())
    preference = lab.bradley_terry(reward.unsqueeze(0))[0, FIRST, SECOND].numpy()
    policy = TabularPolicy.uniform(1, RESPONSES)
    reference, found = policy.frozen(), []
    for step in range(NOISY_STEPS + 1):
        h = (policy.log_probs() - reference.log_probs())[0].detach()
        if step % EVERY == 0:
            found.append((gap(reward) - NOISY_BETA * gap(h)).abs().mean().item())
        one_order = SAMPLERS[kind](reward, h, NOISY_BETA).view(RESPONSES, RESPONSES)
        weights = (one_order + one_order.T).clamp(max=most).flatten()
        counts = numbers.multinomial(NOISY_PAIRS, (weights / weights.sum()).numpy())
        wins = numbers.binomial(counts, preference)
        share = torch.from_numpy(np.divide(wins, counts, out=np.full(len(counts), 0.5), where=counts > 0))
        pairs = lab.WeightedPairs(PROMPT, FIRST, SECOND, torch.from_numpy(counts / NOISY_PAIRS), share)
        _step(
            policy, lab.gradient(lab.risk(policy, reference, pairs, partial(dpo, beta=NOISY_BETA)), policy), NOISY_RATE
        )
    return tuple(found)


# The catalogue's methods as they train: halves of the rows, the policy in place of the uniform sampler, no alpha.

TRAINED = {
    "online DPO": ("online-dpo", 2),
    "samplers-mix-r, 3 candidates": ("samplers-mix-r", 3),
    "samplers-mix-p": ("samplers-mix-p", 2),
}
TRAINED_RESPONSES, TRAINED_SPAN, TRAINED_STEPS, TRAINED_RATE = 5, 4.0, 80, 8.0


@cache
def trained_run(which: str) -> tuple[float, ...]:
    """Largest ``|delta|`` along ``lab.train`` on five responses of reward 0 to 4, beta 1, exact gradients."""
    name, generations = TRAINED[which]
    method = get(name).configured(parameters={"beta": 1.0}, generations=generations)
    reward = torch.linspace(0, TRAINED_SPAN, TRAINED_RESPONSES, dtype=torch.float64).unsqueeze(0)
    policy, preference = TabularPolicy.uniform(1, TRAINED_RESPONSES), lab.bradley_terry(reward)
    world = lab.TabularWorld(policy.frozen(), lab.policy_pairs(policy.frozen(), preference), preference, reward)

    def error() -> float:
        left = (reward - policy.log_probs().detach())[0]
        return (left.max() - left.min()).item()

    steps = lab.train(method, policy, world, steps=TRAINED_STEPS, rate=TRAINED_RATE)
    return (error(), *(error() for _ in steps))


def _rate(errors: tuple[float, ...] | list[float], start: int = 0) -> Rate:
    return lab.fit_rate(list(errors[start:]), floor=ROUNDING)


def _exact_table() -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kind, weights in SAMPLERS.items():
        errors = exact_run(weights, rewards(0), 1.0)
        rows.append((kind, *errors[1:5], _rate(errors).order, _rate(errors).kind))
    for name, (weights, _) in WRONG.items():
        errors = exact_run(weights, rewards(0), 3.0)
        rows.append((f"wrong: {name}", *errors[1:5], _rate(errors).order, _rate(errors).kind))
    errors = exact_run(SAMPLERS[BY_POLICY], rewards(0), 3.0, through=True)
    rows.append((f"wrong: {THROUGH}", *errors[1:5], None, "none"))
    return Table(
        name="updates",
        title="Largest |delta| after so many exact updates",
        columns={"sampler": "", **{str(t): ".1e" for t in range(1, 5)}, "order": ".2f", "convergence": ""},
        rows=rows,
    )


def _noisy_table() -> Table:
    rows = [
        (kind, errors[0], errors[300 // EVERY], errors[1000 // EVERY], mean(errors[-8:]))
        for kind in SAMPLERS
        for errors in [noisy_run(kind)]
    ]
    columns = {"sampler": "", "start": ".3f", "step 300": ".3f", "step 1000": ".4f", "last 200 steps": ".4f"}
    return Table(name="noise", title="Mean |delta| with sampled pairs and labels, beta 3", columns=columns, rows=rows)


def _trained_table() -> Table:
    rows = []
    for which in TRAINED:
        errors = trained_run(which)
        rate = _rate(errors, TRAINED_STEPS // 2)
        rows.append((which, errors[10], errors[40], errors[-1], rate.factor, rate.kind))
    columns = {"method": "", "10": ".3f", "40": ".3f", "80": ".3f", "factor a step": ".4f", "convergence": ""}
    title = "Largest |delta| after so many steps of the methods as they train"
    return Table(name="methods", title=title, columns=columns, rows=rows)


def _bound_claims() -> list[Claim]:
    claims = []
    for kind, bound in BOUNDS.items():
        beyond = max(
            error / max(bound(t), ROUNDING)
            for seed in range(SEEDS)
            for beta in BETAS
            for t, error in enumerate(exact_run(SAMPLERS[kind], rewards(seed), beta))
            if t
        )
        claims.append(
            Claim(
                sentence=f"{kind}: largest |delta| over its bound, all updates, three seeds, beta 0.1, 1 and 3",
                measured=beyond,
                relation="<=",
                expected=1.0,
                tolerance=1e-12,
            )
        )
    apart = max(
        abs(one - other)
        for weights in SAMPLERS.values()
        for one, other in zip(exact_run(weights, rewards(0), 0.1), exact_run(weights, rewards(0), 3.0), strict=True)
    )
    sentence = "the same run at beta 0.1 and at beta 3: largest difference of |delta|"
    return [*claims, Claim(sentence=sentence, measured=apart, relation="<=", expected=1e-12)]


def _separation_claims() -> list[Claim]:
    after = {kind: exact_run(weights, rewards(0), 1.0) for kind, weights in SAMPLERS.items()}
    wrong = [
        Claim(
            sentence=f"wrong variant, {name}: |delta| after four updates",
            measured=exact_run(weights, rewards(0), 3.0)[4],
            expected=expected,
            tolerance=expected / 2,
        )
        for name, (weights, expected) in WRONG.items()
    ]
    lost = exact_run(SAMPLERS[BY_POLICY], rewards(0), 3.0, through=True)
    return [
        Claim(sentence="uniform: |delta| after four updates", measured=after[UNIFORM][4], relation=">=", expected=1e-5),
        Claim(
            sentence="uniform: factor of its linear convergence, 0.10 to 0.18",
            measured=_rate(after[UNIFORM]).factor,
            expected=0.14,
            tolerance=0.04,
        ),
        *(
            Claim(
                sentence=f"{kind}: |delta| after four updates",
                measured=after[kind][4],
                relation="<=",
                expected=1e-14,
                tolerance=4e-14,
            )
            for kind in (BY_REWARD, BY_POLICY)
        ),
        *(
            Claim(
                sentence=f"{kind}: order of convergence, 2 = quadratic",
                measured=_rate(after[kind]).order,
                expected=2.0,
                tolerance=0.2,
            )
            for kind in (BY_REWARD, BY_POLICY)
        ),
        *wrong,
        Claim(
            sentence="wrong variant, gradient through the sampler: |delta| after six updates, having started at 1",
            measured=lost[-1],
            relation=">=",
            expected=1.0,
        ),
    ]


def _noise_claims() -> list[Claim]:
    at_300 = noisy_run(BY_REWARD)[300 // EVERY] / noisy_run(UNIFORM)[300 // EVERY]
    tilted = max(gap(rewards(seed)).exp().mean().item() for seed in range(SEEDS))
    return [
        *(
            Claim(
                sentence=f"{kind}, sampled: mean |delta| over the last 200 of 3000 steps, the noise floor",
                measured=mean(noisy_run(kind)[-8:]),
                expected=0.005,
                tolerance=0.002,
            )
            for kind in SAMPLERS
        ),
        Claim(
            sentence="sampled, step 300: mean |delta| mixed by reward over uniform (published run: 0.061 / 0.125)",
            measured=at_300,
            expected=0.49,
            tolerance=0.15,
        ),
        Claim(
            sentence="alpha of the tilted half over that of the uniform half, rewards in [0, 1]: halves are close",
            measured=tilted,
            relation="<=",
            expected=(1 + math.cosh(1)) / 2,
        ),
        *(
            Claim(
                sentence=f"{which} as it trains: order of convergence, 1 = linear",
                measured=_rate(trained_run(which), TRAINED_STEPS // 2).order,
                expected=1.0,
                tolerance=0.1,
            )
            for which in TRAINED
        ),
    ]


def _exact_panel() -> Panel:
    updates = list(range(UPDATES + 1))
    curves = []
    for index, (kind, weights) in enumerate(SAMPLERS.items()):
        errors = exact_run(weights, rewards(0), 1.0)
        bound = [max(BOUNDS[kind](t), 1e-17) for t in updates]
        curves.append(Curve(label=kind, x=updates, y=errors, style="line+points", color=index))
        curves.append(Curve(label="its bound" if index == 0 else "", x=updates, y=bound, style="dashed", color=index))
    return Panel(
        title="Exact gradients, pair weights alpha",
        x_label="update",
        y_label="largest |delta|, reward units",
        y_scale="log",
        y_range=(1e-17, 3.0),
        curves=curves,
    )


def _noisy_panel() -> Panel:
    steps = list(range(0, NOISY_STEPS + 1, EVERY))
    return Panel(
        title="8192 sampled pairs a step",
        x_label="step of size 0.05",
        y_label="mean |delta|, reward units",
        y_scale="log",
        curves=[Curve(label=kind, x=steps, y=noisy_run(kind)) for kind in SAMPLERS],
    )


def _trained_panel() -> Panel:
    steps = list(range(TRAINED_STEPS + 1))
    return Panel(
        title="The methods as they train",
        x_label="step of size 8",
        y_label="largest |delta|, reward units",
        y_scale="log",
        curves=[Curve(label=which, x=steps, y=trained_run(which), color=index) for index, which in enumerate(TRAINED)],
    )


def find() -> StudyResult:
    """Exact updates under each sampler, sampled ones, and the catalogue's methods."""
    figure = Figure(
        name="convergence",
        title="How the sampler of the pairs sets the speed of online DPO",
        panels=[_exact_panel(), _noisy_panel(), _trained_panel()],
    )
    return StudyResult(
        tables=[_exact_table(), _noisy_table(), _trained_table()],
        claims=[*_bound_claims(), *_separation_claims(), *_noise_claims()],
        figures=[figure],
    )


STUDY = Study(
    name="samplers",
    question="How fast does online DPO converge, by how its pairs are sampled?",
    result="uniform pairs give linear, reward- or policy-tilted mixtures quadratic convergence; with noise, one floor",
    source="arXiv 2409.19605, DPO-Unif, DPO-Mix-R and DPO-Mix-P",
    seconds=8,
    find=find,
)
