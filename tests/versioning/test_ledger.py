"""The ledger: stages that are unchanged, restored or done, and pitfalls of recording stages without running them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from seedling.config.params import set_value
from seedling.dataset.generation import read
from seedling.errors import GateFailed, InputError
from seedling.pipeline import stages
from seedling.progress import Progress, silent
from seedling.versioning.ledger import Ledger


def dvc(workspace: Path, *arguments: str) -> str:
    """Run a plain dvc command, as a user types it."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True).stdout


def test_the_stage_table_is_that_of_dvc_yaml(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The names, inputs and outputs are those that DVC reads from dvc.yaml."""
    from dvc.repo import Repo

    monkeypatch.chdir(workspace)  # DVC names stages as seen from the working directory
    with Repo(str(workspace)) as repo:
        dvc_stages = {
            stage.addressing: (
                {dep.def_path for dep in stage.deps if dep.def_path not in {"params.yaml", "gates.yaml"}},
                {out.def_path for out in stage.outs},
            )
            for stage in repo.index.stages
            if stage.addressing != "data.dvc"
        }
    assert set(dvc_stages) == set(stages())
    for name, stage in stages().items():
        deps, outs = dvc_stages[name]
        assert {dep for dep in deps if not dep.endswith("manifest.json")} == set(stage.inputs), name
        assert all(out == stage.output or out.startswith(f"{stage.output}/") for out in outs), name


@pytest.mark.slow
def test_a_stage_is_done_then_unchanged_and_dvc_agrees(workspace: Path) -> None:
    """After the first run, `dvc repro` of the stage has nothing to do."""
    ledger = Ledger(workspace)
    assert ledger.run("scrape").how == "done"
    assert ledger.run("scrape").how == "unchanged"
    assert "didn't change, skipping" in dvc(workspace, "repro", "--single-item", "scrape")


@pytest.mark.slow
def test_a_reader_of_dvc_lock_never_reads_half_of_it(scraped: Path) -> None:
    """A file opened before a stage is recorded, or before the entries are sorted, still has all earlier bytes."""
    ledger, lock = Ledger(scraped), scraped / "dvc.lock"
    before = lock.read_bytes()
    with lock.open("rb") as opened:
        ledger.run("validate")
        assert opened.read() == before
    stages_in_lock = yaml.safe_load(lock.read_text())["stages"]
    assert set(stages_in_lock) == {"scrape", "validate"}
    unsorted = yaml.safe_dump({"schema": "2.0", "stages": dict(reversed(stages_in_lock.items()))}, sort_keys=False)
    lock.write_text(unsorted)
    with lock.open() as opened_text:
        ledger.sort_lock()
        assert opened_text.read() == unsorted
    assert list(yaml.safe_load(lock.read_text())["stages"]) == ["scrape", "validate"]


@pytest.mark.slow
def test_an_earlier_state_is_restored_and_never_stale(workspace: Path) -> None:
    """Seed 1, seed 2, seed 1 again: the third is restored, with the first one's bytes and not the second's."""

    def generation() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (workspace / "generations/validate").iterdir()}

    ledger, generations = Ledger(workspace), []
    for seed, how in ((1, "done"), (2, "done"), (1, "restored")):
        set_value(workspace, ["seed"], seed)
        ledger.run("scrape")
        assert ledger.run("validate").how == how
        generations.append(generation())
    assert generations[0] == generations[2] != generations[1]
    assert Ledger(workspace).run("validate").how == "unchanged"


@pytest.mark.slow
def test_a_changed_input_is_not_mistaken_for_an_earlier_one(scraped: Path) -> None:
    """One more image in data/ runs scrape again, without a false hit in the run cache."""
    ledger = Ledger(scraped)
    (scraped / "data/unlabeled/0.png").rename(scraped / "data/unlabeled/renamed.png")
    assert ledger.track_data()
    assert ledger.run("scrape").how == "done"


def test_outputs_that_were_edited_are_restored(scraped: Path) -> None:
    """As `dvc repro` does."""
    ledger = Ledger(scraped)
    manifest = scraped / "generations/scrape/manifest.json"
    before = manifest.read_bytes()
    manifest.write_text("{}")
    assert ledger.run("scrape").how == "restored"
    assert manifest.read_bytes() == before


@pytest.mark.slow
def test_a_failed_gate_records_nothing_and_keeps_the_rows_in_quarantine(scraped: Path) -> None:
    """The last good generation and dvc.lock are unchanged, and the error has the location of the rows."""
    ledger = Ledger(scraped)
    lock, rows = (scraped / "dvc.lock").read_bytes(), scraped / "generations/scrape"
    kept = {path.name: path.read_bytes() for path in rows.iterdir()}
    (scraped / "gates.yaml").write_text("scrape: [expect_table_row_count_to_be_between: {min_value: 1000}]\n")
    with pytest.raises(GateFailed, match=r"observed 53; expected min_value=1000") as caught:
        ledger.run("scrape")
    assert (scraped / "dvc.lock").read_bytes() == lock
    assert {path.name: path.read_bytes() for path in rows.iterdir()} == kept
    (quarantined,) = (scraped / "quarantine").iterdir()
    assert quarantined.name in str(caught.value)
    assert (quarantined / "part-00000.parquet").exists()


@pytest.mark.slow
def test_a_fixed_gate_is_shown_as_passed_on_the_gates_page(workspace: Path) -> None:
    """The page says that the gate fails, and after the fix that it passes, with both results in its history."""
    pages = []
    for least in (1000, 10):
        (workspace / "gates.yaml").write_text(
            f"scrape: [expect_table_row_count_to_be_between: {{min_value: {least}}}]\n"
        )
        with pytest.raises(GateFailed) if least > 53 else nullcontext():
            Ledger(workspace).run("scrape")
        pages.append((workspace / "reports" / "gates.html").read_text(encoding="utf-8"))
    assert "Failing now" in pages[0] and "min_value=1000" in pages[0]
    assert "Failing now" not in pages[1] and "min_value=10<" in pages[1]
    assert "Failed gates" in pages[1]


@pytest.mark.slow
def test_changes_while_a_stage_runs_belong_to_the_next_run(workspace: Path) -> None:
    """An image that is removed and one that is added during the run: dvc.lock has what was read, and DVC detects the
    change.
    """
    ledger = Ledger(workspace)

    @contextmanager
    def edit(_: str) -> Iterator[Progress]:
        (workspace / "data/unlabeled/0.png").rename(workspace / "data/unlabeled/new.png")
        set_value(workspace, ["scrape", "max_megabytes"], 7.0)
        yield silent

    ledger.watch = edit
    with ledger.snapshotted():
        assert ledger.run("scrape").how == "done"
        assert ledger.changed_during_run() == ["data/ (1 renamed)", "params.yaml"]
    assert origins_of(workspace, "unlabeled/0.png", "unlabeled/new.png") == ["unlabeled/0.png"]
    assert "max_megabytes" not in (workspace / "dvc.lock").read_text()
    assert "modified" in dvc(workspace, "status")
    ledger.watch = lambda _: nullcontext(silent)
    assert ledger.run("scrape").how == "done"
    assert origins_of(workspace, "unlabeled/0.png", "unlabeled/new.png") == ["unlabeled/new.png"]


def origins_of(workspace: Path, *origins: str) -> list[str]:
    """The origins that scrape's generation has."""
    folder = workspace / "generations/scrape"
    rows = set(read(folder, ["origin"])["origin"]) if folder.is_dir() else set()
    return [origin for origin in origins if origin in rows]


def test_missing_data_is_restored_from_the_cache(workspace: Path) -> None:
    """A deleted data/ is checked out; if its cached copy is deleted too, the error names the fix."""
    import shutil

    ledger = Ledger(workspace)
    shutil.rmtree(workspace / "data")
    assert ledger.track_data()
    assert (workspace / "data/labeled/disc/0.png").exists()
    shutil.rmtree(workspace / "data")
    shutil.rmtree(workspace / ".dvc/cache")
    with pytest.raises(InputError, match="dvc pull"):
        Ledger(workspace).track_data()
