"""Applies Seedling's limits to YAML files that DVC reads.

DVC reads every dvc.yaml, dvc.lock and *.dvc below the workspace, their params and variables, and its run cache. It
expands aliases, and a few lines of nested aliases can expand without end.
"""

from __future__ import annotations

import copy
from typing import Any

import dvc.utils.serialize
import dvc.utils.serialize._yaml
import dvc.utils.strictyaml

from seedling.errors import InputError
from seedling.files.yaml_files import check_depth, check_limits

MAX_PARSED_TEXTS = 16

_parsed: dict[str, Any] = {}
_parse = dvc.utils.serialize._yaml.parse_yaml


def parse_yaml(text: str, path: str, typ: str = "safe") -> Any:
    """Parse YAML as DVC does. Raises InputError with the path for a file that is too large or expands without end.

    DVC reads params.yaml several times per stage, so parsed texts are cached; each call returns its own copy.
    """
    if typ != "safe":
        return _parse_within_limits(text, path, typ)
    if (value := _parsed.get(text)) is None:
        value = _parse_within_limits(text, path, typ)
        if len(_parsed) >= MAX_PARSED_TEXTS:
            _parsed.clear()
        _parsed[text] = value
    return copy.deepcopy(value)


def _parse_within_limits(text: str, path: str, typ: str) -> Any:
    try:
        check_limits(text, path)
    except InputError:
        raise
    except Exception:  # noqa: BLE001  (not YAML: DVC raises its own error)
        return _parse(text, path, typ)
    try:
        value = _parse(text, path, typ)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply: DVC's files have at most a dozen levels.") from error
    check_depth(value, path)
    return value


def limit_yaml() -> None:
    """Replace DVC's YAML parser with the limited one in every module that imports it by name, in this process.

    Each function that opens a DVC repository calls it. DVC has no setting for such a limit.
    """
    for module in (dvc.utils.serialize._yaml, dvc.utils.serialize, dvc.utils.strictyaml):
        module.parse_yaml = parse_yaml
