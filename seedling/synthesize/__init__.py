"""synthesize: new training rows. Mixtures with soft labels, pasted objects, generated and translated images; templates with slots for texts.

python -m seedling.runner synthesize
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from seedling.config.params import SynthesizeParams, Template, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, recipe_json
from seedling.errors import InputError
from seedling.media import images, texts
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress, counted, silent
from seedling.stats.randomness import generator
from seedling.synthesize.generating import generated
from seedling.synthesize.mixing import LEAST_CUT, Pair, cut_in, draw_pairs, mix, mixed_label
from seedling.synthesize.pasting import cut_rows
from seedling.synthesize.templates import possible, sample
from seedling.synthesize.translating import translated

BY_EFFORT = {"quick": 0.5, "normal": 1.0, "thorough": 2.0}
OF_IMAGES = ("mixup", "cutmix", "cut_and_paste", "negatives", "generate", "translate")  # params that say how many
ENOUGH = 4000  # mixtures in all where params leave their number open
OF_PARENT = ("fold", "label", "weight", "group")  # columns that a mixture takes from the rows it is made of
MIXTURES_A_PIECE, MEGABYTES_A_PIECE = 128, 8


def synthesize(
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    data: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Writes `generations/synthesize`. data: where files of slot values lie. Raises InputError for templates that cannot be filled or name no class."""
    rows, classes = read(validated), read_manifest(validated)["classes"]
    notes: dict[str, Any] = {}
    if facts.modality == "image" and params.templates:
        raise InputError("params.yaml: synthesize.templates make texts, but this is an image workspace: remove them.")
    of_images = [name for name in OF_IMAGES if getattr(params, name)]
    if facts.modality == "text" and of_images:
        raise InputError(
            f"params.yaml: synthesize.{of_images[0]} makes images, but this is a text workspace: remove it."
        )
    with GenerationWriter(output, stage="synthesize", modality=facts.modality) as writer:
        made: Iterator[tuple[Row, str | None]]
        if facts.modality == "image":
            by_id = rows.set_index("id")
            parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
            made = chain(
                _mixtures(parents, classes, params, facts, collected, progress),
                cut_rows(parents, classes, params, facts, collected, data, progress),
                generated(by_id, classes, params, facts, collected, progress),
                translated(by_id, params, facts, collected, progress),
            )
        else:
            of_class = _by_class(params, classes)
            notes = _said_of_templates(of_class, params, data)
            made = _sentences(rows, of_class, params, facts, data, progress)
        rows_in = 0
        seen: set[str] = set()
        for row, reason in made:
            rows_in += 1
            if reason or row.id in seen:
                writer.reject(row, reason or "exact_duplicate")
            else:
                writer.keep(row)
            seen.add(row.id)
        writer.close(rows_in=rows_in, classes=classes, **notes)


