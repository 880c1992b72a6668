"""The gradient hook of SAIL's published code against the response-score term T1 that it stands for.

For each sequence log-prob the code adds ``-gamma F / log pi(y)``, value detached, to the gradient of the loss, after
the mean over the batch; T1 is ``-gamma (F - b)``, inside the mean. F = log sigmoid(u) < 0. It also samples at
temperature 0.9. Worlds: two prompts, three tokens, answers of at most three tokens, 24 draws of all logits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import sqrt
from statistics import mean, median, stdev

import torch
from torch import Tensor

from setsail import lab
from setsail.core import Sampling
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get, route_loss
from setsail.objectives import LogProbs, dpo
from setsail.policies.tabular import EnumerablePolicy
from setsail.policies.tabular_sampling import reshaped

WORLDS = 24
BETAS = (0.1, 0.5, 1.0)
GAMMA, BETA = 0.3, 0.1
ROWS, ACCUMULATION = 4, 2
TEMPERATURES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
TOP_K = 2


def published(logps: LogProbs, p: Tensor, beta: float, gamma: float = 1.0) -> Tensor:
    """A surrogate whose gradient is the published hook's: ``-gamma F / log pi(y)`` at each of the two log-probs.

    It is the gradient of ``gamma |F| log |log pi(y)|`` with F held fixed: a likelihood bonus, weaker the longer the
    answer.
    """
    value = -dpo(logps, p, beta).detach()
    first, second = logps.policy_first, logps.policy_second
    return -gamma * value * (first / first.detach() + second / second.detach())


def online(beta: float, correction: float) -> Method:
    """Pairs of the policy with a labeler's preference, and T1 with this coefficient."""
    return get("online-dpo").configured(parameters={"beta": beta}, corrections={"dpr": correction})


@dataclass(frozen=True, slots=True)
class Comparison:
    """One world: the hook's expected gradient beside T1's.

    Attributes:
        cosine: between the two.
        size: the hook's length over T1's, both with coefficient 1 and in the same mean.
        opposite: share of pairs and labels (by probability) at which the hook pushes a log-prob against T1.
    """

    cosine: float
    size: float
    opposite: float


def _cosine(a: Tensor, b: Tensor) -> float:
    return float((a @ b) / (a.norm() * b.norm()))


@cache
def comparison(seed: int, beta: float) -> Comparison:
    """The hook against T1 in one world, everything enumerated."""
    policy, world = lab.token_world(seed)
    term = lab.mixture_gradient(online(beta, 1.0), policy, world) - lab.mixture_gradient(
        online(beta, 0.0), policy, world
    )
    pairs = lab.policy_pairs(policy.frozen(), world.preference)
    hook = lab.expected_gradient(policy, world.reference, pairs, lambda logps, p: published(logps, p, beta))
    return Comparison(_cosine(hook, term), (hook.norm() / term.norm()).item(), _opposite(pairs, policy, world, beta))


def _opposite(pairs: lab.WeightedPairs, policy: EnumerablePolicy, world: lab.TabularWorld, beta: float) -> float:
    """Share of the pairs whose hook and T1 (no baseline) have opposite signs at the first log-prob."""
    assert pairs.p is not None
    logps = pairs.log_probs(policy, world.reference)
    share = 0.0
    for label, chance in ((torch.ones_like(pairs.p), pairs.p), (torch.zeros_like(pairs.p), 1 - pairs.p)):
        hook, term = (
            torch.autograd.grad(value.sum(), logps.policy_first, retain_graph=True)[0]
            for value in (published(logps, label, beta), _term(logps, label, beta))
        )
        share += (pairs.weight * chance * (hook * term < 0)).sum().item()
    return share


def _term(logps: LogProbs, p: Tensor, beta: float, gamma: float = 1.0) -> Tensor:
    """T1 without a baseline, from training's own loss."""
    method = online(beta, gamma)
    loss = route_loss(method, method.active_routes[0], logps.group(), p)
    return loss.surrogate - loss.value


@dataclass(frozen=True, slots=True)
class Push:
    """What reaches the log-prob of one answer at u = 0: the hook's part, T1's, and that of DPO itself."""

    hook: float
    term: float
    main: float


