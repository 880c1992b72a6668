"""Whole next-token distributions: the scorer's numbers at the completion's tokens, with gradient where there is one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaForCausalLM

from setsail.policies import collate, completion_distributions, token_logps

PROMPTS = [(5, 9, 3), (7, 7, 20, 4, 11, 90, 31), (50,), (8, 6)]
ANSWERS = [(12, 1), (40, 41, 42, 43, 44), (1,), ()]


def _own(rows: Tensor, ids: tuple[int, ...]) -> Tensor:
    return rows.gather(-1, torch.tensor(ids, dtype=torch.long).unsqueeze(-1)).squeeze(-1)


@torch.no_grad()
def test_at_the_completions_tokens_they_are_the_scorers_log_probs(model: LlamaForCausalLM) -> None:
    found = completion_distributions(model, PROMPTS, ANSWERS, pad_id=0)
    scored = token_logps(model, collate(PROMPTS, ANSWERS, pad_id=0))
    vocabulary = model.config.vocab_size
    for rows, ids, logps in zip(found, ANSWERS, scored, strict=True):
        assert rows.shape == (len(ids), vocabulary)
        assert rows.dtype == torch.float32
        assert torch.allclose(rows.exp().sum(-1), torch.ones(len(ids)), atol=1e-5)
        assert torch.allclose(_own(rows, ids), logps[: len(ids)], atol=1e-6)


@torch.no_grad()
def test_they_are_the_models_own_next_token_log_probs(model: LlamaForCausalLM) -> None:
    """Position by position, from the bare sequence: the first is predicted by the prompt's last token."""
    found = completion_distributions(model, PROMPTS, ANSWERS, pad_id=0)
    for prompt, ids, rows in zip(PROMPTS, ANSWERS, found, strict=True):
        table = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
        assert torch.allclose(rows, table[len(prompt) - 1 : len(prompt) - 1 + len(ids)], atol=1e-5)


@torch.no_grad()
def test_the_batch_changes_nothing(model: LlamaForCausalLM) -> None:
    """Neighbors, their lengths and the pad token."""
    together = completion_distributions(model, PROMPTS, ANSWERS, pad_id=0)
    wide = completion_distributions(model, [*PROMPTS, tuple(range(5, 60))], [*ANSWERS, tuple(range(5, 40))], pad_id=1)
    for row, (prompt, ids) in enumerate(zip(PROMPTS, ANSWERS, strict=True)):
        [alone] = completion_distributions(model, [prompt], [ids], pad_id=0)
        assert torch.allclose(alone, together[row], atol=1e-5)
        assert torch.allclose(alone, wide[row], atol=1e-5)


def test_the_gradient_is_that_of_the_log_probs(model: LlamaForCausalLM) -> None:
    parameters = list(model.parameters())
    found = completion_distributions(model, PROMPTS, ANSWERS, pad_id=0)
    own: Any = sum(_own(rows, ids).sum() for rows, ids in zip(found, ANSWERS, strict=True))
    ours = torch.autograd.grad(own, parameters)
    theirs = torch.autograd.grad(token_logps(model, collate(PROMPTS, ANSWERS, pad_id=0)).sum(), parameters)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=2e-5)
    with torch.no_grad():
        assert not any(rows.requires_grad for rows in completion_distributions(model, PROMPTS, ANSWERS, pad_id=0))


def test_a_policy_has_no_divergence_from_itself(model: LlamaForCausalLM) -> None:
    """KL(p0 || pi) over the vocabulary: zero with zero gradient at pi = p0, the sum of its definition elsewhere."""
    import tiny

    other = tiny.perturbed(tiny.llama(model.config.vocab_size), 0.05)
    options = {"prompts": PROMPTS, "completions": ANSWERS, "pad_id": 0}
    with torch.no_grad():
        bases = completion_distributions(model, **options)
    for policy, same in ((model, True), (other, False)):
        rows = completion_distributions(policy, **options)
        divergence: Any = sum((b.exp() * (b - r)).sum() for b, r in zip(bases, rows, strict=True))
        slopes = torch.autograd.grad(divergence, list(policy.parameters()))
        largest = max(float(slope.abs().max()) for slope in slopes)
        assert (abs(float(divergence)) < 1e-5) is same
        assert (largest < 1e-4) is same
        assert float(divergence) > -1e-5


def test_low_precision_logits_are_normalized_in_float32(model: LlamaForCausalLM) -> None:
    from copy import deepcopy

    found = completion_distributions(deepcopy(model).to(torch.bfloat16), PROMPTS[:1], ANSWERS[:1], pad_id=0)
    assert found[0].dtype == torch.float32
    assert torch.allclose(found[0].exp().sum(-1), torch.ones(2), atol=1e-5)


def test_an_empty_prompt_is_refused(model: LlamaForCausalLM) -> None:
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        completion_distributions(model, [()], [(1,)], pad_id=0)
