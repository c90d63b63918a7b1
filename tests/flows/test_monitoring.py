"""Names of runs, messages to a webhook, the page server and the page store, each with real servers on the loopback
interface.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from webhooks import webhook

from seedling.config.monitoring_params import NotifyParams, ReportsParams
from seedling.config.params import load, set_value
from seedling.errors import GateFailed, InputError
from seedling.flows.events import RunEvent, events_of_error, events_of_outcomes
from seedling.flows.failures import sentence_of
from seedling.flows.notifications import notify
from seedling.flows.run_names import artifact_key, flow_run_name
from seedling.records.gate import Check
from seedling.records.run_description import experiment_name, outcome_of, what_changed
from seedling.records.run_records import LabelIssuesRecord, RunInputs, RunRecord
from seedling.records.summaries import StageSummary
from seedling.serving.report_links import page_links, running_server_url
from seedling.serving.report_server import ReportServer, serve_reports_beside
from seedling.serving.report_store import upload_pages
from seedling.versioning.ledger import Outcome

VARIABLE = "SEEDLING_TEST_WEBHOOK"
GATE_EVENT = RunEvent("gate_failed", "The gate of stage 'validate' failed: width.", {"failed": []})
CONTEXT = {
    "run": "flowers 2026-11-28 18:03",
    "links": {"Report": "http://reports.test/report.html"},
    "result": "accuracy 0.9",
}


def params(**extra: Any) -> NotifyParams:
    """The section `notify` with a webhook."""
    return NotifyParams.model_validate({"webhook": f"${{{VARIABLE}}}", **extra})


def test_a_run_is_named_by_workspace_time_and_what_changed() -> None:
    """Added files, changed files, params by name, gates; the first run and a run with nothing new have names of their
    own.
    """
    inputs = RunInputs("a", 10, {"train": {"steps": 5}}, "g")
    before = RunRecord(name="earlier", ended="2026-11-27T18:03:00+00:00", inputs=inputs)
    now = RunInputs("b", 22, {"train": {"steps": 5}}, "g")
    started = datetime(2026, 11, 28, 18, 3, tzinfo=UTC)
    assert flow_run_name(Path("/w/flowers"), started, what_changed(now, before)) == "flowers 2026-11-28 18:03 data +12"
    assert experiment_name(started) == "20261128-180300-grow"
    assert what_changed(now, None) == "first run"
    assert (
        what_changed(RunInputs("b", 10, {"train": {"steps": 9}}, "h"), before)
        == "data changed, params train.steps, gates"
    )
    same = RunInputs("a", 10, {"train": {"steps": 5}}, "g")
    assert what_changed(same, before) == ""
    assert what_changed(same, before, [Outcome("scrape", "unchanged", 0.1)]) == "nothing new"
    assert what_changed(same, before, [Outcome("train@0", "done", 0.1)]) == "train@0 redone"
    notified = RunInputs("a", 10, {"train": {"steps": 5}, "notify": {"webhook": "x"}}, "g")
    assert what_changed(notified, before) == ""


def test_artifact_keys_are_valid_for_prefect() -> None:
    """Lower case, digits and dashes, for any name of the workspace."""
    assert artifact_key(Path("/w/My Flowers_2"), "pseudo_label@1", "gate") == "my-flowers-2-pseudo-label-1-gate"
    assert artifact_key(Path("/w/花"), "result") == "workspace-result"


def test_a_run_is_rejected_if_its_last_compared_round_is() -> None:
    """Skipped rounds after it have no effect."""
    outcomes = [
        Outcome("train@0", "done", 1.0, StageSummary(note="accepted: the start")),
        Outcome("train@1", "done", 1.0, StageSummary(note="rejected: accuracy -9 points")),
        Outcome("train@2", "done", 1.0, StageSummary(note="skipped: the loop stopped")),
    ]
    assert outcome_of(outcomes) == "rejected"
    assert [event.kind for event in events_of_outcomes(outcomes, None, 0)] == ["round_rejected"]
    assert outcome_of(outcomes[:1]) == "accepted"


def test_drift_reviews_and_failed_gates_are_events() -> None:
    """A failed comparison with the previous rows, more likely label errors than before, and a failed gate."""
    drifting = Check(
        expectation="expect_column_min_to_be_between",
        arguments={"column": "drift_p_value", "min_value": 0.01},
        severity="warning",
        passed=False,
        observed="0.0001",
    )
    worked = [Outcome("validate", "done", 1.0, StageSummary(checks=[drifting]))]
    label_issues = LabelIssuesRecord(flagged=3, expected=2.0, labels=9)
    kinds = [event.kind for event in events_of_outcomes(worked, label_issues, 1)]
    assert kinds == ["drift", "needs_review"]
    error = GateFailed(
        "The gate of stage 'scrape' failed.\n  more", [drifting.model_copy(update={"severity": "critical"})]
    )
    assert [event.kind for event in events_of_error(error)] == ["gate_failed", "drift"]
    assert "\n" not in sentence_of(error) and "drift_p_value" in sentence_of(error)
    assert [event.kind for event in events_of_error(InputError("no data"))] == ["run_failed"]


def test_a_webhook_receives_the_message(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The default message names the workspace, the sentence, the run and the pages; only the events asked for are sent."""
    with webhook() as (address, received):
        monkeypatch.setenv(VARIABLE, address)
        events = [GATE_EVENT, RunEvent("nothing_new", "No stage had anything to do.")]
        assert notify(tmp_path / "flowers", params(allow_private=True), events, CONTEXT) == []
    (body,) = received
    assert body["event"] == "seedling.gate.failed" and body["workspace"] == "flowers"
    for part in ("A gate failed: flowers", GATE_EVENT.sentence, CONTEXT["run"], "http://reports.test/report.html"):
        assert part in body["text"]


