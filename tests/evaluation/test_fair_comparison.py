"""What a comparison of two policies must say and refuse."""

from __future__ import annotations

import numpy as np
import pytest

from setsail.core import ConfigError
from setsail.demo.study import METHODS, DemoSettings, MethodResult
from setsail.evaluation import both_orders, check_judge, kl_divergence, win_rate


def test_acceptance_30_a_comparison_is_fair_or_says_so() -> None:
    """Acceptance test 30: both orders, ties reported, an interval by bootstrap, no judge that trained, KL beside it."""
    # A judge that always prefers the answer shown first has said nothing: every comparison becomes a tie.
    biased = [both_orders(0.9, 0.9) for _ in range(40)]
    assert biased == [0.5] * 40
    # An honest one: 24 wins, 12 losses, and 4 whose verdict turned with the order.
    outcomes = [both_orders(1.0, 0.0)] * 24 + [both_orders(0.0, 1.0)] * 12 + [both_orders(1.0, 1.0)] * 4
    found = win_rate(outcomes, interval="bootstrap")
    assert (found.wins, found.ties, found.losses, found.missing) == (24, 4, 12, 0)
    assert found.rate.estimate == pytest.approx(26 / 40)
    # Bootstrap of 40 values with standard deviation 0.4555: the normal half-width is 0.141.
    assert found.rate.high - found.rate.low == pytest.approx(2 * 0.141, abs=0.03)
    by_score = win_rate(outcomes).rate
    assert by_score.high - by_score.low == pytest.approx(2 * 0.141, abs=0.03)
    with pytest.raises(ConfigError):
        check_judge("reward model A", ["reward model A"])
    check_judge(["reward model A", "judge B"], ["reward model A"])
    policy, reference = np.log([0.5, 0.25]), np.log([0.25, 0.25])
    assert kl_divergence([policy], [reference]).k1.value == pytest.approx(np.log(2))


def test_acceptance_30_plain_dpo_is_a_baseline_at_equal_steps_by_default() -> None:
    """Acceptance test 30: the demo compares with DPO by default, at one number of steps, seconds beside it."""
    assert METHODS[0] == "dpo"
    assert "steps" in DemoSettings.__dataclass_fields__
    assert "steps" not in MethodResult.__dataclass_fields__, "steps are shared, not a method's own"
    assert "seconds" in MethodResult.__dataclass_fields__
