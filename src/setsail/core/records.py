"""The records that flow through a run: row -> candidates -> judgement -> group.

Units: log-probs in nats, lengths in tokens, probabilities in [0, 1]. "First" and "second" name the two
completions of a pair before and after labeling; ``p`` is the probability that the first is preferred. A
preference that could not be obtained is ``None`` (missing), never a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Message = Mapping[str, Any]
"""One chat message, ``{"role": ..., "content": ...}``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked: the text as the user wrote it, and the token ids that the policy reads.

    Attributes:
        row_id: index of the row in the data set it came from.
        text: the prompt as plain text (for messages: the content of the last user message).
        token_ids: ids fed to the policy, template and BOS included; computed once.
        messages: the conversation, where the row is conversational.
        columns: every other column of the row, for labelers that want it.
    """

    row_id: int
    text: str
    token_ids: tuple[int, ...]
    messages: tuple[Message, ...] | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer, as token ids.

    Attributes:
        token_ids: the completion's ids, its EOS included if (and only if) one was sampled or ends the
            data set's answer.
        text: the decoded answer without special tokens.
        finished: whether it ended with an EOS; False where the length limit cut it.
        logp: log-prob of ``token_ids`` under the policy that drew it, at temperature 1 and without
            truncation, in nats; None for a data set's answer.
        origin: who wrote it: ``"dataset"``, ``"policy"``, ``"reference"``, ``"opponent"`` or ``"mixture"``.
    """

    token_ids: tuple[int, ...]
    text: str
    finished: bool = True
    logp: float | None = None
    origin: str = "dataset"

    @property
    def length(self) -> int:
        """Number of tokens, EOS included."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a data set: a prompt with the answers that the data hold, if any.

    Attributes:
        chosen, rejected: the two answers of a pair, or of a list the best and the worst; of a demonstration only
            ``chosen``; None in a set of prompts and beside a single labeled answer.
        p: probability that ``chosen`` is preferred: 1 unless the data say otherwise.
        answers: every answer of a row of several scored answers, or the one answer of an unpaired row; empty where
            the data hold pairs, demonstrations or prompts. ``chosen`` and ``rejected`` of a list are among them.
        scores: one score an answer, higher is better; of an unpaired answer +1.0 desirable, -1.0 undesirable.
    """

    prompt: Prompt
    chosen: Completion | None = None
    rejected: Completion | None = None
    p: float = 1.0
    answers: tuple[Completion, ...] = ()
    scores: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How completions are drawn. The defaults draw from the policy itself: nothing is cut off or reshaped."""

    max_completion_length: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0

    @property
    def is_policy(self) -> bool:
        """Whether the draws come from the policy's own distribution."""
        neutral = Sampling(max_completion_length=self.max_completion_length)
        return self == neutral

    def as_dict(self) -> dict[str, float]:
        """The settings, for provenance."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """K completions of one prompt; each says who wrote it.

    Attributes:
        policy_version: number of optimizer steps taken when they were drawn; None for data set answers.
        stream: the name of the random stream (purpose, row, epoch) they were drawn with.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    policy_version: int | None = None
    stream: tuple[int | str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a labeler says of one group of candidates.

    Attributes:
        preference: K x K tuple of tuples; ``preference[i][j]`` is the probability that candidate i is
            preferred to candidate j, or None where it is missing.
        scores: one score a candidate where the labeler gives scores (None = missing), else None.
        labeler: who said so.
        reason: why something is missing, for the log; empty when nothing is.
    """

    preference: tuple[tuple[float | None, ...], ...]
    scores: tuple[float | None, ...] | None
    labeler: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """K completions of one prompt, judged, ready to be scored and learnt from. A pair is a group of two.

    Attributes:
        completions: what is learnt from, in the order that ``values`` follow; a pair's first comes first.
        p: pairs: probability that the first is preferred; None where the label is missing, where the policy labels
            the pair itself inside the loss (``labeler == "policy"``), or for groups of another size.
        values: one number a completion (a score, a win rate), for objectives over groups; None elsewhere.
        others: completions of the same prompt that are not compared but that an added term reads.
        route: name of the route that made the group.
        labeler: ``"dataset"``, ``"policy"`` or the labeler's name.
        scores: the labeler's scores, where it gives any.
        policy_version: optimizer steps taken when the completions were drawn; None for data set answers.
        stream: name of the random stream of the draw.
        epoch: the epoch in which the row was visited.
    """

    prompt: Prompt
    completions: tuple[Completion, ...]
    route: str
    labeler: str
    p: float | None = None
    values: tuple[float, ...] | None = None
    others: tuple[Completion, ...] = ()
    scores: tuple[float | None, ...] | None = None
    policy_version: int | None = None
    stream: tuple[int | str, ...] = ()
    epoch: int = 0

    @property
    def first(self) -> Completion:
        """The first completion."""
        return self.completions[0]

    @property
    def second(self) -> Completion:
        """The second completion, of a group that has one."""
        return self.completions[1]

    @property
    def is_pair(self) -> bool:
        """Whether two completions are compared."""
        return len(self.completions) == 2
