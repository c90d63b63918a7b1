"""`seedling why` finds a row by its name however accents are composed, and by its text; brackets in a name are not markup."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from round_records import member, model_record

from seedling.dataset.generation import GenerationWriter, Row, identify, read
from seedling.errors import InputError
from seedling.row_story import show_story

STARTS = ("labeled/cafe", "labeled/[old]/1", "labeled/[old]/2")  # of the origins below


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """Three rows, one with a decomposed name, and two whose names a terminal would act on."""
    (tmp_path / "params.yaml").write_text("pipeline_version: 18\nmodality: text\nscrape: {sources: [{kind: folder}]}\n")
    names = [
        unicodedata.normalize("NFD", "labeled/café/été.txt"),
        "labeled/[old]/1.txt",
        "labeled/[old]/2\x1b[2J.txt",
    ]
    with GenerationWriter(tmp_path / "generations" / "scrape", stage="scrape", modality="text") as writer:
        for name in names:
            text = f"what lies in {name.split('/')[1]} {len(name)}"
            writer.keep(
                Row(
                    id=identify(text.encode()),
                    split="train",
                    label="a",
                    label_source="human",
                    origin=name,
                    payload=text,
                )
            )
        writer.close(rows_in=3, classes=["a"])
    return tmp_path


@pytest.mark.parametrize("question", ["labeled/café/été.txt", unicodedata.normalize("NFD", "été"), "what lies in café"])
def test_a_row_is_found_by_its_name_and_its_text(
    question: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Composed and decomposed, whole and in part."""
    show_story(workspace, question)
    assert "scrape: from labeled/cafe\u0301/e\u0301te\u0301.txt" in capsys.readouterr().out


def test_names_are_listed_as_they_are(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`[old]` stays, an escape sequence is written out."""
    show_story(workspace, "[old]")
    out = capsys.readouterr().out
    assert "2 rows match" in out
    assert "labeled/[old]/1.txt" in out
    assert r"labeled/[old]/2\x1b[2J.txt" in out
    with pytest.raises(InputError, match="an origin or text that contains it"):
        show_story(workspace, "nowhere")


def write_models(workspace: Path, rows: pd.DataFrame, classes: list[str]) -> None:
    """Write the files of models/0 that the history of a row reads."""
    folder = workspace / "models" / "0"
    folder.mkdir(parents=True)
    rows.to_parquet(folder / "out_of_fold.parquet")
    model_record(member(), classes=tuple(classes)).write(folder / "model.json")


def test_the_probability_of_a_label_does_not_depend_on_which_classes_were_held_out(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model has the classes 0, a and b; only a and b have out-of-fold rows, and 'a' is still the second of three.

    The row of b is in no fold, since it is the only one of its class: no probability is stated for it. A validation row
    of a class that the model does not have gets a sentence, too.
    """
    ids = read(workspace / "generations" / "scrape").set_index("origin")["id"]
    cafe, first, second = (ids[[name.startswith(start) for name in ids.index]].iloc[0] for start in STARTS)
    columns = ["id", "split", "fold", "label", "probabilities"]
    rows = [
        (cafe, "train", 1.0, "a", [0.1, 0.7, 0.2]),
        (first, "train", None, "b", [0.0, 0.0, 1.0]),
        (second, "validation", None, "z", [0.2, 0.3, 0.5]),
    ]
    write_models(workspace, pd.DataFrame(rows, columns=columns), ["0", "a", "b"])
    stories = []
    for row_id in (cafe, first, second):
        show_story(workspace, row_id)
        stories.append(capsys.readouterr().out)
    assert "all models but fold 1's learned from it; the others give 'a' 0.700" in stories[0]
    assert "all models learned from it, so none gives 'b' an out-of-fold probability" in stories[1]
    assert "held out from all models; they have no class 'z', so none gives it a probability" in stories[2]
