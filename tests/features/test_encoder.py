"""Encoders: small ones with random weights, saved as transformers saves them, compared with transformers' own forward
pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertModel, MobileNetV2Model, PreTrainedTokenizerFast

from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.dataset.generation import Modality
from seedling.errors import InputError
from seedling.features.encoded_features import EncodedFeatures
from seedling.features.encoder import COLOR_COLUMNS, EncodePiece, Encoder, Preparation, fuse_batch_norms, load_encoder
from seedling.features.encoder_handle import EncoderHandle
from seedling.features.encoding import encode_rows
from seedling.features.feature_cache import FeatureCache
from seedling.features.pretrained import MINILM, find_pretrained, minilm_folder, weights_sha256
from seedling.media.images import View, encode
from seedling.models.saving import load_features, make_features, save_features
from seedling.records.features import EncodedFeaturesRecord

TEXTS = ["the red apple falls", "a green bus runs", "the bus", "a red bus runs the apple", "green"]
RNG = np.random.default_rng(3)
IMAGES = [encode(RNG.integers(0, 256, (40, 60, 3)).astype(np.uint8)) for _ in range(5)]


def load(folder: Path, modality: Modality, **more: Any) -> Encoder:
    return load_encoder(EncoderHandle(EncoderParams(model=str(folder), **more), modality, folder))


def test_text_features_are_the_mean_of_the_tokens_of_each_text_alone(of_texts: Path) -> None:
    """Batching changes nothing beyond the last digit of float16; rows are returned in their order."""
    (features,) = load(of_texts, "text").encode(TEXTS)
    model = BertModel.from_pretrained(of_texts).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(of_texts)
    with torch.inference_mode():
        alone = [
            model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).last_hidden_state.mean(1)
            for text in TEXTS
        ]
    expected = torch.nn.functional.normalize(torch.cat(alone), dim=1).numpy()
    np.testing.assert_allclose(features, expected, atol=1e-3)


@pytest.mark.slow
def test_image_features_are_pooled_as_in_transformers_with_batch_norms_fused(of_images: Path) -> None:
    """The reference is the model with unfused batch normalizations on the same tensors; color histograms follow the
    encoder's features.
    """
    encoder = load(of_images, "image")
    (features,) = encoder.encode(IMAGES)
    plain = MobileNetV2Model.from_pretrained(of_images).eval()
    from seedling.media.images import decode

    with torch.inference_mode():
        expected = plain(encoder.prepare([decode(content) for content in IMAGES])).pooler_output.numpy()
    assert features.shape == (5, expected.shape[1] + COLOR_COLUMNS)
    np.testing.assert_allclose(features[:, :-COLOR_COLUMNS], expected, atol=2e-3)
    np.testing.assert_allclose(
        (features[:, -COLOR_COLUMNS:] ** 2).sum(axis=1), 3.0, atol=0.01
    )  # three histograms, each sums to 1


def test_batch_norms_are_fused_only_if_the_function_stays_the_same() -> None:
    """A layer that applies its norm before its convolution keeps both."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 3, 1)
            self.norm = torch.nn.BatchNorm2d(3)
            self.config = type("Config", (), {"num_channels": 3})()

        def forward(self, pixel_values: torch.Tensor) -> object:
            hidden = self.convolution(self.norm(pixel_values))
            return type("Made", (), {"last_hidden_state": hidden})()

    odd = Odd().eval()
    assert odd.norm.running_mean is not None and odd.norm.running_var is not None
    odd.norm.running_mean.fill_(0.3)
    odd.norm.running_var.fill_(4.0)
    assert fuse_batch_norms(odd) == 0
    assert isinstance(odd.norm, torch.nn.BatchNorm2d)


def test_the_whole_frame_is_encoded() -> None:
    """The left edge of a wide image is part of the input; a center crop would cut it off."""
    wide = np.zeros((20, 100, 3), dtype=np.uint8)
    wide[:, :10] = 255
    prepared = Preparation.of(
        {"crop_size": {"height": 10, "width": 10}, "image_mean": [0.0] * 3, "image_std": [1.0] * 3}
    )([wide])
    assert prepared.shape == (1, 3, 10, 10)
    assert prepared[0, 0, :, 0].min() == 1.0
    assert prepared[0, 0, :, 1:].max() == 0.0


