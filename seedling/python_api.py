"""The Python API: `seedling.grow` runs the whole pipeline on images or texts, and returns the result as Python objects.

It creates a workspace as the command line does: `seedling status`, `seedling compare` and `dvc repro` work in it.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from seedling.config.params import set_value
from seedling.dataset.generation import read, read_rejected
from seedling.errors import InputError
from seedling.formats import probability_column
from seedling.init.create import make_workspace
from seedling.lock import workspace_lock
from seedling.media import images as image_files
from seedling.pipeline import stages
from seedling.records.headline_metrics import HeadlineMetricsRecord
from seedling.records.results import read_evaluation_summary
from seedling.records.run_description import experiment_name, outcome_of, what_changed
from seedling.records.run_history import last_record, read_inputs, record_run
from seedling.records.summaries import headline
from seedling.runner import write_page
from seedling.versioning.ledger import Outcome, open_ledger
from seedling.workspace import Workspace

if TYPE_CHECKING:
    from seedling.models.predictor import Predictor

Effort = Literal["quick", "normal", "thorough"]
Image = str | os.PathLike[str] | bytes | np.ndarray | Any
"""A path, an encoded image, an array of (height, width) or (height, width, 3) bytes, or a PIL image."""
ROWS_FILE = "rows.parquet"


def grow(  # noqa: PLR0913  (the keywords of the public API)
    data: pd.DataFrame | None = None,
    *,
    images: str | os.PathLike[str] | Sequence[Image] | None = None,
    texts: Sequence[str] | pd.Series | None = None,
    labels: Sequence[str | None] | pd.Series | None = None,
    workspace: str | os.PathLike[str] | None = None,
    effort: Effort = "normal",
    encoder: str | None = None,
    seed: int = 0,
    params: Mapping[str, Any] | None = None,
    verbose: bool = True,
) -> GrowResult:
    """Grow a dataset and a classifier from few or badly labeled rows.

    Args:
        data: a table with a column `image` or `text`, a column `label`, and, optionally, `split`
            (train, validation, test, pool or out_of_scope) and `group`.
        images: instead of `data`, a folder with a subfolder per class, or a sequence of images.
        texts: instead of `data`, a sequence of texts.
        labels: the label of each image or text; None for a row without a label, which joins the unlabeled pool.
        workspace: a new folder for the workspace; None creates a temporary one.
        effort: how much to try: "quick", "normal" or "thorough".
        encoder: a pretrained encoder, as a folder or a model of the Hugging Face Hub; "none" for no encoder; None for
            the default.
        seed: the seed of all random numbers.
        params: other values of params.yaml by their dotted keys, for example {"validate.folds": 3}.
        verbose: whether to print a line for each stage.

    Raises:
        InputError: the rows, the labels or the params are not valid; the message explains how to fix them.
        GateFailed: a quality gate failed; the rows are in `quarantine/`.
    """
    if sum(value is not None for value in (data, images, texts)) != 1:
        raise InputError("Pass the rows as one of data, images or texts.")
    folder = Path(workspace) if workspace is not None else Path(tempfile.mkdtemp(prefix="seedling-")) / "workspace"
    with tempfile.TemporaryDirectory() as temporary:
        source, modality = _source(data, images, texts, labels, Path(temporary))
        folder = make_workspace(folder, source, modality, encoder=encoder)
    for key, value in {"effort": effort, "seed": seed, **(params or {})}.items():
        set_value(folder, key.split("."), value)
    _run(folder, verbose=verbose)
    return GrowResult(folder)


@dataclass(frozen=True)
class GrowResult:
    """The result of a run in a workspace. `GrowResult("flowers")` opens the workspace of an earlier run."""

    workspace: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "workspace", Path(self.workspace))  # notebooks often pass a string

    @property
    def report(self) -> Path:
        """The path of the HTML report."""
        return Workspace(self.workspace).report_page

    @property
    def data_report(self) -> Path:
        """The path of the HTML page on the data."""
        return Workspace(self.workspace).data_page

    @cached_property
    def metrics(self) -> dict[str, float]:
        """The headline metrics, as in reports/metrics.json."""
        return HeadlineMetricsRecord.read(Workspace(self.workspace).metrics_file).as_json()

    @cached_property
    def label_issues(self) -> pd.DataFrame:
        """The evaluated training labels, the likeliest label errors first, as in reports/label_issues.csv."""
        from seedling.report.suspicious_rows import label_issues

        validated = Workspace(self.workspace).generation("validate")
        return label_issues(read(validated), read_rejected(validated))

    def predict(self, rows: Iterable[Image], *, probabilities: bool = False) -> pd.DataFrame:
        """Predict the class of each image or text.

        Returns one row per input: `predicted`, `confidence` (0 to 1), `abstains` (whether the confidence is below the
        threshold that training chose), `error` (why a row has no prediction), and, if `probabilities` is set, a column
        `p_<class>` per class.
        """
        from seedling.models.predictor import Question

        predictor = self._predictor
        questions = [
            Question(str(number), str(row) if predictor.modality == "text" else _encoded(row))
            for number, row in enumerate(rows)
        ]
        answers = list(predictor.answers(questions))
        columns = ("predicted", "confidence", "abstains", "error")
        frame = pd.DataFrame({name: [getattr(answer, name) for answer in answers] for name in columns})
        if probabilities:
            for position, label in enumerate(predictor.model.classes):
                frame[probability_column(label)] = [
                    None if answer.probabilities is None else answer.probabilities[position] for answer in answers
                ]
        return frame

    @cached_property
    def _predictor(self) -> Predictor:
        from seedling.models.predictor import Predictor

        return Predictor.of(self.workspace)

    def __str__(self) -> str:
        """The headline of the report, and where the report is."""
        evaluation = read_evaluation_summary(Workspace(self.workspace).reports)
        return f"{headline(evaluation)}\nReport: {self.report}"


def _source(
    data: pd.DataFrame | None,
    images: str | os.PathLike[str] | Sequence[Image] | None,
    texts: Sequence[str] | pd.Series | None,
    labels: Sequence[str | None] | pd.Series | None,
    temporary: Path,
) -> tuple[Path, Literal["image", "text"]]:
    """Returns the folder or table for the workspace, and the modality."""
    if isinstance(images, str | os.PathLike):
        if labels is not None:
            raise InputError(
                "A folder of images has its labels in its subfolders: leave out `labels`, or pass a list of images."
            )
        return Path(images), "image"
    if data is not None and labels is not None:
        raise InputError("Labels were passed beside a table: put them into its column `label`, or leave out `data`.")
    if data is None:
        name = "text" if images is None else "image"
        values: Iterable[Any] | None = texts if images is None else images
        rows = [] if values is None else list(values)
        if labels is not None and len(labels) != len(rows):
            raise InputError(
                f"There are {len(rows):,} rows and {len(labels):,} labels: pass one label per row, None for no label."
            )
        data = pd.DataFrame(
            {name: pd.Series(rows, dtype=object), "label": list(labels) if labels is not None else None}
        )
    modality: Literal["image", "text"] = "image" if "image" in data else "text"
    if modality not in data:
        raise InputError(
            f"The table needs a column `image` or `text`; it has {', '.join(map(str, data.columns)) or 'none'}."
        )
    if modality == "image":
        data = data.assign(image=[_encoded(image) for image in data["image"]])
    data.to_parquet(temporary / ROWS_FILE)
    return temporary / ROWS_FILE, modality


def _encoded(image: Image) -> bytes:
    """Returns the bytes of an image file. Raises InputError if the value is not an image."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return Path(image).read_bytes()
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim not in {2, 3} or (pixels.ndim == 3 and pixels.shape[2] != 3):
        raise InputError(
            f"An image is an array of shape {pixels.shape} and type {pixels.dtype}: "
            "pass uint8 of shape (height, width) or (height, width, 3), a PIL image in RGB or L, bytes, or a path."
        )
    return image_files.encode(pixels if pixels.ndim == 3 else np.repeat(pixels[..., None], 3, axis=2))


