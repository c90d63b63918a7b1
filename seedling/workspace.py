"""The layout of a workspace: every folder and file that Seedling reads or writes in one.

A constant is a name inside its folder, because stages write to another folder first; Workspace has the paths. What a
file contains is stated by the module that writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

# The workspace's folder
DATA = "data"  # the user's rows
GENERATIONS, MODELS, REPORTS = "generations", "models", "reports"  # the outputs of stages, tracked by DVC
QUARANTINE = "quarantine"  # the outputs of stages whose gate failed
STATE = ".seedling"  # everything that is specific to this copy of the workspace
VALIDATION_RESULTS = "gx"  # in .seedling: Great Expectations' own files
DVC_FOLDER = ".dvc"
DVC_PROCESS_LOCKS = "rwlock"  # in .dvc/tmp: the DVC commands that read or write a path
STAGE_OUTPUTS = (GENERATIONS, MODELS, REPORTS)
OWN_FOLDERS = (STATE, GENERATIONS, MODELS, QUARANTINE, REPORTS)
PARAMS_FILE, GATES_FILE, EXPECTATIONS_FILE = "params.yaml", "gates.yaml", "expectations.py"
DVC_YAML, DVC_LOCK, DATA_POINTER, DVC_IGNORE = "dvc.yaml", "dvc.lock", "data.dvc", ".dvcignore"
PREFECT_FILE, README_FILE = "prefect.yaml", "README.md"
GIT_IGNORE, GIT_ATTRIBUTES = ".gitignore", ".gitattributes"
TEST_EVALUATIONS = "test_evaluations.jsonl"
REVIEWS, REVIEW_FILES = "reviews", "*.jsonl"  # the answers of reviewers, tracked by git
NOT_COPIED = "not_copied.csv"  # the files of its source that `seedling init` did not copy

# data/
LABELING_FILE, AUGMENTING_FILE = "labeling.py", "augmenting.py"  # the user's functions
PACKED, PACKED_FILES = "packed", "packed/part-*.parquet"  # written by `seedling init --pack`

# A generation, or a folder of models/
MANIFEST = "manifest.json"  # written last: a folder with a manifest is complete
GATE = "gate.json"
REJECTED = "rejected.parquet"
PARTS, PART_NAME = "part-*.parquet", re.compile(r"part-\d{5,}\.parquet")
IGNORED = "ignored.csv"  # of scrape
QUEUE, FOLD_PROBABILITIES = "queue.csv", "fold_probabilities.parquet"  # of pseudo_label

# models/<round>/
MODEL, CANDIDATES, DECISION = "model.json", "candidates.json", "decision.json"
OUT_OF_FOLD, POOL_PREDICTIONS = "out_of_fold.parquet", "pool_predictions.parquet"
VALIDATION_PREDICTIONS = "validation_predictions.safetensors"  # and of out-of-scope rows
FEATURES, FEATURE_ARRAYS, FEATURE_FILES = "features.json", "features.safetensors", "features.*"
LOSSES = "losses.csv"  # also in reports/plots/
ARRAYS_SUFFIX, LOG_SHARES_SUFFIX = ".safetensors", ".shares.json"  # of a learner

# reports/
EVALUATION = "evaluation.json"  # every number, with its interval
METRICS = "metrics.json"  # at most a dozen numbers, a column each in `dvc exp show`
PREDICTIONS = "predictions.parquet"  # of the test rows, or of the evaluation rows if there is no test split
REPORT_PAGE, DATA_PAGE, HISTORY_PAGE, GATES_PAGE = "report.html", "data.html", "history.html", "gates.html"
LABEL_ISSUES, DUPLICATES, QUALITY = "label_issues.csv", "duplicates.csv", "quality.csv"  # of the data page
MODEL_CARD, DATASET_CARD = "model_card.md", "dataset_card.md"
ABLATION = "ablation.json"
PLOTS = "plots"

# reports/plots/
CONFUSION, CALIBRATION, RISK_COVERAGE = "confusion.csv", "calibration.csv", "risk_coverage.csv"
ROUNDS, RECALL, LEARNING_CURVE = "rounds.csv", "recall.csv", "learning_curve.csv"

# .seedling/web/
CRAWL_STORES = "*.sqlite"
CRAWL_RATES = "*.pace.json"


def part_file(number: int) -> str:
    """The name of a part of a generation, or of packed files: part-00000.parquet."""
    return f"part-{number:05d}.parquet"


def half_folder(half: int | Literal["*"]) -> str:
    """The folder in `models/<round>` of the models that learned pseudo-labels of this half of the pool, or none."""
    return f"half-{half}"


def feature_file(key: str) -> str:
    """The file of the feature cache with the values of a key."""
    return f"{key}.sqlite"


def crawl_store_file(source: str) -> str:
    """The file of a source's crawl store. source: from `name_of`."""
    return f"{source}.sqlite"


