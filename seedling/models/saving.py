"""Model files: arrays as safetensors, and JSON. They contain no Python objects, so loading them runs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np

from seedling.config.params import WorkspaceConfig
from seedling.dataset.generation import Modality
from seedling.errors import IncompleteGeneration
from seedling.features.classical import FeatureMaker, ImageFeatures, Inputs, TextFeatures, make_vectorizers
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import ONE_VIEW
from seedling.features.encoder_handle import EncoderHandle
from seedling.files.reading import read_json, reading
from seedling.files.writing import write_json
from seedling.media.images import SMALL_SIDE
from seedling.models.heads import Head
from seedling.models.instance_based import KeptRows, NearestNeighbors, SupportVectorMachine
from seedling.models.losses import Adjusted
from seedling.models.model_arrays import write_arrays
from seedling.models.training import FitContext
from seedling.records.features import (
    BlockRecord,
    EncodedFeaturesRecord,
    ImageFeaturesRecord,
    TermHalvesRecord,
    TermsRecord,
    TextFeaturesRecord,
)
from seedling.stats.statistics import Floats
from seedling.workspace import ARRAYS_SUFFIX, FEATURE_ARRAYS, FEATURES, LOG_SHARES_SUFFIX, Workspace

OLD_SUFFIX = ".skops"  # of the pickled-object archives of earlier versions


class Learner(Protocol):
    """Fits weighted, soft-labeled rows and returns logits."""

    name: str
    classes: int

    def fit(self, inputs: Inputs, targets: Floats, weights: Floats) -> None:
        """Fit on rows with soft labels. targets: (n_rows, n_classes), rows sum to 1; weights: (n_rows,)."""

    def logits(self, inputs: Inputs) -> Floats:
        """(n_rows, n_classes)."""


def make_learner(name: str, context: FitContext) -> Learner:
    """Return an untrained learner of this name."""
    if name == "network":
        from seedling.models.network import Network

        return Network(context)
    if name == "fine_tuned":
        from seedling.models.fine_tuned import FineTuned

        return FineTuned(context)
    if name == "nearest_neighbors":
        return NearestNeighbors(context.classes)
    if name == "svm":
        return SupportVectorMachine(context.classes)
    if name == "encoder_regression" and isinstance(context.maker, EncodedFeatures):
        return Head(name, context.seed, context.classes, encoder_block=context.maker.encoder_block)
    return Head(name, context.seed, context.classes)


def save_learner(learner: Learner, path: Path) -> None:
    """Write `path` with the suffix .safetensors; the log shares of a logit-adjusted learner go to .shares.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(learner, Adjusted):
        write_json(path.with_suffix(LOG_SHARES_SUFFIX), learner.log_shares.tolist())
        learner = learner.learner
    file = path.with_suffix(ARRAYS_SUFFIX)
    if isinstance(learner, Head | KeptRows):
        write_arrays(learner.arrays, file)
    else:
        from safetensors.torch import save_file as save_tensors

        torch_learner: Any = learner
        save_tensors(torch_learner.tensors(), file)


def load_learner(name: str, path: Path, context: FitContext) -> Learner:
    """Load a learner that `save_learner` wrote, without running code from its file.

    Raises IncompleteGeneration if the file is missing, DamagedFile if it is not the file of such a learner.
    """
    file = path.with_suffix(ARRAYS_SUFFIX)
    if not file.is_file():
        old_file = path.with_suffix(OLD_SUFFIX)
        if old_file.is_file():
            raise IncompleteGeneration(
                f"{old_file} is from an earlier version of Seedling and may contain code, so it is not loaded. "
                "Run `seedling run` to train the model again."
            )
        raise IncompleteGeneration(f"{file} is missing. Run `seedling run` again, or `dvc checkout`.")
    learner = make_learner(name, context)
    with reading(file):
        _fill(learner, file)
    adjusted = path.with_suffix(LOG_SHARES_SUFFIX)
    if not adjusted.is_file():
        return learner
    with reading(adjusted):
        log_shares = np.array(read_json(adjusted), dtype=np.float64)
        if log_shares.shape != (learner.classes,):
            raise ValueError("it does not contain one share per class")
        return Adjusted(learner, log_shares)


def _fill(learner: Learner, file: Path) -> None:
    """Check the contents of the file and load them into an untrained learner."""
    if isinstance(learner, Head | KeptRows):
        from safetensors.numpy import load_file

        learner.restore(load_file(file))
    else:
        from safetensors.torch import load_file as load_tensors

        torch_learner: Any = learner
        torch_learner.load_tensors(load_tensors(file))


