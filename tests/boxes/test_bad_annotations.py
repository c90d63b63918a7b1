"""Annotation files with errors: each is reported under a reason, and costs no other image or box."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from annotated_folders import HEIGHT, WIDTH, write_files, write_images

from seedling.boxes.annotations import AnnotationSet
from seedling.boxes.reading import ReadingOptions, read_annotations
from seedling.errors import InputError

FILES = ("a.png", "b.png")
NAMES = "names: [cat, dog]\n"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images of 64 × 48 pixels."""
    return write_images(tmp_path_factory.mktemp("images"), FILES)


def read(images: Path, folder: Path, files: dict[str, str], **options: Any) -> AnnotationSet:
    """The annotations of these files."""
    return read_annotations(images, write_files(folder, files), ReadingOptions(**options))


def voc(objects: str, filename: str = "a.png", size: str = "") -> str:
    """The XML of an image."""
    return f"<annotation><filename>{filename}</filename>{size}{objects}</annotation>"


def voc_object(name: str = "cat", box: str = "<xmin>1</xmin><ymin>2</ymin><xmax>11</xmax><ymax>22</ymax>") -> str:
    """The XML of an object."""
    return f"<object><name>{name}</name><bndbox>{box}</bndbox></object>"


def coco(**changes: Any) -> str:
    """A COCO file of the two images and an object, with some of its lists replaced."""
    content = {
        "images": [{"id": number, "file_name": file} for number, file in enumerate(FILES, start=1)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20]}],
        "categories": [{"id": 3, "name": "cat"}, {"id": 90, "name": "dog"}],
    }
    return json.dumps({**content, **changes})


def boxes_of(annotations: AnnotationSet, file: str = "a.png") -> list[tuple[str, tuple[float, ...]]]:
    """Category and box of each object."""
    return [(each.category, each.box) for each in annotations.images[file].objects]


def test_an_xml_file_without_objects_is_an_image_without_objects(images: Path, tmp_path: Path) -> None:
    """Its objects are complete: there are none. An image without a file is not annotated."""
    annotations = read(images, tmp_path, {"a.xml": voc("")})
    assert [(file, image.complete) for file, image in annotations.images.items()] == [
        ("a.png", "yes"),
        ("b.png", "unknown"),
    ]


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("<annotation><object>", "not_xml"),
        ("<annotation/", "not_xml"),
        ('<!DOCTYPE a [<!ENTITY x "yyyy">]><annotation>&x;</annotation>', "not_xml"),
        ("<kml><annotation/></kml>", "not_an_annotation"),
        (voc(voc_object(), "other.png").replace("a.png", ""), "missing_image"),
        (voc(voc_object("")), "object_without_name"),
        (voc("<object><name>cat</name></object>"), "no_box"),
        (voc(voc_object(box="<xmin>1</xmin>")), "box_not_four_numbers"),
        (voc(voc_object(box="<xmin>nan</xmin><ymin>1</ymin><xmax>2</xmax><ymax>3</ymax>")), "box_not_four_numbers"),
    ],
)
def test_an_error_in_an_xml_file_costs_that_object_or_file(
    content: str, kind: str, images: Path, tmp_path: Path
) -> None:
    """The other file is read."""
    annotations = read(images, tmp_path, {"z.xml": content, "b.xml": voc(voc_object(), "b.png")})
    assert annotations.problem_counts() == {kind: 1}
    assert boxes_of(annotations, "b.png") == [("cat", (1, 2, 10, 20))]


def test_entities_of_an_xml_file_are_not_expanded(images: Path, tmp_path: Path) -> None:
    """Ten levels of ten entities each would be ten billion characters."""
    levels = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 11))
    content = f'<!DOCTYPE a [<!ENTITY e0 "x">{levels}]><annotation><filename>&e10;</filename></annotation>'
    annotations = read(images, tmp_path, {"a.xml": content, "b.xml": voc("", "b.png")})
    (problem,) = annotations.problems
    assert problem.kind == "not_xml"
    assert "document type" in problem.detail


