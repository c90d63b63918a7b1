"""CSV tables and image folders: what a person changes there becomes answers, and nothing else does."""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from exchange_rows import MARKUP, ExchangedRows, exchanged_rows, row_id
from PIL import ExifTags, Image

from seedling.errors import InputError, MissingColumn
from seedling.review.decisions import read_decisions
from seedling.review.exchange import ExchangeFormat, ImportCounts, ImportResult, LabelRules, export_rows, import_answers
from seedling.review.log import ReviewLog
from seedling.review.records import ClassChange


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    return exchanged_rows(tmp_path_factory.mktemp("texts"), "text")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    return exchanged_rows(tmp_path_factory.mktemp("photos"), "image")


def summary(result: ImportResult, exchanged: ExchangedRows) -> set[tuple[int, str, str | None]]:
    """Number of the row, answer, and label of each answer."""
    return {
        (exchanged.ids.index(answer.row_id), answer.answer, answer.label or answer.asked_label)
        for answer in result.answers
    }


def exported_table(exchanged: ExchangedRows, folder: Path) -> list[dict[str, str]]:
    """The rows of an exported table, as Python's own module reads them."""
    path = exchanged.export(ExchangeFormat.csv, folder) / "rows.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def edited(rows: list[dict[str, str]], changes: Mapping[int, Mapping[str, str]], delimiter: str = ",") -> str:
    """The table with changed cells, as a spreadsheet program writes it."""
    lines = io.StringIO(newline="")
    writer = csv.DictWriter(lines, list(rows[0]), delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows({**row, **changes.get(number, {})} for number, row in enumerate(rows))
    return lines.getvalue()


CHANGES = {
    0: {"label": "dog", "reviewer": "bo"},
    1: {"answer": "Reject"},
    2: {"answer": "label", "note": "=1+1"},
    4: {"answer": "none of these"},
    5: {"label": MARKUP},
}
CHANGED = {
    (0, "label", "dog"),
    (1, "reject", "cat"),
    (2, "label", MARKUP),
    (4, "none_of_these", None),
    (5, "label", MARKUP),
}


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_edited_cells_become_answers(delimiter: str, encoding: str, texts: ExchangedRows, tmp_path: Path) -> None:
    """A changed label, and the column `answer`, in the forms that spreadsheet programs write."""
    path = tmp_path / "edited.csv"
    path.write_bytes(edited(exported_table(texts, tmp_path / "export"), CHANGES, delimiter).encode(encoding))
    result = import_answers(path, None, texts.rows, "anna")
    assert summary(result, texts) == CHANGED
    assert (result.counts.predictions, result.counts.without_answer) == (5, 1)
    assert {answer.note for answer in result.answers} == {None, "=1+1"}


def test_a_class_in_the_column_answer_is_an_answer(texts: ExchangedRows, tmp_path: Path) -> None:
    """Also of a row that has a label, as long as that was not changed to another class."""
    changes = {0: {"answer": "dog"}, 1: {"answer": "dog", "label": "dog"}}
    path = tmp_path / "edited.csv"
    path.write_text(edited(exported_table(texts, tmp_path / "export"), changes), encoding="utf-8")
    assert summary(import_answers(path, None, texts.rows, "anna"), texts) == {(0, "label", "dog"), (1, "label", "dog")}


def test_a_class_that_resembles_an_answer_is_a_class(texts: ExchangedRows, tmp_path: Path) -> None:
    """`ski` is not a misspelled `skip` in a workspace that has the class."""
    path = tmp_path / "edited.csv"
    path.write_text(edited(exported_table(texts, tmp_path / "export"), {0: {"answer": "ski"}}), encoding="utf-8")
    with pytest.raises(InputError, match="the answer 'ski' is unknown"):
        import_answers(path, None, texts.rows, "anna")
    with_class = replace(texts.rows, classes=(*texts.rows.classes, "ski"))
    assert summary(import_answers(path, None, with_class, "anna"), texts) == {(0, "label", "ski")}


def test_answers_without_a_name_are_those_of_a_given_person(texts: ExchangedRows, tmp_path: Path) -> None:
    """A name in the file counts more; without either, nobody is guessed."""
    path = tmp_path / "edited.csv"
    path.write_text(edited(exported_table(texts, tmp_path / "export"), CHANGES), encoding="utf-8")
    reviewers = {
        answer.reviewer for answer in import_answers(path, None, texts.rows, None, default_reviewer="cleo").answers
    }
    assert reviewers == {"bo", "cleo"}
    with pytest.raises(InputError, match="does not say who answered"):
        import_answers(path, None, texts.rows, None)


def test_counts_of_one_are_singular() -> None:
    """As in a sentence."""
    assert ImportCounts(rows=1, answers=1, without_answer=1, predictions=1, superseded=1).sentences() == [
        "1 row read, 1 answer.",
        "Nobody answered 1 row.",
        "1 prediction of models ignored: a prediction is never a review.",
        "1 earlier answer of the same reviewer about the same row ignored.",
    ]


@pytest.mark.parametrize("modality", ["text", "image"])
def test_rows_without_ids_are_matched_by_content(
    modality: str, texts: ExchangedRows, photos: ExchangedRows, tmp_path: Path
) -> None:
    """The column `id` was deleted, and the images got other names."""
    exchanged = texts if modality == "text" else photos
    rows = exported_table(exchanged, tmp_path / "export")
    for number, row in enumerate(rows):
        del row["id"]
        if modality == "image":
            image = tmp_path / "export" / row["image"]
            row["image"] = str(image.rename(image.with_name(f"{number}.png")).relative_to(tmp_path / "export"))
    path = tmp_path / "export" / "rows.csv"
    path.write_text(edited(rows, CHANGES), encoding="utf-8")
    result = import_answers(path, None, exchanged.rows, "anna")
    assert summary(result, exchanged) == CHANGED
    assert result.counts.by_content == 5


def test_a_table_that_pandas_wrote_again_is_read(texts: ExchangedRows, tmp_path: Path) -> None:
    """The package pandas changes the order of rows and columns, and writes empty cells as it likes."""
    frame = pd.read_csv(texts.export(ExchangeFormat.csv, tmp_path / "export") / "rows.csv")
    frame.loc[frame["origin"] == "f5", "label"] = "dog"
    frame.sort_index(axis=1, ascending=False).iloc[::-1].to_csv(tmp_path / "pandas.csv")
    result = import_answers(tmp_path / "pandas.csv", None, texts.rows, "anna")
    assert summary(result, texts) == {(5, "label", "dog")}


def test_an_exported_table_has_what_seedling_knows(texts: ExchangedRows, tmp_path: Path) -> None:
    """A cell that a spreadsheet program may take for a formula begins with an apostrophe."""
    rows = exported_table(texts, tmp_path / "export")
    columns = ("id", "split", "label", "label_source", "state", "suggestion", "suggestion_probability", "decision")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        (texts.ids[0], "train", "cat", "human", "labeled", "cat", "0.9", ""),
        (texts.ids[1], "train", "cat", "review", "reviewed", "cat", "0.7", "label"),
        (texts.ids[2], "train", MARKUP, "weak:page", "labeled", MARKUP, "0.8", ""),
        (texts.ids[3], "test", "dog", "human", "reviewed", "dog", "0.6", "bad"),
        (texts.ids[4], "pool", "", "", "predicted", "cat", "0.75", ""),
        (texts.ids[5], "pool", "", "", "unlabeled", "", "", ""),
    ]
    assert '"reviewer": "anna"' in rows[1]["answers"]
    assert rows[0]["text"].startswith("'=Text 0, ")


