"""Encoders: small ones of random weights, made here as transformers saves them, against transformers' own forward."""

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


def test_texts_are_the_mean_of_their_tokens_as_transformers_gives_them_one_by_one(of_texts: Path) -> None:
    """Batches of equal length change nothing beyond float16's last digit; rows come back in their order."""
    (found,) = load(of_texts, "text").encode(TEXTS)
    model = BertModel.from_pretrained(of_texts).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(of_texts)
    with torch.inference_mode():
        alone = [
            model(**tokenizer(one, return_tensors="pt", return_token_type_ids=False)).last_hidden_state.mean(1)
            for one in TEXTS
        ]
    expected = torch.nn.functional.normalize(torch.cat(alone), dim=1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.slow
def test_images_are_pooled_as_transformers_pools_them_with_norms_folded_in(of_images: Path) -> None:
    """The plain model on the same tensors, batch normalizations unfused; the colors' histograms stand behind."""
    encoder = load(of_images, "image")
    (found,) = encoder.encode(IMAGES)
    plain = MobileNetV2Model.from_pretrained(of_images).eval()
    from seedling.media.images import decode

    with torch.inference_mode():
        expected = plain(encoder.prepare([decode(one) for one in IMAGES])).pooler_output.numpy()
    assert found.shape == (5, expected.shape[1] + COLOR_COLUMNS)
    np.testing.assert_allclose(found[:, :-COLOR_COLUMNS], expected, atol=2e-3)
    np.testing.assert_allclose(
        (found[:, -COLOR_COLUMNS:] ** 2).sum(axis=1), 3.0, atol=0.01
    )  # three histograms, each sums to 1


def test_batch_norms_are_folded_only_where_the_function_stays() -> None:
    """A layer that uses its norm before its convolution keeps both."""

    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = torch.nn.Conv2d(3, 3, 1)
            self.norm = torch.nn.BatchNorm2d(3)
            self.config = type("Config", (), {"num_channels": 3})()

        def forward(self, pixel_values: torch.Tensor) -> object:
            made = self.convolution(self.norm(pixel_values))
            return type("Made", (), {"last_hidden_state": made})()

    odd = Odd().eval()
    assert odd.norm.running_mean is not None and odd.norm.running_var is not None
    odd.norm.running_mean.fill_(0.3)
    odd.norm.running_var.fill_(4.0)
    assert fuse_batch_norms(odd) == 0
    assert isinstance(odd.norm, torch.nn.BatchNorm2d)


def test_the_whole_frame_is_shown() -> None:
    """What stands at the left edge of a wide image is seen, which a center crop would cut off."""
    wide = np.zeros((20, 100, 3), dtype=np.uint8)
    wide[:, :10] = 255
    made = Preparation.of({"crop_size": {"height": 10, "width": 10}, "image_mean": [0.0] * 3, "image_std": [1.0] * 3})(
        [wide]
    )
    assert made.shape == (1, 3, 10, 10)
    assert made[0, 0, :, 0].min() == 1.0
    assert made[0, 0, :, 1:].max() == 0.0


def test_rows_are_encoded_once(of_texts: Path, tmp_path: Path) -> None:
    """The second time nothing is read; a new row alone is."""
    encoder, cache, asked = load(of_texts, "text"), FeatureCache(tmp_path, "key"), []
    piece = EncodePiece(EncoderHandle(EncoderParams(model=str(of_texts)), "text", of_texts), encoder.key, 64.0)

    def read(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        asked.append(list(ids))
        return ((one, TEXTS[int(one)]) for one in reversed(ids))

    first = encode_rows(lambda: encoder, ["0", "1", "2"], read, cache, piece)
    again = encode_rows(lambda: encoder, ["2", "3", "0"], read, cache, piece)
    assert asked == [["0", "1", "2"], ["3"]]
    assert (again[[2, 0]] == first[[0, 2]]).all()


def test_a_texts_words_are_counted_once_and_forgotten_when_others_are_learnt(of_texts: Path, tmp_path: Path) -> None:
    """Kept rows come back to the bit, after saving and loading too, without being read; fitting on others leaves one file."""
    asked: list[list[str]] = []

    def read(ids: Sequence[str]) -> Iterator[tuple[str, str]]:
        asked.append(list(ids))
        return ((one, TEXTS[int(one)]) for one in ids)

    ids = [str(number) for number in range(len(TEXTS))]
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path))
    made = maker.of_rows(ids, read, fit=True).features
    (tmp_path / "models" / "0").mkdir(parents=True)
    save_features(maker, tmp_path / "models" / "0")
    asked.clear()
    again = load_features(tmp_path / "models" / "0", "text", tmp_path).of_rows(ids[::-1], read, fit=False).features
    assert (again[::-1] == made).all()
    assert asked == []
    alone = load_features(tmp_path / "models" / "0", "text", tmp_path).transform([TEXTS[0]]).features
    np.testing.assert_allclose(alone[0], made[0], atol=1e-6)
    EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path)).of_rows(
        ids[:3], read, fit=True
    )
    assert len(list((tmp_path / ".seedling" / "features").glob("words-*"))) == 1


