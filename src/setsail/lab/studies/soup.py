"""A reference that is the weight average of two models: which policy that is, and what training against it solves.

For a softmax policy the average of logits is the normalized geometric mean of the probabilities. Three responses show
the rule of arXiv 2411.01798; two hundred pairs of noisy models, when an average is a better reference than one model.
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from setsail import lab
from setsail.core import stream
from setsail.lab.newton import Newton
from setsail.lab.studies.records import Claim, Curve, Figure, Panel, Study, StudyResult, Table
from setsail.methods import get
from setsail.policies.soups import soup
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

FIRST = torch.tensor([[0.7, 0.2, 0.1]], dtype=torch.float64)
SECOND = torch.tensor([[0.1, 0.3, 0.6]], dtype=torch.float64)
REWARD = torch.tensor([[1.0, 0.5, 0.0]], dtype=torch.float64)
BETA, STEPS = 0.5, 12
START, SOUP, MEAN, OTHER = (
    "the first model",
    "soup of both (geometric)",
    "mean of both (arithmetic)",
    "the second model",
)
NAMES = (START, SOUP, MEAN, OTHER)


def weight_average(first: Tensor, second: Tensor, share: float) -> TabularPolicy:
    """The soup of two softmax policies, by the code that makes it for language models; ``share`` of the second."""
    models = [TabularPolicy(first.log()), TabularPolicy(second.log())]
    made = TabularPolicy(first)
    made.load_state_dict(soup(models, [1 - share, share]))
    return made.frozen()


def _mean(share: float) -> TabularPolicy:
    return TabularPolicy(((1 - share) * FIRST + share * SECOND).log()).frozen()


def _reference(name: str) -> TabularPolicy:
    return {
        START: lambda: weight_average(FIRST, SECOND, 0.0),
        SOUP: lambda: weight_average(FIRST, SECOND, get("salsa").soup_share),
        MEAN: lambda: _mean(0.5),
        OTHER: lambda: weight_average(FIRST, SECOND, 1.0),
    }[name]()


def _shares(policy: EnumerablePolicy) -> tuple[float, ...]:
    return tuple(policy.log_probs().detach()[0].exp().tolist())


def best_value(reference: EnumerablePolicy, reward: Tensor = REWARD, beta: float = BETA) -> float:
    """``J* = beta log E_ref exp(r / beta)``, the largest ``E[r] - beta KL(pi || ref)``."""
    return beta * (reference.log_probs().detach() + reward / beta).logsumexp(-1).mean().item()


@cache
def _trained(name: str) -> tuple[tuple[float, ...], float, float, float]:
    """Online DPO from the first model against one reference: policy, J, KL to the reference, KL to the start."""
    reference, start = _reference(name), TabularPolicy(FIRST.log())
    nothing = lab.dataset_pairs(torch.zeros(1, 3, dtype=torch.int64), torch.ones(1, dtype=torch.float64))
    world = lab.TabularWorld(reference, nothing, lab.bradley_terry(REWARD), REWARD)
    method = get("salsa").configured(parameters={"beta": BETA})
    policy = TabularPolicy(FIRST.log())
    for _ in lab.train(method, policy, world, steps=4 * STEPS, rate=1.0, direction=Newton()):
        pass
    kl = lab.reverse_kl(policy, reference).item()
    value = lab.expected_reward(policy, REWARD).item() - BETA * kl
    return _shares(policy), value, kl, lab.reverse_kl(policy, start.frozen()).item()


def _table() -> Table:
    start = TabularPolicy(FIRST.log())
    rows = []
    for name in NAMES:
        reference = _reference(name)
        policy, value, kl, moved = _trained(name)
        rows.append(
            (
                name,
                *_shares(reference),
                lab.reverse_kl(start, reference).item(),
                *policy,
                value,
                best_value(reference),
                kl,
                moved,
            )
        )
    return Table(
        name="references",
        title="Online DPO from the first model, beta 0.5, rewards 1, 0.5, 0",
        columns={
            "reference": "",
            **{f"ref(y{place})": ".6f" for place in range(3)},
            "KL(start || ref)": ".6f",
            **{f"pi(y{place})": ".6f" for place in range(3)},
            "J": ".6f",
            "J*": ".6f",
            "KL(pi || ref)": ".4f",
            "KL(pi || start)": ".4f",
        },
        rows=rows,
    )


# Two fine-tuned models with independent errors.

PAIRS, RESPONSES, NOISE = 200, 20, 1.0
GRID = tuple(place / 20 for place in range(21))


@cache
def _noisy() -> tuple[Tensor, Tensor, Tensor]:
    """Log-probs of the two models and of what both estimate, shape ``(pairs, responses)``."""
    truth, first, second = torch.from_numpy(stream(0, "study", "soup", "models").normal(size=(3, PAIRS, RESPONSES)))
    target = truth.log_softmax(-1)
    return (target + NOISE * first).log_softmax(-1), (target + NOISE * second).log_softmax(-1), target


def _loss(reference: Tensor) -> Tensor:
    """``KL(pi || pi*)``, per pair: what the optimum against a reference lacks of ``E[r] - KL(. || truth)``, beta 1."""
    target = _noisy()[2]
    reward = torch.from_numpy(stream(0, "study", "soup", "rewards").normal(size=(PAIRS, RESPONSES)))
    found, best = (reference + reward).log_softmax(-1), (target + reward).log_softmax(-1)
    return (found.exp() * (found - best)).sum(-1)


@cache
def _losses(share: float, geometric: bool) -> Tensor:
    first, second, _ = _noisy()
    if geometric:
        return _loss(weight_average(first.exp(), second.exp(), share).log_probs())
    return _loss(((1 - share) * first.exp() + share * second.exp()).log())


def _low(values: Tensor) -> float:
    """Lower end of the 95 % interval of the mean, 200 pairs."""
    return values.mean().item() - 1.972 * values.std().item() / math.sqrt(len(values))


def _noise_table() -> Table:
    rows: list[tuple[str | float | None, ...]] = []
    one = _losses(0.0, True)
    for name, share, geometric in (
        ("one model", 0.0, True),
        ("soup, share 0.5", 0.5, True),
        ("arithmetic mean", 0.5, False),
    ):
        losses = _losses(share, geometric)
        difference = losses - one
        error = difference.std().item() / math.sqrt(PAIRS) if share else None
        rows.append((name, losses.mean().item(), difference.mean().item() if share else None, error))
    return Table(
        name="noise",
        title="Two models, each the truth with independent noise of 1 nat in every logit: regret of RLHF against them",
        columns={
            "reference": "",
            "regret, nats": ".4f",
            "difference to one model": ".4f",
            "s.e.": ".4f",
        },
        rows=rows,
    )


def _claims() -> list[Claim]:
    soup_shares = (0.350675, 0.324662, 0.324662)
    optimum = (0.682181, 0.232344, 0.085475)
    start = TabularPolicy(FIRST.log())
    values = [
        ("J* against the soup", best_value(_reference(SOUP)), 0.667283, 6e-7),
        ("J* against the arithmetic mean", best_value(_reference(MEAN)), 0.691293, 6e-7),
        ("J* against the first model alone", best_value(_reference(START)), 0.880306, 6e-7),
        ("KL of the start to the soup, nats", lab.reverse_kl(start, _reference(SOUP)).item(), 0.269198, 6e-7),
    ]
    short = max(abs(_trained(name)[1] - best_value(_reference(name))) for name in NAMES)
    differing = (_reference(START).log_probs() != start.log_probs()).sum().item()
    largest = [
        (
            f"the soup is the geometric mean: distance to {soup_shares}",
            _apart(_shares(_reference(SOUP)), soup_shares),
            6e-7,
        ),
        (f"online DPO against the soup: distance to {optimum}", _apart(_trained(SOUP)[0], optimum), 6e-7),
        ("online DPO reaches J* against every reference: largest gap", short, 1e-9),
        ("a soup with share 0 is the first model: numbers that differ", differing, 0.0),
    ]
    lower = [
        ("noisy models: regret of one model over the soup", _losses(0.0, True) - _losses(0.5, True)),
        ("noisy models: regret of the arithmetic mean over the soup", _losses(0.5, False) - _losses(0.5, True)),
    ]
    return [
        *(Claim(sentence=text, measured=found, relation="<=", expected=most) for text, found, most in largest),
        *(
            Claim(sentence=text, measured=found, expected=wanted, tolerance=slack)
            for text, found, wanted, slack in values
        ),
        *(
            Claim(
                sentence=f"{text}, nats: 95 % lower bound, n = {len(values)}",
                measured=_low(values),
                relation=">=",
                expected=0.0,
            )
            for text, values in lower
        ),
    ]


def _apart(found: tuple[float, ...], wanted: tuple[float, ...]) -> float:
    return max(abs(one - other) for one, other in zip(found, wanted, strict=True))


def _values_panel() -> Panel:
    return Panel(
        title="Largest value, each against its own reference",
        x_label="share of the second model",
        y_label="J* = beta log E_ref exp(r / beta)",
        curves=[
            Curve(label="soup (geometric)", x=GRID, y=[best_value(weight_average(FIRST, SECOND, a)) for a in GRID]),
            Curve(label="arithmetic mean", x=GRID, y=[best_value(_mean(a)) for a in GRID]),
        ],
    )


def _first_step_panel() -> Panel:
    start = TabularPolicy(FIRST.log())
    curves = [
        Curve(label=label, x=GRID, y=[lab.reverse_kl(start, made(share)).item() for share in GRID])
        for label, made in (
            ("soup (geometric)", lambda share: weight_average(FIRST, SECOND, share)),
            ("arithmetic mean", _mean),
        )
    ]
    return Panel(
        title="Before the first step",
        x_label="share of the second model",
        y_label="KL(start || reference), nats",
        curves=curves,
    )


def _noise_panel() -> Panel:
    curves = [
        Curve(label=label, x=GRID, y=[_losses(share, geometric).mean().item() for share in GRID])
        for label, geometric in (("soup (geometric)", True), ("arithmetic mean", False))
    ]
    return Panel(
        title="Two noisy models of one truth",
        x_label="share of the second model",
        y_label="regret, nats",
        curves=curves,
    )


def find() -> StudyResult:
    """Make the references, train against each, and ask when the average is the better one."""
    figure = Figure(
        name="soup",
        title="An average of weights as the reference",
        panels=[_first_step_panel(), _values_panel(), _noise_panel()],
    )
    return StudyResult(tables=[_table(), _noise_table()], claims=_claims(), figures=[figure])


STUDY = Study(
    name="soup",
    question="What does an average of two models do as the reference?",
    result="it is their geometric mean, online DPO lands on its optimum, and it averages out their errors",
    source="arXiv 2411.01798, the averaged reference",
    seconds=2,
    find=find,
)
