"""Held-out evaluation: the data set's pairs under the policy, and freshly drawn answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from setsail.core import Candidates, Engine, Labeler, Row, Sampling
from setsail.methods import Method
from setsail.objectives import LogProbs, k1, k3
from setsail.training.groups import Gather, Score
from setsail.training.loss import right
from setsail.training.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Evaluates a policy against its reference.

    Attributes:
        score_policy, score_reference: token log-probs of completions.
        generations: held-out prompts that are answered.
        seed, sampling, engine: how; the draws are the same at every evaluation, so that changes are the policy's.
        labeler: scores the drawn answers where it gives scores; it may be the one that trains, so its mean is
            reported as ``score_by_training_labeler``.
        process, processes, gather: each process takes every ``processes``-th row.
    """

    method: Method
    engine: Engine
    labeler: Labeler | None
    sampling: Sampling
    seed: int
    generations: int
    score_policy: Score
    score_reference: Score
    gather: Gather
    process: int = 0
    processes: int = 1

    def run(self, rows: Sequence[Row], policy_version: int) -> dict[str, float]:
        """Metrics without prefix.

        ``loss`` (where the objective compares pairs) and ``rewards/*`` over held-out pairs (where rows have them);
        ``kl_k1`` and ``kl_k3`` (nats an answer; not against an anchored reference, whose normalizer is unknown),
        ``completions/*`` and ``score_by_training_labeler`` over answers drawn for the first ``generations`` prompts.
        """
        meter = Meter()
        mine = [rows[index] for index in range(self.process, len(rows), self.processes)]
        self._pairs([row for row in mine if row.chosen is not None and row.rejected is not None], meter)
        answered = [rows[index] for index in range(self.process, min(self.generations, len(rows)), self.processes)]
        self._answers(answered, policy_version, meter)
        return meter.pop(self.gather)

    def _pairs(self, rows: Sequence[Row], meter: Meter) -> None:
        if not rows:
            return
        prompts = [row.prompt for row in rows for _ in range(2)]
        sides = [side for row in rows for side in (row.chosen, row.rejected) if side is not None]
        policy = torch.stack([logps.double().sum() for logps in self.score_policy(prompts, sides)])
        reference = torch.stack([logps.double().sum() for logps in self.score_reference(prompts, sides)])
        lengths = torch.tensor([side.length for side in sides])
        logps = LogProbs(policy[::2], policy[1::2], reference[::2], reference[1::2], lengths[::2], lengths[1::2])
        if not self.method.reads_values and not self.method.is_policy_gradient:
            p = torch.tensor([row.p for row in rows], dtype=torch.float64)
            meter.add("loss", self.method.bound_objective()(logps, p))
        reward = self.method.beta * (policy - reference)
        margin = reward[::2] - reward[1::2]
        meter.add("rewards/chosen", reward[::2])
        meter.add("rewards/rejected", reward[1::2])
        meter.add("rewards/margins", margin)
        meter.add("rewards/accuracies", right(margin))

    def _answers(self, rows: Sequence[Row], policy_version: int, meter: Meter) -> None:
        if not rows:
            return
        groups = self.engine.generate(
            [row.prompt for row in rows],
            n=1,
            sampling=self.sampling,
            streams=[("evaluate", row.prompt.row_id) for row in rows],
            seed=self.seed,
            policy_version=policy_version,
        )
        prompts, answers = [row.prompt for row in rows], [group.completions[0] for group in groups]
        if not self.method.reference.anchor:
            scored = zip(self.score_policy(prompts, answers), self.score_reference(prompts, answers), strict=True)
            for policy, reference in scored:
                meter.add("kl_k1", float(k1(policy.double(), reference.double()).sum()))
                meter.add("kl_k3", float(k3(policy.double(), reference.double()).sum()))
        meter.add("completions/mean_length", [float(answer.length) for answer in answers])
        meter.add("completions/clipped_ratio", [float(not answer.finished) for answer in answers])
        self._scores(groups, meter)

    def _scores(self, groups: Sequence[Candidates], meter: Meter) -> None:
        if self.labeler is None:
            return
        for judgement in self.labeler.label(groups):
            if judgement.scores is not None and judgement.scores[0] is not None:
                meter.add("score_by_training_labeler", judgement.scores[0])