def test_rows_are_encoded_once(of_texts: Path, tmp_path: Path) -> None:
    """The second call reads only the new row."""
    encoder, cache, reads = load(of_texts, "text"), FeatureCache(tmp_path, "key"), []
    piece = EncodePiece(EncoderHandle(EncoderParams(model=str(of_texts)), "text", of_texts), encoder.key, 64.0)

    def read(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        reads.append(list(ids))
        return ((row_id, TEXTS[int(row_id)]) for row_id in reversed(ids))

    first = encode_rows(lambda: encoder, ["0", "1", "2"], read, cache, piece)
    again = encode_rows(lambda: encoder, ["2", "3", "0"], read, cache, piece)
    assert reads == [["0", "1", "2"], ["3"]]
    assert (again[[2, 0]] == first[[0, 2]]).all()


def test_tfidf_features_are_cached_and_removed_after_fitting_on_other_texts(of_texts: Path, tmp_path: Path) -> None:
    """Cached rows are bitwise equal, also after saving and loading, without reading texts; fitting on other rows leaves
    one file.
    """
    reads: list[list[str]] = []

    def read(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        reads.append(list(ids))
        return ((row_id, TEXTS[int(row_id)]) for row_id in ids)

    ids = [str(number) for number in range(len(TEXTS))]
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path))
    features = maker.of_rows(ids, read, fit=True).features
    (tmp_path / "models" / "0").mkdir(parents=True)
    save_features(maker, tmp_path / "models" / "0")
    reads.clear()
    again = load_features(tmp_path / "models" / "0", "text", tmp_path).of_rows(ids[::-1], read, fit=False).features
    assert (again[::-1] == features).all()
    assert reads == []
    alone = load_features(tmp_path / "models" / "0", "text", tmp_path).transform([TEXTS[0]]).features
    np.testing.assert_allclose(alone[0], features[0], atol=1e-6)
    EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path)).of_rows(
        ids[:3], read, fit=True
    )
    assert len(list((tmp_path / ".seedling" / "features").glob("words-*"))) == 1


def test_texts_without_shared_words_have_features(of_texts: Path, tmp_path: Path) -> None:
    """No term is in two texts, as in a language without spaces, or there are no words at all: the encoder's features
    remain.
    """
    for texts in (["红苹果", "绿汽车", "快跑"], ["!!!", "???", "..."]):
        maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path))
        features = maker.fit_transform(texts).features
        assert np.isfinite(features).all()
        assert len(features) == 3


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["text", "image"])
def test_encoded_features_are_the_same_after_loading(
    modality: Modality, of_texts: Path, of_images: Path, tmp_path: Path
) -> None:
    """Rows have norm 1; colors weigh a quarter of the encoder, words half; the loaded maker gives the same rows."""
    folder, payloads = (of_texts, TEXTS) if modality == "text" else (of_images, IMAGES)
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(folder)), modality, tmp_path))
    features = maker.fit_transform(payloads).features
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-5)
    if modality == "text":  # the narrow encoder gives equal features of all images
        n_encoder, factor = maker.encoder_block
        weight = np.linalg.norm(features[:, n_encoder:], axis=1) / np.linalg.norm(features[:, :n_encoder], axis=1)
        np.testing.assert_allclose(weight, 0.5, rtol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(factor * features[:, :n_encoder], axis=1), 1.0, atol=1e-5)
    (tmp_path / "models" / "0").mkdir(parents=True)
    save_features(maker, tmp_path / "models" / "0")
    loaded = load_features(tmp_path / "models" / "0", modality, tmp_path)
    assert isinstance(loaded, EncodedFeatures)
    assert loaded.surface_weight == {"text": 0.5, "image": 0.25}[modality]
    assert loaded.views == {"text": ("whole",), "image": ("whole", "center", "padded")}[modality]
    np.testing.assert_allclose(loaded.transform(payloads).features, features, atol=1e-6)


def test_only_a_quick_run_encodes_the_whole_image_alone(of_images: Path, tmp_path: Path) -> None:
    """So does a model whose features.json has no views, because an earlier version wrote it."""
    handle = EncoderHandle(EncoderParams(model=str(of_images)), "image", tmp_path)
    for effort, n_views in (("quick", 1), ("normal", 3), ("thorough", 3)):
        config = WorkspaceConfig.model_validate({"modality": "image", "effort": effort})
        maker = make_features(handle, None, config)
        assert isinstance(maker, EncodedFeatures)
        assert (len(maker.views), maker.views[0]) == (n_views, "whole")
    record = EncodedFeaturesRecord(encoder=handle.params, key=None, max_megapixels=64.0, views=("whole",))
    assert "views" not in record.as_json()
    assert EncodedFeaturesRecord.model_validate(record.as_json()).views == ("whole",)


