"""Pictures that a small generator makes: of the class that was asked for, in the fold of what they were made from, and no copies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tasks import images
from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify, payloads, read, read_manifest
from tasks.learners.picture_flow import PictureFlow
from tasks.learners.training import Setting, nobody_watches
from tasks.params import Facts, SynthesizeParams
from tasks.synthesize import synthesize

COLOURS = {"blue": (40, 60, 200), "red": (210, 70, 50)}
IMAGES = Facts(modality="image", effort="quick")


def pictures(colour: tuple[int, int, int], many: int, rng: np.random.Generator, side: int = 8) -> list[np.ndarray]:
    """One colour, a lighter or darker one each time, with a little noise."""
    light = rng.normal(0, 15, (many, 1, 1, 1))
    return [*np.clip(np.array(colour) + light + rng.normal(0, 4, (many, side, side, 3)), 0, 255).astype(np.uint8)]


@pytest.mark.slow
def test_a_sample_is_of_the_class_that_was_asked_for_and_of_its_seed_alone() -> None:
    """Reds and blues are learnt from noise: every sample's mean colour is nearer to its own class's; beside other seeds it is the same picture."""
    rng = np.random.default_rng(0)
    shown = [one for colour in COLOURS.values() for one in pictures(colour, 30, rng)]
    flow = PictureFlow(2, 8, Setting(2, 0, 150))
    flow.fit(np.stack(shown), np.repeat([0, 1], 30), nobody_watches)
    means = np.array([*COLOURS.values()])
    for label in (0, 1):
        made = list(flow.sample(label, range(20)))
        for one in made:
            away = np.abs(one.mean(axis=(0, 1)) - means).mean(axis=1)
            assert away[label] < min(40, away[1 - label])
        (alone,) = flow.sample(label, [7])
        assert (alone == made[7]).all()
        assert len({one.tobytes() for one in made}) == 20


@pytest.mark.slow
def test_generated_pictures_stay_in_the_fold_that_they_were_made_from(tmp_path: Path) -> None:
    """Through the stage, twice the same bytes: two a row, their parents all rows of their class and fold, none near a copy, and the pool taught all of them."""
    rng = np.random.default_rng(1)
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        rows = 0
        for label, colour in COLOURS.items():
            for number, one in enumerate(pictures(colour, 8, rng, side=20)):
                row_id = identify(images.content(one))
                payload = images.encode(one)
                row = Row(row_id, "train", number % 2, label, label_source="human", group=row_id, payload=payload)
                writer.keep(row)
                rows += 1
        for one in pictures((120, 120, 120), 210, rng):
            row_id = identify(images.content(one))
            writer.keep(Row(row_id, "pool", group=row_id, payload=images.encode(one)))
            rows += 1
        writer.close(rows_in=rows, classes=sorted(COLOURS))
    params = SynthesizeParams(mixup=0, generate=2.0, generate_side=8, generate_steps=60)
    told = {"collected": tmp_path / "v", "validated": tmp_path / "v"}
    found = []
    said: list[str] = []
    for name in ("one", "two"):
        out = tmp_path / name
        synthesize(params, IMAGES, **told, output=out, progress=lambda what, done, total: said.append(what))
        found.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert found[0] == found[1]
    assert "teach generators" in said
    manifest, kept = read_manifest(tmp_path / "one"), read(tmp_path / "one")
    assert manifest["rows"]["in"] == 32
    parents = read(tmp_path / "v").set_index("id")
    for row in kept.itertuples():
        mine = parents.loc[list(row.parents)]
        wanted = parents[(parents["label"] == row.label) & (parents["fold"] == row.fold)]
        assert set(mine.index) == set(wanted.index)
        assert (row.label_source, row.split, row.weight) == ("generated", "train", 0.5)
        assert json.loads(row.recipe)["steps"] == 60
    made = dict(payloads([tmp_path / "one"], kept["id"]))
    assert {images.decode(one).shape for one in made.values()} == {(8, 8, 3)}


@pytest.mark.slow
def test_what_comes_out_as_it_went_in_is_rejected(tmp_path: Path) -> None:
    """All rows of a class are nearly one picture: what its generator makes is that picture, and is counted as a copy."""
    rng = np.random.default_rng(2)
    base = {label: rng.integers(0, 256, (8, 8, 3)) for label in COLOURS}
    with GenerationWriter(tmp_path / "v", stage="validate", modality="image") as writer:
        for label, one in base.items():
            for _ in range(6):
                picture = np.clip(one + rng.integers(-1, 2, one.shape), 0, 255).astype(np.uint8)
                row_id = identify(images.content(picture))
                payload = images.encode(picture)
                writer.keep(Row(row_id, "train", 0, label, label_source="human", group=row_id, payload=payload))
        writer.close(rows_in=12, classes=sorted(COLOURS))
    params = SynthesizeParams(mixup=0, generate=1.0, generate_side=8, generate_steps=500)
    synthesize(params, IMAGES, collected=tmp_path / "v", validated=tmp_path / "v", output=tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest["rows"]["in"] == 12
    assert manifest["reasons"].get("copy_of_a_parent", 0) > 6  # most of twelve


def test_texts_are_not_generated(tmp_path: Path) -> None:
    """The error names the key and the remedy."""
    with GenerationWriter(tmp_path / "v", stage="validate", modality="text") as writer:
        writer.close(rows_in=0, classes=["a"])
    told = {"collected": tmp_path / "v", "validated": tmp_path / "v", "output": tmp_path / "out"}
    with pytest.raises(InputError, match=r"synthesize\.generate makes pictures, but this is a text workspace"):
        synthesize(SynthesizeParams(generate=1.0), Facts(modality="text"), **told)
