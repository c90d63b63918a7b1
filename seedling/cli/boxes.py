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


def boxes(  # noqa: PLR0913  (Typer makes an option of each argument)
    images: Annotated[Path, typer.Argument(help="Folder of the images.")],
    annotations: Annotated[
        Path | None, typer.Argument(help="Folder or file of the annotations.", show_default="the folder of the images")
    ] = None,
    write: Annotated[BoxFormat | None, typer.Option("--as", help="Format to write the usable boxes in.")] = None,
    output: Annotated[Path | None, typer.Option("--to", help="New folder to write to, with the images.")] = None,
    without_annotation: Annotated[
        WithoutAnnotation, typer.Option(help="What an image is that no annotation names.")
    ] = WithoutAnnotation.unlabeled,
    rotated: Annotated[
        bool, typer.Option("--hulls-of-rotated", help="Read a rotated box as the upright box around it.")
    ] = False,
    table: Annotated[
        Path | None, typer.Option("--table", help="CSV file to write: rejected and unusual boxes, and problems.")
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option("--predictions", help="Folder or file of a detector's boxes, with confidences, to score."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Check images with boxes, write them in another of six annotation formats, and score a detector's boxes."""
    with explained(debug):
        if (write is None) != (output is None):
            raise InputError("Writing needs both the format and a new folder: pass --as and --to.")
        from seedling.boxes.command import check_boxes
        from seedling.boxes.reading import ReadingOptions

        options = ReadingOptions(without_annotation.value, rotated)
        checked = check_boxes(images, annotations, options, form=write, output=output, table=table)
        if predictions is not None:
            from seedling.boxes.scoring import print_scores

            print_scores(checked, images, predictions)
