"""What completions look like at a glance: how long, how often cut off, how varied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from setsail.core import Completion, DataError


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


def distinct(texts: Sequence[Sequence[str]], n: int) -> float:
    """Number of different n-grams over the number of n-grams, over all texts; 0 where there are none.

    >>> distinct([["a", "b", "a", "b"]], 2)
    0.6666666666666666
    """
    grams = [tuple(words[i : i + n]) for words in texts for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
