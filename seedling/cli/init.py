"""The command `seedling init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from seedling.cli.options import Debug, explained
from seedling.errors import InputError
from seedling.terminal.printable import printable


def _pair(said: str) -> tuple[str, str]:
    name, equals, value = said.partition("=")
    if not (name and equals and value):
        raise InputError(f"--column {said}: say which column is what, as in --column text=message.")
    return name, value


def init(
    folder: Annotated[Path, typer.Argument(help="The new workspace.")],
    images: Annotated[Path | None, typer.Option(help="A folder of images, or a table with an image column.")] = None,
    texts: Annotated[
        Path | None, typer.Option(help="A CSV, TSV, JSONL or Parquet file with a text column, or a folder.")
    ] = None,
    collect: Annotated[
        Literal["images", "texts"] | None,
        typer.Option(help="No data yet: its sources are described in params.yaml, as docs/collecting.md shows."),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            help="A pretrained encoder: a folder that transformers saved, a model of the Hugging Face Hub, or none.",
            show_default="all-MiniLM-L6-v2 for texts, where seedling-ml[minilm] is installed",
        ),
    ] = None,
    pack: Annotated[
        bool | None,
        typer.Option(
            "--pack/--loose",
            help="Keep a folder's files in data/packed/*.parquet, or as they are.",
            show_default="packed from 10,000 files on",
        ),
    ] = None,
    by_source: Annotated[
        bool | None,
        typer.Option(
            "--by-source/--by-class",
            help="The folder's top folders are sources, with class folders in each; or they are the classes.",
            show_default="what their names say",
        ),
    ] = None,
    column: Annotated[
        list[str] | None,
        typer.Option(help="Of a table: text=message or label=category, where its columns have names of their own."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="Of a table.", show_default="utf-8")] = None,
    delimiter: Annotated[
        str | None,
        typer.Option(help="The character between the cells of a table; tab for a tab.", show_default="found out"),
    ] = None,
    no_label: Annotated[
        list[str] | None,
        typer.Option(help="A value of the label column that stands for no label; empty: every value is a class."),
    ] = None,
    with_code: Annotated[
        bool,
        typer.Option("--with-code", help="Copy scripts and programs of the folder, too; they are left out otherwise."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Makes a workspace, an ordinary git and DVC repository, of a folder, a table, or of what is to be collected."""
    with explained(debug):
        from seedling.init.create import make_workspace, told_left_out
        from seedling.progress import terminal

        source = images or texts
        if sum(one is not None for one in (images, texts, collect)) != 1:
            raise InputError(
                "Name the data: either --images PATH or --texts PATH; or, where all is to be collected, --collect images or texts."
            )
        of_data = (by_source, column, encoding, delimiter, no_label)
        if collect is not None and any(option is not None for option in of_data):
            raise InputError(
                "--by-source, --column, --encoding, --delimiter and --no-label are of data that is there: leave them out beside --collect."
            )
        left_out: list[tuple[str, str]] = []
        preview_lines: list[str] = []
        modality: Literal["image", "text"] = "image" if images is not None or collect == "images" else "text"
        with terminal("init") as progress:
            made = make_workspace(
                folder,
                source,
                modality,
                encoder=encoder,
                pack=pack,
                by_source=by_source,
                columns=dict(_pair(one) for one in column or ()),
                encoding=encoding,
                delimiter="\t" if delimiter in {"tab", "\\t"} else delimiter,
                no_label=no_label or None,
                with_code=with_code,
                left_out=left_out,
                preview_lines=preview_lines,
                progress=progress,
            )
        for sentence in [*told_left_out(left_out), *preview_lines]:
            print(printable(sentence))
        packed = sorted((made / "data" / "packed").glob("*.parquet")) if pack is not False else []
        if packed and pack is None:
            print(
                f"The files of {source} lie packed in {len(packed)} Parquet files (--loose would keep them as they are)."
            )
        then = ", describe a source in params.yaml (docs/collecting.md), and" if collect else " &&"
        print(printable(f"{made} is ready. Next: cd {made}{then} seedling run"))
