"""What the page shows about a row: its content, the model's guesses, its origin, and its nearest labeled rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seedling.dataset.generation import SinglePayloads
from seedling.review.background import BackgroundRanker
from seedling.review.images import SCREEN_SIDE, THUMBNAIL_SIDE
from seedling.review.leases import Lease
from seedling.review.queue import ReviewQueue
from seedling.review.word_weights import WordWeights

MAX_TEXT_CHARACTERS = 20_000
MAX_NEIGHBOR_CHARACTERS = 300
N_SUGGESTIONS, N_NEIGHBORS, N_WORDS = 3, 3, 12


@dataclass(frozen=True)
class ItemMaker:
    """Makes the JSON of rows for the page, as the server sends it."""

    queue: ReviewQueue
    ranker: BackgroundRanker
    words: WordWeights
    read: SinglePayloads

    def screens(self, leases: Sequence[Lease]) -> list[dict[str, Any]]:
        """The screens of these leases: one per row, or one for all rows of a grid or of near-duplicates."""
        texts = self._texts([lease.row_id for lease in leases])
        screens: list[dict[str, Any]] = []
        by_lease: dict[str, dict[str, Any]] = {}
        for lease in leases:
            if lease.question in {"verify", "label"}:
                screens.append(self.item(lease, texts))
                continue
            screen = by_lease.get(lease.lease_id)
            if screen is None:
                screen = {
                    "row_id": lease.row_id,
                    "lease_id": lease.lease_id,
                    "question": lease.question,
                    "asked_label": lease.asked_label,
                    "kind": self.queue.rows.modality,
                    "rows": [],
                }
                by_lease[lease.lease_id] = screen
                screens.append(screen)
            screen["rows"].append(self._row_of_screen(lease, texts))
        return screens

    def item(self, lease: Lease, texts: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The screen of one row."""
        rows, position = self.queue.rows, self.queue.rows.ids.position(lease.row_id)
        texts = self._texts([lease.row_id]) if texts is None else texts
        error = None if position is None else float(rows.p_label_error[position])
        return {
            "row_id": lease.row_id,
            "lease_id": lease.lease_id,
            "question": lease.question,
            "asked_label": lease.asked_label,
            **self._content(lease.row_id, texts, MAX_TEXT_CHARACTERS),
            "suggestions": self._suggestions(position) if lease.suggestion_shown else [],
            "suggestion_shown": lease.suggestion_shown,
            "previous_label": lease.previous_label if lease.suggestion_shown else None,
            "previous_source": lease.previous_source if lease.suggestion_shown else None,
            "state": self._state(lease),
            "position": lease.position,
            "origin": self._origin(lease, position),
            "license": None if position is None else rows.licenses[position],
            "attribution": None if position is None else rows.attributions[position],
            "round": lease.round,
            "p_label_error": error if error is not None and not np.isnan(error) and lease.suggestion_shown else None,
            "neighbors": self._neighbors(lease) if lease.suggestion_shown else [],
            "words": self._words(lease, texts) if lease.suggestion_shown else [],
        }

    def _state(self, lease: Lease) -> str:
        decisions = self.queue.decisions.by_row
        if lease.row_id in decisions or lease.previous_source == "review":
            return "reviewed"
        return "labeled" if lease.previous_label is not None else "predicted"

    def _origin(self, lease: Lease, position: int | None) -> str:
        """Where the row comes from. Without a suggestion, only the name of its file: a folder often names the class."""
        origin = "" if position is None else str(self.queue.rows.origins[position] or "")
        hides_label = lease.previous_label is not None and not lease.suggestion_shown
        return origin.rpartition("/")[2] if hides_label else origin

    def _row_of_screen(self, lease: Lease, texts: Mapping[str, str]) -> dict[str, Any]:
        rows, position = self.queue.rows, self.queue.rows.ids.position(lease.row_id)
        return {
            "row_id": lease.row_id,
            **self._content(lease.row_id, texts, MAX_NEIGHBOR_CHARACTERS),
            "position": lease.position,
            "origin": str(rows.origins[position] or "") if position is not None else "",
            "previous_label": lease.previous_label,
        }

    def _content(self, row_id: str, texts: Mapping[str, str], max_characters: int) -> dict[str, Any]:
        """The text, or the addresses of the image; `missing` if the row's content is no longer there."""
        if self.queue.rows.modality == "text":
            text = texts.get(row_id)
            is_cut = text is not None and len(text) > max_characters
            shown = None if text is None else text[:max_characters]
            return {"kind": "text", "text": shown, "text_cut": is_cut, "missing": text is None}
        address = f"/image/{row_id}?side="
        return {"kind": "image", "image": f"{address}{SCREEN_SIDE}", "thumbnail": f"{address}{THUMBNAIL_SIDE}"}

    def _texts(self, row_ids: Sequence[str]) -> dict[str, str]:
        """The texts of rows that still have one."""
        if self.queue.rows.modality != "text" or not row_ids:
            return {}
        return {row_id: str(text) for row_id, text in self.read(row_ids).items()}

    def _suggestions(self, position: int | None) -> list[dict[str, Any]]:
        if position is None:
            return []
        probabilities = np.asarray(self.queue.rows.probabilities[position], dtype=np.float64)
        if np.isnan(probabilities).any():
            return []
        likeliest = np.argsort(-probabilities, kind="stable")[:N_SUGGESTIONS]
        return [
            {"label": self.queue.rows.classes[index], "probability": round(float(probabilities[index]), 4)}
            for index in likeliest
        ]

    def _neighbors(self, lease: Lease) -> list[dict[str, Any]]:
        """The nearest rows with a label from a person, by the cosine of the features."""
        features = self.ranker.features
        vector = features.get(lease.row_id)
        labeled = [
            (row_id, label)
            for row_id, label in zip(self.ranker.reviewed_ids, self.ranker.reviewed_labels, strict=False)
            if row_id in features and row_id != lease.row_id
        ]
        if vector is None or not labeled:
            return []
        similarities = np.stack([features[row_id] for row_id, _ in labeled]) @ vector
        nearest = np.argsort(-similarities, kind="stable")[:N_NEIGHBORS]
        texts = self._texts([labeled[int(index)][0] for index in nearest])
        return [
            {
                "row_id": labeled[int(index)][0],
                "label": labeled[int(index)][1],
                "similarity": round(float(similarities[index]), 4),
                **self._content(labeled[int(index)][0], texts, MAX_NEIGHBOR_CHARACTERS),
            }
            for index in nearest
        ]

    def _words(self, lease: Lease, texts: Mapping[str, str]) -> list[dict[str, Any]]:
        text = texts.get(lease.row_id)
        if text is None or lease.suggestion is None:
            return []
        weights = self.words.of(text[:MAX_TEXT_CHARACTERS], lease.suggestion)
        return [{"word": word, "weight": round(weight, 4)} for word, weight in weights[:N_WORDS]]
