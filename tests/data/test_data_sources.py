"""Where rows may come from: every source gives the same examples."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict

from setsail.core import ConfigError, DataError
from setsail.data import load_preferences
from setsail.data import sources as sources_module


def same(loaded, pairs):
    assert [example.prompt for example in loaded] == [row["prompt"] for row in pairs]
    assert [example.chosen for example in loaded] == [row["chosen"] for row in pairs]
    assert [example.row_id for example in loaded] == list(range(len(pairs)))
    assert [example.source_row for example in loaded] == list(range(len(pairs)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.json", "a.json.gz"])
def test_json_lines(write, pairs, name):
    loaded = load_preferences(write(name, pairs))
    same(loaded, pairs)
    assert loaded[3].columns == {"level": 3}


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_list(write, pairs, name, indent):
    same(load_preferences(str(write(name, json.dumps(pairs, indent=indent)))), pairs)


def test_byte_order_mark_and_blank_lines(write, pairs):
    text = "\ufeff" + "\n\n".join(json.dumps(row) for row in pairs)
    same(load_preferences(write("a.jsonl", text)), pairs)


def test_parquet(tmp_path, pairs):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs), tmp_path / "a.parquet")
    same(load_preferences(tmp_path / "a.parquet"), pairs)


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(write, name):
    text = 'prompt,chosen,rejected,p\n"1,\n2?","He said ""two"".",None.,0.75\n007,James,Bond,1\n'
    loaded = load_preferences(write(name, text))
    assert loaded[0].prompt == "1,\n2?"
    assert loaded[0].chosen == 'He said "two".'
    assert loaded[0].p == 0.75
    assert loaded[1].prompt == "007"
    assert loaded[1].p == 1.0


def test_list_and_dataset(pairs):
    same(load_preferences(pairs), pairs)
    same(load_preferences(Dataset.from_list(pairs)), pairs)
    same(load_preferences(iter(pairs)), pairs)


def test_every_source_has_the_same_fingerprint(write, tmp_path, pairs):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(pairs), tmp_path / "a.parquet")
    found = [pairs, write("a.jsonl.gz", pairs), tmp_path / "a.parquet", Dataset.from_list(pairs)]
    prints = {load_preferences(source).fingerprint for source in found}
    assert len(prints) == 1
    assert len(prints.pop()) == 32
    changed = [*pairs[:-1], {**pairs[-1], "chosen": "Eleven."}]
    assert load_preferences(changed).fingerprint != load_preferences(pairs).fingerprint


def test_limit(write, pairs):
    for source in (
        pairs,
        write("a.jsonl", pairs),
        Dataset.from_list(pairs),
        Dataset.from_list(pairs).to_iterable_dataset(),
    ):
        same(load_preferences(source, limit=4), pairs[:4])
    assert len(load_preferences(Dataset.from_list(pairs), limit=40)) == 10


def test_limit_must_be_positive(pairs):
    with pytest.raises(ConfigError, match="limit=0 must be at least 1 row"):
        load_preferences(pairs, limit=0)


def test_stream_needs_a_limit(pairs):
    with pytest.raises(DataError, match=r"streamed data set has no known end.*Say limit=N"):
        load_preferences(Dataset.from_list(pairs).to_iterable_dataset())


def test_formatted_dataset_gives_plain_values(pairs):
    same(load_preferences(Dataset.from_list(pairs).with_format("numpy")), pairs)


def test_dataset_dict(pairs):
    data = DatasetDict({"train": Dataset.from_list(pairs), "test": Dataset.from_list(pairs[:2])})
    assert len(load_preferences(data)) == 10
    assert len(load_preferences(data, split="test")) == 2
    with pytest.raises(DataError, match=r"no split 'tests'. Splits present: train, test; did you mean 'test'\?"):
        load_preferences(data, split="tests")
    del data["train"]
    with pytest.raises(DataError, match=r"which split\? Splits present: test, none of them 'train'. Say split='test'"):
        load_preferences(data)


def test_split_of_a_single_file(write, pairs):
    path = write("a.jsonl", pairs)
    assert len(load_preferences(path, split="train")) == 10
    with pytest.raises(DataError, match="there is no split 'test'; what was given is a single split, 'train'"):
        load_preferences(path, split="test")
    with pytest.raises(DataError, match="there is no split 'test'"):
        load_preferences(pairs, split="test")
    with pytest.raises(DataError, match="there is no split 'test'"):
        load_preferences(Dataset.from_list(pairs), split="test")


def test_saved_to_disk(tmp_path, pairs):
    Dataset.from_list(pairs).save_to_disk(tmp_path / "one")
    same(load_preferences(tmp_path / "one"), pairs)
    both = DatasetDict({"train": Dataset.from_list(pairs), "test": Dataset.from_list(pairs[:2])})
    both.save_to_disk(tmp_path / "two")
    assert len(load_preferences(tmp_path / "two", split="test")) == 2
    (tmp_path / "one" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(DataError, match="the saved data set cannot be read"):
        load_preferences(tmp_path / "one")


def test_directory_of_files(write, pairs):
    path = write("set/train-00000-of-00002.jsonl", pairs[:6])
    write("set/train-00001-of-00002.jsonl.gz", pairs[6:])
    write("set/test.jsonl", pairs[:3])
    write("set/README.md", "text")
    same(load_preferences(path.parent), pairs)
    assert len(load_preferences(path.parent, split="test")) == 3
    with pytest.raises(DataError, match=r"no split 'validation'. Splits present: test, train"):
        load_preferences(path.parent, split="validation")


def test_error_in_a_directory_names_the_file(write, pairs):
    path = write("set/a.jsonl", json.dumps(pairs[0]) + "\n{oops\n")
    with pytest.raises(DataError, match=r"a\.jsonl: row 2 is not readable JSON"):
        load_preferences(path.parent)


def test_directory_without_data(tmp_path):
    with pytest.raises(DataError, match=r"holds no data file. Known endings: \.jsonl"):
        load_preferences(tmp_path)


def test_missing_file_names_the_nearest(write, pairs):
    path = write("pairs.jsonl", pairs)
    with pytest.raises(DataError, match=r"no such file or directory; did you mean 'pairs.jsonl'\?"):
        load_preferences(path.parent / "pair.jsonl")


@pytest.mark.parametrize("name", ["missing", "./owner/name", "owner/name.jsonl", "a/b/c"])
def test_what_does_not_look_like_a_hub_id_makes_no_call(monkeypatch, name):
    monkeypatch.setattr(sources_module, "_load_from_hub", lambda *_: pytest.fail("the hub was called"))
    with pytest.raises(DataError, match="no such file or directory"):
        load_preferences(name)


def test_mistyped_path_below_a_directory_makes_no_call(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()
    monkeypatch.setattr(sources_module, "_load_from_hub", lambda *_: pytest.fail("the hub was called"))
    with pytest.raises(DataError, match="no such file or directory"):
        load_preferences("data/pairs")


def test_hub_id(monkeypatch, pairs):
    import datasets

    asked = []
    monkeypatch.setattr(
        datasets, "load_dataset", lambda name: asked.append(name) or DatasetDict(train=Dataset.from_list(pairs))
    )
    same(load_preferences("owner/name"), pairs)
    assert asked == ["owner/name"]


def test_hub_failure(monkeypatch):
    import datasets

    def fail(name):
        raise ConnectionError("no route\nlong trace")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"dataset \(owner/name\): nothing of that name lies here.*\(no route\)"):
        load_preferences("owner/name")


def test_what_is_not_a_data_set():
    with pytest.raises(DataError, match="a int is not a data set"):
        load_preferences(3)
    with pytest.raises(DataError, match="a dict is not a data set"):
        load_preferences({"prompt": ["a"]})
    with pytest.raises(DataError, match="row 2 is a str, not a dict"):
        load_preferences([{"prompt": "a", "chosen": "b", "rejected": "c"}, "text"])


def test_where_begins_the_message():
    with pytest.raises(DataError, match=r"^eval_dataset \(list\): empty"):
        load_preferences([], where="eval_dataset")


def test_preference_set_is_returned_as_it_is(pairs):
    loaded = load_preferences(pairs)
    assert load_preferences(loaded) is loaded


def test_import_is_light():
    import subprocess

    code = "import sys, setsail.data; print(sorted({'torch', 'datasets', 'transformers', 'rich'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
