"""The command `seedling init`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from seedling.cli.options import Debug, explained
from seedling.errors import InputError
from seedling.terminal.printable import printable
from seedling.workspace import Workspace

if TYPE_CHECKING:
    from seedling.init.create import InitFindings


NO_ENCODER = (
    "No encoder is set. For photographs, a pretrained one usually helps more than any other setting: pass "
    "--encoder FOLDER or a model of the Hugging Face Hub, or set `encoder` in params.yaml. Small images, such as "
    "digits, do not need one (--encoder none)."
)


def _pair(option: str) -> tuple[str, str]:
    name, equals, value = option.partition("=")
    if not (name and equals and value):
        raise InputError(f"Invalid --column {option!r}: write NAME=COLUMN, for example --column text=message.")
    return name, value


Folder = Annotated[Path, typer.Argument(help="Folder of the new workspace.")]
Images = Annotated[Path | None, typer.Option(help="Folder of images, or a table with an image column.")]
Texts = Annotated[Path | None, typer.Option(help="CSV, TSV, JSONL or Parquet file with a text column, or a folder.")]
Collect = Annotated[
    Literal["images", "texts"] | None,
    typer.Option(
        help="Create a workspace without data, whose sources you describe in params.yaml (docs/collecting.md)."
    ),
]
Encoder = Annotated[
    str | None,
    typer.Option(
        help="Pretrained encoder: a folder saved by transformers, a model of the Hugging Face Hub, or none.",
        show_default="all-MiniLM-L6-v2 for texts, if seedling-ml[minilm] is installed",
    ),
]
Pack = Annotated[
    bool | None,
    typer.Option(
        "--pack/--loose",
        help="Store the files of a folder in data/packed/*.parquet, or as separate files.",
        show_default="packed if there are 10,000 files or more",
    ),
]
BySource = Annotated[
    bool | None,
    typer.Option(
        "--by-source/--by-class",
        help="The top-level folders are sources that hold class folders, or they are the classes.",
        show_default="detected by their names",
    ),
]
Column = Annotated[
    list[str] | None,
    typer.Option(help="Column of the table: text=message or label=category. May be repeated."),
]
Encoding = Annotated[str | None, typer.Option(help="Encoding of the table.", show_default="utf-8")]
Delimiter = Annotated[
    str | None,
    typer.Option(help="Character between the cells of the table; tab for a tab.", show_default="detected"),
]
NoLabel = Annotated[
    list[str] | None,
    typer.Option(help="Value of the label column that means no label. May be repeated; empty: every value is a class."),
]
WithCode = Annotated[
    bool,
    typer.Option("--with-code", help="Also copy the scripts and programs in the folder."),
]


def init(  # noqa: PLR0913  (Typer makes an option of each argument)
    folder: Folder,
    images: Images = None,
    texts: Texts = None,
    collect: Collect = None,
    encoder: Encoder = None,
    pack: Pack = None,
    by_source: BySource = None,
    column: Column = None,
    encoding: Encoding = None,
    delimiter: Delimiter = None,
    no_label: NoLabel = None,
    with_code: WithCode = False,
    debug: Debug = False,
) -> None:
    """Create a workspace, a git and DVC repository, from a folder, from a table, or for data to collect."""
    with explained(debug):
        from seedling.init.create import InitFindings, InitOptions, make_workspace
        from seedling.init.table_sources import TableOptions
        from seedling.progress import terminal

        _check_options(images, texts, collect, (by_source, column, encoding, delimiter, no_label))
        table = TableOptions(
            columns=dict(_pair(pair) for pair in column or ()),
            encoding=encoding,
            delimiter="\t" if delimiter in {"tab", "\\t"} else delimiter,
            no_label=no_label or None,
        )
        options = InitOptions(pack, by_source, with_code, table)
        modality: Literal["image", "text"] = "image" if images is not None or collect == "images" else "text"
        source, findings = images or texts, InitFindings()
        with terminal("init") as progress:
            workspace = make_workspace(
                folder, source, modality, encoder=encoder, options=options, findings=findings, progress=progress
            )
        _print_result(workspace, source, findings, may_be_packed=pack is None)
        if modality == "image" and encoder is None:
            print(NO_ENCODER)


def _check_options(
    images: Path | None, texts: Path | None, collect: str | None, data_options: Sequence[object | None]
) -> None:
    """Raise InputError for options that exclude one another. data_options: those that describe existing data."""
    if sum(option is not None for option in (images, texts, collect)) != 1:
        raise InputError("Name the data with one of --images PATH, --texts PATH, or --collect images|texts.")
    if collect is not None and any(option is not None for option in data_options):
        raise InputError(
            "--by-source, --column, --encoding, --delimiter and --no-label describe existing data and cannot be "
            "used with --collect."
        )


def _print_result(workspace: Path, source: Path | None, findings: InitFindings, *, may_be_packed: bool) -> None:
    """Print what was left out, the preview and the next step. may_be_packed: whether no option decided on packing."""
    from seedling.init.create import describe_left_out

    for sentence in [*describe_left_out(findings.left_out), *findings.preview_lines]:
        print(printable(sentence))
    packed = sorted(Workspace(workspace).packed_data.glob("*.parquet")) if may_be_packed else []
    if packed:
        print(
            f"The files of {source} are packed in {len(packed)} Parquet files (--loose keeps them as separate files)."
        )
    next_step = ", describe a source in params.yaml (docs/collecting.md), and" if source is None else " &&"
    print(printable(f"{workspace} is ready. Next: cd {workspace}{next_step} seedling run"))
