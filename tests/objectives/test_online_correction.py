"""The leave-one-out baseline against brute force, and what the online correction does to a loss."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from setsail.core import stream
from setsail.objectives import LogProbs, dpo, leave_one_out, online_correction


def _losses(count: int = 9) -> Tensor:
    return torch.from_numpy(stream(0, "losses").random(count))


def _brute_force(loss: Tensor, prompts: list[int], alone: float) -> list[float]:
    baselines = []
    for prompt in prompts:
        others = [value for value, other in zip(loss.tolist(), prompts, strict=True) if other != prompt]
        baselines.append(sum(others) / len(others) if others else alone)
    return baselines


@pytest.mark.parametrize(
    "prompts",
    [[0, 1, 2, 3, 4, 5, 6, 7, 8], [0, 0, 1, 1, 1, 2, 3, 3, 0], [70, 5, 70, -2, 5, 5, 70, 9, 9], [4] * 9],
    ids=["distinct", "groups", "any ids", "one prompt"],
)
def test_leave_one_out_is_the_mean_over_all_other_prompts(prompts: list[int]) -> None:
    loss = _losses()
    found = leave_one_out(loss, torch.tensor(prompts), alone=0.7)
    assert found.tolist() == pytest.approx(_brute_force(loss, prompts, 0.7), abs=1e-12)


def test_without_prompt_ids_every_pair_is_its_own_prompt() -> None:
    loss = _losses()
    assert torch.equal(leave_one_out(loss), leave_one_out(loss, torch.arange(9)))


def test_alone_is_what_a_single_prompt_gets() -> None:
    assert leave_one_out(torch.tensor([3.0]), alone=0.25).tolist() == [0.25]
    assert leave_one_out(torch.tensor([3.0])).tolist() == [0.0]


def test_a_baseline_carries_no_gradient() -> None:
    assert not leave_one_out(_losses().requires_grad_()).requires_grad


def test_an_empty_batch_has_an_empty_baseline() -> None:
    assert leave_one_out(torch.zeros(0)).shape == (0,)


def test_prompt_ids_must_fit_the_losses() -> None:
    with pytest.raises(ValueError, match=r"one prompt id a pair is needed, shape \(9,\), got \(3,\)"):
        leave_one_out(_losses(), torch.arange(3))


def test_the_gradient_gains_the_centered_loss_on_both_log_probs() -> None:
    logps = LogProbs(*(part.detach().requires_grad_(index < 2) for index, part in enumerate(_parts())))
    loss = dpo(logps)
    wanted = torch.autograd.grad(loss.sum(), (logps.policy_first, logps.policy_second), retain_graph=True)
    corrected = online_correction(loss, logps, 0.3, leave_one_out(loss))
    found = torch.autograd.grad(corrected.sum(), (logps.policy_first, logps.policy_second))
    extra = 0.3 * (loss - leave_one_out(loss)).detach()
    for slope, plain in zip(found, wanted, strict=True):
        torch.testing.assert_close(slope, plain + extra, atol=1e-12, rtol=0)


def _parts() -> list[Tensor]:
    return list(torch.from_numpy(stream(0, "correction").normal(size=(4, 5))))


def test_a_coefficient_of_0_returns_the_very_loss() -> None:
    logps = LogProbs(*_parts())
    loss = dpo(logps)
    assert online_correction(loss, logps, 0.0, 1.0) is loss


def test_masked_pairs_keep_their_loss_and_lose_the_correction() -> None:
    logps = LogProbs(*_parts())
    loss, mask = dpo(logps), torch.tensor([True, False, True, False, True])
    corrected = online_correction(loss, logps, 0.5, 0.1, mask)
    full = online_correction(loss, logps, 0.5, 0.1)
    assert torch.equal(corrected, torch.where(mask, full, loss))


def test_a_worse_predicted_pair_pushes_its_completions_down() -> None:
    """In the loss direction: a positive slope on log pi is a step that lowers it."""
    zero = torch.zeros(2, dtype=torch.float64)
    policy = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    logps = LogProbs(policy, zero, zero, zero)
    corrected = online_correction(torch.tensor([2.0, 0.5], dtype=torch.float64), logps, 1.0, 1.0)
    (slope,) = torch.autograd.grad(corrected.sum(), policy)
    assert slope.tolist() == [1.0, -0.5]
