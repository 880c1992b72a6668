"""A checked set of examples."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import overload

from setsail.data.examples import Example, canonical
from setsail.data.report import CheckReport, describe


class PreferenceSet(Sequence[Example]):
    """Examples in the order of the source, with what the check found.

    Attributes:
        report: the :class:`CheckReport`.
        name: the data set, as messages name it.

    >>> from setsail.data import load_preferences
    >>> sums = load_preferences([{"prompt": "1+1?", "chosen": "2", "rejected": "3"}])
    >>> len(sums), sums[0].chosen
    (1, '2')
    """

    def __init__(self, examples: Sequence[Example], report: CheckReport) -> None:
        self._examples = tuple(examples)
        self.report = report

    @property
    def name(self) -> str:
        """The data set, as messages name it."""
        return self.report.name

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the row ids, prompts, answers, p and scores, as 32 hex digits; the kept columns do not enter it."""
        digest = hashlib.blake2b(digest_size=16)
        for example in self._examples:
            parts = [str(example.row_id), *map(canonical, (example.prompt, example.chosen, example.rejected))]
            # Of pairs nothing follows p: lists and single answers came later, and the hashes of pairs stay.
            listed = [*map(canonical, example.answers), *(repr(float(score)) for score in example.scores)]
            digest.update("\x1f".join([*parts, repr(float(example.p)), *listed]).encode() + b"\x1e")
        return digest.hexdigest()

    def subset(self, indices: Sequence[int], name: str) -> PreferenceSet:
        """The examples at ``indices``, in that order, under another name and with a report of their own."""
        examples = [self._examples[index] for index in indices]
        rows = len({example.source_row for example in examples})
        of = self.report
        return PreferenceSet(
            examples, describe(examples, name=name, form=of.form, needs=of.needs, rows=rows, faults={})
        )

    def __len__(self) -> int:
        return len(self._examples)

    def __iter__(self) -> Iterator[Example]:
        return iter(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self._examples[index]

    def __repr__(self) -> str:
        return f"PreferenceSet({self.name}, {len(self):,} examples)"
