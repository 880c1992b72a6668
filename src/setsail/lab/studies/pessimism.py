"""The exact half of the study of over-optimization: pessimism as a loss, and what the worst of several models means.

Four responses for regularized preference optimization (arXiv 2405.16436), three for two rewards that disagree
(arXiv 2402.08925).
"""

from __future__ import annotations

from functools import cache, partial

import torch
from torch import Tensor

from setsail import lab
from setsail.lab.learnt_reward import fit_reward
from setsail.lab.newton import newton_step
from setsail.lab.reward_ensembles import MODELS, soft_minimum, variance_penalized, worst_case, worst_expectation
from setsail.lab.studies.records import Claim, Table
from setsail.objectives import dpo, negative_log_likelihood
from setsail.policies.tabular import EnumerablePolicy, TabularPolicy

Shares = tuple[float, ...]

# Regularized preference optimization: the adversary's reward, and the loss that stands for it.

REFERENCE = torch.tensor([[0.4, 0.3, 0.2, 0.1]], dtype=torch.float64)
OUTCOMES = {(0, 1): 0.7, (1, 0): 0.3, (1, 2): 0.6, (2, 1): 0.4}
BETA, ETA = 0.5, 0.3


def _wins() -> Tensor:
    """Shares of the comparisons, shape ``(1, 4, 4)``; the fourth response is never compared."""
    wins = torch.zeros(1, 4, 4, dtype=torch.float64)
    for (won, lost), weight in OUTCOMES.items():
        wins[0, won, lost] = weight / sum(OUTCOMES.values())
    return wins


@cache
def _minimax() -> Shares:
    """The best policy against the adversary: fit the pessimistic reward, then solve RLHF for it."""
    reference, wins = TabularPolicy(REFERENCE.log()), _wins()
    reward = fit_reward(wins, pessimism=ETA, reference=reference, base=wins.sum(-1), beta=BETA)
    return _shares(lab.optimal_policy(reference, reward, BETA))


@cache
def _by_loss(coefficient: float) -> Shares:
    """The minimizer over softmax logits of DPO plus ``coefficient * E_base[-log pi]``."""
    policy, reference, wins = TabularPolicy(REFERENCE.log()), TabularPolicy(REFERENCE.log()).frozen(), _wins()
    prompt, won, lost = wins.nonzero().T
    pairs = lab.WeightedPairs(prompt, won, lost, wins[prompt, won, lost], torch.ones(len(won), dtype=torch.float64))
    for _ in range(80):
        preference = lab.risk(policy, reference, pairs, partial(dpo, beta=BETA))
        imitation = (wins.sum(-1) * negative_log_likelihood(policy.log_probs(), reference.log_probs())).sum()
        step = newton_step(preference + coefficient * imitation, policy)
        with torch.no_grad():
            policy.logits.sub_(step.view_as(policy.logits))
    return _shares(policy)


def _shares(policy: EnumerablePolicy) -> Shares:
    return tuple(policy.log_probs().detach().exp()[0].tolist())


def pessimism_table() -> Table:
    """The policies of the two forms, and of what they are mistaken for."""
    rows: list[tuple[str | float, ...]] = [
        ("minimax over rewards, then RLHF", *_minimax()),
        ("DPO + eta beta E_base[-log pi]", *_by_loss(ETA * BETA)),
        ("DPO + eta E_base[-log pi] (beta forgotten)", *_by_loss(ETA)),
        ("DPO", *_by_loss(0.0)),
    ]
    return Table(
        name="pessimism",
        title="RPO, two ways: beta 0.5, eta 0.3; the last response is never compared",
        columns={"solved": "", **{f"pi(y{place})": ".4f" for place in range(4)}},
        rows=rows,
    )


# Two rewards that disagree: the worse expectation, or the expectation of the worse.

GROUPS = torch.tensor([[1.0, 0.0, 0.4], [0.0, 1.0, 0.4]], dtype=torch.float64)
STRENGTH = 0.1


@cache
def _optimum_of(rule: str) -> Shares:
    """Optimum at beta 0.1 from a uniform reference: in closed form, by symmetry for the worse expectation."""
    reward = {
        "worse expectation": GROUPS.mean(0),
        "expectation of the worse": worst_case(GROUPS),
        "80/20 average": 0.8 * GROUPS[0] + 0.2 * GROUPS[1],
    }[rule]
    return _shares(lab.optimal_policy(TabularPolicy.uniform(1, 3), reward.unsqueeze(0), STRENGTH))


