"""`seedling.grow` in Python gives what the command line gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from prefect_runs import own_environment
from small_models import grown
from text_workspaces import call, letter

import seedling
from seedling.config.params import set_value
from seedling.dataset.generation import digest
from seedling.errors import InputError
from seedling.records.model import ModelRecord
from seedling.records.run_records import read_run_records

QUICK = {
    "train.candidates": ["logistic_regression"],
    "pseudo_label.rounds": 0,
    "evaluate.bootstrap_draws": 200,
    "evaluate.robustness_rows": 0,
}


def test_the_import_alone_loads_no_heavy_package() -> None:
    """pandas, torch, DVC and Prefect come with the first use."""
    code = "import sys, seedling; print(*{'pandas', 'torch', 'dvc', 'prefect'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "one of data, images or texts"),
        ({"texts": ["a", "b"], "labels": ["x"]}, "2 rows and 1 labels"),
        ({"data": pd.DataFrame({"picture": []})}, "needs a column `image` or `text`; it has picture"),
        ({"images": [np.zeros((4, 4), np.float64)], "labels": ["x"]}, r"shape \(4, 4\) and type float64"),
        ({"images": "folder", "labels": ["x"]}, "has its labels in its subfolders"),
    ],
)
def test_wrong_arguments_are_explained(arguments: dict[str, Any], message: str) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=message):
        seedling.grow(**arguments)


@pytest.mark.slow
def test_the_rows_and_the_model_are_those_of_the_command_line(
    tmp_path: Path, prefect_variables: dict[str, str]
) -> None:
    """The same table by `seedling init` and `seedling run`: every generation and the accepted model are equal."""
    texts, labels = zip(*map(letter, range(40)), strict=True)
    frame = pd.DataFrame({"text": texts, "label": labels})
    result = seedling.grow(
        frame, workspace=tmp_path / "python", effort="quick", encoder="none", params=QUICK, verbose=False
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    environment, folder = own_environment(tmp_path, **prefect_variables), tmp_path / "command"
    call(["seedling", "init", folder, "--texts", tmp_path / "rows.parquet", "--encoder", "none"], tmp_path, environment)
    for key, value in {"effort": "quick", **QUICK}.items():
        set_value(folder, key.split("."), value)
    call(["seedling", "run"], folder, environment)
    for name in ("generations/scrape", "generations/validate", "generations/augment", "models/0"):
        assert digest(result.workspace / name) == digest(folder / name), name
    assert result.report.is_file()
    (record,) = read_run_records(result.workspace)
    assert record.outcome == "accepted"
    assert call(["dvc", "exp", "list", "--name-only"], result.workspace, environment).split() == [record.name]
    assert (result.workspace / "reports/history.html").is_file()
    assert "accuracy" in result.metrics
    assert f"Report: {result.report}" in str(result)
    assert set(result.label_issues.columns) >= {"id", "original_label", "suggested_label", "p_label_error"}
    predictions = result.predict([letter(101)[0], "", letter(102)[0]], probabilities=True)
    assert predictions["predicted"].tolist()[::2] == [letter(101)[1], letter(102)[1]]
    assert predictions["error"].tolist()[1] == "empty"
    np.testing.assert_allclose(predictions.loc[[0, 2], ["p_complaint", "p_praise"]].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.slow
def test_images_come_as_arrays_files_bytes_and_pil_images(tmp_path: Path) -> None:
    """One row each way; a row without a label joins the pool."""
    generator = np.random.default_rng(0)
    bright = [generator.integers(180, 255, (12, 12, 3), dtype=np.uint8) for _ in range(8)]
    dark = [generator.integers(0, 80, (12, 12), dtype=np.uint8) for _ in range(8)]
    Image.fromarray(bright[0]).save(tmp_path / "bright.png")
    images = [tmp_path / "bright.png", (tmp_path / "bright.png").read_bytes(), *bright[1:], *map(Image.fromarray, dark)]
    result = seedling.grow(
        images=[*images, generator.integers(180, 255, (12, 12, 3), dtype=np.uint8)],
        labels=[*["bright"] * 9, *["dark"] * 8, None],
        workspace=tmp_path / "workspace",
        effort="quick",
        params={**QUICK, "validate.test_share": 0.0},
        verbose=False,
    )
    rows = pd.concat(
        pd.read_parquet(part) for part in (result.workspace / "generations/validate").glob("part-*.parquet")
    )
    assert rows["split"].value_counts().to_dict() == {"train": 16, "pool": 1}
    assert result.predict([bright[3], dark[3]])["predicted"].tolist() == ["bright", "dark"]


def test_a_column_of_a_table_may_be_passed_as_texts() -> None:
    """A Series counts as its values: one label too few is one sentence, and not an error of pandas."""
    with pytest.raises(InputError, match="There are 2 rows and 1 labels"):
        seedling.grow(texts=pd.Series(["one text", "another text"]), labels=["a"])


def test_labels_beside_a_table_are_refused() -> None:
    """They would be ignored: the table has its own column."""
    with pytest.raises(InputError, match="put them into its column `label`"):
        seedling.grow(pd.DataFrame({"text": ["one text"], "label": ["a"]}), labels=["b"])


def test_a_class_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    """Classes named error and predicted: their probabilities have columns of their own."""
    workspace = grown(tmp_path, "text")
    model_path = workspace / "models/0/model.json"
    ModelRecord.read(model_path).model_copy(update={"classes": ("error", "predicted")}).write(model_path)
    predictions = seedling.GrowResult(workspace).predict(["rain rain", ""], probabilities=True)
    assert predictions.columns.tolist() == [
        "predicted",
        "confidence",
        "abstains",
        "error",
        "p_error",
        "p_predicted",
    ]
    assert predictions["predicted"][0] == "error"
    assert predictions["error"].isna().tolist() == [True, False]
    assert predictions["p_error"][0] == predictions["confidence"][0] > 0.5
    assert predictions["p_error"].isna().tolist() == [False, True]


def test_a_result_is_opened_by_a_path_or_its_name(tmp_path: Path) -> None:
    """As in a notebook, where a string is shorter."""
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "metrics.json").write_text('{"accuracy": 0.5}')
    for workspace in (tmp_path, str(tmp_path)):
        assert seedling.GrowResult(workspace).metrics == {"accuracy": 0.5}  # type: ignore[arg-type]
