"""Exported datasets: what other tools read of them is what the generations hold."""

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
    """An image of one gray, or a text."""
    return f"text {number}" if modality == "text" else images.encode(np.full((6, 6, 3), 10 * number, np.uint8))


def workspace(folder: Path, modality: Modality) -> Path:
    """Three labeled rows, two of a class with a hostile name, a test row, two pool rows of which one was labeled in round 1."""
    (folder / "models/0").mkdir(parents=True)
    write_decision(folder / "models/0", accepted_round=1)
    (folder / "params.yaml").write_text(PARAMS.format(modality), encoding="utf-8")
    rows = []
    for number, (split, label) in enumerate(
        [("train", "../evil"), ("train", "../evil"), ("train", "b"), ("test", "b"), ("pool", None), ("pool", None)]
    ):
        one = Row(
            identify(str(number).encode()), split, label=label, label_source=label and "human", origin=f"f{number}"
        )
        rows.append(one)
    for stage, kept in (("scrape", rows), ("validate", rows), ("pseudo_label/1", rows[4:5])):
        image_arrays = stage == "scrape"
        with GenerationWriter(
            folder / "generations" / stage, stage=stage, modality=modality, images=image_arrays
        ) as writer:
            for row in kept:
                number = rows.index(row)
                payload = content(modality, number) if image_arrays or modality == "text" else None
                pseudo_label = {"label": "b", "label_source": "model"} if stage == "pseudo_label/1" else {}
                known = {name: getattr(row, name) for name in ("id", "split", "label", "label_source", "origin")}
                row_license = "CC BY 4.0" if number == 0 else None
                writer.keep(Row(**{**known, **pseudo_label}, payload=payload, license=row_license))
            writer.close(rows_in=len(kept), classes=["../evil", "b"])
    return folder


def exported(place: Path, modality: Modality, form: DatasetForm | None, made: tuple[str, ...] = ()) -> Path:
    """The folder that was written."""
    export(
        workspace(place / "w", modality),
        place / "out",
        form=form,
        splits=["train", "test", "pool"],
        include=made,
        license_name="mit",
    )
    assert not list(place.glob(".*partial"))
    return place / "out"


