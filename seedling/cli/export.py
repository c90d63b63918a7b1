"""The command `seedling export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Round, Workspace, explained
from seedling.errors import InputError
from seedling.formats import DatasetForm

Folder = Annotated[Path, typer.Argument(help="New folder to write to.")]
Form = Annotated[
    DatasetForm | None,
    typer.Option("--as", help="Layout of the dataset.", show_default="folders for images, a table for texts"),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", help="Split to export. May be repeated.", show_default="train, validation, test"),
]
Include = Annotated[
    list[str] | None,
    typer.Option("--include", help="Also export rows of augment, synthesize or pseudo_label. May be repeated."),
]
License = Annotated[str, typer.Option("--license", help="License of the whole dataset or model, for its card.")]
KeepMetadata = Annotated[
    bool, typer.Option("--keep-metadata", help="Keep the metadata of image files: place, author and camera.")
]
AsModel = Annotated[
    bool,
    typer.Option(
        "--model", help="Export the model instead, as ONNX with its preprocessing. Needs seedling-ml\\[onnx]."
    ),
]


def export(  # noqa: PLR0913  (Typer makes an option of each argument)
    folder: Folder,
    form: Form = None,
    splits: Splits = None,
    include: Include = None,
    license_name: License = "unknown",
    keep_metadata: KeepMetadata = False,
    model: AsModel = False,
    number: Round = None,
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
