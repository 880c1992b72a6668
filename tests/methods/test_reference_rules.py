"""When the frozen policies move, how a rule says so, and what no rule can be."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from setsail.core import SpecError
from setsail.reference import ReferenceRule, average, every, fixed, one_move_behind


def test_a_fixed_reference_never_moves() -> None:
    assert not fixed().moves
    assert not any(fixed().moves_after(step) for step in range(100))


def test_a_moving_reference_moves_at_multiples() -> None:
    rule = every(4, mixup=0.25)
    assert rule.moves
    assert [step for step in range(13) if rule.moves_after(step)] == [4, 8, 12]
    assert [step for step in range(4) if average(0.1).moves_after(step)] == [1, 2, 3]
    assert [step for step in range(9) if one_move_behind(4).moves_after(step)] == [4, 8]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (fixed(), "fixed"),
        (every(4), "every 4 steps"),
        (every(1), "every step"),
        (every(4, mixup=0.25), "every 4 steps, mixup 0.25"),
        (every(16, momentum=0.3), "every 16 steps, momentum 0.3"),
        (every(16, anchor=1 / 3), "every 16 steps, anchor 0.333"),
        (every(2, 0.5, momentum=0.1, anchor=0.2), "every 2 steps, mixup 0.5, momentum 0.1, anchor 0.2"),
        (average(1e-3), "every step, mixup 0.001"),
        (one_move_behind(16), "one move behind the reference, every 16 steps"),
    ],
)
def test_a_rule_in_words(rule: ReferenceRule, words: str) -> None:
    assert str(rule) == words


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "steps": (lambda: every(0), "cannot move every 0 steps; give 1 or more, or None to keep it fixed"),
    "negative steps": (lambda: every(-3), "cannot move every -3 steps"),
    "mixup": (lambda: every(4, mixup=0.0), "a share in (0, 1] of the policy's weights, got 0.0"),
    "mixup above": (lambda: ReferenceRule(4, 1.5), "a share in (0, 1] of the policy's weights, got 1.5"),
    "mixup nan": (lambda: average(float("nan")), "a share in (0, 1] of the policy's weights, got nan"),
    "momentum of one": (
        lambda: every(4, momentum=1.0),
        "momentum must lie in [0, 1), got 1.0; at 1 the extrapolation never settles",
    ),
    "negative momentum": (lambda: every(4, momentum=-0.1), "momentum must lie in [0, 1), got -0.1"),
    "anchor of one": (
        lambda: every(4, anchor=1.0),
        "anchor is the starting policy's share of the reference, in [0, 1), got 1.0; for 1 keep the reference fixed",
    ),
    "negative anchor": (lambda: every(4, anchor=-0.2), "in [0, 1), got -0.2"),
    "momentum at rest": (
        lambda: ReferenceRule(momentum=0.3),
        "momentum and anchor belong to a reference that moves; give it steps as well",
    ),
    "anchor at rest": (lambda: ReferenceRule(anchor=0.3), "belong to a reference that moves; give it steps as well"),
    "follows nobody": (
        lambda: ReferenceRule(4, follows="references"),  # type: ignore[arg-type]
        "a frozen policy follows the policy or the reference, got 'references'; did you mean 'reference'?",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_rule_without_meaning_is_refused(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(SpecError, match=re.escape(message)):
        make()
