"""What a reward model reads: prompt and completion as token ids of the reward model's own tokenizer."""

from __future__ import annotations

from typing import Any

from setsail.core import Completion, ConfigError, Prompt


def render(tokenizer: Any, prompt: Prompt, completion: Completion) -> list[int]:
    """The token ids of one prompt and completion, untruncated.

    With a chat template: the conversation with the completion as the assistant's turn, a plain-text prompt being one
    user turn. Without: prompt and completion text joined, with the special tokens that the tokenizer adds by itself.

    Raises:
        ConfigError: a conversational prompt, and no chat template to write it with.
    """
    if getattr(tokenizer, "chat_template", None):
        messages = [{"role": "user", "content": prompt.text}] if prompt.messages is None else list(prompt.messages)
        messages = [*messages, {"role": "assistant", "content": completion.text}]
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        # The template has written every special token already.
        ids = tokenizer(text, add_special_tokens=False, truncation=False)["input_ids"]
    elif prompt.messages is not None:
        raise ConfigError(
            f"row {prompt.row_id} is a conversation, and the reward model's tokenizer has no chat template to write it "
            "with: set tokenizer.chat_template to the layout that the reward model was trained on"
        )
    else:
        ids = tokenizer(prompt.text + completion.text, truncation=False)["input_ids"]
    return [int(token) for token in ids]


def truncate_left(tokenizer: Any, ids: list[int], limit: int | None) -> list[int]:
    """The last ``limit`` ids; a leading BOS or CLS token keeps its place, since the model was trained with it."""
    if limit is None or len(ids) <= limit:
        return ids
    leading = {getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "cls_token_id", None)}
    if ids[0] in leading and limit > 1:
        return [ids[0], *ids[len(ids) - limit + 1 :]]
    return ids[len(ids) - limit :]


def length_limit(model: Any, tokenizer: Any, max_length: int | None) -> int | None:
    """The smallest of what was asked for and what model and tokenizer can take; None where nothing limits it.

    Raises:
        ConfigError: ``max_length`` is below 1 or beyond what the model has positions for.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    declared = getattr(tokenizer, "model_max_length", None)
    # Tokenizers that declare no limit carry a huge number instead.
    limits = [limit for limit in (positions, declared) if limit and 0 < limit < 10**9]
    if max_length is None:
        return min(limits, default=None)
    if max_length < 1 or (positions and positions > 0 and max_length > positions):
        raise ConfigError(
            f"max_length={max_length}: the reward model reads between 1 and {positions or 'any number of'} tokens"
        )
    return max_length
