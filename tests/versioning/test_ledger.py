"""The ledger: unchanged, restored, done; and the traps of recording without running."""

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
    """A plain dvc command, as a user types it."""
    command = [sys.executable, "-m", "dvc", *arguments]
    return subprocess.run(command, cwd=workspace, capture_output=True, text=True, check=True).stdout


def test_the_table_of_stages_is_that_of_dvc_yaml(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same names, folders read and folders written, by DVC's own reading of dvc.yaml."""
    from dvc.repo import Repo

    monkeypatch.chdir(workspace)  # DVC names stages as seen from the working directory
    with Repo(str(workspace)) as repo:
        found = {
            stage.addressing: (
                {dep.def_path for dep in stage.deps if dep.def_path not in {"params.yaml", "gates.yaml"}},
                {out.def_path for out in stage.outs},
            )
            for stage in repo.index.stages
            if stage.addressing != "data.dvc"
        }
    assert set(found) == set(stages())
    for name, stage in stages().items():
        deps, outs = found[name]
        assert {one for one in deps if not one.endswith("manifest.json")} == set(stage.inputs), name
        assert all(one == stage.output or one.startswith(f"{stage.output}/") for one in outs), name


@pytest.mark.slow
def test_a_stage_is_done_then_unchanged_and_dvc_agrees(workspace: Path) -> None:
    """After the first run, `dvc repro` of the stage has nothing to do."""
    ledger = Ledger(workspace)
    assert ledger.run("scrape").how == "done"
    assert ledger.run("scrape").how == "unchanged"
    assert "didn't change, skipping" in dvc(workspace, "repro", "--single-item", "scrape")


@pytest.mark.slow
def test_a_reader_of_dvc_lock_never_sees_half_of_it(scraped: Path) -> None:
    """A file opened before a stage is recorded, or before the entries are sorted, still reads the earlier bytes whole."""
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
def test_what_was_seen_before_is_restored_and_is_never_stale(workspace: Path) -> None:
    """Seed 1, seed 2, seed 1 again: the third is restored, with the first one's bytes, not the second's."""

    def generation() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (workspace / "generations/validate").iterdir()}

    ledger, found = Ledger(workspace), []
    for seed, how in ((1, "done"), (2, "done"), (1, "restored")):
        set_value(workspace, ["seed"], seed)
        ledger.run("scrape")
        assert ledger.run("validate").how == how
        found.append(generation())
    assert found[0] == found[2] != found[1]
    assert Ledger(workspace).run("validate").how == "unchanged"


@pytest.mark.slow
def test_a_changed_input_is_not_taken_for_a_known_one(scraped: Path) -> None:
    """One more image in data/ runs scrape again: no false hit in the run cache."""
    ledger = Ledger(scraped)
    (scraped / "data/unlabeled/0.png").rename(scraped / "data/unlabeled/renamed.png")
    assert ledger.track_data()
    assert ledger.run("scrape").how == "done"


def test_outputs_that_were_changed_by_hand_are_put_back(scraped: Path) -> None:
    """As `dvc repro` would."""
    ledger = Ledger(scraped)
    manifest = scraped / "generations/scrape/manifest.json"
    before = manifest.read_bytes()
    manifest.write_text("{}")
    assert ledger.run("scrape").how == "restored"
    assert manifest.read_bytes() == before


@pytest.mark.slow
def test_a_failed_gate_records_nothing_and_keeps_the_rows_in_quarantine(scraped: Path) -> None:
    """The last good generation stays, dvc.lock stays, and the error says where the rows are."""
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
def test_a_gate_that_passes_again_is_so_on_the_page_of_the_gates(workspace: Path) -> None:
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
def test_what_changes_while_a_stage_works_belongs_to_the_next_run(workspace: Path) -> None:
    """An image that is removed and one that is added during the work: dvc.lock names what was read, and DVC sees the change."""
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
    """Which of the origins scrape's generation has."""
    folder = workspace / "generations/scrape"
    rows = set(read(folder, ["origin"])["origin"]) if folder.is_dir() else set()
    return [origin for origin in origins if origin in rows]


def test_missing_data_comes_back_from_the_cache(workspace: Path) -> None:
    """data/ deleted: it is checked out; deleted with its stored copy: the error says what to do."""
    import shutil

    ledger = Ledger(workspace)
    shutil.rmtree(workspace / "data")
    assert ledger.track_data()
    assert (workspace / "data/labeled/disc/0.png").exists()
    shutil.rmtree(workspace / "data")
    shutil.rmtree(workspace / ".dvc/cache")
    with pytest.raises(InputError, match="dvc pull"):
        Ledger(workspace).track_data()