def push(log_prob: float) -> Push:
    """At one log-prob, published settings: 4 rows a device, 2 accumulation steps, gamma 0.3, beta 0.1."""
    at = torch.tensor([log_prob], dtype=torch.float64, requires_grad=True)
    other = torch.tensor([-1.0], dtype=torch.float64)
    logps = LogProbs(at, other, at.detach(), other)
    label = torch.ones(1, dtype=torch.float64)

    def slope(value: Tensor) -> float:
        return float(torch.autograd.grad(value.sum(), at)[0])

    batch = ROWS * ACCUMULATION
    return Push(
        hook=slope(published(logps, label, BETA, GAMMA)),
        term=slope(_term(logps, label, BETA, GAMMA)) / batch,
        main=slope(dpo(logps, label, BETA)) / batch,
    )


@cache
def _right(seed: int) -> Tensor:
    policy, world = lab.token_world(seed)
    return lab.mixture_gradient(online(0.5, 1.0), policy, world)


@cache
def sampler_error(seed: int, temperature: float, top_k: int = 0) -> tuple[float, float]:
    """Relative error and cosine of the gradient of J from samples that are not the policy's, beta 0.5."""
    policy, world = lab.token_world(seed)
    sampler = reshaped(policy.frozen(), Sampling(temperature=temperature, top_k=top_k))
    found, right = lab.mixture_gradient(online(0.5, 1.0), policy, world, sampler=sampler), _right(seed)
    return ((found - right).norm() / right.norm()).item(), _cosine(found, right)


def _sizes() -> Table:
    rows = [
        (log_prob, one.main, one.term, one.hook, one.hook / one.term)
        for log_prob in (-300.0, -30.0, -3.0, -0.1, -1e-3)
        for one in [push(log_prob)]
    ]
    return Table(
        name="sizes",
        title="Slope of the loss at one log-prob, u = 0, published settings, no baseline",
        columns={"log pi(y), nats": "g", "DPO": ".2e", "T1": ".2e", "hook": ".2e", "hook / T1": ".3f"},
        rows=rows,
    )


def _directions() -> Table:
    rows = []
    for beta in BETAS:
        found = [comparison(seed, beta) for seed in range(WORLDS)]
        cosines = [one.cosine for one in found]
        error = stdev(cosines) / sqrt(WORLDS)
        rows.append((beta, mean(cosines), error, min(cosines), max(cosines), median(one.size for one in found)))
    return Table(
        name="directions",
        title="Expected gradient of the hook against that of T1, over 24 worlds",
        columns={
            "beta": ".1f",
            "mean cosine": ".3f",
            "std. error": ".3f",
            "lowest": ".2f",
            "highest": ".2f",
            "median size, hook / T1": ".2f",
        },
        rows=rows,
    )


def _samplers() -> Table:
    settings = [(f"temperature {each:g}", each, 0) for each in (1.0, 0.9, 0.7)]
    rows = []
    for name, temperature, top_k in [*settings, (f"top {TOP_K} of 3 tokens", 1.0, TOP_K)]:
        errors, cosines = zip(*(sampler_error(seed, temperature, top_k) for seed in range(WORLDS)), strict=True)
        rows.append((name, median(errors), min(errors), max(errors), median(cosines)))
    return Table(
        name="samplers",
        title="Error of the gradient of J where answers are not sampled from the policy, beta 0.5, over 24 worlds",
        columns={
            "sampler": "",
            "median relative error": ".3f",
            "lowest": ".2f",
            "highest": ".2f",
            "median cosine": ".3f",
        },
        rows=rows,
    )


