"""The record: the format of a dataset generation on disk. All other packages use it through these names.

A folder contains `part-00000.parquet …` (kept rows), `rejected.parquet` (rejected rows, with a `reason`) and
`manifest.json`. The manifest is written last, so a folder with a manifest is complete. The files contain neither times
nor absolute paths.

An image is stored once, in the generation that created it (scrape, augment, synthesize). The stages that only decide
about rows (validate, pseudo_label) write all columns except `image`; `payloads` joins the two by id.
"""

from __future__ import annotations

from seedling.dataset.manifest import (
    RowsOnDisk,
    check_counts,
    digest,
    read_manifest,
    stage_of,
)
from seedling.dataset.reader import (
    PayloadReader,
    SinglePayloads,
    columns_of,
    has_payloads,
    ids_of,
    payloads,
    read,
    read_columns,
    read_rejected,
    rejected_payloads,
    rows_on_disk,
    stream,
)
from seedling.dataset.schema import (
    COLUMNS,
    IMAGE_TYPE,
    SPLITS,
    Row,
    identify,
    identities,
    recipe_json,
    schema,
    source_of,
)
from seedling.dataset.writer import MAX_PART_BYTES, ROWS_PER_PART, GenerationWriter, rewrite
from seedling.records.manifest import FORMAT, Modality

__all__ = [
    "COLUMNS",
    "FORMAT",
    "IMAGE_TYPE",
    "MAX_PART_BYTES",
    "ROWS_PER_PART",
    "SPLITS",
    "GenerationWriter",
    "Modality",
    "PayloadReader",
    "Row",
    "RowsOnDisk",
    "SinglePayloads",
    "check_counts",
    "columns_of",
    "digest",
    "has_payloads",
    "identify",
    "identities",
    "ids_of",
    "payloads",
    "read",
    "read_columns",
    "read_manifest",
    "read_rejected",
    "recipe_json",
    "rejected_payloads",
    "rewrite",
    "rows_on_disk",
    "schema",
    "source_of",
    "stage_of",
    "stream",
]
