"""The command `seedling export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained
from seedling.errors import InputError
from seedling.formats import DatasetForm


def export(  # noqa: PLR0913  (Typer makes an option of each argument)
    folder: Annotated[Path, typer.Argument(help="New folder to write to.")],
    form: Annotated[
        DatasetForm | None,
        typer.Option("--as", help="Layout of the dataset.", show_default="folders for images, a table for texts"),
    ] = None,
    splits: Annotated[
        list[str] | None,
        typer.Option("--split", help="Split to export. May be repeated.", show_default="train, validation, test"),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option("--include", help="Also export rows of augment, synthesize or pseudo_label. May be repeated."),
    ] = None,
    license_name: Annotated[
        str, typer.Option("--license", help="License of the whole dataset or model, for its card.")
    ] = "unknown",
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Keep the metadata of image files: place, author and camera."),
    ] = False,
    model: Annotated[
        bool,
        typer.Option(
            "--model", help="Export the model instead, as ONNX with its preprocessing. Needs seedling-ml\\[onnx]."
        ),
    ] = False,
    number: Annotated[
        int | None, typer.Option("--round", help="Round of the model.", show_default="the accepted one")
    ] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """Export the dataset as folders, a table or a Hugging Face Hub dataset, or the model as ONNX; with a card."""
    with explained(debug):
        if model:
            if form or splits or include or keep_metadata:
                raise InputError(
                    "--as, --split, --include and --keep-metadata export a dataset: leave them out with --model."
                )
            from seedling.export.model import export_model

            export_model(workspace.resolve(), folder, number=number, license_name=license_name)
            return
        if number is not None:
            raise InputError("--round selects a model: add --model, or leave it out.")
        from seedling.export.dataset import export as export_dataset

        export_dataset(
            workspace.resolve(),
            folder,
            form=form,
            splits=splits or ["train", "validation", "test"],
            include=include or [],
            license_name=license_name,
            keep_metadata=keep_metadata,
        )
