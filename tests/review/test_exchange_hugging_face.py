"""Hugging Face datasets: the package `datasets` reads what is exported, and what it writes becomes answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from exchange_rows import MARKUP, ExchangedRows, exchanged_rows

from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.review.exchange import ExchangeFormat, ImportResult, import_answers
from seedling.review.log import ReviewLog

FORMS = [ExchangeFormat.huggingface, ExchangeFormat.parquet]


@pytest.fixture(scope="module", params=["image", "text"])
def exchanged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ExchangedRows:
    modality: Modality = request.param
    return exchanged_rows(tmp_path_factory.mktemp("workspace"), modality)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package's cache, in a temporary folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


def load(folder: Path, exchange_format: ExchangeFormat, cache: Path) -> Any:
    """The dataset as the package loads it."""
    if exchange_format is ExchangeFormat.huggingface:
        return datasets.load_from_disk(str(folder))
    return datasets.load_dataset(str(folder), cache_dir=str(cache))


def summary(result: ImportResult, exchanged: ExchangedRows) -> set[tuple[int, str, str | None]]:
    """Number of the row, answer, and label of each answer."""
    return {(exchanged.ids.index(answer.row_id), answer.answer, answer.label) for answer in result.answers}


def changes_of(exchanged: ExchangedRows, label: Any) -> Any:
    """What a person does with `Dataset.map`: two rows get a label, and two get an answer. label: name → cell."""

    def change(row: dict[str, Any]) -> dict[str, Any]:
        number = exchanged.ids.index(row["id"])
        labels = {0: label("dog"), 5: label(MARKUP)}
        answers = {1: "bad", 4: "label"}
        return {"label": labels.get(number, row["label"]), "answer": answers.get(number)}

    return change


@pytest.mark.parametrize("exchange_format", FORMS)
def test_datasets_reads_what_is_exported(
    exchange_format: ExchangeFormat, exchanged: ExchangedRows, tmp_path: Path, cache: Path
) -> None:
    """Version 5.2: splits, features, decoded contents, labels, suggestions, states and answers."""
    folder = exchanged.export(exchange_format, tmp_path / "export")
    loaded = load(folder, exchange_format, cache)
    rows = {row["id"]: (split, row) for split, part in loaded.items() for row in part}
    assert {split: len(part) for split, part in loaded.items()} == {"train": 3, "test": 1, "pool": 2}
    features = loaded["train"].features
    assert features["label"].names == sorted(["cat", "dog", MARKUP])
    split, first = rows[exchanged.ids[0]]
    assert (split, features["label"].int2str(first["label"]), first["suggestion_probability"]) == ("train", "cat", 0.9)
    columns = ("label_source", "state", "suggestion", "decision")
    assert [tuple(rows[row_id][1][name] for name in columns) for row_id in exchanged.ids] == [
        ("human", "labeled", "cat", None),
        ("review", "reviewed", "cat", "label"),
        ("weak:page", "labeled", MARKUP, None),
        ("human", "reviewed", "dog", "bad"),
        (None, "predicted", "cat", None),
        (None, "unlabeled", None, None),
    ]
    assert json.loads(rows[exchanged.ids[1]][1]["answers"])[0]["reviewer"] == "anna"
    assert rows[exchanged.ids[4]][1]["label"] is None
    if exchanged.rows.modality == "image":
        assert np.asarray(first["image"]).tolist() == np.full((8, 8, 3), (10, 40, 200)).tolist()
    else:
        assert first["text"].startswith("=Text 0, ")


@pytest.mark.slow
@pytest.mark.parametrize("saved", ["on_disk", "parquet"])
@pytest.mark.parametrize("exchange_format", FORMS)
def test_what_datasets_writes_becomes_answers(
    exchange_format: ExchangeFormat, saved: str, exchanged: ExchangedRows, tmp_path: Path, cache: Path
) -> None:
    """`Dataset.map`, shuffled, then `save_to_disk` in two shards or `to_parquet`: the changes are answers, and nothing else."""
    loaded = load(exchanged.export(exchange_format, tmp_path / "export"), exchange_format, cache)
    change = changes_of(exchanged, loaded["train"].features["label"].str2int)
    mapped = loaded.map(change, load_from_cache_file=False).shuffle(seed=1)
    target = tmp_path / "saved"
    if saved == "on_disk":
        mapped.save_to_disk(str(target), num_shards={"train": 2, "test": 1, "pool": 2})
    else:
        target.mkdir()
        for split, part in mapped.items():
            part.to_parquet(str(target / f"{split}.parquet"))
    result = import_answers(target, None, exchanged.rows, "anna")
    assert summary(result, exchanged) == {
        (0, "label", "dog"),
        (1, "bad", None),
        (4, "label", "cat"),
        (5, "label", MARKUP),
    }
    assert (result.counts.rows, result.counts.predictions, result.counts.without_answer) == (6, 5, 2)
    log = ReviewLog(tmp_path / "workspace")
    again = import_answers(target, None, exchanged.rows, "anna")
    assert [result.store(log), again.store(log)] == [4, 0]


def test_rows_without_ids_are_matched_by_content(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """One dataset with only contents, names of labels and a model's column."""
    folder = exchanged.export(ExchangeFormat.huggingface, tmp_path / "export")
    content = exchanged.rows.modality
    pool = datasets.load_from_disk(str(folder))["pool"].select_columns([content])
    columns = {"label": ["dog", MARKUP], "prediction": ["cat", "cat"]}
    labeled = datasets.concatenate_datasets([pool, datasets.Dataset.from_dict(columns)], axis=1)
    labeled.save_to_disk(str(tmp_path / "saved"))
    saved = import_answers(tmp_path / "saved", None, exchanged.rows, "anna")
    assert {(answer.row_id, answer.label) for answer in saved.answers} == {
        (exchanged.ids[4], "dog"),
        (exchanged.ids[5], MARKUP),
    }
    assert (saved.counts.predictions, saved.counts.by_content) == (2, 0 if content == "image" else 2)


