"""`seedling boxes`: what it prints and writes, and that other libraries read it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from annotated_folders import HEIGHT, WIDTH, write_annotations, write_files, write_images
from in_process import seedling
from PIL import Image

from seedling.boxes.annotations import AnnotatedImage, AnnotatedObject, AnnotationSet
from seedling.boxes.checks import CheckedAnnotations
from seedling.boxes.command import write_table
from seedling.boxes.label_errors import BoxIssue
from seedling.boxes.reading import read_annotations
from seedling.formats import BoxFormat

FILES = ("a.png", "b.png", "c.png")
IMAGES = (
    AnnotatedImage(
        "a.png", (AnnotatedObject("cat", (1, 2, 10, 20)), AnnotatedObject("dog", (20, 2, 30, 20))), WIDTH, HEIGHT
    ),
    AnnotatedImage(
        "b.png", (AnnotatedObject("cat", (1, 2, 10, 20)), AnnotatedObject("cat", (1, 2, 0, 20))), WIDTH, HEIGHT
    ),
    AnnotatedImage("c.png", (), WIDTH, HEIGHT),
)


def run(*arguments: object, exit_code: int = 0) -> str:
    """What the command prints; its exit code is as expected."""
    done = seedling(*arguments)
    assert done.returncode == exit_code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def annotated(tmp_path: Path) -> tuple[Path, Path]:
    """The folder of three images, and that of their XML files; one box has no area."""
    images = write_images(tmp_path / "images", FILES)
    return images, write_annotations("voc", IMAGES, ["cat", "dog"], tmp_path / "annotations")


def test_it_prints_what_it_understood(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """Counts of images and objects, the rejected box, and a table of it."""
    result = run("boxes", *annotated, "--table", tmp_path / "table.csv")
    assert result.splitlines() == [
        "Format voc: 3 images, 2 of them with 4 objects, 1 without objects, 0 not annotated.",
        "Categories: cat (3), dog (1).",
        "no_area (1 rejected), for example b.png: cat at 1, 2, 0, 20",
        f"Details: {tmp_path / 'table.csv'}",
    ]
    (row,) = csv.DictReader((tmp_path / "table.csv").read_text().splitlines())
    assert (row["file"], row["category"], row["width"], row["reason"]) == ("b.png", "cat", "0", "no_area")


@pytest.mark.parametrize("form", list(BoxFormat))
def test_a_written_dataset_has_the_usable_boxes_and_images(
    form: BoxFormat, annotated: tuple[Path, Path], tmp_path: Path
) -> None:
    """Read again from the new folder alone."""
    result = run("boxes", *annotated, "--as", form.value, "--to", tmp_path / "out")
    assert f"Wrote 3 images to {tmp_path / 'out'}." in result
    written = read_annotations(tmp_path / "out")
    assert written.problems == []
    assert {Path(file).name: len(image.objects) for file, image in written.images.items()} == {
        "a.png": 2,
        "b.png": 1,
        "c.png": 0,
    }
    (a, _, c) = (written.images[file] for file in sorted(written.images))
    assert a.objects[1].box == pytest.approx((20, 2, 30, 20))
    assert c.complete == "yes"
    assert (tmp_path / "out/images/a.png").read_bytes() == (annotated[0] / "a.png").read_bytes()


def test_faster_coco_eval_reads_the_coco_file(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """Images, categories and boxes."""
    from faster_coco_eval import COCO

    run("boxes", *annotated, "--as", "coco", "--to", tmp_path / "out")
    dataset = COCO(str(tmp_path / "out/annotations.json"))
    assert [image["file_name"] for image in dataset.loadImgs(dataset.getImgIds())] == list(FILES)
    assert [category["name"] for category in dataset.loadCats(dataset.getCatIds())] == ["cat", "dog"]
    boxes = [annotation["bbox"] for annotation in dataset.loadAnns(dataset.getAnnIds(imgIds=[1]))]
    assert boxes == [[1, 2, 10, 20], [20, 2, 30, 20]]


def test_the_library_datasets_reads_the_hugging_face_folder(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """With the images."""
    from datasets import load_dataset

    run("boxes", *annotated, "--as", "hugging-face", "--to", tmp_path / "out")
    rows = load_dataset("imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    by_count = sorted(rows, key=lambda row: -len(row["objects"]["bbox"]))
    assert by_count[0]["objects"]["category"] == ["cat", "dog"]
    assert by_count[0]["image"].size == (WIDTH, HEIGHT)


def test_a_turned_photograph_is_written_upright(tmp_path: Path) -> None:
    """Its EXIF orientation is applied to the pixels; the box, drawn on the stored pixels, is turned with it."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    pixels[4:20, 8:32] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images/a.png", exif=exif)
    image = AnnotatedImage("a.png", (AnnotatedObject("cat", (8, 4, 24, 16)),), WIDTH, HEIGHT)
    folder = write_annotations("voc", [image], ["cat"], tmp_path / "annotations")
    result = run("boxes", tmp_path / "images", folder, "--as", "coco", "--to", tmp_path / "out")
    assert "boxes_turned (1), for example a.xml: a.png, EXIF orientation 6" in result
    written = Image.open(tmp_path / "out/images/a.png")
    assert written.size == (HEIGHT, WIDTH)
    assert written.getexif().get(0x0112, 1) == 1
    x, y, width, height = json.loads((tmp_path / "out/annotations.json").read_text())["annotations"][0]["bbox"]
    inside = np.asarray(written)[int(y) : int(y + height), int(x) : int(x + width)]
    assert inside.min() == 255
    assert inside.size == 24 * 16 * 3


