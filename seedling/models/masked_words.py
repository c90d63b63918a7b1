"""Replacement words from a masked language model, for words that were masked (Kobayashi 2018; Wu et al. 2019).

Accepts any `AutoModelForMaskedLM`: a local folder or a model of the Hugging Face Hub, pinned by its revision and the
hash of its weights.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from seedling.config.params import EncoderParams
from seedling.errors import InputError
from seedling.features.pretrained import find_pretrained, key_of
from seedling.media.typos import as_cased
from seedling.models.device import device_of, use_one_thread

PARAM_NAME = "augment.masked_lm"
VERSION = "1"  # of the algorithm that chooses words; part of the key
MAX_CANDIDATES = 10  # likeliest words to sample from, by their probabilities
RESERVED_POSITIONS = 2  # first positions, which RoBERTa models do not use for tokens
MAX_CHECKED_CANDIDATES = 50  # likeliest words to check; some of them are excluded


class MaskedWords:
    """A loaded masked language model. `key` identifies the weights and how they are used."""

    def __init__(self, params: EncoderParams, workspace: Path) -> None:
        """Load the model.

        Raises InputError if the folder or its weights are missing, the weights do not match `sha256`, there is no
        network, or the model is not a masked language model.
        """
        folder = find_pretrained(params, workspace, "text", PARAM_NAME)
        self.key = key_of(folder, params, VERSION, PARAM_NAME)
        try:
            self._model, self._tokenizer = _load(folder)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"Cannot load a masked language model from {folder} ({type(error).__name__}: {error}). "
                f"Set {PARAM_NAME} to another model."
            ) from error
        self._device = device_of()
        self._model.to(device=self._device, dtype=getattr(torch, params.precision))
        self._words = _whole_words(self._tokenizer)
        self._word_ids = torch.tensor(sorted(self._words))
        self._max_tokens = min(
            int(self._tokenizer.model_max_length),
            int(self._model.config.max_position_embeddings) - RESERVED_POSITIONS,
            512,
        )

    def fill(
        self,
        text: str,
        mask: str,
        hidden: Sequence[str],
        seed: int,
        excluded: Callable[[str], bool] = lambda word: False,
    ) -> str:
        """Return the text with every `mask` replaced by a word sampled from the likeliest ones.

        A replacement has the case of the hidden word and always differs from it. Hidden words beyond the model's
        maximum length are restored.

        hidden: the words under the masks, in order; excluded: whether a lower-case word must not be used.
        """
        parts = text.split(mask)
        if len(parts) != len(hidden) + 1:  # the text itself contains the mask
            return text
        rng, filled = random.Random(seed), []  # noqa: S311  (not used for security)
        candidates = self._candidates_at_masks(self._tokenizer.mask_token.join(parts), len(hidden))
        for mask_index, word in enumerate(hidden):
            chance, allowed = rng.random(), list[tuple[str, float]]()
            for candidate, weight in candidates[mask_index] if mask_index < len(candidates) else ():
                if candidate.casefold() != word.casefold() and not excluded(candidate.lower()):
                    allowed.append((candidate, weight))
            filled.append(as_cased(_sampled_word(allowed[:MAX_CANDIDATES], chance), word) or word)
        return "".join(before + word for before, word in zip(parts, [*filled, ""], strict=True))

    def _candidates_at_masks(self, text: str, masks: int) -> list[list[tuple[str, float]]]:
        """Return the likeliest words and their weights per mask that the model reads.

        Empty if the text contains other masks than these.
        """
        encoded = self._tokenizer(text, truncation=True, return_tensors="pt", max_length=self._max_tokens)
        positions = (encoded["input_ids"][0] == self._tokenizer.mask_token_id).nonzero().ravel().tolist()
        if not positions or text.count(self._tokenizer.mask_token) != masks:
            return []
        use_one_thread(self._device)
        with torch.inference_mode():
            model_inputs = {name: tensor.to(self._device) for name, tensor in encoded.items()}
            logits = self._model(**model_inputs).logits[0, positions]
        n_best = min(MAX_CHECKED_CANDIDATES, len(self._word_ids))
        best = torch.topk(logits.cpu().float()[:, self._word_ids], n_best, dim=1)
        return [
            [
                (self._words[int(self._word_ids[word_index])], weight)
                for word_index, weight in zip(row, weights, strict=True)
            ]
            for row, weights in zip(best.indices.tolist(), torch.softmax(best.values, 1).tolist(), strict=True)
        ]


def _sampled_word(candidates: Sequence[tuple[str, float]], chance: float) -> str:
    """Return the word at the quantile `chance` of the weights; an empty string if there are no candidates."""
    remaining = chance * sum(weight for _, weight in candidates)
    for name, weight in candidates:
        remaining -= weight
        if remaining < 0:
            return name
    return candidates[-1][0] if candidates else ""


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model, loading_info = AutoModelForMaskedLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if loading_info["missing_keys"]:  # transformers would initialize the head randomly
        raise InputError(
            f"{folder} has no masked language model's head ({min(loading_info['missing_keys'])} is missing). "
            f"Set {PARAM_NAME} to a model that fills masks."
        )
    if tokenizer.mask_token_id is None:
        raise InputError(f"The tokenizer in {folder} has no mask token. Set {PARAM_NAME} to a model that fills masks.")
    return model.eval().requires_grad_(requires_grad=False), tokenizer


def _whole_words(tokenizer: Any) -> dict[int, str]:
    """Return token id → word for the tokens that are a whole word.

    With WordPiece these are tokens that start a word; with other tokenizers, tokens that follow a space.
    """
    vocabulary = tokenizer.get_vocab()
    prefixes = [
        prefix for prefix in ("Ġ", "▁") if sum(token.startswith(prefix) for token in vocabulary) > len(vocabulary) // 10
    ]
    word_starts = [token_id for token, token_id in vocabulary.items() if not prefixes or token.startswith(prefixes[0])]
    words = {token_id: _token_text(tokenizer, token_id) for token_id in word_starts}
    special = {*tokenizer.all_special_ids}
    return {token_id: word for token_id, word in words.items() if word.isalpha() and token_id not in special}


def _token_text(tokenizer: Any, token_id: int) -> str:
    """Return the text of a token; tokens of a byte-level vocabulary must be decoded first."""
    pieces = tokenizer.convert_ids_to_tokens([token_id])
    return "" if pieces[0].startswith("##") else str(tokenizer.convert_tokens_to_string(pieces)).strip()
