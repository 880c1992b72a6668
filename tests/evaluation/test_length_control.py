"""Length control on judges whose bias is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import optimize, special

from setsail.core import ConfigError, DataError, stream
from setsail.evaluation import LengthControlled, share_interval
from setsail.evaluation.length_control import judge
from setsail.evaluation.preference_model import (
    FLOOR,
    Judged,
    controlled_rate,
    fit_difficulties,
    fit_weights,
    refit,
    resample_weights,
)

Array = NDArray[np.float64]


class World:
    """Models and a judge with a length bias of 1.8, on instructions of different difficulty."""

    def __init__(self, models: int, instructions: int, *names: int | str) -> None:
        generator = stream(0, "judge", models, instructions, *names)
        self.difficulty = 1.6 * generator.normal(size=instructions)
        self.advantage = generator.normal(-0.7, 1.2, size=models)
        self.baseline = np.rint(generator.lognormal(7.0, 0.5, size=instructions))
        longer = generator.normal(-0.3, 0.4, size=(models, 1))
        self.lengths = np.rint(self.baseline * np.exp(longer + 0.5 * generator.normal(size=(models, instructions))))
        gaps = self.lengths - self.baseline
        bias = 1.8 * np.tanh(gaps / gaps.std(1, ddof=1, keepdims=True))
        at_equal_length = self.advantage[:, None] + self.difficulty
        self.p = special.expit(at_equal_length + bias)
        self.truth = special.expit(at_equal_length).mean(1)
        self.verdicts = (generator.random(self.p.shape) < self.p).astype(np.float64)

    def fit(self, preferences: Array, **options: float) -> LengthControlled:
        return LengthControlled.fit(preferences, self.lengths, self.baseline, resamples=100, **options)


def _rates(fit: LengthControlled) -> Array:
    return np.array([model.controlled.estimate for model in fit.models])


# Known answers.


def test_the_bias_of_a_judge_is_taken_out() -> None:
    """From the judge's probabilities themselves, so that the method alone is tested: a point off, where it was ten."""
    world = World(10, 400)
    fit = world.fit(world.p)
    plain = np.array([model.plain.estimate for model in fit.models])
    assert plain == pytest.approx(world.p.mean(1), abs=1e-12)
    assert np.abs(plain - world.truth).max() > 0.1
    assert np.abs(_rates(fit) - world.truth).max() < 0.01
    assert fit.length_weight == pytest.approx(1.8, rel=0.1)
    assert np.corrcoef(fit.difficulties, world.difficulty)[0, 1] > 0.99


def test_a_model_that_is_only_longer_gets_its_fifty_percent_back() -> None:
    generator = stream(0, "only longer")
    baseline = generator.integers(400, 1200, size=(800,)).astype(np.float64)
    longer = baseline + generator.integers(-200, 900, size=800)
    gap = longer - baseline
    p = special.expit(2.0 * np.tanh(gap / gap.std(ddof=1)))
    found = LengthControlled.fit([p], [longer], baseline, resamples=100).models[0]
    assert found.plain.estimate > 0.65
    assert found.controlled.estimate == pytest.approx(0.5, abs=1e-3)
    verdicts = (generator.random(800) < p).astype(np.float64)
    noisy = LengthControlled.fit([verdicts], [longer], baseline, resamples=100).models[0]
    assert noisy.controlled.low < 0.5 < noisy.controlled.high < noisy.plain.low


def test_two_lengths_have_a_closed_form() -> None:
    """Wins of 80 % where longer, 40 % where shorter: the advantage is the mean of the two log-odds."""
    wins = [0.8, 0.4] * 2000
    lengths = [600.0, 400.0] * 2000
    found = LengthControlled.fit([wins], [lengths], [500.0] * 4000, resamples=100).models[0]
    assert found.advantage == pytest.approx((special.logit(0.8) + special.logit(0.4)) / 2, abs=1e-3)
    x = math.tanh(1.0)
    assert found.length_weight == pytest.approx((special.logit(0.8) - special.logit(0.4)) / (2 * x), rel=2e-3)
    assert found.controlled.estimate == pytest.approx(0.620203, abs=5e-4)