def _claims() -> list[Claim]:
    opposite = min(comparison(seed, beta).opposite for seed in range(WORLDS) for beta in BETAS)
    cosines = [comparison(seed, BETA).cosine for seed in range(WORLDS)]
    near, exact = push(-1e-3), push(0.0)
    return [
        Claim(
            sentence="share of pairs at which the hook pushes against T1 (no baseline), least of all worlds",
            measured=opposite,
            expected=1.0,
            tolerance=1e-9,
        ),
        Claim(
            sentence="mean cosine of the expected gradients at beta 0.1, in standard errors: they are unrelated",
            measured=abs(mean(cosines)) / (stdev(cosines) / sqrt(WORLDS)),
            relation="<=",
            expected=3.0,
        ),
        Claim(
            sentence="a world in which the two point apart as far as cosine -0.47",
            measured=min(cosines),
            relation="<=",
            expected=-0.47,
        ),
        *(
            Claim(
                sentence=f"hook over T1 at an answer of {-log_prob} nats, 4 rows and 2 accumulation steps",
                measured=push(log_prob).hook / push(log_prob).term,
                expected=expected,
                tolerance=tolerance,
            )
            for log_prob, expected, tolerance in ((-300, -0.027, 5e-4), (-30, -0.27, 5e-3))
        ),
        Claim(sentence="the hook at log pi = -0.001", measured=near.hook, expected=-208.0, tolerance=0.5),
        Claim(sentence="DPO's own slope there", measured=-near.main, expected=6e-3, tolerance=5e-4),
        Claim(
            sentence="the hook at log pi = 0 is not finite (1 = yes)",
            measured=float(exact.hook - exact.hook != 0),
            expected=1.0,
        ),
        Claim(
            sentence="gradient of J from samples at temperature 1: relative error",
            measured=max(sampler_error(seed, 1.0)[0] for seed in range(WORLDS)),
            relation="<=",
            expected=1e-12,
        ),
        Claim(
            sentence="at temperature 0.9, the published setting: least relative error of all worlds",
            measured=min(sampler_error(seed, 0.9)[0] for seed in range(WORLDS)),
            relation=">=",
            expected=0.2,
        ),
    ]


def _size_panel() -> Panel:
    lengths = [10 ** (step / 10) for step in range(-30, 28)]
    ratio = [-one.hook / one.term for one in (push(-length) for length in lengths)]
    return Panel(
        title="One answer: size against T1",
        x_label="-log pi(y), nats",
        y_label="size over T1's (sign: opposite)",
        x_scale="log",
        y_scale="log",
        curves=[
            Curve(label="hook, 4 rows x 2 accumulation steps", x=lengths, y=ratio),
            Curve(label="T1", x=[lengths[0], lengths[-1]], y=[1.0, 1.0], style="dashed", color=6),
        ],
    )


def _cosine_panel() -> Panel:
    ranks = list(range(1, WORLDS + 1))
    curves = [
        Curve(
            label=f"beta {beta:g}",
            x=ranks,
            y=sorted(comparison(seed, beta).cosine for seed in range(WORLDS)),
            style="line+points",
        )
        for beta in BETAS
    ]
    return Panel(
        title="Expected gradients: direction",
        x_label="worlds, from the lowest cosine to the highest",
        y_label="cosine of the hook with T1",
        y_range=(-1.05, 1.05),
        curves=curves,
    )


def _temperature_panel() -> Panel:
    errors = [[sampler_error(seed, each)[0] for seed in range(WORLDS)] for each in TEMPERATURES]
    return Panel(
        title="Samples at another temperature",
        x_label="temperature of the sampler",
        y_label="relative error of the gradient of J",
        curves=[
            Curve(
                label="median of 24 worlds", x=TEMPERATURES, y=[median(each) for each in errors], style="line+points"
            ),
            Curve(label="lowest", x=TEMPERATURES, y=[min(each) for each in errors], style="dashed", color=4),
            Curve(label="highest", x=TEMPERATURES, y=[max(each) for each in errors], style="dashed", color=1),
        ],
    )


def find() -> StudyResult:
    """Compare the hook with T1 pair by pair and in expectation, and samples at other temperatures with the policy's."""
    figure = Figure(
        name="hook",
        title="The published gradient hook against the response-score term",
        panels=[_size_panel(), _cosine_panel(), _temperature_panel()],
    )
    return StudyResult(tables=[_sizes(), _directions(), _samplers()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="published-hook",
    question="What does the gradient hook of SAIL's published code follow?",
    result="it pushes every pair the other way, by a size that depends on length and batch; the sum points anywhere",
    source="arXiv 2406.15567, its published code; the term derived",
    seconds=6,
    find=find,
)
