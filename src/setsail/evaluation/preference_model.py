"""The logistic model behind length control, and how it is fitted: Newton's method, no randomness.

    P(model m's answer to i is preferred) = sigmoid(advantage_m + a_m x_mi + d_m g_i)

``x`` is the bounded length difference, ``g`` the instruction's difficulty, shared by all models (high where the
baseline is easy to beat). Losses are cross-entropies against preferences that are probabilities, summed over what was
judged.

Axis legend: ``models``, ``instructions``, ``weights`` (advantage, length, difficulty: 3), ``resamples``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import linalg, special

from setsail.core import DataError
from setsail.evaluation.intervals import Floats

# Pull of advantage, length and difficulty weight toward zero: hardly seen over a hundred verdicts, but enough that a
# model which always wins, or wins exactly where it is longer, has finite ones.
FLOOR = np.array([1e-3, 0.1, 0.1])
ITERATIONS, TOLERANCE, LONGEST_STEP = 200, 1e-8, 2.0
# Draws are read to three digits; a Newton step of this size leaves an error of its square.
RESAMPLE_TOLERANCE, ROUNDS = 1e-2, 20


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge said, in the shape that the fits read.

    Attributes:
        wins: probability that the model's answer is preferred, ``(models, instructions)``; 0 where not judged.
        lengths: x, in (-1, 1), ``(models, instructions)``; 0 where not judged.
        known: 1.0 where judged, else 0.0, ``(models, instructions)``.
    """

    wins: Floats
    lengths: Floats
    known: Floats

    def rows(self, index: Floats | list[int]) -> Judged:
        """Some of the models."""
        return Judged(self.wins[index], self.lengths[index], self.known[index])

    def loss(self, scores: Floats) -> float:
        """Cross-entropy at these log-odds."""
        return float((self.known * (np.logaddexp(0.0, scores) - self.wins * scores)).sum())


def fit_difficulties(judged: Judged, ridge: float) -> Floats:
    """For each model the difficulties as all *other* models see them; in the last row, as all models do.

    They minimize, with each model's difficulty weight at 1 (which makes the problem convex),

        loss(advantage_m + a_m x_mi + g_i) + ridge / 2 * sum_i g_i^2.

    A model's own preferences are in no row that is used for it: with few models the difficulties would else explain
    the noise of the very verdicts they are to predict.

    Returns:
        Shape ``(models + 1, instructions)``; zeros where there is no other model.
    """
    models, instructions = judged.wins.shape
    found = np.zeros((models + 1, instructions))
    if models == 1:
        return found
    start = np.zeros(2 * models + instructions)
    start = _newton(start, *_difficulty_problem(judged, ridge))
    found[-1] = start[2 * models :]
    for model in range(models):
        others = np.delete(np.arange(models), model).tolist()
        warm = np.delete(start, [2 * model, 2 * model + 1])
        found[model] = _newton(warm, *_difficulty_problem(judged.rows(others), ridge))[2 * (models - 1) :]
    return found


def fit_weights(judged: Judged, difficulties: Floats, pooling: float) -> Floats:
    """Each model's advantage, length weight and difficulty weight, drawn toward the mean of the models' weights:

        loss + pooling / 2 * sum_m (a_m - mean a)^2 + (d_m - mean d)^2.

    Args:
        judged: of M models.
        difficulties: ``(models, instructions)``, the row that each model is to be judged by.
        pooling: 0 or more; as if the weights' standard deviation over models were ``1 / sqrt(pooling)``.

    Returns:
        Shape ``(models, 3)``.
    """
    models = len(judged.wins)
    features = _features(judged.lengths, difficulties)
    apart = np.eye(models) - 1 / models
    pull = pooling * np.kron(apart, np.diag([0.0, 1.0, 1.0])) + np.diag(np.tile(FLOOR, models))

    def loss(flat: Floats) -> float:
        return judged.loss(_scores(features, flat.reshape(models, 3))) + float(flat @ pull @ flat) / 2

    def step(flat: Floats) -> Floats:
        p = special.expit(_scores(features, flat.reshape(models, 3)))
        slope = np.einsum("mi,mif->mf", judged.known * (p - judged.wins), features).ravel() + pull @ flat
        blocks = np.einsum("mi,mif,mig->mfg", judged.known * p * (1 - p), features, features)
        return np.asarray(linalg.solve(pull + linalg.block_diag(*blocks), slope, assume_a="pos"))

    return np.asarray(_newton(np.zeros(3 * models), loss, step).reshape(models, 3))


def refit(
    judged: Judged,
    difficulties: Floats,
    start: Floats,
    toward: Floats,
    pull: float,
    counts: Floats,
    tolerance: float = RESAMPLE_TOLERANCE,
) -> Floats:
    """One model's weights on resampled instructions, drawn toward given ones:

        loss + pull / 2 * [(a - a_toward)^2 + (d - d_toward)^2].

    Args:
        judged: of one model, ``(1, instructions)``.
        difficulties: ``(instructions,)``.
        start: where to begin, ``(3,)`` or ``(resamples, 3)``.
        toward: the same shapes; the advantage, its first entry, has no pull.
        pull: 0 or more.
        counts: how often each resample has each instruction, ``(resamples, instructions)``.
        tolerance: length of the Newton step after which the search ends.

    Returns:
        Shape ``(resamples, 3)``.
    """
    features = _features(judged.lengths[0], difficulties)
    products = (features[:, :, None] * features[:, None, :]).reshape(-1, 9)
    penalty = np.array([0.0, pull, pull])
    counts = counts * judged.known[0]
    weights: Floats = np.broadcast_to(start, (len(counts), 3))
    for _ in range(ITERATIONS):
        p = special.expit(weights @ features.T)
        slope = (counts * (p - judged.wins[0])) @ features + penalty * (weights - toward) + FLOOR * weights
        curve = ((counts * p * (1 - p)) @ products).reshape(-1, 3, 3) + np.diag(penalty + FLOOR)
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        # A capped step keeps a far start from overshooting to where the curve is flat.
        length = np.linalg.norm(step, axis=1, keepdims=True)
        weights = np.asarray(weights - step * np.minimum(1.0, LONGEST_STEP / np.maximum(length, LONGEST_STEP)))
        if length.max() < tolerance:
            break
    return weights


