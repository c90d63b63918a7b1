"""`seedling init`: creates a workspace, an ordinary git and DVC repository, from a user's folder or table."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from seedling.config.params import set_value
from seedling.config.sources import TableSource
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingColumn, SeedlingError
from seedling.files.data_files import OUTSIDE, fault_of, files_below, folders_below
from seedling.files.ignored_files import (
    HIDDEN,
    NAME_NOT_UTF8,
    UNREAD_NAMES,
    hidden_files,
    is_ignored,
    reason_of,
    write_ignored,
)
from seedling.files.review_folder import EXPLANATION_FILE, create_review_folder
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
from seedling.scrape.folder import SPLIT_FOLDERS, TEXT_SUFFIXES
from seedling.scrape.packing import pack_folder
from seedling.scrape.table import SUFFIXES
from seedling.terminal.notices import state_once
from seedling.versioning.dvc_yaml import render_dvc_yaml
from seedling.versioning.git_identity import identity_environment
from seedling.versioning.repository import create_repository, renew_workspace_links
from seedling.workspace import (
    DATA_POINTER,
    DVC_FOLDER,
    DVC_IGNORE,
    DVC_YAML,
    GATES_FILE,
    GIT_ATTRIBUTES,
    GIT_IGNORE,
    NOT_COPIED,
    PACKED,
    PARAMS_FILE,
    PREFECT_FILE,
    README_FILE,
    REVIEWS,
    TEST_EVALUATIONS,
    Workspace,
)

FOLDER = "{kind: folder, path: .}"
BY_CLASS = FOLDER.replace("}", ", by_class: true}")
MAY_BE_EMPTY = FOLDER.replace("}", ", may_be_empty: true}")
UNLABELED = "unlabeled"  # the folder of the pool
MIN_PACKED_FILES = 10_000  # DVC checks each file of data/ in each command
OWN_FILES = (
    *(f"{DVC_FOLDER}/{GIT_IGNORE}", f"{DVC_FOLDER}/config", DVC_IGNORE, GIT_ATTRIBUTES, GIT_IGNORE, README_FILE),
    *(DATA_POINTER, DVC_YAML, GATES_FILE, NOT_COPIED, PARAMS_FILE, PREFECT_FILE, TEST_EVALUATIONS),
    f"{REVIEWS}/{EXPLANATION_FILE}",
)
HINTS = {
    CODE: " Read them, and use --with-code to copy them.",
    HIDDEN: " Names that begin with a dot are not read: rename the folder or the files if they are data.",
    NAME_NOT_UTF8: " Their names are not UTF-8: rename them, for example with `convmv -f latin1 -t utf8`.",
    OUTSIDE: " Links that lead out of the folder are not followed: copy their targets into it.",
}


@dataclass(frozen=True)
class InitOptions:
    """What to read and to copy.

    pack: whether a folder's files become Parquet files in data/packed; None: from MIN_PACKED_FILES files on.
    by_source: whether the source's top folders are sources with class folders in each, or classes; None: detected.
    with_code: whether scripts and programs in the source are copied, too. table: the settings of all tables. classes:
    their names, if rows need not have labels yet; a source folder without folders of splits or classes then becomes the
    pool.
    """

    pack: bool | None = None
    by_source: bool | None = None
    with_code: bool = False
    table: TableOptions = field(default_factory=TableOptions)
    classes: tuple[str, ...] = ()

    def is_pool(self, source: Path | None) -> bool:
        """Whether the source is a folder of rows without labels."""
        if not self.classes or source is None or not source.is_dir():
            return False
        tables, folders = _tables_and_folders(source)
        return not tables and not any(
            path.name.casefold() in SPLIT_FOLDERS or path.name in self.classes for path in folders
        )


@dataclass(frozen=True)
class InitFindings:
    """Receives each file that is not copied, with its reason, and the lines of the preview of the data."""

    left_out: list[tuple[str, str]] = field(default_factory=list)
    preview_lines: list[str] = field(default_factory=list)


def make_workspace(
    folder: Path,
    source: Path | None,
    modality: Modality,
    *,
    encoder: str | None = None,
    options: InitOptions = InitOptions(),
    findings: InitFindings | None = None,
    progress: Progress = silent,
) -> Path:
    """Copy the source to `folder`/data, write params, gates and the pipeline beside it, and return the workspace.

    source: None if all rows will be collected: data/ then has empty folders to which the user may add files.
    encoder: the `encoder` of params.yaml, a folder or a model of the Hub, which is checked before anything is copied;
    None: all-MiniLM-L6-v2 for texts if its package is installed; "none": no encoder.

    Raises InputError if the folder has a workspace or other files, the source does not exist or has no such rows, an
    option does not apply, top folders may be sources or classes, or git is not installed.
    """
    folder = folder.resolve()
    _check(folder, source)
    if source is None:
        source_lines = [MAY_BE_EMPTY]
    elif options.is_pool(source):
        source_lines = [FOLDER]
    else:
        source_lines = _sources(source, modality, options.by_source, options.table)
    if options.pack and source_lines not in ([FOLDER], [BY_CLASS]):
        raise InputError(
            "--pack applies only to a single folder of classes: remove it; tables and several sources are not packed."
        )
    plan = _Plan(source, modality, source_lines, _encoder(encoder, modality), options)
    temporary = folder.with_name(f".{folder.name}.new")  # renamed at the end: a failure leaves nothing behind
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        plan.carry_out(temporary, folder.name, findings or InitFindings(), progress)
        if folder.exists():
            folder.rmdir()
        temporary.replace(folder)
        renew_workspace_links(folder)
    except InputError as error:
        raise InputError(str(error).replace(str(temporary), str(folder))) from error
    except (OSError, shutil.Error, UnicodeEncodeError) as error:
        raise SeedlingError(
            f"{folder} could not be created: {_first_line(error)}. Fix the cause, then run again."
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


@dataclass(frozen=True)
class _Plan:
    """A workspace to create. source_lines: `scrape.sources` for params.yaml; encoder: the value of `encoder` there."""

    source: Path | None
    modality: Modality
    source_lines: list[str]
    encoder: str
    options: InitOptions

    def carry_out(self, folder: Path, name: str, findings: InitFindings, progress: Progress) -> None:
        """Create the folder and its files. name: of the workspace, which the folder gets at the end."""
        folder.mkdir(parents=True)
        source_lines = self._fill_data(Workspace(folder).data, findings.left_out, progress)
        write_ignored(Workspace(folder).not_copied_file, sorted(findings.left_out))
        _write_files(folder, name, self.modality, source_lines, self.encoder)
        if self.options.classes:
            set_value(folder, ["review", "classes"], list(self.options.classes))
        progress("track with DVC", 0, None)
        if self.source is not None:
            findings.preview_lines.extend(_preview(folder, self.source))
        track(folder)

    def _fill_data(self, data: Path, left_out: list[tuple[str, str]], progress: Progress) -> list[str]:
        """Copy or pack the source into data/, add what is left out to `left_out`, and return the sources' lines."""
        source, source_lines, pack, with_code = (
            self.source,
            self.source_lines,
            self.options.pack,
            self.options.with_code,
        )
        if source is None:
            _make_label_folders(data)
            return source_lines
        file_count = sum(len(names) for _, _, names in os.walk(source))
        if self.options.is_pool(source):
            data.mkdir()
            left_out += _copy(source, data / UNLABELED, file_count, progress, with_code=with_code)
            left_out += hidden_files(source)
            return source_lines
        can_pack = source_lines in ([FOLDER], [BY_CLASS]) and file_count > 0
        if can_pack and (pack or (pack is None and file_count >= MIN_PACKED_FILES)):
            left_out += pack_folder(
                source,
                data,
                self.modality,
                file_count,
                progress,
                with_code=with_code,
                by_class=source_lines == [BY_CLASS],
            )
            source_lines = [f"{{kind: table, path: {PACKED}}}", MAY_BE_EMPTY]
        else:
            left_out += _copy(source, data, file_count, progress, with_code=with_code)
        if source.is_dir():
            left_out += hidden_files(source)
        return source_lines


