"""Encoders of random weights, made here as transformers saves them; tests/conftest.py imports these fixtures.

The libraries are imported by the fixtures: most tests need none of them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

WORDS = ["[PAD]", "[UNK]", "red", "green", "apple", "bus", "runs", "falls", "the", "a"]


@pytest.fixture(scope="session")
def of_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers and ten words."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("encoders") / "texts"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
    )
    BertModel(config).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token=WORDS[1]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token=WORDS[0], unk_token=WORDS[1]).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow MobileNetV2 for 32 × 32 images, its batch normalizations not the identity."""
    import torch
    from transformers import MobileNetV2Config, MobileNetV2Model

    folder = tmp_path_factory.mktemp("encoders") / "images"
    torch.manual_seed(1)
    model = MobileNetV2Model(MobileNetV2Config(depth_multiplier=0.25, image_size=32))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    settings = {
        "size": {"shortest_edge": 36},
        "crop_size": {"height": 32, "width": 32},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder
