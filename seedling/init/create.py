"""`seedling init`: makes an ordinary git + DVC repository of a user's folder or table."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingColumn, SeedlingError
from seedling.files.data_files import OUTSIDE, fault_of, files_below, folders_below
from seedling.files.ignored_files import (
    HIDDEN,
    NAME_NOT_UTF8,
    NOT_COPIED,
    UNREAD_NAMES,
    hidden_files,
    is_passed_over,
    reason_of,
    write_ignored,
)
from seedling.init.data_layout import check_split_names, lay_out
from seedling.init.data_preview import preview
from seedling.init.table_sources import (
    TableOptions,
    TableSources,
    find_tables,
    for_command_line,
    source_line,
    table_paths,
)
from seedling.media import images
from seedling.plugins import CODE, is_code
from seedling.progress import Progress, silent
from seedling.records.test_evaluations import LOG
from seedling.scrape.folder import ROOTS, TEXT_SUFFIXES
from seedling.scrape.packing import PACKED, pack_folder
from seedling.scrape.table import SUFFIXES
from seedling.terminal.notices import state_once
from seedling.versioning.dvc_yaml import render_dvc_yaml
from seedling.versioning.git_identity import identity_environment
from seedling.versioning.ledger import create_repository, renew_links_of

FOLDER = "{kind: folder, path: .}"
BY_CLASS = FOLDER.replace("}", ", by_class: true}")
MAY_BE_EMPTY = FOLDER.replace("}", ", may_be_empty: true}")
MANY = 10_000  # files: DVC looks at each of them whenever it is asked anything


OWN_FILES = (
    *(
        ".dvc/.gitignore",
        ".dvc/config",
        ".dvcignore",
        ".gitattributes",
        ".gitignore",
        "README.md",
        "data.dvc",
        "dvc.yaml",
    ),
    *("gates.yaml", NOT_COPIED, "params.yaml", "prefect.yaml", LOG),
)
HINTS = {
    CODE: " Read them, and say --with-code to copy them.",
    HIDDEN: " Names that begin with a dot are not read: rename the folder or the files if they are data.",
    NAME_NOT_UTF8: " Their names are not UTF-8: rename them, for example with `convmv -f latin1 -t utf8`.",
    OUTSIDE: " Links that lead out of the folder are not followed: copy what they lead to into it.",
}


def make_workspace(
    folder: Path,
    source: Path | None,
    modality: Modality,
    *,
    encoder: str | None = None,
    pack: bool | None = None,
    by_source: bool | None = None,
    columns: Mapping[str, str] = MappingProxyType({}),
    encoding: str | None = None,
    delimiter: str | None = None,
    no_label: Sequence[str] | None = None,
    with_code: bool = False,
    left_out: list[tuple[str, str]] | None = None,
    preview_lines: list[str] | None = None,
    progress: Progress = silent,
) -> Path:
    """Copies the source to `folder`/data and puts params, gates and the line beside it; gives the workspace.

    source: None where all rows are to be collected: data/ then has empty folders for what the user may add.
    encoder: what params.yaml names as `encoder`, a folder or a model of the Hub, looked at before anything is copied;
    None: all-MiniLM-L6-v2 for texts where its package is installed, "none": none.
    pack: whether a folder's files become Parquet files in data/packed; None: from MANY files on.
    by_source: whether the source's top folders are sources, with class folders in each, or classes; None: what their names say.
    with_code: whether scripts and programs in the source are copied, too; left_out: takes each file that was not copied, with its reason.
    columns: of tables, text, image, label, split, id or group → the column's own name; encoding: of tables, utf-8 where it is None; delimiter: of
    tables, found out where it is None; no_label: words in a column of labels that stand for none. preview_lines: takes what is said of the data.

    Raises InputError where the folder holds a workspace or other files, the source does not exist or holds no such
    rows, an option has nothing to speak of, top folders may be sources or classes, or git is not there.
    """
    folder = folder.resolve()
    _check(folder, source)
    options = TableOptions(columns, encoding, delimiter, no_label)
    listed = [MAY_BE_EMPTY] if source is None else _sources(source, modality, by_source, options)
    if pack and listed not in ([FOLDER], [BY_CLASS]):
        raise InputError(
            "--pack is of one folder of classes: leave it out, tables and several sources stay as they are."
        )
    named = _encoder(encoder, modality)
    out: list[tuple[str, str]] = [] if left_out is None else left_out
    lines: list[str] = [] if preview_lines is None else preview_lines
    beside = folder.with_name(f".{folder.name}.new")  # renamed at the end: a failure leaves nothing behind
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        many = 0 if source is None else sum(len(names) for _, _, names in os.walk(source))
        if source is None:
            _invite(beside / "data")
        elif listed in ([FOLDER], [BY_CLASS]) and many and (pack or (pack is None and many >= MANY)):
            by_class = listed == [BY_CLASS]
            out += pack_folder(
                source, beside / "data", modality, many, progress, with_code=with_code, by_class=by_class
            )
            listed = [f"{{kind: table, path: {PACKED}}}", MAY_BE_EMPTY]
        else:
            out += _copy(source, beside / "data", many, progress, with_code=with_code)
        if source is not None and source.is_dir():
            out += hidden_files(source)
        write_ignored(beside / NOT_COPIED, sorted(out))
        _write_files(beside, folder.name, modality, listed, named)
        progress("track with DVC", 0, None)
        if source is not None:
            lines.extend(_preview(beside, source))
        _track(beside)
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
        renew_links_of(folder)
    except InputError as error:
        raise InputError(str(error).replace(str(beside), str(folder))) from error
    except (OSError, shutil.Error, UnicodeEncodeError) as error:
        raise SeedlingError(f"{folder} could not be made: {_first_line(error)}. Mend that, then run again.") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _first_line(error: Exception) -> str:
    """Shutil collects errors as (from, to, why); the first one says enough."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return str(error)


