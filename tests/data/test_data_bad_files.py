"""Files that cannot be read: the message says what, where and what to do."""

from __future__ import annotations

import gzip
import json
import re

import pytest

from setsail.core import DataError
from setsail.data import load_preferences

GOOD = json.dumps({"prompt": "1+1?", "chosen": "2", "rejected": "3"})


def refusal(source, **kwargs):
    with pytest.raises(DataError) as caught:
        load_preferences(source, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.csv"])
@pytest.mark.parametrize("content", ["", "\n \n"])
def test_empty_file(write, name, content):
    if name == "a.csv" and content:
        content = "prompt,chosen,rejected\n"
    message = refusal(write(name, content))
    assert "empty, there are no rows to train on." in message
    assert '{"prompt": "...", "chosen": "...", "rejected": "..."}' in message


def test_empty_list(write):
    assert "empty, there are no rows" in refusal(write("a.json", "[ ]"))


def test_unreadable_row(write):
    message = refusal(write("a.jsonl", f"{GOOD}\n{GOOD}\n" + '{"prompt": "x", "chosen"\n'))
    assert "a.jsonl): row 3 is not readable JSON: Expecting ':' delimiter at column 25." in message
    assert "Each line must hold one JSON object" in message


def test_unreadable_row_after_blank_lines(write):
    assert "row 2 (line 4) is not readable JSON" in refusal(write("a.jsonl", f"{GOOD}\n\n\noops\n"))


def test_unreadable_row_of_a_list(write):
    assert "row 2 is not readable JSON" in refusal(write("a.json", f"[{GOOD},\n{{oops}}]"))
    assert "row 2 is not readable JSON" in refusal(write("b.json", f"[{GOOD},]"))
    assert "stops after row 2 without its closing bracket" in refusal(write("c.json", f"[{GOOD},{GOOD}"))
    assert "text after the end of the JSON list of 1 rows" in refusal(write("d.json", f"[{GOOD}] x"))


@pytest.mark.parametrize(
    ("value", "kind"), [("3", "number"), ('"a"', "string"), ("null", "null"), ("[1]", "list"), ("true", "boolean")]
)
def test_row_that_is_no_object(write, value, kind):
    assert f"row 2 is a JSON {kind}, not an object" in refusal(write("a.jsonl", f"{GOOD}\n{value}\n"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "a.json", "a.csv"])
def test_not_utf8(write, name):
    message = refusal(write(name, f"{GOOD}\n".encode() + '{"prompt": "caf\u00e9"}\n'.encode("latin1")))
    assert "line 2 is not UTF-8 (byte 0xe9 at position 16 of the line)" in message
    assert "iconv" in message


def test_gzip_cut_short(write):
    data = gzip.compress("".join(f'{GOOD[:-1]}, "n": {i * 7919 % 10007}}}\n' for i in range(5000)).encode())
    path = write("a.jsonl", b"")
    cut = path.with_name("b.jsonl.gz")
    cut.write_bytes(data[: len(data) // 2])
    found = re.search(r"the gzip file is cut short after line (\d+)", message := refusal(cut))
    assert found, message
    assert 1000 < int(found[1]) < 4000
    assert "Fetch it again." in message


def test_not_gzip(write):
    path = write("a.jsonl", GOOD)
    moved = path.rename(path.with_name("a.jsonl.gz"))
    assert "cannot be unzipped (Not a gzipped file" in refusal(moved)


def test_unknown_ending(write):
    assert "files ending in '.txt' are not read. Known endings: .jsonl" in refusal(write("a.txt", GOOD))


def test_csv_row_of_another_length(write):
    message = refusal(write("a.csv", "prompt,chosen,rejected\na,b,c\na,b,c,d\n"))
    assert "row 2 has 4 fields, the header has 3 (prompt, chosen, rejected)" in message


def test_csv_quotes(write):
    assert "row 2 cannot be read as CSV" in refusal(write("a.csv", 'prompt,chosen,rejected\na,b,c\n"a"x,b,c\n'))


def test_damaged_parquet(write):
    assert "cannot be read as Parquet (" in refusal(write("a.parquet", b"PAR1 and then nothing of the kind"))
