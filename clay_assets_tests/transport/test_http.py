"""HTTP exchanges: what an answer means, where redirects lead, and what goes with them."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from clay_assets.errors import InputError, SourceError
from clay_assets.sources.downloads import read_bytes
from clay_assets.transport.access import Access, Header, bearer
from clay_assets.transport.http import AbsentError, DeniedError, Session, exchange, session
from clay_assets.transport.retries import RETRY_AFTER_MAX, BusyError
from clay_assets_tests.conftest import not_run
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.tls import TlsServer, make_certificate
from clay_assets_tests.transport.readers import NAME

SECRETS = Access(headers=(*bearer("THEIR_TOKEN"), Header("X-Api-Key", "THEIR_TOKEN")))


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_TOKEN", "token")


def ask(href: str, access: Access | None = None, **headers: str) -> bytes:
    with exchange("GET", href, access, headers=headers) as answer:
        return answer.content


# --- what an answer means -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        (401, DeniedError, r"access refused \(401 Planned\)\. Check that the file is public\."),
        (403, DeniedError, r"access refused \(403 Planned\)\. Check that the file is public\."),
        (404, AbsentError, r"file not found \(404 Planned\)\. Check the address\."),
        (410, AbsentError, r"file not found \(410 Planned\)\. Check the address\."),
        (400, InputError, r"the server answered 400 Planned\. Check the address\."),
        (418, InputError, r"the server answered 418 Planned\. Check the address\."),
        (501, InputError, r"the server answered 501 Planned\. Check the address\."),
        *((status, BusyError, rf"the server answered {status}\.") for status in (408, 429, 500, 502, 503, 504)),
    ],
)
def test_each_status_has_one_meaning(here: FaultProxy, status: int, kind: type[Exception], said: str) -> None:
    here.answer(status)
    with pytest.raises(kind, match=rf"^{here.url}/{NAME}: {said}") as raised:
        ask(f"{here.url}/{NAME}")
    assert type(raised.value) is kind
    assert here.total == 1  # trying again is the caller's business


@pytest.mark.parametrize(
    ("retry_after", "wait"),
    [(None, 0), ("7", 7), ("3600", RETRY_AFTER_MAX), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("tomorrow", 0), ("-5", 0)],
)
def test_a_busy_server_says_how_long_to_wait(here: FaultProxy, retry_after: str | None, wait: float) -> None:
    here.answer(503, retry_after=retry_after)
    with pytest.raises(BusyError) as raised:
        ask(f"{here.url}/{NAME}")
    assert raised.value.wait == wait


@pytest.mark.parametrize("fault", ["reset", "truncate", "stall"])
def test_an_exchange_that_breaks_off_may_be_tried_again(here: FaultProxy, fault: str) -> None:
    here.stall(0.1) if fault == "stall" else getattr(here, fault)()
    with pytest.raises(
        SourceError, match=rf"^{here.url}/{NAME}: could not be read .*\. Check the network, or run again"
    ):
        ask(f"{here.url}/{NAME}")


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(SourceError, match=rf"http://127\.0\.0\.1:{port}/a: could not be read"):
        ask(f"http://127.0.0.1:{port}/a")


@pytest.mark.parametrize("href", ["http://", "http://:80/a", "https://[::1/a", "http://*.example.com/a"])
def test_an_address_that_is_none_is_not_tried_again(href: str) -> None:
    with pytest.raises(InputError, match=r"not a usable address .*\. Check it\."):
        read_bytes(href)


# --- a signature that is refused ------------------------------------------------------------------


class NumberingSigner:
    """Signs with a number, one more each time a signature is forgotten."""

    def __init__(self) -> None:
        self.number = 1

    def sign(self, href: str) -> str:
        return f"{href}?sig={self.number}"

    def forget(self, address: str) -> None:
        self.number += address.endswith(f"?sig={self.number}")


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_signature_is_renewed_once(here: FaultProxy, status: int) -> None:
    here.answer(status, times=None, path="sig=1$")
    assert ask(f"{here.url}/{NAME}", Access(signer=NumberingSigner()))
    assert [seen.path for seen in here.seen] == [f"/{NAME}?sig=1", f"/{NAME}?sig=2"]


def test_two_refusals_are_the_end(here: FaultProxy) -> None:
    here.answer(403, times=None)
    with pytest.raises(DeniedError, match=rf"^{here.url}/{NAME}: access refused .*the signature was renewed"):
        ask(f"{here.url}/{NAME}", Access(signer=NumberingSigner()))
    assert here.total == 2


# --- redirects ------------------------------------------------------------------------------------


@pytest.mark.parametrize("to", ["itself", "another host and back"])
def test_redirects_in_a_circle_come_to_an_end(here: FaultProxy, elsewhere: FaultProxy, to: str) -> None:
    there = here if to == "itself" else elsewhere
    here.answer(302, times=None, headers={"Location": f"{there.url}/{NAME}"})
    elsewhere.answer(302, times=None, headers={"Location": f"{here.url}/{NAME}"})
    with pytest.raises(InputError, match=rf"^{here.url}/{NAME}: not a usable address \(Exceeded 30 redirects"):
        read_bytes(f"{here.url}/{NAME}", SECRETS)
    assert here.total + elsewhere.total == 31
    assert not any("authorization" in seen.headers for seen in elsewhere.seen)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/a", "gopher://127.0.0.1/"])
def test_a_redirect_leads_to_the_web_alone(here: FaultProxy, location: str) -> None:
    here.answer(302, headers={"Location": location})
    with pytest.raises(InputError, match=rf"^{here.url}/{NAME}: not a usable address .*No connection adapters"):
        read_bytes(f"{here.url}/{NAME}")


def test_harmless_headers_follow_a_redirect(here: FaultProxy, elsewhere: FaultProxy) -> None:
    here.answer(302, headers={"Location": f"{elsewhere.url}/{NAME}"})
    assert ask(f"{here.url}/{NAME}", SECRETS, Range="bytes=0-1", Accept="image/tiff") == b"II"
    (seen,) = elsewhere.seen
    assert (seen.headers["range"], seen.headers["accept"]) == ("bytes=0-1", "image/tiff")
    assert not {"authorization", "x-api-key"} & set(seen.headers)


def test_cookies_go_to_the_host_that_set_them(here: FaultProxy, elsewhere: FaultProxy) -> None:
    """As logins by redirects need them: to another host and back."""
    other = elsewhere.url.replace("127.0.0.1", "localhost")  # cookies do not know ports
    here.answer(302, headers={"Location": f"{other}/{NAME}", "Set-Cookie": "ours=1"})
    elsewhere.answer(302, headers={"Location": f"{here.url}/moved/{NAME}", "Set-Cookie": "theirs=1"})
    with Session() as fresh:
        assert fresh.get(f"{here.url}/{NAME}", timeout=20).ok
    assert [seen.headers.get("cookie") for seen in (*here.seen, *elsewhere.seen)] == [None, "ours=1", None]


def test_a_proxy_is_told_its_password_after_a_redirect_too(here: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", here.url.replace("//", "//user:password@"))
    here.answer(302, headers={"Location": "http://there.example/a"}, path="here.example")
    here.answer(200, body=b"content", path="there.example")
    assert ask("http://here.example/a", SECRETS) == b"content"
    first, second = (seen.headers for seen in here.seen)
    assert first["proxy-authorization"] == second["proxy-authorization"]
    assert first["authorization"] == "Bearer token"
    assert "authorization" not in second


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("https://a.org/x", "https://a.org/y", True),
        ("https://a.org/x", "https://a.org:443/y", True),
        ("https://A.org/x", "https://a.org/x", True),
        ("http://a.org/x", "https://a.org/x", True),  # better than before
        ("https://a.org/x", "http://a.org/x", False),
        ("https://a.org/x", "https://a.org:8443/x", False),
        ("https://a.org/x", "https://b.a.org/x", False),
        ("https://a.org/x", "https://a.org.example.com/x", False),
        ("https://a.org/x", "https://a.org@example.com/x", False),
    ],
)
def test_a_host_is_host_port_and_scheme(before: str, after: str, same: bool) -> None:
    assert session().same_host(before, after) is same


# --- HTTPS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        not_run("HTTPS", "openssl is not installed")
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TlsServer]:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
    with TlsServer(certificate) as server:
        yield server


def secrets(headers: dict[str, str]) -> list[str | None]:
    return [headers.get(name) for name in ("authorization", "x-api-key")]


@pytest.mark.slow
def test_secrets_follow_within_an_https_host_and_not_to_another(tls: TlsServer, certificate: Path) -> None:
    with TlsServer(certificate) as other:
        tls.redirects = {"/a": "/b", "/b": f"{other.url}/c"}
        other.redirects = {"/c": "/d"}
        assert ask(f"{tls.url}/a", SECRETS) == b"content"
        assert [(path, secrets(headers)) for path, headers in (*tls.seen, *other.seen)] == [
            ("/a", ["Bearer token", "token"]),
            ("/b", ["Bearer token", "token"]),
            ("/c", [None, None]),
            ("/d", [None, None]),
        ]


def test_no_secret_follows_from_https_to_http(tls: TlsServer, here: FaultProxy) -> None:
    tls.redirects = {"/a": f"{here.url}/{NAME}"}
    assert ask(f"{tls.url}/a", SECRETS).startswith(b"II")
    assert [secrets(seen.headers) for seen in here.seen] == [[None, None]]


def test_a_certificate_that_nobody_vouches_for_is_refused(tls: TlsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")
    with pytest.raises(SourceError, match=rf"^{tls.url}/a: could not be read .*CERTIFICATE_VERIFY_FAILED"):
        ask(f"{tls.url}/a", SECRETS)
    assert tls.seen == []
