"""Label Studio: what its SDK writes after it read an export becomes answers of the review log, and predictions do not."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from exchange_rows import ANSWER_IDS, MARKUP, ExchangedRows, exchanged_rows, payload

from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.review.decisions import read_decisions
from seedling.review.exchange import ExchangeFormat, ImportResult, LabelRules, import_answers, renames_of
from seedling.review.log import ReviewLog
from seedling.workspace import Workspace

FILES = Path(__file__).parent / "exchange_files"


@pytest.fixture(scope="module", params=["image", "text"])
def exchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    modality: Modality = request.param
    return exchanged_rows(tmp_path_factory.mktemp("workspace"), modality)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    return exchanged_rows(tmp_path_factory.mktemp("texts"), "text")


def task(row_id: str, label: str = "cat", **annotation: Any) -> dict[str, Any]:
    """A task with an annotation, as Label Studio exports it."""
    region = {"from_name": "label", "to_name": "text", "type": "choices", "value": {"choices": [label]}}
    values = {"id": 1, "completed_by": {"id": 3, "email": "bo@example.org"}, "result": [region], **annotation}
    return {"id": 1, "data": {"seedling_id": row_id}, "annotations": [values]}


def imported(
    tasks: Any, exchanged: ExchangedRows, folder: Path, reviewer: str | None = None, rules: LabelRules | None = None
) -> ImportResult:
    """Import tasks from a file."""
    path = folder / "tasks.json"
    path.write_text(json.dumps(tasks), encoding="utf-8")
    return import_answers(path, None, exchanged.rows, reviewer, rules=rules)


def summary(result: ImportResult, exchanged: ExchangedRows) -> set[tuple[str, int, str, str | None]]:
    """Reviewer, number of the row, answer and label of each answer."""
    return {
        (answer.reviewer, exchanged.ids.index(answer.row_id), answer.answer, answer.label) for answer in result.answers
    }


def test_a_file_that_the_sdk_wrote_becomes_answers(exchanged: ExchangedRows) -> None:
    """Of label-studio-sdk 2.1.2.

    Person 7 confirms a cat, takes a dog back, cancels a task, and says that a row has none of the classes. Person 8
    changes a label, and an answer that Seedling exported.
    """
    path = FILES / f"label_studio_export_{exchanged.rows.modality}.json"
    result = import_answers(path, None, exchanged.rows, None)
    assert summary(result, exchanged) == {
        ("label-studio-7", 0, "label", "cat"),
        ("label-studio-7", 2, "label", "cat"),
        ("label-studio-8", 2, "label", "dog"),
        ("label-studio-8", 3, "label", "dog"),
        ("label-studio-7", 4, "skip", None),
        ("label-studio-7", 5, "none_of_these", None),
    }
    counts = result.counts
    assert (counts.rows, counts.predictions, counts.without_answer, counts.superseded) == (6, 5, 1, 1)
    notes = [answer.note for answer in result.answers if answer.answer == "none_of_these"]
    first = next(answer for answer in result.answers if answer.row_id == exchanged.ids[0])
    assert notes == ["a car"]
    assert (first.purpose, first.previous_label, first.previous_source) == ("imported", "cat", "human")
    assert (first.suggestion, first.suggestion_shown, first.milliseconds) == ("cat", True, 1500)
    assert first.answered_at == 1_772_366_460_000  # 2026-03-01 12:01 UTC


def test_rows_without_an_id_are_matched_by_their_content(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """Tasks of the SDK's TaskValue without Seedling's ids; the images have other names, as after an upload."""
    content = (FILES / f"label_studio_values_{exchanged.rows.modality}.json").read_text(encoding="utf-8")
    if exchanged.rows.modality == "image":
        folder = exchanged.export(ExchangeFormat.label_studio, tmp_path / "image-label_studio")
        for number, row_id in enumerate(exchanged.ids):
            (folder / "images" / f"{row_id}.png").rename(folder / "images" / f"photo-{number}.png")
            content = content.replace(row_id, f"photo-{number}")
    path = tmp_path / "tasks.json"
    path.write_text(content, encoding="utf-8")
    result = import_answers(path, None, exchanged.rows, "bo")
    assert summary(result, exchanged) == {("bo", 4, "label", "dog"), ("bo", 5, "label", "cat")}
    assert (result.counts.by_content, result.counts.predictions) == (2, 1)


def test_an_image_in_the_task_itself_is_matched_by_its_pixels(tmp_path: Path) -> None:
    """A data URI in place of a file."""
    images = exchanged_rows(tmp_path / "workspace", "image")
    encoded = payload("image", 4)
    assert isinstance(encoded, bytes)
    uploaded = task("", "dog") | {"data": {"image": "data:image/png;base64," + base64.b64encode(encoded).decode()}}
    assert summary(imported([uploaded], images, tmp_path, "bo"), images) == {("bo", 4, "label", "dog")}


def test_files_outside_the_folder_are_not_read(tmp_path: Path) -> None:
    """A task that names an image elsewhere on the machine by its path is a row of another workspace."""
    images = exchanged_rows(tmp_path / "workspace", "image")
    folder = images.export(ExchangeFormat.csv, tmp_path / "export")
    outside = shutil.copy(folder / "images" / f"{images.ids[0]}.png", tmp_path / "outside.png")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "link.png").symlink_to(outside)
    for name in (str(outside), "../outside.png", "link.png", "file:///etc/passwd", "http://127.0.0.1:9/x.png"):
        stolen = task("", "dog") | {"data": {"image": name}}
        with pytest.raises(InputError, match="No row of the file is a row of this workspace"):
            imported([stolen], images, inner, "bo")


def test_an_export_without_changes_has_no_answers(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """Annotations of Seedling's own answers and predictions are not new answers."""
    folder = exchanged.export(ExchangeFormat.label_studio, tmp_path / "export")
    tasks = json.loads((folder / "tasks.json").read_text(encoding="utf-8"))
    exported = [annotation["result"][0]["id"] for task in tasks for annotation in task["annotations"]]
    assert exported == [f"seedling-{line_id}" for line_id in ANSWER_IDS]
    result = import_answers(folder, None, exchanged.rows, "bo")
    assert (result.answers, result.counts.without_answer, result.counts.predictions) == ((), 6, 5)


