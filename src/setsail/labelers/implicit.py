"""The policy as its own labeler."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from setsail.core import Candidates, Judgement, LabelerError
from setsail.labelers.scores import judgement_from_scores

ImplicitScore = Callable[[Sequence[Candidates]], Sequence[Sequence[float]]]
"""``score(groups)``: for each group, ``beta * (log pi(y|x) - log pi_ref(y|x))`` of each candidate, in nats."""


class ImplicitReward:
    """Prefers what the policy's own implicit reward prefers.

        r(x, y) = beta * (log pi(y|x) - log pi_ref(y|x)),     P_ij = sigmoid(r_i - r_j)

    The label is a number: no gradient passes through it. (Routes whose label carries gradient compute it inside
    the loss and need no labeler.)

    Args:
        score: gives r in nats, beta included, for every candidate of the groups it is called with.
        hard: the higher reward wins with certainty.
        length_calibrated: subtract ``alpha * length`` from every reward, alpha from :func:`length_penalty` over the
            groups of each call.
        name: who signs the judgements.

    Source: arXiv 2305.18290, section 4 (the reward that a policy implies); arXiv 2406.09760 (length calibration; there
    lengths are characters, here tokens).

    >>> from setsail.core import Completion, Prompt
    >>> group = Candidates(prompt=Prompt(row_id=0, text="Hi", token_ids=(1,)),
    ...                    completions=(Completion(token_ids=(2,), text="a"), Completion(token_ids=(3,), text="b")))
    >>> [judgement] = ImplicitReward(lambda groups: [[0.5, -0.2]]).label([group])
    >>> round(judgement.preference[0][1], 6)
    0.668188
    """

    def __init__(
        self, score: ImplicitScore, *, hard: bool = False, length_calibrated: bool = False, name: str = "implicit"
    ) -> None:
        self._score = score
        self.hard = hard
        self.length_calibrated = length_calibrated
        self.name = name

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One judgement a group; a reward that is not finite is missing.

        Raises:
            LabelerError: ``score`` did not return one list a group with one number a candidate.
        """
        rewards = [list(row) for row in self._score(groups)]
        expected = [len(group.completions) for group in groups]
        given = [len(row) for row in rewards]
        if given != expected:
            raise LabelerError(
                f"the implicit reward gave {_counts(given)} scores for groups of {_counts(expected)} candidates: "
                "it must return one list a group with one number a candidate"
            )
        if self.length_calibrated:
            lengths = [[one.length for one in group.completions] for group in groups]
            alpha = length_penalty(rewards, lengths)
            rewards = [
                [reward - alpha * length for reward, length in zip(row, sizes, strict=True)]
                for row, sizes in zip(rewards, lengths, strict=True)
            ]
        return [judgement_from_scores(row, labeler=self.name, hard=self.hard) for row in rewards]


def length_penalty(
    rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], *, largest: float = 1.0, step: float = 0.001
) -> float:
    """The alpha at which the best and the worst of each group by ``reward - alpha * length`` are equally long.

    Alpha is searched on a grid from 0 upward; the search ends once the mean length gap grows in size.

    Args:
        rewards, lengths: one row a group, one entry a candidate; nats and tokens.
        largest: end of the grid, nats a token.
        step: of the grid.

    Source: arXiv 2406.09760 (DICE), where alpha is in nats a character.

    >>> length_penalty([[0.5, 0.0, 0.25]], [[50, 2, 20]], step=0.01)
    0.01
    """
    best, smallest = 0.0, math.inf
    for number in range(round(largest / step) + 1):
        alpha = number * step
        gap = abs(_mean_length_gap(rewards, lengths, alpha))
        if gap > smallest:
            break
        if gap < smallest:
            best, smallest = alpha, gap
    return best


def _mean_length_gap(rewards: Sequence[Sequence[float]], lengths: Sequence[Sequence[int]], alpha: float) -> float:
    gaps = []
    for row, sizes in zip(rewards, lengths, strict=True):
        net = [reward - alpha * size for reward, size in zip(row, sizes, strict=True)]
        if len(net) > 1:
            gaps.append(sizes[net.index(max(net))] - sizes[net.index(min(net))])
    return sum(gaps) / len(gaps) if gaps else 0.0


def _counts(counts: Sequence[int]) -> str:
    shown = ", ".join(str(count) for count in counts[:8])
    return f"[{shown}{', ...' if len(counts) > 8 else ''}]"
