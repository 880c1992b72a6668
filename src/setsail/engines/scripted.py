"""An engine that says what it is told: for tests, and for trying a labeler without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from setsail.core import Candidates, Completion, Prompt, Sampling


class ScriptedEngine:
    """Answers from a function ``(prompt, k) -> Completion``; ``origin`` says who is said to have written them.

    >>> engine = ScriptedEngine(lambda prompt, k: Completion(token_ids=(k,), text=str(k)))
    >>> prompt = Prompt(row_id=0, text="?", token_ids=(5,))
    >>> [group] = engine.generate(
    ...     [prompt], n=2, sampling=Sampling(), streams=[("sample", 0, 0)], seed=0, policy_version=3
    ... )
    >>> [completion.text for completion in group.completions], group.policy_version
    (['0', '1'], 3)
    """

    def __init__(self, answer: Callable[[Prompt, int], Completion], *, origin: str = "policy") -> None:
        self.answer = answer
        self.origin = origin

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
        """``n`` scripted completions of each prompt."""
        return [
            Candidates(
                prompt=prompt,
                completions=tuple(replace(self.answer(prompt, k), origin=self.origin) for k in range(n)),
                policy_version=policy_version,
                stream=name,
            )
            for prompt, name in zip(prompts, streams, strict=True)
        ]
