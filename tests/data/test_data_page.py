"""The examples of the page on data run, and their JSON rows load."""

from __future__ import annotations

import json
import re
from pathlib import Path

from setsail.data import load_preferences

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text()


def test_python_examples(plain, capsys):
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, flags=re.S):
        exec(block, names)
    shown = capsys.readouterr().out
    assert "What is 1 + 1? It is 2. It is 3. {'source': 'sums'}" in shown
    assert "1 (2,)\n95 5\n" in shown
    assert len(names["tokenized"](names["train"], plain)) == 95


def test_json_rows():
    blocks = re.findall(r"```json\n(.*?)```", PAGE, flags=re.S)
    rows = [json.loads(text) for block in blocks for text in re.split(r"\n(?=\{)", block.strip())]
    assert len(rows) == 8
    for row in rows:
        alone = "chosen" not in row and "responses" not in row
        assert load_preferences([row], needs_pairs=not alone)[0].has_pair is not alone
