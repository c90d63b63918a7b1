"""features.json: the exact content per kind of features, and what a reader says of other content."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_models import grown

from seedling.config.params import EncoderParams
from seedling.errors import DamagedFile
from seedling.models.model import load_model
from seedling.records.features import (
    BlockRecord,
    EncodedFeaturesRecord,
    ImageFeaturesRecord,
    TermHalvesRecord,
    TermsRecord,
    TextFeaturesRecord,
)
from seedling.records.record import Record

WORDS, CHARACTERS = TermsRecord(terms=("rain", "sun"), idf=(1.0, 1.5)), TermsRecord(terms=("ra",), idf=(2.0,))
HALVES = {"characters": {"idf": [2.0], "terms": ["ra"]}, "words": {"idf": [1.0, 1.5], "terms": ["rain", "sun"]}}


@pytest.mark.parametrize(
    ("record", "content"),
    [
        (
            TextFeaturesRecord(words=WORDS, characters=CHARACTERS),
            {"characters": HALVES["characters"], "version": 1, "words": HALVES["words"]},
        ),
        (
            ImageFeaturesRecord(
                side=32,
                network_side=16,
                max_megapixels=64.0,
                blocks=(BlockRecord(mean=(0.5, -1.0), scale=2.0), BlockRecord(mean=(0.0,), scale=None)),
            ),
            {
                "blocks": [{"mean": [0.5, -1.0], "scale": 2.0}, {"mean": [0.0], "scale": None}],
                "max_megapixels": 64.0,
                "network_side": 16,
                "side": 32,
                "version": 1,
            },
        ),
        (
            EncodedFeaturesRecord(
                encoder=EncoderParams(model="all-MiniLM-L6-v2"),
                key="abc",
                max_megapixels=64.0,
                words=TermHalvesRecord(words=WORDS, characters=CHARACTERS),
            ),
            {
                "encoder": {
                    "model": "all-MiniLM-L6-v2",
                    "precision": "float32",
                    "revision": None,
                    "sha256": None,
                },
                "key": "abc",
                "max_megapixels": 64.0,
                "version": 1,
                "words": HALVES,
            },
        ),
    ],
    ids=["texts", "images", "encoder"],
)
def test_features_are_written_and_read_without_loss(record: Record, content: object, tmp_path: Path) -> None:
    """The file has exactly these bytes, and the record that is read from them is equal."""
    path = tmp_path / "features.json"
    record.write(path)
    assert path.read_text(encoding="utf-8") == json.dumps(content, indent=2) + "\n"
    assert type(record).read(path) == record


def test_features_of_images_have_no_words() -> None:
    """The key is left out, as it is for an encoder of images."""
    record = EncodedFeaturesRecord(encoder=EncoderParams(model="m"), key=None, max_megapixels=64.0)
    assert "words" not in record.as_json()


@pytest.mark.parametrize(
    ("modality", "key", "value", "message"),
    [
        ("image", "version", 2, "version 2 is of a later Seedling"),
        ("text", "version", 2, "version 2 is of a later Seedling"),
        ("image", "side", 10**6, "side"),
        ("image", "network_side", True, "network_side"),
        ("image", "side", 31.0, "side"),
        ("image", "blocks", [{"mean": [float("nan")], "scale": 1.0}], "blocks.0.mean.0"),
        ("text", "words", {"terms": ["rain"]}, "words.idf"),
        ("text", "characters", None, "characters"),
    ],
)
def test_a_model_with_other_features_is_not_loaded(
    modality: str, key: str, value: object, message: str, tmp_path: Path
) -> None:
    """A stranger's file may ask for a huge image, or be of a later version: the error names the file and the key."""
    workspace = grown(tmp_path, modality)  # type: ignore[arg-type]
    path = workspace / "models" / "0" / "features.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, key: value}), encoding="utf-8")
    with pytest.raises(DamagedFile, match=f"features.json.*{message}"):
        load_model(path.parent, workspace)


def test_features_of_an_earlier_version_are_loaded(tmp_path: Path) -> None:
    """A file without `version` has the same keys."""
    workspace = grown(tmp_path, "text")
    path = workspace / "models" / "0" / "features.json"
    expected = load_model(path.parent, workspace).predict(["rain", "sun"])
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content.pop("version") == 1
    path.write_text(json.dumps(content), encoding="utf-8")
    assert (load_model(path.parent, workspace).predict(["rain", "sun"]) == expected).all()
