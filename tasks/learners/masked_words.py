"""Words for masks, by a masked language model: what may stand where a word was taken out (Kobayashi 2018; Wu et al. 2019).

Any `AutoModelForMaskedLM`: a local folder or a model of the Hugging Face Hub, pinned by its revision and its weights' hash.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.learners.device import device_of, one_thread
from tasks.learners.pretrained import find_pretrained, key_of
from tasks.params import EncoderParams

ASKED_IN = "augment.masked_lm"
VERSION = "1"  # of how words are chosen: part of the key
LIKELIEST = 10  # words that may be drawn, each with its probability among them


class MaskedWords:
    """A loaded model. `key` names the weights and how they are used."""

    def __init__(self, params: EncoderParams, workspace: Path) -> None:
        """Raises InputError: no such folder, no weights, other weights than `sha256` says, no network, no masked language model."""
        import torch

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
        self._one_at_a_time = threading.Lock()

    def fill(self, text: str, mask: str, hidden: Sequence[str], seed: int) -> str:
        """The text with every `mask` replaced by a word drawn from the likeliest, never the hidden one; hidden words that the model cannot
        reach come back.

        hidden: the words under the masks, in their order.
        """
        import torch

        parts = re.split(re.escape(mask), text)
        if len(parts) != len(hidden) + 1:  # the text itself says [MASK]
            return text
        asked = self._tokenizer(
            self._tokenizer.mask_token.join(parts), truncation=True, return_tensors="pt", max_length=self._longest
        )
        with self._one_at_a_time, torch.inference_mode():
            one_thread(self._device)
            logits = self._model(**{name: one.to(self._device) for name, one in asked.items()}).logits[0]
        places = (asked["input_ids"][0] == self._tokenizer.mask_token_id).nonzero().ravel().tolist()
        draw, filled = random.Random(seed), []  # noqa: S311  (no secret hangs on it)
        numbers = torch.tensor(sorted(self._words))
        for turn, word in enumerate(hidden):
            chance = draw.random()
            if turn >= len(places):
                filled.append(word)
                continue
            of_words = logits[places[turn]].cpu().float()[numbers]
            best = torch.topk(of_words, min(LIKELIEST + 1, len(numbers)))
            names = [self._words[int(numbers[one])] for one in best.indices]
            weights = torch.softmax(best.values, 0).tolist()
            choice = [(name, weight) for name, weight in zip(names, weights, strict=True) if name != word.lower()]
            filled.append(_drawn(choice[:LIKELIEST], chance) or word)
        return "".join(before + word for before, word in zip(parts, [*filled, ""], strict=True))

    @property
    def _longest(self) -> int:
        return min(int(self._tokenizer.model_max_length), int(self._model.config.max_position_embeddings), 512)


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
    model, found = AutoModelForMaskedLM.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
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
    words = {number: one.removeprefix(marks[0]) for one, number in known.items() if one.startswith(marks[0])} if marks else {
        number: one for one, number in known.items()
    }  # fmt: skip
    return {
        number: word for number, word in words.items() if word.isalpha() and number not in tokenizer.all_special_ids
    }
