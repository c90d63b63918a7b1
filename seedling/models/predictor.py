"""The accepted model of a workspace, asked about new images or texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from seedling.config.params import load
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingGeneration
from seedling.files.reading import read_json, reading
from seedling.media import images, texts
from seedling.media.image_modes import Color, color_of
from seedling.models.model import TrainedModel, load_model, read_record

ROWS_AT_ONCE = 512
Payload = bytes | str


@dataclass(frozen=True, slots=True)
class Question:
    """A row to be asked: where it comes from, and its encoded image or text, or the reason why there is none."""

    source: str
    payload: Payload | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says of a row. abstains: whether it had better not be believed, being less sure than the limit that was chosen in
    training; error: why nothing is said.
    """

    source: str
    predicted: str | None
    confidence: float | None
    abstains: bool | None
    probabilities: Sequence[float] | None
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """A model of one round, with the modality of its rows and what it takes of an image."""

    model: TrainedModel
    modality: Modality
    round: int
    max_megapixels: float
    background: Color | None = None  # of transparent images; None: what shows them

    @classmethod
    def of(cls, workspace: Path, number: int | None = None) -> Predictor:
        """The model of this round; of the accepted one, where None.

        Raises MissingGeneration where nothing is trained yet, InputError where there is no such round.
        """
        rounds = sorted(int(one.parent.name) for one in (workspace / "models").glob("[0-9]*/model.json"))
        if not rounds:
            raise MissingGeneration("models", "train@0")
        if number is None:
            path = workspace / "models" / str(rounds[-1]) / "decision.json"
            with reading(path):
                number = int(read_json(path)["accepted_round"])
        if number not in rounds:
            raise InputError(f"No model was trained in round {number}: there are {', '.join(map(str, rounds))}.")
        folder = workspace / "models" / str(number)
        model = load_model(folder, workspace)
        max_megapixels = float(getattr(model.features, "max_megapixels", 64.0))
        return cls(model, read_record(folder).modality, number, max_megapixels, _background(workspace))

    def warm_up(self) -> None:
        """Loads what is loaded when the first row comes: an encoder's weights, libraries."""
        gray = np.full((32, 32, 3), 128, np.uint8)
        next(self.answers([Question("", "warm" if self.modality == "text" else images.encode(gray))]))

    def answers(self, questions: Iterable[Question], at_once: int = ROWS_AT_ONCE) -> Iterator[Answer]:
        """One answer a question, in their order, so many in memory at a time. An image that cannot be decoded, or an empty text, is answered
        with its reason; the others are not held up by it.
        """
        remaining = iter(questions)
        while block := list(islice(remaining, at_once)):
            checked = [self._checked(one) for one in block]
            able = [one for one in checked if one.error is None]
            said = iter(self._said([one.payload for one in able if one.payload is not None]))
            for one in checked:
                yield (
                    Answer(one.source, None, None, None, None, one.error)
                    if one.error
                    else self._answer(one, next(said))
                )

    def _checked(self, one: Question) -> Question:
        """With the reason for which it cannot be asked. An image's header alone is looked at: it is decoded once, by the model."""
        if one.error is not None or one.payload is None:
            return Question(one.source, None, one.error or "empty")
        if isinstance(one.payload, str):
            text = texts.clean(one.payload)
            return Question(one.source, text) if text else Question(one.source, None, "empty")
        return replace(one, payload=images.on_background(one.payload, self.max_megapixels, self.background))

    def _said(self, payloads: Sequence[Payload]) -> list[Sequence[float] | str]:
        """Probabilities, or a reason, of each."""
        try:
            return list(self.model.predict(payloads).tolist())
        except images.Undecodable as error:
            if len(payloads) == 1:
                return [str(error)]
            half = len(payloads) // 2
            return [*self._said(payloads[:half]), *self._said(payloads[half:])]

    def _answer(self, one: Question, said: Sequence[float] | str) -> Answer:
        if isinstance(said, str):
            return Answer(one.source, None, None, None, None, said)
        best = max(range(len(said)), key=said.__getitem__)
        abstains = said[best] < self.model.abstain_below
        rounded = [round(chance, 6) for chance in said]
        return Answer(one.source, self.model.classes[best], rounded[best], abstains, rounded)


def _background(workspace: Path) -> Color | None:
    """As the rows that the model learned from were put on it. A folder of models without params.yaml has no setting."""
    if not (workspace / "params.yaml").is_file():
        return None
    return color_of(load(workspace).scrape.transparent_background)
