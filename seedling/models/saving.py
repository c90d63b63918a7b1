"""Models as files: arrays of numbers as safetensors, and JSON. Nothing in them is an object, so that loading runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.dataset.generation import Modality, write_json
from seedling.errors import IncompleteGeneration
from seedling.features.classical import FeatureMaker, ImageFeatures, Inputs, TextFeatures, make_vectorizers
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder_handle import EncoderHandle
from seedling.files.reading import read_json, reading
from seedling.models.heads import Head
from seedling.models.instance_based import KeptRows, NearestNeighbors, SupportVectorMachine
from seedling.models.losses import Adjusted
from seedling.models.model_arrays import write_arrays
from seedling.models.training import FitContext
from seedling.stats.statistics import Floats

ARRAYS = "features.safetensors"
MAX_SIDE = 128  # pixels, as train.image_side in params.yaml
OLD_SUFFIX = ".skops"  # of archives of objects, which versions before this one wrote


class Learner(Protocol):
    """fit on weighted, soft-labeled rows; give logits."""

    name: str
    classes: int

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""


def make_learner(name: str, setting: FitContext) -> Learner:
    """An untrained learner of this name."""
    if name == "network":
        from seedling.models.network import Network

        return Network(setting)
    if name == "fine_tuned":
        from seedling.models.fine_tuned import FineTuned

        return FineTuned(setting)
    if name == "nearest_neighbors":
        return NearestNeighbors(setting.classes)
    if name == "svm":
        return SupportVectorMachine(setting.classes)
    return Head(name, setting.seed, setting.classes)


def save_learner(learner: Learner, path: Path) -> None:
    """Writes `path` with .safetensors behind it, and with .shares.json where its logits are adjusted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(learner, Adjusted):
        write_json(path.with_suffix(".shares.json"), learner.log_shares.tolist())
        learner = learner.learner
    file = path.with_suffix(".safetensors")
    if isinstance(learner, Head | KeptRows):
        write_arrays(learner.arrays, file)
    else:
        from safetensors.torch import save_file as save_tensors

        made: Any = learner
        save_tensors(made.tensors(), file)


def load_learner(name: str, path: Path, setting: FitContext) -> Learner:
    """The learner that `save_learner` wrote. Runs no code of its file.

    Raises IncompleteGeneration where the file is missing, DamagedFile where it is not such a learner's.
    """
    file = path.with_suffix(".safetensors")
    if not file.is_file():
        old = path.with_suffix(OLD_SUFFIX)
        if old.is_file():
            raise IncompleteGeneration(
                f"{old} was written by an earlier version of Seedling, as an archive of objects that could run code: "
                "it is not loaded. `seedling run` trains the model again."
            )
        raise IncompleteGeneration(f"{file} is missing: run `seedling run` again, or `dvc checkout`.")
    learner = make_learner(name, setting)
    with reading(file):
        _fill(learner, file)
    adjusted = path.with_suffix(".shares.json")
    if not adjusted.is_file():
        return learner
    with reading(adjusted):
        log_shares = np.array(read_json(adjusted), dtype=np.float64)
        if log_shares.shape != (learner.classes,):
            raise ValueError("it does not hold a share for each class")
        return Adjusted(learner, log_shares)


def _fill(learner: Learner, file: Path) -> None:
    """Puts what the file holds into an untrained learner, checked."""
    if isinstance(learner, Head | KeptRows):
        from safetensors.numpy import load_file

        learner.restore(load_file(file))
    else:
        from safetensors.torch import load_file as load_tensors

        made: Any = learner
        made.load_tensors(load_tensors(file))


def make_features(encoder: EncoderHandle | None, image_side: int | None, facts: WorkspaceConfig) -> FeatureMaker:
    """Features that are not fitted yet: the encoder's if there is one."""
    if encoder is not None:
        return EncodedFeatures(encoder, facts.max_megapixels)
    return ImageFeatures(image_side, facts.max_megapixels) if facts.modality == "image" else TextFeatures()


def save_features(maker: FeatureMaker, folder: Path) -> None:
    """Writes the fitted features, features.json: means and scales, or terms and their inverse document frequencies.

    Of an encoder its name and key are written, not its weights; the words' topics go to features.safetensors.
    """
    if isinstance(maker, TextFeatures):
        write_json(folder / "features.json", terms_of(maker))
    elif isinstance(maker, EncodedFeatures):
        from safetensors.numpy import save_file

        arrays = {"center": maker.center, "topics": maker.topics}
        save_file({name: one for name, one in arrays.items() if one is not None}, folder / ARRAYS)
        known = {"encoder": maker.handle.params.model_dump(), "key": maker.key, "max_megapixels": maker.max_megapixels}
        write_json(folder / "features.json", known | ({"words": terms_of(maker.words)} if maker.words else {}))
    elif isinstance(maker, ImageFeatures):
        blocks = [
            {"mean": mean.tolist(), "scale": scale if np.isfinite(scale) else None}
            for mean, scale in maker.blocks or []
        ]
        sizes = {"side": maker.side, "max_megapixels": maker.max_megapixels, "network_side": maker.network_side}
        write_json(folder / "features.json", {**sizes, "blocks": blocks})


def terms_of(maker: TextFeatures) -> dict[str, Any]:
    """By half, its terms and their inverse document frequencies."""
    return {
        name: {
            "terms": [str(term) for term in half.get_feature_names_out()],
            "idf": [float(one) for one in half.idf_],
        }
        for name, half in {"words": maker.words, "characters": maker.characters}.items()
    }


def load_features(folder: Path, modality: Modality, workspace: Path) -> FeatureMaker:
    """The features that `save_features` wrote to `models/<round>`. An encoder's relative path is relative to the workspace."""
    path = folder / "features.json"
    known = read_json(path)
    if "encoder" in known:
        from safetensors.numpy import load_file

        with reading(path):
            params = EncoderParams.model_validate(known["encoder"])
            words = _text_features(known["words"]) if "words" in known else None
            max_megapixels, key = known["max_megapixels"], known["key"]
        with reading(folder / ARRAYS):
            arrays = load_file(folder / ARRAYS)
        handle = EncoderHandle(params, modality, workspace)
        return EncodedFeatures(handle, max_megapixels, words=words, key=key, **arrays)
    with reading(path):
        if modality == "text":
            return _text_features(known)
        for name in ("side", "network_side"):
            if type(known[name]) is not int or not 1 <= known[name] <= MAX_SIDE:
                raise ValueError(f"{name} is {known[name]!r}, not a number from 1 to {MAX_SIDE}")
        blocks = [
            (np.array(one["mean"], np.float32), np.inf if one["scale"] is None else one["scale"])
            for one in known["blocks"]
        ]
        return ImageFeatures(known["side"], known["max_megapixels"], known["network_side"], blocks)


def _text_features(known: dict[str, Any]) -> TextFeatures:
    return TextFeatures(**{name: _vectorizer(name, **known[name]) for name in ("words", "characters")})


def _vectorizer(name: str, terms: list[str], idf: list[float]) -> Any:
    vectorizer = make_vectorizers(terms)[name]
    vectorizer.idf_ = np.array(idf, np.float32)
    return vectorizer
