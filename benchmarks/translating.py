"""What images translated into another source are worth there: accuracy on rows of a source of which no row is labeled, and on rows of the labeled one.

PYTHONPATH=. python benchmarks/translating.py --data ../shared/data
The labeled rows are as they are; the other source's are the same set's images, as another camera would have taken them: in the dim, warm light of one side,
unsharp and with noise, or in haze, pale and bluish; each a little otherwise. The pool holds 200 of them without labels, whose look the synthesize stage takes,
twice a row. Peers, with as many children of the same pool: albumentations' Fourier domain adaptation and histogram matching with their own ranges; and the usual policy of augmentation.
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
from record import Found, write
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

CHILDREN, POOL, ASKED = 2, 200, 600


def dim(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """A warm lamp from one side, a lens that is not sharp, and noise."""
    height, width = pixels.shape[:2]
    light = 255 * (pixels / 255.0) ** rng.uniform(1.2, 1.6) * np.array([0.8, 0.62, 0.42]) * rng.normal(1, 0.06, 3)
    down, across = np.mgrid[:height, :width]
    angle = rng.uniform(0, 2 * np.pi)
    slope = np.cos(angle) * (across / width - 0.5) + np.sin(angle) * (down / height - 0.5)
    soft = cv2.GaussianBlur(light * (1 + 0.7 * slope)[..., None], (0, 0), 0.004 * min(height, width) + 0.3)
    return np.clip(np.rint(soft + rng.normal(0, 7, soft.shape)), 0, 255).astype(np.uint8)


def haze(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    """Pale, bright and bluish."""
    pale = pixels * rng.uniform(0.35, 0.5) + np.array([105, 118, 132]) * rng.normal(1, 0.05)
    soft = cv2.GaussianBlur(pale, (0, 0), 0.006 * min(pixels.shape[:2]) + 0.3)
    return np.clip(np.rint(soft + rng.normal(0, 3, soft.shape)), 0, 255).astype(np.uint8)


PLACES: dict[str, Callable[[Pixels, np.random.Generator], Pixels]] = {"dim": dim, "haze": haze}


def children_of_stage(labeled: list[bytes], labels: list[str], pool: list[bytes], seed: int) -> dict[int, list[bytes]]:
    """What synthesize makes, by the labeled row's number."""
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
        params = SynthesizeParams(mixup=0, translate=CHILDREN)
        synthesize(
            params,
            WorkspaceConfig(modality="image", seed=seed),
            collected=here / "validate",
            validated=here / "validate",
            output=here / "out",
        )
        made = read(here / "out", ["id", "parent_ids"])
        content: dict[str, Any] = dict(payloads([here / "out"], made["id"]))
        found: dict[int, list[bytes]] = {}
        for name, parents in zip(made["id"], made["parent_ids"], strict=True):
            found.setdefault(names[parents[0]], []).append(bytes(content[name]))
        return found


def peers(labeled: list[bytes], pool: list[Pixels], facts: WorkspaceConfig) -> dict[str, dict[int, list[bytes]]]:
    """Each peer's children by the labeled row's number."""
    usual = maker_of(steps_of(None, facts, {}), facts, Resources({}, Context()))

    def fourier(pixels: Pixels, look: Pixels, rng: np.random.Generator) -> Pixels:
        return fourier_domain_adaptation(pixels, look, float(rng.uniform(0, 0.1)))

    def histogram(pixels: Pixels, look: Pixels, rng: np.random.Generator) -> Pixels:
        return apply_histogram(pixels, look, float(rng.uniform(0.5, 1)))

    found: dict[str, dict[int, list[bytes]]] = {
        "usual policy": {},
        "albumentations, Fourier": {},
        "albumentations, histogram": {},
    }
    for number, payload in enumerate(labeled):
        pixels = images.decode(payload)
        for child in range(CHILDREN):
            found["usual policy"].setdefault(number, []).append(
                usual(payload, derived_seed(facts.seed, number, child)).payload
            )
            for name, way in (("albumentations, Fourier", fourier), ("albumentations, histogram", histogram)):
                rng = np.random.default_rng(derived_seed(facts.seed, name, number, child))
                look = pool[int(rng.integers(len(pool)))]
                look = cv2.resize(look, (pixels.shape[1], pixels.shape[0]), interpolation=cv2.INTER_AREA)
                found[name].setdefault(number, []).append(images.encode(way(pixels, look, rng)))
    return found


