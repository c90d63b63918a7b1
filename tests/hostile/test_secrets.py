"""Secrets: none may be in params.yaml, no other environment variable is read, and no value is written to a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from loopback import Reply, site
from visiting import QUICK, TEXTS, run

from seedling.config import params
from seedling.config.params import ScrapeParams
from seedling.config.secret_literals import find_secret, mask_secrets
from seedling.config.sources import ApiSource
from seedling.dataset.generation import read
from seedling.errors import InputError
from seedling.init.create import make_workspace
from seedling.scrape.secret_values import SecretValues
from seedling.versioning.ledger import Ledger

API: dict[str, Any] = {"kind": "api", "url": "https://api.example/items", "items": "rows", "text": "@"}
CRAWL: dict[str, Any] = {"kind": "crawl", "start": "https://site.example/", "item": "p"}
HEX = "8f14e45fceea167a5a36dedd4bea2543"
MIXED = "Zx8Qw2Lp0Vb7Nn4Kd6Rt"

LITERALS: list[tuple[dict[str, Any], str]] = [
    ({**API, "headers": {"Authorization": f"Bearer {HEX}"}}, "headers.Authorization"),
    ({**API, "headers": {"authorization": "Basic dXNlcjpwYXNzd29yZA=="}}, "headers.authorization"),
    ({**API, "headers": {"X-Api-Key": "letmein"}}, "headers.X-Api-Key"),
    ({**API, "headers": {"PRIVATE-TOKEN": "glpat-abcdefghijklmnopqrst"}}, "headers.PRIVATE-TOKEN"),
    ({**API, "headers": {"X-Custom": MIXED}}, "headers.X-Custom"),
    ({**API, "headers": {"X-Custom": "123e4567-e89b-12d3-a456-426614174000"}}, "headers.X-Custom"),
    ({**API, "headers": {"Cookie": "lang=en; sessionid=abc"}}, "headers.Cookie"),
    ({**API, "headers": {"Authorization": "Token token=${SEEDLING_A}, extra=ghp_abcdefghijklmnop0123"}}, "headers.Authorization"),
    ({**API, "query": {"api_key": "abc"}}, "query.api_key"),
    ({**API, "query": {"accessToken": "abc"}}, "query.accessToken"),
    ({**API, "query": {"appid": HEX}}, "query.appid"),
    ({**API, "query": {"pin": 123456789012345678901}}, "query.pin"),
    ({**API, "query": {"x": HEX}}, "query.x"),
    ({**API, "url": "https://api.example/items?apikey=abc"}, "url"),
    ({**API, "url": "https://api.example/items?X-Amz-Signature=abc"}, "url"),
    ({**API, "url": "https://api.example/items?sig=a1b2c3d4"}, "url"),
    ({**API, "url": "https://user:hunter2@api.example/items"}, "url"),
    ({**API, "url": f"https://{MIXED}@api.example/items"}, "url"),
    ({**API, "url": "https://api.example/token/a1b2c3d4/items"}, "url"),
    ({**API, "url": "https://api.example/items#access_token=abc"}, "url"),
    ({**API, "url": "https://api.example/items?a=1&pass%77ord=abc"}, "url"),
    ({**API, "url": "https://api.example/bot1234567:AAFz0kq-Xy7Lm2Pn5Rt8Vw1Zb4Cd6Ef9Gh/updates"}, "url"),
    ({**API, "body": {"filter": {"credentials": {"password": "hunter2"}}}}, "body.filter.credentials.password"),
    ({**API, "graphql": "query { me(key: \"sk-proj-abcdefghijklmnopqrst\") }"}, "graphql"),
    ({**API, "graphql": "query ($k: String) { x }", "variables": {"secret": "abc"}}, "variables.secret"),
    ({**CRAWL, "start": ["https://site.example/", "https://site.example/?token=abc"]}, "start"),
    ({**CRAWL, "attribution": "https://me:pw@site.example/"}, "attribution"),
    ({"kind": "sequence", "url": "https://site.example/{1..9}?key=AIzaSyA1234567890abcdefghij"}, "url"),
    ({"kind": "huggingface", "dataset": "https://u:hf_abcdefghijklmnopqrst@hub.example/d"}, "dataset"),
]  # fmt: skip

HARMLESS: list[dict[str, Any]] = [
    {**API, "headers": {"Authorization": "Bearer ${SEEDLING_TOKEN}"}},
    {**API, "headers": {"Authorization": 'Token token="${SEEDLING_TOKEN}"', "Cookie": "over18=1; lang=en"}},
    {**API, "headers": {"Accept": "application/vnd.github+json", "User-Agent": "seedling/0.1 (ada@example.org)"}},
    {**API, "headers": {"X-GitHub-Api-Version": "2022-11-28"}},
    {**API, "query": {"q": "dogs and cats", "per_page": 100, "sort_key": "created", "page_token": "first"}},
    {**API, "query": {"collection": "123e4567-e89b-12d3-a456-426614174000"}},
    {**API, "query": {"api_key": "${SEEDLING_KEY}"}, "url": "https://api.example/v1/${SEEDLING_KEY}/items?token=${SEEDLING_KEY}"},
    {**API, "url": "https://docs.example/d/1BxiMVs0XRA5nFMdKvBdBZjgmUUqptlbs74OgvE2upms/export?format=json&gid=0"},
    {**API, "url": "https://api.example/keys/robins?author=ada&keyword=tokenizer&monkey=3"},
    {**API, "body": {"keywords": ["secret garden", "password managers"], "max_tokens": 200}},
    {**CRAWL, "start": "https://site.example/articles/how-to-keep-a-secret-token-safe-in-2024"},
]  # fmt: skip


@pytest.mark.parametrize(("source", "key"), LITERALS, ids=lambda value: value if isinstance(value, str) else None)
def test_a_literal_secret_is_refused(source: dict[str, Any], key: str, tmp_path: Path) -> None:
    """Loading params.yaml stops: the message has the key and the fix, and nothing of the value."""
    (tmp_path / "params.yaml").write_text(
        json.dumps({"pipeline_version": 18, "modality": "text", "scrape": {"sources": [source]}})
    )
    with pytest.raises(InputError) as refused:
        params.load(tmp_path)
    message = str(refused.value)
    assert f"'scrape.sources.0.{key}'" in message
    assert "${SEEDLING_…}" in message
    for value in (
        "letmein",
        "hunter2",
        "abc",
        HEX,
        MIXED,
        "a1b2c3d4",
        "AIza",
        "ghp_",
        "glpat",
        "sk-",
        "hf_",
        "1234567",
    ):
        assert value not in message.replace(str(tmp_path), "")


@pytest.mark.parametrize("source", HARMLESS)
def test_values_that_are_not_secrets_are_accepted(source: dict[str, Any]) -> None:
    """Variables, pages, versions, words that contain the name of a secret, and ids."""
    assert find_secret(source) is None
    assert ScrapeParams.model_validate({"sources": [source]})


@pytest.mark.parametrize("source", [source for source, _ in LITERALS if source["kind"] != "huggingface"][:6])
def test_the_stage_refuses_a_secret_from_any_caller(source: dict[str, Any], tmp_path: Path) -> None:
    """Before any request, also if the source was not read from params.yaml."""
    with pytest.raises(InputError, match="holds a secret"):
        run(tmp_path, TEXTS, source)


def test_an_error_of_the_file_does_not_quote_the_secret(tmp_path: Path) -> None:
    """The parser shows the line without what follows the name of a secret, and without the address of a webhook."""
    path = tmp_path / "params.yaml"
    path.write_text("scrape:\n  sources:\n    - {kind: api, headers: {Authorization: Bearer hunter2: x}}\n  a: b: c\n")
    with pytest.raises(InputError, match="not readable YAML") as refused:
        params.load(tmp_path)
    assert "hunter2" not in str(refused.value)
    assert (
        mask_secrets('  x-api-key: "hunter2"\nb: ghp_abcdefghijklmnop0123\nc: plain')
        == '  x-api-key: "…\nb: …\nc: plain'
    )
    path.write_text(
        "pipeline_version: 18\nmodality: text\nscrape: {sources: [{kind: folder}]}\nnotify: {webhook: 'https://hooks.example/T0/B0/hunter2'}\n"
    )
    with pytest.raises(InputError, match="environment variable") as refused:
        params.load(tmp_path)
    assert "hunter2" not in str(refused.value)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["header", "query", "url", "body"])
def test_no_other_variable_of_the_environment_is_read(
    part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A workspace from another author cannot send AWS_SECRET_ACCESS_KEY to its site; a name in `allow_env` can be read."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI7MDENG")
    text = "${AWS_SECRET_ACCESS_KEY}"
    with site() as server:
        server.routes["/*"] = Reply(json.dumps({"rows": ["a text"]}), kind="application/json")
        source: dict[str, Any] = {**API, "url": server.address + "/items", **QUICK}
        changes: dict[str, dict[str, Any]] = {
            "header": {"headers": {"X-A": text}},
            "query": {"query": {"a": text}},
            "url": {"url": f"{server.address}/items/{text}"},
            "body": {"body": {"a": {"b": [text]}}},
        }
        source |= changes[part]
        with pytest.raises(InputError, match="reads the environment variable AWS_SECRET_ACCESS_KEY"):
            run(tmp_path, TEXTS, source)
        assert server.requests == []
        if part == "header":
            assert len(read(run(tmp_path, TEXTS, {**source, "allow_env": ["AWS_SECRET_ACCESS_KEY"]}))) == 1
            assert [headers["X-A"] for _, _, path, headers, _ in server.requests if path == "/items"] == [
                "wJalrXUtnFEMI7MDENG"
            ]


def test_a_bare_variable_in_a_header_is_refused(tmp_path: Path) -> None:
    """Earlier versions expanded it; sent unchanged, it would be a wrong token without an error."""
    with pytest.raises(InputError, match=r"names \$SEEDLING_A: write \$\{SEEDLING_A\}"):
        run(tmp_path, TEXTS, {**API, "headers": {"X-A": "$SEEDLING_A"}})


def test_a_variable_in_the_host_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its value would be sent to a name server; the host must be written in full."""
    monkeypatch.setenv("SEEDLING_A", "value")
    with pytest.raises(InputError, match="variable in its host"):
        run(tmp_path, TEXTS, {**API, "url": "https://${SEEDLING_A}.example/"})


