"""How noisy one draw of SAIL's gradient is, and what a baseline and averaged labels take away.

Two prompts, three tokens, answers of at most three tokens, beta 0.5, full response-score term T1. The variance of a
draw is ``E ||g - E g||^2``, enumerated; Monte Carlo draws pairs as training does, its standard errors come from
repetitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import log, sqrt
from statistics import mean, stdev

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.gradients import Labels
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Method, get, route_loss
from setsail.objectives import LogProbs, leave_one_out
from setsail.policies.tabular import TabularTokenPolicy

BETA = 0.5
REPETITIONS, DRAWS = 24, 2400
LABELER, POLICY = "labeler", "policy"


@dataclass(frozen=True, slots=True)
class Estimator:
    """One way to draw the gradient.

    Attributes:
        name: of its row.
        labels: drawn one by one, or averaged over.
        centered: whether the exact mean of the loss is the baseline of T1.
        batch: pairs of a batch whose leave-one-out mean is the baseline instead; 1 = none.
        correction: coefficient of T1.
    """

    name: str
    labels: Labels
    centered: bool = False
    batch: int = 1
    correction: float = 1.0

    def method(self, who: str) -> Method:
        """The method whose route draws pairs of the policy, labeled by a labeler or by the policy itself."""
        name, route = ("online-dpo", "dpr") if who == LABELER else ("sail-dpp", "dpp")
        return get(name).configured(
            parameters={"beta": BETA},
            coefficients={route: 1.0},
            corrections={route: self.correction},
            labels=self.labels,
        )

    def surrogate(self, who: str, mean_loss: float) -> lab.Surrogate:
        """What is differentiated: training's own loss of the route's pairs."""
        method = self.method(who)
        route = method.active_routes[0]

        def of_pairs(logps: LogProbs, label: Tensor) -> Tensor:
            # A uniform of 0 draws "first preferred" and a uniform of 1 "second preferred".
            uniform, group = 1 - label, logps.group()
            baseline: Tensor | float = mean_loss if self.centered else 0.0
            if self.batch > 1:
                value = route_loss(method, route, group, label, uniform=uniform).value
                baseline = torch.cat([leave_one_out(part) for part in value.view(-1, self.batch)])
            return route_loss(method, route, group, label, uniform=uniform, baseline=baseline).surrogate

        return of_pairs


WITHOUT = Estimator("no T1, labels drawn", "sampled", correction=0.0)
PLAIN = Estimator("labels drawn, no baseline", "sampled")
CENTERED = Estimator("labels drawn, mean baseline", "sampled", centered=True)
AVERAGED = Estimator("labels averaged, no baseline", "averaged")
BEST = Estimator("labels averaged, mean baseline", "averaged", centered=True)
LEFT_OUT = tuple(Estimator(f"labels averaged, leave-one-out of {n}", "averaged", batch=n) for n in (4, 16))
ENUMERATED = (WITHOUT, PLAIN, CENTERED, AVERAGED, BEST)


@dataclass(frozen=True, slots=True)
class Place:
    """A policy some way from its reference, and the pairs that it draws, labeled by ``who``."""

    who: str
    policy: TabularTokenPolicy
    world: lab.TabularWorld

    @property
    def pairs(self) -> lab.WeightedPairs:
        """Every pair, with its label's probability."""
        pairs = lab.policy_pairs(self.policy.frozen(), self.world.preference)
        return pairs if self.who == LABELER else pairs.self_labeled(self.policy, self.world.reference, BETA)

    @property
    def mean_loss(self) -> float:
        """The expected loss, which centers T1."""
        if self.who == POLICY:
            return -lab.self_objective(self.policy, self.world.reference, BETA).item()
        return -lab.oracle_objective(self.policy, self.world.reference, self.world.preference, BETA).item()

    def variance(self, estimator: Estimator) -> float:
        """Of one draw, by enumeration."""
        surrogate = estimator.surrogate(self.who, self.mean_loss)
        return lab.gradient_variance(self.policy, self.world.reference, self.pairs, surrogate, estimator.labels)

    def sampled_variance(self, estimator: Estimator) -> tuple[float, float]:
        """Of one draw, by Monte Carlo: the mean over repetitions, and its standard error.

        For an estimator with batches it is that of a batch's mean times the batch's size.
        """
        surrogate = estimator.surrogate(self.who, self.mean_loss)
        found = [self._estimate(estimator, surrogate, seed) for seed in range(REPETITIONS)]
        return mean(found), stdev(found) / sqrt(REPETITIONS)

    def _estimate(self, estimator: Estimator, surrogate: lab.Surrogate, seed: int) -> float:
        estimate = lab.monte_carlo_gradient(
            self.policy,
            self.world.reference,
            surrogate,
            preference=self.world.preference if self.who == LABELER else None,
            labels=estimator.labels,
            draws=DRAWS,
            batch=estimator.batch,
            beta=BETA,
            seed=seed,
        )
        return DRAWS * estimate.standard_error.square().sum().item()


def place(who: str, distance: float = 1.0) -> Place:
    """The token world with its policy on the line through reference (0) and policy (1)."""
    policy, world = lab.token_world()
    reference = world.reference
    assert isinstance(reference, TabularTokenPolicy)
    logits = reference.logits + distance * (policy.logits - reference.logits)
    return Place(who, TabularTokenPolicy(logits.detach(), policy.max_length), world)


@dataclass(frozen=True, slots=True)
class Row:
    """Variances of one estimator; the enumerated one where there is one."""

    who: str
    estimator: Estimator
    exact: float | None
    sampled: float
    error: float


