"""Measure accuracy on an unlabeled source and on the labeled source, with images translated into the unlabeled source.

    PYTHONPATH=. python benchmarks/translating.py --data ../shared/data

The labeled rows are unchanged. The other source has images of the same set as another camera would take them: in dim,
warm light from one side, blurred and noisy, or in haze, pale and bluish; each image varies a little. The pool holds
200 of them without labels, and the synthesize stage translates each labeled row into their style, twice per row.
Peers, with the same number of augmented rows and the same pool: albumentations' Fourier domain adaptation and
histogram matching with their default ranges, and the default augmentation policy.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from albumentations.augmentations.mixing.domain_adaptation_functional import apply_histogram, fourier_domain_adaptation
from augmentation import STEPS, WEIGHT, rows_of
from record import Measurement, write
from scipy.stats import t

from seedling.augment.makers import Resources, maker_of, steps_of
from seedling.augment.sentences import Context
from seedling.config.params import EncoderParams, SynthesizeParams, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read
from seedling.features.encoder_handle import EncoderHandle
from seedling.media import images
from seedling.media.images import Pixels
from seedling.models.model import single_threaded
from seedling.models.saving import make_features, make_learner
from seedling.models.training import FitContext
from seedling.stats.randomness import derived_seed
from seedling.synthesize import synthesize

ROWS_PER_PARENT, POOL_ROWS, TEST_ROWS = 2, 200, 600


def dim(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Simulate a warm lamp from one side, a blurred lens, and noise."""
    height, width = pixels.shape[:2]
    light = 255 * (pixels / 255.0) ** rng.uniform(1.2, 1.6) * np.array([0.8, 0.62, 0.42]) * rng.normal(1, 0.06, 3)
    down, across = np.mgrid[:height, :width]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (across / width - 0.5) + np.sin(angle) * (down / height - 0.5)
    soft = cv2.GaussianBlur(light * (1 + 0.7 * slope)[..., None], (0, 0), 0.004 * min(height, width) + 0.3)
    return np.clip(np.rint(soft + rng.normal(0, 7, soft.shape)), 0, 255).astype(np.uint8)