def test_against_itself_a_model_wins_half() -> None:
    found = LengthControlled.fit([[0.5] * 50], [[100.0] * 50], [100.0] * 50, resamples=100).models[0]
    assert (found.controlled.estimate, found.controlled.low, found.controlled.high) == (0.5, 0.5, 0.5)
    assert found.length_weight == 0.0


def test_swapping_model_and_baseline_mirrors_every_number() -> None:
    world = World(4, 120)
    fit = world.fit(world.verdicts)
    other = LengthControlled.fit(1 - world.verdicts, np.tile(world.baseline, (4, 1)), world.lengths, resamples=100)
    assert _rates(other) == pytest.approx(1 - _rates(fit), abs=1e-7)
    for mine, theirs in zip(fit.models, other.models, strict=True):
        assert theirs.length_weight == pytest.approx(mine.length_weight, abs=1e-6)
        ends = (1 - mine.controlled.high, 1 - mine.controlled.low)
        assert (theirs.controlled.low, theirs.controlled.high) == pytest.approx(ends, abs=1e-4)


def test_a_judge_without_bias_is_left_alone() -> None:
    """Preferences that know nothing of lengths: the controlled win rate is the plain one."""
    world = World(6, 2000)
    fair = special.expit(world.advantage[:, None] + world.difficulty)
    assert _rates(world.fit(fair)) == pytest.approx(fair.mean(1), abs=0.005)


@pytest.mark.parametrize(("models", "instructions", "sets"), [(1, 150, 150), (4, 150, 60)])
def test_intervals_cover(models: int, instructions: int, sets: int) -> None:
    """The win rate over all instructions there could be; a little less than 95 % at this size (91 to 95)."""
    truth_at = 1.6 * stream(0, "many instructions").normal(size=20_000)
    covered = []
    for index in range(sets):
        world = World(models, instructions, index)
        fit = LengthControlled.fit(world.verdicts, world.lengths, world.baseline, resamples=200)
        for model, advantage in zip(fit.models, world.advantage, strict=True):
            truth = special.expit(advantage + truth_at).mean()
            covered.append(model.controlled.low <= truth <= model.controlled.high)
    assert 0.89 <= np.mean(covered) <= 0.98, np.mean(covered)


# What may not matter.


def test_a_missing_verdict_is_as_if_the_instruction_had_not_been_asked() -> None:
    world = World(1, 90)
    holes: list[float | None] = [None if i % 9 == 4 else float(p) for i, p in enumerate(world.verdicts[0])]
    lengths = [math.nan if p is None else length for p, length in zip(holes, world.lengths[0], strict=True)]
    found = LengthControlled.fit([holes], [lengths], world.baseline, resamples=100).models[0]
    kept = [i for i, p in enumerate(holes) if p is not None]
    without = LengthControlled.fit(
        world.verdicts[:, kept], world.lengths[:, kept], world.baseline[kept], resamples=100
    ).models[0]
    assert found.controlled.estimate == pytest.approx(without.controlled.estimate, abs=1e-9)
    assert (found.missing, found.controlled.n, found.plain) == (10, 80, without.plain)


def test_the_order_of_instructions_and_of_models_does_not_matter() -> None:
    world = World(4, 100)
    fit = world.fit(world.verdicts)
    order, swap = stream(0, "order").permutation(100), [2, 0, 3, 1]
    again = LengthControlled.fit(
        world.verdicts[swap][:, order], world.lengths[swap][:, order], world.baseline[order], resamples=100
    )
    assert _rates(again) == pytest.approx(_rates(fit)[swap], abs=1e-7)
    assert again.difficulties == pytest.approx(fit.difficulties[order], abs=1e-6)


def test_the_unit_of_length_does_not_matter() -> None:
    world = World(3, 80)
    tokens = LengthControlled.fit(world.verdicts, world.lengths / 4.2, world.baseline / 4.2, resamples=100)
    assert _rates(tokens) == pytest.approx(_rates(world.fit(world.verdicts)), abs=1e-9)


def test_a_models_own_verdicts_are_not_in_the_difficulties_it_is_judged_by() -> None:
    world = World(4, 60)
    before = fit_difficulties(judge(world.verdicts, world.lengths, world.baseline), ridge=0.2)
    changed = world.verdicts.copy()
    changed[1] = 1 - changed[1]
    after = fit_difficulties(judge(changed, world.lengths, world.baseline), ridge=0.2)
    assert after[1] == pytest.approx(before[1], abs=1e-6)
    assert np.abs(after[0] - before[0]).max() > 0.1
    assert np.abs(after[-1] - before[-1]).max() > 0.1


