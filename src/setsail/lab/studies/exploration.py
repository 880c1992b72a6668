"""Whether an optimism bonus finds a response that nobody draws: on paper, over softmax logits, and as it is trained.

The world is :func:`setsail.lab.rare_arm.rare_arm`: the reference gives the best response once in 10,000 draws. A run
has found it when the policy has drawn it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import mean, median_low

import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.rare_arm import GOOD, rare_arm, search
from setsail.lab.sampled_runs import sampled_runs
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import Addend, Method, get
from setsail.objectives import dpo, floored_log_ratio, negative_log_likelihood, sample_likelihood
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

RUNS, LABELS, TRAINED_RUNS, TRAINED_LABELS = 20, 60, 100, 1500
STEPS, RATE = 20, 20.0
ALPHA = 0.02
SWEEP = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
MEMORY_SWEEP = (0.001, 0.005, 0.02, 0.1)
PAPER, MEMORY, TRAINED = "11 policies, all labels so far", "softmax, all labels so far", "softmax, last label only"


def xpo(alpha: float) -> Method:
    """Online DPO between a draw of the policy and one of the reference, plus ``alpha log pi`` of the latter."""
    return get("xpo").configured(addends={"optimism": alpha})


def _with_bonus(function: Callable[[Tensor, Tensor], Tensor], samples: str) -> Method:
    addend = Addend(name="optimism", samples=samples, function=function, coefficient=ALPHA)  # type: ignore[arg-type]
    return get("xpo").with_parts(addends=(addend,))


def _kl_of_the_pair(policy: Tensor, reference: Tensor) -> Tensor:
    return reference - policy


WRONG: dict[str, Method] = {
    "sign flipped": _with_bonus(negative_log_likelihood, "reference"),
    "on draws of the policy": _with_bonus(sample_likelihood, "policy"),
    "minus the KL of both": _with_bonus(_kl_of_the_pair, "compared"),
}
"""What the bonus is mistaken for: its sign, its samples, and both at once."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Several runs of one variant.

    Attributes:
        found: the label of each run at which the good response was first drawn by the policy; None = never.
        mass: mean probability of the good response after each label.
        ends: its probability at the end of each run.
    """

    found: tuple[int | None, ...]
    mass: tuple[float, ...]
    ends: tuple[float, ...]

    @property
    def count(self) -> int:
        """How many runs found it."""
        return sum(label is not None for label in self.found)

    @property
    def kept(self) -> int:
        """How many runs end with more than half of the mass on it."""
        return sum(mass > 0.5 for mass in self.ends)


def _uniforms(name: str, *shape: int) -> Tensor:
    return torch.from_numpy(stream(0, "study", "exploration", name).random((*shape, 3)))


def on_paper(method: Method) -> Outcome:
    """The finite class with all labels so far."""
    runs = [search(method, uniforms) for uniforms in _uniforms("paper", RUNS, LABELS)]
    rounds = zip(*(run.mass for run in runs), strict=True)
    return Outcome(tuple(run.found for run in runs), tuple(map(mean, rounds)), tuple(run.mass[-1] for run in runs))


@cache
def _named(version: str, alpha: float) -> Outcome:
    """One version at one alpha; each version's runs see the same uniforms at every alpha."""
    if version == PAPER:
        return on_paper(xpo(alpha))
    method, world = xpo(abs(alpha)) if alpha >= 0 else WRONG["sign flipped"], rare_arm()[1]
    if version == MEMORY:
        uniforms = _uniforms("memory", LABELS, RUNS)
        runs = sampled_runs(method, world, uniforms, memory=True, steps=STEPS, rate=RATE)
    else:
        runs = sampled_runs(method, world, _uniforms("trained", TRAINED_LABELS, TRAINED_RUNS), rate=RATE)
    mass = runs.log_probs[..., GOOD].exp()
    return Outcome(tuple(runs.found(GOOD)), tuple(mass.mean(1).tolist()), tuple(mass[-1].tolist()))


