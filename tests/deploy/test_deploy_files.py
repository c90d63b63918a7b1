"""The files of deploy/ are valid for parsers, linters and schemas, safe by default, and start commands that exist."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import typer
import yaml
from compose_spec.models import ComposeSpecification

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("seedling-*"))
BIN = Path(sys.executable).parent
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text(encoding="utf-8"))
MANIFESTS = list(yaml.safe_load_all((DEPLOY / "kubernetes/seedling.yaml").read_text(encoding="utf-8")))
POOL_TEMPLATE = json.loads((DEPLOY / "kubernetes/work-pool-template.json").read_text(encoding="utf-8"))


def test_hadolint_accepts_the_dockerfile() -> None:
    """No finding at any level; what is ignored is ignored in the file, line by line."""
    done = subprocess.run([BIN / "hadolint", "Dockerfile"], cwd=DEPLOY, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_image_is_pinned_slim_and_does_not_run_as_root() -> None:
    """The versions are those of constraints.txt, the last user is numeric and not root, and there is a health check."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    torch = re.search(r"^torch==(.+)$", (PROJECT / "constraints.txt").read_text(), flags=re.MULTILINE)
    assert torch is not None
    assert f"ARG TORCH_VERSION={torch[1]}\n" in text
    assert re.search(r"^ARG PYTHON_IMAGE=python:\d+\.\d+\.\d+-slim-", text, flags=re.MULTILINE)
    assert re.findall(r"^USER (.+)$", text, flags=re.MULTILINE) == ["10001:10001"]
    assert "--constraint constraints.txt" in text
    assert "\nHEALTHCHECK " in text
    extras = re.search(r"^ARG EXTRAS=(.+)$", text, flags=re.MULTILINE)
    assert extras is not None
    optional = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras[1].split(",")) <= set(optional)


