"""Using the model: `seedling predict`, with a real model that was saved as train saves it."""

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


def asked(workspace: Path, *paths: object, output: Path, column: str | None = None) -> pd.DataFrame:
    """The table of answers."""
    form = PredictionFormat(output.suffix[1:])
    predict(
        workspace, [str(one) for one in paths], output=output, form=None, column=column, probabilities=True, number=None
    )
    read: dict[PredictionFormat, Callable[[Path], pd.DataFrame]] = {
        PredictionFormat.csv: pd.read_csv,
        PredictionFormat.jsonl: lambda path: pd.read_json(path, lines=True),
        PredictionFormat.parquet: pd.read_parquet,
    }
    return read[form](output)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_files_folders_and_tables_are_answered_in_one_table(tmp_path: Path, suffix: str) -> None:
    """A text file, a folder of two and a table of two with a gap: the same five answers in each format, the gap with its reason."""
    workspace, data = grown(tmp_path / "w", "text"), tmp_path / "data"
    (data / "folder").mkdir(parents=True)
    (data / "one.txt").write_text("sun", encoding="utf-8")
    (data / "folder/a.txt").write_text("rain rain", encoding="utf-8")
    (data / "folder/b.txt").write_text("\n", encoding="utf-8")
    pd.DataFrame({"said": ["the sun", None, "rain"], "text": "sun"}).to_csv(data / "t.csv", index=False)
    found = asked(
        workspace, data / "one.txt", data / "folder", data / "t.csv", output=tmp_path / f"a.{suffix}", column="said"
    )
    assert [one if isinstance(one, str) else None for one in found["predicted"]] == [
        "sun",
        "rain",
        None,
        "sun",
        None,
        "rain",
    ]
    assert found["error"].notna().tolist() == [False, False, True, False, True, False]
    assert found["source"].iloc[0].endswith("one.txt")
    whole = found.dropna(subset=["predicted"])
    assert (whole[["p_rain", "p_sun"]].sum(axis=1) - 1).abs().max() < 1e-5
    assert (whole[["p_rain", "p_sun"]].max(axis=1) - whole["confidence"]).abs().max() < 1e-5
    assert not list(tmp_path.glob(".*partial"))


def test_a_class_may_have_the_name_of_a_column(tmp_path: Path) -> None:
    """Classes named error and predicted: their probabilities have columns of their own."""
    workspace = grown(tmp_path / "w", "text")
    model_path = workspace / "models/0/model.json"
    ModelRecord.read(model_path).model_copy(update={"classes": ("error", "predicted")}).write(model_path)
    (tmp_path / "one.txt").write_text("rain rain", encoding="utf-8")
    table = asked(workspace, tmp_path / "one.txt", output=tmp_path / "a.parquet")
    assert table.columns.tolist() == [
        *("source", "predicted", "confidence", "abstains", "error"),
        *("p_error", "p_predicted"),
    ]
    assert (table["predicted"][0], table["p_error"][0]) == ("error", table["confidence"][0])
    assert table["error"].isna().all()


def test_a_image_that_is_none_does_not_hold_up_the_others(tmp_path: Path) -> None:
    """Three images, and a file that only says that it is one: answered in their order."""
    workspace, data = grown(tmp_path / "w", "image"), tmp_path / "data"
    data.mkdir()
    for name, content in (("a", image(60)), ("b", b"no image"), ("c", image(200)), ("d", image(50))):
        (data / f"{name}.png").write_bytes(content)
    found = asked(workspace, data, output=tmp_path / "a.csv")
    assert found["predicted"].fillna("").tolist() == ["rain", "", "sun", "rain"]
    assert found["error"].fillna("").tolist() == ["", "undecodable", "", ""]


def test_what_is_left_out_of_a_folder_is_said(tmp_path: Path) -> None:
    """Two texts, an image and a table in a folder: two rows, and the two others are counted and named."""
    workspace, data = grown(tmp_path / "w", "text"), tmp_path / "data"
    data.mkdir()
    for name in ("a.txt", "b.txt", "c.png", "d.csv"):
        (data / name).write_text("sun", encoding="utf-8")
    done = seedling("predict", data, "-w", workspace)
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == 3
    assert f"skipped 2 files that are not .txt files, {data / 'c.png'} the first" in done.stderr