def _preview(workspace: Path, source: Path) -> list[str]:
    """What is said of the data. Raises InputError where a source cannot be read as params.yaml has it."""
    try:
        return preview(workspace)
    except InputError as error:
        raise InputError(for_command_line(str(error), workspace / "data", source)) from error


def _invite(data: Path) -> None:
    """Folders for the user's own labels; git and DVC keep no empty one, and scrape passes over hidden files."""
    for name in ("labeled", "unlabeled"):
        (data / name).mkdir(parents=True)
        (data / name / ".keep").touch()


def _check(folder: Path, source: Path | None) -> None:
    if shutil.which("git") is None:
        raise InputError("git is not installed: a workspace is a git repository. Install git, then run again.")
    if (folder / "params.yaml").exists():
        raise InputError(f"{folder} is a workspace already: `seedling run --workspace {folder}` runs it.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name a new folder.")
    if source is None:
        return
    if not source.exists():
        raise InputError(f"{source} does not exist: name a folder or a {', '.join(SUFFIXES)} file.")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} lies within {source}: name a folder outside of it.")


def _quoted(name: str) -> str:
    """As YAML reads it, with any letter."""
    return json.dumps(name, ensure_ascii=False)


def _sources(source: Path, modality: Modality, by_source: bool | None, options: TableOptions) -> list[str]:
    """The `scrape.sources` lines for params.yaml: the table itself, or the folder and the tables in it.

    Raises InputError where nothing is there, an option has nothing to speak of, or top folders may be sources or classes.
    """
    root = source.parent if source.is_file() else source
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise InputError(f"{source} is none of {', '.join(SUFFIXES)}: save the table as one of these.")
        tables, inner = [source.name], []
    else:
        tables = table_paths(source)
        inner = sorted(path for path in source.iterdir() if path.is_dir() and not is_passed_over(path.name))
    if options.settings() and not tables:
        raise InputError(
            f"--column, --encoding, --delimiter and --no-label are of tables, and {source} holds none: leave them out."
        )
    if by_source and (tables or not inner):
        raise InputError(
            f"--by-source is of folders alone, and {source} holds a table: leave it out, and name the sources in params.yaml."
        )
    try:
        found_tables = find_tables(root, tables, modality, options)
    except MissingColumn as error:
        if not inner or options.columns:
            raise InputError(for_command_line(str(error), root, source)) from error
        found_tables = TableSources([TableSource(kind="table", path=path) for path in tables])
    except InputError as error:
        raise InputError(for_command_line(str(error), root, source)) from error
    if any("/" in path or path == "." for path in tables):  # nothing but tables lies in the folders
        inner = []
    layout = lay_out(source, found_tables.tables, inner, modality, named_columns=bool(options.columns))
    for notice in [*found_tables.notices, *layout.notices]:
        state_once(notice)
    found = [source_line(table) for table in layout.tables]
    folder = BY_CLASS if by_source is False and any(path.name.casefold() in ROOTS for path in inner) else FOLDER
    if inner and layout.folders:
        several = not tables and _hold_classes(inner, modality, by_source)
        found = [f"{{kind: folder, path: {_quoted(one.name)}}}" for one in inner] if several else [folder, *found]
    if not found:
        wanted = "images in <class>/ folders" if modality == "image" else "a table nor .txt files in <class>/ folders"
        raise InputError(f"{source} holds neither {wanted}, nor labeled/ and unlabeled/ folders with such.")
    return found


