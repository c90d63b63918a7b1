"""Masks filled by a masked language model with random weights, whose output biases fix the predicted words."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.pre_tokenizers import ByteLevel
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from seedling.augment import augment
from seedling.augment.sentences import Context, change
from seedling.config.params import AugmentParams, EncoderParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, read
from seedling.errors import InputError
from seedling.models.masked_words import MaskedWords, _whole_words

WORDS = ["[PAD]", "[UNK]", "[MASK]", "red", "green", "apple", "bus", "runs", "falls", "the", "a", "##s", "42"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that predicts `bus` three times as often as `apple`, `##s` and `42` far more often than either, and no
    other token.
    """
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=8,
        tie_word_embeddings=False,
    )
    whole = BertForMaskedLM(config)
    with torch.no_grad():
        whole.cls.predictions.decoder.weight.zero_()
        whole.cls.predictions.decoder.bias.fill_(-30.0)
        for word, bias in (("bus", torch.log(torch.tensor(3.0))), ("apple", 0.0), ("##s", 9.0), ("42", 9.0)):
            whole.cls.predictions.decoder.bias[WORDS.index(word)] = bias
        whole.cls.predictions.bias.copy_(whole.cls.predictions.decoder.bias)
    whole.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=WORDS[0], unk_token=WORDS[1], mask_token=WORDS[2]
    ).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_words_are_drawn_with_the_probabilities_of_the_model(model: Path) -> None:
    """Three buses per apple, from biases of log 3 and 0; never a part of a word, a number, or the hidden word."""
    words = MaskedWords(EncoderParams(model=str(model)), model)
    counts = Counter(words.fill("the [MASK] falls", "[MASK]", ["red"], seed) for seed in range(400))
    assert set(counts) == {"the bus falls", "the apple falls"}
    assert counts["the bus falls"] / 400 == pytest.approx(0.75, abs=0.07)
    assert {words.fill("the [MASK] falls", "[MASK]", ["bus"], seed) for seed in range(20)} == {"the apple falls"}
    assert words.fill("[MASK] runs", "[MASK]", ["red"], 3) == words.fill("[MASK] runs", "[MASK]", ["red"], 3)


def test_a_word_has_the_case_of_the_hidden_one_and_excluded_words_are_not_drawn(model: Path) -> None:
    """Capitalized as the first word of a sentence, uppercase in an uppercase text.

    Words in `never` are not drawn, nor the hidden word in another case.
    """
    words = MaskedWords(EncoderParams(model=str(model)), model)
    assert {words.fill("[MASK] runs", "[MASK]", ["Bus"], seed) for seed in range(20)} == {"Apple runs"}
    assert {words.fill("[MASK] runs", "[MASK]", ["APPLE"], seed) for seed in range(20)} == {"BUS runs"}
    barred = {words.fill("[MASK] runs", "[MASK]", ["green"], seed, {"bus"}.__contains__) for seed in range(20)}
    assert barred == {"apple runs"}
    context = Context(fill=words.fill, protected=frozenset({"apple"}))
    filled = {change("green falls", "mask", 1.0, seed, context) for seed in range(60)}
    assert not any("apple" in text for text in filled)
    assert any("bus" in text for text in filled)


def test_words_of_a_byte_level_vocabulary_are_decoded() -> None:
    """A byte-level token is decoded to its word; a token within a word is not a word."""
    expected = ["voilà", "groß", "что"]
    tokens = [*WORDS[:3], *(ByteLevel(add_prefix_space=True).pre_tokenize_str(word)[0][0] for word in expected), "ly"]
    numbers = {token: number for number, token in enumerate(tokens)}
    whole = Tokenizer(models.WordLevel(numbers, unk_token=WORDS[1]))
    whole.pre_tokenizer, whole.decoder = ByteLevel(add_prefix_space=True), ByteLevelDecoder()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=whole, pad_token=WORDS[0], mask_token=WORDS[2])
    assert _whole_words(tokenizer) == dict(zip((3, 4, 5), expected, strict=True))


def test_a_masked_language_model_without_a_mask_operation_is_refused(model: Path, tmp_path: Path) -> None:
    """The default policy masks nothing, and the error says what to add."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        writer.close(rows_in=0, classes=["x"])
    params = AugmentParams.model_validate({"masked_lm": str(model)})
    folders: dict[str, Any] = {"collected": tmp_path / "v", "validated": tmp_path / "v", "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"add it to augment\.policy, as in \[mask\]"):
        augment(params, WorkspaceConfig(modality="text"), **folders)


def test_a_mask_beyond_the_models_maximum_length_is_not_filled(model: Path) -> None:
    """The model reads six words: a mask behind them becomes the hidden word again.

    A text that contains [MASK] itself is unchanged.
    """
    words = MaskedWords(EncoderParams(model=str(model)), model)
    long = "the a the a the a the a the [MASK]"
    assert words.fill(long, "[MASK]", ["green"], 1) == long.replace("[MASK]", "green")
    context = Context(fill=words.fill)
    text = "please [MASK] me the red apple"
    assert {change(text, "mask", 0.5, seed, context) for seed in range(10)} == {text}


def test_the_recipe_of_an_augmented_row_has_the_key_of_the_model(model: Path, tmp_path: Path) -> None:
    """After the stage no mask is left, the recipe has the model's key, and the same model gives the same rows."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        for text, label in (("red falls runs", "x"), ("green the a runs", "y")):
            row_id = identify(text.encode())
            writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=text))
        writer.close(rows_in=2, classes=["x", "y"])
    params = AugmentParams.model_validate(
        {"augmentations_per_row": 4, "policy": [{"mask": 0.5}], "masked_lm": str(model)}
    )
    key = MaskedWords(EncoderParams(model=str(model)), model).key
    augmented = []
    for name in ("one", "two"):
        augment(
            params,
            WorkspaceConfig(modality="text"),
            collected=tmp_path / "v",
            validated=tmp_path / "v",
            output=tmp_path / name,
        )
        augmented.append(read(tmp_path / name))
    assert augmented[0]["text"].tolist() == augmented[1]["text"].tolist()
    assert not augmented[0]["text"].str.contains("MASK", regex=False).any()
    assert {json.loads(recipe)["filled_by"] for recipe in augmented[0]["recipe"]} == {key}
    assert augmented[0]["text"].str.contains("bus|apple").any()


def test_a_model_without_a_masked_language_head_is_refused(of_texts: Path) -> None:
    """Transformers would initialize one at random; the error says what is missing and where to name another model."""
    with pytest.raises(InputError, match=r"no masked language model's head .*augment\.masked_lm"):
        MaskedWords(EncoderParams(model=str(of_texts)), of_texts)
