"""A labeler whose verdicts are written down: for tests and dry runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from setsail.core import Candidates, Judgement
from setsail.labelers.scores import check_scale, judgement_from_scores

Script = Mapping[tuple[str, str], float | None] | Callable[[str, str], float | None]
"""The score of ``(prompt text, completion text)``, as a table or as a function; None = missing."""


class Scripted:
    """Scores that you wrote down, by prompt and completion text; deterministic, no model, no network.

    Args:
        script: a table ``{(prompt, completion): score}`` or a function ``f(prompt, completion) -> score``. What the
            table lacks is missing. What the function raises passes to the caller, as a broken labeler's would.
        hard: the higher score wins with certainty.
        scale: score gap that counts as one nat of log-odds.
        name: who signs the judgements.

    Attributes:
        calls: number of groups in each call so far.

    >>> from setsail.core import Completion, Prompt
    >>> group = Candidates(prompt=Prompt(row_id=0, text="2+2?", token_ids=(1,)),
    ...                    completions=(Completion(token_ids=(2,), text="4"), Completion(token_ids=(3,), text="5")))
    >>> Scripted({("2+2?", "4"): 1.0, ("2+2?", "5"): 0.0}, hard=True).label([group])[0].preference
    ((0.5, 1.0), (0.0, 0.5))
    """

    def __init__(self, script: Script, *, hard: bool = False, scale: float = 1.0, name: str = "scripted") -> None:
        self._script = script
        self.hard = hard
        self.scale = check_scale(scale)
        self.name = name
        self.calls: list[int] = []

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One judgement a group, from the script."""
        self.calls.append(len(groups))
        return [
            judgement_from_scores(
                [self._score(group.prompt.text, completion.text) for completion in group.completions],
                labeler=self.name,
                hard=self.hard,
                scale=self.scale,
                reason="the script has no score for a completion of this prompt",
            )
            for group in groups
        ]

    def _score(self, prompt: str, completion: str) -> float | None:
        if callable(self._script):
            return self._script(prompt, completion)
        return self._script.get((prompt, completion))