def _rows() -> Table:
    variants: list[tuple[str, str, Outcome]] = [
        (PAPER, "0", _named(PAPER, 0.0)),
        (PAPER, f"{ALPHA:g}", _named(PAPER, ALPHA)),
        *((PAPER, f"{ALPHA:g}, {wrong}", on_paper(method)) for wrong, method in WRONG.items()),
        (MEMORY, "0", _named(MEMORY, 0.0)),
        (MEMORY, f"{ALPHA:g}", _named(MEMORY, ALPHA)),
        (MEMORY, f"{ALPHA:g}, sign flipped", _named(MEMORY, -ALPHA)),
        *((TRAINED, f"{alpha:g}", _named(TRAINED, alpha)) for alpha in (0.0, ALPHA, 0.1)),
    ]
    return Table(
        name="runs",
        title="Who finds the response that the reference gives once in 10,000 draws",
        columns={
            "policies and data": "",
            "alpha": "",
            "labels a run": "d",
            "runs": "d",
            "found it": "d",
            "labels until then (median)": "d",
            "end on it": "d",
            "mean mass on it": ".4f",
            "median mass": ".1e",
        },
        rows=[_row(version, alpha, outcome) for version, alpha, outcome in variants],
    )


def _row(version: str, alpha: str, outcome: Outcome) -> tuple[str | float | None, ...]:
    labels = [label for label in outcome.found if label is not None]
    return (
        version,
        alpha,
        len(outcome.mass),
        len(outcome.ends),
        outcome.count,
        median_low(labels) if labels else None,
        outcome.kept,
        mean(outcome.ends),
        median_low(outcome.ends),
    )


# The gradient of the bonus, exactly, on four responses of which the fourth is never compared.

SHARES = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
LOGITS = torch.tensor([[0.5, 0.1, -0.3, -0.2]], dtype=torch.float64)
REWARD = torch.tensor([[0.5, 0.2, 0.0, 1.0]], dtype=torch.float64)
WINS = {(0, 1): 0.7, (1, 0): 0.3, (1, 2): 0.6, (2, 1): 0.4}
STRENGTH, BETA = 0.3, 0.5


def _bandit() -> tuple[TabularPolicy, lab.TabularWorld]:
    """Four responses; the data set compares the first with the second and the second with the third."""
    prompt, first, second = torch.tensor([(0, *pair) for pair in WINS]).T
    share = torch.tensor(list(WINS.values()), dtype=torch.float64) / 2
    data = lab.WeightedPairs(prompt, first, second, share, torch.ones_like(share))
    reference = TabularPolicy(SHARES.log()).frozen()
    return TabularPolicy(LOGITS), lab.TabularWorld(reference, data, lab.bradley_terry(4 * REWARD), REWARD)


def _slope(
    term: Callable[[Tensor, Tensor], Tensor], law: Tensor, policy: EnumerablePolicy, world: lab.TabularWorld
) -> Tensor:
    """``strength beta E_{y ~ law}[grad term]``."""
    each = term(policy.log_probs()[0], world.reference.log_probs()[0])
    return lab.gradient(STRENGTH * BETA * (law * each).sum(), policy)


def _slopes() -> dict[str, Tensor]:
    policy, world = _bandit()
    chosen = torch.zeros(4, dtype=torch.float64).index_add(0, world.data.first, world.data.weight)
    greedy = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    own = policy.log_probs().detach()[0].exp()
    return {
        "DPO on the data set": lab.gradient(
            lab.risk(policy, world.reference, world.data, lambda logps, p: dpo(logps, p, beta=BETA)), policy
        ),
        "bonus, draws of the reference (SELM, XPO)": _slope(floored_log_ratio, SHARES[0], policy, world),
        "bonus, draws of the policy": _slope(floored_log_ratio, own, policy, world),
        "bonus, greedy answer of the reference": _slope(floored_log_ratio, greedy, policy, world),
        "likelihood of chosen answers (RPO)": _slope(negative_log_likelihood, chosen, policy, world),
    }


