"""The labeling queue: uncertain rows that represent many others and belong to rare classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.dataset.spreadsheet import write_list
from seedling.pseudo_label.teacher import PseudoLabels
from seedling.stats.statistics import Floats

COLUMNS = ("rank", "id", "origin", "worth", "first", "first_probability", "second", "second_probability")


def labeling_worth(probabilities: Floats, density: Floats) -> Floats:
    """(n_rows,): worth = uncertainty × density × class need.

    uncertainty = 1 − margin between the two highest probabilities; density as in Settles and Craven (2008);
    class need = 1 / sqrt(predicted share of the class in the pool × number of classes).
    """
    ordered = np.sort(probabilities, axis=1)
    uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
    class_shares = np.maximum(probabilities.mean(axis=0), 1e-6)
    class_need = (1 / np.sqrt(class_shares * len(class_shares)))[probabilities.argmax(axis=1)]
    worth: Floats = uncertainty * density * class_need
    return worth


def pick_rows(worth: Floats, graph: object, offset: int, n_rows: int) -> NDArray[np.intp]:
    """Pick the rows with the highest worth, in descending order; each picked row halves the worth of its neighbors.

    offset: position of the first pool row in the graph.
    """
    remaining, picked = worth.copy(), []
    for _ in range(min(n_rows, len(worth))):
        best = int(remaining.argmax())
        picked.append(best)
        remaining[best] = -1.0
        if graph is not None:
            neighbors = graph[offset + best].indices - offset  # type: ignore[index]
            neighbors = neighbors[neighbors >= 0]  # negative positions are labeled rows
            remaining[neighbors[remaining[neighbors] > 0]] *= 0.5
    return np.array(picked, dtype=np.intp)


def write_queue(path: Path, rows: pd.DataFrame, labels: PseudoLabels, classes: list[str], n_rows: int) -> None:
    """Write queue.csv: rank, id, origin, worth, and the two most probable classes with their probabilities."""
    final = labels.probabilities[-1]
    worth = labeling_worth(final, labels.density) if len(final) else np.zeros(0)
    offset = 0 if labels.graph is None else labels.graph.shape[0] - len(final)
    lines = []
    for rank, position in enumerate(pick_rows(worth, labels.graph, offset, n_rows), start=1):
        first, second = np.argsort(-final[position], kind="stable")[:2]
        guesses = [classes[first], f"{final[position, first]:.4f}", classes[second], f"{final[position, second]:.4f}"]
        row = rows.iloc[position]
        lines.append([rank, row["id"], row["origin"], f"{worth[position]:.4f}", *guesses])
    write_list(path, COLUMNS, lines)