REPEATED = "s3cret/Tök3n+0"


@pytest.mark.slow
def test_a_secret_reaches_its_site_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A secret in the address, a header and the body.

    The site repeats it in the next page's address, in texts and in headers. Rows, origins and the source's file
    have the variable's name instead, and the next page is requested with the value.
    """
    monkeypatch.setenv("SEEDLING_TEST_TOKEN", REPEATED)
    quoted = "s3cret%2FT%C3%B6k3n%2B0"

    def answer(path: str, _: bytes) -> Reply:
        second = "page=2" in path
        rows = [f"text {2 if second else 1}: the token is {REPEATED}, or {quoted}"]
        onward = None if second else f"/items?token={quoted}&page=2"
        return Reply(
            json.dumps({"rows": rows, "next": onward}),
            kind="application/json",
            headers={"X-Echo": f"/a?t={quoted}", "X-Plain": "caf\xe9"},
        )

    with site() as server:
        server.routes["/items"] = answer
        source = {
            **API,
            **QUICK,
            "url": server.address + "/items?token=${SEEDLING_TEST_TOKEN}",
            "headers": {"X-Key": "Key ${SEEDLING_TEST_TOKEN}".replace("TEST_TOKEN", "ASCII")},
            "next": "next",
            "fields": {"whole": "@"},
        }
        monkeypatch.setenv("SEEDLING_ASCII", "a5c11t0k3n")
        rows = read(run(tmp_path, TEXTS, source))
        requests = [(path, headers.get("X-Key")) for _, _, path, headers, _ in server.requests if path != "/robots.txt"]
    assert requests == [
        (f"/items?token={quoted}", "Key a5c11t0k3n"),
        (f"/items?token={quoted}&page=2", "Key a5c11t0k3n"),
    ]
    assert sorted(rows["text"]) == [
        f"text {number}: the token is ${{SEEDLING_TEST_TOKEN}}, or ${{SEEDLING_TEST_TOKEN}}" for number in (1, 2)
    ]
    assert all("${SEEDLING_TEST_TOKEN}" in origin for origin in rows["origin"])
    forms = [form.encode() for form in (REPEATED, quoted, json.dumps(REPEATED)[1:-1], "a5c11t0k3n")]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".sqlite" for path in files)
    assert not [path for path in files for form in forms if form in path.read_bytes()]
    assert not any(form.decode() in part for form in forms for part in capfd.readouterr())


@pytest.mark.slow
def test_a_secret_in_an_address_is_sent_to_no_other_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link to another host carries no value, and neither does one to the site itself with a variable that the source
    has in a header alone.
    """
    monkeypatch.setenv("SEEDLING_A", "t0k3n-of-the-address")
    monkeypatch.setenv("SEEDLING_B", "t0k3n-of-the-header")
    with site() as server, site() as other:
        server.routes["/a"] = Reply(
            "", 302, headers={"Location": f"{other.address}/b?x=${{SEEDLING_A}}&y=${{SEEDLING_B}}"}
        )
        other.routes["/b"] = Reply(json.dumps({"rows": ["one text"]}), kind="application/json")
        source = {**API, **QUICK, "url": server.address + "/a?k=${SEEDLING_A}", "headers": {"X-B": "${SEEDLING_B}"}}
        run(tmp_path, TEXTS, source)
        sent = [(path, headers) for _, _, path, headers, _ in other.requests if path.startswith("/b")]
    assert len(sent) == 1
    assert "t0k3n" not in json.dumps(sent)