@pytest.mark.parametrize("form", list(BoxFormat))
def test_an_image_that_is_not_annotated_stays_so(form: BoxFormat, tmp_path: Path) -> None:
    """In every format, it does not become an image without objects."""
    images = write_images(tmp_path / "images", FILES)
    folder = write_annotations("voc", [IMAGES[0], IMAGES[2]], ["cat"], tmp_path / "annotations")
    run("boxes", images, folder, "--as", form.value, "--to", tmp_path / "out")
    written = {Path(file).name: image for file, image in read_annotations(tmp_path / "out").images.items()}
    assert {name: image.complete for name, image in written.items()} == {
        "a.png": "yes",
        "b.png": "unknown",
        "c.png": "yes",
    }


def test_what_a_format_cannot_hold_is_printed(tmp_path: Path) -> None:
    """A table has no crowds."""
    images = write_images(tmp_path / "images", FILES)
    crowd = AnnotatedImage("a.png", (AnnotatedObject("cat", (1, 2, 10, 20), is_crowd=True),), WIDTH, HEIGHT)
    folder = write_annotations("coco", [crowd], ["cat"], tmp_path / "annotations")
    output = run("boxes", images, folder, "--as", "csv", "--to", tmp_path / "out")
    assert "The format csv cannot hold everything. Left out: 1 crowds." in output


def test_two_images_never_share_an_annotation_file(tmp_path: Path) -> None:
    """a.png and a.jpg would both have a.txt; nothing is written."""
    images = write_images(tmp_path / "images", ["a.png", "a.jpg"])
    annotated = [AnnotatedImage(file, IMAGES[0].objects, WIDTH, HEIGHT) for file in ("a.png", "a.jpg")]
    folder = write_annotations("coco", annotated, ["cat", "dog"], tmp_path / "annotations")
    for form in ("voc", "yolo"):
        output = run("boxes", images, folder, "--as", form, "--to", tmp_path / form, exit_code=2)
        assert "would have the same annotation file" in " ".join(output.split())
        assert not (tmp_path / form).exists()
    run("boxes", images, folder, "--as", "coco", "--to", tmp_path / "coco")