def test_the_name_in_an_xml_file_may_be_of_another_machine(images: Path, tmp_path: Path) -> None:
    """A path of Windows, and a name that no image has: then the name of the XML file counts."""
    files = {"a.xml": voc(voc_object(), "C:\\photos\\A.PNG"), "b.xml": voc(voc_object("dog"), "IMG_0001.jpeg")}
    annotations = read(images, tmp_path, files)
    assert annotations.problems == []
    assert [boxes_of(annotations, file)[0][0] for file in FILES] == ["cat", "dog"]


def test_names_that_differ_in_case_are_one_category(images: Path, tmp_path: Path) -> None:
    """The most frequent spelling counts, and the change is reported."""
    annotations = read(images, tmp_path, {"a.xml": voc(voc_object("RBC") + voc_object(" rbc ") + voc_object("RBC"))})
    assert annotations.categories == ["RBC"]
    assert [category for category, _ in boxes_of(annotations)] == ["RBC"] * 3
    (problem,) = annotations.problems
    assert (problem.kind, problem.detail) == ("names_differ_in_case", "'rbc' (1) counts as 'RBC' (2)")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("2 .5 .5 .2 .2", "class_index_beyond_names"),
        ("-1 .5 .5 .2 .2", "class_index_beyond_names"),
        ("0.5 .5 .5 .2 .2", "class_index_beyond_names"),
        ("0 .5 .5 .2", "wrong_number_of_values"),
        ("0 .1 .1 .9 .1 .9 .9 .5", "wrong_number_of_values"),
        ("0 .5 1.5 .2 .2", "coordinates_over_1"),
        ("0 320 240 64 48", "coordinates_over_1"),
        ("0 .5 .5 .2 .2 7", "sixth_number_not_a_confidence"),
        ("cat .5 .5 .2 .2", "not_numbers"),
        ("0 nan .5 .2 .2", "not_numbers"),
    ],
)
def test_an_error_in_a_yolo_row_costs_that_row(row: str, kind: str, images: Path, tmp_path: Path) -> None:
    """The other row of the file is read, by hand: half of 64 × 48 pixels around the center."""
    annotations = read(images, tmp_path, {"data.yaml": NAMES, "a.txt": f"{row}\n1 .5 .5 .5 .5\n"})
    assert annotations.problem_counts() == {kind: 1}
    assert annotations.problems[0].where == "a.txt, line 1"
    assert boxes_of(annotations) == [("dog", (16, 12, 32, 24))]


def test_a_sixth_number_of_a_yolo_row_is_a_confidence(images: Path, tmp_path: Path) -> None:
    """As detectors write their predictions."""
    annotations = read(images, tmp_path, {"classes.txt": "cat\ndog\n", "a.txt": "0 .5 .5 .5 .5 .75\n"})
    assert [each.confidence for each in annotations.images["a.png"].objects] == [0.75]


def test_a_polygon_of_yolo_is_the_box_around_it(images: Path, tmp_path: Path) -> None:
    """A triangle, by hand."""
    annotations = read(images, tmp_path, {"data.yaml": NAMES, "a.txt": "0 .25 .25 .75 .25 .5 .5\n"})
    assert boxes_of(annotations) == [("cat", (16, 12, 32, 12))]


@pytest.mark.parametrize("hulls", [False, True])
def test_rotated_boxes_become_their_hull_only_on_request(hulls: bool, images: Path, tmp_path: Path) -> None:
    """A dataset in which every row has four corners; a diamond, by hand."""
    files = {"data.yaml": NAMES, "a.txt": "0 .5 .25 .75 .5 .5 .75 .25 .5\n"}
    annotations = read(images, tmp_path, files, hulls_of_rotated=hulls)
    assert boxes_of(annotations) == ([("cat", (16, 12, 32, 24))] if hulls else [])
    assert annotations.problem_counts() == ({} if hulls else {"rotated_box": 1})