def test_short_words_are_not_masked_in_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable may hold a topic: rows with that word are unchanged, and in an address it is masked as a whole word."""
    monkeypatch.setenv("SEEDLING_TOPIC", "birds")
    values = SecretValues.of(ApiSource(**API | {"query": {"q": "${SEEDLING_TOPIC}"}}))
    assert values.masked("two birds") == "two birds"
    assert values.masked_address("http://a.example/birds?q=birds&r=blackbirds") == (
        "http://a.example/$%7BSEEDLING_TOPIC%7D?q=$%7BSEEDLING_TOPIC%7D&r=blackbirds"
    )


def test_a_value_with_a_line_break_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would begin another header; `export X=$(cat file)` of some shells leaves one.

    The error has the variable's name.
    """
    monkeypatch.setenv("SEEDLING_A", "hunter2\nX-Evil: 1")
    with pytest.raises(InputError, match="SEEDLING_A holds a line break") as refused:
        run(tmp_path, TEXTS, {**API, "headers": {"X-A": "${SEEDLING_A}"}})
    assert "hunter2" not in str(refused.value)


@pytest.mark.slow
def test_a_refused_run_leaves_nothing_behind(tmp_path: Path) -> None:
    """In the workspace's files, DVC's cache and the snapshot, only params.yaml has the token."""
    workspace = make_workspace(tmp_path / "work", None, "text")
    text = (workspace / "params.yaml").read_text().split("scrape:")[0]
    source = json.dumps({**API, "headers": {"Authorization": f"Bearer {HEX}"}})
    (workspace / "params.yaml").write_text(f"{text}scrape: {{sources: [{source}]}}\n")
    with pytest.raises(InputError, match="holds a secret"), Ledger(workspace).snapshotted():
        pass
    assert [path.name for path in workspace.rglob("*") if path.is_file() and HEX.encode() in path.read_bytes()] == [
        "params.yaml"
    ]