def test_a_template_of_the_user_is_rendered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It is rendered in a sandbox; a template with an error is reported and nothing is sent."""
    with webhook() as (address, received):
        monkeypatch.setenv(VARIABLE, address)
        template = "{{ workspace|upper }} {{ kind }}: {{ details.failed|length }}"
        assert notify(tmp_path / "flowers", params(allow_private=True, template=template), [GATE_EVENT], CONTEXT) == []
        (problem,) = notify(tmp_path, params(allow_private=True, template="{{ broken"), [GATE_EVENT], CONTEXT)
        (unsafe,) = notify(
            tmp_path, params(allow_private=True, template="{{ ''.__class__.__mro__ }}"), [GATE_EVENT], CONTEXT
        )
    assert [body["text"] for body in received] == ["FLOWERS gate_failed: 0"]
    assert "notify.template" in problem and "notify.template" in unsafe


@pytest.mark.slow
def test_a_delivery_is_tried_again_after_a_server_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """503, then 200: delivered. 404: no second try, and the problem is reported without the secret address."""
    with webhook([503, 200]) as (address, received):
        monkeypatch.setenv(VARIABLE, address)
        assert notify(tmp_path, params(allow_private=True), [GATE_EVENT], CONTEXT) == []
    assert len(received) == 2
    with webhook([404]) as (address, received):
        monkeypatch.setenv(VARIABLE, address)
        (problem,) = notify(tmp_path, params(allow_private=True), [GATE_EVENT], CONTEXT)
    assert len(received) == 1 and "404" in problem and "secret" not in problem


@pytest.mark.slow
def test_an_unreachable_webhook_is_reported_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No listener, a time-out, an invalid address, a missing variable: each is reported, none raises, none hangs."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/secret"
    with webhook(delay_seconds=5) as (slow, _):
        for value, expected in (
            (address, "ConnectError"),
            (slow, "Timeout"),
            ("ftp://secret", "http"),
            ("http://[", "http"),
            ("", VARIABLE),
        ):
            monkeypatch.setenv(VARIABLE, value)
            began = time.monotonic()
            (problem,) = notify(tmp_path, params(allow_private=True, timeout_seconds=0.2), [GATE_EVENT], CONTEXT)
            assert expected in problem and "secret" not in problem, (value, problem)
            assert time.monotonic() - began < 60


def test_private_addresses_need_permission(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without `allow_private` no request reaches the loopback interface, whatever the host name."""
    with webhook() as (address, received):
        for host in ("127.0.0.1", "localhost"):
            monkeypatch.setenv(VARIABLE, address.replace("127.0.0.1", host))
            (problem,) = notify(tmp_path, params(), [GATE_EVENT], CONTEXT)
            assert "allow_private" in problem
    assert received == []