def test_images_without_names_are_matched_by_pixels(tmp_path: Path) -> None:
    """`datasets` encodes an image again, and keeps no file name."""
    photos = exchanged_rows(tmp_path / "workspace", "image")
    folder = photos.export(ExchangeFormat.huggingface, tmp_path / "export")
    pool = datasets.load_from_disk(str(folder))["pool"]
    images = [image.copy() for image in pool["image"]]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["dog", "cat"])})
    rebuilt = datasets.Dataset.from_dict({"image": images, "label": [1, -1]}, features=features)
    rebuilt.save_to_disk(str(tmp_path / "saved"))
    result = import_answers(tmp_path / "saved", None, photos.rows, "anna")
    assert summary(result, photos) == {(4, "label", "cat")}
    assert (result.counts.by_content, result.counts.without_answer) == (1, 1)


def test_an_export_without_changes_has_no_answers(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """In both forms."""
    for exchange_format in FORMS:
        folder = exchanged.export(exchange_format, tmp_path / exchange_format)
        result = import_answers(folder, None, exchanged.rows, "anna")
        assert (result.answers, result.counts.rows, result.counts.predictions) == ((), 6, 5)


def test_damaged_datasets_are_refused(exchanged: ExchangedRows, tmp_path: Path) -> None:
    """A file cut in half, a damaged state, a state that names a file elsewhere, and other features."""
    folder = exchanged.export(ExchangeFormat.huggingface, tmp_path / "export")
    arrow, state = folder / "train" / "data-00000-of-00001.arrow", folder / "train" / "state.json"
    content, parquet = arrow.read_bytes(), exchanged.export(ExchangeFormat.parquet, tmp_path / "parquet")
    arrow.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"data-00000-of-00001.arrow cannot be read .*save the dataset again"):
        import_answers(folder, None, exchanged.rows, "anna")
    state.write_text(json.dumps({"_data_files": [{"filename": "../../../../etc/passwd"}]}), encoding="utf-8")
    with pytest.raises(InputError, match="names passwd, which is not a file beside it"):
        import_answers(folder, None, exchanged.rows, "anna")
    state.write_text("{", encoding="utf-8")
    with pytest.raises(InputError, match=r"state.json is damaged"):
        import_answers(folder, None, exchanged.rows, "anna")
    file = next(parquet.rglob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(InputError, match="cannot be read"):
        import_answers(parquet, None, exchanged.rows, "anna")
    datasets.Dataset.from_dict({"text": ["a"]}).save_to_disk(str(tmp_path / "other"))
    with pytest.raises(InputError, match=r"neither the column 'label' nor 'answer' \(it has 'text'\)"):
        import_answers(tmp_path / "other", None, exchanged.rows, "anna")


@pytest.mark.parametrize("exchange_format", FORMS)
def test_changed_bytes_are_refused_or_read(
    exchange_format: ExchangeFormat, exchanged: ExchangedRows, tmp_path: Path
) -> None:
    """60 files with 8 random bytes changed: each is read or refused with an InputError, and none ends the process."""
    folder = exchanged.export(exchange_format, tmp_path / "export")
    file = max(folder.rglob("*.*"), key=lambda path: path.stat().st_size if path.is_file() else 0)
    content = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    refused = 0
    for seed in range(60):
        draw = np.random.default_rng(seed)
        changed = content.copy()
        changed[draw.integers(0, len(content), 8)] = draw.integers(0, 256, 8)
        file.write_bytes(changed.tobytes())
        try:
            import_answers(folder, None, exchanged.rows, "anna")
        except InputError:
            refused += 1
    assert refused > 10
