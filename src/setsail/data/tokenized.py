"""A data set as token ids: what training reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from setsail.core import DataError, Row
from setsail.data.examples import Example
from setsail.data.lists import distinct
from setsail.data.preferences import PreferenceSet
from setsail.data.tokenizing import Encoded, RowTokenizer

_PAIR = 3  # parts of a row without a list: prompt, chosen, rejected


class TokenizedPreferences(Sequence[Row]):
    """Rows with token ids, tokenized once and stored compactly; usable as a map-style data set.

    The ids of all rows lie in one int32 array, with the borders of each row's prompt and answers beside it. Rows are
    made when they are asked for.

    Args:
        preferences: the checked set.
        tokenizer: makes the ids.

    Attributes:
        counts: ``examples`` given, ``rows`` kept, ``dropped_long_prompts``, ``cut_prompts`` (with "keep-end"),
            ``cut_answers`` (single answers, not pairs), ``dropped_same_when_cut`` (pairs whose answers differ only
            beyond the length limit, and lists that have nothing left to compare); of sets with lists also
            ``answers_same_when_cut`` (answers left out of the lists that were kept).
        fingerprint: hash of the examples and of their ids, 32 hex digits.
        lengths: tokens of prompt, chosen and rejected, int64, shape ``(rows, 3)``; 0 for one that is not there.

    Raises:
        DataError: no row is left.
    """

    def __init__(self, preferences: PreferenceSet, tokenizer: RowTokenizer) -> None:
        self._preferences = preferences
        self._tokenizer = tokenizer
        self.counts: dict[str, int] = {
            "examples": len(preferences), "rows": 0, "dropped_long_prompts": 0, "cut_prompts": 0, "cut_answers": 0,
            "dropped_same_when_cut": 0,
        }  # fmt: skip
        if any(len(example.answers) > 1 for example in preferences):
            self.counts["answers_same_when_cut"] = 0
        self._reduced: dict[int, Example] = {}
        self._store(list(self._encoded()))
        if not len(self):
            raise DataError(self._nothing_left())
        self.fingerprint = self._hash()

    def _encoded(self) -> Iterator[tuple[int, Encoded]]:
        """``(index of the example, its ids)`` of those that are kept, counting the others."""
        for index, example in enumerate(self._preferences):
            try:
                encoded = self._tokenizer.encode(example)
            except DataError as error:
                raise DataError(f"{self._preferences.name}: {error}") from None
            if encoded.long_prompt and self._tokenizer.long_prompts == "drop":
                self.counts["dropped_long_prompts"] += 1
                continue
            told_apart = self._told_apart(index, example, encoded)
            if told_apart is None:
                self.counts["dropped_same_when_cut"] += 1
                continue
            self.counts["rows"] += 1
            self.counts["cut_prompts"] += told_apart.long_prompt
            self.counts["cut_answers"] += sum(told_apart.cut)
            yield index, told_apart

    def _told_apart(self, index: int, example: Example, encoded: Encoded) -> Encoded | None:
        """The ids without answers that are the same within the limit; None if nothing is left to compare."""
        if len(example.answers) < 2:
            return None if example.has_pair and encoded.answers[0] == encoded.answers[1] else encoded
        kept = distinct([tuple(ids or ()) for ids in encoded.answers], example.scores)
        if len(kept) == len(example.answers):
            return encoded
        reduced = example.only(kept)
        if reduced is None:
            return None
        self._reduced[index] = reduced
        self.counts["answers_same_when_cut"] += len(example.answers) - len(kept)
        answers = tuple(encoded.answers[place] for place in kept)
        return replace(encoded, answers=answers, cut=tuple(encoded.cut[place] for place in kept))

    def _store(self, kept: Sequence[tuple[int, Encoded]]) -> None:
        parts = [part or [] for _, row in kept for part in (row.prompt, *row.answers)]
        self._examples = np.array([index for index, _ in kept], dtype=np.int64)
        self._over_limit = np.array([flag for _, row in kept for flag in (row.long_prompt, *row.cut)], dtype=np.bool_)
        self._borders = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        self._ids: NDArray[np.int32] = np.fromiter(
            (token for part in parts for token in part), dtype=np.int32, count=int(self._borders[-1])
        )
        sizes = [1 + len(row.answers) for _, row in kept]
        self._first = _firsts(sizes)
        sides = [self._example(place).sides for place in range(len(kept))]
        lengths = [
            [len(row.prompt), *(0 if side is None else len(row.answers[side] or ()) for side in two)]
            for (_, row), two in zip(kept, sides, strict=True)
        ]
        self.lengths: NDArray[np.int64] = np.array(lengths, dtype=np.int64).reshape(-1, _PAIR)

    def _hash(self) -> str:
        digest = hashlib.blake2b(self._preferences.fingerprint.encode(), digest_size=16)
        for array in (self._examples, self._borders, self._ids):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _nothing_left(self) -> str:
        counts, limits = self.counts, self._tokenizer
        same = "lists" if "answers_same_when_cut" in counts else "pairs"
        return (
            f"{self._preferences.name}: no row is left of {counts['examples']}: "
            f"{counts['dropped_long_prompts']} prompts are longer than max_prompt_length={limits.max_prompt_length} "
            f"tokens and {counts['dropped_same_when_cut']} {same} are equal within max_completion_length="
            f"{limits.max_completion_length}. Raise the limits, or say long_prompts='keep-end'."
        )

    @property
    def preferences(self) -> PreferenceSet:
        """The set that was tokenized."""
        return self._preferences

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Row:  # type: ignore[override]
        """The row at ``index``; negative indices count from the end.

        Raises:
            IndexError: there is no such row.
        """
        place = range(len(self))[index]
        example = self._example(place)
        first = int(self._first[place])
        prompt, *parts = (self._part(first + number) for number in range(1 + len(example.texts)))
        long_prompt, *cut = self._over_limit[first : first + 1 + len(parts)].tolist()
        answers = tuple(None if text is None else ids for text, ids in zip(example.texts, parts, strict=True))
        return self._tokenizer.row(example, Encoded(prompt, answers, tuple(cut), long_prompt))

    def _example(self, place: int) -> Example:
        index = int(self._examples[place])
        return self._reduced.get(index) or self._preferences[index]

    def _part(self, number: int) -> list[int]:
        ids: list[int] = self._ids[self._borders[number] : self._borders[number + 1]].tolist()
        return ids

    def __repr__(self) -> str:
        return f"TokenizedPreferences({self._preferences.name}, {len(self):,} rows, {len(self._ids):,} tokens)"


def _firsts(sizes: Sequence[int]) -> range | NDArray[np.int64]:
    """The number of each row's first part. Rows of one size, as all pairs are, need no list of them."""
    if len(set(sizes)) <= 1:
        step = sizes[0] if sizes else _PAIR
        return range(0, step * len(sizes), step)
    return np.cumsum([0, *sizes[:-1]], dtype=np.int64)