@pytest.mark.parametrize("hulls", [False, True])
def test_rotated_boxes_of_xml_become_their_hull_only_on_request(hulls: bool, images: Path, tmp_path: Path) -> None:
    """A box of 20 × 10 pixels, turned by a right angle, is 10 pixels wide."""
    box = "<robndbox><cx>30</cx><cy>20</cy><w>20</w><h>10</h><angle>1.5707963267948966</angle></robndbox>"
    content = voc(f"<object><name>cat</name>{box}</object>")
    annotations = read(images, tmp_path, {"a.xml": content}, hulls_of_rotated=hulls)
    assert annotations.problem_counts() == ({} if hulls else {"rotated_box": 1})
    if hulls:
        assert boxes_of(annotations)[0][1] == pytest.approx((25, 10, 10, 20))


def test_category_ids_of_coco_may_have_gaps(images: Path, tmp_path: Path) -> None:
    """Ids 3 and 90; a category without objects is one, too."""
    annotations = read(images, tmp_path, {"a.json": coco()})
    assert annotations.object_counts == {"cat": 1, "dog": 0}
    assert annotations.problems == []


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "gone.png"}]}, "missing_image"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]}, "duplicate_image_id"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"file_name": "b.png"}]}, "image_without_id_or_name"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": 3, "name": "dog"}]}, "duplicate_category_id"),
        ({"categories": [{"id": 3, "name": "cat"}, {"name": "dog"}]}, "category_without_id_or_name"),
        ({"categories": [{"id": 3, "name": "cat"}, {"id": [4], "name": "dog"}]}, "category_without_id_or_name"),
        ({"images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "./a.png"}]}, "annotated_twice"),
    ],
)
def test_an_error_in_a_list_of_coco_costs_that_entry(
    changes: dict[str, Any], kind: str, images: Path, tmp_path: Path
) -> None:
    """The object of the first image is read."""
    annotations = read(images, tmp_path, {"a.json": coco(**changes)})
    assert annotations.problem_counts() == {kind: 1}
    assert boxes_of(annotations) == [("cat", (1, 2, 10, 20))]


@pytest.mark.parametrize(
    ("entry", "kind"),
    [
        ({"image_id": 9, "bbox": [1, 2, 3, 4]}, "object_of_missing_image"),
        ({"category_id": 4, "bbox": [1, 2, 3, 4]}, "unknown_category"),
        ({"category_id": [3], "bbox": [1, 2, 3, 4]}, "unknown_category"),
        ({"image_id": {"id": 1}, "bbox": [1, 2, 3, 4]}, "object_of_missing_image"),
        ({"bbox": [1, 2, 3]}, "box_not_four_numbers"),
        ({"bbox": [1, 2, None, 4]}, "box_not_four_numbers"),
        ({"bbox": [1, 2, float("inf"), 4]}, "box_not_four_numbers"),
        ({}, "no_box"),
    ],
)
def test_an_error_in_an_annotation_of_coco_costs_that_object(
    entry: dict[str, Any], kind: str, images: Path, tmp_path: Path
) -> None:
    """The object after it is read."""
    good = {"id": 2, "image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 20]}
    bad = {"id": 1, "image_id": 1, "category_id": 3, **entry}
    annotations = read(images, tmp_path, {"a.json": coco(annotations=[bad, good])})
    assert annotations.problem_counts() == {kind: 1}
    assert boxes_of(annotations) == [("cat", (1, 2, 10, 20))]


def test_a_segmentation_without_a_box_has_the_box_around_it(images: Path, tmp_path: Path) -> None:
    """A polygon; the image has no size, so the polygon cannot become a mask, which is reported."""
    entry = {"id": 1, "image_id": 1, "category_id": 3, "segmentation": [[4, 5, 14, 5, 14, 25, 4, 25]]}
    annotations = read(images, tmp_path, {"a.json": coco(annotations=[entry])})
    assert boxes_of(annotations) == [("cat", (4, 5, 10, 20))]
    assert annotations.problem_counts() == {"mask_not_readable": 1}


def test_a_polygon_of_two_points_is_reported(images: Path, tmp_path: Path) -> None:
    """With a box, the object is read without a mask; without one, it is left out."""
    size = {"width": WIDTH, "height": HEIGHT}
    content = coco(
        images=[{"id": 1, "file_name": "a.png", **size}],
        annotations=[
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": [[1, 2, 4, 6]]},
            {"id": 2, "image_id": 1, "category_id": 3, "segmentation": [[1, 2, 4, 6]]},
        ],
    )
    annotations = read(images, tmp_path, {"a.json": content})
    assert boxes_of(annotations) == [("cat", (1, 2, 3, 4))]
    assert annotations.problem_counts() == {"mask_not_readable": 2, "no_box": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"images": []}', "has no annotation files"),
        ("[1, 2]", "has no annotation files"),
    ],
)
def test_a_json_file_of_another_kind_is_explained(content: str, message: str, images: Path, tmp_path: Path) -> None:
    """With what can be read."""
    with pytest.raises(InputError, match=message):
        read(images, tmp_path, {"a.json": content})