def _first_line(error: Exception) -> str:
    """Return an error's message; of the errors (source, target, message) that shutil collects, the first message."""
    if isinstance(error, shutil.Error) and error.args and isinstance(error.args[0], list):
        return str(error.args[0][0][-1])
    return str(error)


def _preview(workspace: Path, source: Path) -> list[str]:
    """Return the preview. Raises InputError if a source cannot be read as params.yaml describes it."""
    try:
        return preview(workspace)
    except InputError as error:
        raise InputError(for_command_line(str(error), Workspace(workspace).data, source)) from error


def _make_label_folders(data: Path) -> None:
    """Create folders for the user's own labels, with a hidden file in each: git and DVC do not keep empty folders."""
    for name in ("labeled", "unlabeled"):
        (data / name).mkdir(parents=True)
        (data / name / ".keep").touch()


def _check(folder: Path, source: Path | None) -> None:
    if shutil.which("git") is None:
        raise InputError("git is not installed: a workspace is a git repository. Install git, then run again.")
    if Workspace(folder).params_file.exists():
        raise InputError(f"{folder} is a workspace already: `seedling run --workspace {folder}` runs it.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: name a new folder.")
    if source is None:
        return
    if not source.exists():
        raise InputError(f"{source} does not exist: name a folder or a {', '.join(SUFFIXES)} file.")
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} is inside {source}: name a folder outside of it.")


