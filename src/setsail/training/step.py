"""One optimizer step, prepared: micro-batches of pairs with reference log-probs, baselines and weights.

Everything that concerns the *global* batch is settled here, before the first backward pass: how many pairs it has
(the denominator of the mean) and the leave-one-out baselines. So one batch of 8, 2 x 4, 8 x 1 with accumulation and two
processes of 4 give the same gradient.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from setsail.core import Completion, Pair, Prompt, Row, uniforms
from setsail.methods import Method, Route, route_loss
from setsail.objectives import LogProbs, leave_one_out
from setsail.training.buffer import PairBuffer
from setsail.training.feed import MicroRows
from setsail.training.pairs import MadePairs, PairMaker, Visit

Score = Callable[[Sequence[Prompt], Sequence[Completion]], list[Tensor]]
"""Token log-probs of completions, one CPU tensor each."""
Gather = Callable[[list[Any]], list[Any]]
"""The concatenation of every process's list, the same on each."""


@dataclass(frozen=True, slots=True)
class Extra:
    """A completion that an addend reads: drawn from the reference, not part of any pair."""

    prompt: Prompt
    completion: Completion
    reference: Tensor


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """Pairs of one forward pass.

    Attributes:
        pairs: the pairs; never empty (see ``weights``).
        reference: token log-probs of each pair's two completions under the reference.
        weights: what each pair's loss is multiplied by, shape ``(pairs,)``: 1 / pairs of its row x processes / rows
            that have pairs in the global batch. So the average over processes of the sums is the mean over rows of
            the mean over their pairs: a row that gives many pairs counts no more than one that gives one, and the
            mixture is the one asked for. 0 for a stand-in pair where a process has none.
        baselines: of the online correction, shape ``(pairs,)``.
        uniforms: one draw from [0, 1) a pair, for sampled labels, shape ``(pairs,)``.
        extras: completions of the addends, and the weight of each in the loss.
        extra_weight: processes / extras of the global batch.
        policy_version: optimizer steps taken before this one.
    """

    pairs: tuple[Pair, ...]
    reference: tuple[tuple[Tensor, Tensor], ...]
    weights: Tensor
    baselines: Tensor
    uniforms: Tensor
    extras: tuple[Extra, ...]
    extra_weight: float
    policy_version: int