@cache
def _alternated() -> Shares:
    """Each step looks for the group that is worse off and follows its regularized reward; steps shrink."""
    policy, reference = TabularPolicy.uniform(1, 3), TabularPolicy.uniform(1, 3).frozen()
    for step in range(2500):
        shares = policy.log_probs().detach()[0].exp()
        worse = GROUPS[int((GROUPS @ shares).argmin())].unsqueeze(0)
        gain = lab.expected_reward(policy, worse) - STRENGTH * lab.reverse_kl(policy, reference)
        slope = lab.gradient(gain, policy)
        with torch.no_grad():
            policy.logits.add_(5 / (1 + step / 20) * slope.view_as(policy.logits))
    return _shares(policy)


def _values(shares: Shares) -> tuple[float, float, float]:
    """Of a policy: the worse expectation, the expectation of the worse, and the regularized worse expectation."""
    law = torch.tensor(shares, dtype=torch.float64)
    worse = worst_expectation(GROUPS, law).item()
    kl = float((law * (law * 3).log()).sum())
    return worse, float(law @ worst_case(GROUPS)), worse - STRENGTH * kl


def groups_table() -> Table:
    """The optimum of each way to be fair to two groups."""
    rules = ("worse expectation", "expectation of the worse", "80/20 average")
    rows: list[tuple[str | float, ...]] = [
        (f"max of the {rule}", *_optimum_of(rule), *_values(_optimum_of(rule))) for rule in rules
    ]
    rows.insert(1, ("the same, alternating steps", *_alternated(), *_values(_alternated())))
    return Table(
        name="groups",
        title="Rewards (1, 0, .4) and (0, 1, .4): what is taken the minimum of, beta 0.1",
        columns={
            "policy": "",
            **{f"pi(y{place})": ".4f" for place in range(3)},
            "min of E": ".5f",
            "E of min": ".5f",
            "min of E - beta KL": ".6f",
        },
        rows=rows,
    )


def _apart(found: Shares, wanted: Shares) -> float:
    return max(abs(one - other) for one, other in zip(found, wanted, strict=True))


def claims() -> list[Claim]:
    """Published and derived numbers of both."""
    worse, inside, average = (
        _optimum_of(rule) for rule in ("worse expectation", "expectation of the worse", "80/20 average")
    )
    alternated, averaged = (0.4223, 0.4223, 0.1554), (0.0177, 0.0177, 0.9647)
    forgotten, plain = (0.505, 0.339, 0.156, 0.0), (0.806, 0.111, 0.033, 0.050)
    second_order = variance_penalized(MODELS, 0.01)
    largest = [
        ("RPO: minimax against loss", _apart(_minimax(), _by_loss(ETA * BETA)), 1e-8),
        ("RPO against (.5916, .2851, .1233, 0)", _apart(_minimax(), (0.5916, 0.2851, 0.1233, 0.0)), 1e-4),
        (f"RPO without the factor beta against {forgotten}", _apart(_by_loss(ETA), forgotten), 6e-4),
        (f"DPO against {plain}", _apart(_by_loss(0.0), plain), 6e-4),
        (f"worse expectation, alternating steps against {alternated}", _apart(_alternated(), alternated), 6e-3),
        (f"expectation of the worse against {averaged}", _apart(inside, averaged), 6e-5),
        ("soft minimum at beta 1e6 against the mean", _gap(soft_minimum(MODELS, 1e6), MODELS.mean(0)), 2e-6),
        (
            "soft minimum at beta 1e-3 against the worst case",
            _gap(soft_minimum(MODELS, 1e-3), worst_case(MODELS)),
            2e-3,
        ),
        ("soft minimum at beta 50 against mean - Var / 100", _gap(soft_minimum(MODELS, 50.0), second_order), 2e-4),
    ]
    values = [
        ("max of the worse expectation: min of E", _values(worse)[0], 0.48446, 6e-6),
        ("max of the worse expectation: min of E - beta KL", _values(worse)[2], 0.476338, 6e-7),
        ("max of the expectation of the worse: min of E", _values(inside)[0], 0.4035, 6e-5),
        ("80/20 average: what the minority gets", _values(average)[0], 0.0096, 6e-5),
    ]
    return [
        *(
            Claim(sentence=f"{text}: largest difference", measured=found, relation="<=", expected=most)
            for text, found, most in largest
        ),
        *(
            Claim(sentence=text, measured=found, expected=wanted, tolerance=slack)
            for text, found, wanted, slack in values
        ),
    ]


def _gap(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max())