@pytest.mark.slow
def test_several_views_of_an_image_are_averaged_as_unit_vectors(of_images: Path, tmp_path: Path) -> None:
    """Each view by transformers' model with unfused batch normalizations; the features of one view have a cache of
    their own.
    """
    from seedling.media.images import decode, view_of

    encoder = load(of_images, "image")
    assert isinstance(encoder.prepare, Preparation)
    pixels, sides = [decode(payload) for payload in IMAGES], (encoder.prepare.width, encoder.prepare.height)
    plain = MobileNetV2Model.from_pretrained(of_images).eval()
    views: tuple[View, ...] = ("whole", "center", "padded")
    expected = np.zeros(())
    for view in views:
        resized = np.stack([view_of(image, view, *sides) for image in pixels]).astype(np.float32)
        values = (resized / 255 - np.array(encoder.prepare.mean)) / np.array(encoder.prepare.deviation)
        with torch.inference_mode():
            embedding = plain(torch.from_numpy(values).permute(0, 3, 1, 2).float()).pooler_output.numpy()
        expected = expected + embedding / np.linalg.norm(embedding, axis=1, keepdims=True) / 3
    (actual,) = encoder.encode(IMAGES, views=views)
    np.testing.assert_allclose(actual[:, :-COLOR_COLUMNS], expected, atol=2e-3)
    handle = EncoderHandle(EncoderParams(model=str(of_images)), "image", tmp_path)

    def read(ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        return ((row_id, IMAGES[int(row_id)]) for row_id in ids)

    for maker in (EncodedFeatures(handle, views=("whole",)), EncodedFeatures(handle)):
        by_ids = maker.of_rows(["0", "1", "2", "3", "4"], read, fit=True).features
        np.testing.assert_allclose(by_ids, maker.transform(IMAGES).features, atol=1e-6)


def test_a_rows_features_do_not_depend_on_the_other_rows_of_the_batch(of_texts: Path, of_images: Path) -> None:
    """They are bitwise equal alone, in another order, and among others."""
    for encoder, payloads in ((load(of_texts, "text"), TEXTS), (load(of_images, "image"), IMAGES)):
        (together,) = encoder.encode(payloads)
        (turned,) = encoder.encode(payloads[::-1])
        alone = np.concatenate([next(encoder.encode([payload])) for payload in payloads])
        assert (together == alone).all()
        assert (turned[::-1] == together).all()


def test_a_text_without_known_tokens_has_features(of_texts: Path) -> None:
    """A text for which the tokenizer returns no tokens does not stop the pipeline."""
    (features,) = load(of_texts, "text").encode(["", "red"])
    assert np.isfinite(features).all()


def test_an_encoder_that_differs_from_the_models_is_refused(of_texts: Path, tmp_path: Path) -> None:
    """The model's features would have another meaning."""
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path), key="another")
    with pytest.raises(InputError, match="no longer the one"):
        maker.fit_transform(TEXTS)


def test_bad_encoders_are_explained(of_texts: Path, of_images: Path, tmp_path: Path) -> None:
    """Another modality, missing weights, missing config, missing folder, and weights that differ from the pinned ones."""
    with pytest.raises(InputError, match="is a model of images, but the workspace's modality is text"):
        load(of_images, "text")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no weights"):
        load(tmp_path, "image")
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="no config"):
        load(tmp_path, "image")
    with pytest.raises(InputError, match="does not exist"):
        find_pretrained(EncoderParams(model="./nowhere"), tmp_path, "text")
    with pytest.raises(InputError, match="sha256"):
        load(of_texts, "text", sha256="0" * 64)


def test_an_unreachable_hub_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the ways to fix it."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be downloaded from the Hub"):
        find_pretrained(EncoderParams(model="somebody/something"), tmp_path, "text")


@pytest.mark.slow
@pytest.mark.skipif(minilm_folder() is None, reason="the package of all-MiniLM-L6-v2 is not installed")
def test_minilm_is_the_published_model_and_agrees_with_sentence_transformers() -> None:
    """The package's weights have the published hash, and sentence-transformers gives the same features."""
    from sentence_transformers import SentenceTransformer

    folder = minilm_folder()
    assert folder is not None
    assert weights_sha256(folder) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    (features,) = load_encoder(EncoderHandle(EncoderParams(model=MINILM), "text", folder)).encode(TEXTS)
    np.testing.assert_allclose(features, SentenceTransformer(str(folder)).encode(TEXTS), atol=1e-3)


def test_near_words_are_those_with_near_vectors(of_texts: Path) -> None:
    """Compared with a full sort of all cosines; words of several tokens and short words have no neighbors."""
    encoder = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", of_texts)).encoder
    vocabulary = encoder.prepare.get_vocab()
    words = sorted(word for word in vocabulary if word.isalpha() and word.islower() and len(word) >= 4)
    assert len(words) >= 3
    vectors = encoder.model.get_input_embeddings().weight.detach().numpy()[[vocabulary[word] for word in words]]
    vectors = vectors - vectors.mean(axis=0)
    cosine = (vectors @ vectors.T) / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    near = encoder.near_words([*words, "zzzz", "the"], max_per_word=2, min_cosine=-1.0)
    assert set(near) == set(words)
    for row, word in enumerate(words):
        order = [words[index] for index in np.argsort(-cosine[row]) if index != row]
        assert near[word] == order[:2]
    assert encoder.near_words(words, max_per_word=2, min_cosine=1.1) == {}