def resample_weights(judged: Judged, difficulties: Floats, weights: Floats, pooling: float, counts: Floats) -> Floats:
    """The weights of :func:`fit_weights` on resampled instructions, the same for all models; difficulties stay.

    The models of a resample depend on each other through their mean alone: each is refitted toward the mean of the
    others, ``pooling (1 - 1/M)`` strong, which is the same problem, until the means stand still.

    Args:
        judged, difficulties, pooling: as in :func:`fit_weights`.
        weights: what it returned.
        counts: ``(resamples, instructions)``.

    Returns:
        Shape ``(models, resamples, 3)``.
    """
    models = len(weights)
    drawn = np.repeat(weights[:, None, :], len(counts), axis=1)
    for _ in range(ROUNDS if models > 1 and pooling else 1):
        before = drawn.mean(0)
        for model in range(models):
            others = (drawn.sum(0) - drawn[model]) / max(models - 1, 1)
            drawn[model] = refit(
                judged.rows([model]), difficulties[model], drawn[model], others, pooling * (1 - 1 / models), counts
            )
        if np.square(drawn.mean(0) - before).mean() < RESAMPLE_TOLERANCE**2:
            break
    return drawn


def controlled_rate(weights: Floats, difficulties: Floats, counts: Floats) -> Floats:
    """Mean of ``sigmoid(advantage + d g)``: the win rate at no length difference, ``(resamples,)``.

    Args:
        weights: ``(resamples, 3)``.
        difficulties: ``(instructions,)``.
        counts: ``(resamples, instructions)``; NaN for a resample that has drawn nothing that was judged.
    """
    p = special.expit(weights[:, :1] + weights[:, 2:] * difficulties)
    total = counts.sum(1)
    return np.asarray(np.divide((counts * p).sum(1), total, out=np.full(len(p), np.nan), where=total > 0))


def _features(lengths: Floats, difficulties: Floats) -> Floats:
    return np.stack([np.ones_like(lengths), lengths, np.broadcast_to(difficulties, lengths.shape)], axis=-1)


def _scores(features: Floats, weights: Floats) -> Floats:
    return np.asarray(np.einsum("mif,mf->mi", features, weights))


def _difficulty_problem(judged: Judged, ridge: float) -> tuple[Callable[[Floats], float], Callable[[Floats], Floats]]:
    """Loss and Newton step over ``(advantage_1, a_1, advantage_2, ..., g_1, ..., g_n)``."""
    models = len(judged.wins)
    features = np.stack([np.ones_like(judged.lengths), judged.lengths], axis=-1)
    floor = np.tile(FLOOR[:2], models)

    def scores(flat: Floats) -> Floats:
        return _scores(features, flat[: 2 * models].reshape(models, 2)) + flat[2 * models :]

    def loss(flat: Floats) -> float:
        weights, g = flat[: 2 * models], flat[2 * models :]
        return judged.loss(scores(flat)) + (float(floor @ weights**2) + ridge * float(g @ g)) / 2

    def step(flat: Floats) -> Floats:
        weights, g = flat[: 2 * models], flat[2 * models :]
        p = special.expit(scores(flat))
        residual, curve = judged.known * (p - judged.wins), judged.known * p * (1 - p)
        slope = np.einsum("mi,mif->mf", residual, features).ravel() + floor * weights
        slope_g, curve_g = residual.sum(0) + ridge * g, curve.sum(0) + ridge
        mixed = (curve[:, :, None] * features).transpose(0, 2, 1).reshape(2 * models, -1)
        blocks = np.einsum("mi,mif,mig->mfg", curve, features, features)
        # Difficulties meet only weights, never each other: they are eliminated, which leaves 2 unknowns a model.
        left = linalg.block_diag(*blocks) + np.diag(floor) - (mixed / curve_g) @ mixed.T
        change = linalg.solve(left, slope - mixed @ (slope_g / curve_g), assume_a="pos")
        return np.concatenate([change, (slope_g - mixed.T @ change) / curve_g])

    return loss, step


def _newton(start: Floats, loss: Callable[[Floats], float], step: Callable[[Floats], Floats]) -> Floats:
    """The minimum of a convex loss: Newton steps, halved until the loss does not rise."""
    at, value = start, loss(start)
    for _ in range(ITERATIONS):
        change, scale = step(at), 1.0
        # A rise below rounding of the loss is none.
        while (reached := loss(at - scale * change)) > value + 1e-13 * abs(value) and scale > 1e-9:
            scale /= 2
        at, value = at - scale * change, reached
        if scale * np.abs(change).max() < TOLERANCE:
            return at
    raise DataError(f"the preference model did not settle in {ITERATIONS} steps; is a preference or length absurd?")