def _mixtures(
    parents: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    a_row = params.mixup
    if a_row is None:
        a_row = min(BY_EFFORT[facts.effort], ENOUGH / max(1, len(parents)))
    ids, folds, labels = list(parents.index), parents["fold"].fillna(-1).astype(int).tolist(), parents["label"].tolist()
    drawn: list[tuple[str, Pair]] = []
    for way, many, alpha in (("mixup", a_row, params.mixup_alpha), ("cutmix", params.cutmix, params.cutmix_alpha)):
        pairs = draw_pairs(ids, folds, many, alpha, facts.seed, way=way, labels=labels, partners=params.partners)
        drawn += [(way, pair) for pair in pairs]
    wanted = {one for _, pair in drawn for one in (pair.first, pair.second)}
    image_arrays: dict[str, Any] = dict(payloads([collected], wanted)) if drawn else {}
    known: dict[str, Image] = {
        one: (image, {name: parents.at[one, name] for name in OF_PARENT}) for one, image in image_arrays.items()
    }
    mixed = (Mixed(way, pair, known[pair.first], known[pair.second]) for way, pair in drawn)
    rows = chain.from_iterable(in_pieces(Mixtures(params.weight, tuple(classes), facts), _in_pieces(mixed)))
    for row in counted(rows, progress, "mix images", len(drawn)):
        yield row, None


Image = tuple[bytes, dict[str, Any]]  # encoded, and the columns `OF_PARENT`


class Mixed(NamedTuple):
    """A mixture to be made: how, of which rows, and their images."""

    way: str
    pair: Pair
    first: Image
    second: Image


def _in_pieces(mixed: Iterable[Mixed]) -> Iterator[list[Mixed]]:
    piece, held = list[Mixed](), 0
    for one in mixed:
        piece.append(one)
        held += len(one.first[0]) + len(one.second[0])
        if len(piece) == MIXTURES_A_PIECE or held > MEGABYTES_A_PIECE * 2**20:
            yield piece
            piece, held = [], 0
    if piece:
        yield piece


@dataclass(frozen=True)
class Mixtures:
    """Mixes images two by two; a piece of work that any process may do. weight: of each new row."""

    weight: float
    classes: tuple[str, ...]
    facts: WorkspaceConfig

    def __call__(self, mixed: Sequence[Mixed]) -> list[Row]:
        """A row for each."""
        return [self._mixture(*one) for one in mixed]

    def _mixture(self, way: str, pair: Pair, one: Image, other: Image) -> Row:
        (_, first), (_, second) = one, other
        decoded = [images.decode(encoded, self.facts.max_megapixels) for encoded, _ in (one, other)]
        share = pair.share
        if way == "mixup":
            pixels = mix(decoded[0], decoded[1], share)
        else:
            rng = generator(self.facts.seed, "cutmix place", pair.first, pair.second, pair.share)
            pixels, share, place = cut_in(decoded[0], decoded[1], min(share, 1 - LEAST_CUT), rng)
        recipe = recipe_json(way, share=round(share, 6), **({} if way == "mixup" else {"place": place}))
        return Row(
            id=identify(images.content(pixels), [pair.first, pair.second], recipe),
            split="train",
            fold=None if pd.isna(first["fold"]) else int(first["fold"]),
            label=(first if share >= 0.5 else second)["label"],
            label_probs=mixed_label(first["label"], second["label"], share, self.classes),
            label_source=way,
            weight=self.weight * min(float(first["weight"]), float(second["weight"])),
            confidence=max(share, 1 - share),
            parent_ids=[pair.first, pair.second],
            recipe=recipe,
            group=first["group"],
            payload=images.encode(pixels),
        )


def _by_class(params: SynthesizeParams, classes: Sequence[str]) -> dict[str, list[Template]]:
    """Each class's templates; those without a label are every class's. Raises InputError for a class that is none."""
    of_class: dict[str, list[Template]] = {}
    names = [template.label for template in params.templates if template.label is not None]
    names += params.template_rows if isinstance(params.template_rows, dict) else []
    if unknown := [name for name in [*names, *params.label_names] if name not in classes]:
        raise InputError(
            f"params.yaml: synthesize: '{unknown[0]}' is no class: it must be one of {', '.join(classes)}."
        )
    for template in params.templates:
        for label in [template.label] if template.label is not None else classes:
            of_class.setdefault(label, []).append(template)
    return of_class


def _spoken(params: SynthesizeParams, label: str) -> str:
    return params.label_names.get(label, label.replace("_", " "))


def _said_of_templates(
    of_class: dict[str, list[Template]], params: SynthesizeParams, data: Path | None
) -> dict[str, Any]:
    told = [
        {"class": label, "text": one.text, "possible": possible(one, data, _spoken(params, label))}
        for label, templates in sorted(of_class.items())
        for one in templates
    ]
    if silent := [one["text"] for one in told if one["possible"] == 0]:
        raise InputError(f"params.yaml: synthesize.templates: '{silent[0]}': its `never` forbids every sentence.")
    return {"templates": told} if told else {}


def _sentences(
    rows: pd.DataFrame,
    of_class: dict[str, list[Template]],
    params: SynthesizeParams,
    facts: WorkspaceConfig,
    data: Path | None,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    known = {texts.normalized(text) for text in rows["text"]}  # a copy of a collected row would leak through the folds
    said: dict[str, str] = {}
    for label in counted(sorted(of_class), progress, "fill templates", len(of_class)):
        rng = generator(facts.seed, "templates", label)
        many = params.template_rows if isinstance(params.template_rows, int) else params.template_rows.get(label, 0)
        for template, filled in sample(of_class[label], many, rng, data, _spoken(params, label)):
            text, recipe = texts.clean(filled), recipe_json("template", text=template.text)
            row = Row(
                id=identify(texts.content(text), recipe=recipe),
                split="train",
                label=label,
                label_source="template",
                weight=params.weight,
                recipe=recipe,
                group=identify(template.text.encode()),
                payload=text,
            )
            yield row, _fault(texts.normalized(text), known, said, label)
            said.setdefault(texts.normalized(text), label)


def _fault(text: str, known: set[str], said: dict[str, str], label: str) -> str | None:
    if not text:
        return "empty"
    if text in known or said.get(text) == label:
        return "exact_duplicate"
    return "said_of_another_class" if text in said else None
