"""Log-probs and draws under the policy and under the reference, bound to one run's device, precision and pad id."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import Candidates, Completion, ConfigError, Engine, Prompt, Row, Sampling
from setsail.engines import FrozenEngine, MixtureEngine, TransformersEngine
from setsail.methods import Source
from setsail.policies import FrozenPolicies, Reference, completion_distributions, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores completions without gradient.

    Attributes:
        model: the policy, unwrapped.
        frozen: reference and opponent.
        engine: draws from the policy; gives pad id and end-of-answer ids.
        context: mixed precision, the same as in training.
        batch_size: rows of a forward pass.
        share: compute a prompt that several completions have once.
    """

    model: nn.Module
    frozen: FrozenPolicies
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
        """Token log-probs of completions under the reference; of a product of policies, the weighted sum."""
        return self._frozen(self.frozen.reference, prompts, completions)

    def under_opponent(self, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Tensor]:
        """Token log-probs of completions under the opponent."""
        assert self.frozen.opponent is not None, "the method has no opponent"
        return self._frozen(self.frozen.opponent, prompts, completions)

    def _frozen(self, holder: Reference, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> list[Tensor]:
        total: list[Tensor] | None = None
        for part, share in holder.parts:
            with part.active() as model:
                scored = self._score(model, prompts, completions)
            scaled = scored if share == 1 else [share * logps for logps in scored]
            total = scaled if total is None else [a + b for a, b in zip(total, scaled, strict=True)]
        assert total is not None
        return total

    @torch.no_grad()
    def next_log_probs(self, prompts: Sequence[Sequence[int]], tokens: Sequence[int]) -> list[list[float] | None]:
        """Log-probs of ``tokens`` as the next one after each prompt, under the current policy, in evaluation mode.

        None for a prompt that leaves the model no position for a token.
        """
        limit = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)  # type: ignore[operator, union-attr]
        order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), row))
        readable = [row for row in order if limit is None or len(prompts[row]) < limit]
        found: list[list[float] | None] = [None] * len(prompts)
        was_training = self.model.training
        self.model.eval()
        try:
            for start in range(0, len(readable), self.batch_size):
                chunk = readable[start : start + self.batch_size]
                with self.context():
                    rows = completion_distributions(
                        self.model,
                        [prompts[row] for row in chunk],
                        [tokens[:1]] * len(chunk),
                        pad_id=int(self.engine.tokenizer.pad_token_id),
                        device=self.device,
                    )
                for row, distribution in zip(chunk, rows, strict=True):
                    found[row] = distribution[0, list(tokens)].tolist()
        finally:
            self.model.train(was_training)
        return found

    def engine_for(self, source: Source) -> Engine:
        """What draws the candidates of a source."""
        if source.origin == "policy":
            return self.engine
        settings: dict[str, Any] = {"batch_size": self.engine.batch_size, "context": self.context}
        ids = (self.engine.tokenizer, self.engine.eos_token_ids)
        if source.origin == "mixture":
            return MixtureEngine(self.model, self.frozen.reference, *ids, weight=source.share, **settings)
        holder = self.frozen.opponent if source.origin == "opponent" else self.frozen.reference
        if holder is None:
            raise ConfigError(f"a route draws from the {source.origin}, but this run holds none")
        return FrozenEngine(holder, *ids, origin=str(source.origin), **settings)

    def draw_from_reference(self, rows: Sequence[Row], epoch: int, *, limit: int, seed: int) -> list[Completion]:
        """One completion of each row's prompt, drawn from the reference itself, at temperature 1."""
        groups = self.engine_for(Source(origin="reference")).generate(
            [row.prompt for row in rows],
            n=1,
            sampling=Sampling(max_completion_length=limit),
            streams=[("reference", row.prompt.row_id, epoch) for row in rows],
            seed=seed,
            policy_version=0,
        )
        return [group.completions[0] for group in groups]

    def implicit_margins(self, groups: Sequence[Candidates], beta: float) -> list[float]:
        """``beta (h(y1) - h(y2))`` of the first two candidates of each prompt, which the policy drew."""
        prompts = [group.prompt for group in groups for _ in range(2)]
        sides = [one for group in groups for one in group.completions[:2]]
        reference = self.under_reference(prompts, sides)
        ratios = [(one.logp or 0.0) - float(logps.sum()) for one, logps in zip(sides, reference, strict=True)]
        return [beta * (first - second) for first, second in zip(ratios[::2], ratios[1::2], strict=True)]

    def implicit_scores(self, groups: Sequence[Candidates]) -> list[list[float]]:
        """``log pi_ref(y) - log pi_opponent(y)`` of every candidate: what the last round of training taught, nats."""
        prompts = [group.prompt for group in groups for _ in group.completions]
        sides = [one for group in groups for one in group.completions]
        pairs = zip(self.under_reference(prompts, sides), self.under_opponent(prompts, sides), strict=True)
        scores = iter([float(reference.sum() - opponent.sum()) for reference, opponent in pairs])
        return [[next(scores) for _ in group.completions] for group in groups]
