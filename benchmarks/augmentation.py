"""What augmentation is worth on rows that nobody chose it by: test accuracy without children, with the usual policy, with `auto`, and with the peers'.

PYTHONPATH=. python benchmarks/augmentation.py --data ../shared/data
The same parents, features and learner each time; only the children differ. Peers: TrivialAugment (Müller and Hutter 2021) and RandAugment (Cubuk et al. 2020,
two operations at magnitude 9 of 30), written with albumentations' operations, and albumentations' own usual recipe; of texts nlpaug, where it is installed.
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
from record import Found, write
from sklearn.datasets import load_digits

from seedling.augment.catalog import CannotChange
from seedling.augment.makers import Resources, maker_of, steps_of
from seedling.augment.screening import screen
from seedling.augment.sentences import Context
from seedling.augment.teaching import LabeledRows
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

WEIGHT, CHILDREN, STEPS = 0.5, 2, 240
IMAGE_PEERS = ("usual recipe of albumentations", "TrivialAugment", "RandAugment")


def rows_of(name: str, data: Path | None) -> tuple[str, list[Any], np.ndarray, np.ndarray]:
    """Modality, payloads, labels, and whether a row is of the test split (digits: drawn by its number)."""
    if name == "digits":
        image_arrays, labels = load_digits(return_X_y=True)
        gray = np.rint(image_arrays.reshape(-1, 8, 8) * 255 / 16).astype(np.uint8)
        test = np.random.default_rng(99).random(len(labels)) < 0.5
        return "image", [images.encode(cv2.merge([one] * 3)) for one in gray], labels.astype(str), test
    if data is None:
        raise SystemExit(f"{name} needs --data")
    table = pd.read_parquet(data / name / "data.parquet")
    table = table[table["split"].isin(["train", "test"])]
    column = "image" if "image" in table.columns else "text"
    return column, table[column].tolist(), table["label"].astype(str).to_numpy(), (table["split"] == "test").to_numpy()


def parents_of(payloads: list[Any], labels: np.ndarray, many: int, seed: int, maker: FeatureMaker) -> LabeledRows:
    """So many rows a class, drawn by the seed, in five folds."""
    rng = np.random.default_rng(seed)
    names = sorted(set(labels))
    rows = np.concatenate([rng.permutation(np.flatnonzero(labels == name))[:many] for name in names])
    drawn = [payloads[row] for row in rows]
    number = np.searchsorted(names, labels[rows])
    fold = np.concatenate(
        [rng.permutation(len(mine)) % 5 for mine in (np.flatnonzero(number == one) for one in range(len(names)))]
    )
    ids = [str(row) for row in rows]
    return LabeledRows(
        ids, drawn, number, fold, np.array(ids), np.ones(len(ids)), len(names), maker, maker.fit_transform(drawn)
    )


def peers(modality: str) -> dict[str, Callable[[Any, int], Any]]:
    """Name → (payload, seed) → child."""
    if modality == "text":
        try:
            import nlpaug.augmenter.char as char
            import nlpaug.augmenter.word as word
        except ImportError:
            return {}
        ways = [word.RandomWordAug(action="swap"), word.RandomWordAug(action="delete"), char.KeyboardAug()]

        def by_nlpaug(text: str, seed: int) -> str:
            made = ways[seed % 3].augment(text)
            return str(made[0] if isinstance(made, list) else made)

        return {"nlpaug": by_nlpaug}
    level = 0.3  # 9 of 30

    def menu(s: float) -> list[A.BasicTransform]:
        return [
        A.NoOp(p=1), A.AutoContrast(p=1), A.Equalize(p=1), A.Rotate((-135 * s, 135 * s), p=1), A.Solarize((1 - s, 1 - s), p=1),
        A.Affine(shear={"x": (-57 * s, 57 * s), "y": 0}, p=1), A.Affine(shear={"x": 0, "y": (-57 * s, 57 * s)}, p=1),
        A.Affine(translate_percent={"x": (-s / 2, s / 2), "y": 0}, p=1), A.Affine(translate_percent={"x": 0, "y": (-s / 2, s / 2)}, p=1),
        A.ColorJitter(brightness=0, contrast=0, saturation=(1 - 0.9 * s, 1 + 0.9 * s), hue=0, p=1), A.Posterize(num_bits=min(7, max(2, round(8 - 6 * s))), p=1),
        A.RandomBrightnessContrast(0.9 * s, 0, p=1), A.RandomBrightnessContrast(0, 0.9 * s, p=1), A.Sharpen((0.9 * s, 0.9 * s), p=1),
        ]  # fmt: skip

    usual = [
        A.HorizontalFlip(p=0.5),
        A.Affine(translate_percent=0.0625, scale=(0.9, 1.1), rotate=(-45, 45), p=0.5),
        A.RandomBrightnessContrast(p=0.2),
    ]

    def through(pixels: Any, seed: int, transforms: Sequence[A.BasicTransform]) -> Any:
        for place, one in enumerate(transforms):
            one.set_random_seed(derived_seed(seed, place) % 2**32)
            pixels = one(image=pixels)["image"]
        return pixels

    def of_bytes(change: Callable[[Any, int], Any]) -> Callable[[bytes, int], bytes]:
        return lambda payload, seed: images.encode(change(images.decode(payload), seed))

    def trivial(pixels: Any, seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return through(pixels, seed, [menu(float(rng.integers(31)) / 30)[int(rng.integers(14))]])

    def rand(pixels: Any, seed: int) -> Any:
        rng, few = np.random.default_rng(seed), menu(level)
        return through(pixels, seed, [few[int(one)] for one in rng.integers(14, size=2)])

    own = (lambda pixels, seed: through(pixels, seed, usual), trivial, rand)
    return {name: of_bytes(one) for name, one in zip(IMAGE_PEERS, own, strict=True)}


def accuracy(
    parents: LabeledRows,
    make: Callable[[Any, int], Any] | None,
    many: int,
    learner: str,
    asked: Any,
    truth: np.ndarray,
    seed: int,
) -> float:
    """Of a learner of these parents and so many children each."""
    made, of = [], []
    for row, payload in enumerate(parents.payloads):
        for number in range(many if make else 0):
            try:
                made.append(make(payload, derived_seed(seed, "child", row, number)))  # type: ignore[misc]
            except CannotChange:
                continue
            of.append(row)
    payloads = [*parents.payloads, *made]
    labels = np.concatenate([parents.labels, parents.labels[np.array(of, dtype=int)]])
    weights = np.concatenate([np.ones(len(parents.ids)), np.full(len(of), WEIGHT)])
    inputs = parents.features.transform(payloads)
    model = make_learner(learner, FitContext(parents.classes, seed, STEPS))
    model.fit(inputs, np.eye(parents.classes)[labels], weights)
    return float((model.logits(asked).argmax(axis=1) == truth).mean())


def one_seed(
    name: str, many: int, seed: int, learners: Sequence[str], data: Path | None, encoder: str | None, at_most: int
) -> list[dict[str, Any]]:
    """Every policy's test accuracy with one draw of the parents."""
    modality, payloads, labels, test = rows_of(name, data)
    facts = WorkspaceConfig(modality=modality, seed=seed)  # type: ignore[arg-type]
    maker = make_features(
        EncoderHandle(EncoderParams(model=encoder), facts.modality, Path.cwd()) if encoder else None, None, facts
    )
    train = np.flatnonzero(~test)
    parents = parents_of([payloads[row] for row in train], labels[train], many, seed, maker)
    names = sorted(set(labels[train]))
    held = np.flatnonzero(test & np.isin(labels, names))[:: max(1, int(test.sum()) // at_most)]
    asked, truth = maker.transform([payloads[row] for row in held]), np.searchsorted(names, labels[held])
    context = Context()
    if modality == "text":
        words = sorted({word for text in parents.payloads for word in text.lower().split() if word.isalpha()})
        near = read_thesaurus(data / "wordnet_synonyms" / "data.parquet") if data else {}
        context = Context(near, words)
    resources = Resources({}, context)
    began = time.perf_counter()
    found = screen(parents, WEIGHT, facts, resources, lambda *_: None)
    seconds = time.perf_counter() - began

    def maker_for(policy: Any) -> Callable[[Any, int], Any]:
        make = maker_of(steps_of(policy, facts, {}), facts, resources)
        return lambda payload, draw: make(payload, draw)[0]

    ways: dict[str, tuple[Callable[[Any, int], Any] | None, int]] = {
        "none": (None, 0),
        "usual": (maker_for(None), CHILDREN),
        "auto": (maker_for(found.policy) if found.policy else None, found.per_row),
        **{peer: (make, CHILDREN) for peer, make in peers(modality).items()},
    }
    result = [
        {"learner": learner, "way": way, "accuracy": accuracy(parents, make, count, learner, asked, truth, seed)}
        for learner in learners
        for way, (make, count) in ways.items()
    ]
    print(
        name,
        many,
        seed,
        f"screened in {seconds:.0f} s",
        found.policy,
        found.per_row,
        {(one["learner"][:7], one["way"]): round(one["accuracy"], 3) for one in result},
        flush=True,
    )
    return [*result, {"learner": "", "way": "auto", "seconds": seconds}]


def main() -> None:
    """Runs all settings over the seeds."""
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
    table: list[Found] = []
    for setting in args.settings:
        name, _, many = setting.partition(":")
        of_text = name not in {"digits", "trashnet"}
        learners = [one for one in args.learners if not (one == "network" and (of_text or args.encoder))]

        def of_seed(seed: int) -> list[dict[str, Any]]:
            return one_seed(name, int(many), seed, learners, args.data, args.encoder, args.test_rows)  # noqa: B023

        if args.encoder:
            from transformers import AutoModel  # noqa: F401  (two threads at once cannot import it)
        with single_threaded():
            every = [one for found in in_threads(of_seed, range(args.seeds)) for one in found]
        shown = f"{name}, {many} a class" + (", encoder" if args.encoder else "")
        table += summed(shown, every, args.seeds, command)
        write(args.name, table)


def summed(setting: str, every: list[dict[str, Any]], seeds: int, command: str) -> list[Found]:
    """Means over seeds, and the paired differences from no children with Student's intervals."""
    from scipy.stats import t

    frame = pd.DataFrame([one for one in every if "accuracy" in one])
    found = []
    for learner, mine in frame.groupby("learner", sort=False):
        wide = pd.DataFrame({way: some["accuracy"].to_numpy() for way, some in mine.groupby("way", sort=False)})
        for way in wide.columns:
            for metric, values in (("accuracy", wide[way]), ("gain", wide[way] - wide["none"])):
                if metric == "gain" and way == "none":
                    continue
                reach = float(t.ppf(0.975, seeds - 1) * values.std() / np.sqrt(seeds)) if seeds > 1 else 0.0
                mean = float(values.mean())
                found.append(
                    Found(
                        f"{setting}, {learner}",
                        way,
                        metric,
                        mean,
                        mean - reach,
                        mean + reach,
                        "share",
                        seeds,
                        command,
                    )
                )
    seconds = [one["seconds"] for one in every if "seconds" in one]
    found.append(
        Found(
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
    return found


if __name__ == "__main__":
    main()