def test_answers_do_not_hang_on_what_is_asked_beside_them(tmp_path: Path) -> None:
    """One at a time, or all at once."""
    predictor = Predictor.of(grown(tmp_path, "text", below=0.9))
    rows = [Question(str(number), text) for number, text in enumerate(["sun", "rain", "", "hills", "day 3 of rain"])]
    assert list(predictor.answers(rows)) == list(predictor.answers(rows, batch_size=1))
    abstains = {one.source: one.abstains for one in predictor.answers(rows)}
    assert abstains["2"] is None
    assert {one.abstains for one in predictor.answers(rows)} == {True, False, None}
    for one in predictor.answers(rows):
        assert one.abstains is None or one.abstains == (one.confidence is not None and one.confidence < 0.9)


@pytest.mark.parametrize(
    ("paths", "said"),
    [
        (["nowhere"], "nowhere does not exist"),
        (["empty"], "No row of empty could be read"),
        (["t.csv"], "no column 'text'.*--column"),
        (["bad.txt"], "unreadable"),
    ],
)
def test_nothing_to_ask_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, paths: list[str], said: str
) -> None:
    """The path and the remedy; no half-written answer stays."""
    workspace = grown(tmp_path / "w", "text")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "t.csv").write_text("a,b\n1,2\n", encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match=said):
        asked(workspace, *paths, output=tmp_path / "answers.csv")
    assert not (tmp_path / "answers.csv").exists()


def test_nothing_of_the_users_is_overwritten(tmp_path: Path) -> None:
    """The input itself, a link, and a folder are refused before any work."""
    workspace, table = grown(tmp_path / "w", "text"), tmp_path / "rows.csv"
    table.write_text("text\nrain\n", encoding="utf-8")
    (tmp_path / "link.csv").symlink_to(tmp_path / "elsewhere.csv")
    (tmp_path / "folder.csv").mkdir()
    for output, said in (
        (table, "one of the inputs"),
        (tmp_path / "link.csv", "not a regular file"),
        (tmp_path / "folder.csv", "not a regular file"),
    ):
        with pytest.raises(InputError, match=said):
            asked(workspace, table, output=output)
    assert table.read_text(encoding="utf-8") == "text\nrain\n"
    with pytest.raises(InputError, match="cannot be created"):
        asked(workspace, table, output=table / "x.csv")
    assert asked(workspace, table, output=tmp_path / "new/a.csv")["source"].tolist() == [f"{table}#1"]


def test_a_model_that_is_not_there_is_explained(tmp_path: Path) -> None:
    """No round at all, and a round that was not trained."""
    with pytest.raises(MissingGeneration, match="train@0"):
        Predictor.of(tmp_path)
    with pytest.raises(InputError, match="workspace"):
        asked(tmp_path / "nowhere", "x.txt", output=tmp_path / "a.csv")
    grown(tmp_path, "text")
    with pytest.raises(InputError, match=r"No model was trained in round 3\. Trained rounds: 0"):
        Predictor.of(tmp_path, 3)


@pytest.mark.slow
def test_lines_come_in_by_standard_input(tmp_path: Path) -> None:
    """Two lines in, two answers on standard output, the count on standard error."""
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
def test_a_line_is_answered_while_the_next_is_waited_for(tmp_path: Path) -> None:
    """The answer comes before standard input ends; bytes that are no text become signs."""
    grown(tmp_path, "text")
    command = [*SEEDLING, "predict", "-", "-w", str(tmp_path), "--format", "jsonl"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as asked:
        assert asked.stdin is not None and asked.stdout is not None
        asked.stdin.write(b"rain\xff rain\n")
        asked.stdin.flush()
        assert json.loads(asked.stdout.readline())["predicted"] == "rain"
        asked.stdin.close()
    assert asked.returncode == 0
