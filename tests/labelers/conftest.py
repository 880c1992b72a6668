"""Groups of candidates, and a tiny random reward model with a byte-level tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from setsail.core import Candidates, Completion, Prompt

torch.set_num_threads(1)

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}: {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant: {% endif %}"
)


def group_of(*texts: str, prompt: str = "q", messages: Any = None, row_id: int = 0, **columns: Any) -> Candidates:
    """A group with one completion a text."""
    return Candidates(
        prompt=Prompt(row_id=row_id, text=prompt, token_ids=(1, 2), messages=messages, columns=columns),
        completions=tuple(Completion(token_ids=tuple(text.encode()), text=text) for text in texts),
    )


@pytest.fixture
def group() -> Callable[..., Candidates]:
    """Makes a group."""
    return group_of


@pytest.fixture(scope="session")
def make_tokenizer() -> Callable[..., Any]:
    """Makes a tokenizer whose tokens are bytes, with ``<s>``, ``</s>`` and, if asked for, ``<pad>``."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    def make(pad: bool = True, chat: bool = False, **options: Any) -> Any:
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        names = ["<s>", "</s>", "<pad>", *alphabet]
        inner = Tokenizer(models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[]))
        inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        inner.decoder = decoders.ByteLevel()
        if pad:
            options["pad_token"] = "<pad>"
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", **options)
        if chat:
            tokenizer.chat_template = CHAT
        return tokenizer

    return make


@pytest.fixture(scope="session")
def make_model() -> Callable[..., Any]:
    """Makes a random reward model of two layers."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    def make(num_labels: int = 1, **options: Any) -> Any:
        config = LlamaConfig(
            vocab_size=259,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            num_labels=num_labels,
            bos_token_id=0,
            eos_token_id=1,
            initializer_range=0.5,
            **options,
        )
        state = torch.random.get_rng_state()
        torch.manual_seed(3)
        model = LlamaForSequenceClassification(config)
        torch.random.set_rng_state(state)
        return model

    return make
