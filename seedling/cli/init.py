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


Labels = Annotated[
    str | None,
    typer.Option(
        help="Class names for data without labels: a file with one name per line, or names with commas between them.",
        metavar="FILE|NAMES",
    ),
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
    labels: Labels = None,
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
        options = InitOptions(pack, by_source, with_code, table, () if labels is None else _class_names(labels))
        modality: Literal["image", "text"] = "image" if images is not None or collect == "images" else "text"
        source, findings = images or texts, InitFindings()
        with terminal("init") as progress:
            workspace = make_workspace(
                folder, source, modality, encoder=encoder, options=options, findings=findings, progress=progress
            )
        _print_result(workspace, source, findings, may_be_packed=pack is None, is_labeled=labels is None)
        if modality == "image" and encoder is None:
            print(NO_ENCODER)


def _class_names(labels: str) -> tuple[str, ...]:
    """The names of --labels: the lines of a file, or the parts between commas."""
    path = Path(labels)
    try:
        text = path.read_text(encoding="utf-8-sig") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--labels {labels} cannot be read ({error}): save it as UTF-8, one class name per line."
        ) from error
    parts = labels.split(",") if text is None else text.splitlines()
    names = tuple(dict.fromkeys(" ".join(name.split()) for name in parts if name.strip()))
    if len(names) < 2:
        raise InputError(
            f"--labels {labels!r} names {len(names)} classes, and at least two are needed: name a file with one class "
            "name per line, or write --labels rose,tulip."
        )
    return names


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


def _print_result(
    workspace: Path, source: Path | None, findings: InitFindings, *, may_be_packed: bool, is_labeled: bool
) -> None:
    """Print what was left out, the preview and the next step.

    may_be_packed: whether no option decided on packing. is_labeled: whether rows have labels, so that a run can start.
    """
    from seedling.init.create import describe_left_out

    for sentence in [*describe_left_out(findings.left_out), *findings.preview_lines]:
        print(printable(sentence))
    packed = sorted(Workspace(workspace).packed_data.glob("*.parquet")) if may_be_packed else []
    if packed:
        print(
            f"The files of {source} are packed in {len(packed)} Parquet files (--loose keeps them as separate files)."
        )
    next_step = ", describe a source in params.yaml (docs/collecting.md), and" if source is None else " &&"
    command = "seedling run" if is_labeled else "seedling review"
    print(printable(f"{workspace} is ready. Next: cd {workspace}{next_step} {command}"))
