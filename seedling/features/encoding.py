"""Encode rows with a pretrained encoder: each row once for all folds, rounds and stages, by the feature cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from seedling.features.classical import Read, pieces_of
from seedling.features.encoder import EncodePiece, Encoder, Features
from seedling.features.feature_cache import FeatureCache
from seedling.parallel.cluster import on_cluster, over_cluster
from seedling.parallel.executor import this_process
from seedling.progress import Progress, silent

ROWS_PER_PROCESS = 4_096  # that each of several processes encodes between exchanges


def encode_rows(
    load: Callable[[], Encoder],
    ids: Sequence[str],
    read: Read,
    cache: FeatureCache,
    piece: EncodePiece,
    progress: Progress = silent,
) -> Features:
    """(n, d), in the order of the ids; only rows that the cache lacks are encoded, divided among the processes.

    load: loads the encoder, which takes seconds, and is called only if rows are missing; read: called with the missing
    ids; piece: encodes rows with the same settings in a worker of a cluster.
    """
    process = this_process()
    features_of_id = cache.get(ids)
    # The leader decides: it may write rows before another process reads the cache.
    missing: list[str] = process.by_leader(
        lambda: [row_id for row_id in dict.fromkeys(ids) if row_id not in features_of_id]
    )
    n_cached = len(features_of_id)
    progress("encode", n_cached, n_cached + len(missing))

    def encoded(share: Sequence[str]) -> dict[str, Features]:
        read_ids: list[str] = []

        def payloads() -> Iterator[bytes | str]:
            for row_id, payload in read(share):
                read_ids.append(row_id)
                yield payload

        encoded_rows: dict[str, Features] = {}
        if on_cluster():
            blocks = over_cluster(piece, pieces_of(payloads(), *piece.piece_size))
        else:
            blocks = load().encode(payloads(), piece.max_megapixels, piece.views)
        for block in blocks:
            block_ids = read_ids[len(encoded_rows) : len(encoded_rows) + len(block)]
            cache.put(block_ids, block)
            encoded_rows.update(zip(block_ids, block, strict=True))
            n_done = len(features_of_id) - n_cached + len(encoded_rows) * process.count
            progress("encode", n_cached + min(n_done, len(missing)), n_cached + len(missing))
        return encoded_rows

    if process.count == 1:
        features_of_id.update(encoded(missing) if missing else {})
    for first in range(0, len(missing), ROWS_PER_PROCESS * process.count) if process.count > 1 else ():
        exchanged_ids = missing[first : first + ROWS_PER_PROCESS * process.count]
        shares = [exchanged_ids[number :: process.count] for number in range(process.count)]
        for number, part in enumerate(process.map(encoded, shares, "encode")):
            features_of_id.update(part)
            if number != process.number and part:
                cache.put(list(part), np.stack(list(part.values())))
    return np.stack([features_of_id[row_id] for row_id in ids]) if len(ids) else np.zeros((0, 1), np.float32)