@cache
def rows() -> tuple[Row, ...]:
    """Every estimator of both kinds of labels."""
    found = []
    for who in (LABELER, POLICY):
        here = place(who)
        for estimator in (*ENUMERATED, *LEFT_OUT):
            exact = here.variance(estimator) if estimator.batch == 1 else None
            found.append(Row(who, estimator, exact, *here.sampled_variance(estimator)))
    return tuple(found)


def _row(who: str, estimator: Estimator) -> Row:
    return next(row for row in rows() if row.who == who and row.estimator == estimator)


def _exact(who: str, estimator: Estimator) -> float:
    exact = _row(who, estimator).exact
    assert exact is not None
    return exact


def _table() -> Table:
    def cells(row: Row) -> tuple[str | float | None, ...]:
        ratio = row.sampled if row.exact is None else row.exact
        plain = _exact(row.who, PLAIN)
        return (row.who, row.estimator.name, row.exact, row.sampled, row.error, ratio / plain)

    columns = {
        "label": "",
        "estimator": "",
        "exact": ".4f",
        "sampled": ".4f",
        "std. error": ".4f",
        "of plain": ".3f",
    }
    title = "Variance of one draw of the gradient, beta 0.5"
    return Table(name="variances", title=title, columns=columns, rows=[cells(row) for row in rows()])


def _bias(who: str) -> float:
    """Largest distance of the leave-one-out gradient from the exact one, in standard errors."""
    here = place(who)
    method = BEST.method(who)
    exact = lab.mixture_gradient(method, here.policy, here.world)
    if who == POLICY:
        exact = lab.gradient(-lab.self_objective(here.policy, here.world.reference, BETA), here.policy)
    estimate = lab.monte_carlo_gradient(
        here.policy,
        here.world.reference,
        LEFT_OUT[0].surrogate(who, 0.0),
        preference=here.world.preference if who == LABELER else None,
        labels="averaged",
        draws=40_000,
        batch=4,
        beta=BETA,
    )
    return estimate.z_scores(exact).max().item()


def _term_at_reference() -> float:
    """What T1 with a baseline adds to any pair's gradient at the reference, at most."""
    start = place(LABELER, 0.0)
    pairs = start.pairs
    assert pairs.p is not None
    centered = replace(CENTERED, name="at the reference").surrogate(LABELER, log(2))
    each = [
        lab.per_pair_gradients(start.policy, start.world.reference, pairs, surrogate, torch.ones_like(pairs.p))
        for surrogate in (centered, WITHOUT.surrogate(LABELER, 0.0))
    ]
    return (each[0] - each[1]).abs().max().item()


def _claims() -> list[Claim]:
    bounds = ((LABELER, 0.25), (POLICY, 0.05))
    apart = max(abs(row.sampled - row.exact) / row.error for row in rows() if row.exact is not None)
    return [
        *(
            Claim(
                sentence=f"labels from the {who}: averaged labels and a baseline, variance over that of plain draws",
                measured=_exact(who, BEST) / _exact(who, PLAIN),
                relation="<=",
                expected=bound,
            )
            for who, bound in bounds
        ),
        Claim(
            sentence="sampled and enumerated variances: largest distance in standard errors",
            measured=apart,
            relation="<=",
            expected=4.5,
        ),
        *(
            Claim(
                sentence=f"labels from the {who}: leave-one-out in batches of 4 against the exact gradient, largest "
                "distance in standard errors",
                measured=_bias(who),
                relation="<=",
                expected=4.5,
            )
            for who, _ in bounds
        ),
        Claim(
            sentence="at the reference, baseline log 2: the largest entry that T1 adds to any pair's gradient",
            measured=_term_at_reference(),
            relation="<=",
            expected=1e-12,
        ),
    ]


def _bars(estimators: Sequence[Estimator]) -> Panel:
    curves = [
        Curve(
            label=f"labels from the {who}",
            x=list(range(len(estimators))),
            y=[_row(who, estimator).sampled for estimator in estimators],
            error=[_row(who, estimator).error for estimator in estimators],
            style="bars",
        )
        for who in (LABELER, POLICY)
    ]
    names = [
        "no T1",
        "drawn,\nnone",
        "drawn,\nmean",
        "average,\nnone",
        "average,\nmean",
        "average,\nof 4",
        "average,\nof 16",
    ]
    return Panel(
        title="At the policy: Monte Carlo, one standard error",
        x_label="labels, baseline of T1 (of n: leave-one-out)",
        y_label="variance of one draw",
        y_scale="log",
        ticks=names,
        curves=curves,
    )


def _along() -> Panel:
    distances = [step / 10 for step in range(16)]
    shown = (WITHOUT, PLAIN, CENTERED, BEST)
    curves = [
        Curve(label=each.name, x=distances, y=[place(LABELER, at).variance(each) for at in distances]) for each in shown
    ]
    return Panel(
        title="Away from the reference: labeler, exact",
        x_label="distance on the line from reference (0) through policy (1)",
        y_label="variance of one draw",
        y_scale="log",
        curves=curves,
    )


def find() -> StudyResult:
    """Enumerate and sample every estimator's variance."""
    figure = Figure(
        name="variances",
        title="What a baseline and averaged labels take from the gradient's noise",
        panels=[_bars((*ENUMERATED, *LEFT_OUT)), _along()],
    )
    return StudyResult(tables=[_table()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="sail-variance",
    question="How much noise do a baseline and averaged labels take out of SAIL's gradient?",
    result="together they leave at most a quarter of the variance of labeled pairs, a twentieth of self-labeled ones",
    source="arXiv 2406.15567, gradient of the upper-level objective; baselines and label averages derived",
    seconds=4,
    find=find,
)
