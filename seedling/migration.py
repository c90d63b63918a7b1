"""`seedling migrate`: rewrites the files of a workspace of an earlier pipeline version, so that this version runs it.

Comments and the order of keys stay. Every stage runs again afterwards, since generations of another version have other
bytes, and those of version 15 other columns.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from seedling.config.former_keys import (
    FORMER_COLUMNS,
    FORMER_KEYS,
    FORMER_SOURCE_KEYS,
    FORMER_VALUES,
    REMOVED_KEYS,
)
from seedling.config.params import WorkspaceConfig, load, read_yaml
from seedling.errors import InputError
from seedling.upgrading import upgrade_workspace
from seedling.workspace import DVC_YAML, GATES_FILE, PARAMS_FILE, PREFECT_FILE, Workspace

FIRST_VERSION = 15
LAST_VERSION_WITH_FORMER_NAMES = 15
VERSION: int = WorkspaceConfig.model_fields["pipeline_version"].default
FORMER_COMMAND = re.compile(r"python (?:-P )?-m tasks\.(?:(train|pseudo_label) --round (\$\{key\}|\d)|([a-z]+))")
FORMER_IMPORT = re.compile(r"^\s*(?:from|import) (tasks|flows)(?=[. ])", flags=re.MULTILINE)
RENAMED_MODULES = "tasks.augment.transforms is seedling.augment.transforms, for example"
LINE_WIDTH = 10_000  # no value is wrapped
KEY_AFTER = "max_megapixels"  # the encoder is written below it


def migrate(workspace: Path) -> list[str]:
    """Rewrites params.yaml, gates.yaml, dvc.yaml and prefect.yaml; gives a sentence for each changed file.

    Raises InputError if params.yaml is of an unknown version, or cannot be used once it is rewritten; then no file is
    changed.
    """
    version = _version(workspace)
    if version == VERSION:
        return []
    if not isinstance(version, int) or not FIRST_VERSION <= version < VERSION:
        raise InputError(
            f"{Workspace(workspace).params_file}: pipeline version {version} cannot be migrated: this Seedling "
            f"migrates versions {FIRST_VERSION} to {VERSION - 1}. Use a Seedling in between, or a new workspace."
        )
    texts = {path: text for path, text in _rewritten(workspace, version) if text != path.read_text(encoding="utf-8")}
    former = {path: path.read_bytes() for path in texts}
    for path, text in texts.items():
        _replace(path, text.encode())
    try:
        load(workspace)
        changes = [f"{path.relative_to(workspace)}: rewritten for pipeline version {VERSION}." for path in texts]
        return [*changes, *upgrade_workspace(workspace), *_plugin_hints(workspace)]
    except Exception:
        for path, content in former.items():
            _replace(path, content)
        raise


def _version(workspace: Path) -> object:
    values = read_yaml(Workspace(workspace).params_file)
    if not isinstance(values, dict):
        raise InputError(f"{Workspace(workspace).params_file} holds no sections: there is nothing to migrate.")
    return values.get("pipeline_version", values.get("line", VERSION))


def _rewritten(workspace: Path, version: int) -> Iterator[tuple[Path, str]]:
    """Each file to rewrite, with its new text."""
    rewriters: dict[str, Callable[[str], str]] = {PARAMS_FILE: _without_removed_keys}
    if version <= LAST_VERSION_WITH_FORMER_NAMES:
        rewriters = {
            PARAMS_FILE: _params,
            GATES_FILE: _gates,
            DVC_YAML: _pipeline,
            PREFECT_FILE: lambda text: text.replace("entrypoint: flows.grow.", "entrypoint: seedling.flows.grow."),
        }
    for name, rewrite in rewriters.items():
        path = workspace / name
        if path.is_file():
            yield path, rewrite(path.read_text(encoding="utf-8"))


def _without_removed_keys(text: str) -> str:
    yaml = _yaml()
    params = yaml.load(text)
    _remove_keys(params)
    params["pipeline_version"] = VERSION
    return _dumped(yaml, params)


def _remove_keys(params: CommentedMap) -> None:
    for key in REMOVED_KEYS:
        section, name = key.split(".")
        if isinstance(params.get(section), MutableMapping):
            params[section].pop(name, None)


def _params(text: str) -> str:
    yaml = _yaml()
    params = yaml.load(text)
    _remove_keys(params)
    for key, name in FORMER_KEYS.items():
        _rename(params, key.split("."), name.split("."))
    params["pipeline_version"] = VERSION
    for key, values in FORMER_VALUES.items():
        section, name = key.split(".")
        if isinstance(params.get(section), MutableMapping) and name in params[section]:
            params[section][name] = _renamed_values(params[section][name], values)
    for source in (params.get("scrape") or {}).get("sources") or []:
        for former, name in FORMER_SOURCE_KEYS.items():
            if isinstance(source, CommentedMap) and former in source:
                _rename(source, [former], [name])
    return _dumped(yaml, params)


def _gates(text: str) -> str:
    yaml = _yaml()
    gates = yaml.load(text)
    for expectations in (gates or {}).values():
        for expectation in expectations or []:
            for arguments in expectation.values() if isinstance(expectation, MutableMapping) else ():
                for name in arguments if isinstance(arguments, MutableMapping) else ():
                    if str(name).startswith("column"):
                        arguments[name] = _renamed_values(arguments[name], FORMER_COLUMNS)
    return _dumped(yaml, gates)


def _pipeline(text: str) -> str:
    """dvc.yaml: commands, names of params and the renamed plot; the train stages depend on the encoder, too."""
    text = FORMER_COMMAND.sub(
        lambda match: f"python -P -m seedling.runner {match[3] or f'{match[1]}@{match[2]}'}", text
    )
    text = re.sub(r"(?<=params: \[)line(?=, )", "pipeline_version", text)
    text = re.sub(r"(params: \[[^\]\n]*?)\btrain\.encoder\b", r"\1encoder", text)
    text = re.sub(
        r"(params: \[[^\]\n]*?)\btrain, pseudo_label\.rounds\b", r"\1encoder, train, pseudo_label.rounds", text
    )
    return re.sub(
        r"reports/plots/abstain\.csv: \{(.*), title: Errors among what is answered\}",
        r"reports/plots/risk_coverage.csv: {\1, title: Error rate by coverage}",
        text,
    )


def _plugin_hints(workspace: Path) -> Iterator[str]:
    """Python files of the user's own that import a module by its former name; they are not changed."""
    for path in [*sorted(workspace.glob("*.py")), *sorted(Workspace(workspace).data.glob("*.py"))]:
        if path.is_file() and FORMER_IMPORT.search(path.read_text(encoding="utf-8", errors="replace")):
            yield f"{path.relative_to(workspace)} imports a module by its former name: change it ({RENAMED_MODULES})."


