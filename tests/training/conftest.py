"""A tiny random Llama on disk with its tokenizer, a preference list, and a way to build a trainer."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent / "small"))

import tiny
from transformers import PreTrainedTokenizerFast, PrinterCallback

from setsail import SailTrainer


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer()


@pytest.fixture(scope="session")
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return tiny.tokenizer(chat=True)


@pytest.fixture(scope="session")
def model_path(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    path = tmp_path_factory.mktemp("tiny") / "model"
    tiny.llama(len(tokenizer)).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture(scope="session")
def moved_path(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> str:
    """The same model after some training, so to say: log-ratios to ``model_path`` are not zero."""
    path = tmp_path_factory.mktemp("tiny") / "moved"
    tiny.favor_eos(tiny.perturbed(tiny.llama(len(tokenizer)))).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return tiny.preferences()


@pytest.fixture
def build(model_path: str, rows: list[dict[str, Any]], tmp_path: Path) -> tiny.Build:
    """``build(method=..., labeler=..., model=..., **config)``: a trainer; a reward is given where one is needed."""

    def make(*, model: Any = None, data: Any = None, out: str = "run", labeler: Any = None, **options: Any) -> Any:
        names = ("ref_model", "eval_dataset", "processing_class", "peft_config", "callbacks", "optimizers")
        parts = {name: options.pop(name) for name in names if name in options}
        config = tiny.config(tmp_path / out, **options)
        method = config.resolved_method()
        if labeler is None and method.needs_labeler and method.judge is None:
            labeler = tiny.reward
        trainer = SailTrainer(
            model_path if model is None else model,
            args=config,
            train_dataset=rows if data is None else data,
            labeler=labeler,
            **parts,
        )
        trainer.remove_callback(PrinterCallback)
        return trainer

    return make


@pytest.fixture(scope="session")
def child_environment() -> dict[str, str]:
    """Environment of a subprocess that runs ``child.py``: one thread, no network, nothing of a launcher."""
    kept = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
