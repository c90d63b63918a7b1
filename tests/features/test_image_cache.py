"""The feature cache of images: later stages decode nothing, and a warm cache gives the bytes of a cold one."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from seedling.config.params import ScrapeParams, ValidateParams, WorkspaceConfig
from seedling.config.sources import FolderSource
from seedling.dataset.generation import GenerationWriter, PayloadReader, Row, identify, ids_of, read, rewrite
from seedling.features.classical import ImageFeatures
from seedling.features.feature_cache import FeatureCache
from seedling.features.image_cache import ImageCache, ImageRecord
from seedling.media import images
from seedling.media.decoded_images import DecodedImages
from seedling.media.image_signals import ImageSignals
from seedling.scrape import scrape
from seedling.validate import validate

CONFIG = WorkspaceConfig(modality="image")
NOT_AN_IMAGE = b"no image"


def photographs(count: int, side: int = 40) -> list[images.Pixels]:
    """Blurred noise, each in another color."""
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (count, side, side + 9, 3), dtype=np.uint8)
    return [cv2.GaussianBlur(image, (0, 0), 2.0) for image in noise]


def collect(folder: Path, pixels: list[images.Pixels]) -> list[str]:
    """Write a generation of these images, and return its ids."""
    with GenerationWriter(folder, stage="scrape", modality="image") as writer:
        for image in pixels:
            writer.keep(Row(identify(images.content(image)), payload=images.encode(image)))
        writer.close(rows_in=len(pixels))
    return list(ids_of(folder, "pool"))


def without_images(folder: Path, target: Path) -> Path:
    """Copy a generation with payloads that cannot be decoded, so that decoding an image would fail."""
    rewrite(folder, target, lambda row: dataclasses.replace(row, payload=NOT_AN_IMAGE))
    return target


def cache_all(folder: Path, pixels: list[images.Pixels]) -> None:
    """Store the records of these images, as scrape does."""
    ImageCache(folder).put([(identify(images.content(image)), ImageRecord.of(image)) for image in pixels])


def test_signals_come_back_from_bytes_unchanged() -> None:
    """All metrics with their full precision, the 64 bits of the hash, and the thumbnail."""
    signals = ImageSignals.of(photographs(1)[0])
    again = ImageSignals.from_bytes(signals.to_bytes())
    assert again.metrics == signals.metrics
    assert (again.metrics["width"], again.metrics["height"]) == (49, 40)
    assert isinstance(again.metrics["width"], int)
    assert again.perceptual_hash == signals.perceptual_hash
    assert (again.thumbnail == signals.thumbnail).all()


@pytest.mark.parametrize("side", [12, 40, 90])
def test_features_with_a_cache_are_those_without_one_to_the_bit(tmp_path: Path, side: int) -> None:
    """Nothing cached, copies of scrape cached, features cached: always the features of an uncached computation."""
    pixels = photographs(30, side)
    ids = collect(tmp_path / "scrape", pixels)
    read_all, order = PayloadReader.of(tmp_path / "scrape"), ids[::-1]
    plain = ImageFeatures().of_rows(order, read_all, fit=True)
    for name in ("cold", "warm"):
        cache = tmp_path / name
        if name == "warm":
            cache_all(cache, pixels)
        for _ in range(2):  # the second time, the features themselves are cached
            inputs = ImageFeatures(cache=cache).of_rows(order, read_all, fit=True)
            assert inputs.features.tobytes() == plain.features.tobytes(), name
            assert inputs.images is not None and plain.images is not None
            assert inputs.images.tobytes() == plain.images.tobytes(), name


def test_cached_images_are_not_decoded_for_their_features(tmp_path: Path) -> None:
    """The features of images that are cached need no image that can be decoded; without a cache they do."""
    pixels = photographs(12)
    ids = collect(tmp_path / "scrape", pixels)
    maker = ImageFeatures(cache=tmp_path / "cache")
    expected = maker.of_rows(ids, PayloadReader.of(tmp_path / "scrape"), fit=True)
    undecodable = PayloadReader.of(without_images(tmp_path / "scrape", tmp_path / "undecodable"))
    assert (maker.of_rows(ids, undecodable, fit=False).features == expected.features).all()
    cache_all(tmp_path / "copies", pixels)
    maker.cache = tmp_path / "copies"  # holds copies of the images, but no features
    assert (maker.of_rows(ids, undecodable, fit=False).features == expected.features).all()
    maker.cache = None
    with pytest.raises(images.Undecodable):
        maker.of_rows(ids, undecodable, fit=False)


def test_validate_writes_the_same_bytes_with_and_without_the_cache_of_scrape(tmp_path: Path) -> None:
    """Also for images that are blank, too small or not images at all."""
    source = tmp_path / "data"
    for label in ("a", "b"):
        (source / "labeled" / label).mkdir(parents=True)
    for number, image in enumerate(photographs(24)):
        (source / "labeled" / "ab"[number % 2] / f"{number}.png").write_bytes(images.encode(image))
    (source / "labeled/a/blank.png").write_bytes(images.encode(np.full((40, 40, 3), 90, np.uint8)))
    (source / "labeled/a/small.png").write_bytes(images.encode(photographs(1, 3)[0]))
    (source / "labeled/a/broken.png").write_bytes(NOT_AN_IMAGE)
    params = ScrapeParams(sources=[FolderSource(kind="folder", path=".")])
    written = {}
    for name, cache in (("plain", None), ("cached", tmp_path / "cache")):
        image_cache = None if cache is None else ImageCache(cache)
        scrape(params, CONFIG, data=source, output=tmp_path / name / "scrape", image_cache=image_cache)
        options: dict[str, Any] = {"features": ImageFeatures(cache=cache), "image_cache": image_cache}
        validate(
            ValidateParams(), CONFIG, collected=tmp_path / name / "scrape", output=tmp_path / name / "v", **options
        )
        paths = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        written[name] = {path.relative_to(tmp_path / name): path.read_bytes() for path in paths}
    assert written["plain"] == written["cached"]
    ids = read(tmp_path / "cached/scrape", ["id"])["id"].tolist()
    assert len(ImageCache(tmp_path / "cache").signals(ids)) == 26  # all but the file that is not an image


def test_a_cache_file_above_the_limit_keeps_its_values_and_gets_no_more(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """However often it is opened, by scrape block after block and by later stages; the full file is named once."""
    FeatureCache(tmp_path, "key").store([("a", bytes(100_000))])
    for _ in range(2):
        full = FeatureCache(tmp_path, "key", max_file_bytes=10**4)
        full.store([("b", bytes(10))])
        assert full.stored(["a", "b"]) == {"a": bytes(100_000)}
    assert capsys.readouterr().err.count("is full") == 1
    roomy = FeatureCache(tmp_path, "key", max_file_bytes=10**6)
    roomy.store([("b", bytes(10))])
    assert set(roomy.stored(["a", "b"])) == {"a", "b"}


def test_a_cache_file_without_its_table_is_created_again(tmp_path: Path) -> None:
    """As if another process had removed the file after it was opened."""
    cache = FeatureCache(tmp_path, "key")
    (tmp_path / "key.sqlite").unlink()
    assert cache.stored(["a"]) == {}
    cache.store([("a", b"1")])
    assert cache.stored(["a"]) == {"a": b"1"}


def test_reading_order_is_the_order_of_the_folders_and_their_rows(tmp_path: Path) -> None:
    """`order` names each id once, in the order in which the reader yields the rows."""
    first, second = (collect(tmp_path / name, photographs(3, side)) for name, side in (("one", 20), ("two", 30)))
    reader = PayloadReader.of(tmp_path / "one", tmp_path / "two")
    ids = [second[2], first[1], second[0], first[1]]
    assert reader.order(ids) == [first[1], second[0], second[2]] == [row_id for row_id, _ in reader(ids)]


def test_decoded_images_are_kept_up_to_their_limit() -> None:
    """The same array as long as it is kept, read-only; the least recently used image is dropped first."""
    encoded = [images.encode(image) for image in photographs(3, 20)]
    decode = DecodedImages(64.0, max_bytes=2 * 20 * 29 * 3)
    first, second = decode(encoded[0]), decode(encoded[1])
    assert decode(encoded[0]) is first
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0] = 0
    decode(encoded[2])  # in the place of the second, which was used before the first
    assert decode(encoded[0]) is first
    assert decode(encoded[1]) is not second
    assert (decode(encoded[1]) == second).all()