def _run(workspace: Path, *, verbose: bool) -> None:
    """Runs all stages in order, recorded by DVC and in .seedling/runs, writes the pages, and saves the experiment."""
    from seedling.report.gates_page import write_gates_page
    from seedling.report.history_page import write_history_page

    started, ledger = datetime.now().astimezone(), open_ledger(workspace)
    if verbose:
        ledger.finished = _print_outcome
    with workspace_lock(workspace), ledger.snapshotted() as snapshot:
        inputs, previous = read_inputs(snapshot.folder), last_record(workspace)
        outcomes = [ledger.run(name) for name in stages()]
        record_run(
            workspace,
            experiment_name(started),
            outcomes,
            started=started,
            what_changed=what_changed(inputs, previous, outcomes),
            outcome=outcome_of(outcomes),
            inputs=inputs,
        )
        write_gates_page(workspace)
        write_history_page(workspace)
        write_page("validate", workspace)
        write_page("evaluate", workspace)
        ledger.save_experiment(experiment_name(started))


def _print_outcome(outcome: Outcome) -> None:
    rows = outcome.summary.rows
    kept = "" if rows is None else f", {rows.kept:,} rows"
    print(f"{outcome.stage}: {outcome.how} in {outcome.seconds:.1f} s{kept}", flush=True)