def test_draws_depend_on_the_seed_alone() -> None:
    world = World(2, 60)
    one, same, other = (world.fit(world.verdicts, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(one.draws, same.draws)
    assert not np.array_equal(one.draws, other.draws)
    assert _rates(one) == pytest.approx(_rates(other), abs=0)


# The fits, against another solver.


def _judged() -> Judged:
    world = World(3, 25)
    return judge(world.verdicts, world.lengths, world.baseline)


def test_difficulties_minimize_their_loss() -> None:
    judged, ridge = _judged(), 0.3

    def loss(flat: Array) -> float:
        weights, g = flat[:6].reshape(3, 2), flat[6:]
        scores = weights[:, :1] + weights[:, 1:] * judged.lengths + g
        return judged.loss(scores) + float((FLOOR[:2] * weights**2).sum()) / 2 + ridge * float(g @ g) / 2

    best = optimize.minimize(loss, np.zeros(31), method="BFGS", options={"gtol": 1e-8, "maxiter": 2000})
    assert fit_difficulties(judged, ridge)[-1] == pytest.approx(best.x[6:], abs=1e-5)


@pytest.mark.parametrize("pooling", [0.0, 3.0])
def test_weights_minimize_their_loss(pooling: float) -> None:
    judged = _judged()
    difficulties = fit_difficulties(judged, 0.2)[:-1]

    def loss(flat: Array) -> float:
        weights = flat.reshape(3, 3)
        scores = weights[:, :1] + weights[:, 1:2] * judged.lengths + weights[:, 2:] * difficulties
        apart = weights[:, 1:] - weights[:, 1:].mean(0)
        return judged.loss(scores) + float((FLOOR * weights**2).sum()) / 2 + pooling * float((apart**2).sum()) / 2

    best = optimize.minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-8})
    found = fit_weights(judged, difficulties, pooling)
    assert found.ravel() == pytest.approx(best.x, abs=1e-5)
    # Every instruction once: the resampled fit is the fit.
    again = resample_weights(judged, difficulties, found, pooling, np.ones((1, 25)))
    assert again[:, 0] == pytest.approx(found, abs=1e-6)


def test_resampled_means_move_with_the_models() -> None:
    """Every draw is a joint fit on the drawn instructions."""
    judged = _judged()
    difficulties = fit_difficulties(judged, 0.2)[:-1]
    weights = fit_weights(judged, difficulties, 3.0)
    drawn = stream(0, "resample").integers(25, size=25)
    rows = Judged(judged.wins[:, drawn], judged.lengths[:, drawn], judged.known[:, drawn])
    joint = fit_weights(rows, difficulties[:, drawn], 3.0)
    counts = np.bincount(drawn, minlength=25).astype(np.float64)[None]
    found = resample_weights(judged, difficulties, weights, 3.0, counts)[:, 0]
    assert np.abs(found - joint).max() < 0.05 * np.abs(weights - joint).max()


def test_one_model_refitted_toward_the_others_is_the_joint_fit() -> None:
    judged = _judged()
    difficulties = fit_difficulties(judged, 0.2)[:-1]
    joint = fit_weights(judged, difficulties, 6.0)
    others = joint[1:].mean(0)
    alone = refit(judged.rows([0]), difficulties[0], others, others, 6.0 * (2 / 3), np.ones((1, 25)), 1e-9)[0]
    assert alone == pytest.approx(joint[0], abs=1e-6)
    rate = controlled_rate(alone[None], difficulties[0], np.ones((1, 25)))[0]
    assert rate == pytest.approx(special.expit(alone[0] + alone[2] * difficulties[0]).mean())


# Models outside the fit, and between models.


def test_a_model_outside_the_fit_is_scored_as_if_it_were_in_it() -> None:
    world = World(12, 400)
    inside = _rates(world.fit(world.verdicts))[0]
    fit = LengthControlled.fit(world.verdicts[1:], world.lengths[1:], world.baseline, resamples=100)
    found = fit.score(world.verdicts[0], world.lengths[0], world.baseline)
    assert found.controlled.estimate == pytest.approx(inside, abs=0.005)
    assert found.controlled.low < world.truth[0] < found.controlled.high
    with pytest.raises(DataError, match="3 preferences for a fit on 400 instructions"):
        fit.score([1, 0, 1], [1, 2, 3], [2, 2, 2])


