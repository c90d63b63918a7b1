"""What `seedling init` writes beside the data: a deployment that a worker can run, a page for people, and a clean repository."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from services import (
    TERMINAL_STATES,
    Service,
    deployment_of,
    post,
    process_worker,
    running,
    runs_of,
    wait_for,
)
from short_runs import shorten_runs

PROJECT = Path(__file__).parents[2]
WORKSPACE_FILES = {
    ".dvc/config",
    ".dvcignore",
    ".gitignore",
    "README.md",
    "data.dvc",
    "dvc.yaml",
    "gates.yaml",
    "params.yaml",
    "prefect.yaml",
    "reviews/README.md",
}


def run(command: list[object], cwd: Path, env: dict[str, str] | None = None) -> str:
    """Standard output of the command, which must succeed."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def init(source: Path, folder: Path, env: dict[str, str] | None = None) -> None:
    """`seedling init` in a process of its own."""
    run([sys.executable, "-m", "seedling.cli.main", "init", folder, "--images", source], source.parent, env)


@pytest.fixture
def few_images(make_images: Callable[..., Path]) -> Path:
    return make_images(labeled=3, pool=0, test=0)


@pytest.mark.slow
def test_a_global_gitignore_excludes_no_file_from_the_first_commit(few_images: Path, tmp_path: Path) -> None:
    """With *.yaml, *.md, *.dvc and more in it, every file is committed; dvc.lock and review answers are not ignored."""
    ignore = tmp_path / "home/.config/git/ignore"
    ignore.parent.mkdir(parents=True)
    ignore.write_text("*.yaml\n*.md\n*.dvc\n*.lock\n*.jsonl\n.dvc*\n.git*\n")
    env = {**os.environ, "HOME": str(tmp_path / "home")}
    env.pop("XDG_CONFIG_HOME", None)
    init(few_images, tmp_path / "w", env)
    assert set(run(["git", "ls-files"], tmp_path / "w", env).splitlines()) >= WORKSPACE_FILES
    (tmp_path / "w/dvc.lock").touch()
    (tmp_path / "w/reviews/anna.jsonl").touch()
    status = run(["git", "status", "--porcelain"], tmp_path / "w", env)
    assert "dvc.lock" in status and "reviews/anna.jsonl" in status


@pytest.mark.slow
def test_init_within_a_git_hook_does_not_change_the_hooks_repository(few_images: Path, tmp_path: Path) -> None:
    """Git sets GIT_DIR and GIT_INDEX_FILE for its hooks; the workspace's files go into its own repository."""
    other = tmp_path / "other"
    other.mkdir()
    run(["git", "init", "-q"], other)
    env = {**os.environ, "GIT_DIR": str(other / ".git"), "GIT_INDEX_FILE": str(other / ".git/index")}
    init(few_images, tmp_path / "w", env)
    assert set(run(["git", "ls-files"], tmp_path / "w").splitlines()) >= WORKSPACE_FILES
    assert run(["git", "ls-files"], other) == ""
    assert not (other / ".git/index").exists()


def test_the_deployment_of_the_repository_is_the_template_of_every_workspace() -> None:
    """Both name the flow by its installed module and skip a run that is due while another one goes on."""
    template = (PROJECT / "seedling/init/workspace_files/prefect.yaml.template").read_text(encoding="utf-8")
    repository_file = (PROJECT / "prefect.yaml").read_text(encoding="utf-8")
    assert repository_file == template.replace("NAME", '"digits"')
    (deployment,) = yaml.safe_load(repository_file)["deployments"]
    limit = deployment["concurrency_limit"]
    assert (limit["limit"], limit["collision_strategy"]) == (1, "CANCEL_NEW")


def test_the_workspaces_readme_names_each_file_and_only_commands_that_exist() -> None:
    """Every command and file that the page names exists."""
    from seedling.cli.main import app

    page = (PROJECT / "seedling/init/workspace_files/README.md.template").read_text(encoding="utf-8")
    unnamed = {".dvc/config", ".dvcignore", ".gitignore", "README.md", "reviews/README.md"}
    for name in {*WORKSPACE_FILES, "reviews/"} - unnamed:
        assert f"`{name}`" in page
    commands = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    named = {line.split()[1] for line in page.splitlines() if line.startswith("seedling ")}
    assert len(named) == 6
    assert named <= commands


@pytest.mark.soak
def test_a_worker_in_another_folder_runs_what_a_new_workspace_deploys(
    workspace: Path, shared_prefect_server: Service, tmp_path: Path
) -> None:
    """`prefect deploy --all` in the workspace of `seedling init`, a process worker elsewhere: the run completes there."""
    shorten_runs(workspace)
    server, env = shared_prefect_server, dict(shared_prefect_server.env)
    prefect = [sys.executable, "-m", "prefect", "--no-prompt"]
    run([*prefect, "work-pool", "create", "default", "--type", "process", "--overwrite"], tmp_path, env)
    run([*prefect, "deploy", "--all"], workspace, env)
    deployment = deployment_of(server, workspace.name)
    assert deployment["parameters"] == {"workspace": str(workspace)}
    assert deployment["schedules"][0]["schedule"]["cron"] == "0 6 * * *"
    options = deployment["concurrency_options"], deployment["global_concurrency_limit"]["limit"]
    assert (options[0]["collision_strategy"], options[1]) == ("CANCEL_NEW", 1)
    with running(process_worker(server, tmp_path / "elsewhere")) as worker:
        post(server, f"deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})

        def ended() -> str | None:
            states = [flow_run["state"]["type"] for flow_run in runs_of(server, deployment["id"])]
            return states[0] if states and states[0] in TERMINAL_STATES else None

        assert wait_for(ended, 600) == "COMPLETED", worker.log.read_text()
    assert (workspace / "reports/metrics.json").exists()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["worker.log"]
