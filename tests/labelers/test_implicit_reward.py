"""The implicit reward as a labeler, and the price of length that calibrates it."""

from __future__ import annotations

import math

import pytest
import torch

from setsail.core import Candidates, Completion, LabelerError, Prompt
from setsail.labelers import ImplicitReward
from setsail.labelers.implicit import length_penalty


def _group(*lengths: int) -> Candidates:
    return Candidates(
        prompt=Prompt(row_id=0, text="q", token_ids=(1,)),
        completions=tuple(Completion(token_ids=(2,) * length, text="x" * length) for length in lengths),
    )


def _scores(prompts: int = 400, count: int = 8) -> tuple[list[list[float]], list[list[int]]]:
    """Quality plus 0.01 a token: what length alone has earned."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(50, 600, (prompts, count), generator=generator)
    quality = torch.randn(prompts, count, generator=generator, dtype=torch.float64)
    return (quality + 0.01 * lengths).tolist(), lengths.tolist()


def test_the_price_of_length_is_found() -> None:
    """The slope that was put in; best and worst are equally long then."""
    rewards, lengths = _scores()
    assert length_penalty(rewards, lengths) == pytest.approx(0.010, abs=0.002)


def test_a_constant_of_a_prompt_is_no_length() -> None:
    rewards, lengths = _scores()
    shifted = [[value + 7.0 * number for value in row] for number, row in enumerate(rewards)]
    assert length_penalty(shifted, lengths) == length_penalty(rewards, lengths)


def test_rewards_that_do_not_grow_with_length_pay_nothing() -> None:
    assert length_penalty([[1.0, 0.0], [0.0, 1.0]], [[5, 9], [5, 9]]) == 0.0
    assert length_penalty([], []) == 0.0
    assert length_penalty([[1.0]], [[5]]) == 0.0


def test_calibrated_rewards_are_net_of_the_price() -> None:
    """Price 0.01 a token over the groups of the call: 0.5 - 0.5, 0 - 0.02, 0.25 - 0.2, up to the grid of 0.001."""
    labeler = ImplicitReward(lambda groups: [[0.5, 0.0, 0.25]], length_calibrated=True)
    [judgement] = labeler.label([_group(50, 2, 20)])
    alpha = length_penalty([[0.5, 0.0, 0.25]], [[50, 2, 20]])
    assert alpha > 0
    assert judgement.scores == pytest.approx([0.5 - 50 * alpha, -2 * alpha, 0.25 - 20 * alpha], abs=1e-12)
    [plain] = ImplicitReward(lambda groups: [[0.5, 0.0, 0.25]]).label([_group(50, 2, 20)])
    assert plain.preference[0][2] == pytest.approx(1 / (1 + math.exp(-0.25)), abs=1e-12)


def test_rewards_of_another_shape_are_an_error() -> None:
    with pytest.raises(LabelerError, match=r"gave \[2\] scores for groups of \[3\] candidates"):
        ImplicitReward(lambda groups: [[0.5, 0.0]]).label([_group(1, 2, 3)])