def _hold_classes(folders: Sequence[Path], modality: Modality, by_source: bool | None) -> bool:
    """Whether these are sources with folders of classes, or of splits, in each. Raises InputError where they may be, or may be classes."""
    if by_source is None:
        check_split_names(folders)
    if by_source is not None or any(one.name.casefold() in ROOTS for one in folders):
        return bool(by_source)
    below = [_folders_in(folder) for folder in folders]
    suffixes = images.SUFFIXES if modality == "image" else TEXT_SUFFIXES
    if any(path.suffix.lower() in suffixes for folder in folders for path in folder.iterdir()):
        return False  # rows lie in them, as in classes
    if all(inner and all(_is_split(one) for one in inner) for inner in below):
        return True
    counts = Counter(one.name for inner in below for one in inner)
    shared = sorted(name for name, many in counts.items() if many > 1)
    if shared:
        raise InputError(
            f"{', '.join(one.name for one in folders[:4])}: are they sources, with the classes {', '.join(shared[:4])} in each, or are they the "
            "classes themselves? Say --by-source or --by-class."
        )
    return False


def _folders_in(folder: Path) -> list[Path]:
    return [one for one in folder.iterdir() if one.is_dir() and not is_passed_over(one.name)]


def _is_split(folder: Path) -> bool:
    """Whether it is named like a split, and has classes in it where that split has any."""
    split = ROOTS.get(folder.name.casefold())
    return split is not None and (split in {"pool", "out_of_scope"} or bool(_folders_in(folder)))


def _copy(source: Path, data: Path, many: int, progress: Progress, *, with_code: bool) -> list[tuple[str, str]]:
    """Copies the files that may be read, links as what they lead to; gives those that are left out, each with its reason."""
    data.mkdir()
    if not source.is_dir():
        if (fault := fault_of(source, source.resolve().parent)) is not None:
            raise InputError(f"{source} is not read ({fault}): name a {', '.join(SUFFIXES)} file.")
        shutil.copy2(source, data / source.name)
        return []
    root, left_out = source.resolve(), []
    for folder in folders_below(source, root):
        if any(is_passed_over(part) for part in folder.relative_to(source).parts):
            continue
        (data / folder.relative_to(source)).mkdir(parents=True, exist_ok=True)
    for copied, (path, fault) in enumerate(files_below(source, root), start=1):
        if reason_of(path.relative_to(source)) in UNREAD_NAMES:
            continue
        reason = fault or (None if with_code or not is_code(path) else CODE)
        if reason is not None:
            left_out.append((path.relative_to(source).as_posix(), reason))
            continue
        to = data / path.relative_to(source)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
        progress("copy", copied, many or None)
    return left_out


