"""fold_probabilities.parquet of pseudo_label: each fold model's class probabilities of the pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from seedling.files.reading import reading
from seedling.stats.statistics import Floats
from seedling.workspace import FOLD_PROBABILITIES


def write_fold_probabilities(folder: Path, ids: Sequence[str], probabilities: Floats) -> None:
    """Write each fold model's class probabilities of the pool. probabilities: (n_fold_models, n_pool, n_classes)."""
    n_fold_models, n_pool, n_classes = probabilities.shape
    by_row = probabilities.transpose(1, 0, 2).reshape(n_pool, n_fold_models * n_classes).astype(np.float32)
    columns: dict[str, pa.Array[Any]] = {"id": pa.array(list(ids), pa.string()), "probabilities": list_column(by_row)}
    metadata = {"fold_models": str(n_fold_models)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), folder / FOLD_PROBABILITIES, compression="zstd")


def read_fold_probabilities(folder: Path, ids: Sequence[str]) -> NDArray[np.float32]:
    """(n_pool, n_fold_models, n_classes), in the order of the ids: what `write_fold_probabilities` wrote."""
    path = folder / FOLD_PROBABILITIES
    with reading(path):
        table = pq.read_table(path)
        n_fold_models = int((table.schema.metadata or {})[b"fold_models"])
        flat = np.asarray(pc.list_flatten(table["probabilities"]).to_numpy(), dtype=np.float32)
        row_numbers = pd.Index(table["id"].to_pylist()).get_indexer(pd.Index(ids))
        probabilities: NDArray[np.float32] = flat.reshape(len(table), n_fold_models, -1)[row_numbers]
    return probabilities


def list_column(values: NDArray[np.float32]) -> pa.Array[Any]:
    """A column of lists of equal length from (n_rows, length), without one Python object per row."""
    n_rows, length = values.shape
    offsets = np.arange(n_rows + 1, dtype=np.int32) * length
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.ravel(), pa.float32()))
