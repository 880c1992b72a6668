"""The seams: what an engine and a labeler must do. One method each; nothing inherits from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from setsail.core.records import Candidates, Judgement, Prompt, Sampling


@runtime_checkable
class Engine(Protocol):
    """Draws completions of prompts."""

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

        ``streams[i]`` names the random stream of prompt i (see :func:`setsail.core.random.stream`): the
        tokens drawn for a prompt depend on its stream and on the weights, not on the batch around it.
        """
        ...


@runtime_checkable
class Labeler(Protocol):
    """Says which of a prompt's candidates are preferred."""

    name: str

    def label(self, groups: Sequence[Candidates]) -> list[Judgement]:
        """One judgement a group, in order. What cannot be judged is missing (None), never invented."""
        ...
