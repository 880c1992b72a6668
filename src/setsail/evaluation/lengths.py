"""What completions look like at a glance: how long, how often cut off, how varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from setsail.core import Completion, DataError
from setsail.evaluation.diversity import distinct
from setsail.evaluation.intervals import Interval, wilson


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """A set of completions in five numbers.

    Attributes:
        count: number of completions.
        mean: mean length in tokens, EOS included.
        truncated: share that the length limit cut.
        distinct_1, distinct_2: different words, and pairs of neighboring words, as shares of all of them over the
            whole set: near 0 where every answer says the same. They fall with the amount of text, so compare sets of
            equal size.
    """

    count: int
    mean: float
    truncated: float
    distinct_1: float
    distinct_2: float


def describe_lengths(completions: Sequence[Completion]) -> Lengths:
    """The five numbers of a set of completions.

    Raises:
        DataError: no completions.

    Source: distinct-n, arXiv 1510.03055 section 5; here over words separated by white space.

    >>> found = describe_lengths([Completion(token_ids=(5, 6, 1), text="no no"),
    ...                           Completion(token_ids=(5,), text="no", finished=False)])
    >>> found.mean, found.truncated, round(found.distinct_1, 3), found.distinct_2
    (2.0, 0.5, 0.333, 1.0)
    """
    if not completions:
        raise DataError("no completions to describe")
    texts = [completion.text.split() for completion in completions]
    return Lengths(
        count=len(completions),
        mean=sum(completion.length for completion in completions) / len(completions),
        truncated=sum(not completion.finished for completion in completions) / len(completions),
        distinct_1=distinct(texts, 1),
        distinct_2=distinct(texts, 2),
    )


def truncation_rate(completions: Sequence[Completion], *, confidence: float = 0.95) -> Interval:
    """Share of completions that the length limit cut, with its Wilson interval.

    Compare policies where it is near 0: a cut answer has no ending that a judge could like.

    Raises:
        DataError: no completions.
        ConfigError: ``confidence`` outside (0, 1).

    >>> print(truncation_rate([Completion(token_ids=(5,), text="no", finished=False)] + 9 * [
    ...     Completion(token_ids=(5, 1), text="no")]))
    0.100 [0.018, 0.404]
    """
    if not completions:
        raise DataError("no completions, so none was cut")
    return wilson(sum(not completion.finished for completion in completions), len(completions), confidence)
