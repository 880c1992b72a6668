"""Log-probs of completions: which tokens count, and what padding changes (nothing)."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import LlamaForCausalLM

from setsail.policies import collate, forward_arguments, positions, score, token_logps

PROMPTS = [(5, 9, 3), (7, 7, 20, 4, 11, 90, 31), (50,), (8, 6)]
ANSWERS = [(12, 1), (40, 41, 42, 43, 44), (1,), (60, 61, 62)]


class TwoTokens(nn.Module):
    """A model whose next token depends on the current one alone: P(1 | 0) = 0.9, P(1 | 1) = 0.2."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[0.1, 0.9], [0.8, 0.2]]).log())

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, use_cache: bool = False) -> Any:
        return SimpleNamespace(logits=self.table[input_ids])


def test_shift_by_one() -> None:
    """Acceptance test 17: each token is scored by the token before it, the first one by the prompt's last."""
    [logps] = token_logps(TwoTokens(), collate([(1, 0)], [(1, 1, 0)], pad_id=0))
    assert logps.exp().tolist() == pytest.approx([0.9, 0.2, 0.8])
    first, second = score(TwoTokens(), [(0,), (1,)], [(0,), (0, 1)], pad_id=0, device="cpu")
    assert first.exp().tolist() == pytest.approx([0.1])
    assert second.exp().tolist() == pytest.approx([0.8, 0.9])


def test_the_end_counts_if_it_is_there() -> None:
    """Acceptance test 17: an EOS among the completion's ids is scored like any token, a missing one is not invented."""
    eos = 0
    without, with_end = score(TwoTokens(), [(1,), (1,)], [(1, 1), (1, 1, eos)], pad_id=eos, device="cpu")
    assert float(without.sum()) == pytest.approx(2 * math.log(0.2))
    assert float(with_end.sum()) == pytest.approx(2 * math.log(0.2) + math.log(0.8))


def _plain(model: LlamaForCausalLM, prompt: tuple[int, ...], answer: tuple[int, ...], right: int = 0) -> torch.Tensor:
    """The plain way: one sequence, padded on the right by as much as asked, all logits."""
    ids = torch.tensor([[*prompt, *answer, *([0] * right)]])
    mask = (torch.arange(ids.shape[1]) < len(prompt) + len(answer)).long().unsqueeze(0)
    table = model(input_ids=ids, attention_mask=mask).logits[0].log_softmax(-1)
    start = len(prompt) - 1
    return torch.stack([table[start + i, token] for i, token in enumerate(answer)])


@torch.no_grad()
def test_padding_changes_nothing(model: LlamaForCausalLM) -> None:
    """Acceptance test 17: side and amount of padding and the rows around do not matter, 1e-5."""
    plain = [_plain(model, *each) for each in zip(PROMPTS, ANSWERS, strict=True)]
    padded = [_plain(model, *each, right=6) for each in zip(PROMPTS, ANSWERS, strict=True)]
    together = token_logps(model, collate(PROMPTS, ANSWERS, pad_id=0))
    wide = token_logps(model, collate([*PROMPTS, tuple(range(5, 60))], [*ANSWERS, tuple(range(5, 40))], pad_id=1))
    for row, (one, two, answer) in enumerate(zip(plain, padded, ANSWERS, strict=True)):
        assert torch.allclose(one, two, atol=1e-5)
        assert torch.allclose(one, together[row, : len(answer)], atol=1e-5)
        assert torch.allclose(one, wide[row, : len(answer)], atol=1e-5)


def test_only_the_completion_counts(model: LlamaForCausalLM) -> None:
    logps = token_logps(model, collate(PROMPTS, ANSWERS, pad_id=0))
    assert logps.shape == (4, 5)
    for row, answer in enumerate(ANSWERS):
        assert torch.equal(logps[row, len(answer) :], torch.zeros(5 - len(answer)))
        assert bool((logps[row, : len(answer)] < 0).all())


def test_gradient_is_that_of_the_plain_sum(model: LlamaForCausalLM) -> None:
    logps = token_logps(model, collate(PROMPTS, ANSWERS, pad_id=0)).sum()
    parameters = list(model.parameters())
    ours = torch.autograd.grad(logps, parameters)
    plain = sum(_plain(model, *each).sum() for each in zip(PROMPTS, ANSWERS, strict=True))
    theirs = torch.autograd.grad(plain, parameters)  # type: ignore[arg-type]
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 16])
def test_scores_come_back_in_order(model: LlamaForCausalLM, batch_size: int) -> None:
    scored = score(model, PROMPTS, ANSWERS, pad_id=0, device="cpu", batch_size=batch_size)
    for logps, prompt, answer in zip(scored, PROMPTS, ANSWERS, strict=True):
        assert logps.shape == (len(answer),)
        assert torch.allclose(logps, _plain(model, prompt, answer).detach(), atol=1e-5)
        assert not logps.requires_grad


@pytest.mark.parametrize("training", [True, False])
def test_scoring_restores_the_mode(model: LlamaForCausalLM, training: bool) -> None:
    model.train(training)
    try:
        score(model, PROMPTS, ANSWERS, pad_id=0, device="cpu")
        assert model.training is training
    finally:
        model.eval()


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        collate([(1,), ()], [(2,), (3,)], pad_id=0)


def test_an_empty_completion_has_log_prob_zero(model: LlamaForCausalLM) -> None:
    """Acceptance test 24: nothing was said, so nothing is summed, and the gradient is finite."""
    logps = token_logps(model, collate([(5, 6), (5, 6)], [(), (7, 1)], pad_id=0))
    assert float(logps[0].sum().detach()) == 0.0
    gradients = torch.autograd.grad(logps.sum(), list(model.parameters()))
    assert all(bool(torch.isfinite(each).all()) for each in gradients)


def test_positions_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert positions(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 3]]


def test_logits_are_made_where_they_are_read(model: LlamaForCausalLM) -> None:
    """The head runs on completion positions and the one before them, not on the prompt."""
    seen: list[int] = []
    handle = model.lm_head.register_forward_hook(lambda module, args, out: seen.append(out.shape[1]))
    try:
        token_logps(model, collate([tuple(range(5, 100))], [(7, 8, 1)], pad_id=0))
    finally:
        handle.remove()
    assert seen == [4]


def test_forward_arguments_through_wrappers(model: LlamaForCausalLM) -> None:
    wrapped = SimpleNamespace(module=model)
    assert {"input_ids", "position_ids", "logits_to_keep"} <= forward_arguments(wrapped)  # type: ignore[arg-type]
    assert forward_arguments(model) == forward_arguments(wrapped)  # type: ignore[arg-type]


def test_low_precision_logits_are_summed_in_float32(model: LlamaForCausalLM) -> None:
    """The log-softmax of bfloat16 logits is taken in float32."""
    from copy import deepcopy

    low = deepcopy(model).to(torch.bfloat16)
    batch = collate(PROMPTS, ANSWERS, pad_id=0)
    logps = token_logps(low, batch)
    assert logps.dtype == torch.float32
    assert float((logps - token_logps(model, batch)).abs().max().detach()) < 0.1