def _gradients() -> Table:
    return Table(
        name="gradients",
        title="Gradients in the logits of four responses, the fourth never compared; terms times 0.3 beta, beta 0.5",
        columns={"term": "", **{f"response {place}": ".6f" for place in range(4)}},
        rows=[(name, *slope.tolist()) for name, slope in _slopes().items()],
    )


@cache
def _self_exploring(alpha: float) -> tuple[float, ...]:
    """Where twenty rounds of the catalogue's SELM end on the four responses: greedy answers, hard labels."""
    policy, world = _bandit()
    policy = TabularPolicy(SHARES.log())
    method = get("selm").configured(parameters={"beta": BETA}, addends={"optimism": alpha * BETA})
    for _ in lab.train(method, policy, world, steps=20 * (method.reference.steps or 1)):
        pass
    return tuple(policy.log_probs().exp()[0].tolist())


def _greedy() -> Table:
    return Table(
        name="greedy",
        title="SELM as it is trained (greedy answer, moving reference, 20 rounds): the policy at the end",
        columns={"alpha": "g", **{f"response {place}": ".4f" for place in range(3)}, "response 3, the best": ".4f"},
        rows=[(alpha, *_self_exploring(alpha)) for alpha in (0.0, 0.001, 0.3, 1.0, 3.0)],
    )


def _method_slopes() -> tuple[float, float, float]:
    """Of the catalogue's XPO: its bonus against pi_ref - pi, the same on policy draws, and what alpha 0 leaves."""
    policy, world = _bandit()
    plain, with_bonus = (lab.mixture_gradient(xpo(alpha), policy, world) for alpha in (0.0, ALPHA))
    own, theirs = policy.log_probs().detach()[0].exp(), SHARES[0]
    apart = ((with_bonus - plain) / ALPHA - (theirs - own)).abs().max().item()
    wrong = lab.mixture_gradient(WRONG["on draws of the policy"], policy, world) - plain
    grid = torch.cartesian_prod(torch.tensor([0]), torch.arange(4), torch.arange(4))
    prompt, first, second = grid.unbind(-1)
    pairs = lab.WeightedPairs(prompt, first, second, own[first] * theirs[second], world.preference[0, first, second])
    online = lab.gradient(lab.risk(policy, world.reference, pairs, get("dpo").bound_objective()), policy)
    return apart, wrong.abs().max().item(), (plain - online).abs().max().item()


def _claims() -> list[Claim]:
    found = [
        ("alpha 0.02", _named(PAPER, ALPHA).count, 20),
        ("no bonus", _named(PAPER, 0.0).count, 0),
        ("sign flipped", on_paper(WRONG["sign flipped"]).count, 0),
    ]
    trained = _named(TRAINED, ALPHA)
    return [
        *(Claim(sentence=f"runs of 20 that find it, {PAPER}: {what}", measured=n, expected=m) for what, n, m in found),
        Claim(
            sentence=f"mean mass on it after 60 labels, {PAPER}, alpha 0.02",
            measured=mean(_named(PAPER, ALPHA).ends),
            expected=0.90,
            # One standard error of twenty runs, each of which ends with nearly all of the mass on it or none.
            tolerance=0.07,
        ),
        Claim(
            sentence=f"runs of 20 that find it, {MEMORY}, alpha 0.02",
            measured=_named(MEMORY, ALPHA).count,
            relation=">=",
            expected=18,
        ),
        Claim(
            sentence="share of runs that end on it as trained (last label only, 1,500 labels), alpha 0.02",
            measured=trained.kept / len(trained.ends),
            relation=">=",
            expected=0.9,
        ),
        *_gradient_claims(),
    ]