def test_texts_that_share_no_word_have_features(of_texts: Path, tmp_path: Path) -> None:
    """No term is in two texts, as in a language without spaces, or there is no word at all: the encoder's features remain."""
    for texts in (["红苹果", "绿汽车", "快跑"], ["!!!", "???", "..."]):
        maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path))
        made = maker.fit_transform(texts).features
        assert np.isfinite(made).all()
        assert len(made) == 3


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["text", "image"])
def test_encoded_features_come_back_from_disk(
    modality: Modality, of_texts: Path, of_images: Path, tmp_path: Path
) -> None:
    """Length 1; colors weigh a quarter of the encoder, words half of it; the saved maker gives the same rows."""
    folder, payloads = (of_texts, TEXTS) if modality == "text" else (of_images, IMAGES)
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(folder)), modality, tmp_path))
    made = maker.fit_transform(payloads).features
    np.testing.assert_allclose(np.linalg.norm(made, axis=1), 1.0, atol=1e-5)
    if modality == "text":  # the narrow encoder gives equal features of all images
        n_encoder, factor = maker.encoder_block
        weight = np.linalg.norm(made[:, n_encoder:], axis=1) / np.linalg.norm(made[:, :n_encoder], axis=1)
        np.testing.assert_allclose(weight, 0.5, rtol=1e-4)
        np.testing.assert_allclose(np.linalg.norm(factor * made[:, :n_encoder], axis=1), 1.0, atol=1e-5)
    (tmp_path / "models" / "0").mkdir(parents=True)
    save_features(maker, tmp_path / "models" / "0")
    loaded = load_features(tmp_path / "models" / "0", modality, tmp_path)
    assert isinstance(loaded, EncodedFeatures)
    assert loaded.surface_weight == {"text": 0.5, "image": 0.25}[modality]
    assert loaded.views == {"text": ("whole",), "image": ("whole", "center", "padded")}[modality]
    np.testing.assert_allclose(loaded.transform(payloads).features, made, atol=1e-6)


def test_only_a_quick_run_sees_the_whole_image_alone(of_images: Path, tmp_path: Path) -> None:
    """So does a model whose features.json has no views, since an earlier version wrote it."""
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
def test_several_views_of_an_image_are_averaged_as_rows_of_length_1(of_images: Path, tmp_path: Path) -> None:
    """Each view by transformers' model, batch normalizations unfused; the features of one view have their own cache."""
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


def test_a_rows_features_do_not_depend_on_the_rows_beside_it(of_texts: Path, of_images: Path) -> None:
    """To the bit: alone, in another order, and among others."""
    for encoder, payloads in ((load(of_texts, "text"), TEXTS), (load(of_images, "image"), IMAGES)):
        (together,) = encoder.encode(payloads)
        (turned,) = encoder.encode(payloads[::-1])
        alone = np.concatenate([next(encoder.encode([one])) for one in payloads])
        assert (together == alone).all()
        assert (turned[::-1] == together).all()


def test_a_text_of_no_known_token_has_features(of_texts: Path) -> None:
    """A tokenizer that leaves nothing of a text must not stop the line."""
    (found,) = load(of_texts, "text").encode(["", "red"])
    assert np.isfinite(found).all()


def test_another_encoder_than_the_models_own_is_refused(of_texts: Path, tmp_path: Path) -> None:
    """The model's features would mean something else."""
    maker = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", tmp_path), key="another")
    with pytest.raises(InputError, match="no longer the one"):
        maker.fit_transform(TEXTS)


def test_bad_encoders_are_explained(of_texts: Path, of_images: Path, tmp_path: Path) -> None:
    """Another modality, no weights, no config, no folder, other weights than the pinned ones."""
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


def test_without_a_network_the_hub_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub that does not answer names the remedies."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="cannot be downloaded from the Hub"):
        find_pretrained(EncoderParams(model="somebody/something"), tmp_path, "text")


@pytest.mark.slow
@pytest.mark.skipif(minilm_folder() is None, reason="the package of all-MiniLM-L6-v2 is not installed")
def test_minilm_is_the_published_one_and_agrees_with_sentence_transformers() -> None:
    """The package's weights hash to the published model's; its own library gives the same sentences' features."""
    from sentence_transformers import SentenceTransformer

    folder = minilm_folder()
    assert folder is not None
    assert weights_sha256(folder) == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    (found,) = load_encoder(EncoderHandle(EncoderParams(model=MINILM), "text", folder)).encode(TEXTS)
    np.testing.assert_allclose(found, SentenceTransformer(str(folder)).encode(TEXTS), atol=1e-3)


def test_near_words_are_those_with_near_vectors(of_texts: Path) -> None:
    """Against a full sort by hand, of a vocabulary whose vectors are set; words in pieces and short ones have none."""
    encoder = EncodedFeatures(EncoderHandle(EncoderParams(model=str(of_texts)), "text", of_texts)).encoder
    known = encoder.prepare.get_vocab()
    words = sorted(word for word in known if word.isalpha() and word.islower() and len(word) >= 4)
    assert len(words) >= 3
    vectors = encoder.model.get_input_embeddings().weight.detach().numpy()[[known[word] for word in words]]
    vectors = vectors - vectors.mean(axis=0)
    cosine = (vectors @ vectors.T) / np.outer(*[np.linalg.norm(vectors, axis=1)] * 2)
    found = encoder.near_words([*words, "zzzz", "the"], max_per_word=2, min_cosine=-1.0)
    assert set(found) == set(words)
    for row, word in enumerate(words):
        order = [words[one] for one in np.argsort(-cosine[row]) if one != row]
        assert found[word] == order[:2]
    assert encoder.near_words(words, max_per_word=2, min_cosine=1.1) == {}
