"""Pushes data, stage outputs, the run cache and the experiments after a run, if params.yaml has `push: true`.

A separate process with a time limit transfers the files, so that a remote that does not respond never blocks a run. A
failed push is recorded in .seedling/push.json, and the next run pushes again.

python -m seedling.versioning.pushing WORKSPACE REMOTE        # one attempt
"""

from __future__ import annotations

import configparser
import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

from seedling.config.params import Params, find_secrets, load
from seedling.errors import DamagedFile, InputError, SeedlingError
from seedling.records.pushes import PushRecord
from seedling.versioning.git import git
from seedling.workspace import Workspace

REMOTE_NAME = "seedling"
ATTEMPTS = 3
BACKOFF_SECONDS = 2.0  # doubled after each attempt
REACH_TIMEOUT_SECONDS = 60.0  # until the first response of the remote
REACHED = "reached"
EXPERIMENT_REF = re.compile(r"refs/exps/[0-9a-f]{2}/[0-9a-f]{38}/.+")
ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "DVC_NO_ANALYTICS": "1"}
SSH_COMMAND = "ssh -o BatchMode=yes -o ConnectTimeout=15"


def prepare_remote(workspace: Path, params: Params) -> str | None:
    """Make the remote of params.yaml DVC's default remote; return the remote to push to, or None if `push` is false.

    Raises InputError if `push` is true and there is no remote, or if .dvc/config, which git tracks, has a secret.
    """
    from seedling.versioning.storage import default_remote, remote_names, set_default_remote

    _refuse_secrets_in_config(Workspace(workspace).dvc_config)
    if params.remote is not None:
        url = params.remote["url"]
        if params.remote.keys() == {"url"} and url in remote_names(workspace):
            return str(url) if params.push else None
        settings = {name: str(value) for name, value in params.remote.items()}
        current = default_remote(workspace) or {}
        if {name: str(current.get(name)) for name in settings} != settings or current["name"] != REMOTE_NAME:
            set_default_remote(workspace, REMOTE_NAME, settings)
    if not params.push:
        return None
    remote = default_remote(workspace)
    if remote is None:
        raise InputError(
            "params.yaml has `push: true`, but there is no remote: add `remote: s3://bucket/path`, run "
            "`dvc remote add --default NAME URL`, or set `push: false`."
        )
    return str(remote["name"])


def is_push_due(workspace: Path) -> bool:
    """Whether `push` is true and there are changes to push; does not contact the remote."""
    remote = prepare_remote(workspace, load(workspace))
    return remote is not None and not _is_pushed(workspace, remote)


def push_workspace(workspace: Path) -> str | None:
    """Push the changes since the last push; return the error message, or None if the remote is up to date.

    Does not raise if the remote cannot be reached, and ends after `push_minutes` at the latest.
    """
    params = load(workspace)
    remote = prepare_remote(workspace, params)
    if remote is None:
        return None
    if _is_pushed(workspace, remote):
        return None
    fingerprint = _fingerprint(workspace, remote)
    deadline = time.monotonic() + 60 * params.push_minutes
    error: str | None = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(min(BACKOFF_SECONDS * 2 ** (attempt - 1), max(0.0, deadline - time.monotonic())))
        error = _attempt(workspace, remote, deadline)
        if error is None or time.monotonic() >= deadline:
            break
    message = (
        f"Pushed to the remote '{remote}'."
        if error is None
        else f"The push to the remote '{remote}' failed ({error}). No data is lost; the next run pushes again."
    )
    now = datetime.now().astimezone().isoformat(timespec="seconds")
    record = PushRecord(complete=error is None, message=message, time=now, fingerprint=fingerprint)
    record.write(Workspace(workspace).push_state)
    return None if error is None else message


def read_push_state(workspace: Path) -> PushRecord | None:
    """Return the outcome of the last push; None before the first push, or if its file is damaged."""
    try:
        return PushRecord.read(Workspace(workspace).push_state)
    except (OSError, DamagedFile):
        return None


def experiment_refs(workspace: Path) -> dict[str, str]:
    """Return ref → commit of DVC's experiments."""
    lines = git(workspace, "for-each-ref", "--format=%(refname) %(objectname)", "refs/exps/").splitlines()
    ref_to_commit = dict(line.rsplit(" ", 1) for line in lines)
    return {ref: commit for ref, commit in ref_to_commit.items() if EXPERIMENT_REF.fullmatch(ref)}