def crawl_rates_file(source: str) -> str:
    """The file of the rates at which a source was requested. source: from `name_of`."""
    return f"{source}.pace.json"


@dataclass(frozen=True)
class Workspace:
    """The paths of one workspace."""

    folder: Path

    @property
    def params_file(self) -> Path:
        """All parameters of the stages."""
        return self.folder / PARAMS_FILE

    @property
    def gates_file(self) -> Path:
        """The expectations of each stage's gate."""
        return self.folder / GATES_FILE

    @property
    def expectations_file(self) -> Path:
        """The user's own expectations."""
        return self.folder / EXPECTATIONS_FILE

    @property
    def dvc_file(self) -> Path:
        """DVC's stages."""
        return self.folder / DVC_YAML

    @property
    def dvc_lock(self) -> Path:
        """DVC's hashes of each stage's inputs and outputs."""
        return self.folder / DVC_LOCK

    @property
    def dvc_folder(self) -> Path:
        """DVC's own files."""
        return self.folder / DVC_FOLDER

    @property
    def dvc_config(self) -> Path:
        """DVC's configuration, which git tracks."""
        return self.dvc_folder / "config"

    @property
    def local_dvc_config(self) -> Path:
        """DVC's configuration of this copy of the workspace, which may hold secrets."""
        return self.dvc_folder / "config.local"

    @property
    def dvc_process_locks(self) -> Path:
        """The DVC commands that read or write a path."""
        return self.dvc_folder / "tmp" / DVC_PROCESS_LOCKS

    @property
    def dvc_lock_draft(self) -> Path:
        """The new dvc.lock, until it is complete."""
        return self.dvc_folder / "tmp" / "dvc.lock.draft"

    @property
    def dvc_ignore(self) -> Path:
        """DVC's patterns of files that it does not track."""
        return self.folder / DVC_IGNORE

    @property
    def git_attributes(self) -> Path:
        """How git merges the workspace's files."""
        return self.folder / GIT_ATTRIBUTES

    @property
    def test_evaluations_file(self) -> Path:
        """The log of test-set evaluations, which git tracks."""
        return self.folder / TEST_EVALUATIONS

    @property
    def reviews(self) -> Path:
        """The review log: the answers of reviewers, one file per reviewer, which git tracks."""
        return self.folder / REVIEWS

    def review_log(self, reviewer: str) -> Path:
        """The answers of a reviewer."""
        return self.reviews / f"{reviewer}.jsonl"

    @property
    def review_folder(self) -> Path:
        """What a review server keeps: its lock, its address, and what is on the pages."""
        return self.state / "review"

    @property
    def review_leases(self) -> Path:
        """The rows that are on the pages of reviewers."""
        return self.review_folder / "leases.json"

    @property
    def review_accuracies(self) -> Path:
        """The accuracy after each refit of a review."""
        return self.review_folder / "accuracy.json"

    @property
    def review_tokens(self) -> Path:
        """The tokens of reviewers."""
        return self.review_folder / "tokens.json"

    @property
    def review_lock(self) -> Path:
        """The lock of the one review server at a time."""
        return self.review_folder / "server.lock"

    @property
    def review_server(self) -> Path:
        """The address and the process of the review server."""
        return self.review_folder / "server.json"

    @property
    def review_stop_rule(self) -> Path:
        """Whether the reviewer's panel says "enough", and why."""
        return self.review_folder / "enough.json"

    @property
    def review_wait(self) -> Path:
        """The suspended run that waits for reviewers."""
        return self.review_folder / "waiting.json"

    @property
    def review_table(self) -> Path:
        """The counts and rates of the review log, as a table."""
        return self.reports / "review.csv"

    @property
    def not_copied_file(self) -> Path:
        """The files of its source that `seedling init` did not copy."""
        return self.folder / NOT_COPIED

    @property
    def data(self) -> Path:
        """The user's rows."""
        return self.folder / DATA

    @property
    def data_pointer(self) -> Path:
        """DVC's hash of data/."""
        return self.folder / DATA_POINTER

    @property
    def packed_data(self) -> Path:
        """The files that `seedling init --pack` packed, as Parquet files."""
        return self.data / PACKED

    @property
    def generations(self) -> Path:
        """The rows that the stages before and between the rounds wrote."""
        return self.folder / GENERATIONS

    def generation(self, stage: str) -> Path:
        """The rows that a stage before the rounds wrote. stage: its name, as in the stage table."""
        return self.generations / stage

    @property
    def pseudo_labels(self) -> Path:
        """The folders of the rounds of pseudo-labels."""
        return self.generations / "pseudo_label"

    @property
    def models(self) -> Path:
        """The folders of the rounds of training."""
        return self.folder / MODELS

    def model(self, round_number: int | str) -> Path:
        """The model of a round."""
        return self.models / str(round_number)

    @property
    def reports(self) -> Path:
        """The results of evaluate, and all pages."""
        return self.folder / REPORTS

    @property
    def evaluation_file(self) -> Path:
        """All results of evaluate."""
        return self.reports / EVALUATION

    @property
    def metrics_file(self) -> Path:
        """The headline metrics, for DVC."""
        return self.reports / METRICS

    @property
    def predictions_file(self) -> Path:
        """The predictions that evaluate scored."""
        return self.reports / PREDICTIONS

    @property
    def plots(self) -> Path:
        """The points of the charts, for DVC and for the report."""
        return self.reports / PLOTS

    @property
    def report_page(self) -> Path:
        """The report."""
        return self.reports / REPORT_PAGE

    @property
    def data_page(self) -> Path:
        """The page of likely label errors, duplicates and low-quality rows."""
        return self.reports / DATA_PAGE

    @property
    def label_issues_file(self) -> Path:
        """The likely label errors as a table."""
        return self.reports / LABEL_ISSUES

    @property
    def history_page(self) -> Path:
        """The page of all runs."""
        return self.reports / HISTORY_PAGE

    @property
    def gates_page(self) -> Path:
        """The page of all gates."""
        return self.reports / GATES_PAGE

    @property
    def ablation_file(self) -> Path:
        """The result of `seedling ablate`."""
        return self.reports / ABLATION

    def contact_sheet(self, stage: str) -> Path:
        """The page of `seedling show` for a stage."""
        return self.reports / f"contact_sheet_{stage}.html"

    def comparison_page(self, old: str, new: str) -> Path:
        """The page of `seedling compare`. old, new: the revisions as parts of a file name."""
        return self.reports / f"compare-{old}-{new}.html"

    @property
    def quarantine(self) -> Path:
        """The outputs of stages whose gate failed."""
        return self.folder / QUARANTINE

    @property
    def state(self) -> Path:
        """What is specific to this copy of the workspace: caches, locks, logs, unfinished work."""
        return self.folder / STATE

    @property
    def run_lock(self) -> Path:
        """The lock of the one run at a time."""
        return self.state / "run.lock"

    @property
    def run_pid(self) -> Path:
        """The process id of the run, written while the lock is held, and never removed."""
        return self.state / "run.pid"

    @property
    def open_run(self) -> Path:
        """Exists during a run, and after a run that was stopped."""
        return self.state / "open_run"

    @property
    def open_visit(self) -> Path:
        """A visit to the sites that the next run continues or retries."""
        return self.state / "visit.json"

    @property
    def run_records(self) -> Path:
        """The records of past runs."""
        return self.state / "runs"

    def run_record(self, name: str) -> Path:
        """The record of a run."""
        return self.run_records / f"{name}.json"

    @property
    def snapshot(self) -> Path:
        """The inputs of a run, as a workspace of their own."""
        return self.state / "snapshot"

    @property
    def snapshot_digest(self) -> Path:
        """DVC's hash of the data/ that the snapshot holds."""
        return self.snapshot / "data.digest"

    @property
    def unfinished_snapshot_data(self) -> Path:
        """The data/ of the snapshot, until it is complete."""
        return self.snapshot / "data.unfinished"

    @property
    def partials(self) -> Path:
        """The folders of stages that have not ended."""
        return self.state / "partial"

    def partial(self, stage: str) -> Path:
        """The folder that a stage writes to, until its gate has passed."""
        return self.partials / stage

    @property
    def unfinished(self) -> Path:
        """Fold models and checkpoints of rounds that were stopped."""
        return self.state / "unfinished"

    def training_seconds(self, stage: str) -> Path:
        """How long each candidate of a round took."""
        return self.state / "seconds" / f"{stage}.json"

    @property
    def feature_cache(self) -> Path:
        """Features by row id."""
        return self.state / "features"

    @property
    def crawl_stores(self) -> Path:
        """What the sites answered, and the rates at which they were requested."""
        return self.state / "web"

    @property
    def gate_records(self) -> Path:
        """What gates keep outside of the generations."""
        return self.state / "gates"

    @property
    def gate_history(self) -> Path:
        """All runs of all gates."""
        return self.gate_records / "history.jsonl"

    def gate_comparisons(self, stage: str) -> Path:
        """The checks that compare a stage's rows with its previous generation."""
        return self.gate_records / f"{stage}.json"

    def compared_rows(self, stage: str) -> Path:
        """The values of a stage's rows that the next run of its gate compares."""
        return self.gate_records / f"{stage}.parquet"

    @property
    def ablation(self) -> Path:
        """The out-of-fold rows of each variant of `seedling ablate`."""
        return self.state / "ablation"

    def ablation_rows(self, key: str) -> Path:
        """The out-of-fold rows of a variant."""
        return self.ablation / f"{key}.parquet"

    @property
    def ablation_variant(self) -> Path:
        """The workspace of the variant that is running."""
        return self.ablation / "running"

    @property
    def test_evaluations_copy(self) -> Path:
        """The lines of the log of test-set evaluations that a checkout of an older commit removes from it."""
        return self.state / TEST_EVALUATIONS

    @property
    def former_test_evaluations(self) -> Path:
        """The log of test-set evaluations under its former name."""
        return self.state / "looks.jsonl"

    @property
    def push_state(self) -> Path:
        """The last push to DVC's remote."""
        return self.state / "push.json"

    @property
    def report_server(self) -> Path:
        """The address and the process of the server of the pages."""
        return self.state / "report-server.json"

    @property
    def logs(self) -> Path:
        """The logs of errors and servers."""
        return self.state / "logs"

    @property
    def error_log(self) -> Path:
        """The tracebacks of unexpected errors."""
        return self.logs / "errors.log"

    @property
    def prefect_server_log(self) -> Path:
        """The output of the temporary Prefect server of a run."""
        return self.logs / "prefect-server.log"

    @property
    def schedule_server_log(self) -> Path:
        """The output of the Prefect server of `seedling schedule`."""
        return self.logs / "prefect-schedule-server.log"