def test_params_refuse_a_webhook_that_is_written_out(workspace: Path) -> None:
    """The address is a secret and params.yaml is versioned; other environment variables than Seedling's are not read either."""
    set_value(workspace, ["notify"], {"webhook": "https://hooks.example.org/T0/secret"})
    with pytest.raises(InputError, match="environment variable"):
        load(workspace)
    set_value(workspace, ["notify"], {"webhook": "${AWS_SECRET_ACCESS_KEY}"})
    with pytest.raises(InputError, match="notify"):
        load(workspace)
    set_value(workspace, ["notify"], {"webhook": "${SEEDLING_WEBHOOK_URL}"})
    assert load(workspace).notify is not None


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A workspace with a report, a secret next to it, and links that lead out of reports/."""
    workspace = tmp_path / "My Flowers"
    (workspace / "reports" / "plots").mkdir(parents=True)
    (workspace / "params.yaml").write_text("modality: image\n", encoding="utf-8")
    (workspace / "secret.txt").write_text("secret", encoding="utf-8")
    (workspace / "reports" / "report.html").write_text("<h1>the report</h1>", encoding="utf-8")
    (workspace / "reports" / ".hidden").write_text("secret", encoding="utf-8")
    (workspace / "reports" / "plots" / "recall.csv").write_text("class,recall\n", encoding="utf-8")
    (workspace / "reports" / "link.txt").symlink_to(workspace / "secret.txt")
    (workspace / "reports" / "out").symlink_to(workspace)
    os.mkfifo(workspace / "reports" / "pipe")
    return workspace


@pytest.fixture
def served(pages: Path) -> Iterator[str]:
    """The page server on a free port."""
    server = ReportServer([pages], "127.0.0.1", 0)
    server.start()
    yield server.url
    server.stop()


def test_the_page_server_serves_pages(served: str, pages: Path) -> None:
    """The index links to the workspace, and that to its pages; files below reports/ are served with their types."""
    with httpx.Client(base_url=served) as client:
        assert 'href="my-flowers/report.html"' in client.get("/").text
        assert 'href="report.html"' in client.get("/my-flowers/").text
        page = client.get("/my-flowers/report.html")
        assert page.text == "<h1>the report</h1>" and page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert client.get("/my-flowers/plots/recall.csv").status_code == 200
        assert client.head("/my-flowers/report.html").headers["content-length"] == "19"
        assert client.post("/my-flowers/report.html").status_code == 405
    assert page_links(pages, ReportsParams()) == {"Report": f"{served}/my-flowers/report.html"}


@pytest.mark.parametrize(
    "path",
    [
        "/my-flowers/../secret.txt",
        "/my-flowers/../../etc/passwd",
        "/my-flowers/%2e%2e/secret.txt",
        "/my-flowers/..%2fsecret.txt",
        "/my-flowers/plots/../../secret.txt",
        "/my-flowers//etc/passwd",
        "/my-flowers/%2fetc%2fpasswd",
        "/my-flowers/..%5csecret.txt",
        "/my-flowers/report.html%00",
        "/my-flowers/link.txt",
        "/my-flowers/out/secret.txt",
        "/my-flowers/out/params.yaml",
        "/my-flowers/.hidden",
        "/my-flowers/plots",
        "/my-flowers/plots/",
        "/my-flowers/pipe",
        "/my-flowers/params.yaml",
        "/../secret.txt",
        "/other/report.html",
    ],
)
def test_the_page_server_serves_nothing_else(served: str, path: str) -> None:
    """No way out of reports/, no link, no hidden file, no folder listing; the path is sent unnormalized."""
    host, port = served.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.split(b" ")[1] in {b"404", b"400"}, answer
    assert b"secret" not in answer and b"root:" not in answer and b"modality" not in answer


def test_links_end_with_the_server(pages: Path) -> None:
    """Another server on the port is not mistaken for it, and without a known server there is no link."""
    server = ReportServer([pages], "127.0.0.1", 0)
    server.start()
    assert running_server_url(pages) == f"{server.url}/my-flowers"
    note = pages / ".seedling" / "report-server.json"
    content = note.read_text(encoding="utf-8")
    server.stop()
    assert not note.exists() and page_links(pages, ReportsParams()) == {}
    note.write_text(content, encoding="utf-8")  # as a kill leaves it
    assert running_server_url(pages) is None
    with pytest.raises(InputError, match="not a Seedling workspace"):
        ReportServer([pages / "reports"], "127.0.0.1", 0)


def test_a_port_in_use_is_reported(served: str, pages: Path) -> None:
    """The error names the fix."""
    with pytest.raises(InputError, match="choose another --port"):
        ReportServer([pages], "127.0.0.1", int(served.rsplit(":", 1)[1]))


def test_a_schedule_serves_its_pages_also_if_its_port_is_in_use(served: str, pages: Path, tmp_path: Path) -> None:
    """A workspace that is served already keeps its address; another one on the same port gets a free one; base_url
    takes precedence.
    """
    port = int(served.rsplit(":", 1)[1])
    assert serve_reports_beside(pages, ReportsParams(), "127.0.0.1", port) == f"{served}/my-flowers"
    other = tmp_path / "birds"
    (other / "reports").mkdir(parents=True)
    (other / "params.yaml").write_text("modality: image\n", encoding="utf-8")
    (other / "reports" / "report.html").write_text("<h1>birds</h1>", encoding="utf-8")
    url = serve_reports_beside(other, ReportsParams(), "127.0.0.1", port)
    assert url is not None and f":{port}/" not in url
    assert httpx.get(f"{url}/report.html").text == "<h1>birds</h1>"
    assert serve_reports_beside(other, ReportsParams(base_url="https://reports.example.org"), "127.0.0.1", 0) is None


def test_links_begin_with_the_base_url_of_params(pages: Path) -> None:
    """It has the layout of serve-reports and of the store; an address other than http is refused."""
    reports = ReportsParams(base_url="https://reports.example.org/seedling/")
    assert page_links(pages, reports) == {"Report": "https://reports.example.org/seedling/my-flowers/report.html"}
    with pytest.raises(ValueError, match="not an http or https address"):
        ReportsParams(base_url="file:///tmp")


@pytest.mark.slow
def test_pages_are_copied_to_s3(pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser displays them from the bucket; an unknown kind of store is an error that names the fix."""
    import boto3
    from moto.server import ThreadedMotoServer

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = "http://{}:{}".format(*server.get_host_and_port())
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        store = boto3.client("s3", endpoint_url=endpoint)
        store.create_bucket(Bucket="pages")
        assert upload_pages(pages, "s3://pages/seedling") == ["s3://pages/seedling/my-flowers/report.html"]
        key = {"Bucket": "pages", "Key": "seedling/my-flowers/report.html"}
        answer = httpx.get(store.generate_presigned_url("get_object", Params=key))
        assert answer.text == "<h1>the report</h1>" and answer.headers["content-type"].startswith("text/html")
    finally:
        server.stop()
    with pytest.raises(InputError, match=r"reports\.store"):
        upload_pages(pages, "nosuch://pages/seedling")
