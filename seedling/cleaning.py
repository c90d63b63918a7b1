"""`seedling clean`: removes what no kept run needs, and says how many bytes that frees.

Kept are the workspace as it lies, every branch, tag and stash, the last runs with their experiments, tagged experiments, and experiments
that no run of Seedling made. DVC's objects and run-cache entries go where none of these needs them.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from seedling.config.params import load
from seedling.lock import workspace_lock
from seedling.records.run_history import runs
from seedling.records.run_records import FOLDER as RUN_RECORDS
from seedling.terminal.console import PrintableConsole
from seedling.versioning.experiments import reference_name
from seedling.versioning.git import git
from seedling.versioning.pushing import experiment_refs
from seedling.versioning.storage import CacheUse, remove_cache_files, unused_cache

DAY_SECONDS = 86_400.0
LEFTOVERS = (".seedling/partial", ".seedling/unfinished", ".seedling/snapshot", ".seedling/ablation/running")
FEATURES = ".seedling/features"


@dataclass(frozen=True)
class Keep:
    """How much is kept. runs: the last ones; the others in days, and megabytes of the feature cache."""

    runs: int = 20
    quarantine_days: float = 30.0
    feature_days: float = 30.0
    feature_megabytes: float = 1_000.0
    flow_run_days: float = 30.0
    all_commits: bool = False


@dataclass(frozen=True)
class Removal:
    """One kind of what goes: its name, how many of it, and the bytes that this frees."""

    kind: str
    count: int
    size_bytes: int


@dataclass
class Plan:
    """What is to be removed, and the names of the runs that are kept."""

    workspace: Path
    kept_runs: list[str]
    experiments: dict[str, str] = field(default_factory=dict)  # ref → commit
    run_records: list[Path] = field(default_factory=list)
    cache: CacheUse = field(default_factory=lambda: CacheUse([], 0, [], 0))
    quarantine: list[Path] = field(default_factory=list)
    features: list[Path] = field(default_factory=list)
    leftovers: list[Path] = field(default_factory=list)
    flow_runs: list[Any] = field(default_factory=list)

    @property
    def removals(self) -> list[Removal]:
        """Each kind with its count and size."""
        files = {
            "run records": self.run_records,
            "quarantined generations": self.quarantine,
            "feature caches": self.features,
            "leftovers of killed runs": self.leftovers,
        }
        return [
            Removal("experiments", len(self.experiments), 0),
            Removal("DVC cache objects", len(self.cache.objects), self.cache.object_bytes),
            Removal("run-cache entries", len(self.cache.run_entries), self.cache.run_entry_bytes),
            *(Removal(kind, len(paths), sum(map(_size, paths))) for kind, paths in files.items()),
            Removal("Prefect flow runs", len(self.flow_runs), 0),
        ]


class FlowRuns(Protocol):
    """The records of past runs on an orchestrator's server, such as Prefect's flow runs."""

    def older_than(self, workspace: Path, days: float) -> list[Any]:
        """The workspace's runs that ended so many days ago."""

    def remove(self, flow_runs: list[Any]) -> None:
        """Removes these runs from the server."""


def clean(workspace: Path, keep: Keep, *, apply: bool, flow_runs: FlowRuns | None = None) -> Plan:
    """Finds what can be removed, and removes it if `apply`.

    flow_runs: the server's records of past runs; None leaves them alone.
    Raises WorkspaceBusy during a run, SeedlingError if a branch cannot be read.
    """
    load(workspace)
    with workspace_lock(workspace):
        plan = _plan(workspace, keep)
        if flow_runs is not None:
            plan.flow_runs = flow_runs.older_than(workspace, keep.flow_run_days)
        if apply:
            _apply(plan)
            if flow_runs is not None and plan.flow_runs:
                flow_runs.remove(plan.flow_runs)
    return plan


