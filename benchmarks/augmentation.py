"""Measure test accuracy without augmented rows, with the default policy, with `auto` and with the peers' policies.

    PYTHONPATH=. python benchmarks/augmentation.py --data ../shared/data

The parent rows, features and learner are the same each time; only the augmented rows differ. No choice uses the test
rows. Peers: TrivialAugment (Müller and Hutter 2021), RandAugment (Cubuk et al. 2020, two operations at magnitude 9 of
30), both written with albumentations' operations, albumentations' own usual recipe, and nlpaug for texts if it is
installed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import albumentations as A
import cv2
import numpy as np
import pandas as pd
from record import Measurement, write
from sklearn.datasets import load_digits

from seedling.augment.catalog import CannotChange
from seedling.augment.cross_fitting import LabeledRows
from seedling.augment.makers import Resources, maker_of, steps_of
from seedling.augment.screening import screen
from seedling.augment.sentences import Context
from seedling.augment.thesaurus import read_thesaurus
from seedling.config.params import EncoderParams, WorkspaceConfig
from seedling.features.classical import FeatureMaker
from seedling.features.encoder_handle import EncoderHandle
from seedling.media import images
from seedling.models.model import single_threaded
from seedling.models.saving import make_features, make_learner
from seedling.models.training import FitContext
from seedling.parallel.executor import in_threads
from seedling.stats.randomness import derived_seed

WEIGHT, ROWS_PER_PARENT, STEPS = 0.5, 2, 240
IMAGE_PEERS = ("usual recipe of albumentations", "TrivialAugment", "RandAugment")


def rows_of(name: str, data: Path | None) -> tuple[str, list[Any], np.ndarray, np.ndarray]:
    """Return modality, payloads, labels and whether a row is in the test split (a random half of digits)."""
    if name == "digits":
        image_arrays, labels = load_digits(return_X_y=True)
        gray = np.rint(image_arrays.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
        test = np.random.default_rng(99).random(len(labels)) < 0.5
        return "image", [images.encode(cv2.merge([pixels] * 3)) for pixels in gray], labels.astype(str), test
    if data is None:
        raise SystemExit(f"{name} needs --data")
    table = pd.read_parquet(data / name / "data.parquet")
    table = table[table["split"].isin(["train", "test"])]
    column = "image" if "image" in table.columns else "text"
    return column, table[column].tolist(), table["label"].astype(str).to_numpy(), (table["split"] == "test").to_numpy()


def parents_of(
    payloads: list[Any], labels: np.ndarray, labels_per_class: int, seed: int, maker: FeatureMaker
) -> LabeledRows:
    """Draw `labels_per_class` rows per class with the seed, in five folds."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == name))[:labels_per_class] for name in names])
    drawn = [payloads[row] for row in rows]
    number = np.searchsorted(names, labels[rows])
    fold = np.concatenate(
        [
            rng.permutation(len(class_rows)) % 5
            for class_rows in (np.flatnonzero(number == class_index) for class_index in range(len(names)))
        ]
    )
    ids = [str(row) for row in rows]
    return LabeledRows(
        ids, drawn, number, fold, np.array(ids), np.ones(len(ids)), len(names), maker, maker.fit_transform(drawn)
    )