def told_left_out(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """What `seedling init` prints of the files that it did not copy: a sentence for each reason, with the first names."""
    sentences = []
    for reason, count in sorted(Counter(reason for _, reason in left_out).items()):
        names = [name for name, why in left_out if why == reason][:5]
        shown = ", ".join(ascii(name)[1:-1] for name in names) + (" …" if count > len(names) else "")
        sentences.append(f"Left out, {reason}: {count:,} ({shown}).{HINTS.get(reason, '')}")
    return sentences


def _encoder(wanted: str | None, modality: Literal["image", "text"]) -> str:
    """The value of `encoder` in params.yaml; a folder is written whole and pinned by its weights' hash."""
    from seedling.config.params import EncoderParams
    from seedling.features.pretrained import MINILM, find_pretrained, minilm_folder, weights_sha256

    if wanted == "none" or (wanted is None and (modality == "image" or minilm_folder() is None)):
        return "null"
    folder = find_pretrained(EncoderParams(model=wanted or MINILM), Path.cwd(), modality)
    local = wanted is not None and (Path.cwd() / wanted).expanduser().is_dir()
    model = str(folder.resolve()) if local else wanted or MINILM
    return f"{{model: {json.dumps(model)}, sha256: {weights_sha256(folder)}}}"


def _write_files(folder: Path, name: str, modality: str, listed: list[str], encoder: str) -> None:
    templates = files("seedling.init") / "workspace_files"
    (folder / "dvc.yaml").write_text(render_dvc_yaml(), encoding="utf-8")
    for file in ("gates.yaml", ".gitignore", ".gitattributes", "prefect.yaml", "README.md"):
        template = templates.joinpath(f"{file.lstrip('.')}.template").read_text(encoding="utf-8")
        title = _quoted(deployment_name(name)) if file == "prefect.yaml" else name
        text = template.replace("NAME", title) if file in {"prefect.yaml", "README.md"} else template
        (folder / file).write_text(text, encoding="utf-8")
    (folder / LOG).touch()
    params = templates.joinpath("params.yaml.template").read_text(encoding="utf-8")
    lines = "\n".join(f"    - {line}" for line in listed)
    (folder / "params.yaml").write_text(
        params.replace("MODALITY", modality).replace("    - SOURCES", lines).replace("ENCODER", encoder),
        encoding="utf-8",
    )


def deployment_name(workspace_name: str) -> str:
    """The workspace's name without the characters that Prefect forbids in names, and without templating braces."""
    return re.sub(r"[/%&<>{}$]", "-", workspace_name)


def _track(folder: Path) -> None:
    """Git init, dvc init, dvc add data, and a first commit, under the user's name where git knows it."""
    _git(folder, "init", "--quiet")
    create_repository(folder)
    ignore = folder / ".dvc" / ".gitignore"
    if not ignore.exists():  # DVC leaves it out where the user's own gitignore names the same files
        ignore.write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    _git(folder, "add", "--all")
    own = [name for name in OWN_FILES if (folder / name).is_file()]
    _git(folder, "add", "--force", "--", *own)  # whatever the user's own gitignore leaves out
    commit = ("commit", "--quiet", "--message", "A Seedling workspace")
    identity = identity_environment(folder)
    try:
        _git(folder, *commit, more=identity)
    except InputError as error:  # a signing key that is not there, or a hook that wants another message
        _git(folder, *commit, "--no-gpg-sign", "--no-verify", more=identity)
        state_once(f"The first commit is unsigned and passed no hooks, since {str(error).removesuffix('.')}.")


def _git(folder: Path, *arguments: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
    environment = {**os.environ, **more}
    command = ["git", "-c", "core.safecrlf=false", *arguments]  # a workspace's files end lines as they do everywhere
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise InputError(f"git {arguments[0]} failed in {folder}: {' '.join(done.stderr.split())}")