class StepMaker:
    """Prepares optimizer steps from rows."""

    def __init__(
        self,
        maker: PairMaker,
        buffer: PairBuffer,
        *,
        score_reference: Score,
        draw_reference: Callable[[Sequence[Row], int], list[Completion]],
        gather: Gather,
        processes: int,
        on_made: Callable[[MadePairs], None],
        seconds: defaultdict[str, float],
    ) -> None:
        self.maker, self.buffer = maker, buffer
        self.method: Method = maker.method
        self.score_reference, self.draw_reference = score_reference, draw_reference
        self.gather, self.processes, self.on_made = gather, processes, on_made
        self.seconds = seconds

    def ahead(self, epoch: int, rows: Sequence[Row], policy_version: int) -> None:
        """Make the pairs of every row that has none in the buffer."""
        fresh = {(epoch, row.prompt.row_id): row for row in rows if (epoch, row.prompt.row_id) not in self.buffer}
        made = self.maker.make(epoch, list(fresh.values()), policy_version=policy_version)
        self.buffer.put(made.pairs)
        # Also with nothing made: processes gather here, and must do so together.
        self.on_made(made)

    def prepare(self, epoch: int, micro_rows: Sequence[MicroRows], policy_version: int) -> list[MicroBatch]:
        """The micro-batches of one step over ``micro_rows``."""
        self.ahead(epoch, [row for micro in micro_rows for row in micro.rows], policy_version)
        visits: set[Visit] = {(epoch, row.prompt.row_id) for micro in micro_rows for row in micro.rows}
        taken = {visit: self.buffer.take(visit, policy_version) for visit in visits}
        micro_pairs = [[pair for row in micro.rows for pair in taken[epoch, row.prompt.row_id]] for micro in micro_rows]
        flat = [pair for pairs in micro_pairs for pair in pairs]
        reference = self._reference(flat)
        draws = self._draws(flat)
        baselines = self._baselines(flat, reference, draws)
        extras = [self._extras(epoch, micro.rows) for micro in micro_rows]
        with_pairs = sum(bool(taken[epoch, row.prompt.row_id]) for micro in micro_rows for row in micro.rows)
        total = max(1, sum(self.gather([with_pairs])))
        extra_total = sum(self.gather([sum(map(len, extras))]))
        batches, start = [], 0
        for micro, pairs, more in zip(micro_rows, micro_pairs, extras, strict=True):
            span = slice(start, start + len(pairs))
            start += len(pairs)
            batch = MicroBatch(
                pairs=tuple(pairs),
                reference=tuple(reference[span]),
                weights=_row_means([len(taken[epoch, row.prompt.row_id]) for row in micro.rows])
                * (self.processes / total),
                baselines=baselines[span],
                uniforms=draws[span],
                extras=tuple(more),
                extra_weight=self.processes / max(extra_total, 1),
                policy_version=policy_version,
            )
            batches.append(batch if pairs else _stand_in(batch, micro.spare))
        return batches

    def _reference(self, pairs: Sequence[Pair]) -> list[tuple[Tensor, Tensor]]:
        """Reference token log-probs of both completions of each pair, scored in one go."""
        started = time.perf_counter()
        prompts = [pair.prompt for pair in pairs for _ in range(2)]
        scored = self.score_reference(prompts, [side for pair in pairs for side in (pair.first, pair.second)])
        self.seconds["scoring"] += time.perf_counter() - started
        return list(zip(scored[0::2], scored[1::2], strict=True))

    def _draws(self, pairs: Sequence[Pair]) -> Tensor:
        keys = [(pair.prompt.row_id, pair.epoch, index) for index, pair in _numbered(pairs)]
        return torch.from_numpy(uniforms(self.maker.seed, "label", keys, 1)[:, 0])

    def _baselines(self, pairs: Sequence[Pair], reference: Sequence[tuple[Tensor, Tensor]], draws: Tensor) -> Tensor:
        """Leave-one-out means over the global batch, route by route, of routes with a correction; 0 elsewhere.

        The policy's log-probs are those that sampling returned: the weights are the same, and a baseline only has
        to be independent of the pair it is for.
        """
        baselines = torch.zeros(len(pairs), dtype=torch.float64)
        for route in self.method.active_routes:
            if not route.correction:
                continue
            index = [i for i, pair in enumerate(pairs) if pair.route == route.name]
            losses = self._plain_losses(route, [pairs[i] for i in index], [reference[i] for i in index], draws[index])
            mine = [(pairs[i].prompt.row_id, loss) for i, loss in zip(index, losses, strict=True)]
            everyone = self.gather(mine)
            by_row = _leave_one_out_by_row(everyone, self._undecided())
            for i in index:
                baselines[i] = by_row[pairs[i].prompt.row_id]
        return baselines

    def _plain_losses(
        self, route: Route, pairs: Sequence[Pair], reference: Sequence[tuple[Tensor, Tensor]], draws: Tensor
    ) -> list[float]:
        if not pairs:
            return []
        logps = LogProbs(
            torch.tensor([pair.first.logp for pair in pairs], dtype=torch.float64),
            torch.tensor([pair.second.logp for pair in pairs], dtype=torch.float64),
            torch.stack([first.double().sum() for first, _ in reference]),
            torch.stack([second.double().sum() for _, second in reference]),
            torch.tensor([pair.first.length for pair in pairs]),
            torch.tensor([pair.second.length for pair in pairs]),
        )
        plain = replace(route, correction=0.0)
        value = route_loss(self.method, plain, logps, preferences(pairs, torch.float64), uniform=draws).value
        return [float(loss) for loss in value]

    def _undecided(self) -> float:
        """The objective's loss at a margin of 0: the baseline of a pair that has no other to lean on."""
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1)
        return float(self.method.bound_objective()(LogProbs(zero, zero, zero, zero, one, one), None))

    def _extras(self, epoch: int, rows: Sequence[Row]) -> list[Extra]:
        """One completion of the reference for each row, where an addend asks for it."""
        if not rows or not any(addend.coefficient for addend in self.method.addends):
            return []
        started = time.perf_counter()
        completions = self.draw_reference(rows, epoch)
        drawn = time.perf_counter()
        scored = self.score_reference([row.prompt for row in rows], completions)
        self.seconds["generation"] += drawn - started
        self.seconds["scoring"] += time.perf_counter() - drawn
        return [
            Extra(row.prompt, completion, logps)
            for row, completion, logps in zip(rows, completions, scored, strict=True)
        ]


def preferences(pairs: Sequence[Pair], dtype: torch.dtype) -> Tensor:
    """``p`` of each pair; 1/2 where the policy labels the pair inside the loss, which does not read it."""
    return torch.tensor([0.5 if pair.p is None else pair.p for pair in pairs], dtype=dtype)


def _row_means(counts: Sequence[int]) -> Tensor:
    """1 / (pairs of its row) for each pair, rows in order.

    >>> _row_means([1, 0, 2]).tolist()
    [1.0, 0.5, 0.5]
    """
    return torch.tensor([1 / count for count in counts for _ in range(count)])


def _numbered(pairs: Sequence[Pair]) -> list[tuple[int, Pair]]:
    """Each pair with its number among the pairs of its row."""
    seen: dict[int, int] = {}
    numbered = []
    for pair in pairs:
        row = pair.prompt.row_id
        numbered.append((seen.get(row, 0), pair))
        seen[row] = seen.get(row, 0) + 1
    return numbered


def _leave_one_out_by_row(losses: Sequence[tuple[int, float]], alone: float) -> dict[int, float]:
    """Baseline of each row. Sorted by row, so that the sum does not depend on how rows were dealt to processes."""
    ordered = sorted(losses)
    rows = torch.tensor([row for row, _ in ordered])
    baseline = leave_one_out(torch.tensor([loss for _, loss in ordered], dtype=torch.float64), rows, alone)
    return {row: float(value) for (row, _), value in zip(ordered, baseline, strict=True)}


def _stand_in(batch: MicroBatch, row: Row) -> MicroBatch:
    """Where all pairs are missing, one forward pass still runs, at weight 0, so that processes stay in step."""
    token = Completion(token_ids=row.prompt.token_ids[-1:], text="", finished=True)
    pair = Pair(prompt=row.prompt, first=token, second=token, p=0.5, route="offline", labeler="missing")
    zero = torch.zeros(1)
    return replace(
        batch,
        pairs=(pair,),
        reference=((zero, zero),),
        weights=zero,
        baselines=torch.zeros(1, dtype=torch.float64),
        uniforms=torch.zeros(1, dtype=torch.float64),
    )
