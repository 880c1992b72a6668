"""The policy as its own labeler."""

from __future__ import annotations

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
        name: who signs the judgements.

    Source: arXiv 2305.18290, section 4 (the reward that a policy implies).

    >>> from setsail.core import Completion, Prompt
    >>> group = Candidates(prompt=Prompt(row_id=0, text="Hi", token_ids=(1,)),
    ...                    completions=(Completion(token_ids=(2,), text="a"), Completion(token_ids=(3,), text="b")))
    >>> [judgement] = ImplicitReward(lambda groups: [[0.5, -0.2]]).label([group])
    >>> round(judgement.preference[0][1], 6)
    0.668188
    """

    def __init__(self, score: ImplicitScore, *, hard: bool = False, name: str = "implicit") -> None:
        self._score = score
        self.hard = hard
        self.name = name

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One judgement a group; a reward that is not finite is missing.

        Raises:
            LabelerError: ``score`` did not return one list a group with one number a candidate.
        """
        rewards = self._score(groups)
        expected = [len(group.completions) for group in groups]
        given = [len(row) for row in rewards]
        if given != expected:
            raise LabelerError(
                f"the implicit reward gave {_counts(given)} scores for groups of {_counts(expected)} candidates: "
                "it must return one list a group with one number a candidate"
            )
        return [judgement_from_scores(row, labeler=self.name, hard=self.hard) for row in rewards]


def _counts(counts: Sequence[int]) -> str:
    shown = ", ".join(str(count) for count in counts[:8])
    return f"[{shown}{', ...' if len(counts) > 8 else ''}]"
