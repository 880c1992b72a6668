"""Log-probs and draws under the policy and under the reference, bound to one run's device, precision and pad id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import Completion, Prompt, Row, Sampling
from setsail.engines import TransformersEngine
from setsail.policies import Reference, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores completions without gradient.

    Attributes:
        model: the policy, unwrapped.
        reference: the reference policy.
        engine: draws from the policy; gives pad id and end-of-answer ids.
        context: mixed precision, the same as in training.
        batch_size: rows of a forward pass.
        share: compute a prompt that several completions have once.
    """

    model: nn.Module
    reference: Reference
    engine: TransformersEngine
    context: Callable[[], AbstractContextManager[Any]]
    device: torch.device
    batch_size: int
    share: bool

    def _score(self, model: nn.Module, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Tensor]:
        with self.context():
            return score(
                model,
                [prompt.token_ids for prompt in prompts],
                [completion.token_ids for completion in completions],
                pad_id=self.engine.tokenizer.pad_token_id,
                device=self.device,
                batch_size=self.batch_size,
                share=self.share,
            )

    def under_policy(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Tensor]:
        """Token log-probs of completions under the current policy, one float32 CPU tensor each."""
        return self._score(self.model, prompts, completions)

    def under_reference(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Tensor]:
        """Token log-probs of completions under the reference."""
        with self.reference.active() as model:
            return self._score(model, prompts, completions)

    def draw_from_reference(self, rows: Sequence[Row], epoch: int, *, limit: int, seed: int) -> list[Completion]:
        """One completion of each row's prompt, drawn from the reference itself, at temperature 1."""
        with self.reference.active() as model:
            engine = TransformersEngine(
                model,
                self.engine.tokenizer,
                self.engine.eos_token_ids,
                batch_size=self.engine.batch_size,
                context=self.context,
            )
            groups = engine.generate(
                [row.prompt for row in rows],
                n=1,
                sampling=Sampling(max_completion_length=limit),
                streams=[("reference", row.prompt.row_id, epoch) for row in rows],
                seed=seed,
                policy_version=0,
            )
        return [group.completions[0] for group in groups]
