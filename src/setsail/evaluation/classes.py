"""Agreement on classes, for policies whose answers carry labels (a tool's name, a field of a form)."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from setsail.core import DataError


def macro_f1(truth: Sequence[Hashable], predicted: Sequence[Hashable]) -> float:
    """The mean over classes of ``F1 = 2 hits / (occurrences in truth + occurrences in predictions)``.

    Every class that occurs on either side counts, once and equally: none is dropped for what it is called, and a class
    that is never predicted counts as 0. A prediction that could not be read has to be a class of its own (None).

    Raises:
        DataError: no labels, or lists of different lengths.

    >>> round(macro_f1(["a", "a", "b", "b", "c"], ["a", "b", "b", "b", "c"]), 6)
    0.822222
    """
    if not truth or len(truth) != len(predicted):
        raise DataError(
            f"{len(truth)} labels and {len(predicted)} predictions: give one of each an answer, at least one"
        )
    classes = dict.fromkeys([*truth, *predicted])
    hits = dict.fromkeys(classes, 0)
    for true, said in zip(truth, predicted, strict=True):
        hits[true] += true == said
    scores = [2 * hits[each] / (list(truth).count(each) + list(predicted).count(each)) for each in classes]
    return sum(scores) / len(scores)