def _rename(values: CommentedMap, former: list[str], name: list[str]) -> None:
    """Renames a key, which keeps its place and comment; one that moves to the top is put below KEY_AFTER."""
    section = values
    for part in former[:-1]:
        section = section.get(part)
        if not isinstance(section, CommentedMap):
            return
    if former[-1] not in section:
        return
    position = list(section).index(former[-1])
    comment = section.ca.items.pop(former[-1], None)
    value = section.pop(former[-1])
    if len(former) == len(name):
        section.insert(position, name[-1], value)
        if comment is not None:
            section.ca.items[name[-1]] = comment
    else:
        names = list(values)
        values.insert(names.index(KEY_AFTER) + 1 if KEY_AFTER in names else len(names), name[0], value)


def _renamed_values(value: Any, names: dict[str, str]) -> Any:
    """The value with its strings, the strings of a list, and the keys of mappings in a list renamed."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, MutableSequence):
        for position, item in enumerate(value):
            value[position] = _renamed_values(item, names)
    elif isinstance(value, CommentedMap):
        for former, name in names.items():
            _rename(value, [former], [name])
    return value


def _yaml() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, LINE_WIDTH
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def _dumped(yaml: YAML, values: Any) -> str:
    stream = StringIO()
    yaml.dump(values, stream)
    return stream.getvalue()


def _replace(path: Path, content: bytes) -> None:
    partial = path.with_name(f"{path.name}.new")  # renamed into its place, so that a kill leaves no half a file
    partial.write_bytes(content)
    partial.replace(path)