def test_the_same_image_in_two_annotation_files_counts_once(images: Path, tmp_path: Path) -> None:
    """If they differ, the first counts, and the second is reported with both files' names."""
    files = {"1.xml": voc(voc_object()), "2.xml": voc(voc_object()), "3.xml": voc(voc_object() + voc_object("dog"))}
    annotations = read(images, tmp_path, files)
    assert boxes_of(annotations) == [("cat", (1, 2, 10, 20))]
    (problem,) = annotations.problems
    assert (problem.kind, problem.where) == ("annotated_twice", "3.xml")
    assert problem.detail == "a.png: 1 objects in 1.xml, 2 here"


def test_annotations_in_two_formats_need_a_choice(images: Path, tmp_path: Path) -> None:
    """The message counts the files of each."""
    files = {"a.xml": voc(""), "all.json": coco()}
    with pytest.raises(InputError, match=r"several formats: voc \(1\), coco \(1\)"):
        read(images, tmp_path, files)


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ("gone.png,64,48,cat,1,2,11,22", "missing_image"),
        ("a.png,64,48,,1,2,11,22", "object_without_name"),
        ("a.png,64,48,cat,1,2,11,", "box_not_four_numbers"),
        ("a.png,64,48,cat,1,2,11", "box_not_four_numbers"),
    ],
)
def test_an_error_in_a_table_costs_that_row(row: str, kind: str, images: Path, tmp_path: Path) -> None:
    """The row after it is read."""
    table = f"Filename,width,height,class,xmin,ymin,xmax,ymax\n{row}\na.png,64,48,dog,1,2,11,22\n"
    annotations = read(images, tmp_path, {"boxes.csv": table})
    assert annotations.problem_counts() == {kind: 1}
    assert boxes_of(annotations) == [("dog", (1, 2, 10, 20))]


def test_a_region_of_label_studio_that_is_no_box_is_reported(images: Path, tmp_path: Path) -> None:
    """A brush; a canceled annotation does not count, and an uploaded file has a prefix before its name."""
    region = {
        "type": "rectanglelabels",
        "original_width": WIDTH,
        "original_height": HEIGHT,
        "value": {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["cat"]},
    }
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["cat"]}}
    task = {
        "id": 7,
        "data": {"image": "/data/upload/1/0f4e9c1b-a.png"},
        "annotations": [{"was_cancelled": True, "result": []}, {"result": [brush, region]}],
    }
    annotations = read(images, tmp_path, {"tasks.json": json.dumps([task])})
    assert boxes_of(annotations) == [("cat", (16, 12, 32, 24))]
    assert annotations.problem_counts() == {"region_of_another_kind": 1}


def test_lists_of_different_length_cost_that_image(images: Path, tmp_path: Path) -> None:
    """Of Hugging Face's objects: it is not known which category belongs to which box."""
    rows = [
        {"file_name": "a.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": []}},
        {"file_name": "b.png", "objects": {"bbox": [[1, 2, 3, 4]], "category": ["cat"]}},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows) + "not json\n"
    annotations = read(images, tmp_path, {"metadata.jsonl": content})
    assert annotations.problem_counts() == {"lists_of_different_length": 1, "not_json": 1}
    assert boxes_of(annotations, "b.png") == [("cat", (1, 2, 3, 4))]


