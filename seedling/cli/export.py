"""The command `seedling export`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from seedling.cli.options import Debug, Workspace, explained
from seedling.errors import InputError


class DatasetForm(StrEnum):
    """Of an exported dataset."""

    folders = "folders"
    table = "table"
    huggingface = "huggingface"


def export(
    folder: Annotated[Path, typer.Argument(help="Where to, a new folder.")],
    form: Annotated[
        DatasetForm | None,
        typer.Option("--as", help="Of the dataset.", show_default="folders of images, a table of texts"),
    ] = None,
    splits: Annotated[
        list[str] | None, typer.Option("--split", help="May be said again.", show_default="train, validation, test")
    ] = None,
    made: Annotated[
        list[str] | None,
        typer.Option("--with", help="Rows of augment, synthesize or pseudo_label too; may be said again."),
    ] = None,
    license_name: Annotated[
        str, typer.Option("--license", help="License of the whole dataset or model, for its card.")
    ] = "unknown",
    keep_metadata: Annotated[
        bool,
        typer.Option("--keep-metadata", help="Image files as they came, with place, author and camera in them."),
    ] = False,
    model: Annotated[
        bool,
        typer.Option("--model", help="The model instead, as ONNX with its preprocessing; needs seedling-ml\\[onnx]."),
    ] = False,
    number: Annotated[int | None, typer.Option("--round", help="Whose model.", show_default="the accepted one")] = None,
    workspace: Workspace = Path(),
    debug: Debug = False,
) -> None:
    """The dataset as folders of images, as tables, or as the Hugging Face Hub has them; or the model as ONNX; with a card."""
    with explained(debug):
        if model:
            if form or splits or made or keep_metadata:
                raise InputError(
                    "--as, --split, --with and --keep-metadata are of datasets: leave them out beside --model."
                )
            from seedling.export.model import export_model

            export_model(workspace.resolve(), folder, number=number, license_name=license_name)
            return
        if number is not None:
            raise InputError("--round is of models: add --model, or leave it out.")
        from seedling.export.dataset import Form
        from seedling.export.dataset import export as work

        work(
            workspace.resolve(),
            folder,
            form=None if form is None else Form(form.value),
            splits=splits or ["train", "validation", "test"],
            made=made or [],
            license_name=license_name,
            keep_metadata=keep_metadata,
        )
