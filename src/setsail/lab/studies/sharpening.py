"""Self-labeling as sharpening: what a policy that labels its own pairs makes of a preference it was told.

One prompt, two responses, a data set of one pair whose first response is preferred with probability P; beta 1. With
weight r and coefficient rho, DDP's loss is ``(1 - r) DPO + r rho H(q)`` with ``q = sigmoid(u)`` the implicit
preference and H the entropy of a coin, so its optimum solves ``q - P = k u q (1 - q)`` with ``k = r rho / (1 - r)``.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from scipy.optimize import brentq

from setsail import lab
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get
from setsail.objectives import implicit_preference
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

BETA, WEIGHT = 1.0, 0.4
TRUTHS = (0.55, 0.7, 0.9)
PRODUCTS = (0.0, 0.04, 0.08, 0.16, 0.24, 0.32, 0.4)
ALMOST_ALL = 0.999


def ddp(weight: float, coefficient: float) -> Method:
    """DDP at this study's beta."""
    return get("sail-ddp").configured(
        parameters={"beta": BETA}, weights={"ddp": weight}, coefficients={"ddp": coefficient}
    )


def one_pair(truth: float) -> tuple[TabularPolicy, lab.TabularWorld]:
    """A policy at its uniform reference, and a data set of one pair with the preference ``truth``."""
    policy = TabularPolicy.uniform(prompts=1, responses=2)
    pairs = lab.dataset_pairs(torch.tensor([[0, 0, 1]]), torch.tensor([truth], dtype=torch.float64))
    preference = torch.tensor([[[0.5, truth], [1 - truth, 0.5]]], dtype=torch.float64)
    return policy, lab.TabularWorld(policy.frozen(), pairs, preference)


def believed(policy: EnumerablePolicy, world: lab.TabularWorld) -> float:
    """The policy's own preference for the pair's first response."""
    return implicit_preference(world.data.log_probs(policy, world.reference), BETA).item()


@cache
def trained(truth: float, weight: float, coefficient: float) -> float:
    """What training on DDP's expected gradient ends with, from the reference."""
    policy, world = one_pair(truth)
    method = ddp(weight, coefficient)
    lab.train_exact(policy, lambda: lab.mixture_gradient(method, policy, world), rate=4.0, tolerance=1e-9)
    return believed(policy, world)


def closed_form(truth: float, weight: float, coefficient: float) -> float:
    """The root of ``q - P = k u q (1 - q)`` that training from the reference meets first, P above 1/2."""
    k = weight * coefficient / (1 - weight)

    def slope(u: float) -> float:
        q = 1 / (1 + math.exp(-u))
        return q - truth - k * u * q * (1 - q)

    end = next(u for u in (step / 100 for step in range(1, 3000)) if slope(u) > 0)
    return 1 / (1 + math.exp(-brentq(slope, end - 0.01, end, xtol=1e-14)))


def _worst_pull() -> tuple[float, float]:
    """The largest ``-u sigmoid(u)`` and where: how far the entropy can pull a wrong answer the wrong way."""
    u = brentq(lambda x: 1 + x / (1 + math.exp(x)), -3.0, 0.0)
    return -u / (1 + math.exp(-u)), u


def _self_labeled_path(start: float, steps: int = 60) -> list[float]:
    """Entropy of the policy's preference along training that all but forgets the data set, P = 1/2."""
    policy, world = one_pair(0.5)
    with torch.no_grad():
        policy.logits.copy_(torch.tensor([[start / 2, -start / 2]], dtype=torch.float64))
    method = ddp(ALMOST_ALL, 1.0)

    def entropy() -> float:
        return lab.label_entropy(policy, world.reference, world.data, BETA).item()

    found = [entropy()]
    for _ in lab.train(method, policy, world, steps=steps, rate=1.0):
        found.append(entropy())
    return found


def _table() -> Table:
    settings = ((0.4, 0.0), (0.4, 0.2), (0.2, 0.4), (0.4, 0.5), (0.4, 1.0), (0.6, 1.0))
    rows = [(weight, rho, weight * rho, *(trained(truth, weight, rho) for truth in TRUTHS)) for weight, rho in settings]
    columns = {"weight r": ".1f", "coefficient rho": ".1f", "r rho": ".2f"}
    return Table(
        name="optima",
        title="The preference that training ends with, by the true one",
        columns={**columns, **{f"P = {truth:.2f}": ".4f" for truth in TRUTHS}},
        rows=rows,
    )