def one_seed(name: str, many: int, place: str, seed: int, data: Path, encoder: str | None) -> list[dict[str, Any]]:
    """Every way's accuracy on rows of both sources, by learner."""
    _, image_arrays, labels, test = rows_of(name, data)
    classes, rng = sorted(set(labels)), np.random.default_rng(seed)
    order = rng.permutation(np.flatnonzero(~test))
    train = np.concatenate([order[labels[order] == one][:many] for one in classes])
    pool = rng.permutation(np.setdiff1d(order, train))[:POOL]
    held = rng.permutation(np.flatnonzero(test))[:ASKED]
    there = {
        int(row): PLACES[place](images.decode(image_arrays[row]), np.random.default_rng([seed, int(row)]))
        for row in [*pool, *held]
    }
    labeled, truth = [image_arrays[row] for row in train], np.searchsorted(classes, labels[held])
    facts = WorkspaceConfig(modality="image", seed=seed)
    maker = make_features(
        EncoderHandle(EncoderParams(model=encoder), facts.modality, Path.cwd()) if encoder else None, None, facts
    )
    maker.fit_transform(labeled)
    asked = {
        "the other source": maker.transform([images.encode(there[int(row)]) for row in held]),
        "its own source": maker.transform([image_arrays[row] for row in held]),
    }
    looks = [there[int(row)] for row in pool]
    ways: dict[str, dict[int, list[bytes]]] = {"none": {}}
    ways["translate"] = children_of_stage(labeled, labels[train].tolist(), [images.encode(one) for one in looks], seed)
    ways |= peers(labeled, looks, facts)
    found = []
    for way, children in ways.items():
        made = [(number, one) for number, mine in children.items() for one in mine]
        inputs = maker.transform([*labeled, *(one for _, one in made)])
        number = np.searchsorted(classes, labels[train])
        targets = np.eye(len(classes))[np.concatenate([number, number[[place for place, _ in made]]]).astype(int)]
        weights = np.concatenate([np.ones(len(labeled)), np.full(len(made), WEIGHT)])
        for learner in ["logistic_regression"] if encoder else ["logistic_regression", "network"]:
            model = make_learner(learner, FitContext(len(classes), seed, STEPS))
            model.fit(inputs, targets, weights)
            for where, rows in asked.items():
                right = float((model.logits(rows).argmax(axis=1) == truth).mean())
                found.append({"learner": learner, "where": where, "way": way, "seed": seed, "right": right})
    print(
        name,
        many,
        place,
        seed,
        {(one["learner"][:3], one["where"][:3], one["way"]): round(one["right"], 3) for one in found},
        flush=True,
    )
    return found


def summed(setting: str, every: list[dict[str, Any]], command: str) -> list[Found]:
    """Means over seeds; of what is not `none` the paired difference, with Student's interval."""
    table = []
    for (learner, where), mine in pd.DataFrame(every).groupby(["learner", "where"], sort=False):
        wide = mine.pivot_table(index="seed", columns="way", values="right", sort=False)
        for way in wide.columns:
            values = wide[way] if way == "none" else wide[way] - wide["none"]
            reach = float(t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values)))
            mean = float(values.mean())
            shown = f"{setting}, {learner}, {where}"
            table.append(
                Found(
                    shown,
                    str(way),
                    "accuracy" if way == "none" else "gain",
                    mean,
                    mean - reach,
                    mean + reach,
                    "share",
                    len(values),
                    command,
                )
            )
    return table


def main() -> None:
    """Runs all settings over the seeds and writes results/translating.csv."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", help="of the rows with an encoder; left out: none")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--labels", type=int, default=20, help="a class")
    args = parser.parse_args()
    backbone = " --backbone BACKBONE" if args.backbone else ""
    command = f"PYTHONPATH=. python benchmarks/translating.py --data DATA{backbone} --seeds {args.seeds} --labels {args.labels}"
    table: list[Found] = []
    with single_threaded():
        for place in PLACES:
            for encoder in [None, *([args.backbone] if args.backbone else [])]:
                every = [
                    one
                    for seed in range(args.seeds)
                    for one in one_seed("trashnet", args.labels, place, seed, args.data, encoder)
                ]
                table += summed(
                    f"trashnet, {args.labels} a class, {place}{', encoder' if encoder else ''}", every, command
                )
    write("translating", table)


if __name__ == "__main__":
    main()
