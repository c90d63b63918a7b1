"""What steps draw from beside the row: the user's functions, synonyms, the training texts' words, and a model that fills masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from seedling.augment import sentences
from seedling.augment.makers import Resources
from seedling.augment.thesaurus import read_thesaurus
from seedling.config.params import AugmentParams, WorkspaceConfig
from seedling.errors import InputError
from seedling.features.classical import FeatureMaker
from seedling.features.encoded_features import EncodedFeatures
from seedling.files.data_files import inside

MOST_NEAR, LEAST_NEAR = 5, 0.5  # words for one, and their cosine, that an encoder's vocabulary gives


def resources_of(
    params: AugmentParams, facts: WorkspaceConfig, parents: pd.DataFrame, data: Path | None, features: FeatureMaker
) -> Resources:
    """All that params ask for. parents: labeled training rows. Raises InputError where some of it cannot be had, or nothing would use it."""
    filler = _filler(params, data)
    context = _context(params, facts, parents, data, features, filler.fill if filler else None)
    return Resources.of(data, context, filler.key if filler else None, params.plugin)


def _named(policy: Sequence[str | dict[str, Any]] | None) -> set[str]:
    """The operations of a list in params.yaml; none where it leaves them open."""
    return {one if isinstance(one, str) else next(iter(one)) for one in policy or ()}


def _filler(params: AugmentParams, data: Path | None) -> Any:
    """What puts words where masks are; None where params name no model. Raises InputError where no operation would ask for it."""
    if params.masked_lm is None:
        return None
    if params.policy != "auto" and "mask" not in _named(params.policy):
        raise InputError(
            "params.yaml: augment.masked_lm fills the masks of `mask`: name it in augment.policy, as in [mask]."
        )
    from seedling.models.masked_words import MaskedWords

    return MaskedWords(params.masked_lm, data.parent if data else Path.cwd())


def _context(
    params: AugmentParams,
    facts: WorkspaceConfig,
    parents: pd.DataFrame,
    data: Path | None,
    features: FeatureMaker,
    fill: Any,
) -> sentences.Context:
    """What operations on texts draw from: the user's thesaurus, else the words that lie near in the encoder's vocabulary."""
    if facts.modality != "text":
        return sentences.Context()
    near: Mapping[str, Any] = {}
    protected = frozenset(word.lower() for one in params.protect for word in one.split())
    words = sorted(
        {word for text in parents["text"] for word in str(text).lower().split() if word.isalpha()}
        - sentences.NEGATIONS  # one that is put in turns a text's meaning round
        - protected
    )
    named = {"synonym"} if params.policy == "auto" else _named(params.policy)
    if params.thesaurus is not None and data is not None:
        near = read_thesaurus(inside(data, params.thesaurus))
    elif isinstance(features, EncodedFeatures) and named & {"synonym", "insert"}:
        near = features.encoder.near_words(words, MOST_NEAR, LEAST_NEAR)
    return sentences.Context(near, words, protected, fill)