def test_tasks_hold_what_seedling_knows(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """Label, source, state, suggestion with probability, and the answers of reviewers."""
    folder = exchanged.export(ExchangeFormat.label_studio, tmp_path / "export")
    data = [task["data"] for task in json.loads((folder / "tasks.json").read_text(encoding="utf-8"))]
    columns = ("present_label", "label_source", "state", "suggestion", "suggestion_probability", "decision")
    assert [tuple(values[name] for name in columns) for values in data] == [
        ("cat", "human", "labeled", "cat", 0.9, None),
        ("cat", "review", "reviewed", "cat", 0.7, "label"),
        (MARKUP, "weak:page", "labeled", MARKUP, 0.8, None),
        ("dog", "human", "reviewed", "dog", 0.6, "bad"),
        (None, None, "predicted", "cat", 0.75, None),
        (None, None, "unlabeled", None, None, None),
    ]
    assert [answer["reviewer"] for answer in data[1]["answers"]] == ["anna"]


def test_the_labeling_interface_is_xml_with_all_classes(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """A class whose name is markup is the value of a choice, not an element."""
    folder = exchanged.export(ExchangeFormat.label_studio, tmp_path / "export")
    root = ElementTree.parse(folder / "label_config.xml").getroot()  # noqa: S314  (our own file)
    choices = [choice.get("value") for choice in root.findall("Choices[@name='label']/Choice")]
    assert choices == sorted(["cat", "dog", MARKUP])
    assert root.find("b") is None


def test_a_file_that_is_imported_twice_is_stored_once(texts: ExchangedRows, tmp_path: Path) -> None:
    """The ids of the answers depend on the file only."""
    shutil.copytree(texts.workspace, tmp_path / "workspace")
    path = FILES / "label_studio_export_text.json"
    stored = [import_answers(path, None, texts.rows, None).store(ReviewLog(tmp_path / "workspace")) for _ in range(2)]
    assert stored == [6, 0]
    decisions = read_decisions(Workspace(tmp_path / "workspace").reviews)
    assert decisions.by_row[texts.ids[0]].label == "cat"
    assert texts.ids[4] not in decisions.by_row  # a cancelled task decides nothing
    assert decisions.damaged == []


def test_an_annotation_that_is_changed_again_is_another_answer(texts: ExchangedRows, tmp_path: Path) -> None:
    """cat, then dog, then cat again in three exports: the log has three answers, and the last one counts."""
    log = ReviewLog(tmp_path / "workspace")
    for hour, label in (("1", "cat"), ("2", "dog"), ("3", "cat")):
        changed = task(texts.ids[5], label, updated_at=f"2026-03-01T1{hour}:00:00.5Z")
        assert imported([changed], texts, tmp_path).store(log) == 1
    decisions = read_decisions(log.folder)
    assert (len(decisions.answers), decisions.by_row[texts.ids[5]].label) == (3, "cat")


def test_the_reviewer_is_the_annotator_or_the_named_one(texts: ExchangedRows, tmp_path: Path) -> None:
    """E-mail addresses become names of files; a name on the command line goes before them; one of them is needed."""
    labeled = task(texts.ids[0])
    assert imported([labeled], texts, tmp_path).answers[0].reviewer == "bo-example.org"
    assert imported([labeled], texts, tmp_path, "anna").answers[0].reviewer == "anna"
    labeled["annotations"][0]["completed_by"] = {"email": "../é vil/@example.org" + "x" * 100}
    hostile = imported([labeled], texts, tmp_path).answers[0].reviewer
    assert len(hostile) <= 64
    assert "/" not in hostile
    labeled["annotations"][0]["completed_by"] = None
    with pytest.raises(InputError, match="--reviewer anna"):
        imported([labeled], texts, tmp_path)


def test_unknown_classes_are_listed_with_the_remedy(texts: ExchangedRows, tmp_path: Path) -> None:
    """They can be mapped to a class or added as classes; nothing is imported until then."""
    tasks = [task(texts.ids[0], "Cats"), task(texts.ids[1], "<script>alert(1)</script>"), task(texts.ids[2], "dog")]
    with pytest.raises(InputError) as error:
        imported(tasks, texts, tmp_path)
    message = str(error.value)
    assert "2 labels of the file are not classes" in message
    assert "'Cats' (1 answer, did you mean 'cat'?)" in message
    assert "'<script>alert(1)</script>' (1 answer)" in message
    assert "--map-class 'Cats=CLASS'" in message
    assert "--add-classes" in message
    mapped = imported(tasks[:1], texts, tmp_path, rules=LabelRules(renames=renames_of(["Cats=cat"])))
    with pytest.raises(InputError, match="LABEL=CLASS"):
        renames_of(["Cats"])
    with pytest.raises(InputError, match="'kat' "):  # a target that is not a class, either
        imported(tasks[:1], texts, tmp_path, rules=LabelRules(renames={"Cats": "kat"}))
    assert mapped.answers[0].label == "cat"
    added = imported(tasks, texts, tmp_path, rules=LabelRules(add_classes=True))
    assert added.new_classes == ("<script>alert(1)</script>", "Cats")
    log = ReviewLog(tmp_path / "workspace")
    assert [added.store(log), added.store(log)] == [3, 0]
    assert set(read_decisions(log.folder).classes.added()) == {"<script>alert(1)</script>", "Cats"}


def test_a_label_of_5_000_characters_is_refused_in_short(texts: ExchangedRows, tmp_path: Path) -> None:
    """Also with --add-classes, and the message does not repeat it."""
    for rules in (LabelRules(), LabelRules(add_classes=True)):
        with pytest.raises(InputError, match="A label has 5,000 characters") as error:
            imported([task(texts.ids[0], "x" * 5_000)], texts, tmp_path, rules=rules)
        assert len(str(error.value)) < 400


def test_annotations_that_are_not_one_class_are_counted(texts: ExchangedRows, tmp_path: Path) -> None:
    """Two choices, a span of text, an empty annotation and an annotation that is only a number."""
    span = {"from_name": "ner", "type": "labels", "value": {"start": 0, "end": 4, "labels": ["PER"]}}
    two = {"from_name": "label", "type": "choices", "value": {"choices": ["cat", "dog"]}}
    tasks = [
        task(texts.ids[0], result=[two]),
        task(texts.ids[1], result=[span]),
        task(texts.ids[2], result=[]),
        task(texts.ids[3]) | {"annotations": [17]},
        task(texts.ids[4]),
    ]
    result = imported(tasks, texts, tmp_path)
    assert [answer.row_id for answer in result.answers] == [texts.ids[4]]
    assert dict(result.counts.unusable) == {"several_labels": 1, "not_a_classification": 1, "not_in_the_file": 1}
    assert "1 annotation ignored: several labels." in result.counts.sentences()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"data": {"text": "a"}, "annotations": [', "is not complete JSON"),
        (b'[{"id": 1, "label": "cat", "annotator": 1, "annotation_id": 4}]', "JSON-MIN"),
        (b'[{"id": 1}]', "item 1 has no object `data`"),
        (b'{"a": 1}', "item 1 has no object `data`"),
        (b"[1, 2]", "item 1 has no object `data`"),
        (b'[{"data": {"seedling_id": "00000000000000000000000000000000"}, "annotations": 7}]', "of another workspace"),
        (b"[" * 100_000, "is not complete JSON"),
        ("[]".encode("utf-16"), "no rows"),
        ('[{"data": {"text": "\u00e9"}}]'.encode("latin-1"), "is not UTF-8 .byte 0xe9 in line 1."),
        (b"", "is not complete JSON"),
    ],
)
def test_damaged_files_are_refused(content: bytes, message: str, texts: ExchangedRows, tmp_path: Path) -> None:
    """Each with what is wrong with it."""
    path = tmp_path / "tasks.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        import_answers(path, None, texts.rows, "anna")


@pytest.mark.parametrize(
    "change",
    [
        {"lead_time": float("nan")},
        {"lead_time": -5},
        {"lead_time": "long"},
        {"lead_time": 1e300},
        {"updated_at": "yesterday"},
        {"updated_at": 7},
        {"completed_by": {"id": 5}},
        {"id": "\ud83d"},
        {"result": [{"type": ["x"], "value": {}}, 5, None, *task("")["annotations"][0]["result"]]},
    ],
)
def test_odd_values_beside_the_label_do_not_matter(
    change: dict[str, Any], texts: ExchangedRows, tmp_path: Path
) -> None:
    """Times, durations and names that no export should have; the log can store the answer."""
    result = imported([task(texts.ids[0], **change)], texts, tmp_path, "anna")
    assert result.store(ReviewLog(tmp_path / "workspace")) == 1
    assert read_decisions(Workspace(tmp_path / "workspace").reviews).by_row[texts.ids[0]].label == "cat"


def test_a_file_of_another_workspace_is_refused(texts: ExchangedRows, tmp_path: Path) -> None:
    """No row matches: with an answer or without."""
    foreign = task("0" * 32)
    without = {"data": {"seedling_id": "1" * 32, "text": "unknown"}}
    for tasks in ([foreign], [without]):
        with pytest.raises(InputError, match="Is it an export of another workspace"):
            imported(tasks, texts, tmp_path)
    result = imported([foreign, task(texts.ids[0])], texts, tmp_path)
    assert (len(result.answers), result.counts.unknown_rows, result.counts.unknown_positions) == (1, 1, ["task 1"])
