"""From what a user names (a path, a hub id, a data set, a list) to rows."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from setsail.core import DataError, nearest
from setsail.data.jsonfiles import read_json_rows
from setsail.data.tables import read_csv_rows, read_parquet_rows

Source = str | Path | Iterable[Mapping[str, Any]]
"""What can be read: a path or hub id, rows, or any data set of the `datasets` library."""

Rows = list[Mapping[str, Any]]

READERS: Mapping[str, Callable[[Path, str], Iterable[Mapping[str, Any]]]] = {
    ".jsonl": read_json_rows,
    ".ndjson": read_json_rows,
    ".json": read_json_rows,
    ".csv": read_csv_rows,
    ".parquet": read_parquet_rows,
}
_NOT_DATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"})
_SPLIT_WORDS = {
    "train": "train", "training": "train", "test": "test", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "eval": "eval",
}  # fmt: skip
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def read_rows(source: Source | Any, *, split: str | None, limit: int | None, where: str) -> tuple[str, Rows]:
    """``(title, rows)``: how messages name the data set, and its rows (at most the first ``limit``).

    Raises:
        DataError: nothing there, not readable, no such split, or a stream without a limit.
    """
    if isinstance(source, str | Path):
        return _read_named(str(source), split, limit, where)
    title = f"{where} ({type(source).__name__})"
    if type(source).__module__.partition(".")[0] == "datasets":
        return title, _read_hf(source, split, limit, title)
    if isinstance(source, Mapping | bytes) or not isinstance(source, Iterable):
        raise DataError(
            f"{title}: a {type(source).__name__} is not a data set. Give a path, a hub id, a datasets.Dataset "
            "or DatasetDict, or a list of dicts, one a row."
        )
    _only_train(split, title)
    return title, _taken(_dicts(source, title), limit)


def _dicts(source: Iterable[Any], title: str) -> Iterable[Mapping[str, Any]]:
    for number, row in enumerate(source, start=1):
        if not isinstance(row, Mapping):
            raise DataError(
                f'{title}: row {number} is a {type(row).__name__}, not a dict such as {{"prompt": "...", '
                '"chosen": "...", "rejected": "..."}.'
            )
        yield row


def _taken(rows: Iterable[Mapping[str, Any]], limit: int | None) -> Rows:
    return list(rows if limit is None else islice(rows, limit))


def _only_train(split: str | None, title: str) -> None:
    if split not in (None, "train"):
        raise DataError(f"{title}: there is no split {split!r}; what was given is a single split, 'train'.")


def _pick(splits: Iterable[str], split: str | None, title: str) -> str:
    """The split asked for; without one, "train"."""
    names = list(splits)
    if split is not None and split not in names:
        raise DataError(
            f"{title}: there is no split {split!r}. Splits present: {', '.join(names)}{nearest(split, names) or '.'}"
        )
    if split is None and "train" not in names:
        raise DataError(
            f"{title}: which split? Splits present: {', '.join(names)}, none of them 'train'. Say split={names[0]!r}."
        )
    return split or "train"


# What lies at a path.


def _read_named(name: str, split: str | None, limit: int | None, where: str) -> tuple[str, Rows]:
    path = Path(name).expanduser()
    title = f"{where} ({name})"
    if path.is_dir():
        return title, _read_directory(path, split, limit, title)
    if path.exists():
        _only_train(split, title)
        return title, _taken(_read_file(path, title), limit)
    if _looks_like_hub_id(name):
        return title, _read_hf(_load_from_hub(name, title), split, limit, title)
    siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
    raise DataError(
        f"{title}: no such file or directory{nearest(path.name, siblings) or '.'} A hub id has the form owner/name."
    )


def _kind(path: Path) -> str:
    inner = path.with_suffix("") if path.suffix == ".gz" else path
    return inner.suffix.lower()


def _read_file(path: Path, title: str) -> Iterable[Mapping[str, Any]]:
    kind = _kind(path)
    if kind not in READERS:
        raise DataError(
            f"{title}: files ending in {path.suffix or 'nothing'!r} are not read. Known endings: "
            f"{', '.join(READERS)}, and the text ones followed by .gz."
        )
    return READERS[kind](path, title)


def _read_directory(path: Path, split: str | None, limit: int | None, title: str) -> Rows:
    if (path / "dataset_dict.json").exists() or (path / "state.json").exists():
        from datasets import load_from_disk

        try:
            saved = load_from_disk(str(path))
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{title}: the saved data set cannot be read ({error}). Save it again.") from error
        return _read_hf(saved, split, limit, title)
    splits = _files_by_split(path)
    if not splits:
        raise DataError(f"{title}: the directory holds no data file. Known endings: {', '.join(READERS)}.")
    files = splits[_pick(splits, split, title)]
    return _taken((row for file in files for row in _read_file(file, f"{title}, {file.name}")), limit)


def _files_by_split(path: Path) -> dict[str, list[Path]]:
    """Data files directly in a directory or in its ``data``, by the split that their name tells ("train" if none)."""
    found: dict[str, list[Path]] = {}
    for file in sorted([*path.glob("*"), *path.glob("data/*")]):
        if file.is_file() and file.name not in _NOT_DATA and _kind(file) in READERS:
            words = re.split(r"[^a-z]+", file.name.lower())
            name = next((_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS), "train")
            found.setdefault(name, []).append(file)
    return found


# Data sets of the `datasets` library.


def _looks_like_hub_id(name: str) -> bool:
    # An owner that is a directory here means a mistyped path: nobody asked for a call to the hub.
    return bool(_HUB_ID.fullmatch(name)) and _kind(Path(name)) not in READERS and not Path(name).parent.is_dir()


def _load_from_hub(name: str, title: str) -> Any:
    from datasets import load_dataset

    try:
        return load_dataset(name)
    except Exception as error:  # the hub client raises many unrelated types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(
            f"{title}: nothing of that name lies here, and the hub did not give it ({reason}). "
            "Check the spelling, the connection and, for a gated set, that you are logged in."
        ) from error


def _read_hf(source: Any, split: str | None, limit: int | None, title: str) -> Rows:
    from datasets import Dataset, DatasetDict, IterableDataset, IterableDatasetDict

    if isinstance(source, DatasetDict | IterableDatasetDict):
        source = source[_pick(source, split, title)]
    elif split is not None and split != str(getattr(source, "split", None)):
        _only_train(split, title)
    if isinstance(source, IterableDataset) and limit is None:
        raise DataError(
            f"{title}: a streamed data set has no known end, and its rows are kept in memory to be checked before "
            "training. Say limit=N to take its first N rows, or load it without streaming."
        )
    if isinstance(source, Dataset):
        source = source.with_format(None)
        return list(source if limit is None else source.take(min(limit, len(source))))
    return _taken(source, limit)
