"""A prompt computed once gives the log-probs and the gradients of the plain computation, whatever the architecture."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from setsail.policies import (
    can_share,
    collate,
    collate_shared,
    completion_logps,
    score,
    shared_token_logps,
    token_logps,
)

SMALL: dict[str, Any] = {
    "vocab_size": 50, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "bos_token_id": None, "eos_token_id": 1,
    "pad_token_id": 0,
}  # fmt: skip
GPT2 = {
    "vocab_size": 50,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 1,
    "eos_token_id": 1,
}
DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SMALL)),
    "llama tied": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, tie_word_embeddings=True)),
    "llama eager": lambda: LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager")),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SMALL)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    # Windows shorter than the prompts: what the second pass may see of the first is part of the test.
    "gemma2 window 8": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, head_dim=8, sliding_window=8)),
    "mistral window 8": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=8)),
    "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**GPT2, **DROPOUT)),
}
LENGTHS = (4, 9, 14, 4)
PROMPTS = [tuple((7 * i + 3 * k) % 40 + 3 for k in range(length)) for i, length in enumerate(LENGTHS)]
ANSWERS = [
    tuple((5 * i + 11 * k) % 45 + 3 for k in range(length)) for i, length in enumerate((5, 12, 1, 7, 9, 3, 10, 6))
]


def random_model(name: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    return model.train()


def slopes(model: nn.Module, logps: Tensor) -> list[Tensor]:
    """Gradients of a weighted sum of completion log-probs."""
    model.zero_grad()
    (logps.sum(-1) * torch.linspace(-1, 1, len(logps))).sum().backward()
    return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_values_and_gradients_are_those_of_the_plain_computation(name: str) -> None:
    model = random_model(name)
    prompts = PROMPTS * 2
    plain = token_logps(model, collate(prompts, ANSWERS, pad_id=0))
    wanted = slopes(model, plain)
    shared = shared_token_logps(model, collate_shared(prompts, ANSWERS, pad_id=0))
    found = slopes(model, shared)
    torch.testing.assert_close(shared, plain, atol=1e-5, rtol=0)
    assert torch.equal(shared == 0, plain == 0), "padding is exactly 0"
    for one, other in zip(found, wanted, strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * max(1.0, float(other.abs().max()))


def test_the_prompt_is_fed_once() -> None:
    """Tokens that pass through the model: each distinct prompt once, and no completion's last token."""
    model = random_model("llama")
    fed: list[int] = []
    model.model.register_forward_pre_hook(  # type: ignore[union-attr,operator]
        lambda module, args, kwargs: fed.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    answers = [ANSWERS[3]] * 4
    completion_logps(model, [PROMPTS[1]] * 4, answers, pad_id=0)
    assert fed == [len(PROMPTS[1]), 4 * (len(ANSWERS[3]) - 1)]
    fed.clear()
    completion_logps(model, [PROMPTS[1]] * 4, answers, pad_id=0, share=False)
    assert fed == [4 * (len(PROMPTS[1]) + len(ANSWERS[3]))]


def test_single_token_answers_need_no_second_pass() -> None:
    model = random_model("qwen3")
    prompts, answers = [PROMPTS[0]] * 2, [(5,), (9,)]
    torch.testing.assert_close(
        completion_logps(model, prompts, answers, pad_id=0),
        completion_logps(model, prompts, answers, pad_id=0, share=False),
        atol=1e-5,
        rtol=0,
    )


def test_scores_do_not_depend_on_sharing_or_batches() -> None:
    model = random_model("llama")
    prompts = PROMPTS * 2
    alone = score(model, prompts, ANSWERS, pad_id=0, device="cpu", batch_size=1, share=False)
    for batch_size in (2, 3, 8):
        for one, other in zip(
            score(model, prompts, ANSWERS, pad_id=0, device="cpu", batch_size=batch_size), alone, strict=True
        ):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_activation_checkpointing_computes_each_row_by_itself() -> None:
    model: Any = random_model("llama")
    assert can_share(model)
    model.gradient_checkpointing_enable()
    assert not can_share(model)
    assert can_share(model.eval())


def test_an_empty_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="a prompt has no tokens"):
        collate_shared([(1,), ()], [(2,), (3,)], pad_id=0)