def _gradient_claims() -> list[Claim]:
    apart, wrong, alone = _method_slopes()
    slopes = _slopes()
    policy, world = _bandit()
    selm = _slope(floored_log_ratio, SHARES[0], policy, world)
    rpo = -_slope(negative_log_likelihood, SHARES[0], policy, world)
    return [
        *(
            Claim(sentence=text, measured=error, relation="<=", expected=1e-14)
            for text, error in (
                ("XPO's bonus is alpha (pi_ref - pi) in the logits: largest difference, over alpha", apart),
                ("the bonus on draws of the policy has no expected gradient: largest coordinate", wrong),
                ("XPO with alpha 0 is DPO on a policy draw against a reference draw: largest difference", alone),
                ("SELM is RPO with a negative weight: largest difference", (selm - rpo).abs().max().item()),
            )
        ),
        Claim(
            sentence="gradient of SELM's bonus on the response that is never compared",
            measured=slopes["bonus, draws of the reference (SELM, XPO)"][3].item(),
            expected=-0.013471,
            tolerance=5e-7,
        ),
        Claim(
            sentence="gradient of RPO's likelihood term on it",
            measured=slopes["likelihood of chosen answers (RPO)"][3].item(),
            expected=0.028471,
            tolerance=5e-7,
        ),
        Claim(
            sentence="gradient of DPO on it",
            measured=slopes["DPO on the data set"][3].item(),
            expected=0.0,
            tolerance=1e-16,
        ),
    ]


def _thinned(values: Sequence[float], points: int = 100) -> tuple[list[int], list[float]]:
    """The labels 1, 2, ... and the values there, about ``points`` of them."""
    every = max(1, len(values) // points)
    places = list(range(every - 1, len(values), every))
    return [place + 1 for place in places], [values[place] for place in places]


def _over_labels(title: str, curves: Sequence[tuple[str, Sequence[float]]], dashed: Sequence[str] = ()) -> Panel:
    drawn = []
    for label, mass in curves:
        x, y = _thinned(mass)
        drawn.append(Curve(label=label, x=x, y=y, style="dashed" if label in dashed else "line"))
    return Panel(
        title=title, x_label="labels", y_label="mass on the good response", curves=drawn, y_range=(-0.03, 1.03)
    )


def _window() -> Panel:
    curves = [
        Curve(
            label=version,
            x=alphas,
            y=[_named(version, alpha).count / RUNS for alpha in alphas],
            style="line+points",
            color=color,
        )
        for version, alphas, color in ((PAPER, SWEEP, 0), (MEMORY, MEMORY_SWEEP, 3))
    ]
    return Panel(
        title="How much optimism",
        x_label="alpha",
        y_label="share of 20 runs that find it",
        x_scale="log",
        y_range=(-0.03, 1.03),
        curves=curves,
    )


def _figure() -> Figure:
    flipped = on_paper(WRONG["sign flipped"]).mass
    paper = [
        ("alpha 0.02, 11 policies", _named(PAPER, ALPHA).mass),
        ("no bonus", _named(PAPER, 0.0).mass),
        ("sign flipped", flipped),
        ("alpha 0.02, softmax", _named(MEMORY, ALPHA).mass),
    ]
    trained = [(f"alpha {alpha:g}", _named(TRAINED, alpha).mass) for alpha in (ALPHA, 0.0, 0.1)]
    return Figure(
        name="search",
        title="An optimism bonus finds what nobody draws, if nothing is forgotten",
        panels=[
            _over_labels("All labels so far", paper, dashed=["sign flipped"]),
            _window(),
            _over_labels("As it is trained: last label only", trained),
        ],
    )


def find() -> StudyResult:
    """Run every version and differentiate every form of the bonus."""
    return StudyResult(tables=[_rows(), _gradients(), _greedy()], claims=_claims(), figures=[_figure()])


STUDY = Study(
    name="exploration",
    question="Does an optimism bonus find a response that nobody draws?",
    result="in the paper's form yes: 20 runs of 20, none without it; hardly where each label is used once",
    source="arXiv 2405.21046, algorithm 1; arXiv 2405.19332, objective",
    seconds=7,
    find=find,
)
