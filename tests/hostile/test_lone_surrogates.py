"""A lone surrogate, as in a text that was cut within an emoji, rejects its own row and no other, for every source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from seedling.config.params import ScrapeParams, WorkspaceConfig
from seedling.dataset.generation import read, read_rejected
from seedling.scrape import _labeled, _rows, scrape
from seedling.scrape.items import Item
from seedling.scrape.label_rules import Rules
from seedling.stats.voting import Majority


def run(data: Path, *sources: dict[str, object]) -> Path:
    """Run scrape on these sources and return the generation."""
    output = data.parent / "out"
    scrape(
        ScrapeParams.model_validate({"sources": list(sources)}),
        WorkspaceConfig(modality="text"),
        data=data,
        output=output,
    )
    return output


def test_one_row_is_rejected_and_the_others_are_read(tmp_path: Path) -> None:
    """In the text, the label, the id and a column that a rule reads."""
    (tmp_path / "data").mkdir()
    rows = [
        {"text": "cut \ud83d", "label": "a", "id": "1"},
        {"text": "a label that was cut", "label": "\ude00b", "id": "2"},
        {"text": "an id that was cut", "label": "a", "id": "3\ud83d"},
        {"text": "a column that was cut", "label": None, "id": "4", "kind": "x\ud83d"},
        {"text": "whole \U0001f600", "label": "b", "id": "5"},
    ]
    (tmp_path / "data" / "t.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (tmp_path / "data" / "t.jsonl").open("a").write(
        '{"text": "two halves \\ud83d\\ude00 make one", "label": "b", "id": "6"}\n'
    )
    output = run(tmp_path / "data", {"kind": "table", "path": "t.jsonl"})
    kept, rejected = read(output), read_rejected(output)
    assert kept["origin"].tolist() == ["t.jsonl#3\\ud83d", "t.jsonl#4", "t.jsonl#5", "t.jsonl#6"]
    assert dict(zip(rejected["origin"], rejected["reason"], strict=True)) == {
        "t.jsonl#1": "lone_surrogate",
        "t.jsonl#2": "lone_surrogate",
    }
    rules = [{"rule": "kind", "field": "kind"}]
    scrape(
        ScrapeParams.model_validate({"sources": [{"kind": "table", "path": "t.jsonl"}], "rules": rules}),
        WorkspaceConfig(modality="text"),
        data=tmp_path / "data",
        output=tmp_path / "with_rules",
    )
    assert read(tmp_path / "with_rules").set_index("origin").loc["t.jsonl#4", "label"] == "x\\ud83d"


@pytest.mark.parametrize("field", ["origin", "label", "license", "attribution", "group", "text"])
def test_items_of_any_source_are_made_storable(field: str, tmp_path: Path) -> None:
    """For example those of a site or of the Hub, which do not check it themselves."""
    fields = {"origin": "o", "label": "a", "license": "l", "attribution": "w", "group": "g", "text": "t"}
    fields[field] += "\ud83d"
    text = fields.pop("text")

    class Opened:
        rules, role = Rules([], tmp_path), "training"

        def items(self) -> Iterator[Item]:
            yield Item(**fields, load=lambda: text, split="train", label_source="human")  # type: ignore[arg-type]

    config = WorkspaceConfig(modality="text")
    ((row, _, reason),) = _rows(_labeled([Opened()], Majority(), config), config, None, None)  # type: ignore[list-item]
    assert reason == ("lone_surrogate" if field in {"label", "text"} else None)
    for value in (row.origin, row.label, row.license, row.attribution, row.group, row.payload):
        str(value).encode()
