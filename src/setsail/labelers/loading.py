"""Reward models and their tokenizers, loaded safely: no code of the repository runs, weights are safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from setsail.core import ConfigError

SUPPORTED = (
    "a sequence-classification model with one output (num_labels=1), as trained by a reward-model trainer, "
    "is what is supported"
)


def load_model(source: str, dtype: torch.dtype | str, revision: str | None) -> Any:
    """The sequence-classification model at ``source``, a directory or a hub id.

    Raises:
        ConfigError: it cannot be loaded safely, has another number of outputs than one, or its files hold no weights
            for the output layer (a language model that was never trained as a reward model: its scores would be
            those of a random layer).
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    try:
        config = AutoConfig.from_pretrained(source, revision=revision, trust_remote_code=False)
        check_outputs(config, source)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            source,
            config=config,
            revision=revision,
            dtype=dtype,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(_unloadable(source, "reward model", error)) from error
    if info["missing_keys"]:
        absent = ", ".join(sorted(info["missing_keys"])[:3])
        raise ConfigError(
            f"reward model {source!r}: its files hold no weights for {absent}, which would be random; {SUPPORTED}"
        )
    return model


def load_tokenizer(source: str, revision: str | None) -> Any:
    """The tokenizer at ``source``.

    Raises:
        ConfigError: there is none that can be loaded safely.
    """
    from transformers import AutoTokenizer

    if not source:
        raise ConfigError(
            "the reward model does not say where it was loaded from, so its tokenizer is unknown: pass tokenizer=..."
        )
    try:
        return AutoTokenizer.from_pretrained(source, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ConfigError(_unloadable(source, "tokenizer of the reward model", error)) from error


def check_outputs(config: Any, source: str) -> None:
    """Refuse a model whose output is not one number.

    Raises:
        ConfigError: ``config.num_labels`` is not 1.
    """
    labels = getattr(config, "num_labels", None)
    if labels != 1:
        raise ConfigError(
            f"reward model {source!r} has num_labels={labels}; {SUPPORTED}. Turn any other model into a function that "
            "returns one score a completion, and pass that as the labeler"
        )


def _unloadable(source: str, what: str, error: Exception) -> str:
    message = " ".join(str(error).split())
    message = message if len(message) <= 300 else message[:297] + "..."
    kind = "directory" if Path(source).is_dir() else "hub id (no such local directory)"
    return (
        f"the {what} {source!r}, read as a {kind}, cannot be loaded: {type(error).__name__}: {message}. Custom code "
        "and weights that are not safetensors are not loaded; convert such a model with save_pretrained first"
    )