def test_a_model_outside_a_fit_of_one_stands_alone() -> None:
    world = World(2, 200)
    fit = LengthControlled.fit(world.verdicts[:1], world.lengths[:1], world.baseline, resamples=100)
    found = fit.score(world.verdicts[1], world.lengths[1], world.baseline)
    alone = LengthControlled.fit(world.verdicts[1:], world.lengths[1:], world.baseline, resamples=100).models[0]
    assert found.controlled.estimate == pytest.approx(alone.controlled.estimate, abs=1e-7)
    assert (found.controlled.low, found.controlled.high) == pytest.approx((alone.controlled.low, alone.controlled.high))


def test_differences_are_paired_by_instruction() -> None:
    world = World(8, 300)
    twin = world.verdicts.copy()
    twin[1], world.lengths[1] = twin[0], world.lengths[0]
    twin[1, :20] = 1 - twin[1, :20]
    fit = world.fit(twin)
    found = fit.difference(1, 0)
    widths = [fit.models[index].controlled.high - fit.models[index].controlled.low for index in (0, 1)]
    assert found.estimate == pytest.approx(_rates(fit)[1] - _rates(fit)[0])
    assert found.high - found.low < 0.6 * math.hypot(*widths)
    assert fit.difference(0, 1).low == pytest.approx(-found.high)


# What cannot be fitted.


def test_a_model_that_always_wins_has_finite_numbers() -> None:
    world = World(3, 60)
    wins = world.verdicts.copy()
    wins[0] = 1.0
    found = world.fit(wins).models[0]
    assert 0.99 < found.controlled.low <= found.controlled.estimate <= found.controlled.high <= 1.0
    assert found.plain == share_interval([1.0] * 60)


def test_wins_exactly_where_it_is_longer_are_finite_too() -> None:
    lengths = [10.0 * i for i in range(60)]
    found = LengthControlled.fit([[float(i > 30) for i in range(60)]], [lengths], [300.0] * 60, resamples=100).models[0]
    assert math.isfinite(found.length_weight)
    assert 0.2 < found.controlled.estimate < 0.8


@pytest.mark.parametrize(
    ("preferences", "lengths", "baseline", "message"),
    [
        ([[1, 0]], [[1, 2, 3]], [1, 1], r"preferences of shape \(1, 2\), model_lengths \(1, 3\)"),
        ([[1, 0]], [[1, 2]], [1, 1, 1], r"baseline_lengths \(3,\)"),
        ([1, 0], [1, 2], [1, 1], r"preferences has shape \(2,\): it is \(models, instructions\)"),
        ([[1, 0], [1]], [[1, 2]], [1, 1], "preferences is no table of numbers"),
        ([[1, "a"]], [[1, 2]], [1, 1], "preferences is no table of numbers"),
        ([[1, 1.5]], [[1, 2]], [1, 1], "preference 1 of model 0 is 1.5"),
        ([[1, 0]], [[1, None]], [1, 1], "instruction 1 of model 0 has a verdict and lengths nan and 1.0"),
        ([[1, 0]], [[1, -4]], [1, 1], "has a verdict and lengths -4.0"),
        ([[1, None]], [[1, 2]], [1, 1], "model 0 has 1 verdicts"),
        ([[1, 0, 1]], [[5, 6, 7]], [3, 4, 5], "every answer of model 0 differs from the baseline's by 2 in length"),
    ],
)
def test_what_is_no_comparison(preferences: list, lengths: list, baseline: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        LengthControlled.fit(preferences, lengths, baseline)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": 0.0}, "ridge=0.0"),
        ({"pooling": -1.0}, "pooling=-1.0"),
        ({"confidence": 95.0}, "strictly between 0 and 1"),
        ({"resamples": 10}, "resamples=10"),
    ],
)
def test_unusable_strengths(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LengthControlled.fit([[1, 0, 1]], [[5, 6, 9]], [3, 4, 5], **options)
