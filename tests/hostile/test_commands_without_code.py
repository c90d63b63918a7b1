"""The commands that SECURITY.md calls harmless execute nothing of a workspace that is full of traps."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from prefect_runs import free_port, own_environment

PROJECT = Path(__file__).parents[2]
BLOCK = re.search(r"execute none of it.*?```sh\n(.*?)```", (PROJECT / "SECURITY.md").read_text(), re.DOTALL)
COMMANDS = BLOCK[1].splitlines() if BLOCK else []
SERVERS = ("seedling serve", "seedling serve-reports")
TRAP = "import pathlib\npathlib.Path({mark!r}).open('a').write(__file__ + '\\n')\n"
MODULES = [
    "augmenting",
    "expectations",
    "sitecustomize",
    "usercustomize",
    "conftest",
    "numpy",
    "tasks",
    "flows",
    "dvc",
    "yaml",
]


def set_traps(workspace: Path, mark: Path) -> None:
    """Python files, also named by params.yaml and gates.yaml; command lines of dvc.yaml; programs that git's configuration names, and its hooks."""
    for name in MODULES:
        for folder in (workspace, workspace / "data", workspace / "models", workspace / "models" / "0"):
            (folder / f"{name}.py").write_text(TRAP.format(mark=str(mark)))
    params = yaml.safe_load((workspace / "params.yaml").read_text())
    params.setdefault("augment", {})["plugin"] = "augmenting.py"
    (workspace / "params.yaml").write_text(yaml.safe_dump(params))
    program = workspace.parent / "trap.sh"
    program.write_text(f"#!/bin/sh\necho git \"$0\" >> '{mark}'\ncat\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    keys = ["core.fsmonitor", "core.pager", "core.editor", "core.sshCommand", "diff.external", "gpg.program"]
    keys += ["filter.x.clean", "filter.x.smudge", "filter.x.process", "diff.x.textconv", "core.askPass"]
    for key in keys:
        subprocess.run(["git", "config", key, str(program)], cwd=workspace, check=True)
    (workspace / ".gitattributes").write_text("* filter=x diff=x\n")
    for hook in ("pre-commit", "post-checkout", "reference-transaction", "post-index-change"):
        (workspace / ".git" / "hooks" / hook).symlink_to(program)
    text = (workspace / "dvc.yaml").read_text()
    (workspace / "dvc.yaml").write_text(text.replace("cmd: python", f"cmd: touch '{mark}' && python"))


def words_of(command: str, workspace: Path) -> list[str]:
    """The command with real values for what stands in capitals."""
    image = next((workspace / "data").rglob("*.png"))
    listing = ["git", "for-each-ref", "--format=%(refname:lstrip=-1)", "refs/exps"]
    run = subprocess.run(listing, cwd=workspace, capture_output=True, text=True, check=True).stdout.split()[0]
    values = {"ID": image.name, "OLD": run, "NEW": run, "FILE": str(image)}
    values["FOLDER"] = str(workspace.parent / f"out-{time.monotonic_ns()}")
    return [values.get(word, word) for word in command.split()[1:]]


@pytest.mark.slow
def test_the_harmless_commands_execute_nothing_of_a_workspace(finished_copy: Path, tmp_path: Path) -> None:
    """Each of them runs, and no trap goes off; a stage of the pipeline sets off one, so the traps are real."""
    assert len(COMMANDS) >= 10
    mark = tmp_path / "executed"
    set_traps(finished_copy, mark)
    environment = own_environment(tmp_path)
    script = str(Path(sys.executable).parent / "seedling")
    for command in COMMANDS:
        if command in SERVERS:
            port = free_port()
            words = [script, *command.split()[1:], "--port", str(port)]
            process = subprocess.Popen(words, cwd=finished_copy, env=environment, stdout=subprocess.DEVNULL)
            try:
                deadline = time.monotonic() + 60
                while True:
                    try:
                        assert httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
                        break
                    except httpx.TransportError:
                        assert time.monotonic() < deadline, command
                        time.sleep(0.2)
            finally:
                process.terminate()
                process.wait(timeout=60)
        else:
            words = [script, *words_of(command, finished_copy)]
            done = subprocess.run(
                words, cwd=finished_copy, env=environment, capture_output=True, text=True, timeout=300, check=False
            )
            assert done.returncode in {0, 2, 3}, (command, done.stderr)  # 2: it refuses a file that was changed
        assert not mark.exists(), (command, mark.read_text())
    stage = [script, "stage", "augment", "--force"]
    done = subprocess.run(stage, cwd=finished_copy, env=environment, capture_output=True, text=True, timeout=300)
    assert mark.exists(), done.stdout + done.stderr
