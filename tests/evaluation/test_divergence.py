"""The divergence estimates against an exactly known KL."""

from __future__ import annotations

import math

import numpy as np
import pytest

from setsail.core import DataError
from setsail.evaluation import kl_divergence

P = np.array([0.5, 0.3, 0.2])
Q = np.array([0.2, 0.3, 0.5])
KL = float((P * np.log(P / Q)).sum())


def drawn(answers: int, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Answers of 1 to 9 independent tokens of P."""
    generator = np.random.default_rng(seed)
    tokens = [generator.choice(3, size=size, p=P) for size in generator.integers(1, 10, size=answers)]
    return [np.log(P)[ids] for ids in tokens], [np.log(Q)[ids] for ids in tokens]


def test_both_estimators_find_the_kl_within_their_errors() -> None:
    found = kl_divergence(*drawn(4000))
    length = found.tokens / found.answers
    for estimate, truth in (
        (found.k1, KL * length),
        (found.k3, KL * length),
        (found.k1_per_token, KL),
        (found.k3_per_token, KL),
    ):
        assert abs(estimate.value - truth) < 4 * estimate.error
        assert estimate.error < 0.05 * truth
    assert found.k1_per_token.value == pytest.approx(found.k1.value / length)
    assert found.answers == 4000


def test_the_errors_are_the_spread_over_repetitions() -> None:
    repeated = [kl_divergence(*drawn(200, seed)) for seed in range(150)]
    for name in ("k1", "k1_per_token", "k3_per_token"):
        estimates = [getattr(found, name) for found in repeated]
        spread = np.std([estimate.value for estimate in estimates], ddof=1)
        assert np.mean([estimate.error for estimate in estimates]) == pytest.approx(spread, rel=0.2)


def test_by_hand() -> None:
    found = kl_divergence([np.log([0.5, 0.8]), np.log([0.5])], [np.log([0.25, 0.8]), np.log([1.0])])
    assert found.k1.value == pytest.approx(0.0, abs=1e-15)
    assert found.k1.error == pytest.approx(math.log(2.0))
    assert found.k3.value == pytest.approx(((0.5 - 1 + math.log(2)) + (2 - 1 - math.log(2))) / 2)
    assert found.k3_per_token.value == pytest.approx(found.k3.value * 2 / 3)
    interval = found.kl()
    assert interval.high - interval.estimate == pytest.approx(1.959963984540054 * found.k3.error)
    assert (interval.n, found.tokens) == (2, 3)


def test_equal_policies_have_none() -> None:
    policy, _ = drawn(50)
    found = kl_divergence(policy, policy)
    assert (found.k1.value, found.k3.value, found.k1.error) == (0.0, 0.0, 0.0)
    assert str(found.k3) == "0.0000 +- 0.0000"


def test_one_answer_has_no_error_and_an_empty_one_no_divergence() -> None:
    found = kl_divergence([np.log([0.5])], [np.log([0.25])])
    assert math.isnan(found.k1.error)
    assert math.isnan(found.k1_per_token.error)
    halved = kl_divergence([np.log([0.5]), np.zeros(0)], [np.log([0.25]), np.zeros(0)])
    assert halved.k1.value == pytest.approx(math.log(2) / 2)
    assert halved.k1_per_token.value == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("policy", "reference", "message"),
    [
        ([], [], "0 answers without a token"),
        ([np.zeros(0)], [np.zeros(0)], "1 answers without a token"),
        ([np.zeros(2)], [], "1 answers of the policy, 0 of the reference"),
        ([np.zeros(2)], [np.zeros(3)], r"answer 0: log-probs of shape \(2,\) by the policy and \(3,\)"),
        ([np.zeros(2), np.zeros(1)], [np.zeros(2), np.array([-np.inf])], "answer 1 has a log-prob that is not finite"),
    ],
)
def test_what_has_no_divergence(policy: list[np.ndarray], reference: list[np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        kl_divergence(policy, reference)
