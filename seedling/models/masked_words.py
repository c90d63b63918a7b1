"""Words for masks, by a masked language model: what may stand where a word was taken out (Kobayashi 2018; Wu et al. 2019).

Any `AutoModelForMaskedLM`: a local folder or a model of the Hugging Face Hub, pinned by its revision and its weights' hash.
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
from seedling.models.device import device_of, one_thread

ASKED_IN = "augment.masked_lm"
VERSION = "1"  # of how words are chosen: part of the key
LIKELIEST = 10  # words that may be drawn, each with its probability among them
SPARED = 2  # positions at the beginning, which models of RoBERTa's kind do not give to tokens
LOOKED_AT = 50  # likeliest words, of which some may not be put in


class MaskedWords:
    """A loaded model. `key` names the weights and how they are used."""

    def __init__(self, params: EncoderParams, workspace: Path) -> None:
        """Raises InputError: no such folder, no weights, other weights than `sha256` says, no network, no masked language model."""
        folder = find_pretrained(params, workspace, "text", ASKED_IN)
        self.key = key_of(folder, params, VERSION, ASKED_IN)
        try:
            self._model, self._tokenizer = _load(folder)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{folder} gives no masked language model: {type(error).__name__}: {error}. Name another in {ASKED_IN}."
            ) from error
        self._device = device_of()
        self._model.to(device=self._device, dtype=getattr(torch, params.precision))
        self._words = _whole_words(self._tokenizer)
        self._numbers = torch.tensor(sorted(self._words))
        self._longest = min(
            int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings) - SPARED, 512
        )

    def fill(
        self, text: str, mask: str, hidden: Sequence[str], seed: int, never: Callable[[str], bool] = lambda word: False
    ) -> str:
        """The text with every `mask` replaced by a word drawn from the likeliest, cased as the hidden one and never the same; hidden words that the
        model cannot reach come back.

        hidden: the words under the masks, in their order; never: words, in lower case, that may not be put in.
        """
        parts = text.split(mask)
        if len(parts) != len(hidden) + 1:  # the text itself says [MASK]
            return text
        draw, filled = random.Random(seed), []  # noqa: S311  (no secret hangs on it)
        found = self._at_masks(self._tokenizer.mask_token.join(parts), len(hidden))
        for turn, word in enumerate(hidden):
            chance, choice = draw.random(), list[tuple[str, float]]()
            for name, weight in found[turn] if turn < len(found) else ():
                if name.casefold() != word.casefold() and not never(name.lower()):
                    choice.append((name, weight))
            filled.append(as_cased(_drawn(choice[:LIKELIEST], chance), word) or word)
        return "".join(before + word for before, word in zip(parts, [*filled, ""], strict=True))

    def _at_masks(self, text: str, masks: int) -> list[list[tuple[str, float]]]:
        """For each mask that the model reads: the likeliest words, each with its weight. Nothing where the text holds other masks than these."""
        asked = self._tokenizer(text, truncation=True, return_tensors="pt", max_length=self._longest)
        places = (asked["input_ids"][0] == self._tokenizer.mask_token_id).nonzero().ravel().tolist()
        if not places or text.count(self._tokenizer.mask_token) != masks:
            return []
        one_thread(self._device)
        with torch.inference_mode():
            said = self._model(**{name: one.to(self._device) for name, one in asked.items()}).logits[0, places]
        best = torch.topk(said.cpu().float()[:, self._numbers], min(LOOKED_AT, len(self._numbers)), dim=1)
        return [
            [(self._words[int(self._numbers[one])], weight) for one, weight in zip(row, weights, strict=True)]
            for row, weights in zip(best.indices.tolist(), torch.softmax(best.values, 1).tolist(), strict=True)
        ]


def _drawn(choice: Sequence[tuple[str, float]], chance: float) -> str:
    """One of them by its weight; nothing of nothing."""
    left = chance * sum(weight for _, weight in choice)
    for name, weight in choice:
        left -= weight
        if left < 0:
            return name
    return choice[-1][0] if choice else ""


def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    model, found = AutoModelForMaskedLM.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    if found["missing_keys"]:  # transformers would make a head of random numbers
        raise InputError(
            f"{folder} has no masked language model's head ({min(found['missing_keys'])} is missing): "
            f"name a model that fills masks in {ASKED_IN}."
        )
    if tokenizer.mask_token_id is None:
        raise InputError(f"{folder}: its tokenizer has no mask: name a model that fills masks in {ASKED_IN}.")
    return model.eval().requires_grad_(requires_grad=False), tokenizer


def _whole_words(tokenizer: Any) -> dict[int, str]:
    """Token number → word, of the tokens that are a word by themselves: of word pieces those that begin one, of others those after a blank."""
    known = tokenizer.get_vocab()
    marks = [mark for mark in ("Ġ", "▁") if sum(one.startswith(mark) for one in known) > len(known) // 10]
    begin = [number for one, number in known.items() if not marks or one.startswith(marks[0])]
    words = {number: _said(tokenizer, number) for number in begin}
    special = {*tokenizer.all_special_ids}
    return {number: word for number, word in words.items() if word.isalpha() and number not in special}


def _said(tokenizer: Any, number: int) -> str:
    """The token in letters: bytes of a byte-level vocabulary are letters only once they are read."""
    pieces = tokenizer.convert_ids_to_tokens([number])
    return "" if pieces[0].startswith("##") else str(tokenizer.convert_tokens_to_string(pieces)).strip()
