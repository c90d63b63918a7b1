"""A scheduled visit to the web: what it does where nothing is new, where rows are, and after it was stopped."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

import pytest
from dvc.repo import Repo
from loopback import Reply, Site, site

from seedling.config.params import load, set_value
from seedling.dataset.generation import read
from seedling.errors import GateFailed
from seedling.files.writing import write_json
from seedling.init.create import make_workspace
from seedling.versioning.ledger import Ledger
from seedling.web_visits import has_open_visit, visit_sources
from seedling.workspace import Workspace

WORDS = {"rain": ("it pours on", "wet boots in"), "sun": ("bright light on", "dry sand in")}


def page(numbers: range) -> str:
    """A page with one text for each number, rain and sun in turn."""
    texts = [(label, f"{WORDS[label][number % 2]} the hill {number}") for number in numbers for label in WORDS]
    return "".join(f"<p><q>{text}</q><b>{label}</b></p>" for label, text in texts)


@pytest.fixture(scope="module")
def server() -> Iterator[Site]:
    """A site that runs for all tests of this file, so that they can share a workspace with its address."""
    with site() as running:
        yield running


@pytest.fixture
def web(server: Site) -> Site:
    """The site with twenty labeled texts."""
    server.etags = True
    server.routes = {"/": page(range(10))}
    server.requests.clear()
    return server


@pytest.fixture(scope="module")
def scraped_workspace(server: Site, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose rows all come from the site, scraped once. Only to be copied."""
    created = make_workspace(tmp_path_factory.mktemp("scraped") / "workspace", None, "text", encoder="none")
    crawl = {"kind": "crawl", "start": server.address + "/", "item": "p", "text": "q::text", "tag": "b::text"}
    set_value(created, ["scrape", "sources"], [{**crawl, "allow_private_hosts": True, "requests_per_second": 200}])
    server.etags = True
    server.routes = {"/": page(range(10))}
    Ledger(created).run("scrape")
    return created


@pytest.fixture
def workspace(scraped_workspace: Path, web: Site, tmp_path: Path) -> Path:
    """A copy of the scraped workspace."""
    return Path(shutil.copytree(scraped_workspace, tmp_path / "workspace", symlinks=True))


def visit(workspace: Path) -> str:
    """What a scheduled run does before its other stages; gives how scrape came about."""
    ledger = Ledger(workspace)
    with ledger.snapshotted():
        outcome = visit_sources(ledger) or ledger.run("scrape")
    return outcome.how


def tracked(workspace: Path) -> dict[str, bytes]:
    """The files of the workspace that git or DVC tracks."""
    names = ["params.yaml", "dvc.lock", "data.dvc", "gates.yaml", "dvc.yaml"]
    files = [workspace / name for name in names] + sorted((workspace / "generations").rglob("*"))
    return {str(path): path.read_bytes() for path in files if path.is_file()}


def changed_by_dvc(workspace: Path) -> dict[str, object]:
    """What `dvc status scrape` finds to be changed."""
    with chdir(workspace), Repo() as repo:
        return dict(repo.status(targets=["scrape"]))


@pytest.mark.slow
def test_a_visit_that_brings_nothing_changes_no_file(workspace: Path, web: Site) -> None:
    """The site is asked again; params.yaml, dvc.lock and the rows keep their bytes, and a later run takes the rows as they are."""
    before = tracked(workspace)
    web.requests.clear()
    assert visit(workspace) == "unchanged"
    assert web.paths() == ["/"]
    assert tracked(workspace) == before
    assert changed_by_dvc(workspace) == {}
    assert visit(workspace) == "unchanged"
    Ledger(workspace).run("scrape", force=True)
    assert tracked(workspace) == before


@pytest.mark.slow
def test_a_visit_that_brings_rows_is_named_in_params(workspace: Path, web: Site) -> None:
    """The new rows are there, `as_of` says when, and DVC has recorded both."""
    web.routes["/"] = page(range(11))
    assert visit(workspace) == "done"
    assert len(read(workspace / "generations/scrape")) == 22
    as_of = load(workspace).scrape.as_of
    assert as_of is not None
    assert as_of.startswith("20")
    assert as_of in (workspace / "dvc.lock").read_text(encoding="utf-8")
    assert changed_by_dvc(workspace) == {}


@pytest.mark.slow
def test_a_visit_to_a_site_that_is_down_changes_nothing(
    workspace: Path, web: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    """What could not be reached is stated, and the next visit has the rows that came meanwhile."""
    before = tracked(workspace)
    web.routes["/"] = Reply("", 503)
    assert visit(workspace) == "unchanged"
    assert tracked(workspace) == before
    assert "could not be reached: page_http_503 (1)" in capfd.readouterr().err
    web.routes["/"] = page(range(12))
    assert visit(workspace) == "done"
    assert len(read(workspace / "generations/scrape")) == 24


@pytest.mark.slow
def test_rows_that_a_gate_refuses_are_asked_for_again(workspace: Path, web: Site) -> None:
    """A bad batch stops the run; once the site is right again, the next visit brings the right rows."""
    gate = "scrape: [expect_table_row_count_to_be_between: {max_value: 23, severity: critical}]\n"
    (workspace / "gates.yaml").write_text(gate, encoding="utf-8")
    web.routes["/"] = page(range(30))
    with pytest.raises(GateFailed):
        visit(workspace)
    assert len(read(workspace / "generations/scrape")) == 20
    assert has_open_visit(workspace)
    (workspace / "gates.yaml").write_text(gate.replace("23", "70"), encoding="utf-8")
    assert visit(workspace) == "done"
    assert len(read(workspace / "generations/scrape")) == 60
    assert not has_open_visit(workspace)


@pytest.mark.slow
def test_rows_of_a_visit_that_was_killed_after_it_was_recorded_stay(workspace: Path, web: Site) -> None:
    """Killed before its name was written into params.yaml: the next run writes the name and keeps the rows."""
    params_before = (workspace / "params.yaml").read_bytes()
    web.routes["/"] = page(range(11))
    assert visit(workspace) == "done"
    name = load(workspace).scrape.as_of
    (workspace / "params.yaml").write_bytes(params_before)
    assert list(changed_by_dvc(workspace)) == ["scrape"]
    write_json(Workspace(workspace).open_visit, {"as_of": name, "state": "unfinished"})
    assert visit(workspace) == "unchanged"
    assert len(read(workspace / "generations/scrape")) == 22
    assert load(workspace).scrape.as_of == name
    assert changed_by_dvc(workspace) == {}
    assert not has_open_visit(workspace)
