"""FiftyOne's dataset folders: what its importer and exporter wrote (fiftyone 1.22.1) becomes answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from exchange_rows import MARKUP, ExchangedRows, exchanged_rows

from seedling.errors import InputError
from seedling.review.exchange import ExchangeFormat, ImportResult, import_answers
from seedling.review.log import ReviewLog

FILES = Path(__file__).parent / "exchange_files"
EDITED = {
    (0, "label", "dog"),
    (2, "label", "cat"),
    (3, "bad", None),
    (4, "label", "cat"),
    (5, "label", "dog"),
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    return exchanged_rows(tmp_path_factory.mktemp("photos"), "image")


def summary(result: ImportResult, exchanged: ExchangedRows) -> set[tuple[int, str, str | None]]:
    """Number of the row, answer, and label of each answer."""
    return {(exchanged.ids.index(answer.row_id), answer.answer, answer.label) for answer in result.answers}


def labels_file(folder: Path, labels: dict[str, Any], classes: list[str] | None = None) -> Path:
    """A labels.json."""
    path = folder / "labels.json"
    path.write_text(json.dumps({"classes": classes, "labels": labels}), encoding="utf-8")
    return path


def test_what_fiftyone_wrote_becomes_answers(photos: ExchangedRows, tmp_path: Path) -> None:
    """Relabeled rows, an accepted suggestion, a row that is bad, and a label of a row without one. Once."""
    result = import_answers(FILES / "fiftyone", None, photos.rows, "anna")
    assert summary(result, photos) == EDITED
    assert (result.counts.rows, result.counts.predictions, result.counts.without_answer) == (6, 5, 1)
    log = ReviewLog(tmp_path / "workspace")
    again = import_answers(FILES / "fiftyone" / "labels.json", None, photos.rows, "anna")
    assert [result.store(log), again.store(log)] == [5, 0]


def test_samples_of_a_fiftyone_dataset_become_answers(photos: ExchangedRows) -> None:
    """FiftyOneDataset: people's labels are in ground_truth; the field with confidences is a model's."""
    result = import_answers(FILES / "fiftyone_samples", None, photos.rows, "anna")
    assert summary(result, photos) == EDITED
    assert result.counts.predictions == 6


def test_labels_without_attributes_are_refused(photos: ExchangedRows) -> None:
    """By default FiftyOne drops attributes and confidences, so that a suggestion would look like a person's label."""
    with pytest.raises(InputError, match="include_attributes=True and include_confidence=True"):
        import_answers(FILES / "fiftyone_plain", None, photos.rows, "anna")


def test_images_with_other_names_are_matched_by_pixels(photos: ExchangedRows, tmp_path: Path) -> None:
    """Images that FiftyOne did not get from an export; the path may have a folder and a suffix."""
    folder = photos.export(ExchangeFormat.fiftyone, tmp_path / "export")
    (folder / "data" / "inner").mkdir()
    shutil.move(folder / "data" / f"{photos.ids[4]}.png", folder / "data" / "inner" / "a.png")
    shutil.move(folder / "data" / f"{photos.ids[5]}.png", folder / "data" / "b.c.png")
    labels_file(folder, {"inner/a": 1, "b.c.png": "cat"}, ["cat", "dog"])
    result = import_answers(folder, None, photos.rows, "anna")
    assert summary(result, photos) == {(4, "label", "dog"), (5, "label", "cat")}
    assert result.counts.by_content == 2


def test_an_export_without_changes_has_no_answers(photos: ExchangedRows, tmp_path: Path) -> None:
    """Also of the row whose label in FiftyOne is the model's suggestion."""
    folder = photos.export(ExchangeFormat.fiftyone, tmp_path / "export")
    result = import_answers(folder, None, photos.rows, "anna")
    assert (result.answers, result.counts.rows, result.counts.predictions) == ((), 6, 5)


def test_labels_json_has_the_documented_form(photos: ExchangedRows, tmp_path: Path) -> None:
    """Indices of classes, confidences only of suggestions, attributes with what Seedling knows, null without a label."""
    folder = photos.export(ExchangeFormat.fiftyone, tmp_path / "export")
    content = json.loads((folder / "labels.json").read_text(encoding="utf-8"))
    assert content["classes"] == sorted(["cat", "dog", MARKUP])
    first, second, *_, fifth, sixth = (content["labels"][row_id] for row_id in photos.ids)
    assert (content["classes"][first["label"]], first["confidence"]) == ("cat", None)
    assert (first["attributes"]["state"], first["attributes"]["label_source"]) == ("labeled", "human")
    assert json.loads(second["attributes"]["answers"])[0]["reviewer"] == "anna"
    assert (content["classes"][fifth["label"]], fifth["confidence"]) == ("cat", 0.75)
    assert fifth["attributes"]["state"] == "predicted"
    assert sixth is None
    assert {path.stem for path in (folder / "data").iterdir()} == set(photos.ids)


def test_predictions_and_several_labels_are_counted(photos: ExchangedRows, tmp_path: Path) -> None:
    """A label with a confidence is a model's, unless a person has changed the exported one."""
    first, second, third, fourth, *_ = photos.ids
    path = labels_file(
        tmp_path,
        {
            first: {"label": "dog", "confidence": 0.9, "attributes": {}},
            second: [{"label": "dog", "attributes": {}}, {"label": "cat", "attributes": {}}],
            third: {"label": "dog", "confidence": 0.8, "attributes": {"exported_label": "cat"}},
            fourth: [{"label": "cat", "attributes": {}}],
        },
    )
    result = import_answers(path, None, photos.rows, "anna")
    assert summary(result, photos) == {(2, "label", "dog"), (3, "label", "cat")}
    assert (result.counts.predictions, dict(result.counts.unusable)) == (1, {"several_labels": 1})


def test_several_fields_that_may_be_reviewed_are_refused(photos: ExchangedRows, tmp_path: Path) -> None:
    """The message lists them."""
    label = {"_cls": "Classification", "label": "cat"}
    sample = {"filepath": f"data/{photos.ids[0]}.png", "mine": label, "yours": label}
    path = tmp_path / "samples.json"
    path.write_text(json.dumps({"samples": [sample]}), encoding="utf-8")
    with pytest.raises(InputError, match=r"several fields with labels \(mine, yours\)"):
        import_answers(path, None, photos.rows, "anna")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"classes": null, "labels": {"a": ', "is not complete JSON"),
        ('{"samples": [1]}', "sample 1 is not an object"),
        ('{"labels": [1]}', "neither `labels` nor `samples`"),
        ('{"labels": {"%s": {"label": "cat", "attributes": {}}}}' % ("0" * 32), "Is it an export of another workspace"),
        ('{"labels": {}}', "no rows"),
        ('{"labels": {"%s": {"label": "%s", "attributes": {}}}}', "A label has 5,000 characters"),
        ('{"labels": {"%s": {"label": 7, "attributes": {}}}, "classes": ["cat"]}', "'7' .1 answer"),
    ],
)
def test_damaged_files_are_refused(content: str, message: str, photos: ExchangedRows, tmp_path: Path) -> None:
    """Each with what is wrong with it."""
    path = tmp_path / "labels.json"
    path.write_text(content.replace("%s", photos.ids[0], 1).replace("%s", "x" * 5_000), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        import_answers(path, None, photos.rows, "anna")
