"""Exported datasets: other tools read from them what the generations hold."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from small_models import write_decision

from seedling.dataset.generation import GenerationWriter, Modality, Row, identify
from seedling.errors import InputError, MissingGeneration
from seedling.export.dataset import export
from seedling.export.model import export_model
from seedling.files.writing import plain_names
from seedling.formats import DatasetForm
from seedling.media import images
from seedling.media.image_export import suffix_of

SEEDLING = [sys.executable, "-m", "seedling.cli.main"]
FORBIDDING = """
import sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] == 'seedling':
            raise ImportError(name + ' is not to be seen')
sys.meta_path.insert(0, Wall())
"""
PARAMS = "modality: {}\nscrape:\n  sources:\n    - {{kind: folder, path: .}}\n"


def content(modality: str, number: int) -> bytes | str:
    """An image of one gray level, or a text."""
    return f"text {number}" if modality == "text" else images.encode(np.full((6, 6, 3), 10 * number, np.uint8))


def workspace(folder: Path, modality: Modality) -> Path:
    """Three labeled rows, two of a class with a hostile name, a test row, and two pool rows of which one was labeled in
    round 1.
    """
    (folder / "models/0").mkdir(parents=True)
    write_decision(folder / "models/0", accepted_round=1)
    (folder / "params.yaml").write_text(PARAMS.format(modality), encoding="utf-8")
    rows = []
    for number, (split, label) in enumerate(
        [("train", "../evil"), ("train", "../evil"), ("train", "b"), ("test", "b"), ("pool", None), ("pool", None)]
    ):
        row = Row(
            identify(str(number).encode()), split, label=label, label_source=label and "human", origin=f"f{number}"
        )
        rows.append(row)
    for stage, kept in (("scrape", rows), ("validate", rows), ("pseudo_label/1", rows[4:5])):
        image_arrays = stage == "scrape"
        with GenerationWriter(
            folder / "generations" / stage, stage=stage, modality=modality, images=image_arrays
        ) as writer:
            for row in kept:
                number = rows.index(row)
                payload = content(modality, number) if image_arrays or modality == "text" else None
                pseudo_label = {"label": "b", "label_source": "model"} if stage == "pseudo_label/1" else {}
                fields = {name: getattr(row, name) for name in ("id", "split", "label", "label_source", "origin")}
                row_license = "CC BY 4.0" if number == 0 else None
                writer.keep(Row(**{**fields, **pseudo_label}, payload=payload, license=row_license))
            writer.close(rows_in=len(kept), classes=["../evil", "b"])
    return folder


def exported(folder: Path, modality: Modality, form: DatasetForm | None, include: tuple[str, ...] = ()) -> Path:
    """Export a new workspace and return the output folder."""
    export(
        workspace(folder / "w", modality),
        folder / "out",
        form=form,
        splits=["train", "test", "pool"],
        include=include,
        license_name="mit",
    )
    assert not list(folder.glob(".*partial"))
    return folder / "out"


def test_folders_hold_every_image_once_under_its_split_and_class(tmp_path: Path) -> None:
    """Six images, byte for byte; a class name is not used as a path; metadata.csv names each file."""
    exported_folder = exported(tmp_path, "image", None)
    files = sorted(exported_folder.rglob("*.png"))
    assert len(files) == 6
    assert sorted({file.parent.relative_to(exported_folder).as_posix() for file in files}) == [
        "pool/_unlabeled",
        "test/b",
        "train/b",
        "train/evil",
    ]
    assert {file.read_bytes() for file in files} == {content("image", number) for number in range(6)}
    with (exported_folder / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["file_name"] for row in rows} == {file.relative_to(exported_folder).as_posix() for file in files}
    assert sorted(row["label"] for row in rows) == ["", "", "../evil", "../evil", "b", "b"]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_hugging_face_datasets_reads_what_was_exported_for_it(tmp_path: Path, modality: Modality) -> None:
    """Splits, rows, class names, contents; a pool row that the accepted model was trained on has its label."""
    exported_folder = exported(tmp_path, modality, DatasetForm.huggingface, include=("pseudo_label",))
    loaded = load_dataset(str(exported_folder), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 3, "test": 1, "pool": 2}
    assert loaded["train"].features["label"].names == ["../evil", "b"]
    assert loaded["train"]["label"][:] == [0, 0, 1]
    assert sorted(label_index or 0 for label_index in loaded["pool"]["label"][:]) == [0, 1]
    assert [source for source in loaded["pool"]["label_source"][:] if source] == ["model"]
    if modality == "text":
        assert loaded["train"]["text"][:] == ["text 0", "text 1", "text 2"]
    else:
        assert [np.asarray(loaded_image)[0, 0] for loaded_image in loaded["train"]["image"][:]] == [0, 10, 20]


def test_a_table_per_split_holds_texts_and_labels(tmp_path: Path) -> None:
    """Texts are unchanged; the card counts rows and licenses."""
    exported_folder = exported(tmp_path, "text", None)
    with (exported_folder / "train.csv").open(encoding="utf-8", newline="") as file:
        assert [(row["text"], row["label"]) for row in csv.DictReader(file)] == [
            ("text 0", "../evil"),
            ("text 1", "../evil"),
            ("text 2", "b"),
        ]
    card = (exported_folder / "README.md").read_text(encoding="utf-8")
    for part in (
        "license: mit",
        "text-classification",
        "6 texts of 2 classes",
        "| train | 3 | 3 | 0 | 0 | 0 |",
        "CC BY 4.0: 1 rows",
    ):
        assert part in card


def test_what_cannot_be_exported_is_explained(tmp_path: Path) -> None:
    """A folder that is not empty, texts as folders, an unknown split, and a split without rows each raise a clear
    error.
    """
    source_workspace = workspace(tmp_path / "w", "text")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for folder, form, splits, message in (
        ("full", None, ["train"], "is not empty"),
        ("new", DatasetForm.folders, ["train"], "Texts cannot be exported as folders: use --as table"),
        ("new", None, ["training"], "'training' is not one of train"),
        ("new", None, ["validation"], "There are no rows of validation"),
    ):
        with pytest.raises(InputError, match=message):
            export(source_workspace, tmp_path / folder, form=form, splits=splits, include=[], license_name="mit")
    assert not (tmp_path / "new").exists()


def test_folder_names_are_plain_and_unique() -> None:
    """Names with path separators, names that differ only in case, and names of punctuation alone."""
    assert plain_names(["../a", "A", "a b", "a/b", "…", "名"]) == {
        "../a": "a",
        "A": "A_2",
        "a b": "a_b",
        "a/b": "a_b_2",
        "…": "class",
        "名": "名",
    }
    assert [suffix_of(content) for content in (b"\xff\xd8\xff0", b"GIF89a", b"\x89PNG", b"?")] == [
        "jpg",
        "gif",
        "png",
        "png",
    ]


@pytest.mark.slow
def test_an_exported_model_predicts_without_seedling_as_predict_does(finished_copy: Path, tmp_path: Path) -> None:
    """The model of a complete run is written as ONNX, and predict.py runs in a process that cannot import seedling."""
    workspace = finished_copy
    out, image_arrays = tmp_path / "model", sorted((workspace / "data/test").rglob("*.png"))
    subprocess.run([*SEEDLING, "export", out, "--model", "-w", workspace], check=True, capture_output=True)
    (tmp_path / "sitecustomize.py").write_text(FORBIDDING, encoding="utf-8")
    forbidden = subprocess.run(
        [sys.executable, "-c", "import seedling"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        check=False,
        capture_output=True,
    )
    assert b"is not to be seen" in forbidden.stderr
    (tmp_path / "junk.png").write_bytes(b"no image")
    alone = subprocess.run(
        [sys.executable, out / "predict.py", *image_arrays, tmp_path / "junk.png"],
        cwd=out,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    of_folder = subprocess.run(
        [sys.executable, out / "predict.py", workspace / "data/test"],
        cwd=out,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert of_folder.splitlines() == alone.splitlines()[:-1]  # a folder stands for its files
    of_seedling = subprocess.run(
        [*SEEDLING, "predict", *image_arrays, "-w", workspace], capture_output=True, text=True, check=True
    ).stdout
    *_, junk = csv.DictReader(alone.splitlines())
    assert (junk["predicted"], junk["error"]) == ("", "undecodable")
    alone = "\n".join(alone.splitlines()[:-1])
    of_seedling_rows, exported_rows = ([*csv.DictReader(stdout.splitlines())] for stdout in (of_seedling, alone))
    assert [row["predicted"] for row in exported_rows] == [row["predicted"] for row in of_seedling_rows]
    assert [float(row["confidence"]) for row in exported_rows] == pytest.approx(
        [float(row["confidence"]) for row in of_seedling_rows], abs=1e-4
    )
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-classification" in card
    assert (workspace / "reports/model_card.md").is_file()
    assert (workspace / "reports/dataset_card.md").is_file()


@pytest.mark.slow
def test_exporting_a_model_requires_an_empty_folder_and_a_trained_model(tmp_path: Path) -> None:
    """A folder that is not empty, a workspace without a model, and options of datasets each raise a clear error."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        export_model(tmp_path, tmp_path / "full", number=None, license_name="unknown")
    with pytest.raises(MissingGeneration, match="train@0"):
        export_model(tmp_path, tmp_path / "new", number=None, license_name="unknown")
    completed = subprocess.run(
        [*SEEDLING, "export", "x", "--model", "--as", "table"], capture_output=True, text=True, check=False
    )
    assert completed.returncode == 2
    assert "leave them out with --model" in completed.stderr
