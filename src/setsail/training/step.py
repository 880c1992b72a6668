"""One optimizer step, prepared: micro-batches of groups with reference log-probs, baselines and weights.

Everything that concerns the *global* batch is settled here, before the first backward pass: how many rows have groups
(the denominator of the mean) and the leave-one-out baselines. So one batch of 8, 2 x 4, 8 x 1 with accumulation and two
processes of 4 give the same gradient.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from setsail.core import Completion, Group, Row, uniforms
from setsail.methods import Addend, Method, Route, route_loss
from setsail.objectives import LogProbs
from setsail.training.batch import AnswerSheet, Extra, MicroBatch, preferences
from setsail.training.buffer import GroupBuffer
from setsail.training.facts import FactMaker, Facts, leave_one_out_by_row
from setsail.training.feed import MicroRows
from setsail.training.groups import Gather, GroupMaker, MadeGroups, Score, Visit


class StepMaker:
    """Prepares optimizer steps from rows."""

    def __init__(
        self,
        maker: GroupMaker,
        buffer: GroupBuffer,
        *,
        score_reference: Score,
        draw_reference: Callable[[Sequence[Row], int], list[Completion]],
        gather: Gather,
        processes: int,
        on_made: Callable[[MadeGroups], None],
        facts: FactMaker,
        seconds: defaultdict[str, float],
    ) -> None:
        self.maker, self.buffer = maker, buffer
        self.method: Method = maker.method
        self.score_reference, self.draw_reference = score_reference, draw_reference
        self.gather, self.processes, self.on_made = gather, processes, on_made
        self.facts, self.seconds = facts, seconds

    def ahead(self, epoch: int, rows: Sequence[Row], policy_version: int) -> None:
        """Make the groups of every row that has none in the buffer."""
        fresh = {(epoch, row.prompt.row_id): row for row in rows if (epoch, row.prompt.row_id) not in self.buffer}
        made = self.maker.make(epoch, list(fresh.values()), policy_version=policy_version)
        self.buffer.put(made.groups)
        # Also with nothing made: processes gather here, and must do so together.
        self.on_made(made)

    def prepare(self, epoch: int, micro_rows: Sequence[MicroRows], policy_version: int) -> list[MicroBatch]:
        """The micro-batches of one step over ``micro_rows``."""
        self.ahead(epoch, [row for micro in micro_rows for row in micro.rows], policy_version)
        visits: set[Visit] = {(epoch, row.prompt.row_id) for micro in micro_rows for row in micro.rows}
        taken = {visit: self.buffer.take(visit, policy_version) for visit in visits}
        rows_with_groups = sum(bool(taken[epoch, row.prompt.row_id]) for micro in micro_rows for row in micro.rows)
        total = max(1, sum(self.gather([rows_with_groups])))
        batches = []
        for micro in micro_rows:
            by_row = [taken[epoch, row.prompt.row_id] for row in micro.rows]
            weights = _row_means([len(groups) for groups in by_row]) * (self.processes / total)
            groups = [group for of_row in by_row for group in of_row]
            batches.append(self._batch(epoch, micro, groups, weights, policy_version))
        return self._settled(batches)

    def _batch(
        self, epoch: int, micro: MicroRows, groups: Sequence[Group], weights: Tensor, policy_version: int
    ) -> MicroBatch:
        """A micro-batch before anything is scored."""
        sheet = AnswerSheet()
        members = tuple(tuple(sheet.add(group.prompt, one) for one in group.completions) for group in groups)
        extras = {
            addend.name: Extra(tuple(dict.fromkeys(self._read_by(addend, sheet, groups, micro.rows, epoch))), 0.0)
            for addend in self.method.addends
            if addend.coefficient
        }
        if not sheet.answers:
            token = Completion(token_ids=micro.spare.prompt.token_ids[-1:], text="", origin="stand-in")
            sheet.add(micro.spare.prompt, token)
        nothing = torch.zeros(len(groups), dtype=torch.float64)
        return MicroBatch(
            answers=tuple(sheet.answers),
            reference=(),
            groups=tuple(groups),
            members=members,
            weights=weights,
            baselines=nothing,
            uniforms=nothing,
            facts={},
            extras=extras,
            policy_version=policy_version,
        )

    def _read_by(
        self, addend: Addend, sheet: AnswerSheet, groups: Sequence[Group], rows: Sequence[Row], epoch: int
    ) -> list[int]:
        """Indices of the answers that an addend reads."""
        if addend.samples == "fresh-reference":
            if not rows:
                return []
            started = time.perf_counter()
            drawn = self.draw_reference(rows, epoch)
            self.seconds["generation"] += time.perf_counter() - started
            return [sheet.add(row.prompt, one) for row, one in zip(rows, drawn, strict=True)]
        found = []
        for group in groups:
            if addend.samples == "compared":
                chosen: Sequence[Completion] = group.completions
            elif addend.samples == "preferred":
                chosen = _preferred(group)
            else:
                chosen = [one for one in (*group.completions, *group.others) if one.origin == addend.samples]
            found += [sheet.add(group.prompt, one) for one in chosen]
        return found

    def _settled(self, batches: Sequence[MicroBatch]) -> list[MicroBatch]:
        """The micro-batches with what depends on the global batch: reference, baselines, weights of added terms."""
        reference = self._reference(batches)
        flat = [group for batch in batches for group in batch.groups]
        draws = self._draws(flat)
        scored_members = [
            [reference_of[index] for index in member]
            for batch, reference_of in zip(batches, reference, strict=True)
            for member in batch.members
        ]
        baselines = self._baselines(flat, scored_members, draws)
        extras = self._extra_weights(batches)
        facts = self._facts(flat)
        settled, start = [], 0
        for batch, scored in zip(batches, reference, strict=True):
            span = slice(start, start + len(batch.groups))
            start += len(batch.groups)
            weighted = {name: replace(extra, weight=extras[name]) for name, extra in batch.extras.items()}
            settled.append(
                replace(
                    batch,
                    reference=tuple(scored),
                    baselines=baselines[span],
                    uniforms=draws[span],
                    facts={name: fact[span] if isinstance(fact, list) else fact for name, fact in facts.items()},
                    extras=weighted,
                )
            )
        return settled

    def _facts(self, groups: Sequence[Group]) -> Facts:
        """What the objective asks for beside log-probs and values."""
        started = time.perf_counter()
        facts = self.facts.make(groups)
        self.seconds["scoring"] += time.perf_counter() - started
        return facts

    def _extra_weights(self, batches: Sequence[MicroBatch]) -> dict[str, float]:
        """Processes / answers of the global batch, for each addend."""
        names = [addend.name for addend in self.method.addends if addend.coefficient]
        mine = tuple(sum(len(batch.extras[name].answers) for batch in batches) for name in names)
        totals = [sum(counts) for counts in zip(*self.gather([mine]), strict=True)] if names else []
        return {name: self.processes / max(total, 1) for name, total in zip(names, totals, strict=True)}

    def _reference(self, batches: Sequence[MicroBatch]) -> list[list[Tensor]]:
        """Reference token log-probs of every answer, scored in one go."""
        started = time.perf_counter()
        answers = [answer for batch in batches for answer in batch.answers]
        scored = self.score_reference([each.prompt for each in answers], [each.completion for each in answers])
        self.seconds["scoring"] += time.perf_counter() - started
        parts, start = [], 0
        for batch in batches:
            parts.append(scored[start : start + len(batch.answers)])
            start += len(batch.answers)
        return parts

    def _draws(self, groups: Sequence[Group]) -> Tensor:
        keys = [(group.prompt.row_id, group.epoch, index) for index, group in _numbered(groups)]
        return torch.from_numpy(uniforms(self.maker.seed, "label", keys, 1)[:, 0])

    def _baselines(self, groups: Sequence[Group], reference: Sequence[Sequence[Tensor]], draws: Tensor) -> Tensor:
        """Leave-one-out means over the global batch, route by route, of routes with a correction; 0 elsewhere.

        The policy's log-probs are those that sampling returned: the weights are the same, and a baseline only has
        to be independent of the pair it is for.
        """
        baselines = torch.zeros(len(groups), dtype=torch.float64)
        for route in self.method.active_routes:
            if not route.correction:
                continue
            index = [i for i, group in enumerate(groups) if group.route == route.name]
            losses = self._plain_losses(route, [groups[i] for i in index], [reference[i] for i in index], draws[index])
            mine = [(groups[i].prompt.row_id, loss) for i, loss in zip(index, losses, strict=True)]
            everyone = self.gather(mine)
            by_row = leave_one_out_by_row(everyone, self._undecided())
            for i in index:
                baselines[i] = by_row[groups[i].prompt.row_id]
        return baselines

    def _plain_losses(
        self, route: Route, pairs: Sequence[Group], reference: Sequence[Sequence[Tensor]], draws: Tensor
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
        value = route_loss(self.method, plain, logps.group(), preferences(pairs, torch.float64), uniform=draws).value
        return [float(loss) for loss in value]

    def _undecided(self) -> float:
        """The objective's loss at a margin of 0: the baseline of a pair that has no other to lean on."""
        zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1)
        return float(self.method.bound_objective()(LogProbs(zero, zero, zero, zero, one, one), None))


def _preferred(group: Group) -> list[Completion]:
    """The completion that its label prefers; of a tie nothing, of a single completion itself."""
    if len(group.completions) == 1:
        return [group.first]
    if group.values is not None:
        top = max(group.values)
        return [group.completions[group.values.index(top)]] if min(group.values) < top else []
    if group.p is None or group.p == 0.5:
        return []
    return [group.first if group.p > 0.5 else group.second]


def _row_means(counts: Sequence[int]) -> Tensor:
    """1 / (groups of its row) for each group, rows in order.

    >>> _row_means([1, 0, 2]).tolist()
    [1.0, 0.5, 0.5]
    """
    return torch.tensor([1 / count for count in counts for _ in range(count)])


def _numbered(groups: Sequence[Group]) -> list[tuple[int, Group]]:
    """Each group with its number among the groups of its row."""
    seen: dict[int, int] = {}
    numbered = []
    for group in groups:
        row = group.prompt.row_id
        numbered.append((seen.get(row, 0), group))
        seen[row] = seen.get(row, 0) + 1
    return numbered
