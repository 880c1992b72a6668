"""A sequence-classification model as a labeler."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from setsail.core import Candidates, ConfigError, Judgement
from setsail.labelers.loading import check_outputs, load_model, load_tokenizer
from setsail.labelers.rendering import length_limit, render, truncate_left
from setsail.labelers.scores import check_scale, judgement_from_scores

logger = logging.getLogger("setsail")

Ids = tuple[int, ...]


class RewardModel:
    """Scores completions with a Hugging Face sequence-classification model of one output.

        s_i = model(prompt, y_i),     P_ij = sigmoid((s_i - s_j) / scale)

    Prompt and completion are written with the reward model's own tokenizer and its own chat template, if it has one
    (a plain-text prompt becomes one user turn); without a template plain texts are joined. Texts that are too long
    lose their beginning, a leading BOS or CLS token excepted; they are counted.

    Texts are scored in batches of similar length, padded on the right, without gradient; equal texts are scored once
    and so tie exactly. Where the model declares a padding token, its score is read where the model reads it: at the
    last token that is not padding. Where it declares none, it is read at the last token, as for a single text.

    Args:
        model: a model instance, a local directory or a hub id. Loading runs no code of the repository and reads
            safetensors only.
        tokenizer: the model's tokenizer; by default loaded from where the model came from.
        batch_size: texts scored at once.
        max_length: tokens read of one text; by default what model and tokenizer can take.
        device: where to score; a loaded model goes to the GPU if there is one, an instance stays where it is.
        dtype: of the weights of a model that is loaded; by default as stored. Scores are always float32.
        reversed: higher means worse (cost models): scores are negated.
        hard: the higher score wins with certainty.
        scale: score gap that counts as one nat of log-odds.
        name: who signs the judgements; by default the last part of the directory's or hub id's name.
        revision: of a hub id.

    Attributes:
        scored: completions scored so far.
        truncated: how many of them were too long.

    Raises:
        ConfigError: a model with another number of outputs than one, without a trained output layer, or that cannot be
            loaded safely; no tokenizer; a conversational prompt and no chat template; an unusable option.
    """

    def __init__(
        self,
        model: Any,
        *,
        tokenizer: Any = None,
        batch_size: int = 16,
        max_length: int | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | str = "auto",
        reversed: bool = False,
        hard: bool = False,
        scale: float = 1.0,
        name: str | None = None,
        revision: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}: it is the number of texts scored at once, at least 1")
        loaded = isinstance(model, str | Path)
        source = str(model) if loaded else str(getattr(getattr(model, "config", None), "name_or_path", "") or "")
        if loaded:
            model = load_model(source, dtype, revision)
            device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        elif not hasattr(model, "config"):
            raise ConfigError(f"a reward model is a model instance, a local directory or a hub id, got {model!r}")
        check_outputs(model.config, source or type(model).__name__)
        self.model = model if device is None else model.to(device)
        self.tokenizer = load_tokenizer(source, revision) if tokenizer is None else tokenizer
        self.batch_size = batch_size
        self.max_length = length_limit(self.model, self.tokenizer, max_length)
        self.reversed = reversed
        self.hard = hard
        self.scale = check_scale(scale)
        self.name = name or Path(source).name or type(model).__name__
        self.scored = 0
        self.truncated = 0

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """Score every completion of every group; one judgement a group, its scores in the model's units."""
        texts = [[self._ids(group, index) for index in range(len(group.completions))] for group in groups]
        scores = self._score_all({ids for row in texts for ids in row if ids})
        return [
            judgement_from_scores(
                [scores.get(ids) for ids in row],
                labeler=self.name,
                hard=self.hard,
                scale=self.scale,
                reason="the reward model's score is not a finite number, or there was no text to score",
            )
            for row in texts
        ]

    def _ids(self, group: Candidates, index: int) -> Ids:
        whole = render(self.tokenizer, group.prompt, group.completions[index])
        ids = truncate_left(self.tokenizer, whole, self.max_length)
        self.scored += 1
        if len(ids) < len(whole):
            if not self.truncated:
                logger.warning(
                    "reward model %r: row %d has a text of %d tokens, cut to its last %d; further ones are only "
                    "counted (RewardModel.truncated)",
                    self.name, group.prompt.row_id, len(whole), len(ids),
                )  # fmt: skip
            self.truncated += 1
        return tuple(ids)

    def _score_all(self, texts: set[Ids]) -> dict[Ids, float]:
        """The score of each text. Sorted by length, so that a batch holds little padding."""
        ordered = sorted(texts, key=lambda ids: (-len(ids), ids))
        sign = -1.0 if self.reversed else 1.0
        scores: dict[Ids, float] = {}
        for start in range(0, len(ordered), self.batch_size):
            batch = ordered[start : start + self.batch_size]
            values = self._forward(batch)
            scores.update(zip(batch, (sign * value for value in values.tolist()), strict=True))
        return scores

    @torch.no_grad()
    def _forward(self, batch: Sequence[Ids]) -> Tensor:
        """float32 scores of shape ``(texts,)``."""
        pad = self._padding(batch)
        width = len(batch[0])
        device = next(self.model.parameters()).device
        ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in batch], device=device)
        lengths = torch.tensor([len(row) for row in batch], device=device)
        mask = (torch.arange(width, device=device) < lengths[:, None]).long()
        with _scoring(self.model, pad):
            logits: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return logits.float().reshape(len(batch))

    def _padding(self, batch: Sequence[Ids]) -> int:
        """The id that fills rows up: the model's own, or one that ends none of the texts.

        Models of this kind find the end of a text as its last id that is not the padding id. A model without one of
        its own may be padded with any id, but one that ends a text would move that text's end.
        """
        declared = self.model.config.get_text_config().pad_token_id
        if declared is not None and declared >= 0:  # some published configurations say -1 for none
            return int(declared)
        ends = {row[-1] for row in batch}
        preferred = (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, *range(len(ends) + 1))
        return next(int(token) for token in preferred if token is not None and token not in ends)


@contextmanager
def _scoring(model: Any, pad: int) -> Iterator[None]:
    """The model in evaluation mode, with a padding id and no cache; left as it was found."""
    config = model.config.get_text_config()
    changed = {"pad_token_id": pad, "use_cache": False}
    before = {name: getattr(config, name) for name in changed if hasattr(config, name)}
    training = model.training
    model.eval()
    for name in before:
        setattr(config, name, changed[name])
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(config, name, value)
        model.train(training)
