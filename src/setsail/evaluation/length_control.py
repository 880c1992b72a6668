"""The length-controlled win rate: what the judge would say if the answers were as long as the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from setsail.core import ConfigError, DataError
from setsail.evaluation.bootstrap import check_resamples, draws, wide_normal
from setsail.evaluation.intervals import Floats, Interval, check_confidence, share_interval
from setsail.evaluation.preference_model import (
    TOLERANCE,
    Judged,
    controlled_rate,
    fit_difficulties,
    fit_weights,
    refit,
    resample_weights,
)

Numbers = Sequence[float | None] | Floats
Table = Sequence[Numbers] | Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlledWinRate:
    """One model against the baseline.

    Attributes:
        controlled: the win rate without the length term, a share, with its bootstrap interval over instructions.
        plain: the mean preference, with the interval of :func:`share_interval`.
        advantage: log-odds of a win at no length difference and a difficulty of 0.
        length_weight: log-odds that the bounded length difference brings; positive where longer answers win.
        difficulty_weight: log-odds a unit of difficulty.
        missing: instructions without a verdict; they count nowhere else.

    >>> rate = Interval(0.25, 0.22, 0.28, 0.95, 805)
    >>> print(ControlledWinRate(controlled=rate, plain=rate, advantage=-1.0, length_weight=1.8,
    ...                         difficulty_weight=1.0, missing=3))
    0.250 [0.220, 0.280] length-controlled, 0.250 [0.220, 0.280] plain, 3 missing
    """

    controlled: Interval
    plain: Interval
    advantage: float
    length_weight: float
    difficulty_weight: float
    missing: int

    def __str__(self) -> str:
        missing = f", {self.missing} missing" if self.missing else ""
        return f"{self.controlled} length-controlled, {self.plain} plain{missing}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthControlled:
    """Length-controlled win rates of several models against one baseline on the same instructions.

    A logistic model of the judge's preference, of model m on instruction i,

        P = sigmoid(advantage_m + a_m tanh((l_mi - l_bi) / s_m) + d_m g_i),

    with l the lengths of the model's and of the baseline's answer and s_m the standard deviation of their difference
    over the instructions. The controlled win rate sets the length term to zero:

        mean over instructions of sigmoid(advantage_m + d_m g_i).

    The difficulties g come from all other models together (:func:`fit_difficulties`), then each model's three weights
    are fitted with g given (:func:`fit_weights`). Swapping model and baseline gives one minus the win rate.

    Attributes:
        models: the result of each model, in the order given.
        difficulties: g as all models together see them, shape ``(instructions,)``, log-odds; high where the baseline is
            easy to beat. Zeros for a single model.
        length_weight, difficulty_weight: mean a and d over the models, to which :meth:`score` draws a model's own.
        ridge, pooling, confidence, seed, resamples: as given to :meth:`fit`.
        draws: bootstrap draws of the controlled win rates, ``(models, resamples)``; the same instructions are drawn
            for all models.

    Source: arXiv 2404.04475, section 3.

    Deviations: difficulties come from the models at hand, without the model they are used for; in place of annotations
    of a baseline told to be verbose or concise, which hold length weights down there, weights are drawn to the models'
    mean; ridge penalties of fixed strength replace the cross-validated lasso. Both strengths are minima of held-out
    cross-entropy on the annotations of 30 models.
    """

    models: tuple[ControlledWinRate, ...]
    difficulties: Floats
    length_weight: float
    difficulty_weight: float
    ridge: float
    pooling: float
    confidence: float
    seed: int
    resamples: int
    draws: Floats

    @classmethod
    def fit(
        cls,
        preferences: Table,
        model_lengths: Table,
        baseline_lengths: Table | Numbers,
        *,
        ridge: float = 0.2,
        pooling: float = 10.0,
        confidence: float = 0.95,
        seed: int = 0,
        resamples: int = 1000,
    ) -> LengthControlled:
        """Fit the judge's preferences over the baseline.

        One model is enough: difficulties are then left out, and its length weight rests on its own answers alone.

        Args:
            preferences: probability that the model's answer is preferred to the baseline's, in [0, 1],
                ``(models, instructions)``; None or NaN is missing.
            model_lengths: of the answers, in characters or tokens, the same shape.
            baseline_lengths: in the same unit, ``(instructions,)``, or the same shape.
            ridge: pull of the difficulties to zero; as if their standard deviation were ``1 / sqrt(ridge)`` log-odds.
            pooling: pull of the weights to their mean over the models; 0 for each on its own.
            confidence: of the intervals, two-sided, in (0, 1).
            seed: of the stream that draws the resamples of the instructions.
            resamples: how many; at least 100.

        Raises:
            DataError: shapes that do not fit, a preference outside [0, 1], a model without two verdicts, a missing or
                negative length where there is a verdict, or answers that all differ by one and the same length.
            ConfigError: ``ridge`` not positive, ``pooling`` negative, ``confidence`` outside (0, 1), too few resamples.

        >>> wins, lengths = [1, 1, 0, 1, 0, None, 1, 0, 1, 1], [900, 800, 400, 700, 600, 500, 600, 500, 450, 950]
        >>> found = LengthControlled.fit([wins], [lengths], [500] * 10).models[0]
        >>> print(f"{found.plain.estimate:.2f} {found.controlled.estimate:.2f}")
        0.67 0.48
        """
        if not ridge > 0 or not pooling >= 0:
            raise ConfigError(f"ridge={ridge}, pooling={pooling}: they must be positive, and zero or positive")
        check_confidence(confidence)
        check_resamples(resamples)
        judged = judge(preferences, model_lengths, baseline_lengths)
        difficulties = fit_difficulties(judged, ridge)
        weights = fit_weights(judged, difficulties[:-1], pooling)
        drawn = _resampled(judged, difficulties, weights, pooling, _counts(judged.known.shape[1], resamples, seed))
        return cls(
            models=tuple(
                _result(judged.rows([model]), difficulties[model], weights[model], drawn[model], confidence)
                for model in range(len(weights))
            ),
            difficulties=difficulties[-1],
            length_weight=float(weights[:, 1].mean()),
            difficulty_weight=float(weights[:, 2].mean()),
            ridge=ridge,
            pooling=pooling,
            confidence=confidence,
            seed=seed,
            resamples=resamples,
            draws=drawn,
        )

    def score(self, preferences: Numbers, model_lengths: Numbers, baseline_lengths: Numbers) -> ControlledWinRate:
        """The controlled win rate of a model that was not fitted, on the same instructions in the same order.

        Nothing of the fit changes: difficulties and mean weights are those of the fitted models, so results of
        models scored one after another can be compared.

        Raises:
            DataError: another number of instructions, or what :meth:`fit` refuses.
        """
        judged = judge([preferences], [model_lengths], [baseline_lengths])
        if judged.wins.shape[1] != len(self.difficulties):
            raise DataError(
                f"{judged.wins.shape[1]} preferences for a fit on {len(self.difficulties)} instructions: give one an "
                "instruction, None where there is no verdict"
            )
        toward = np.array([0.0, self.length_weight, self.difficulty_weight])
        pull = self.pooling if len(self.models) > 1 else 0.0
        weights = refit(judged, self.difficulties, toward, toward, pull, np.ones_like(judged.known), TOLERANCE)[0]
        counts = _counts(len(self.difficulties), self.resamples, self.seed)
        again = refit(judged, self.difficulties, weights, toward, pull, counts)
        drawn = controlled_rate(again, self.difficulties, counts * judged.known[0])
        return _result(judged, self.difficulties, weights, drawn, self.confidence)

    def difference(self, first: int, second: int) -> Interval:
        """How much higher the controlled win rate of one fitted model is than another's; paired by instruction.

        >>> wins, lengths = [[1, 1, 0, 1, 0, 1], [1, 0, 0, 1, 0, 0]], [[9, 8, 4, 7, 3, 5], [4, 8, 5, 9, 2, 3]]
        >>> LengthControlled.fit(wins, lengths, [5] * 6).difference(0, 0).estimate
        0.0
        """
        estimates = [self.models[index].controlled.estimate for index in (first, second)]
        n = min(self.models[index].controlled.n for index in (first, second))
        return _percentiles(estimates[0] - estimates[1], self.draws[first] - self.draws[second], self.confidence, n)


def judge(preferences: Table, model_lengths: Table, baseline_lengths: Table | Numbers) -> Judged:
    """The checked table that the fits read.

    Raises:
        DataError: as :meth:`LengthControlled.fit` says.
    """
    wins, ours = _table("preferences", preferences), _table("model_lengths", model_lengths)
    theirs = np.asarray(baseline_lengths, dtype=np.float64)
    if ours.shape != wins.shape or theirs.shape not in (wins.shape, wins.shape[1:]):
        raise DataError(
            f"preferences of shape {wins.shape}, model_lengths {ours.shape}, baseline_lengths {theirs.shape}: all are "
            "(models, instructions); the baseline's may be (instructions,)"
        )
    theirs = np.broadcast_to(theirs, wins.shape)
    known = ~np.isnan(wins)
    outside = known & ~((wins >= 0) & (wins <= 1))
    if outside.any():
        model, row = np.argwhere(outside)[0]
        raise DataError(
            f"preference {row} of model {model} is {wins[model, row]}: it is the probability that the model's answer "
            "is preferred, in [0, 1]"
        )
    unusable = known & ~(np.isfinite(ours) & np.isfinite(theirs) & (ours >= 0) & (theirs >= 0))
    if unusable.any():
        model, row = np.argwhere(unusable)[0]
        raise DataError(
            f"instruction {row} of model {model} has a verdict and lengths {ours[model, row]} and "
            f"{theirs[model, row]}: give both answers' lengths, or None as the preference"
        )
    return Judged(np.where(known, wins, 0.0), _bounded(ours - theirs, known), known.astype(np.float64))


def _bounded(differences: Floats, known: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Floats:
    """``tanh(difference / its standard deviation)`` of each model, 0 where not judged."""
    bounded = np.zeros_like(differences)
    for model, mine in enumerate(known):
        values = differences[model, mine]
        if len(values) < 2:
            raise DataError(f"model {model} has {len(values)} verdicts: a win rate takes at least two")
        spread = float(values.std(ddof=1))
        if spread == 0 and values[0] != 0:
            raise DataError(
                f"every answer of model {model} differs from the baseline's by {values[0]:g} in length: what its "
                "length does cannot be told from what the model does; give more instructions"
            )
        bounded[model, mine] = np.tanh(values / spread) if spread else 0.0
    return bounded


def _table(name: str, values: Table) -> Floats:
    try:
        table = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no table of numbers, one row a model with one number an instruction") from error
    if table.ndim != 2 or not table.size:
        raise DataError(f"{name} has shape {table.shape}: it is (models, instructions), at least one of each")
    return table


def _counts(instructions: int, resamples: int, seed: int) -> Floats:
    """How often each resample draws each instruction, ``(resamples, instructions)``."""
    rows = [np.bincount(row, minlength=instructions) for drawn in draws(instructions, resamples, seed) for row in drawn]
    return np.asarray(rows, dtype=np.float64)


def _resampled(judged: Judged, difficulties: Floats, weights: Floats, pooling: float, counts: Floats) -> Floats:
    """The controlled win rates of all models on each resample, ``(models, resamples)``."""
    again = resample_weights(judged, difficulties[:-1], weights, pooling, counts)
    rates = [
        controlled_rate(mine, difficulties[model], counts * judged.known[model]) for model, mine in enumerate(again)
    ]
    return np.stack(rates)


def _result(
    judged: Judged, difficulties: Floats, weights: Floats, drawn: Floats, confidence: float
) -> ControlledWinRate:
    known = judged.known[0] > 0
    estimate = float(controlled_rate(weights[None], difficulties, judged.known)[0])
    return ControlledWinRate(
        controlled=_percentiles(estimate, drawn, confidence, int(known.sum())),
        plain=share_interval(judged.wins[0, known].tolist(), confidence=confidence),
        advantage=float(weights[0]),
        length_weight=float(weights[1]),
        difficulty_weight=float(weights[2]),
        missing=int((~known).sum()),
    )


def _percentiles(estimate: float, drawn: Floats, confidence: float, n: int) -> Interval:
    level = float(special.ndtr(wide_normal(confidence, n)))
    low, high = np.nanquantile(drawn, [1 - level, level])
    return Interval(estimate, float(low), float(high), confidence, n)
