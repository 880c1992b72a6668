"""The win rate of A over B, with ties, missing verdicts and an interval; and who may judge it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from setsail.core import ConfigError, DataError
from setsail.evaluation.bootstrap import bootstrap_mean
from setsail.evaluation.intervals import Interval, share_interval

# Verdicts this close to one half are ties: averaging two orders leaves rounding behind.
TIE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class WinRate:
    """How often A beats B.

    Attributes:
        rate: mean of the outcomes, a tie being one half, with its interval.
        wins, ties, losses: outcomes above, at and below one half.
        missing: comparisons without a verdict; they count nowhere else.

    >>> print(WinRate(rate=share_interval([1] * 6 + [0] * 2), wins=6, ties=0, losses=2, missing=1))
    0.750 [0.409, 0.929] (6 wins, 0 ties, 2 losses, 1 missing)
    """

    rate: Interval
    wins: int
    ties: int
    losses: int
    missing: int

    @property
    def n(self) -> int:
        """Number of comparisons with a verdict."""
        return self.wins + self.ties + self.losses

    @property
    def tie_rate(self) -> float:
        """Share of ties among the comparisons with a verdict."""
        return self.ties / self.n

    def __str__(self) -> str:
        counts = f"{self.wins} wins, {self.ties} ties, {self.losses} losses"
        return f"{self.rate} ({counts}{f', {self.missing} missing' if self.missing else ''})"


def win_rate(
    outcomes: Sequence[float | None],
    *,
    clusters: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    interval: str = "score",
    seed: int = 0,
) -> WinRate:
    """The share of comparisons that A wins, ties counting one half.

    Missing outcomes are dropped and counted: a judge's failure is neither a tie nor a loss. The interval is that of
    :func:`share_interval`: Wilson's where every outcome is 0 or 1 and each stands alone, else Wilson's for as many
    trials as the outcomes are worth, with clusters where several comparisons share one (the same prompt).

    Args:
        outcomes: the probability that A beats B of each comparison, in [0, 1]; None or NaN is missing.
        clusters: what comparisons share, such as the prompt's row id; one each. None: each stands alone.
        confidence: two-sided, in (0, 1).
        interval: ``"score"``, or ``"bootstrap"`` for :func:`bootstrap_mean`; outcomes that all agree get the score
            interval either way, since there is nothing to resample.
        seed: of the bootstrap's stream.

    Raises:
        DataError: an outcome outside [0, 1], none with a verdict, or another number of clusters than of outcomes.
        ConfigError: ``confidence`` outside (0, 1), or another ``interval``.

    >>> print(win_rate([1, 1, 0, 1, None, 1, 1, 1, 0, 1, 1]))
    0.800 [0.490, 0.943] (8 wins, 0 ties, 2 losses, 1 missing)
    """
    if interval not in ("score", "bootstrap"):
        raise ConfigError(f"interval={interval!r}: a win rate has a 'score' or a 'bootstrap' interval")
    if clusters is not None and len(clusters) != len(outcomes):
        raise DataError(f"{len(clusters)} clusters for {len(outcomes)} outcomes: give the cluster of each comparison")
    known = [(index, float(p)) for index, p in enumerate(outcomes) if p is not None and not math.isnan(p)]
    for index, p in known:
        if not 0 <= p <= 1:
            raise DataError(f"outcome {index} is {p}: an outcome is the probability that A beats B, in [0, 1]")
    if not known:
        raise DataError(f"none of {len(outcomes)} comparisons has a verdict, so there is no win rate")
    values = [p for _, p in known]
    groups = None if clusters is None else [clusters[index] for index, _ in known]
    ties = sum(abs(p - 0.5) <= TIE for p in values)
    wins = sum(p > 0.5 + TIE for p in values)
    if interval == "bootstrap" and len(set(values)) > 1:
        rate = bootstrap_mean(values, clusters=groups, confidence=confidence, seed=seed)
    else:
        rate = share_interval(values, clusters=groups, confidence=confidence)
    return WinRate(
        rate=rate,
        wins=wins,
        ties=ties,
        losses=len(values) - wins - ties,
        missing=len(outcomes) - len(values),
    )


def both_orders(p_ab: float | None, p_ba: float | None) -> float | None:
    """One outcome from two judgements of the same pair of answers, shown in both orders.

    A judge that favors the first place says "first" twice: it contradicts itself, and that is a tie. Otherwise the
    outcome is the mean ``(p_ab + 1 - p_ba) / 2``.

    Args:
        p_ab: the probability that the answer shown first is better, A shown first.
        p_ba: the same, B shown first.

    Returns:
        The probability that A beats B, or None where either judgement is missing.

    Raises:
        DataError: a probability outside [0, 1].

    >>> both_orders(0.9, 0.3), both_orders(0.9, 0.8), both_orders(1.0, None)
    (0.8, 0.5, None)
    """
    if p_ab is None or p_ba is None or math.isnan(p_ab) or math.isnan(p_ba):
        return None
    for p in (p_ab, p_ba):
        if not 0 <= p <= 1:
            raise DataError(f"{p} is no probability that the answer shown first is better: it is not in [0, 1]")
    for_a = 1.0 - p_ba
    disagree = (p_ab - 0.5) * (for_a - 0.5) < 0
    return 0.5 if disagree else (p_ab + for_a) / 2


def check_judge(judges: str | Sequence[str], training_labelers: Sequence[str], *, allow: bool = False) -> None:
    """Refuse an evaluation whose only judges are the labelers that trained the policy.

    A policy trained on a labeler's verdicts learns that labeler's mistakes too, so its win rate by the same labeler
    rises whether or not it got better. Names joined by ``+`` (several labelers as one) are compared part by part.

    Args:
        judges: name of the judge, or of all judges.
        training_labelers: names of the labelers that trained the policy.
        allow: do not refuse: the caller says in the report that the judge is the trainer.

    Raises:
        ConfigError: no judge besides the training labelers, and not ``allow``.

    >>> check_judge("gold", ["rm"])
    >>> check_judge(["rm", "gold"], ["rm"])
    """
    names = [judges] if isinstance(judges, str) else list(judges)
    trained = {part for name in training_labelers for part in name.split("+")}
    held_out = [name for name in names if not set(name.split("+")) <= trained]
    if allow or held_out:
        return
    if not names:
        raise ConfigError("no judge given: name at least one that did not train the policy")
    said = " and ".join(repr(name) for name in names)
    raise ConfigError(
        f"the only judge, {said}, also labeled the training pairs, so its win rate measures how well the policy "
        "pleases its trainer and not how good it is: give a judge that took no part in training (another reward "
        "model, a program, a person), or pass allow=True and say so beside the number"
    )
