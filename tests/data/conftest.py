"""Tiny tokenizers of the three shapes that matter, and writers of files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "What is one and one? It is two.",
    "Please name a river in France. The Loire is a river.",
]
USER_END = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


def make_tokenizer(special: Sequence[str], **kwargs: Any) -> PreTrainedTokenizerFast:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(SENTENCES, trainer)
    if "bos_token" in kwargs:
        bos = kwargs["bos_token"]
        backend.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, backend.token_to_id(bos))]
        )
    template = kwargs.pop("chat_template", None)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **kwargs)
    tokenizer.chat_template = template
    return tokenizer


@pytest.fixture(scope="session")
def plain() -> PreTrainedTokenizerFast:
    """No BOS, no template."""
    return make_tokenizer(["<eos>"], eos_token="<eos>")


@pytest.fixture(scope="session")
def user_end() -> PreTrainedTokenizerFast:
    """``<|user|>...<|end|>``; the tokenizer's own EOS is another token."""
    special = ["<eos>", "<|user|>", "<|assistant|>", "<|system|>", "<|end|>"]
    return make_tokenizer(special, eos_token="<eos>", chat_template=USER_END)


@pytest.fixture(scope="session")
def chatml() -> PreTrainedTokenizerFast:
    """ChatML: a newline follows the end of a turn."""
    return make_tokenizer(["<|im_start|>", "<|im_end|>"], eos_token="<|im_end|>", chat_template=CHATML)


@pytest.fixture(scope="session")
def llama() -> PreTrainedTokenizerFast:
    """A BOS before every text."""
    return make_tokenizer(["<s>", "</s>"], bos_token="<s>", eos_token="</s>", chat_template=LLAMA)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes rows, text or bytes to a file of the given name; .gz is zipped."""

    def writer(name: str, content: Any) -> Path:
        if isinstance(content, list):
            content = "\n".join(json.dumps(row, ensure_ascii=False) for row in content) + "\n"
        data = content if isinstance(content, bytes) else content.encode()
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
        return path

    return writer


@pytest.fixture
def pairs() -> list[dict[str, Any]]:
    """Ten sound rows with a further column."""
    return [{"prompt": f"{i} + 1?", "chosen": f"{i + 1}.", "rejected": "None.", "level": i} for i in range(10)]