def _is_pushed(workspace: Path, remote: str) -> bool:
    state = read_push_state(workspace)
    return bool(state and state.complete and state.fingerprint == _fingerprint(workspace, remote))


def _fingerprint(workspace: Path, remote: str) -> str:
    """Return a hash that changes whenever there is something new to push, or another remote to push to."""
    paths = Workspace(workspace)
    files = [paths.dvc_lock, paths.data_pointer, paths.dvc_config, paths.local_dvc_config]
    contents = [path.read_bytes() if path.is_file() else b"" for path in files]
    refs = json.dumps([remote, experiment_refs(workspace), _git_remote(workspace)], sort_keys=True)
    return hashlib.blake2b(b"\0".join([*contents, refs.encode()]), digest_size=16).hexdigest()


def _attempt(workspace: Path, remote: str, deadline: float) -> str | None:
    """Push once in a separate process; return the error, or None on success."""
    command = [sys.executable, "-P", "-m", "seedling.versioning.pushing", str(workspace), remote]
    environment = {**os.environ, **ENVIRONMENT}
    environment.setdefault("GIT_SSH_COMMAND", SSH_COMMAND)
    package_parent = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [package_parent, environment.get("PYTHONPATH")]))
    process = subprocess.Popen(  # noqa: S603
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    lines: list[str] = []
    reader = threading.Thread(target=_read_lines, args=(process, lines), daemon=True)
    reader.start()
    reach_deadline = min(deadline, time.monotonic() + REACH_TIMEOUT_SECONDS)
    try:
        while process.poll() is None:
            if time.monotonic() > (deadline if REACHED in lines else reach_deadline):
                return "it took longer than `push_minutes`" if REACHED in lines else "the remote did not respond"
            time.sleep(0.1)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        reader.join(timeout=5)
    messages = [line for line in lines if line and line != REACHED]
    return None if process.returncode == 0 else (messages or [f"exit code {process.returncode}"])[-1].rstrip(".")


def _read_lines(process: subprocess.Popen[str], lines: list[str]) -> None:
    assert process.stdout is not None  # noqa: S101  (it is a pipe)
    lines.extend(line.strip() for line in process.stdout)


def _refuse_secrets_in_config(path: Path) -> None:
    config = configparser.ConfigParser(interpolation=None)
    try:
        config.read(path, encoding="utf-8")
    except configparser.Error:
        return  # DVC reports what is wrong with the file
    for section in config.sections():
        secret_names = find_secrets(dict(config[section]))
        if secret_names and "remote" in section:
            raise InputError(
                f"{path}, which git tracks, holds a secret in `{secret_names[0]}` of [{section}]: remove it there, and "
                "set it with `dvc remote modify --local NAME KEY VALUE`, or in the environment."
            )


def _git_remote(workspace: Path) -> str | None:
    """Return `origin`, or the only git remote; None if there is no remote, or several with other names."""
    names = git(workspace, "remote").split()
    return "origin" if "origin" in names else names[0] if len(names) == 1 else None


def _push_experiments(workspace: Path) -> None:
    """Push all experiments to the git remote, as `dvc exp push` does.

    Raises SeedlingError if the git remote rejects the push or cannot be reached.
    """
    remote, refs = _git_remote(workspace), sorted(experiment_refs(workspace))
    if remote is not None and refs:
        try:
            git(workspace, "push", "--quiet", "--no-verify", remote, *(f"+{ref}:{ref}" for ref in refs))
        except SeedlingError as error:
            raise SeedlingError(f"the experiments could not be pushed to the git remote '{remote}': {error}") from error


def _end_with_parent(parent: int) -> None:
    """End this process when the run that started it ends. parent: the process id of the run."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def main() -> None:
    """Push once; print `reached` when the remote responds, and the error if the push fails; exit code 0 or 2."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    from seedling.versioning.storage import push_all, reach_remote

    workspace, remote = Path(sys.argv[1]), sys.argv[2]
    try:
        reach_remote(workspace, remote)
        print(REACHED, flush=True)
        push_all(workspace, remote, experiment_refs(workspace).values())
        _push_experiments(workspace)
    except Exception as error:  # noqa: BLE001  (each store's library raises its own errors)
        lines = str(error).strip().splitlines() or [type(error).__name__]
        print(f"{type(error).__name__}: {lines[0]}" if not isinstance(error, SeedlingError) else lines[0], flush=True)
        os._exit(2)


if __name__ == "__main__":
    main()
