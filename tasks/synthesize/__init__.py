"""synthesize: new training rows. Mixup with soft labels for images, templates with slots for texts.

python -m tasks.synthesize
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd

from tasks import images, texts
from tasks.errors import InputError
from tasks.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, recipe_json
from tasks.params import Facts, SynthesizeParams, Template
from tasks.progress import Progress, counted, silent
from tasks.randomness import generator
from tasks.synthesize.mixup import draw_pairs, mix, mixed_label
from tasks.synthesize.templates import sample

BY_EFFORT = {"quick": 0.5, "normal": 1.0, "thorough": 2.0}
ENOUGH = 4000  # mixtures in all where params leave their number open


def synthesize(
    params: SynthesizeParams,
    facts: Facts,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    progress: Progress = silent,
) -> None:
    """Writes `generations/synthesize`. Raises InputError for templates that cannot be filled or name no class."""
    rows, classes = read(validated), read_manifest(validated)["classes"]
    if facts.modality == "image" and params.templates:
        raise InputError("params.yaml: synthesize.templates make texts, but this is an image workspace: remove them.")
    with GenerationWriter(output, stage="synthesize", modality=facts.modality) as writer:
        if facts.modality == "image":
            made = _mixtures(rows, classes, params, facts, collected, progress)
        else:
            made = _sentences(rows, classes, params, facts, progress)
        rows_in = 0
        seen: set[str] = set()
        for row, reason in made:
            rows_in += 1
            if reason or row.id in seen:
                writer.reject(row, reason or "exact_duplicate")
            else:
                writer.keep(row)
            seen.add(row.id)
        writer.close(rows_in=rows_in, classes=classes)


def _mixtures(
    rows: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    facts: Facts,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
    a_row = params.mixup
    if a_row is None:
        a_row = min(BY_EFFORT[facts.effort], ENOUGH / max(1, len(parents)))
    pairs = draw_pairs(
        list(parents.index), parents["fold"].fillna(-1).astype(int).tolist(), a_row, params.mixup_alpha, facts.seed
    )
    wanted = {one for pair in pairs for one in (pair.first, pair.second)}
    pictures = dict(payloads([collected], wanted)) if pairs else {}
    for pair in counted(pairs, progress, "mix pictures", len(pairs)):
        first, second = parents.loc[pair.first], parents.loc[pair.second]
        decoded = [images.decode(bytes(pictures[one]), facts.max_megapixels) for one in (pair.first, pair.second)]  # type: ignore[arg-type]
        pixels = mix(decoded[0], decoded[1], pair.share)
        recipe = recipe_json("mixup", share=pair.share)
        yield (
            Row(
                id=identify(images.content(pixels), [pair.first, pair.second], recipe),
                split="train",
                fold=None if pd.isna(first["fold"]) else int(first["fold"]),
                label=first["label"],
                label_probs=mixed_label(first["label"], second["label"], pair.share, classes),
                label_source="mixup",
                weight=params.weight * min(float(first["weight"]), float(second["weight"])),
                confidence=pair.share,
                parents=[pair.first, pair.second],
                recipe=recipe,
                group=first["group"],
                payload=images.encode(pixels),
            ),
            None,
        )


def _sentences(
    rows: pd.DataFrame, classes: Sequence[str], params: SynthesizeParams, facts: Facts, progress: Progress
) -> Iterator[tuple[Row, str | None]]:
    of_class: dict[str, list[Template]] = {}
    for template in params.templates:
        if template.label not in classes:
            raise InputError(
                f"params.yaml: synthesize.templates: '{template.label}' is no class: it must be one of {', '.join(classes)}."
            )
        of_class.setdefault(template.label, []).append(template)
    known = {texts.normalised(text) for text in rows["text"]}  # a copy of a collected row would leak through the folds
    for label in counted(sorted(of_class), progress, "fill templates", len(of_class)):
        rng = generator(facts.seed, "templates", label)
        for template, filled in sample(of_class[label], params.template_rows, rng):
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
            yield row, "exact_duplicate" if texts.normalised(text) in known else None