def test_the_build_context_contains_what_the_dockerfile_copies() -> None:
    """Dockerfile.dockerignore includes each COPY source, and the repository contains it."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = {
        name for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE) for name in line.split()[:-1]
    }
    context = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert sources == context
    assert all((PROJECT / name).exists() for name in sources)


def keys_of(value: Any, path: str = "") -> Iterator[str]:
    """The path of every mapping key, with list items by index."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield f"{path}.{name}"
            yield from keys_of(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from keys_of(inner, f"{path}.{index}")


def test_the_compose_file_follows_the_compose_specification() -> None:
    """It parses, and the specification knows each key: one that it does not know would be lost in the parsed form."""
    parsed = ComposeSpecification.model_validate(COMPOSE).model_dump(mode="json", by_alias=True, exclude_unset=True)
    extensions = {key for key in keys_of(COMPOSE) if key.startswith(".x-")}
    assert set(keys_of(COMPOSE)) - extensions - set(keys_of(parsed)) == set()
    assert set(COMPOSE["services"]) >= {"postgres", "server", "worker", "api", "reports", "storage"}


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_every_compose_service_is_pinned_restarted_and_consistent(name: str) -> None:
    """An image with a version, a restart policy, existing environment examples, volumes and dependencies, and no open port."""
    service = COMPOSE["services"][name]
    image, _, tag = service["image"].partition(":")
    assert image
    assert any(letter.isdigit() for letter in tag)
    assert service["restart"] in {"unless-stopped", "no"}
    assert all((DEPLOY / f"{file}.example").is_file() for file in service.get("env_file", []))
    assert {volume.partition(":")[0] for volume in service.get("volumes", [])} <= set(COMPOSE["volumes"])
    assert set(service.get("depends_on", {})) <= set(COMPOSE["services"])
    for other, dependency in service.get("depends_on", {}).items():
        if dependency["condition"] == "service_healthy":
            other_service = COMPOSE["services"][other]
            assert "healthcheck" in other_service or other_service["image"].startswith("seedling:")
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_no_secret_is_in_the_deployment_files() -> None:
    """Passwords and keys come from environment files or secrets alone, which git ignores; their examples are empty."""
    for path in DEPLOY.rglob("*.example"):
        for line in path.read_text(encoding="utf-8").splitlines():
            name, _, value = line.lstrip("# ").partition("=")
            if re.fullmatch(r"[A-Z_]*(PASSWORD|SECRET_ACCESS_KEY|AUTH_STRING)", name):
                assert value == "", f"{path.name}: {line}"
    written = json.dumps([COMPOSE, MANIFESTS, POOL_TEMPLATE])
    assert not re.search(r'"[A-Z_]*(PASSWORD|SECRET_ACCESS_KEY|AUTH_STRING)": "[^"]', written)
    ignored = subprocess.run(["git", "check-ignore", "-q", "deploy/server.env"], cwd=PROJECT)
    assert ignored.returncode == 0


@pytest.mark.parametrize("file", ["server.env.example", "systemd/server.env.example"])
def test_prefect_knows_every_setting_of_the_servers_environment(file: str) -> None:
    """Prefect would ignore a misspelled name silently."""
    from prefect.settings import Settings
    from prefect.settings.legacy import _get_valid_setting_names

    lines = (DEPLOY / file).read_text(encoding="utf-8").splitlines()
    names = {line.partition("=")[0] for line in lines if line and not line.startswith("#")}
    names |= {name for name in COMPOSE["services"]["server"]["environment"] if name.startswith("PREFECT_")}
    assert names
    assert names <= _get_valid_setting_names(Settings)


@pytest.fixture
def installed_units(tmp_path: Path) -> Path:
    """The units with the programs of this environment instead of those in /opt/seedling/bin."""
    assert UNITS
    for path in UNITS:
        text = path.read_text(encoding="utf-8").replace("/opt/seedling/bin/", f"{BIN}/")
        (tmp_path / path.name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("unit", [path.name for path in UNITS])
def test_systemd_accepts_each_unit(installed_units: Path, unit: str) -> None:
    """`systemd-analyze verify` prints nothing."""
    program = shutil.which("systemd-analyze")
    assert program, "systemd is needed: apt-get install systemd"
    name = unit.replace("@.", "@letters.")
    if name != unit:
        shutil.copy(installed_units / unit, installed_units / name)
    done = subprocess.run(
        [program, "verify", "--man=no", "--recursive-errors=no", installed_units / name], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_no_unit_runs_as_root_and_services_restart() -> None:
    """Every service has a user and a sandbox; all but the clean-up restart."""
    services = [path for path in UNITS if path.suffix == ".service"]
    for path in services:
        text = path.read_text(encoding="utf-8")
        for line in ("User=seedling", "NoNewPrivileges=yes", "ProtectSystem=strict", "ReadWritePaths=/srv/seedling"):
            assert line in text.splitlines(), path.name
        assert ("Restart=" in text) != ("Type=oneshot" in text), path.name


def commands() -> Iterator[tuple[str, list[str]]]:
    """File and command line of every Seedling or Prefect command that the deployment files start."""
    for name, service in COMPOSE["services"].items():
        if service["image"].startswith("seedling:"):
            yield f"docker-compose.yml: {name}", service["command"]
    for path in UNITS:
        for line in re.findall(r"^ExecStart=(.+)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE):
            program, *arguments = shlex.split(line)
            yield path.name, [Path(program).name, *arguments]
    for manifest in MANIFESTS:
        template = manifest.get("spec", {}).get("jobTemplate", manifest).get("spec", {}).get("template")
        for container in (template or {}).get("spec", {}).get("containers", []):
            if container["args"][0] != "sleep":
                yield f"seedling.yaml: {manifest['metadata']['name']}", container["args"]


COMMANDS = list(commands())


PRINT_HELP = """
import sys
from prefect.cli import app
for command in sys.argv[1:]:
    sys.argv = ["prefect", *command.split(), "--help"]
    try:
        app()
    except SystemExit as end:
        assert not end.code
    print("END OF HELP")
"""


@cache
def prefect_help() -> dict[str, str]:
    """Two words of each command of Prefect above → what `prefect WORDS --help` prints; one process prints all of them."""
    commands = sorted({" ".join(command[1:3]) for _, command in COMMANDS if command[0] == "prefect"})
    done = subprocess.run(
        [sys.executable, "-c", PRINT_HELP, *commands],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    return dict(zip(commands, done.stdout.split("END OF HELP"), strict=False))


@pytest.mark.slow
@pytest.mark.parametrize(("where", "command"), COMMANDS, ids=[where for where, _ in COMMANDS])
def test_each_started_command_exists_with_each_option(where: str, command: list[str]) -> None:
    """For `seedling` by its table of commands; for `prefect` by its help."""
    options = {part for part in command if part.startswith("--")}
    if command[0] == "seedling":
        from seedling.cli.main import app

        parameters = typer.main.get_command(app).commands[command[1]].params  # type: ignore[attr-defined]
        assert options <= {option for parameter in parameters for option in parameter.opts}, where
    else:
        assert command[0] == "prefect"
        assert all(option in prefect_help()[" ".join(command[1:3])] for option in options), where


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=[f"{manifest['kind']}-{manifest['metadata']['name']}" for manifest in MANIFESTS]
)
def test_kubernetes_accepts_each_manifest(manifest: dict[str, Any]) -> None:
    """By the schema of the Kubernetes API, strictly, so that an unknown key fails."""
    kubernetes_validate.validate(manifest, "1.31", strict=True)


def fill_in(template: Any, values: dict[str, Any]) -> Any:
    """The template with its variables, as Prefect's worker fills them in."""
    from prefect.utilities.templating import apply_values

    return apply_values(template, values)


def test_the_job_of_the_work_pool_is_a_valid_kubernetes_job() -> None:
    """With the defaults and with the worker's values, it mounts the workspaces and does not run as root."""
    properties = POOL_TEMPLATE["variables"]["properties"]
    defaults = {name: schema["default"] for name, schema in properties.items() if "default" in schema}
    added = {"name": "grow", "env": [{"name": "PREFECT_API_URL", "value": "http://prefect-server:4200/api"}]}
    command = ["prefect", "flow-run", "execute"]
    job = fill_in(POOL_TEMPLATE["job_configuration"]["job_manifest"], {**defaults, **added, "command": command})
    kubernetes_validate.validate(job, "1.31", strict=True)
    spec = job["spec"]["template"]["spec"]
    assert spec["containers"][0]["volumeMounts"] == [{"name": "workspaces", "mountPath": "/workspaces"}]
    assert spec["securityContext"]["runAsNonRoot"] is True
    claims = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "PersistentVolumeClaim"}
    accounts = {m["metadata"]["name"] for m in MANIFESTS if m["kind"] == "ServiceAccount"}
    assert (defaults["workspaces_claim"] in claims, defaults["service_account_name"] in accounts) == (True, True)


def test_prefects_server_accepts_the_work_pool_template() -> None:
    """Every variable that the job uses is declared, as the server requires when the pool is created."""
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.server.schemas.actions import WorkPoolCreate as ServerWorkPoolCreate

    body = {"name": "default", "type": "kubernetes", "base_job_template": POOL_TEMPLATE}
    assert WorkPoolCreate(**body).base_job_template == ServerWorkPoolCreate(**body).base_job_template
    undeclared = json.loads(json.dumps(POOL_TEMPLATE))
    del undeclared["variables"]["properties"]["image"]
    with pytest.raises(ValueError, match="image"):
        ServerWorkPoolCreate(**{**body, "base_job_template": undeclared})