def _plan(workspace: Path, keep: Keep) -> Plan:
    refs, past = experiment_refs(workspace), runs(workspace)
    of_runs = {reference_name(run.name): run.name for run in past}
    last = {run.name for run in past[-keep.runs :]} if keep.runs else set()
    kept = last | {
        of_runs[name]
        for ref, commit in refs.items()
        if (name := ref.rsplit("/", 1)[-1]) in of_runs and _must_stay(workspace, ref, commit)
    }
    gone = {
        ref: commit
        for ref, commit in refs.items()
        if (name := ref.rsplit("/", 1)[-1]) in of_runs and of_runs[name] not in kept
    }
    revisions = [commit for ref, commit in refs.items() if ref not in gone]
    plan = Plan(workspace, sorted(kept), gone)
    plan.run_records = [workspace / RUN_RECORDS / f"{run.name}.json" for run in past if run.name not in kept]
    plan.cache = unused_cache(workspace, [*revisions, *_other_revisions(workspace, refs)], all_commits=keep.all_commits)
    plan.quarantine = _older_than(workspace / "quarantine", keep.quarantine_days)
    plan.features = list(_old_features(workspace / FEATURES, keep))
    plan.leftovers = [path for name in LEFTOVERS for path in _entries(workspace / name)]
    return plan


def _must_stay(workspace: Path, ref: str, commit: str) -> bool:
    """Whether a tag or branch has the experiment, or the workspace's results are its results."""
    if git(
        workspace,
        "for-each-ref",
        "--contains",
        commit,
        "--format=%(refname)",
        "refs/heads",
        "refs/tags",
        "refs/remotes",
    ):
        return True
    prefix = git(workspace, "rev-parse", "--show-prefix")
    lock = workspace / "dvc.lock"
    saved = git(workspace, "rev-parse", "--verify", "--quiet", f"{commit}:{prefix}dvc.lock", check=False)
    return lock.is_file() and saved == git(workspace, "hash-object", "--no-filters", str(lock))


def _other_revisions(workspace: Path, experiments: Collection[str]) -> list[str]:
    """Commits beside the local branches, the tags and the experiments: HEAD, remote branches, stashes, DVC's queue."""
    listed = git(
        workspace, "for-each-ref", "--format=%(refname) %(objectname)", "refs/remotes", "refs/exps"
    ).splitlines()
    others = dict(line.rsplit(" ", 1) for line in listed)
    commits = [commit for ref, commit in others.items() if ref not in experiments]
    stashes = git(workspace, "reflog", "show", "--format=%H", "refs/stash", check=False).split()
    head = git(workspace, "rev-parse", "--verify", "--quiet", "HEAD", check=False).split()
    return list(dict.fromkeys([*head, *commits, *stashes]))


def _apply(plan: Plan) -> None:
    """Experiments go first, so that a kill leaves none without its files; the next call removes the rest."""
    for ref in plan.experiments:
        git(plan.workspace, "update-ref", "-d", ref)
    remove_cache_files(plan.workspace, [*plan.cache.run_entries, *plan.cache.objects])
    for path in [*plan.run_records, *plan.quarantine, *plan.features, *plan.leftovers]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _old_features(folder: Path, keep: Keep) -> Iterator[Path]:
    """Caches that no run used for so many days, then the least recently used ones beyond so many megabytes."""
    paths = sorted(_entries(folder), key=lambda path: path.stat().st_mtime, reverse=True)
    total = 0
    for path in paths:
        total += _size(path)
        age = time.time() - path.stat().st_mtime
        if age > keep.feature_days * DAY_SECONDS or total > keep.feature_megabytes * 1e6:
            yield path


def _older_than(folder: Path, days: float) -> list[Path]:
    return [path for path in _entries(folder) if time.time() - path.stat().st_mtime > days * DAY_SECONDS]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(inner.lstat().st_size for inner in path.rglob("*") if not inner.is_dir())
    return path.lstat().st_size if path.exists() else 0


def show_plan(plan: Plan, *, applied: bool) -> None:
    """Prints what goes, or went, by kind, and the sum."""
    console, total = PrintableConsole(), 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "number", "bytes"):
        table.add_column(name, justify="right" if name else "left", header_style="dim")
    for removal in plan.removals:
        total += removal.size_bytes
        table.add_row(removal.kind, f"{removal.count:,}", f"{removal.size_bytes:,}")
    console.print(table)
    console.print(f"{len(plan.kept_runs)} runs are kept.", highlight=False)
    if applied:
        console.print(f"{total:,} bytes were freed.", highlight=False)
    else:
        console.print(f"{total:,} bytes would be freed: `seedling clean --apply` does it.", highlight=False)
