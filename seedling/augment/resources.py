"""Resources of the steps: the user's plugins, synonyms, words of the training texts, and a model that fills masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from seedling.augment import sentences
from seedling.augment.makers import Resources
from seedling.augment.thesaurus import read_thesaurus
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.features.encoded_features import EncodedFeatures
from seedling.files.data_files import inside

if TYPE_CHECKING:
    from seedling.models.masked_words import MaskedWords

MAX_NEAR_WORDS, MIN_NEAR_COSINE = 5, 0.5  # synonyms per word from an encoder's vocabulary, and their similarity


def resources_of(
    params: AugmentParams, config: WorkspaceConfig, parents: pd.DataFrame, data: Path | None, features: FeatureMaker
) -> Resources:
    """Return the resources that params name. parents: labeled training rows.

    Raises InputError if a resource is missing, or if no operation uses it.
    """
    filler = _mask_filler(params, data)
    context = _context(params, config, parents, data, features, filler.fill if filler else None)
    return Resources.of(data, context, filler.key if filler else None, params.plugin)


def _operation_names(policy: Sequence[str | dict[str, Any]] | None) -> set[str]:
    """Return the names of a policy in params.yaml; empty for the default policy."""
    return {entry if isinstance(entry, str) else next(iter(entry)) for entry in policy or ()}


def _mask_filler(params: AugmentParams, data: Path | None) -> MaskedWords | None:
    """Return the masked language model, or None. Raises InputError if no operation uses it."""
    if params.masked_lm is None:
        return None
    if params.policy != "auto" and "mask" not in _operation_names(params.policy):
        raise InputError(
            "params.yaml: augment.masked_lm fills the masks of the operation `mask`: add it to augment.policy, as in "
            "[mask]."
        )
    from seedling.models.masked_words import MaskedWords

    return MaskedWords(params.masked_lm, data.parent if data else Path.cwd())


def _context(
    params: AugmentParams,
    config: WorkspaceConfig,
    parents: pd.DataFrame,
    data: Path | None,
    features: FeatureMaker,
    fill: sentences.Fill | None,
) -> sentences.Context:
    """Return the context of text operations: synonyms are the user's thesaurus, or near words of the encoder."""
    if config.modality != "text":
        return sentences.Context()
    near: sentences.Near = {}
    protected = frozenset(word.lower() for phrase in params.protect for word in phrase.split())
    words = sorted(
        {word for text in parents["text"] for word in str(text).lower().split() if word.isalpha()}
        - sentences.NEGATIONS  # an inserted negation reverses the meaning of a text
        - protected
    )
    names = {"synonym"} if params.policy == "auto" else _operation_names(params.policy)
    if params.thesaurus is not None and data is not None:
        near = read_thesaurus(inside(data, params.thesaurus))
    elif isinstance(features, EncodedFeatures) and names & {"synonym", "insert"}:
        near = features.encoder.near_words(words, MAX_NEAR_WORDS, MIN_NEAR_COSINE)
    return sentences.Context(near, words, protected, fill)
