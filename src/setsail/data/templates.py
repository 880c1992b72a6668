"""Conversations to token ids, through the tokenizer's chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from setsail.core import ConfigError, DataError, Message
from setsail.data.endings import closing_eos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class ChatTemplate:
    """The tokenizer's template, as a map from messages to the ids that the policy reads and is scored on.

    Attributes:
        tokenizer: a Hugging Face tokenizer with a chat template.
        eos_ids: every id that ends an answer.
        kwargs: further arguments of the template, ``{"enable_thinking": False}`` say.
    """

    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def prompt_ids(self, prompt: Messages, columns: Mapping[str, Any]) -> list[int]:
        """Ids of the conversation, up to where the assistant's answer begins."""
        return self._ids(prompt, columns, add_generation_prompt=True)

    def answer_ids(
        self, prompt: Messages, prompt_ids: Sequence[int], answer: Messages, columns: Mapping[str, Any]
    ) -> list[int]:
        """Ids of the answer, so that prompt ids + answer ids are what the template writes for the whole.

        The template's text after the last EOS is cut off, since a model stops there; where the template writes no
        EOS, the tokenizer's is added.

        Raises:
            DataError: the template writes the prompt differently once an answer follows.
        """
        whole = self._ids((*prompt, *answer), columns, add_generation_prompt=False)
        if whole[: len(prompt_ids)] == list(prompt_ids):
            return self._ended(whole[len(prompt_ids) :])
        # Ids may differ where the texts agree, if a token spans the border: then the text is what to cut.
        before = self._text(prompt, columns, add_generation_prompt=True)
        text = self._text((*prompt, *answer), columns, add_generation_prompt=False)
        if not text.startswith(before):
            raise DataError(_rewritten(before, text))
        return self._ended(list(self.tokenizer(text[len(before) :], add_special_tokens=False)["input_ids"]))

    def _ended(self, ids: list[int]) -> list[int]:
        last = max((index for index, token in enumerate(ids) if token in self.eos_ids), default=None)
        if last is not None and not str(self.tokenizer.decode(ids[last + 1 :])).strip():
            return ids[: last + 1]
        return [*ids, closing_eos(self.tokenizer, self.eos_ids)]

    def _ids(self, messages: Messages, columns: Mapping[str, Any], *, add_generation_prompt: bool) -> list[int]:
        ids: Any = self.tokenizer.apply_chat_template(
            list(messages),  # type: ignore[arg-type]
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
            **self._arguments(columns),
        )
        return [int(token) for token in ids]

    def _text(self, messages: Messages, columns: Mapping[str, Any], *, add_generation_prompt: bool) -> str:
        text = self.tokenizer.apply_chat_template(
            list(messages),  # type: ignore[arg-type]
            add_generation_prompt=add_generation_prompt,
            tokenize=False,
            **self._arguments(columns),
        )
        return str(text)

    def _arguments(self, columns: Mapping[str, Any]) -> dict[str, Any]:
        """The run's template arguments, and over them the row's own: columns `tools` and `chat_template_kwargs`."""
        own = columns.get("chat_template_kwargs") or {}
        tools = {"tools": columns["tools"]} if columns.get("tools") else {}
        return {**self.kwargs, **tools, **own}


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse conversations where the tokenizer has no template for them.

    Raises:
        ConfigError: saying what to do.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ConfigError(
            "the data are conversations, but the tokenizer has no chat template to write them with. Use the "
            "tokenizer of a chat model, set tokenizer.chat_template, or give prompt, chosen and rejected as strings."
        )


def _rewritten(before: str, whole: str) -> str:
    same = next((index for index, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b), len(whole))
    return (
        "the chat template writes a prompt differently once an answer follows, so the answer's tokens cannot be told "
        f"from the prompt's: after {same} equal characters the prompt goes on with {before[same : same + 30]!r}, "
        f"the whole conversation with {whole[same : same + 30]!r}. Choose another mode of the template through "
        "chat_template_kwargs (enable_thinking=False, say), or correct the template."
    )