def test_a_link_out_of_the_folder_is_not_copied(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """Neither as an image nor as an annotation."""
    secret = write_images(tmp_path / "elsewhere", ["secret.png"])
    (annotated[0] / "secret.png").symlink_to(secret / "secret.png")
    (annotated[1] / "secret.xml").symlink_to(tmp_path / "elsewhere/secret.png")
    result = run("boxes", *annotated, "--as", "coco", "--to", tmp_path / "out")
    assert "Format voc: 3 images" in result
    assert sorted(path.name for path in (tmp_path / "out/images").iterdir()) == list(FILES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--as", "coco"], "pass --as and --to"),
        (["--as", "coco", "--to", "images"], "is not empty"),
        (["--table", "nowhere/table.csv"], "The folder of nowhere/table.csv does not exist"),
        (["--predictions", "gone.json"], "gone.json does not exist: name the folder or file of the predictions"),
    ],
)
def test_wrong_options_are_explained(
    arguments: list[str], message: str, annotated: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With exit code 2."""
    monkeypatch.chdir(annotated[0].parent)
    result = run("boxes", "images", "annotations", *arguments, exit_code=2)
    assert message in " ".join(result.split())


def test_a_folder_without_annotations_names_the_formats(tmp_path: Path) -> None:
    """And a folder without images says so."""
    images = write_images(tmp_path / "images", FILES)
    write_files(images, {"notes.txt": "nothing", "numbers.csv": "a,b\n1,2\n", "params.yaml": "a: 1\n"})
    assert "COCO JSON" in run("boxes", images, exit_code=2)
    (tmp_path / "empty").mkdir()
    assert "has no images" in run("boxes", tmp_path / "empty", exit_code=2)


def test_a_detectors_boxes_are_scored_with_intervals(tmp_path: Path) -> None:
    """COCO results of six images: five cats of six are found, and the dogs are found in the wrong place."""
    files = [f"{number}.png" for number in range(6)]
    images = write_images(tmp_path / "images", files)
    cat, dog = AnnotatedObject("cat", (1, 2, 10, 20)), AnnotatedObject("dog", (20, 2, 30, 20))
    annotated = [AnnotatedImage(file, (cat, dog), WIDTH, HEIGHT) for file in files]
    moved = AnnotatedObject("dog", (20, 30, 30, 15), confidence=0.5)
    detected = [AnnotatedImage(file, (AnnotatedObject("cat", cat.box, confidence=0.9), moved)) for file in files[:5]]
    truth = write_annotations("voc", annotated, ["cat", "dog"], tmp_path / "annotations")
    predictions = write_annotations("coco", detected, ["cat", "dog"], tmp_path / "predictions")
    scores, by_category, by_size = run("boxes", images, truth, "--predictions", predictions).splitlines()[-3:]
    cat_ap = 84 / 101  # recalls 0 to 0.83 are reached, each with a precision of 1
    assert scores.startswith(f"On 6 images: AP {cat_ap / 2:.3f} [")
    assert by_category == f"AP by category: cat {cat_ap:.3f}, dog 0.000."
    assert by_size == f"AP by size: small {cat_ap / 2:.3f}."


def test_predictions_of_other_categories_are_explained(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """With both lists of names."""
    detected = [AnnotatedImage("a.png", (AnnotatedObject("Katze", (1, 2, 10, 20)),))]
    predictions = write_annotations("coco", detected, ["Katze"], tmp_path / "predictions")
    output = run("boxes", *annotated, "--predictions", predictions, exit_code=2)
    assert "has the categories Katze, and the annotations cat, dog" in " ".join(output.split())


def test_the_table_lists_label_errors(tmp_path: Path) -> None:
    """With the box, the kind, and what the model suggests."""
    checked = CheckedAnnotations(AnnotationSet("voc"))
    cat, dog = AnnotatedObject("cat", (1, 2, 10, 20)), AnnotatedObject("dog", (1, 3, 10, 20), "model", 0.9)
    issues = [BoxIssue("a.png", "swapped", 0.81, cat, dog), BoxIssue("b.png", "overlooked", 0.5, None, dog)]
    write_table(checked, issues, tmp_path / "table.csv")
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [list(row.values()) for row in rows] == [
        ["a.png", "cat", "1", "2", "10", "20", "swapped", "score 0.81, more likely dog"],
        ["b.png", "dog", "1", "3", "10", "20", "overlooked", "score 0.50"],
    ]


def test_predictions_of_unknown_images_are_reported(annotated: tuple[Path, Path], tmp_path: Path) -> None:
    """They would otherwise only look like a bad detector."""
    detected = [AnnotatedImage(file, (AnnotatedObject("cat", (1, 2, 10, 20)),)) for file in ("a.png", "gone.png")]
    predictions = write_annotations("coco", detected, ["cat"], tmp_path / "predictions")
    output = run("boxes", *annotated, "--predictions", predictions)
    assert "Predictions: missing_image (1), for example instances.json: gone.png" in output
