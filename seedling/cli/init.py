"""The command `seedling init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from seedling.cli.options import Debug, explained
from seedling.errors import InputError
from seedling.terminal.printable import printable


def _pair(option: str) -> tuple[str, str]:
    name, equals, value = option.partition("=")
    if not (name and equals and value):
        raise InputError(f"Invalid --column {option!r}: write NAME=COLUMN, for example --column text=message.")
    return name, value


def init(
    folder: Annotated[Path, typer.Argument(help="Folder of the new workspace.")],
    images: Annotated[Path | None, typer.Option(help="Folder of images, or a table with an image column.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet file with a text column, or a folder.")
    ] = None,
    collect: Annotated[
        Literal["images", "texts"] | None,
        typer.Option(
            help="Create a workspace without data, whose sources you describe in params.yaml (docs/collecting.md)."
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="Pretrained encoder: a folder saved by transformers, a model of the Hugging Face Hub, or none.",
            show_default="all-MiniLM-L6-v2 for texts, if seedling-ml[minilm] is installed",
        ),
    ] = None,
    pack: Annotated[
        bool | None,
        typer.Option(
            "--pack/--loose",
            help="Store the files of a folder in data/packed/*.parquet, or as separate files.",
            show_default="packed if there are 10,000 files or more",
        ),
    ] = None,
    by_source: Annotated[
        bool | None,
        typer.Option(
            "--by-source/--by-class",
            help="The top-level folders are sources that hold class folders, or they are the classes.",
            show_default="detected by their names",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Column of the table: text=message or label=category. May be repeated."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Encoding of the table.", show_default="utf-8")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="Character between the cells of the table; tab for a tab.", show_default="detected"),
    ] = None,
    no_label: Annotated[
        list[str] | None,
        typer.Option(
            help="Value of the label column that means no label. May be repeated; empty: every value is a class."
        ),
    ] = None,
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Also copy the scripts and programs in the folder."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Create a workspace, a git and DVC repository, from a folder, from a table, or for data to collect."""
    with explained(debug):
        from seedling.init.create import describe_left_out, make_workspace
        from seedling.progress import terminal

        source = images or texts
        if sum(option is not None for option in (images, texts, collect)) != 1:
            raise InputError("Name the data with one of --images PATH, --texts PATH, or --collect images|texts.")
        data_options = (by_source, column, encoding, delimiter, no_label)
        if collect is not None and any(option is not None for option in data_options):
            raise InputError(
                "--by-source, --column, --encoding, --delimiter and --no-label describe existing data and cannot be "
                "used with --collect."
            )
        left_out: list[tuple[str, str]] = []
        preview_lines: list[str] = []
        modality: Literal["image", "text"] = "image" if images is not None or collect == "images" else "text"
        with terminal("init") as progress:
            workspace = make_workspace(
                folder,
                source,
                modality,
                encoder=encoder,
                pack=pack,
                by_source=by_source,
                columns=dict(_pair(pair) for pair in column or ()),
                encoding=encoding,
                delimiter="\t" if delimiter in {"tab", "\\t"} else delimiter,
                no_label=no_label or None,
                with_code=with_code,
                left_out=left_out,
                preview_lines=preview_lines,
                progress=progress,
            )
        for sentence in [*describe_left_out(left_out), *preview_lines]:
            print(printable(sentence))
        packed = sorted((workspace / "data" / "packed").glob("*.parquet")) if pack is not False else []
        if packed and pack is None:
            print(
                f"The files of {source} are packed in {len(packed)} Parquet files "
                "(--loose keeps them as separate files)."
            )
        next_step = ", describe a source in params.yaml (docs/collecting.md), and" if collect else " &&"
        print(printable(f"{workspace} is ready. Next: cd {workspace}{next_step} seedling run"))