def test_a_name_that_fits_two_images_fits_none(tmp_path: Path) -> None:
    """Unless it is the path of one of them."""
    images = write_images(tmp_path / "images", ["a.png", "x/a.png", "y/b.png", "z/b.png"])
    files = {"1.xml": voc(voc_object(), "a.png"), "2.xml": voc(voc_object(), "b.png")}
    annotations = read(images, tmp_path / "annotations", files)
    assert [file for file, image in annotations.images.items() if image.objects] == ["a.png"]
    assert annotations.problem_counts() == {"missing_image": 1}


@pytest.mark.parametrize(
    "segmentation",
    [
        5,
        "x",
        [[1, 2, 1e9, 2, 1e9, 1e9]],
        {"size": [HEIGHT, WIDTH], "counts": "zzzzzzzz"},
        {"size": [HEIGHT, WIDTH], "counts": "\u00e9"},
        {"size": [10**6, 10**6], "counts": "0"},
    ],
)
def test_a_hostile_mask_costs_no_memory_and_no_other_object(segmentation: object, images: Path, tmp_path: Path) -> None:
    """A number, a word, a polygon of a billion pixels, damaged counts, and a mask of a terapixel."""
    size = {"width": WIDTH, "height": HEIGHT}
    content = coco(
        images=[{"id": 1, "file_name": "a.png", **size}],
        annotations=[
            {"id": 1, "image_id": 1, "category_id": 3, "bbox": [1, 2, 3, 4], "segmentation": segmentation},
            {"id": 2, "image_id": 1, "category_id": 3, "bbox": [5, 6, 7, 8]},
        ],
    )
    annotations = read(images, tmp_path, {"a.json": content})
    assert [(each.box, each.mask) for each in annotations.images["a.png"].objects] == [
        ((1, 2, 3, 4), None),
        ((5, 6, 7, 8), None),
    ]
    assert annotations.problem_counts() == {"mask_not_readable": 1}


def test_text_files_that_are_no_labels_are_left_alone(images: Path, tmp_path: Path) -> None:
    """A README beside XML files and a list of classes, which many exports contain."""
    files = {"a.xml": voc(voc_object()), "classes.txt": "cat\n", "README.dataset.txt": "Exported in 2026.\n"}
    annotations = read(images, tmp_path, files)
    assert annotations.format == "voc"
    assert annotations.problems == []


def test_labels_without_an_image_are_reported(images: Path, tmp_path: Path) -> None:
    """A file of numbers whose name no image has."""
    files = {"data.yaml": NAMES, "a.txt": "0 .5 .5 .5 .5\n", "gone.txt": "0 .5 .5 .2 .2\n"}
    assert read(images, tmp_path, files).problem_counts() == {"missing_image": 1}


def test_a_class_number_of_a_billion_costs_no_memory(images: Path, tmp_path: Path) -> None:
    """In the names of data.yaml."""
    with pytest.raises(InputError, match="has no `names`"):
        read(images, tmp_path, {"data.yaml": "names: {1000000000: cat}\n", "a.txt": "0 .5 .5 .5 .5\n"})


def test_a_table_in_another_encoding_with_a_huge_cell_is_read_up_to_there(images: Path, tmp_path: Path) -> None:
    """The row before the cell counts."""
    header = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    content = f"{header}a.png,64,48,h\u00fctte,1,2,11,22\nb.png,64,48,{'x' * 200_000},1,2,3,4\n"
    (tmp_path / "boxes.csv").write_bytes(content.encode("latin-1"))
    annotations = read_annotations(images, tmp_path)
    assert len(annotations.images["a.png"].objects) == 1
    assert annotations.problem_counts() == {"not_a_table": 1}


def test_an_address_that_cannot_be_parsed_names_no_image(images: Path, tmp_path: Path) -> None:
    """In a task of Label Studio, beside one that can."""
    tasks = [{"id": n, "data": {"image": url}, "annotations": []} for n, url in enumerate(["http://[", "/d/a.png"])]
    annotations = read(images, tmp_path, {"tasks.json": json.dumps(tasks)})
    assert annotations.problem_counts() == {"missing_image": 1}
