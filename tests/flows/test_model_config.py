"""config.json of an exported model, by the kind of features."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from small_models import grown

from seedling.export.model_config import _graph_input, model_config
from seedling.features.encoder import Preparation
from seedling.models.portable import Portable
from seedling.models.predictor import Predictor


def test_the_config_of_images_without_an_encoder_names_the_side_of_each_input(tmp_path: Path) -> None:
    """The logistic regression of two classes has one input, the whole image at 32 pixels."""
    predictor = Predictor.of(grown(tmp_path, "image", below=0.25))
    assert model_config(predictor, Portable(predictor.model).eval()).as_json() == {
        "modality": "image",
        "classes": ["rain", "sun"],
        "abstain_below": 0.25,
        "max_megapixels": 64.0,
        "background": None,
        "round": 0,
        "inputs": {"images": {"side": 32, "is": "the whole image as RGB, 0 to 255; (n, side, side, 3)"}},
    }


def test_the_inputs_of_encoders_have_their_preprocessing() -> None:
    """The size and the normalization of an image, the maximum number of tokens of a text; no key of the other kind."""
    preparation = Preparation(height=224, width=200, mean=(0.5, 0.5, 0.5), deviation=(0.25, 0.25, 0.25))
    of_images = SimpleNamespace(encoder=SimpleNamespace(prepare=preparation), views=("whole",))
    of_one_view = {
        "is": "(RGB / 255 - mean) / deviation; (n, 3, height, width)",
        "height": 224,
        "width": 200,
        "mean": (0.5, 0.5, 0.5),
        "deviation": (0.25, 0.25, 0.25),
    }
    assert _graph_input("pixel_values", of_images).model_dump(by_alias=True, exclude_none=True) == of_one_view
    of_images.views = ("whole", "center", "padded")
    assert _graph_input("pixel_values", of_images).model_dump(by_alias=True, exclude_none=True) == {
        **of_one_view,
        "is": "(RGB / 255 - mean) / deviation; (n, views, 3, height, width)",
        "views": ("whole", "center", "padded"),
    }
    of_texts = SimpleNamespace(encoder=SimpleNamespace(prepare=SimpleNamespace(unk_token_id=None), max_tokens=128))
    assert _graph_input("input_ids", of_texts).model_dump(by_alias=True, exclude_none=True) == {
        "is": "token ids of tokenizer.json, padded with 0; (n, tokens)",
        "at_most": 128,
        "unknown": 0,
    }
