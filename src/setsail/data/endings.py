"""The tokens that end an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedTokenizerBase


def eos_token_ids(
    tokenizer: PreTrainedTokenizerBase, generation_config: GenerationConfig | None = None
) -> tuple[int, ...]:
    """Every token id that ends an answer: the tokenizer's EOS and all that the generation config declares.

    Args:
        tokenizer: a Hugging Face tokenizer.
        generation_config: the model's, whose ``eos_token_id`` may be one id or several; chat models often declare
            their end-of-turn token only there.

    Raises:
        ConfigError: there is none, so that no answer could be told from one that was cut.
    """
    declared: Any = getattr(generation_config, "eos_token_id", None)
    several = declared if isinstance(declared, list | tuple) else [declared]
    found = [int(token) for token in (tokenizer.eos_token_id, *several) if token is not None]
    if not found:
        raise ConfigError(
            "neither the tokenizer nor the generation config declares an end-of-sequence token, so a finished answer "
            "cannot be told from one that was cut. Set tokenizer.eos_token to the token that the model ends answers "
            "with."
        )
    return tuple(dict.fromkeys(found))


def closing_eos(tokenizer: PreTrainedTokenizerBase, eos_ids: tuple[int, ...]) -> int:
    """The EOS put after an answer that has none: the tokenizer's, else the first declared."""
    own: Any = tokenizer.eos_token_id
    return eos_ids[0] if own is None else int(own)