def _quoted(name: str) -> str:
    """Return the name as a YAML string."""
    return json.dumps(name, ensure_ascii=False)


def _sources(source: Path, modality: Modality, by_source: bool | None, options: TableOptions) -> list[str]:
    """Return the `scrape.sources` lines for params.yaml: the table itself, or the folder and the tables in it.

    Raises InputError if the source has no rows, an option does not apply, or top folders may be sources or classes.
    """
    root = source.parent if source.is_file() else source
    tables, inner = _tables_and_folders(source)
    _check_options(source, tables, inner, by_source, options)
    try:
        table_sources = find_tables(root, tables, modality, options)
    except MissingColumn as error:
        if not inner or options.columns:
            raise InputError(for_command_line(str(error), root, source)) from error
        table_sources = TableSources([TableSource(kind="table", path=path) for path in tables])
    except InputError as error:
        raise InputError(for_command_line(str(error), root, source)) from error
    if any("/" in path or path == "." for path in tables):  # the folders have only tables
        inner = []
    layout = lay_out(source, table_sources.tables, inner, modality, named_columns=bool(options.columns))
    for notice in [*table_sources.notices, *layout.notices]:
        state_once(notice)
    lines = [source_line(table) for table in layout.tables]
    line_of_root = (
        BY_CLASS if by_source is False and any(path.name.casefold() in SPLIT_FOLDERS for path in inner) else FOLDER
    )
    if inner and layout.folders:
        if not tables and _are_sources(inner, modality, by_source):
            lines = [f"{{kind: folder, path: {_quoted(folder.name)}}}" for folder in inner]
        else:
            lines = [line_of_root, *lines]
    if not lines:
        content = "images in <class>/ folders" if modality == "image" else "a table nor .txt files in <class>/ folders"
        raise InputError(f"{source} has neither {content}, nor labeled/ and unlabeled/ folders with such files.")
    return lines


def _tables_and_folders(source: Path) -> tuple[list[str], list[Path]]:
    """Return the source's tables, relative to it, and its top folders."""
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise InputError(f"{source} is not a {', '.join(SUFFIXES)} file: save the table as one of these.")
        return [source.name], []
    folders = sorted(path for path in source.iterdir() if path.is_dir() and not is_ignored(path.name))
    return table_paths(source), folders


def _check_options(
    source: Path, tables: Sequence[str], folders: Sequence[Path], by_source: bool | None, options: TableOptions
) -> None:
    if options.settings() and not tables:
        raise InputError(
            f"--column, --encoding, --delimiter and --no-label apply only to tables, and {source} has none: "
            "remove them."
        )
    if by_source and (tables or not folders):
        raise InputError(
            f"--by-source applies only to folders, and {source} has a table: remove it, and name the sources in "
            "params.yaml."
        )


def _are_sources(folders: Sequence[Path], modality: Modality, by_source: bool | None) -> bool:
    """Whether these are sources with class or split folders in each. Raises InputError if they may also be classes."""
    if by_source is None:
        check_split_names(folders)
    if by_source is not None or any(folder.name.casefold() in SPLIT_FOLDERS for folder in folders):
        return bool(by_source)
    subfolders = [_folders_in(folder) for folder in folders]
    suffixes = images.SUFFIXES if modality == "image" else TEXT_SUFFIXES
    if any(path.suffix.lower() in suffixes for folder in folders for path in folder.iterdir()):
        return False  # they have rows, like classes
    if all(inner and all(_is_split(folder) for folder in inner) for inner in subfolders):
        return True
    counts = Counter(folder.name for inner in subfolders for folder in inner)
    shared = sorted(name for name, count in counts.items() if count > 1)
    if shared:
        raise InputError(
            f"{', '.join(folder.name for folder in folders[:4])}: are they sources, with the classes "
            f"{', '.join(shared[:4])} in each, or are they the classes? Use --by-source or --by-class."
        )
    return False


def _folders_in(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir() and not is_ignored(path.name)]


def _is_split(folder: Path) -> bool:
    """Whether the folder is named like a split, and has class folders if that split has classes."""
    split = SPLIT_FOLDERS.get(folder.name.casefold())
    return split is not None and (split in {"pool", "out_of_scope"} or bool(_folders_in(folder)))


