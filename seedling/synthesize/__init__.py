"""synthesize: new training rows. Images: mixup, CutMix, cut and paste, generation and translation; texts: templates.

python -m seedling.runner synthesize
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from seedling.config.params import SynthesizeParams, Template, WorkspaceConfig
from seedling.dataset.generation import GenerationWriter, Row, identify, payloads, read, read_manifest, recipe_json
from seedling.errors import InputError
from seedling.media import images, texts
from seedling.media.decoded_images import DecodedImages
from seedling.parallel.pool import in_pieces
from seedling.progress import Progress, counted, silent
from seedling.records.stage_notes import SynthesizeNotes, TemplateRecord
from seedling.stats.randomness import generator
from seedling.synthesize.generating import generated_rows
from seedling.synthesize.mixing import MIN_CUT_SHARE, Pair, cut_in, draw_pairs, mix, mixed_label
from seedling.synthesize.pasting import cut_rows
from seedling.synthesize.templates import count_sentences, sample_sentences
from seedling.synthesize.translating import translated_rows

MIXUP_PER_ROW = {"quick": 0.5, "normal": 1.0, "thorough": 2.0}  # by effort
MAX_MIXUP_ROWS = 4000  # in total where synthesize.mixup is not set
IMAGE_METHODS = ("mixup", "cutmix", "cut_and_paste", "negatives", "generate", "translate")  # params with a number
MAX_PAIRS_PER_BATCH, MAX_MEGABYTES_PER_BATCH = 128, 8


def synthesize(
    params: SynthesizeParams,
    config: WorkspaceConfig,
    *,
    collected: Path,
    validated: Path,
    output: Path,
    data: Path | None = None,
    progress: Progress = silent,
) -> None:
    """Write `generations/synthesize`. data: the folder that holds files of slot values and the user's plugins.

    Raises InputError for params of the other modality, and for templates that cannot be filled or name an unknown
    class.
    """
    rows, classes = read(validated), read_manifest(validated).classes
    template_records: tuple[TemplateRecord, ...] = ()
    _check_modality(params, config)
    with GenerationWriter(output, stage="synthesize", modality=config.modality) as writer:
        new_rows: Iterator[tuple[Row, str | None]]
        if config.modality == "image":
            by_id = rows.set_index("id")
            parents = rows[(rows["split"] == "train") & rows["label"].notna()].set_index("id")
            new_rows = chain(
                _mixed_rows(parents, classes, params, config, collected, progress),
                cut_rows(parents, classes, params, config, collected, data, progress),
                generated_rows(by_id, classes, params, config, collected, progress),
                translated_rows(by_id, params, config, collected, progress),
            )
        else:
            templates_by_class = _templates_by_class(params, classes)
            template_records = _template_records(templates_by_class, params, data)
            new_rows = _template_rows(rows, templates_by_class, params, config, data, progress)
        rows_in = 0
        seen: set[str] = set()
        for row, reason in new_rows:
            rows_in += 1
            if reason or row.id in seen:
                writer.reject(row, reason or "exact_duplicate")
            else:
                writer.keep(row)
            seen.add(row.id)
        writer.close(rows_in=rows_in, classes=classes, notes=SynthesizeNotes(templates=template_records))


def _check_modality(params: SynthesizeParams, config: WorkspaceConfig) -> None:
    if config.modality == "image" and params.templates:
        raise InputError("params.yaml: synthesize.templates make texts, but this is an image workspace: remove them.")
    image_methods = [name for name in IMAGE_METHODS if getattr(params, name)]
    if config.modality == "text" and image_methods:
        raise InputError(
            f"params.yaml: synthesize.{image_methods[0]} makes images, but this is a text workspace: remove it."
        )


def _mixed_rows(
    parents: pd.DataFrame,
    classes: Sequence[str],
    params: SynthesizeParams,
    config: WorkspaceConfig,
    collected: Path,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    """Yield the mixup rows and the CutMix rows."""
    mixup_per_row = params.mixup
    if mixup_per_row is None:
        mixup_per_row = min(MIXUP_PER_ROW[config.effort], MAX_MIXUP_ROWS / max(1, len(parents)))
    ids, folds, labels = list(parents.index), parents["fold"].fillna(-1).astype(int).tolist(), parents["label"].tolist()
    drawn: list[tuple[str, Pair]] = []
    for method, per_row, alpha in (
        ("mixup", mixup_per_row, params.mixup_alpha),
        ("cutmix", params.cutmix, params.cutmix_alpha),
    ):
        pairs = draw_pairs(
            ids, folds, per_row, alpha, config.seed, method=method, labels=labels, partners=params.partners
        )
        drawn += [(method, pair) for pair in pairs]
    parent_ids = {parent_id for _, pair in drawn for parent_id in (pair.first, pair.second)}
    encoded = payloads([collected], parent_ids) if drawn else ()
    images_by_id = {row_id: ParentImage.of(image, parents.loc[row_id].to_dict()) for row_id, image in encoded}
    jobs = (MixJob(method, pair, images_by_id[pair.first], images_by_id[pair.second]) for method, pair in drawn)
    rows = chain.from_iterable(in_pieces(MixBatch(params.weight, tuple(classes), config), _batches(jobs)))
    for row in counted(rows, progress, "mix images", len(drawn)):
        yield row, None


class ParentImage(NamedTuple):
    """An image to mix, with the columns that a mixup or CutMix row depends on. fold: None if every model sees it."""

    encoded: bytes
    fold: int | None
    label: str
    weight: float
    group: str

    @classmethod
    def of(cls, encoded: bytes | str, columns: Mapping[Hashable, Any]) -> ParentImage:
        """Take the columns from a row of validate's output."""
        fold = None if pd.isna(columns["fold"]) else int(columns["fold"])
        return cls(cast("bytes", encoded), fold, columns["label"], float(columns["weight"]), columns["group"])


