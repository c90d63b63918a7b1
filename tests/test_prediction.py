"""`seedling predict`, with a real model that was saved as train saves it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from in_process import seedling
from small_models import grown, image

from seedling.errors import InputError, MissingGeneration
from seedling.formats import PredictionFormat
from seedling.models.predictor import Predictor, Question
from seedling.prediction import predict
from seedling.records.model import ModelRecord

SEEDLING = [sys.executable, "-m", "seedling.cli.main"]


def predictions(workspace: Path, *paths: object, output: Path, column: str | None = None) -> pd.DataFrame:
    """Run `predict` and read the table of predictions."""
    form = PredictionFormat(output.suffix[1:])
    predict(
        workspace,
        [str(path) for path in paths],
        output=output,
        form=None,
        column=column,
        probabilities=True,
        number=None,
    )
    read: dict[PredictionFormat, Callable[[Path], pd.DataFrame]] = {
        PredictionFormat.csv: pd.read_csv,
        PredictionFormat.jsonl: lambda path: pd.read_json(path, lines=True),
        PredictionFormat.parquet: pd.read_parquet,
    }
    return read[form](output)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_folders_and_tables_are_predicted_in_one_table(tmp_path: Path, suffix: str) -> None:
    """A text file, a folder of two and a table of two with an empty cell: the same rows in each format, the empty cell
    with its reason.
    """
    workspace, data = grown(tmp_path / "w", "text"), tmp_path / "data"
    (data / "folder").mkdir(parents=True)
    (data / "one.txt").write_text("sun", encoding="utf-8")
    (data / "folder/a.txt").write_text("rain rain", encoding="utf-8")
    (data / "folder/b.txt").write_text("\n", encoding="utf-8")
    pd.DataFrame({"said": ["the sun", None, "rain"], "text": "sun"}).to_csv(data / "t.csv", index=False)
    answers = predictions(
        workspace, data / "one.txt", data / "folder", data / "t.csv", output=tmp_path / f"a.{suffix}", column="said"
    )
    assert [label if isinstance(label, str) else None for label in answers["predicted"]] == [
        "sun",
        "rain",
        None,
        "sun",
        None,
        "rain",
    ]
    assert answers["error"].notna().tolist() == [False, False, True, False, True, False]
    assert answers["source"].iloc[0].endswith("one.txt")
    whole = answers.dropna(subset=["predicted"])
    assert (whole[["p_rain", "p_sun"]].sum(axis=1) - 1).abs().max() < 1e-5
    assert (whole[["p_rain", "p_sun"]].max(axis=1) - whole["confidence"]).abs().max() < 1e-5
    assert not list(tmp_path.glob(".*partial"))


def test_a_class_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    """Classes named error and predicted have probability columns of their own."""
    workspace = grown(tmp_path / "w", "text")
    model_path = workspace / "models/0/model.json"
    ModelRecord.read(model_path).model_copy(update={"classes": ("error", "predicted")}).write(model_path)
    (tmp_path / "one.txt").write_text("rain rain", encoding="utf-8")
    table = predictions(workspace, tmp_path / "one.txt", output=tmp_path / "a.parquet")
    assert table.columns.tolist() == [
        *("source", "predicted", "confidence", "abstains", "error"),
        *("p_error", "p_predicted"),
    ]
    assert (table["predicted"][0], table["p_error"][0]) == ("error", table["confidence"][0])
    assert table["error"].isna().all()


def test_an_undecodable_image_does_not_affect_the_others(tmp_path: Path) -> None:
    """Three images, and a file that is not an image despite its name, are answered in their order."""
    workspace, data = grown(tmp_path / "w", "image"), tmp_path / "data"
    data.mkdir()
    for name, content in (("a", image(60)), ("b", b"no image"), ("c", image(200)), ("d", image(50))):
        (data / f"{name}.png").write_bytes(content)
    answers = predictions(workspace, data, output=tmp_path / "a.csv")
    assert answers["predicted"].fillna("").tolist() == ["rain", "", "sun", "rain"]
    assert answers["error"].fillna("").tolist() == ["", "undecodable", "", ""]


def test_files_of_a_folder_that_are_not_read_are_reported(tmp_path: Path) -> None:
    """Two texts, an image and a table in a folder give two rows, and the two others are counted and named."""
    workspace, data = grown(tmp_path / "w", "text"), tmp_path / "data"
    data.mkdir()
    for name in ("a.txt", "b.txt", "c.png", "d.csv"):
        (data / name).write_text("sun", encoding="utf-8")
    done = seedling("predict", data, "-w", workspace)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert f"skipped 2 files that are not .txt files, {data / 'c.png'} the first" in done.stderr


def test_predictions_do_not_depend_on_the_other_rows(tmp_path: Path) -> None:
    """One at a time or all at once."""
    predictor = Predictor.of(grown(tmp_path, "text", below=0.9))
    rows = [Question(str(number), text) for number, text in enumerate(["sun", "rain", "", "hills", "day 3 of rain"])]
    assert list(predictor.answers(rows)) == list(predictor.answers(rows, batch_size=1))
    abstains = {answer.source: answer.abstains for answer in predictor.answers(rows)}
    assert abstains["2"] is None
    assert {answer.abstains for answer in predictor.answers(rows)} == {True, False, None}
    for answer in predictor.answers(rows):
        assert answer.abstains is None or answer.abstains == (answer.confidence is not None and answer.confidence < 0.9)


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "No row of empty could be read"),
        (["t.csv"], "no column 'text'.*--column"),
        (["bad.txt"], "unreadable"),
    ],
)
def test_input_without_rows_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], message: str
) -> None:
    """The error has the path and the fix; no partial output is left."""
    workspace = grown(tmp_path / "w", "text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match=message):
        predictions(workspace, *paths, output=tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()


def test_no_file_of_the_user_is_overwritten(tmp_path: Path) -> None:
    """An output that is the input itself, a link, or a folder is refused before any prediction."""
    workspace, table = grown(tmp_path / "w", "text"), tmp_path / "rows.csv"
    table.write_text("text\nrain\n", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    (tmp_path / "folder.csv").mkdir()
    for output, message in (
        (table, "one of the inputs"),
        (tmp_path / "link.csv", "not a regular file"),
        (tmp_path / "folder.csv", "not a regular file"),
    ):
        with pytest.raises(InputError, match=message):
            predictions(workspace, table, output=output)
    assert table.read_text(encoding="utf-8") == "text\nrain\n"
    with pytest.raises(InputError, match="cannot be created"):
        predictions(workspace, table, output=table / "x.csv")
    assert predictions(workspace, table, output=tmp_path / "new/a.csv")["source"].tolist() == [f"{table}#1"]


def test_a_missing_model_is_explained(tmp_path: Path) -> None:
    """No round at all, and a round that was not trained."""
    with pytest.raises(MissingGeneration, match="train@0"):
        Predictor.of(tmp_path)
    with pytest.raises(InputError, match="workspace"):
        predictions(tmp_path / "nowhere", "x.txt", output=tmp_path / "a.csv")
    grown(tmp_path, "text")
    with pytest.raises(InputError, match=r"No model was trained in round 3\. Trained rounds: 0"):
        Predictor.of(tmp_path, 3)


@pytest.mark.slow
def test_lines_are_read_from_standard_input(tmp_path: Path) -> None:
    """Two lines in, two predictions on standard output, the count on standard error."""
    grown(tmp_path, "text")
    done = subprocess.run(
        [*SEEDLING, "predict", "-", "-w", str(tmp_path)],
        input="rain\nsun\n",
        capture_output=True,
        text=True,
        check=True,
    )
    assert [line.split(",")[:2] for line in done.stdout.splitlines()] == [
        ["source", "predicted"],
        ["line 1", "rain"],
        ["line 2", "sun"],
    ]
    assert "2 rows" in done.stderr


@pytest.mark.slow
def test_a_line_is_answered_before_the_next_one_arrives(tmp_path: Path) -> None:
    """The prediction is printed before standard input ends; invalid bytes become replacement characters."""
    grown(tmp_path, "text")
    command = [*SEEDLING, "predict", "-", "-w", str(tmp_path), "--format", "jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"rain\xff rain\n")
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["predicted"] == "rain"
        process.stdin.close()
    assert process.returncode == 0
