"""Every page counts the rejections of every stage, those of scrape included, and calls unlabeled rows what they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seedling.config.params import ScrapeParams, ValidateParams, WorkspaceConfig
from seedling.evaluate.next_steps import Curve, _label_more
from seedling.report.cards import Dataset, dataset_card
from seedling.report.data_page import write_data_page
from seedling.scrape import scrape
from seedling.validate import validate


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Forty labeled rows, ten training rows without a label, three test rows without one, two malformed rows, a copy."""
    (tmp_path / "data").mkdir()
    words = [
        "kettle",
        "lamp",
        "chair",
        "phone",
        "mug",
        "radio",
        "drill",
        "blanket",
        "bicycle",
        "pack",
        "stone",
        "river",
        "cloud",
        "tower",
        "spoon",
        "glove",
        "brick",
        "hat",
        "rope",
        "sail",
    ]
    rows = [
        f"the {word} number {number} is {kind},{kind},train"
        for number, word in enumerate(words)
        for kind in ("good", "bad")
    ]
    rows += [f"nobody labeled {word} {number},,train" for number, word in enumerate(words[:10])]
    rows += [f"to be tested {number},,test" for number in range(3)]
    rows += ["lost", "too,many,cells,here", rows[0]]
    (tmp_path / "data" / "rows.csv").write_text("text,label,split\n" + "\n".join(rows) + "\n")
    (tmp_path / "params.yaml").write_text(
        "pipeline_version: 18\nmodality: text\nscrape: {sources: [{kind: table, path: rows.csv}]}\n"
    )
    generations, config = tmp_path / "generations", WorkspaceConfig(modality="text")
    params = ScrapeParams.model_validate({"sources": [{"kind": "table", "path": "rows.csv"}]})
    scrape(params, config, data=tmp_path / "data", output=generations / "scrape")
    validate(ValidateParams(), config, collected=generations / "scrape", output=generations / "validate")
    return tmp_path


def test_the_data_page_and_the_card_count_what_scrape_rejected(workspace: Path) -> None:
    """Three test rows without a label and two malformed ones; the rows of the pool are in it."""
    page = " ".join(write_data_page(workspace).read_text(encoding="utf-8").split())
    assert "<dt>Rows in</dt><dd>56</dd>" in page
    for part in (
        "Rejected by scrape",
        "3 no label",
        "1 too few fields",
        "1 too many fields",
        "Rejected by validate",
        "1 exact duplicate",
    ):
        assert part in page
    dataset = Dataset.of(workspace, ["train", "pool"], ())
    card = dataset_card(dataset, "rows", "mit")
    assert "- by scrape: 3 no label, 1 too few fields, 1 too many fields" in card
    assert (dataset.rows["split"] == "pool").sum() == 10


def test_advice_names_rows_that_were_rejected_for_want_of_a_label() -> None:
    """It does not say that no row is without a label where some were rejected for it."""
    curve = Curve(np.full(100, 0.5), np.full(100, 0.2), 40)
    (advice,) = _label_more(curve, {"train": 40}, 30, 10.0, False, 3)
    assert "3 rows of the validation or test split have no label and were rejected" in advice.how
