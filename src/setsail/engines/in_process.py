"""Sampling from a causal language model in this process: KV cache always on, one prefill for n completions.

Axis legend: ``B`` prompts of a batch, ``R = B * n`` rows, ``T`` completion positions. A row's tokens are decided by its
named random stream alone, one uniform a token: the batch around it, the order of prompts and the moment at which
other rows finish change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from setsail.core import Candidates, Completion, EngineError, Prompt, Sampling, stream
from setsail.engines.sampling import inverse_cdf, warp
from setsail.policies import forward_arguments, pad_left, positions

COMPACT_BELOW = 0.75
"""Finished rows leave the batch once the share of unfinished ones falls below this (copying the cache has a cost)."""


class TransformersEngine:
    """Draws completions from the model that is being trained (or from any other in this process).

    Args:
        model: a causal LM, unwrapped; left as it was found (training mode included).
        tokenizer: decodes answers; gives the pad id.
        eos_token_ids: every id that ends an answer.
        batch_size: prompts prefilled at once.
        context: entered around the forward passes (mixed precision); must match the scoring passes'.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        *,
        batch_size: int = 16,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if not eos_token_ids:
            raise EngineError("no EOS id is known, so no completion could end; give the tokenizer an eos_token")
        self.model = model
        self.tokenizer = tokenizer
        self.eos_token_ids = tuple(eos_token_ids)
        self.batch_size = batch_size
        self.context = context

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        n: int,
        sampling: Sampling,
        streams: Sequence[tuple[int | str, ...]],
        seed: int,
        policy_version: int,
    ) -> list[Candidates]:
        """Draw ``n`` completions of each prompt.

        Returns:
            One group a prompt, in order. Each completion carries the log-prob of its tokens under the model at
            temperature 1, whatever ``sampling`` says.

        Raises:
            EngineError: the model gives logits that are not finite.
        """
        was_training = self.model.training
        self.model.eval()
        groups: dict[int, Candidates] = {}
        order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index].token_ids), index))
        try:
            with self.context():
                for start in range(0, len(order), self.batch_size):
                    chunk = order[start : start + self.batch_size]
                    names = [streams[index] for index in chunk]
                    drawn = _Decoding(self, [prompts[index] for index in chunk], n, sampling, names, seed).run()
                    for index, completions in zip(chunk, drawn, strict=True):
                        groups[index] = Candidates(
                            prompt=prompts[index],
                            completions=completions,
                            policy_version=policy_version,
                            stream=streams[index],
                        )
        finally:
            self.model.train(was_training)
        return [groups[index] for index in range(len(prompts))]


class _Decoding:
    """The state of one batch while it is decoded. ``rows`` maps the live rows of the cache to rows of the batch."""

    def __init__(
        self,
        engine: TransformersEngine,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        streams: Sequence[tuple[int | str, ...]],
        seed: int,
    ) -> None:
        self.engine, self.prompts, self.n, self.sampling = engine, prompts, n, sampling
        self.device = next(engine.model.parameters()).device
        self.accepted = forward_arguments(engine.model)
        self.eos = torch.tensor(engine.eos_token_ids, device=self.device)
        limit = sampling.max_completion_length
        names = [(*name, k) for name in streams for k in range(n)]
        draws = [stream(seed, str(purpose), *path).random(limit).tolist() for purpose, *path in names]
        self.uniform = torch.tensor(draws, dtype=torch.float64, device=self.device)
        rows = len(names)
        self.tokens = torch.full((rows, limit), engine.tokenizer.pad_token_id, device=self.device)
        self.length = torch.zeros(rows, dtype=torch.long, device=self.device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=self.device)
        self.logp = torch.zeros(rows, dtype=torch.float32, device=self.device)

    def run(self) -> list[tuple[Completion, ...]]:
        """Prefill once, decode until every row has finished or the length limit is reached."""
        logits = self._prefill()
        for step in range(self.sampling.max_completion_length):
            token = self._draw(logits, step)
            if step + 1 == self.sampling.max_completion_length or bool(self.finished[self.rows].all()):
                break
            token = self._compact(token)
            logits = self._forward(token)
        return self._completions()

    def _prefill(self) -> Tensor:
        prompts = [prompt.token_ids for prompt in self.prompts]
        pad_id = self.engine.tokenizer.pad_token_id
        input_ids, self.mask = pad_left(prompts, pad_id=pad_id, device=self.device)
        arguments: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in self.accepted else {}
        if "position_ids" in self.accepted:
            arguments["position_ids"] = positions(self.mask)
        output = self.engine.model(input_ids=input_ids, attention_mask=self.mask, use_cache=True, **arguments)
        self.cache = output.past_key_values
        if self.n > 1:
            self.cache.batch_repeat_interleave(self.n)
        self.mask = self.mask.repeat_interleave(self.n, dim=0)
        self.prompt_ids = input_ids.repeat_interleave(self.n, dim=0)
        self.rows = torch.arange(len(self.prompts) * self.n, device=self.device)
        logits: Tensor = output.logits[:, -1].float()
        return logits.repeat_interleave(self.n, dim=0)

    def _forward(self, token: Tensor) -> Tensor:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        arguments: dict[str, Any] = {}
        if "position_ids" in self.accepted:
            arguments["position_ids"] = self.mask.sum(-1, keepdim=True) - 1
        output = self.engine.model(
            input_ids=token.unsqueeze(-1),
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            **arguments,
        )
        self.cache = output.past_key_values
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _draw(self, logits: Tensor, step: int) -> Tensor:
        """One token for each live row; finished rows that still sit in the cache draw tokens nobody reads."""
        total = logits.logsumexp(-1)
        if not bool(torch.isfinite(total).all()):
            raise EngineError(
                f"the model gives logits that are not finite at completion token {step + 1}; its weights are broken "
                "(did training diverge?) - resume from an earlier checkpoint or lower the learning rate"
            )
        history = self.prompt_ids
        if self.sampling.repetition_penalty != 1.0:
            history = torch.cat([self.prompt_ids, self.tokens[self.rows, :step]], dim=1)
        token = inverse_cdf(warp(logits, self.sampling, history), self.uniform[self.rows, step])
        live = ~self.finished[self.rows]
        rows = self.rows[live]
        chosen = logits.gather(-1, token.unsqueeze(-1)).squeeze(-1) - total
        self.tokens[rows, step] = token[live]
        self.logp[rows] += chosen[live]
        self.length[rows] += 1
        self.finished[rows] |= torch.isin(token[live], self.eos)
        return token

    def _compact(self, token: Tensor) -> Tensor:
        """Drop finished rows from the cache once enough of them have piled up."""
        live = ~self.finished[self.rows]
        if float(live.float().mean()) >= COMPACT_BELOW:
            return token
        keep = live.nonzero().squeeze(-1)
        self.cache.batch_select_indices(keep)
        self.rows, self.mask, self.prompt_ids = self.rows[keep], self.mask[keep], self.prompt_ids[keep]
        return token[keep]

    def _completions(self) -> list[tuple[Completion, ...]]:
        lengths, finished, logps = self.length.tolist(), self.finished.tolist(), self.logp.tolist()
        tokens = self.tokens.tolist()
        rows = [tokens[row][: lengths[row]] for row in range(len(tokens))]
        texts = self.engine.tokenizer.batch_decode(rows, skip_special_tokens=True)
        completions = [
            Completion(token_ids=tuple(ids), text=text, finished=done, logp=logp)
            for ids, text, done, logp in zip(rows, texts, finished, logps, strict=True)
        ]
        return [tuple(completions[start : start + self.n]) for start in range(0, len(completions), self.n)]