def test_folders_hold_every_image_once_below_its_split_and_class(tmp_path: Path) -> None:
    """Six images with their bytes; a class's name is no path; metadata.csv names each file."""
    found = exported(tmp_path, "image", None)
    files = sorted(found.rglob("*.png"))
    assert len(files) == 6
    assert sorted({one.parent.relative_to(found).as_posix() for one in files}) == [
        "pool/_unlabeled",
        "test/b",
        "train/b",
        "train/evil",
    ]
    assert {one.read_bytes() for one in files} == {content("image", number) for number in range(6)}
    with (found / "metadata.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {one["file_name"] for one in rows} == {one.relative_to(found).as_posix() for one in files}
    assert sorted(one["label"] for one in rows) == ["", "", "../evil", "../evil", "b", "b"]


@pytest.mark.parametrize("modality", ["image", "text"])
def test_the_hubs_own_library_reads_what_was_written_for_it(tmp_path: Path, modality: Modality) -> None:
    """Splits, rows, class names, contents; a pool row that the accepted model learnt from has its label."""
    found = exported(tmp_path, modality, DatasetForm.huggingface, made=("pseudo_label",))
    loaded = load_dataset(str(found), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in loaded.items()} == {"train": 3, "test": 1, "pool": 2}
    assert loaded["train"].features["label"].names == ["../evil", "b"]
    assert loaded["train"]["label"][:] == [0, 0, 1]
    assert sorted(one or 0 for one in loaded["pool"]["label"][:]) == [0, 1]
    assert [one for one in loaded["pool"]["label_source"][:] if one] == ["model"]
    if modality == "text":
        assert loaded["train"]["text"][:] == ["text 0", "text 1", "text 2"]
    else:
        assert [np.asarray(one)[0, 0] for one in loaded["train"]["image"][:]] == [0, 10, 20]


def test_a_table_a_split_holds_texts_and_labels(tmp_path: Path) -> None:
    """Texts as they are; the card counts rows and licenses."""
    found = exported(tmp_path, "text", None)
    with (found / "train.csv").open(encoding="utf-8", newline="") as file:
        assert [(one["text"], one["label"]) for one in csv.DictReader(file)] == [
            ("text 0", "../evil"),
            ("text 1", "../evil"),
            ("text 2", "b"),
        ]
    card = (found / "README.md").read_text(encoding="utf-8")
    for part in (
        "license: mit",
        "text-classification",
        "6 texts of 2 classes",
        "| train | 3 | 3 | 0 | 0 | 0 |",
        "CC BY 4.0: 1 rows",
    ):
        assert part in card


def test_what_cannot_be_exported_is_explained(tmp_path: Path) -> None:
    """A folder with something in it; texts as folders; a split that is none; a split without rows."""
    place = workspace(tmp_path / "w", "text")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    for folder, form, splits, said in (
        ("full", None, ["train"], "is not empty"),
        ("new", DatasetForm.folders, ["train"], "Texts cannot be exported as folders: use --as table"),
        ("new", None, ["training"], "'training' is not one of train"),
        ("new", None, ["validation"], "There are no rows of validation"),
    ):
        with pytest.raises(InputError, match=said):
            export(place, tmp_path / folder, form=form, splits=splits, include=[], license_name="mit")
    assert not (tmp_path / "new").exists()


def test_names_of_folders_are_plain_and_no_two_alike() -> None:
    """What leads elsewhere, what differs in case alone, what is nothing but signs."""
    assert plain_names(["../a", "A", "a b", "a/b", "…", "名"]) == {
        "../a": "a",
        "A": "A_2",
        "a b": "a_b",
        "a/b": "a_b_2",
        "…": "class",
        "名": "名",
    }
    assert [suffix_of(one) for one in (b"\xff\xd8\xff0", b"GIF89a", b"\x89PNG", b"?")] == ["jpg", "gif", "png", "png"]


@pytest.mark.slow
def test_an_exported_model_answers_without_seedling_as_predict_does(finished_copy: Path, tmp_path: Path) -> None:
    """The model of a whole run is written as ONNX, and predict.py asked in a process that cannot see our packages."""
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
    own = subprocess.run(
        [*SEEDLING, "predict", *image_arrays, "-w", workspace], capture_output=True, text=True, check=True
    ).stdout
    *_, junk = csv.DictReader(alone.splitlines())
    assert (junk["predicted"], junk["error"]) == ("", "undecodable")
    alone = "\n".join(alone.splitlines()[:-1])
    mine, its = ([*csv.DictReader(said.splitlines())] for said in (own, alone))
    assert [one["predicted"] for one in its] == [one["predicted"] for one in mine]
    assert [float(one["confidence"]) for one in its] == pytest.approx(
        [float(one["confidence"]) for one in mine], abs=1e-4
    )
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "pipeline_tag: image-classification" in card
    assert (workspace / "reports/model_card.md").is_file()
    assert (workspace / "reports/dataset_card.md").is_file()


@pytest.mark.slow
def test_an_exported_model_wants_an_empty_folder_and_a_model(tmp_path: Path) -> None:
    """A folder with something in it, a workspace without a model, and options of datasets: each a clear error."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/kept.txt").write_text("kept", encoding="utf-8")
    with pytest.raises(InputError, match="not empty"):
        export_model(tmp_path, tmp_path / "full", number=None, license_name="unknown")
    with pytest.raises(MissingGeneration, match="train@0"):
        export_model(tmp_path, tmp_path / "new", number=None, license_name="unknown")
    said = subprocess.run(
        [*SEEDLING, "export", "x", "--model", "--as", "table"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 2
    assert "leave them out with --model" in said.stderr
