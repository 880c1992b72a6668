"""An example to the core's row: token ids of the prompt and of its answers, made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from setsail.core import Completion, ConfigError, DataError, Prompt, Row
from setsail.data.conversations import as_answer, as_question
from setsail.data.endings import closing_eos
from setsail.data.examples import Example, Text, question
from setsail.data.templates import ChatTemplate, require_template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LongPrompts = Literal["drop", "keep-end"]


@dataclass(frozen=True, slots=True)
class Encoded:
    """Token ids of one example, within the limits.

    Attributes:
        prompt: what the policy reads, BOS and template included.
        answers: ids of the example's ``texts``, in their order; None for one that is not there.
        cut: whether each answer was longer than the limit; a cut answer has no EOS.
        long_prompt: whether the prompt was longer than its limit (and, with "keep-end", has lost its beginning).
    """

    prompt: list[int]
    answers: tuple[list[int] | None, ...]
    cut: tuple[bool, ...]
    long_prompt: bool


class RowTokenizer:
    """Makes token ids of examples, the same ids that are later scored and learnt from.

    A string prompt is tokenized as it is, with the tokenizer's own special tokens at its start (BOS, once) and none
    at its end; a string answer without any, and the tokenizer's EOS after it. The two are tokenized apart: the ids
    of the pair are the prompt's followed by the answer's. A conversation is written by the chat template.

    Args:
        tokenizer: a Hugging Face tokenizer.
        max_prompt_length: longest prompt in tokens; None = no limit.
        max_completion_length: longest answer in tokens, EOS included; None = no limit. A longer one is cut and has
            no EOS: ``finished`` is False.
        eos_token_ids: every id that ends an answer (:func:`setsail.data.eos_token_ids`).
        chat_template_kwargs: further arguments of the chat template.
        long_prompts: what to do with prompts over the limit: "drop" leaves the example out, "keep-end" keeps the
            last ``max_prompt_length`` tokens.

    Raises:
        ConfigError: a limit below 1, no EOS, or an unknown way with long prompts.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_prompt_length: int | None,
        max_completion_length: int | None,
        eos_token_ids: Sequence[int],
        chat_template_kwargs: Mapping[str, Any] | None = None,
        long_prompts: LongPrompts = "drop",
    ) -> None:
        for name, limit in {
            "max_prompt_length": max_prompt_length,
            "max_completion_length": max_completion_length,
        }.items():
            if limit is not None and limit < 1:
                raise ConfigError(f"{name}={limit!r} must be at least 1 token, or None for no limit.")
        if not eos_token_ids:
            raise ConfigError("eos_token_ids is empty: name the token ids that end an answer.")
        if long_prompts not in ("drop", "keep-end"):
            raise ConfigError(f"long_prompts={long_prompts!r} is not one of 'drop', 'keep-end'.")
        self.tokenizer = tokenizer
        self.max_prompt_length = max_prompt_length
        self.max_completion_length = max_completion_length
        self.eos_token_ids = tuple(int(token) for token in eos_token_ids)
        self.long_prompts = long_prompts
        self._template = ChatTemplate(tokenizer, self.eos_token_ids, dict(chat_template_kwargs or {}))
        self._prepends_space = _prepends_space(tokenizer)

    def __call__(self, example: Example) -> Row:
        """The example as a :class:`setsail.core.Row`.

        Raises:
            DataError: the prompt is longer than the limit and ``long_prompts`` is "drop", or the template cannot
                write the example.
            ConfigError: a conversation, and no chat template.
        """
        encoded = self.encode(example)
        if encoded.long_prompt and self.long_prompts == "drop":
            raise DataError(
                f"row {example.source_row + 1}: the prompt has {len(encoded.prompt)} tokens, more than "
                f"max_prompt_length={self.max_prompt_length}. Raise the limit, or say long_prompts='keep-end'."
            )
        return self.row(example, encoded)

    def encode(self, example: Example) -> Encoded:
        """Token ids of an example; a prompt over the limit is whole here with "drop" and is marked as long.

        Raises:
            DataError: the template cannot write the example.
            ConfigError: a conversation, and no chat template.
        """
        if all(isinstance(text, str) for text in (example.prompt, *example.texts) if text is not None):
            prompt, answers = self._encode_strings(example)
        else:
            prompt, answers = self._encode_conversation(example)
        long_prompt = self.max_prompt_length is not None and len(prompt) > self.max_prompt_length
        if long_prompt and self.long_prompts == "keep-end":
            prompt = prompt[-(self.max_prompt_length or 0) :]
        limit = self.max_completion_length
        within = tuple(ids[:limit] if ids is not None else None for ids in answers)
        cut = tuple(ids is not None and limit is not None and len(ids) > limit for ids in answers)
        return Encoded(prompt, within, cut, long_prompt)

    def row(self, example: Example, encoded: Encoded) -> Row:
        """The core's row of an example and its ids."""
        prompt = Prompt(
            row_id=example.row_id,
            text=question(example.prompt),
            token_ids=tuple(encoded.prompt),
            messages=None if isinstance(example.prompt, str) else example.prompt,
            columns=example.columns,
        )
        made = [
            None if ids is None else self._completion(ids, cut)
            for ids, cut in zip(encoded.answers, encoded.cut, strict=True)
        ]
        chosen, rejected = (None if place is None else made[place] for place in example.sides)
        answers = tuple(one for one in made if one is not None) if example.answers else ()
        return Row(prompt=prompt, chosen=chosen, rejected=rejected, p=example.p, answers=answers, scores=example.scores)

    def _completion(self, ids: Sequence[int], cut: bool) -> Completion:
        text = self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Completion(token_ids=tuple(ids), text=str(text), finished=not cut)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def _encode_strings(self, example: Example) -> tuple[list[int], list[list[int] | None]]:
        answers = [self._string_answer(answer) for answer in example.texts]
        return self._string_prompt(str(example.prompt)), answers

    def _string_prompt(self, text: str) -> list[int]:
        ids = list(self.tokenizer(text, verbose=False)["input_ids"])
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]  # the text was written with its BOS, and the tokenizer put another before it
        if ids and ids[-1] in (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id):
            plain = self._plain(text)
            if plain and ids[-len(plain) :] != plain:
                ids = ids[:-1]  # the tokenizer closes every text; an answer is to follow here
        return ids

    def _string_answer(self, answer: Text | None) -> list[int] | None:
        if answer is None:
            return None
        text = str(answer)
        ids = self._plain(text.removeprefix(" ") if self._prepends_space else text)
        if ids and ids[-1] in self.eos_token_ids:
            return ids
        return [*ids, closing_eos(self.tokenizer, self.eos_token_ids)]

    def _encode_conversation(self, example: Example) -> tuple[list[int], list[list[int] | None]]:
        require_template(self.tokenizer)
        messages = as_question(example.prompt)
        prompt = self._template.prompt_ids(messages, example.columns)
        answers: list[list[int] | None] = []
        try:
            for answer in example.texts:
                whole = None if answer is None else as_answer(answer)
                ids = whole and self._template.answer_ids(messages, prompt, whole, example.columns)
                answers.append(list(ids) if ids else None)
        except DataError as error:
            raise DataError(f"row {example.source_row + 1}: {error}") from None
        return prompt, answers


def _prepends_space(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a space of its own before every text, even one that begins with a space.

    SentencePiece models of the older kind do; an answer's own leading space would then count twice.
    """
    bare, spaced = (list(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in ("a", " a"))
    first = str(tokenizer.convert_ids_to_tokens(bare[:1])[0]) if bare else ""
    return first.startswith("\u2581") and bare != spaced