def _stationary() -> float:
    """Largest entry of the self-labeled gradient at the reference, on pairs of the policy and of the data set."""
    policy, world, _ = lab.six_responses()
    drawn = lab.gradient(lab.self_objective(policy, world.reference, BETA), policy)
    given = lab.gradient(lab.label_entropy(policy, world.reference, world.data, BETA), policy)
    return max(drawn.abs().max().item(), given.abs().max().item())


def _scaling() -> float:
    """How far DPP's expected gradient is from its closed form, which has weight times coefficient alone."""
    policy, world = lab.token_world()
    offline = lab.gradient(lab.risk(policy, world.reference, world.data, get("dpo").bound_objective()), policy)
    own = lab.gradient(-lab.self_objective(policy, world.reference, 0.1), policy)
    found = []
    for coefficient in (0.1, 0.2, 1.0):
        method = get("sail-dpp").configured(coefficients={"dpp": coefficient}, corrections={"dpp": coefficient})
        exact = method.offline_weight * offline + (1 - method.offline_weight) * coefficient * own
        found.append((lab.mixture_gradient(method, policy, world) - exact).abs().max().item())
    return max(found)


def _claims() -> list[Claim]:
    published = ((0.2, 0.7258, 6e-4), (1.0, 0.848, 6e-4), (0.0, 0.7, 1e-6))
    optima = [
        Claim(
            sentence=f"DDP with weight 0.4, coefficient {rho:g}: the preference it ends with, P = 0.7",
            measured=trained(0.7, 0.4, rho),
            expected=expected,
            tolerance=tolerance,
        )
        for rho, expected, tolerance in published
    ]
    apart = max(
        abs(trained(truth, WEIGHT, product / WEIGHT) - closed_form(truth, WEIGHT, product / WEIGHT))
        for truth in TRUTHS
        for product in PRODUCTS
    )
    return [
        *optima,
        Claim(
            sentence="trained optima against the root of q - P = k u q (1 - q): largest difference",
            measured=apart,
            relation="<=",
            expected=1e-7,
        ),
        Claim(
            sentence="at the reference: the largest entry of the gradient of self-labeled pairs",
            measured=_stationary(),
            relation="<=",
            expected=1e-12,
        ),
        Claim(
            sentence="DPP's expected gradient against 0.7 DPO + 0.3 rho self-labeling, three rho: largest difference",
            measured=_scaling(),
            relation="<=",
            expected=1e-12,
        ),
        Claim(
            sentence="largest -u sigmoid(u): above it times r rho, 1 - r corrects every hard-labeled mistake",
            measured=_worst_pull()[0],
            expected=0.278,
            tolerance=5e-4,
        ),
    ]


def _optima() -> Panel:
    curves = []
    for index, truth in enumerate(TRUTHS):
        fine = [product / 100 for product in range(41)]
        curves.append(
            Curve(
                label=f"P = {truth}: closed form",
                x=fine,
                y=[closed_form(truth, WEIGHT, product / WEIGHT) for product in fine],
                color=index,
            )
        )
        curves.append(
            Curve(
                label="trained" if not index else "",
                x=PRODUCTS,
                y=[trained(truth, WEIGHT, product / WEIGHT) for product in PRODUCTS],
                style="points",
                color=index,
            )
        )
    return Panel(
        title="What DDP makes of a preference, r = 0.4",
        x_label="weight times coefficient, r rho",
        y_label="preference at the end of training",
        curves=curves,
        y_range=(0.5, 1.0),
    )


def _paths() -> Panel:
    starts = (0.0, 0.01, 0.1, 0.5)
    steps = list(range(61))
    return Panel(
        title="Self-labeling alone, by the margin it starts at",
        x_label="step of size 1",
        y_label="entropy of the policy's preference, nats",
        curves=[
            Curve(label="at the reference" if not start else f"u = {start:g}", x=steps, y=_self_labeled_path(start))
            for start in starts
        ],
        y_range=(0.0, 0.72),
    )


def find() -> StudyResult:
    """Train on one pair at several weights and coefficients, and follow self-labeling alone."""
    figure = Figure(
        name="sharpening", title="Self-labeling sharpens what the policy believes", panels=[_optima(), _paths()]
    )
    return StudyResult(tables=[_table()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="sharpening",
    question="What does a policy learn from labels that it gives itself?",
    result="its own opinion, sharper: a preference of 0.70 is fitted as 0.726 or 0.848; at the reference, nothing",
    source="arXiv 2406.15567, self-improvement (DDP, DPP); optima derived",
    seconds=2,
    find=find,
)
