"""A preference set as token ids: what training reads."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from setsail.core import DataError, Row
from setsail.data.preferences import PreferenceSet
from setsail.data.tokenizing import Encoded, RowTokenizer

_PARTS = 3  # prompt, chosen, rejected


class TokenizedPreferences(Sequence[Row]):
    """Rows with token ids, tokenized once and stored compactly; usable as a map-style data set.

    The ids of all rows lie in one int32 array, with the borders of each row's prompt, chosen and rejected beside
    it. Rows are made when they are asked for.

    Args:
        preferences: the checked set.
        tokenizer: makes the ids.

    Attributes:
        counts: ``examples`` given, ``rows`` kept, ``dropped_long_prompts``, ``cut_prompts`` (with "keep-end"),
            ``cut_answers`` (single answers, not pairs), ``dropped_same_when_cut`` (pairs whose answers differ only
            beyond the length limit).
        fingerprint: hash of the examples and of their ids, 32 hex digits.
        lengths: tokens of prompt, chosen and rejected, int64, shape ``(rows, 3)``.

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
            elif encoded.chosen is not None and encoded.chosen == encoded.rejected:
                self.counts["dropped_same_when_cut"] += 1
            else:
                self.counts["rows"] += 1
                self.counts["cut_prompts"] += encoded.long_prompt
                self.counts["cut_answers"] += sum(encoded.cut)
                yield index, encoded

    def _store(self, kept: Sequence[tuple[int, Encoded]]) -> None:
        parts = [part or [] for _, row in kept for part in (row.prompt, row.chosen, row.rejected)]
        self._examples = np.array([index for index, _ in kept], dtype=np.int64)
        self._cut = np.array([row.cut for _, row in kept], dtype=np.bool_).reshape(-1, 2)
        self._long = np.array([row.long_prompt for _, row in kept], dtype=np.bool_)
        self._borders = np.cumsum([0, *map(len, parts)], dtype=np.int64)
        self._ids: NDArray[np.int32] = np.fromiter(
            (token for part in parts for token in part), dtype=np.int32, count=int(self._borders[-1])
        )
        self.lengths: NDArray[np.int64] = np.diff(self._borders).reshape(-1, _PARTS)

    def _hash(self) -> str:
        digest = hashlib.blake2b(self._preferences.fingerprint.encode(), digest_size=16)
        for array in (self._examples, self._borders, self._ids):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()

    def _nothing_left(self) -> str:
        counts, limits = self.counts, self._tokenizer
        return (
            f"{self._preferences.name}: no row is left of {counts['examples']}: "
            f"{counts['dropped_long_prompts']} prompts are longer than max_prompt_length={limits.max_prompt_length} "
            f"tokens and {counts['dropped_same_when_cut']} pairs are equal within max_completion_length="
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
        example = self._preferences[int(self._examples[place])]
        prompt, chosen, rejected = (self._part(place, part) for part in range(_PARTS))
        cut = (bool(self._cut[place, 0]), bool(self._cut[place, 1]))
        paired = example.has_pair
        encoded = Encoded(
            prompt, chosen if paired else None, rejected if paired else None, cut, bool(self._long[place])
        )
        return self._tokenizer.row(example, encoded)

    def _part(self, place: int, part: int) -> list[int]:
        first = place * _PARTS + part
        ids: list[int] = self._ids[self._borders[first] : self._borders[first + 1]].tolist()
        return ids

    def __repr__(self) -> str:
        return f"TokenizedPreferences({self._preferences.name}, {len(self):,} rows, {len(self._ids):,} tokens)"