class MixJob(NamedTuple):
    """Two images to mix. method: mixup or cutmix."""

    method: str
    pair: Pair
    first: ParentImage
    second: ParentImage


def _batches(jobs: Iterable[MixJob]) -> Iterator[list[MixJob]]:
    batch, n_bytes = list[MixJob](), 0
    for job in jobs:
        batch.append(job)
        n_bytes += len(job.first.encoded) + len(job.second.encoded)
        if len(batch) == MAX_PAIRS_PER_BATCH or n_bytes > MAX_MEGABYTES_PER_BATCH * 2**20:
            yield batch
            batch, n_bytes = [], 0
    if batch:
        yield batch


@dataclass(frozen=True)
class MixBatch:
    """Mix a batch of image pairs. Picklable, for worker processes. weight: a factor on the parents' smaller weight."""

    weight: float
    classes: tuple[str, ...]
    config: WorkspaceConfig

    def __post_init__(self) -> None:
        object.__setattr__(self, "_decode", DecodedImages(self.config.max_megapixels))

    def __reduce__(self) -> Any:  # each process keeps its own decoded images
        return MixBatch, (self.weight, self.classes, self.config)

    def __call__(self, jobs: Sequence[MixJob]) -> list[Row]:
        """Return one row per job."""
        return [self._mix(*job) for job in jobs]

    def _mix(self, method: str, pair: Pair, first: ParentImage, second: ParentImage) -> Row:
        decode: DecodedImages = self._decode  # type: ignore[attr-defined]  # set once, in __post_init__
        first_pixels, second_pixels = decode(first.encoded), decode(second.encoded)
        share = pair.share
        if method == "mixup":
            pixels = mix(first_pixels, second_pixels, share)
            recipe = recipe_json(method, share=round(share, 6))
        else:
            rng = generator(self.config.seed, "cutmix place", pair.first, pair.second, pair.share)
            pixels, share, rectangle = cut_in(first_pixels, second_pixels, min(share, 1 - MIN_CUT_SHARE), rng)
            recipe = recipe_json(method, share=round(share, 6), place=rectangle)
        return Row(
            id=identify(images.content(pixels), [pair.first, pair.second], recipe),
            split="train",
            fold=first.fold,
            label=(first if share >= 0.5 else second).label,
            label_probs=mixed_label(first.label, second.label, share, self.classes),
            label_source=method,
            weight=self.weight * min(first.weight, second.weight),
            confidence=max(share, 1 - share),
            parent_ids=[pair.first, pair.second],
            recipe=recipe,
            group=first.group,
            payload=images.encode(pixels),
        )


def _templates_by_class(params: SynthesizeParams, classes: Sequence[str]) -> dict[str, list[Template]]:
    """Return the templates of each class; a template without a label belongs to every class.

    Raises InputError for an unknown class.
    """
    names = [template.label for template in params.templates if template.label is not None]
    names += params.template_rows if isinstance(params.template_rows, dict) else []
    if unknown := [name for name in [*names, *params.label_names] if name not in classes]:
        raise InputError(
            f"params.yaml: synthesize: '{unknown[0]}' is not a class: it must be one of {', '.join(classes)}."
        )
    templates_by_class: dict[str, list[Template]] = {}
    for template in params.templates:
        for label in [template.label] if template.label is not None else classes:
            templates_by_class.setdefault(label, []).append(template)
    return templates_by_class


def _label_text(params: SynthesizeParams, label: str) -> str:
    """Return the text of {label} in a template."""
    return params.label_names.get(label, label.replace("_", " "))


def _template_records(
    templates_by_class: dict[str, list[Template]], params: SynthesizeParams, data: Path | None
) -> tuple[TemplateRecord, ...]:
    """Return the number of sentences per template, for the manifest."""
    records = tuple(
        TemplateRecord(
            label=label,
            text=template.text,
            possible=count_sentences(template, data, _label_text(params, label)),
        )
        for label, templates in sorted(templates_by_class.items())
        for template in templates
    )
    if empty := [record.text for record in records if record.possible == 0]:
        raise InputError(f"params.yaml: synthesize.templates: '{empty[0]}': its `never` forbids every sentence.")
    return records


def _template_rows(
    rows: pd.DataFrame,
    templates_by_class: dict[str, list[Template]],
    params: SynthesizeParams,
    config: WorkspaceConfig,
    data: Path | None,
    progress: Progress,
) -> Iterator[tuple[Row, str | None]]:
    collected_texts = {texts.normalized(text) for text in rows["text"]}  # a copy of such a row would leak across folds
    label_by_text: dict[str, str] = {}
    for label in counted(sorted(templates_by_class), progress, "fill templates", len(templates_by_class)):
        rng = generator(config.seed, "templates", label)
        by_class = params.template_rows
        n_rows = by_class if isinstance(by_class, int) else by_class.get(label, 0)
        for template, sentence in sample_sentences(
            templates_by_class[label], n_rows, rng, data, _label_text(params, label)
        ):
            text, recipe = texts.clean(sentence), recipe_json("template", text=template.text)
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
            yield row, _reason(texts.normalized(text), label, collected_texts, label_by_text)
            label_by_text.setdefault(texts.normalized(text), label)


def _reason(text: str, label: str, collected_texts: set[str], label_by_text: dict[str, str]) -> str | None:
    """Return the reason to reject the sentence, or None."""
    if not text:
        return "empty"
    if text in collected_texts or label_by_text.get(text) == label:
        return "exact_duplicate"
    return "said_of_another_class" if text in label_by_text else None
