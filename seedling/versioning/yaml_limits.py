"""DVC's reading of YAML, with the limits of ours.

DVC reads every dvc.yaml, dvc.lock and *.dvc below the workspace, what they name as params and variables, and its run cache. It walks
through what aliases stand for, which a few lines make endless.
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
    """As DVC's own. Raises InputError, which names the file, for one that is too large or never ends.

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
    except Exception:  # noqa: BLE001  (not YAML: DVC says so in its own words)
        return _parse(text, path, typ)
    try:
        value = _parse(text, path, typ)
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply: no value of DVC's has more than a dozen levels.") from error
    check_depth(value, path)
    return value


def limit_yaml() -> None:
    """Puts the limits in, wherever DVC has the function by name."""
    for module in (dvc.utils.serialize._yaml, dvc.utils.serialize, dvc.utils.strictyaml):
        module.parse_yaml = parse_yaml