def test_an_export_without_changes_has_no_answers(texts: ExchangedRows, tmp_path: Path) -> None:
    """Neither labels, nor suggestions, nor the answers of reviewers are new answers."""
    folder = texts.export(ExchangeFormat.csv, tmp_path / "export")
    result = import_answers(folder, None, texts.rows, "anna")
    assert (result.answers, result.counts.predictions, result.counts.without_answer) == ((), 5, 6)


def test_each_round_of_export_and_import_is_kept(texts: ExchangedRows, tmp_path: Path) -> None:
    """cat, dog and cat again in three exports are three answers; a file that is imported twice is stored once."""
    log = ReviewLog(tmp_path / "workspace")
    for number, label in enumerate(("cat", "dog", "cat")):
        table = edited(exported_table(texts, tmp_path / str(number)), {5: {"label": label}})
        path = tmp_path / f"{number}.csv"
        path.write_text(table.replace("\r\n", "\n"), encoding="utf-8")
        stored = [import_answers(path, None, texts.rows, "anna").store(log) for _ in range(2)]
        assert stored == [1, 0]
    assert read_decisions(log.folder).by_row[texts.ids[5]].label == "cat"


IMPORT = """
import sys
from pathlib import Path
from exchange_rows import exchanged_rows
from seedling.review.exchange import import_answers
from seedling.review.log import ReviewLog
folder = Path(sys.argv[1])
rows = exchanged_rows(folder / "rows", "text").rows
import_answers(folder / "many.csv", None, rows, None).store(ReviewLog(folder / "workspace"))
"""


