"""The accepted model of a workspace, ready to predict new images or texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np

from seedling.config.params import load
from seedling.dataset.generation import Modality
from seedling.errors import InputError, MissingGeneration
from seedling.media import images, texts
from seedling.media.image_modes import Color, color_of
from seedling.models.model import TrainedModel, load_model, read_record
from seedling.records.decision import DecisionRecord
from seedling.workspace import DECISION, MODEL, MODELS, Workspace

ROWS_PER_BATCH = 512
Payload = bytes | str


@dataclass(frozen=True, slots=True)
class Question:
    """A row to predict: its source, and its encoded image or text, or the reason why it has none."""

    source: str
    payload: Payload | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The prediction for a row.

    abstains: whether the confidence is below the threshold that was chosen in training; error: why there is no
    prediction.
    """

    source: str
    predicted: str | None
    confidence: float | None
    abstains: bool | None
    probabilities: Sequence[float] | None
    error: str | None = None


@dataclass(frozen=True)
class Predictor:
    """The model of one round, with the modality of its rows and its image settings."""

    model: TrainedModel
    modality: Modality
    round: int
    max_megapixels: float
    background: Color | None = None  # behind transparent images; None: chosen per image

    @classmethod
    def of(cls, workspace: Path, round_number: int | None = None) -> Predictor:
        """Load the model of this round, or of the accepted round if None.

        Raises MissingGeneration if nothing is trained yet, InputError if there is no such round.
        """
        rounds = sorted(int(record.parent.name) for record in Workspace(workspace).models.glob(f"[0-9]*/{MODEL}"))
        if not rounds:
            raise MissingGeneration(MODELS, "train@0")
        if round_number is None:
            decision = DecisionRecord.read(Workspace(workspace).model(rounds[-1]) / DECISION)
            round_number = decision.accepted_round
        if round_number not in rounds:
            raise InputError(
                f"No model was trained in round {round_number}. Trained rounds: {', '.join(map(str, rounds))}."
            )
        folder = Workspace(workspace).model(round_number)
        model = load_model(folder, workspace)
        max_megapixels = float(getattr(model.features, "max_megapixels", 64.0))
        return cls(model, read_record(folder).modality, round_number, max_megapixels, _background(workspace))

    def warm_up(self) -> None:
        """Load what the first row would load: the encoder's weights and libraries."""
        gray = np.full((32, 32, 3), 128, np.uint8)
        next(self.answers([Question("", "warm" if self.modality == "text" else images.encode(gray))]))

    def answers(self, questions: Iterable[Question], batch_size: int = ROWS_PER_BATCH) -> Iterator[Answer]:
        """Yield one answer per question, in order; `batch_size` rows are in memory at a time.

        An image that cannot be decoded or an empty text gets an answer with the reason; the other rows are predicted.
        """
        remaining = iter(questions)
        while block := list(islice(remaining, batch_size)):
            checked = [self._checked(question) for question in block]
            valid = [question for question in checked if question.error is None]
            results = iter(
                self._probabilities_or_errors([question.payload for question in valid if question.payload is not None])
            )
            for question in checked:
                yield (
                    Answer(question.source, None, None, None, None, question.error)
                    if question.error
                    else self._answer(question, next(results))
                )

    def _checked(self, question: Question) -> Question:
        """Return the question with an error if it cannot be predicted.

        Only the header of an image is read here; the model decodes the image once.
        """
        if question.error is not None or question.payload is None:
            return Question(question.source, None, question.error or "empty")
        if isinstance(question.payload, str):
            text = texts.clean(question.payload)
            return Question(question.source, text) if text else Question(question.source, None, "empty")
        return replace(question, payload=images.on_background(question.payload, self.max_megapixels, self.background))

    def _probabilities_or_errors(self, payloads: Sequence[Payload]) -> list[Sequence[float] | str]:
        """Return the probabilities, or a reason, per payload."""
        try:
            return list(self.model.predict(payloads).tolist())
        except images.Undecodable as error:
            if len(payloads) == 1:
                return [str(error)]
            half = len(payloads) // 2
            return [*self._probabilities_or_errors(payloads[:half]), *self._probabilities_or_errors(payloads[half:])]

    def _answer(self, question: Question, result: Sequence[float] | str) -> Answer:
        if isinstance(result, str):
            return Answer(question.source, None, None, None, None, result)
        best = max(range(len(result)), key=result.__getitem__)
        abstains = result[best] < self.model.abstain_below
        rounded = [round(probability, 6) for probability in result]
        return Answer(question.source, self.model.classes[best], rounded[best], abstains, rounded)


def _background(workspace: Path) -> Color | None:
    """Return the background that the training rows got. A folder of models without params.yaml has no setting."""
    if not Workspace(workspace).params_file.is_file():
        return None
    return color_of(load(workspace).scrape.transparent_background)
