"""What to label next: rows that the model is unsure of, that stand for many others, of classes that have few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from seedling.dataset.spreadsheet import write_list
from seedling.pseudo_label.teacher import Refined
from seedling.stats.statistics import Floats

COLUMNS = ("rank", "id", "origin", "worth", "first", "first_probability", "second", "second_probability")


def worth(probabilities: Floats, density: Floats) -> Floats:
    """(n_rows,): uncertainty × density × class need.

    Uncertainty is 1 − the margin between the two likeliest classes; density after Settles and Craven (2008); need is
    the inverse of the class's share of what the pool is said to hold, to the power of a half.
    """
    ordered = np.sort(probabilities, axis=1)
    uncertainty = 1 - (ordered[:, -1] - ordered[:, -2])
    shares = np.maximum(probabilities.mean(axis=0), 1e-6)
    need = (1 / np.sqrt(shares * len(shares)))[probabilities.argmax(axis=1)]
    result: Floats = uncertainty * density * need
    return result


def pick(scores: Floats, graph: object, offset: int, many: int) -> NDArray[np.intp]:
    """The best `many` rows, best first; a row whose neighbor was picked counts half, again for each such neighbor."""
    left, chosen = scores.copy(), []
    for _ in range(min(many, len(scores))):
        best = int(left.argmax())
        chosen.append(best)
        left[best] = -1.0
        if graph is not None:
            near = graph[offset + best].indices - offset  # type: ignore[index]
            near = near[near >= 0]  # those before are labeled rows
            left[near[left[near] > 0]] *= 0.5
    return np.array(chosen, dtype=np.intp)


def write_queue(path: Path, rows: pd.DataFrame, refined: Refined, classes: list[str], many: int) -> None:
    """queue.csv: rank, id, origin, worth, the two likeliest classes and their probabilities."""
    final = refined.probabilities[-1]
    scores = worth(final, refined.density) if len(final) else np.zeros(0)
    offset = 0 if refined.graph is None else refined.graph.shape[0] - len(final)
    lines = []
    for rank, row in enumerate(pick(scores, refined.graph, offset, many), start=1):
        first, second = np.argsort(-final[row], kind="stable")[:2]
        guesses = [classes[first], f"{final[row, first]:.4f}", classes[second], f"{final[row, second]:.4f}"]
        known = rows.iloc[row]
        lines.append([rank, known["id"], known["origin"], f"{scores[row]:.4f}", *guesses])
    write_list(path, COLUMNS, lines)