@pytest.mark.slow
def test_an_import_that_is_killed_is_completed_by_the_next(texts: ExchangedRows, tmp_path: Path) -> None:
    """3,000 answers of 500 reviewers; kill -9 while they are written: none is missing or doubled after a second import."""
    lines = [f"{row_id},dog,r{reviewer}" for row_id in texts.ids for reviewer in range(500)]
    (tmp_path / "many.csv").write_text("\n".join(["id,label,reviewer", *lines]), encoding="utf-8")
    reviews = tmp_path / "workspace" / "reviews"
    process = subprocess.Popen(
        [sys.executable, "-c", IMPORT, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    while process.poll() is None and len(list(reviews.glob("*.jsonl"))) < 20:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    before = read_decisions(reviews)
    result = import_answers(tmp_path / "many.csv", None, texts.rows, None)
    stored = result.store(ReviewLog(tmp_path / "workspace"))
    after = read_decisions(reviews)
    assert 0 < len(before.answers) < 3_000
    assert len(before.answers) + stored == len(after.answers) == 3_000
    assert len({answer.id for answer in after.answers}) == 3_000


def test_labels_of_a_model_in_a_foreign_table_are_never_answers(texts: ExchangedRows, tmp_path: Path) -> None:
    """A table without `exported_label`: each label is an answer, unless label_source or state say that a model gave it."""
    lines = [
        "id,label,label_source,state,prediction",
        f"{texts.ids[0]},dog,human,labeled,cat",
        f"{texts.ids[1]},dog,pseudo_label,,",
        f"{texts.ids[2]},dog,,predicted,",
        f"{texts.ids[3]},cat,,,",
        f"{texts.ids[4]},,,,dog",
    ]
    path = tmp_path / "foreign.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = import_answers(path, None, texts.rows, "anna")
    assert summary(result, texts) == {(0, "label", "dog"), (3, "label", "cat")}
    assert result.counts.predictions == 4
    assert "4 predictions of models ignored: a prediction is never a review." in result.counts.sentences()


def test_the_latest_answer_of_a_reviewer_about_a_row_counts(texts: ExchangedRows, tmp_path: Path) -> None:
    """By the column answered_at, else by the order of the lines; two reviewers have an answer each."""
    first, second = texts.ids[4:]
    lines = [
        "id,label,reviewer,answered_at",
        f"{first},cat,bo,2026-03-02T10:00:00",
        f"{first},dog,bo,2026-03-01T10:00:00",
        f"{first},dog,ann,2026-03-01T10:00:00",
        f"{second},cat,bo,",
        f"{second},dog,bo,",
    ]
    path = tmp_path / "foreign.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    result = import_answers(path, None, texts.rows, None)
    answers = {(answer.reviewer, answer.row_id, answer.label) for answer in result.answers}
    assert answers == {("bo", first, "cat"), ("ann", first, "dog"), ("bo", second, "dog")}
    assert result.counts.superseded == 2


def test_a_removed_label_is_counted(texts: ExchangedRows, tmp_path: Path) -> None:
    """An empty cell does not say which answer is meant."""
    path = tmp_path / "edited.csv"
    path.write_text(edited(exported_table(texts, tmp_path / "export"), {0: {"label": ""}}), encoding="utf-8")
    result = import_answers(path, None, texts.rows, "anna")
    assert (result.answers, dict(result.counts.unusable)) == ((), {"label_removed_without_an_answer": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,label\n{id},Caf\u00e9\n".encode("latin-1"), "byte 0xe9 in line 2.: save it as UTF-8"),
        (b"id,label\n{id},cat,dog\n", "line 2: 3 cells, and the header has 2 columns"),
        (b'id,label\n{id},"cat\n', "unexpected end of data"),
        (b'id,label\n{id},"cat"x\n', "line 2: .*expected after"),
        (b"id,answer\n{id},perhaps\n", "1 label of the file is not a class of this workspace: 'perhaps'"),
        (b"id,answer\n{id},rejct\n", "line 2: the answer 'rejct' is unknown"),
        (b"id,label,exported_label,answer\n{id},cat,dog,perhaps\n", "line 2: the answer 'perhaps' is unknown"),
        (b"id,answer\n{id},reject\n", "needs a class in the column `label`"),
        (b"id,label\n" + b"0" * 32 + b",cat\n", "No row of the file is a row of this workspace"),
        (b"id,label\n{id}," + b"x" * 5_000 + b"\n", "A label has 5,000 characters"),
        (b"id,label\n{id},<img src=x>\n", "'<img src=x>' .1 answer"),
        (b"id,label,annotator,annotation_id\n{id},cat,1,2\n", "CSV export of Label Studio"),
        (b"id,label\n", "no rows"),
        (b"", "no rows"),
        (b"\x00\x01\x02", "no rows|neither the column"),
    ],
)
def test_bad_tables_are_refused(content: bytes, message: str, texts: ExchangedRows, tmp_path: Path) -> None:
    """Each with the line and what to do."""
    path = tmp_path / "bad.csv"
    path.write_bytes(content.replace(b"{id}", texts.ids[0].encode()))
    with pytest.raises(InputError, match=message):
        import_answers(path, None, texts.rows, "anna")


def test_a_table_without_labels_names_its_columns(texts: ExchangedRows, tmp_path: Path) -> None:
    """The message lists the columns and says which are needed."""
    path = tmp_path / "bad.csv"
    path.write_text(f"id,class\n{texts.ids[0]},cat\n", encoding="utf-8")
    with pytest.raises(MissingColumn, match=r"it has 'id', 'class'.*name the column of the reviewed labels `label`"):
        import_answers(path, None, texts.rows, "anna")


def test_excels_separator_line_and_long_texts_are_read(texts: ExchangedRows, tmp_path: Path) -> None:
    """`sep=;` above the header, and a text of 200,000 characters."""
    path = tmp_path / "excel.csv"
    path.write_text(f"sep=;\r\ntext;id;label\r\n{'x, ' * 66_667};{texts.ids[0]};dog\r\n", encoding="utf-8")
    assert summary(import_answers(path, None, texts.rows, "anna"), texts) == {(0, "label", "dog")}


def test_labels_from_before_a_class_was_renamed_are_mapped(texts: ExchangedRows, tmp_path: Path) -> None:
    """The changes of classes in the log map them, without --map-class."""
    log = ReviewLog(tmp_path / "workspace")
    log.append("anna", [ClassChange(id="c" * 32, reviewer="anna", operation="rename", old=("kitten",), new=("cat",))])
    path = tmp_path / "old.csv"
    path.write_text(f"id,label\n{texts.ids[5]},kitten\n", encoding="utf-8")
    with pytest.raises(InputError, match="'kitten'"):
        import_answers(path, None, texts.rows, "anna")
    rules = LabelRules(changes=read_decisions(log.folder).classes)
    assert summary(import_answers(path, None, texts.rows, "anna", rules=rules), texts) == {(5, "label", "cat")}


def test_selected_rows_are_exported_to_an_empty_folder_only(texts: ExchangedRows, tmp_path: Path) -> None:
    """Ids that are not rows are left out; files of the user are not overwritten; a failed export leaves nothing."""
    chosen = [texts.ids[4], "0" * 32, texts.ids[0]]
    arguments = (texts.rows, texts.collected, texts.decisions)
    done = export_rows(ExchangeFormat.csv, *arguments, tmp_path / "export", row_ids=chosen)
    assert (done.rows, done.left_out) == (2, ())
    with pytest.raises(InputError, match="is not an empty folder"):
        export_rows(ExchangeFormat.csv, *arguments, tmp_path / "export")
    with pytest.raises(InputError, match="Texts cannot be exported as fiftyone"):
        export_rows(ExchangeFormat.fiftyone, *arguments, tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_a_move_to_the_folder_of_another_class_is_an_answer(photos: ExchangedRows, tmp_path: Path) -> None:
    """An image folder: the images that were not moved have no answer, whatever their label's source."""
    folder = photos.export(ExchangeFormat.imagefolder, tmp_path / "export")
    unchanged = import_answers(folder, None, photos.rows, "anna")
    assert (unchanged.answers, unchanged.counts.rows) == ((), 6)
    moves = {0: "train/dog", 4: "pool/cat", 5: "pool/b_owl_b", 2: "train/_unlabeled"}
    for number, target in moves.items():
        (image,) = folder.rglob(f"{photos.ids[number]}.png")
        (folder / target).mkdir(parents=True, exist_ok=True)
        shutil.move(image, folder / target / image.name)
    result = import_answers(folder, None, photos.rows, "anna")
    assert summary(result, photos) == {(0, "label", "dog"), (4, "label", "cat"), (5, "label", MARKUP)}
    assert dict(result.counts.unusable) == {"label_removed_without_an_answer": 1}


def test_exported_images_have_no_metadata(tmp_path: Path) -> None:
    """The place and the camera of a photograph stay here; its pixels and its id are the same."""
    photograph = Image.effect_noise((40, 30), 60).convert("RGB")
    exif = photograph.getexif()
    exif[ExifTags.Base.Orientation], exif[ExifTags.Base.Model] = 6, "Camera of Anna"
    exif.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] = (52.0, 31.0, 12.0)
    encoded = io.BytesIO()
    photograph.save(encoded, "JPEG", exif=exif)
    assert b"Camera of Anna" in encoded.getvalue()
    photos = exchanged_rows(tmp_path / "workspace", "image", encoded.getvalue())
    for name in ExchangeFormat:
        folder = photos.export(name, tmp_path / name)
        assert not any(b"Camera of Anna" in path.read_bytes() for path in folder.rglob("*") if path.is_file())
    (exported,) = (tmp_path / "csv" / "images").glob(f"{photos.ids[0]}.*")
    assert row_id(exported.read_bytes()) == photos.ids[0]
    with Image.open(exported) as image:
        assert (image.size, dict(image.getexif())) == ((30, 40), {})


def test_unknown_forms_and_archives_are_refused(texts: ExchangedRows, tmp_path: Path) -> None:
    """The message names the formats, or says to unpack."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("", encoding="utf-8")
    (tmp_path / "export.zip").write_bytes(b"PK")
    for name, message in {
        "empty": "in none of the formats label_studio, csv",
        "notes.txt": "in none of the formats",
        "export.zip": "unpack it",
        "missing.csv": "does not exist",
    }.items():
        with pytest.raises(InputError, match=message):
            import_answers(tmp_path / name, None, texts.rows, "anna")
