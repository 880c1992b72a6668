"""The decoding loop: draw a token a row, feed it back, until every row has ended.

Axis legend: ``B`` prompts of a batch, ``R = B * n`` rows, ``T`` completion positions. A row's tokens are decided by its
named random stream alone, one uniform a token: the batch around it, the order of prompts and the moment at which
other rows finish change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from setsail.core import Completion, EngineError, Prompt, Sampling, stream
from setsail.engines.sampling import inverse_cdf, warp
from setsail.engines.stepping import Stepper
from setsail.policies import pad_left

COMPACT_BELOW = 0.75
"""Finished rows leave the batch once the share of unfinished ones falls below this (copying the cache has a cost)."""


class Decoding:
    """The state of one batch while it is decoded. ``rows`` maps the live rows of the cache to rows of the batch.

    Args:
        stepper: gives the logits; its cache is this batch's own.
        prompts: of the batch; ``n`` completions of each are drawn.
        streams, seed: name the random stream of each prompt.
        tokenizer: decodes answers; gives the pad id.
        eos_token_ids: every id that ends an answer.
        origin: who is said to have written the completions.
    """

    def __init__(
        self,
        stepper: Stepper,
        prompts: Sequence[Prompt],
        n: int,
        sampling: Sampling,
        streams: Sequence[tuple[int | str, ...]],
        seed: int,
        *,
        tokenizer: Any,
        eos_token_ids: Sequence[int],
        origin: str,
        device: torch.device,
    ) -> None:
        self.stepper, self.n, self.sampling = stepper, n, sampling
        self.tokenizer, self.origin = tokenizer, origin
        self.eos = torch.tensor(eos_token_ids, device=device)
        limit = sampling.max_completion_length
        names = [(*name, k) for name in streams for k in range(n)]
        draws = [stream(seed, str(purpose), *path).random(limit).tolist() for purpose, *path in names]
        self.uniform = torch.tensor(draws, dtype=torch.float64, device=device)
        rows = len(names)
        prompt_ids = [prompt.token_ids for prompt in prompts]
        self.input_ids, self.mask = pad_left(prompt_ids, pad_id=tokenizer.pad_token_id, device=device)
        self.tokens = torch.full((rows, limit), tokenizer.pad_token_id, device=device)
        self.length = torch.zeros(rows, dtype=torch.long, device=device)
        self.finished = torch.zeros(rows, dtype=torch.bool, device=device)
        self.logp = torch.zeros(rows, dtype=torch.float32, device=device)
        self.rows = torch.arange(rows, device=device)

    def run(self) -> list[tuple[Completion, ...]]:
        """Prefill once, decode until every row has finished or the length limit is reached.

        Raises:
            EngineError: the logits are not finite.
        """
        logits = self.stepper.prefill(self.input_ids, self.mask, self.n)
        self.prompt_ids = self.input_ids.repeat_interleave(self.n, dim=0)
        for step in range(self.sampling.max_completion_length):
            token = self._draw(logits, step)
            if step + 1 == self.sampling.max_completion_length or bool(self.finished[self.rows].all()):
                break
            logits = self.stepper.forward(self._compact(token))
        return self._completions()

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
        self.stepper.compact(keep)
        self.rows, self.prompt_ids = self.rows[keep], self.prompt_ids[keep]
        return token[keep]

    def _completions(self) -> list[tuple[Completion, ...]]:
        lengths, finished, logps = self.length.tolist(), self.finished.tolist(), self.logp.tolist()
        tokens = self.tokens.tolist()
        rows = [tokens[row][: lengths[row]] for row in range(len(tokens))]
        texts = self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        completions = [
            Completion(token_ids=tuple(ids), text=text, finished=done, logp=logp, origin=self.origin)
            for ids, text, done, logp in zip(rows, texts, finished, logps, strict=True)
        ]
        return [tuple(completions[start : start + self.n]) for start in range(0, len(completions), self.n)]