def make_features(
    encoder: EncoderHandle | None, image_side: int | None, config: WorkspaceConfig, cache: Path | None = None
) -> FeatureMaker:
    """Return an unfitted feature maker: of the encoder, if there is one. With effort `quick`, it sees each image once.

    cache: the folder of the feature cache for images without an encoder; None: nothing is kept.
    """
    if encoder is not None:
        views = ONE_VIEW if config.effort == "quick" else None
        return EncodedFeatures(encoder, config.max_megapixels, views=views)
    if config.modality == "image":
        return ImageFeatures(image_side, config.max_megapixels, cache=cache)
    return TextFeatures()


def save_features(maker: FeatureMaker, folder: Path) -> None:
    """Write the fitted features to features.json: means and scales, or terms and their inverse document frequencies.

    For an encoder, its name and key are written, not its weights; the LSA topics of words go to features.safetensors.
    """
    path = folder / FEATURES
    if isinstance(maker, TextFeatures):
        TextFeaturesRecord(**dict(terms_of(maker))).write(path)
    elif isinstance(maker, EncodedFeatures):
        from safetensors.numpy import save_file

        arrays = {"center": maker.center, "topics": maker.topics}
        save_file({name: array for name, array in arrays.items() if array is not None}, folder / FEATURE_ARRAYS)
        EncodedFeaturesRecord(
            encoder=maker.handle.params,
            key=maker.key,
            max_megapixels=maker.max_megapixels,
            surface_weight=maker.surface_weight,
            views=maker.views,
            words=terms_of(maker.words) if maker.words else None,
        ).write(path)
    elif isinstance(maker, ImageFeatures):
        ImageFeaturesRecord(
            side=maker.side or SMALL_SIDE,
            network_side=maker.network_side,
            max_megapixels=maker.max_megapixels,
            blocks=tuple(
                BlockRecord(mean=tuple(mean.tolist()), scale=scale if np.isfinite(scale) else None)
                for mean, scale in maker.blocks or []
            ),
        ).write(path)


def terms_of(maker: TextFeatures) -> TermHalvesRecord:
    """Return the terms and their inverse document frequencies."""
    words, characters = (
        TermsRecord(
            terms=tuple(str(term) for term in half.get_feature_names_out()), idf=tuple(float(idf) for idf in half.idf_)
        )
        for half in (maker.words, maker.characters)
    )
    return TermHalvesRecord(words=words, characters=characters)


def load_features(folder: Path, modality: Modality, workspace: Path) -> FeatureMaker:
    """Load the features that `save_features` wrote to `models/<round>`.

    A relative path of an encoder is relative to the workspace.
    """
    path = folder / FEATURES
    content = read_json(path)
    with reading(path):
        if "encoder" in content:
            return _load_encoded_features(EncodedFeaturesRecord.of_json(content), folder, modality, workspace)
        if modality == "text":
            return _text_features(TextFeaturesRecord.of_json(content))
        record = ImageFeaturesRecord.of_json(content)
        blocks = [
            (np.array(block.mean, np.float32), np.inf if block.scale is None else block.scale)
            for block in record.blocks
        ]
        cache = Workspace(workspace).feature_cache
        return ImageFeatures(record.side, record.max_megapixels, record.network_side, blocks, cache)


def _load_encoded_features(
    record: EncodedFeaturesRecord, folder: Path, modality: Modality, workspace: Path
) -> EncodedFeatures:
    from safetensors.numpy import load_file

    words = _text_features(record.words) if record.words else None
    with reading(folder / FEATURE_ARRAYS):
        arrays = load_file(folder / FEATURE_ARRAYS)
    handle = EncoderHandle(record.encoder, modality, workspace)
    return EncodedFeatures(
        handle,
        record.max_megapixels,
        words=words,
        key=record.key,
        surface_weight=record.surface_weight,
        views=record.views,
        **arrays,
    )


def _text_features(halves: TermHalvesRecord) -> TextFeatures:
    return TextFeatures(_vectorizer("words", halves.words), _vectorizer("characters", halves.characters))


def _vectorizer(name: str, terms: TermsRecord) -> Any:
    vectorizer = make_vectorizers(list(terms.terms))[name]
    vectorizer.idf_ = np.array(terms.idf, np.float32)
    return vectorizer
