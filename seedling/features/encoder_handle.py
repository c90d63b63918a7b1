"""A handle of the workspace's encoder: the setting in params.yaml, resolved once to a folder and a digest."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from seedling.config.params import EncoderParams, Params
from seedling.dataset.generation import Modality
from seedling.features.pretrained import find_pretrained, key_of
from seedling.workspace import Workspace

VERSION = "1"  # of the feature computation with an encoder; part of the digest


@dataclass(frozen=True)
class EncoderHandle:
    """A pretrained encoder of a workspace. params: from params.yaml; a relative folder is relative to the workspace."""

    params: EncoderParams
    modality: Modality
    workspace: Path

    def __getstate__(self) -> dict[str, object]:
        """Without the folder and the digest: another process or machine resolves its own."""
        return {"params": self.params, "modality": self.modality, "workspace": self.workspace}

    @cached_property
    def folder(self) -> Path:
        """The folder of the model. Raises InputError if there is none, it has no weights, or the modality differs."""
        return find_pretrained(self.params, self.workspace, self.modality)

    @cached_property
    def digest(self) -> str:
        """A hash of the weights, the model's settings, the precision, and the version of the feature computation.

        Raises InputError as `folder` does, and if the weights do not match `sha256` in params.yaml.
        """
        return key_of(self.folder, self.params, VERSION)

    @property
    def cache_folder(self) -> Path:
        """The folder of the feature cache."""
        return Workspace(self.workspace).feature_cache


def encoder_of(params: Params, workspace: Path) -> EncoderHandle | None:
    """Return the encoder that params.yaml names; None if it names none."""
    return None if params.encoder is None else EncoderHandle(params.encoder, params.modality, workspace)
