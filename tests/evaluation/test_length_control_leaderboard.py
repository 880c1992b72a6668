"""Length control against the published AlpacaEval 2 leaderboard: 30 models, 805 instructions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from setsail.evaluation import LengthControlled

Array = NDArray[np.float64]


class Leaderboard:
    """The annotations, and what was published about each model (in points)."""

    def __init__(self, path: Path) -> None:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.names = [row["model"] for row in rows]
        self.wins, self.lengths, self.baseline = (
            np.array([row[key] for row in rows], dtype=np.float64)
            for key in ("preference", "model_chars", "baseline_chars")
        )
        self.plain = np.array([row["published"]["win_rate"] for row in rows])
        self.controlled = np.array([row["published"]["length_controlled_winrate"] for row in rows])
        self.complete = ~np.isnan(self.wins).any(1)

    def fit(self, index: list[int] | slice = slice(None)) -> LengthControlled:
        return LengthControlled.fit(self.wins[index], self.lengths[index], self.baseline[index], resamples=100)


@pytest.fixture(scope="module")
def board(shared_data: Path) -> Leaderboard:
    path = shared_data / "alpaca-eval" / "annotations.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"no {path.name} beside the repository: the leaderboard's annotations are not at hand")
    return Leaderboard(path)


@pytest.fixture(scope="module")
def fit(board: Leaderboard) -> LengthControlled:
    return board.fit()


def _points(fit: LengthControlled) -> Array:
    return 100 * np.array([model.controlled.estimate for model in fit.models])


def _error(found: Array, published: Array) -> float:
    return float(np.abs(found - published).mean())


def _spearman(found: Array, published: Array) -> float:
    return float(stats.spearmanr(found, published).statistic)


def test_plain_win_rates_are_the_published_ones(board: Leaderboard, fit: LengthControlled) -> None:
    plain = np.array([model.plain.estimate for model in fit.models])
    assert np.abs(plain - board.plain / 100).max() < 1e-6


def test_controlled_win_rates_agree_with_the_published_ones(board: Leaderboard, fit: LengthControlled) -> None:
    """Measured: 0.73 points over all, 0.39 over the 25 models with every verdict, whose rank correlation is 0.995."""
    found = _points(fit)
    assert _error(found, board.controlled) < 1.0
    assert _error(100 * np.nanmean(board.wins, 1), board.controlled) > 4.0, "what there is to correct"
    assert board.complete.sum() == 25
    assert _error(found[board.complete], board.controlled[board.complete]) < 0.5
    assert np.abs(found - board.controlled)[board.complete].max() < 2.0
    assert _spearman(found[board.complete], board.controlled[board.complete]) > 0.985
    assert _spearman(found, board.controlled) > 0.96


def test_the_five_models_with_missing_verdicts_were_published_with_difficulties_of_other_instructions(
    board: Leaderboard,
) -> None:
    """Their published values come out if verdicts meet the difficulties by position among the rows that are there."""
    complete = np.flatnonzero(board.complete).tolist()
    fit = board.fit(complete)
    aligned, by_position = (np.full(30, np.nan) for _ in range(2))
    aligned[complete] = by_position[complete] = _points(fit)
    for model in np.flatnonzero(~board.complete):
        rows = [table[model] for table in (board.wins, board.lengths, board.baseline)]
        there = ~np.isnan(rows[0])
        moved_up = [np.concatenate([row[there], np.full((~there).sum(), np.nan)]) for row in rows]
        aligned[model] = 100 * fit.score(*rows).controlled.estimate
        by_position[model] = 100 * fit.score(*moved_up).controlled.estimate
    few = ~board.complete
    assert _error(aligned[few], board.controlled[few]) > 2.0
    assert _error(by_position[few], board.controlled[few]) < 1.0
    assert _spearman(aligned, board.controlled) < 0.98
    assert _spearman(by_position, board.controlled) > 0.985
    assert _error(by_position, board.controlled) < 0.7


@pytest.mark.parametrize("name", ["claude-2.1", "gpt4_0613_concise", "FuseChat-Gemma-2-9B-Instruct", "alpaca-7b"])
def test_a_model_left_out_of_the_fit_keeps_its_number(board: Leaderboard, fit: LengthControlled, name: str) -> None:
    """Difficulties and mean weights of the other 29: within half a point of the fit with it."""
    model = board.names.index(name)
    rest = board.fit([index for index in range(30) if index != model])
    found = 100 * rest.score(board.wins[model], board.lengths[model], board.baseline[model]).controlled.estimate
    assert found == pytest.approx(_points(fit)[model], abs=0.5)
    assert found == pytest.approx(board.controlled[model], abs=2.0)
