"""What each term of SAIL's gradient optimizes, where training on it ends, and what RLHF thinks of the place.

One prompt, six responses of reward 0, 0.5, ..., 2.5, a uniform reference, Bradley-Terry labels, beta 1. T1 is the
response-score term (the online correction), T2 the on-policy gradient of DPO.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

from torch import Tensor

from setsail import lab
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get
from setsail.policies.tabular import EnumerablePolicy

BETA = 1.0


def _online(correction: float) -> Method:
    return get("online-dpo").configured(parameters={"beta": BETA}, corrections={"dpr": correction})


def _mixed(
    name: str, route: str, weight: float, coefficient: float | None = None, correction: float | None = None
) -> Method:
    return get(name).configured(
        parameters={"beta": BETA},
        weights={route: weight},
        coefficients=None if coefficient is None else {route: coefficient},
        corrections=None if correction is None else {route: correction},
    )


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "T2 only (online DPO)": _online(0.0),
        "T2 + 0.3 T1": _online(0.3),
        "T2 + T1 (gradient of J)": _online(1.0),
        "DPO 0.7, DPR 0.3": _mixed("sail-dpr", "dpr", 0.3, correction=0.3),
        "DPO 0.7, DPP 0.3": _mixed("sail-dpp", "dpp", 0.3, coefficient=1.0, correction=1.0),
        "DPO 0.6, DDP 0.4": _mixed("sail-ddp", "ddp", 0.4, coefficient=0.2),
    }
)
"""What is trained, by the name of its row: each term alone and together, and the three mixtures."""

REFERENCE, OPTIMUM = "reference", "optimum of RLHF"
T2, EXACT, DPR, DPP, DDP = "T2 only (online DPO)", "T2 + T1 (gradient of J)", *tuple(METHODS)[3:]
ROWS = (REFERENCE, OPTIMUM, *METHODS)


@dataclass(frozen=True, slots=True)
class Solution:
    """A policy, and how it is measured; reward and KL are means of the policy, in nats where they are logarithms."""

    shares: tuple[float, ...]
    objective: float
    reward: float
    kl: float
    best_reward: float

    @property
    def rlhf(self) -> float:
        """``E[r] - beta KL``, what RLHF maximizes."""
        return self.reward - BETA * self.kl


@cache
def solution(row: str) -> Solution:
    """The policy that a row of the table describes; trained to a gradient below 1e-7 where it is a method's."""
    policy, world, reward = lab.six_responses()
    if row == OPTIMUM:
        return _measured(lab.optimal_policy(world.reference, reward, BETA), world, reward)
    if row in METHODS:
        lab.train_exact(policy, lambda: lab.mixture_gradient(METHODS[row], policy, world), rate=1.5, tolerance=1e-7)
    return _measured(policy, world, reward)


def _measured(policy: EnumerablePolicy, world: lab.TabularWorld, reward: Tensor) -> Solution:
    kl = lab.reverse_kl(policy, world.reference).item()
    return Solution(
        shares=tuple(policy.log_probs().exp()[0].tolist()),
        objective=lab.oracle_objective(policy, world.reference, world.preference, BETA).item(),
        reward=lab.expected_reward(policy, reward).item(),
        kl=kl,
        best_reward=lab.best_reward_at_kl(world.reference, reward, kl),
    )


def _table() -> Table:
    return Table(
        name="solutions",
        title="Where training ends: J and RLHF's objective, beta 1",
        columns={
            "solution": "",
            "J": ".4f",
            "E[r]": ".4f",
            "KL, nats": ".4f",
            "E[r] - KL": ".4f",
            "best E[r] at that KL": ".4f",
            "mass on the worst": ".3f",
        },
        rows=[
            (row, one.objective, one.reward, one.kl, one.rlhf, one.best_reward, one.shares[0])
            for row in ROWS
            for one in [solution(row)]
        ],
    )


def _claims() -> list[Claim]:
    best, online, exact = solution(OPTIMUM), solution(T2), solution(EXACT)
    apart = max(abs(one - other) for one, other in zip(best.shares, online.shares, strict=True))
    values = [
        ("J at the reference is -log 2", solution(REFERENCE).objective, -0.6931),
        ("J at the optimum of RLHF", best.objective, -0.6037),
        ("E[r] - KL at the optimum of RLHF", best.rlhf, 1.5899),
        ("J at the end of training on its own gradient", exact.objective, -0.5870),
        ("E[r] - KL at the end of training on the gradient of J", exact.rlhf, 1.5532),
        ("E[r] - KL with a correction of 0.3", solution("T2 + 0.3 T1").rlhf, 1.5833),
        ("E[r] - KL of the DPR mixture", solution(DPR).rlhf, 1.5897),
        ("E[r] - KL of the DPP mixture", solution(DPP).rlhf, 1.5196),
        ("E[r] - KL of the DDP mixture", solution(DDP).rlhf, 1.5855),
        ("KL of the DPP mixture, against 0.2965 at the optimum", solution(DPP).kl, 0.5421),
        ("KL of the DDP mixture, against 0.2965 at the optimum", solution(DDP).kl, 0.3655),
    ]
    return [
        Claim(
            sentence="T2 alone (online DPO) lands on the optimum of RLHF: largest difference of a probability",
            measured=apart,
            relation="<=",
            expected=1e-3,
        ),
        *(Claim(sentence=text, measured=found, expected=wanted, tolerance=6e-5) for text, found, wanted in values),
        Claim(
            sentence="mass on the worst response, training on the gradient of J",
            measured=exact.shares[0],
            expected=0.080,
            tolerance=5.1e-4,
        ),
        Claim(
            sentence="mass on the worst response, optimum of RLHF",
            measured=best.shares[0],
            expected=0.034,
            tolerance=5e-4,
        ),
    ]


def _frontier() -> Panel:
    """Reward against KL: the best there is, and where each ends."""
    _, world, reward = lab.six_responses()
    kls = [0.14 + 0.46 * step / 40 for step in range(41)]
    best = [lab.best_reward_at_kl(world.reference, reward, kl) for kl in kls]
    points = [
        Curve(label=row, x=[solution(row).kl], y=[solution(row).reward], style="points", color=index)
        for index, row in enumerate((T2, "T2 + 0.3 T1", EXACT, DPR, DPP, DDP))
    ]
    return Panel(
        title="Reward and what it costs",
        x_label="KL(policy || reference), nats",
        y_label="expected reward",
        curves=[Curve(label="best reward at that KL", x=kls, y=best, color=6), *points],
    )


def _masses() -> Panel:
    rewards = lab.six_responses()[2][0].tolist()
    shown = {REFERENCE: 6, T2: 0, EXACT: 2, DPP: 4}
    return Panel(
        title="The policies",
        x_label="reward of the response",
        y_label="probability",
        y_range=(0.0, 0.7),
        curves=[
            Curve(
                label=row,
                x=rewards,
                y=solution(row).shares,
                style="dashed" if row == REFERENCE else "line+points",
                color=color,
            )
            for row, color in shown.items()
        ],
    )


def find() -> StudyResult:
    """Train on each combination of terms to the end, and measure where it lies."""
    figure = Figure(
        name="frontier",
        title="What each term of SAIL's gradient optimizes",
        panels=[_frontier(), _masses()],
    )
    return StudyResult(tables=[_table()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="sail-objective",
    question="What does each term of SAIL's gradient optimize?",
    result="online DPO alone ends at the optimum of RLHF; the full gradient of J ends elsewhere, lower on RLHF's scale",
    source="arXiv 2406.15567, the upper-level objective and its gradient",
    seconds=3,
    find=find,
)