def _copy(source: Path, data: Path, file_count: int, progress: Progress, *, with_code: bool) -> list[tuple[str, str]]:
    """Copy readable files, and links as their targets. Returns the files that are left out: (path, reason)."""
    data.mkdir()
    if not source.is_dir():
        if (fault := fault_of(source, source.resolve().parent)) is not None:
            raise InputError(f"{source} is not read ({fault}): name a {', '.join(SUFFIXES)} file.")
        shutil.copy2(source, data / source.name)
        return []
    root, left_out = source.resolve(), []
    for folder in folders_below(source, root):
        if any(is_ignored(part) for part in folder.relative_to(source).parts):
            continue
        (data / folder.relative_to(source)).mkdir(parents=True, exist_ok=True)
    for copied, (path, fault) in enumerate(files_below(source, root), start=1):
        if reason_of(path.relative_to(source)) in UNREAD_NAMES:
            continue
        reason = fault or (None if with_code or not is_code(path) else CODE)
        if reason is not None:
            left_out.append((path.relative_to(source).as_posix(), reason))
            continue
        target = data / path.relative_to(source)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
        progress("copy", copied, file_count or None)
    return left_out


def describe_left_out(left_out: Sequence[tuple[str, str]]) -> list[str]:
    """Return a sentence per reason why files are not copied, with the first names."""
    sentences = []
    for reason, count in sorted(Counter(reason for _, reason in left_out).items()):
        names = [name for name, cause in left_out if cause == reason][:5]
        listed = ", ".join(ascii(name)[1:-1] for name in names) + (" …" if count > len(names) else "")
        sentences.append(f"Left out, {reason}: {count:,} ({listed}).{HINTS.get(reason, '')}")
    return sentences


def _encoder(name: str | None, modality: Literal["image", "text"]) -> str:
    """Return the value of `encoder` in params.yaml, with the weights' hash; a local folder becomes an absolute path."""
    from seedling.config.params import EncoderParams
    from seedling.features.pretrained import MINILM, find_pretrained, minilm_folder, weights_sha256

    if name == "none" or (name is None and (modality == "image" or minilm_folder() is None)):
        return "null"
    folder = find_pretrained(EncoderParams(model=name or MINILM), Path.cwd(), modality)
    is_local = name is not None and (Path.cwd() / name).expanduser().is_dir()
    model = str(folder.resolve()) if is_local else name or MINILM
    return f"{{model: {json.dumps(model)}, sha256: {weights_sha256(folder)}}}"


def _write_files(folder: Path, name: str, modality: str, source_lines: list[str], encoder: str) -> None:
    paths = Workspace(folder)
    templates = files("seedling.init") / "workspace_files"
    paths.dvc_file.write_text(render_dvc_yaml(), encoding="utf-8")
    for file in (GATES_FILE, GIT_IGNORE, GIT_ATTRIBUTES, PREFECT_FILE, README_FILE):
        template = templates.joinpath(f"{file.lstrip('.')}.template").read_text(encoding="utf-8")
        title = _quoted(deployment_name(name)) if file == PREFECT_FILE else name
        text = template.replace("NAME", title) if file in {PREFECT_FILE, README_FILE} else template
        (folder / file).write_text(text, encoding="utf-8")
    paths.test_evaluations_file.touch()
    create_review_folder(paths.reviews)
    params = templates.joinpath(f"{PARAMS_FILE}.template").read_text(encoding="utf-8")
    lines = "\n".join(f"    - {line}" for line in source_lines)
    paths.params_file.write_text(
        params.replace("MODALITY", modality).replace("    - SOURCES", lines).replace("ENCODER", encoder),
        encoding="utf-8",
    )


def deployment_name(workspace_name: str) -> str:
    """Return the workspace's name without the characters that Prefect forbids in names, and without braces."""
    return re.sub(r"[/%&<>{}$]", "-", workspace_name)


def track(folder: Path) -> None:
    """Run git init, dvc init and dvc add data, and commit, with the user's name if git has one."""
    _git(folder, "init", "--quiet")
    create_repository(folder)
    ignore = Workspace(folder).dvc_folder / GIT_IGNORE
    if not ignore.exists():  # DVC omits it if the user's own gitignore has the same names
        ignore.write_text("/config.local\n/tmp\n/cache\n", encoding="utf-8")
    _git(folder, "add", "--all")
    own_files = [name for name in OWN_FILES if (folder / name).is_file()]
    _git(folder, "add", "--force", "--", *own_files)  # also what the user's own gitignore excludes
    commit = ("commit", "--quiet", "--message", "A Seedling workspace")
    identity = identity_environment(folder)
    try:
        _git(folder, *commit, more=identity)
    except InputError as error:  # a missing signing key, or a hook that rejects the message
        _git(folder, *commit, "--no-gpg-sign", "--no-verify", more=identity)
        state_once(f"The first commit is unsigned and skipped all hooks: {str(error).removesuffix('.')}.")


def _git(folder: Path, *arguments: str, more: Mapping[str, str] = MappingProxyType({})) -> None:
    environment = {**os.environ, **more}
    command = ["git", "-c", "core.safecrlf=false", *arguments]  # the files of a workspace end lines with a line feed
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise InputError(f"git {arguments[0]} failed in {folder}: {' '.join(done.stderr.split())}")