def peers(modality: str) -> dict[str, Callable[[Any, int], Any]]:
    """Return the peers: name → (payload, seed) → augmented payload."""
    if modality == "text":
        try:
            import nlpaug.augmenter.char as char
            import nlpaug.augmenter.word as word
        except ImportError:
            return {}
        policies = [word.RandomWordAug(action="swap"), word.RandomWordAug(action="delete"), char.KeyboardAug()]

        def by_nlpaug(text: str, seed: int) -> str:
            augmented = policies[seed % 3].augment(text)
            return str(augmented[0] if isinstance(augmented, list) else augmented)

        return {"nlpaug": by_nlpaug}
    level = 0.3  # 9 of 30

    def menu(s: float) -> list[A.BasicTransform]:
        return [
            A.NoOp(p=1),
            A.AutoContrast(p=1),
            A.Equalize(p=1),
            A.Rotate((-135 * s, 135 * s), p=1),
            A.Solarize((1 - s, 1 - s), p=1),
            A.Affine(shear={"x": (-57 * s, 57 * s), "y": 0}, p=1),
            A.Affine(shear={"x": 0, "y": (-57 * s, 57 * s)}, p=1),
            A.Affine(translate_percent={"x": (-s / 2, s / 2), "y": 0}, p=1),
            A.Affine(translate_percent={"x": 0, "y": (-s / 2, s / 2)}, p=1),
            A.ColorJitter(brightness=0, contrast=0, saturation=(1 - 0.9 * s, 1 + 0.9 * s), hue=0, p=1),
            A.Posterize(num_bits=min(7, max(2, round(8 - 6 * s))), p=1),
            A.RandomBrightnessContrast(0.9 * s, 0, p=1),
            A.RandomBrightnessContrast(0, 0.9 * s, p=1),
            A.Sharpen((0.9 * s, 0.9 * s), p=1),
        ]

    usual = [
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=0.0625, scale=(0.9, 1.1), rotate=(-45, 45), p=0.5),
        A.RandomBrightnessContrast(p=0.2),
    ]

    def through(pixels: Any, seed: int, transforms: Sequence[A.BasicTransform]) -> Any:
        for index, transform in enumerate(transforms):
            transform.set_random_seed(derived_seed(seed, index) % 2**32)
            pixels = transform(image=pixels)["image"]
        return pixels

    def of_bytes(change: Callable[[Any, int], Any]) -> Callable[[bytes, int], bytes]:
        return lambda payload, seed: images.encode(change(images.decode(payload), seed))

    def trivial(pixels: Any, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return through(pixels, seed, [menu(float(rng.integers(31)) / 30)[int(rng.integers(14))]])

    def rand(pixels: Any, seed: int) -> Any:
        rng, transforms = np.random.default_rng(seed), menu(level)
        return through(pixels, seed, [transforms[int(index)] for index in rng.integers(14, size=2)])

    augmenters = (lambda pixels, seed: through(pixels, seed, usual), trivial, rand)
    return {name: of_bytes(augmenter) for name, augmenter in zip(IMAGE_PEERS, augmenters, strict=True)}


def accuracy(
    parents: LabeledRows,
    make: Callable[[Any, int], Any] | None,
    augmentations_per_row: int,
    learner: str,
    test_inputs: Any,
    truth: np.ndarray,
    seed: int,
) -> float:
    """Return the test accuracy of a learner trained on these parent rows and their augmented rows."""
    augmented, of = [], []
    for row, payload in enumerate(parents.payloads):
        for number in range(augmentations_per_row if make else 0):
            try:
                augmented.append(make(payload, derived_seed(seed, "child", row, number)))  # type: ignore[misc]
            except CannotChange:
                continue
            of.append(row)
    payloads = [*parents.payloads, *augmented]
    labels = np.concatenate([parents.labels, parents.labels[np.array(of, dtype=int)]])
    weights = np.concatenate([np.ones(len(parents.ids)), np.full(len(of), WEIGHT)])
    inputs = parents.features.transform(payloads)
    model = make_learner(learner, FitContext(parents.classes, seed, STEPS))
    model.fit(inputs, np.eye(parents.classes)[labels], weights)
    return float((model.logits(test_inputs).argmax(axis=1) == truth).mean())


def one_seed(
    name: str,
    labels_per_class: int,
    seed: int,
    learners: Sequence[str],
    data: Path | None,
    encoder: str | None,
    at_most: int,
) -> list[dict[str, Any]]:
    """Return the test accuracy of every policy on one draw of the parent rows."""
    modality, payloads, labels, test = rows_of(name, data)
    config = WorkspaceConfig(modality=modality, seed=seed)  # type: ignore[arg-type]
    maker = make_features(
        EncoderHandle(EncoderParams(model=encoder), config.modality, Path.cwd()) if encoder else None, None, config
    )
    train = np.flatnonzero(~test)
    parents = parents_of([payloads[row] for row in train], labels[train], labels_per_class, seed, maker)
    names = sorted(set(labels[train]))
    test_rows = np.flatnonzero(test & np.isin(labels, names))[:: max(1, int(test.sum()) // at_most)]
    test_inputs, truth = (
        maker.transform([payloads[row] for row in test_rows]),
        np.searchsorted(names, labels[test_rows]),
    )
    context = Context()
    if modality == "text":
        words = sorted({word for text in parents.payloads for word in text.lower().split() if word.isalpha()})
        near = read_thesaurus(data / "wordnet_synonyms" / "data.parquet") if data else {}
        context = Context(near, [*map(str, words)])
    resources = Resources({}, context)
    began = time.perf_counter()
    screening = screen(parents, WEIGHT, config, resources, lambda *_: None)
    seconds = time.perf_counter() - began

    def maker_for(policy: Any) -> Callable[[Any, int], Any]:
        make = maker_of(steps_of(policy, config, {}), config, resources)
        return lambda payload, draw: make(payload, draw)[0]

    policies: dict[str, tuple[Callable[[Any, int], Any] | None, int]] = {
        "none": (None, 0),
        "usual": (maker_for(None), ROWS_PER_PARENT),
        "auto": (maker_for(screening.policy) if screening.policy else None, screening.per_row),
        **{peer: (make, ROWS_PER_PARENT) for peer, make in peers(modality).items()},
    }
    result: list[dict[str, Any]] = [
        {
            "learner": learner,
            "way": policy_name,
            "accuracy": accuracy(parents, make, count, learner, test_inputs, truth, seed),
        }
        for learner in learners
        for policy_name, (make, count) in policies.items()
    ]
    print(
        name,
        labels_per_class,
        seed,
        f"screened in {seconds:.0f} s",
        screening.policy,
        screening.per_row,
        {(entry["learner"][:7], entry["way"]): round(entry["accuracy"], 3) for entry in result},
        flush=True,
    )
    return [*result, {"learner": "", "way": "auto", "seconds": seconds}]


def main() -> None:
    """Run all settings over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument(
        "--settings",
        nargs="+",
        default=["digits:5", "trashnet:10", "trashnet:50", "banking77_oos:5", "banking77_oos:10"],
    )
    parser.add_argument("--learners", nargs="+", default=["logistic_regression", "network"])
    parser.add_argument("--encoder")
    parser.add_argument("--test-rows", type=int, default=1_000)
    parser.add_argument("--name", default="augmentation")
    args = parser.parse_args()
    command = "PYTHONPATH=. python " + " ".join(["benchmarks/augmentation.py", *sys.argv[1:]])
    table: list[Measurement] = []
    for setting in args.settings:
        name, _, labels_per_class = setting.partition(":")
        of_text = name not in {"digits", "trashnet"}
        learners = [learner for learner in args.learners if not (learner == "network" and (of_text or args.encoder))]

        def of_seed(seed: int) -> list[dict[str, Any]]:
            return one_seed(name, int(labels_per_class), seed, learners, args.data, args.encoder, args.test_rows)  # noqa: B023

        if args.encoder:
            from transformers import AutoModel  # noqa: F401  (two threads at once cannot import it)
        with single_threaded():
            every = [result for results in in_threads(of_seed, range(args.seeds)) for result in results]
        label_of_setting = f"{name}, {labels_per_class} a class" + (", encoder" if args.encoder else "")
        table += summarize(label_of_setting, every, args.seeds, command)
        write(args.name, table)


def summarize(setting: str, results: list[dict[str, Any]], seeds: int, command: str) -> list[Measurement]:
    """Return means over seeds, and paired differences from no augmented rows with Student's t intervals."""
    from scipy.stats import t

    frame = pd.DataFrame([result for result in results if "accuracy" in result])
    measurements = []
    for learner, learner_rows in frame.groupby("learner", sort=False):
        wide = pd.DataFrame(
            {
                policy_name: policy_rows["accuracy"].to_numpy()
                for policy_name, policy_rows in learner_rows.groupby("way", sort=False)
            }
        )
        for policy_name in wide.columns:
            for metric, values in (("accuracy", wide[policy_name]), ("gain", wide[policy_name] - wide["none"])):
                if metric == "gain" and policy_name == "none":
                    continue
                half_width = float(t.ppf(0.975, seeds - 1) * values.std() / np.sqrt(seeds)) if seeds > 1 else 0.0
                mean = float(values.mean())
                measurements.append(
                    Measurement(
                        f"{setting}, {learner}",
                        policy_name,
                        metric,
                        mean,
                        mean - half_width,
                        mean + half_width,
                        "share",
                        seeds,
                        command,
                    )
                )
    seconds = [result["seconds"] for result in results if "seconds" in result]
    measurements.append(
        Measurement(
            setting,
            "auto",
            "screening",
            float(np.median(seconds)),
            min(seconds),
            max(seconds),
            "s",
            seeds,
            command,
        )
    )
    return measurements


if __name__ == "__main__":
    main()
