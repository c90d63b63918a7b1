"""The command `seedling boxes`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, explained
from seedling.errors import InputError
from seedling.formats import BoxFormat


class WithoutAnnotation(StrEnum):
    """What an image is that no annotation names."""

    unlabeled = "unlabeled"
    background = "background"


Images = Annotated[Path, typer.Argument(help="Folder of the images.")]
Annotations = Annotated[
    Path | None, typer.Argument(help="Folder or file of the annotations.", show_default="the folder of the images")
]
Write = Annotated[BoxFormat | None, typer.Option("--as", help="Format to write the usable boxes in.")]
Output = Annotated[Path | None, typer.Option("--to", help="New folder to write to, with the images.")]
Unannotated = Annotated[
    WithoutAnnotation, typer.Option("--without-annotation", help="What an image is that no annotation names.")
]
HullsOfRotated = Annotated[
    bool, typer.Option("--hulls-of-rotated", help="Read a rotated box as the upright box around it.")
]
Table = Annotated[
    Path | None,
    typer.Option("--table", help="CSV file to write: rejected and unusual boxes, label errors, and problems."),
]
Predictions = Annotated[
    Path | None,
    typer.Option("--predictions", help="Folder or file of a detector's boxes, with confidences, to score."),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="Pretrained convolutional model: a folder, or a name on the Hugging Face Hub. Trains a detector on it by "
        "cross-validation, scores its boxes, and lists possible label errors. Needs seedling-ml\\[encoder].",
    ),
]


def boxes(  # noqa: PLR0913  (Typer makes an option of each argument)
    images: Images,
    annotations: Annotations = None,
    write: Write = None,
    output: Output = None,
    without_annotation: Unannotated = WithoutAnnotation.unlabeled,
    hulls_of_rotated: HullsOfRotated = False,
    table: Table = None,
    predictions: Predictions = None,
    backbone: Backbone = None,
    debug: Debug = False,
) -> None:
    """Check images with boxes, find label errors, write the boxes in another format, and score a detector's boxes."""
    with explained(debug):
        if (write is None) != (output is None):
            raise InputError("Writing needs both the format and a new folder: pass --as and --to.")
        if table is not None and not table.absolute().parent.is_dir():
            raise InputError(f"The folder of {table} does not exist: create it, or name another file for --table.")
        if predictions is not None and not predictions.exists():
            raise InputError(f"{predictions} does not exist: name the folder or file of the predictions.")
        from seedling.boxes.command import check_boxes
        from seedling.boxes.reading import ReadingOptions

        options = ReadingOptions(without_annotation.value, hulls_of_rotated)
        checked = check_boxes(images, annotations, options, form=write, output=output)
        issues = []
        if backbone is not None:
            from seedling.boxes.cross_validation import cross_validated_issues

            issues = cross_validated_issues(checked, images, backbone)
        if table is not None:
            from seedling.boxes.command import write_table

            write_table(checked, issues, table)
        if predictions is not None:
            from seedling.boxes.scoring import print_scores

            print_scores(checked, images, predictions)