def haze(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Make the image pale, bright and bluish."""
    pale = pixels * rng.uniform(0.35, 0.5) + np.array([105, 118, 132]) * rng.normal(1, 0.05)
    soft = cv2.GaussianBlur(pale, (0, 0), 0.006 * min(pixels.shape[:2]) + 0.3)
    return np.clip(np.rint(soft + rng.normal(0, 3, soft.shape)), 0, 255).astype(np.uint8)


CAMERAS: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {"dim": dim, "haze": haze}


def translated_rows(labeled: list[bytes], labels: list[str], pool: list[bytes], seed: int) -> dict[int, list[bytes]]:
    """Return the augmented rows of synthesize, by the number of the labeled row."""
    with tempfile.TemporaryDirectory() as scratch:
        here, names = Path(scratch), dict[str, int]()
        with GenerationWriter(here / "validate", stage="validate", modality="image") as writer:
            for number, (payload, label) in enumerate(zip(labeled, labels, strict=True)):
                name = identify(images.content(images.decode(payload)))
                if name not in names:
                    names[name] = number
                    writer.keep(
                        Row(
                            name,
                            "train",
                            number % 5,
                            label,
                            label_source="human",
                            group=name,
                            origin=f"here/{number}",
                            payload=payload,
                        )
                    )
            for number, payload in enumerate(pool):
                name = identify(images.content(images.decode(payload)))
                writer.keep(Row(name, "pool", group=name, origin=f"there/{number}", payload=payload))
            writer.close(rows_in=len(names) + len(pool), classes=sorted(set(labels)))
        params = SynthesizeParams(mixup=0, translate=ROWS_PER_PARENT)
        synthesize(
            params,
            WorkspaceConfig(modality="image", seed=seed),
            collected=here / "validate",
            validated=here / "validate",
            output=here / "out",
        )
        augmented = read(here / "out", ["id", "parent_ids"])
        content: dict[str, Any] = dict(payloads([here / "out"], augmented["id"]))
        augmented_by_row: dict[int, list[bytes]] = {}
        for name, parents in zip(augmented["id"], augmented["parent_ids"], strict=True):
            augmented_by_row.setdefault(names[parents[0]], []).append(bytes(content[name]))
        return augmented_by_row


def peers(labeled: list[bytes], pool: list[Pixels], config: WorkspaceConfig) -> dict[str, dict[int, list[bytes]]]:
    """Return the augmented rows of each peer, by the number of the labeled row."""
    usual = maker_of(steps_of(None, config, {}), config, Resources({}, Context()))

    def fourier(pixels: Pixels, look: Pixels, rng: np.random.Generator) -> Pixels:
        return fourier_domain_adaptation(pixels, look, float(rng.uniform(0, 0.1)))

    def histogram(pixels: Pixels, look: Pixels, rng: np.random.Generator) -> Pixels:
        return apply_histogram(pixels, look, float(rng.uniform(0.5, 1)))

    augmented_by_peer: dict[str, dict[int, list[bytes]]] = {
        "usual policy": {},
        "albumentations, Fourier": {},
        "albumentations, histogram": {},
    }
    for number, payload in enumerate(labeled):
        pixels = images.decode(payload)
        for child in range(ROWS_PER_PARENT):
            augmented = usual(payload, derived_seed(config.seed, number, child)).payload
            assert isinstance(augmented, bytes)  # noqa: S101  (a row of images)
            augmented_by_peer["usual policy"].setdefault(number, []).append(augmented)
            for name, method in (("albumentations, Fourier", fourier), ("albumentations, histogram", histogram)):
                rng = np.random.default_rng(derived_seed(config.seed, name, number, child))
                look = pool[int(rng.integers(len(pool)))]
                look = cv2.resize(look, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_AREA)
                augmented_by_peer[name].setdefault(number, []).append(images.encode(method(pixels, look, rng)))
    return augmented_by_peer


def one_seed(
    name: str, labels_per_class: int, camera: str, seed: int, data: Path, encoder: str | None
) -> list[dict[str, Any]]:
    """Return the accuracy of every method on rows of both sources, by learner."""
    _, image_arrays, labels, test = rows_of(name, data)
    classes, rng = sorted(set(labels)), np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(~test))
    train = np.concatenate([order[labels[order] == label][:labels_per_class] for label in classes])
    pool = rng.permutation(np.setdiff1d(order, train))[:POOL_ROWS]
    test_rows = rng.permutation(np.flatnonzero(test))[:TEST_ROWS]
    translated = {
        int(row): CAMERAS[camera](images.decode(image_arrays[row]), np.random.default_rng([seed, int(row)]))
        for row in [*pool, *test_rows]
    }
    labeled, truth = [image_arrays[row] for row in train], np.searchsorted(classes, labels[test_rows])
    config = WorkspaceConfig(modality="image", seed=seed)
    maker = make_features(
        EncoderHandle(EncoderParams(model=encoder), config.modality, Path.cwd()) if encoder else None, None, config
    )
    maker.fit_transform(labeled)
    evaluation_inputs = {
        "the other source": maker.transform([images.encode(translated[int(row)]) for row in test_rows]),
        "its own source": maker.transform([image_arrays[row] for row in test_rows]),
    }
    pool_images = [translated[int(row)] for row in pool]
    augmented_by_method: dict[str, dict[int, list[bytes]]] = {"none": {}}
    augmented_by_method["translate"] = translated_rows(
        labeled, labels[train].tolist(), [images.encode(pixels) for pixels in pool_images], seed
    )
    augmented_by_method |= peers(labeled, pool_images, config)
    results: list[dict[str, Any]] = []
    for method, augmented_of_row in augmented_by_method.items():
        augmented = [
            (number, payload) for number, payloads_of_row in augmented_of_row.items() for payload in payloads_of_row
        ]
        inputs = maker.transform([*labeled, *(payload for _, payload in augmented)])
        number = np.searchsorted(classes, labels[train])
        targets = np.eye(len(classes))[
            np.concatenate([number, number[[row_number for row_number, _ in augmented]]]).astype(int)
        ]
        weights = np.concatenate([np.ones(len(labeled)), np.full(len(augmented), WEIGHT)])
        for learner in ["logistic_regression"] if encoder else ["logistic_regression", "network"]:
            model = make_learner(learner, FitContext(len(classes), seed, STEPS))
            model.fit(inputs, targets, weights)
            for where, rows in evaluation_inputs.items():
                right = float((model.logits(rows).argmax(axis=1) == truth).mean())
                results.append({"learner": learner, "where": where, "way": method, "seed": seed, "right": right})
    print(
        name,
        labels_per_class,
        camera,
        seed,
        {(result["learner"][:3], result["where"][:3], result["way"]): round(result["right"], 3) for result in results},
        flush=True,
    )
    return results


def summarize(setting: str, results: list[dict[str, Any]], command: str) -> list[Measurement]:
    """Return means over seeds, and paired differences from `none` with Student's t intervals."""
    table = []
    for (learner, where), group_rows in pd.DataFrame(results).groupby(["learner", "where"], sort=False):
        wide = group_rows.pivot_table(index="seed", columns="way", values="right", sort=False)
        for method in wide.columns:
            values = wide[method] if method == "none" else wide[method] - wide["none"]
            half_width = float(t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values)))
            mean = float(values.mean())
            row_setting = f"{setting}, {learner}, {where}"
            table.append(
                Measurement(
                    row_setting,
                    str(method),
                    "accuracy" if method == "none" else "gain",
                    mean,
                    mean - half_width,
                    mean + half_width,
                    "share",
                    len(values),
                    command,
                )
            )
    return table


def main() -> None:
    """Run all settings over the seeds and write results/translating.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", help="encoder of images, for the settings with an encoder; default: none")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=20, help="labels per class")
    args = parser.parse_args()
    backbone = " --backbone BACKBONE" if args.backbone else ""
    command = (
        f"PYTHONPATH=. python benchmarks/translating.py --data DATA{backbone} --seeds {args.seeds} "
        f"--labels {args.labels}"
    )
    table: list[Measurement] = []
    with single_threaded():
        for camera in CAMERAS:
            for encoder in [None, *([args.backbone] if args.backbone else [])]:
                results = [
                    result
                    for seed in range(args.seeds)
                    for result in one_seed("trashnet", args.labels, camera, seed, args.data, encoder)
                ]
                table += summarize(
                    f"trashnet, {args.labels} a class, {camera}{', encoder' if encoder else ''}", results, command
                )
    write("translating", table)


if __name__ == "__main__":
    main()
