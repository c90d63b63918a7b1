"""`seedling clean`: removes files that no kept run needs, and prints how many bytes this frees.

The command keeps the current workspace, every branch, tag and stash, the latest runs with their experiments, tagged
experiments, and experiments that Seedling did not create. It removes DVC objects and run-cache entries that none of
these needs.
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
from seedling.records.run_records import read_run_records
from seedling.terminal.console import PrintableConsole
from seedling.versioning.experiments import reference_name
from seedling.versioning.git import git
from seedling.versioning.pushing import experiment_refs
from seedling.versioning.storage import CacheUse, remove_cache_files, unused_cache
from seedling.workspace import DVC_LOCK, Workspace

DAY_SECONDS = 86_400.0


@dataclass(frozen=True)
class Keep:
    """What is kept. runs: the number of latest runs. Ages are in days, the size of the feature cache in megabytes."""

    runs: int = 20
    quarantine_days: float = 30.0
    feature_days: float = 30.0
    feature_megabytes: float = 1_000.0
    flow_run_days: float = 30.0
    all_commits: bool = False


@dataclass(frozen=True)
class Removal:
    """A kind of files or records to remove: its name, the number of items, and the number of bytes that this frees."""

    kind: str
    count: int
    size_bytes: int


@dataclass
class Plan:
    """The files and records to remove, and the names of the runs to keep."""

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
        """The count and the size per kind."""
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
        """Return the workspace's runs that ended more than `days` days ago."""

    def remove(self, flow_runs: list[Any]) -> None:
        """Remove these runs from the server."""


def clean(workspace: Path, keep: Keep, *, apply: bool, flow_runs: FlowRuns | None = None) -> Plan:
    """Find the files and records that can be removed, and remove them if `apply` is true.

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
    refs, past_runs = experiment_refs(workspace), read_run_records(workspace)
    ref_to_run = {reference_name(run.name): run.name for run in past_runs}
    latest_runs = {run.name for run in past_runs[-keep.runs :]} if keep.runs else set()
    kept_runs = latest_runs | {
        ref_to_run[name]
        for ref, commit in refs.items()
        if (name := ref.rsplit("/", 1)[-1]) in ref_to_run and _is_needed(workspace, commit)
    }
    removed_refs = {
        ref: commit
        for ref, commit in refs.items()
        if (name := ref.rsplit("/", 1)[-1]) in ref_to_run and ref_to_run[name] not in kept_runs
    }
    revisions = [commit for ref, commit in refs.items() if ref not in removed_refs]
    plan, paths = Plan(workspace, sorted(kept_runs), removed_refs), Workspace(workspace)
    plan.run_records = [paths.run_record(run.name) for run in past_runs if run.name not in kept_runs]
    plan.cache = unused_cache(workspace, [*revisions, *_other_revisions(workspace, refs)], all_commits=keep.all_commits)
    plan.quarantine = _older_than(paths.quarantine, keep.quarantine_days)
    plan.features = list(_old_features(paths.feature_cache, keep))
    leftovers = (paths.partials, paths.unfinished, paths.snapshot, paths.ablation_variant)
    plan.leftovers = [path for folder in leftovers for path in _entries(folder)]
    return plan


def _is_needed(workspace: Path, commit: str) -> bool:
    """Whether a tag or a branch contains the experiment's commit, or the workspace has its results."""
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
    lock = Workspace(workspace).dvc_lock
    lock_blob = git(workspace, "rev-parse", "--verify", "--quiet", f"{commit}:{prefix}{DVC_LOCK}", check=False)
    return lock.is_file() and lock_blob == git(workspace, "hash-object", "--no-filters", str(lock))


def _other_revisions(workspace: Path, experiments: Collection[str]) -> list[str]:
    """Return the commits of HEAD, remote branches, stashes and DVC's queue, each once."""
    lines = git(
        workspace, "for-each-ref", "--format=%(refname) %(objectname)", "refs/remotes", "refs/exps"
    ).splitlines()
    ref_to_commit = dict(line.rsplit(" ", 1) for line in lines)
    commits = [commit for ref, commit in ref_to_commit.items() if ref not in experiments]
    stashes = git(workspace, "reflog", "show", "--format=%H", "refs/stash", check=False).split()
    head = git(workspace, "rev-parse", "--verify", "--quiet", "HEAD", check=False).split()
    return list(dict.fromkeys([*head, *commits, *stashes]))


def _apply(plan: Plan) -> None:
    """Remove the planned files and records.

    Experiments are removed first, so that a kill leaves no experiment without its files; the next call removes the
    rest.
    """
    for ref in plan.experiments:
        git(plan.workspace, "update-ref", "-d", ref)
    remove_cache_files(plan.workspace, [*plan.cache.run_entries, *plan.cache.objects])
    for path in [*plan.run_records, *plan.quarantine, *plan.features, *plan.leftovers]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _old_features(folder: Path, keep: Keep) -> Iterator[Path]:
    """Yield feature caches unused for `feature_days`, and the least recently used ones above `feature_megabytes`."""
    paths = sorted(_entries(folder), key=lambda path: path.stat().st_mtime, reverse=True)
    total_bytes = 0
    for path in paths:
        total_bytes += _size(path)
        age_seconds = time.time() - path.stat().st_mtime
        if age_seconds > keep.feature_days * DAY_SECONDS or total_bytes > keep.feature_megabytes * 1e6:
            yield path


def _older_than(folder: Path, days: float) -> list[Path]:
    return [path for path in _entries(folder) if time.time() - path.stat().st_mtime > days * DAY_SECONDS]


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _size(path: Path) -> int:
    if path.is_dir():
        return sum(file.lstat().st_size for file in path.rglob("*") if not file.is_dir())
    return path.lstat().st_size if path.exists() else 0


def show_plan(plan: Plan, *, applied: bool) -> None:
    """Print the number and the bytes of removed items per kind, and the sum. applied: whether they were removed."""
    console, total_bytes = PrintableConsole(), 0
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("", "number", "bytes"):
        table.add_column(name, justify="right" if name else "left", header_style="dim")
    for removal in plan.removals:
        total_bytes += removal.size_bytes
        table.add_row(removal.kind, f"{removal.count:,}", f"{removal.size_bytes:,}")
    console.print(table)
    console.print(f"{len(plan.kept_runs)} runs are kept.", highlight=False)
    if applied:
        console.print(f"{total_bytes:,} bytes were freed.", highlight=False)
    else:
        console.print(f"{total_bytes:,} bytes would be freed: `seedling clean --apply` does it.", highlight=False)
