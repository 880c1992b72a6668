"""The tiny models of the training tests, and frozen policies beside them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / room / "small") for room in ("training", "policies")]

import tiny
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return tiny.favor_eos(tiny.perturbed(tiny.llama(len(tokenizer)), scale=0.02)).eval()
