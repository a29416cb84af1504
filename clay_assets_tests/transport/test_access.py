"""How sources are accessed: which hosts an access is for, and secrets, which reach these hosts and nothing else."""

from __future__ import annotations

import logging
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from clay_assets.chips.indexing import SceneJob
from clay_assets.errors import InputError, SourceError
from clay_assets.recipes import load_recipe
from clay_assets.sources.downloads import read_bytes
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import S3Store
from clay_assets.transport.access import (
    Access,
    Header,
    Keys,
    Secret,
    access_for,
    bearer,
    safe_cause,
    without_signature,
)
from clay_assets.transport.s3 import S3Connection
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.transport.readers import NAME, PIXELS, Reader, by_size, every_reader

TOKEN, KEY = "Bearer0NeverToBeSeen", "Key0NeverToBeSeen"
AUTHORIZED = Access(headers=(*bearer("THEIR_TOKEN"), Header("X-Api-Key", "THEIR_KEY")))
SENT = {"authorization": f"Bearer {TOKEN}", "x-api-key": KEY}


@pytest.fixture(autouse=True)
def secrets(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The environment holds the secrets; no log record of the test may, those of libraries at DEBUG included."""
    caplog.set_level(logging.DEBUG)
    # Not by `monkeypatch`, which would then be undone after a bucket's own variables.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THEIR_TOKEN", TOKEN)
        patch.setenv("THEIR_KEY", KEY)
        yield
    assert_hidden(*(shown for record in caplog.records for shown in (record.getMessage(), record.__dict__)))


def assert_hidden(*texts: object) -> None:
    """None of some texts holds a secret; of an exception the whole traceback is searched."""
    for text in texts:
        shown = "".join(traceback.format_exception(text)) if isinstance(text, BaseException) else str(text)
        assert TOKEN not in shown
        assert KEY not in shown


def sent_to(host: FaultProxy) -> list[dict[str, str]]:
    """The secret headers of every request to a host, shown to nobody but the test."""
    return [{name: value for name, value in seen.headers.items() if name in SENT} for seen in host.seen]


# --- where an access applies ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "applies"),
    [
        ("https://sentinel-cogs.s3.us-west-2.amazonaws.com/a/SCL.tif", True),
        ("s3://sentinel-cogs/a/SCL.tif", True),
        ("https://data.example.com/a.tif", True),
        ("https://data.example.com:8080/a.tif", False),
        ("s3://sentinel-cogs-inventory/a/SCL.tif", False),
        ("s3://sentinel-cogs.example/a/SCL.tif", False),
        ("s3://our-bucket/sentinel-cogs/SCL.tif", False),
        ("/disk/sentinel-cogs/SCL.tif", False),
        ("https://sentinel-cogs.example.org/a.tif", False),
        ("https://sentinel-cogs.s3.amazonaws.com.example.org/a.tif", False),
        ("https://data.example.com.example.org/a.tif", False),
        ("https://data.example.com@example.org/a.tif", False),
        ("https://example.org/data.example.com/a.tif", False),
        ("https://example.org/?https://data.example.com", False),
    ],
)
def test_an_access_applies_to_its_hosts_and_buckets_alone(href: str, applies: bool) -> None:
    assert Access(headers=bearer("X"), hosts=("sentinel-cogs", "data.example.com")).applies_to(href) is applies


@pytest.mark.parametrize("href", ["s3://any/B2.TIF", "https://example.com/a.tif", "/disk/a.tif"])
def test_an_access_without_hosts_applies_everywhere(href: str) -> None:
    assert Access(requester_pays=True).applies_to(href)


def test_the_first_access_that_applies_is_taken() -> None:
    here, there = Access(unsigned=True, hosts=("here",)), Access(requester_pays=True, hosts=("there", "here"))
    assert access_for((here, there), "s3://here/a.tif") == here
    assert access_for((here, there), "s3://there/a.tif") == there
    assert access_for((here, there), "s3://our-bucket/a.tif") == access_for((), "s3://here/a.tif") == Access()


# --- secrets reach their host ---------------------------------------------------------------------


@every_reader
def test_a_token_reaches_the_host(read: Reader, here: FaultProxy, tmp_path: Path) -> None:
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert here.total
    assert sent_to(here) == [SENT] * here.total


def test_a_secret_may_hold_what_separates_headers(here: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", 'a, b: "c"; d=')
    with open_raster(f"{here.url}/{NAME}", Access(headers=(Header("X-Api-Key", "THEIR_KEY"),))):
        pass
    assert {seen.headers["x-api-key"] for seen in here.seen} == {'a, b: "c"; d='}


@every_reader
def test_a_login_in_netrc_does_not_take_the_place_of_the_token(
    read: Reader, here: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password something\n")
    (tmp_path / ".netrc").write_text((tmp_path / "netrc").read_text())
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    here.answer(307, headers={"Location": f"/moved/{NAME}"}, path="^/image")
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert sent_to(here) == [SENT] * here.total


@every_reader
@pytest.mark.parametrize("value", [None, "", "  "], ids=["not set", "empty", "blank"])
def test_a_variable_that_is_not_set_is_named(
    read: Reader, value: str | None, here: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_TOKEN", value) if value is not None else monkeypatch.delenv("THEIR_TOKEN")
    with pytest.raises(InputError, match=r"^THEIR_TOKEN: not set, .*\. Set this environment variable"):
        read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert here.total == 0


@pytest.mark.parametrize("value", [f"{TOKEN}\r\nX-Other: 1", f"{TOKEN} – copied"], ids=["two lines", "not ASCII"])
def test_a_variable_that_no_header_can_hold_is_named(
    here: FaultProxy, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_TOKEN", value)
    with pytest.raises(InputError, match=r"^THEIR_TOKEN: not one line of plain text\. Copy the token again") as raised:
        read_bytes(f"{here.url}/{NAME}", AUTHORIZED)
    assert_hidden(raised.value)


@every_reader
@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_told_by_its_variable(read: Reader, status: int, here: FaultProxy, tmp_path: Path) -> None:
    here.answer(status, times=None)
    href = f"{here.url}/{NAME}"
    with pytest.raises(InputError, match=rf"^{href}: access refused \({status} .*\)\. .*THEIR_TOKEN") as raised:
        read(href, AUTHORIZED, tmp_path / "to")
    assert_hidden(raised.value)
    assert "AWS" not in str(raised.value)
    assert here.total == 1


# --- and no other ---------------------------------------------------------------------------------


@every_reader
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_secret_follows_a_redirect_to_another_host(
    read: Reader, status: int, here: FaultProxy, elsewhere: FaultProxy, tmp_path: Path
) -> None:
    here.answer(status, times=None, headers={"Location": f"{elsewhere.url}/{NAME}"})
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert sent_to(here) == [SENT] * here.total
    assert elsewhere.total
    assert sent_to(elsewhere) == [{}] * elsewhere.total


@every_reader
def test_secrets_follow_a_redirect_within_the_host(read: Reader, here: FaultProxy, tmp_path: Path) -> None:
    here.answer(302, times=None, headers={"Location": f"/moved/{NAME}"}, path="^/image")
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert {seen.path for seen in here.seen} == {f"/{NAME}", f"/moved/{NAME}"}
    assert sent_to(here) == [SENT] * here.total


@every_reader
def test_no_secret_comes_back_from_another_host_to_a_third(
    read: Reader, here: FaultProxy, elsewhere: FaultProxy, fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> None:
    third = fault_proxy(elsewhere.url)
    here.answer(302, times=None, headers={"Location": f"{elsewhere.url}/{NAME}"})
    elsewhere.answer(302, headers={"Location": f"{third.url}/{NAME}"})
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert not any(sent_to(elsewhere) + sent_to(third))


def test_no_token_follows_a_redirect_that_only_gdal_meets(here: FaultProxy, elsewhere: FaultProxy) -> None:
    here.delay(0, times=1)  # the request by which we look for redirects
    here.answer(302, times=None, headers={"Location": f"{elsewhere.url}/{NAME}"})
    with open_raster(f"{here.url}/{NAME}", Access(headers=bearer("THEIR_TOKEN"))) as source:
        assert (source.read(1) == PIXELS).all()
    assert elsewhere.total
    assert not any(sent_to(elsewhere))


@every_reader
@pytest.mark.parametrize("parameter", ["sig", "Signature", "X-Amz-Signature", "X-Goog-Signature"])
def test_a_signed_address_of_another_host_is_read_and_not_shown(
    read: Reader,
    parameter: str,
    here: FaultProxy,
    elsewhere: FaultProxy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As hosts with a login send a reader on to their storage."""
    signature = "Signature0NeverToBeSeen"
    here.answer(302, times=None, headers={"Location": f"{elsewhere.url}/{NAME}?Expires=1&{parameter}={signature}"})
    read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert {seen.path.partition("=")[0] for seen in elsewhere.seen} == {f"/{NAME}?Expires"}
    elsewhere.answer(403, times=None)
    with pytest.raises(InputError, match=rf"^{here.url}/{NAME}: access refused .*THEIR_TOKEN") as raised:
        read(f"{here.url}/{NAME}", AUTHORIZED, tmp_path / "to")
    assert signature not in "".join(traceback.format_exception(raised.value))
    assert signature not in caplog.text
    assert not any(sent_to(elsewhere))


def test_a_signed_address_that_ends_while_pixels_are_read_is_not_shown(here: FaultProxy, elsewhere: FaultProxy) -> None:
    here.answer(302, times=None, headers={"Location": f"{elsewhere.url}/{NAME}?X-Amz-Signature=Signature0"})
    with open_raster(f"{here.url}/{NAME}", AUTHORIZED) as source:
        elsewhere.answer(403, times=None)
        with pytest.raises((InputError, SourceError), match=rf"^{here.url}/{NAME}: ") as raised:
            source.read(1)
    assert "Signature0" not in "".join(traceback.format_exception(raised.value))


def test_no_secret_reaches_a_raster_of_another_host_that_is_open_at_once(
    here: FaultProxy, elsewhere: FaultProxy
) -> None:
    with open_raster(f"{here.url}/{NAME}", AUTHORIZED) as first, open_raster(f"{elsewhere.url}/{NAME}") as second:
        assert (first.read(1) == second.read(1)).all()
    assert sent_to(here) == [SENT] * here.total
    assert sent_to(elsewhere) == [{}] * elsewhere.total


def test_each_of_two_open_rasters_sends_its_own_secret(
    here: FaultProxy, elsewhere: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_TOKEN", "other")
    theirs = Access(headers=bearer("OTHER_TOKEN"))
    with (
        open_raster(f"{here.url}/{NAME}", AUTHORIZED) as first,
        open_raster(f"{elsewhere.url}/{NAME}", theirs) as other,
    ):
        assert (first.read(1) == other.read(1)).all()
        assert (other.read(1) == PIXELS).all()
    assert sent_to(here) == [SENT] * here.total
    assert sent_to(elsewhere) == [{"authorization": "Bearer other"}] * elsewhere.total


def test_no_secret_reaches_a_raster_of_another_thread(here: FaultProxy, elsewhere: FaultProxy) -> None:
    """Options of GDAL that are set in the main thread hold in all of them."""
    read = []

    def other() -> None:
        with open_raster(f"{elsewhere.url}/{NAME}") as source:
            read.append(source.read(1))

    with open_raster(f"{here.url}/{NAME}", AUTHORIZED):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    np.testing.assert_array_equal(read, [PIXELS])
    assert sent_to(elsewhere) == [{}] * elsewhere.total


def test_no_secret_reaches_a_bucket(
    here: FaultProxy,
    s3_bucket: Bucket,
    fault_proxy: Callable[[str], FaultProxy],
    web: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    s3 = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.url)
    s3_bucket.client.upload_file(str(web / NAME), s3_bucket.name, NAME)
    with open_raster(f"{here.url}/{NAME}", AUTHORIZED), open_raster(f"{s3_bucket.url}/{NAME}") as source:
        source.read(1)
    assert s3.total
    assert not any("x-api-key" in seen.headers for seen in s3.seen)
    assert all(seen.headers["authorization"].startswith("AWS4-") for seen in s3.seen)


# --- nor what is shown ----------------------------------------------------------------------------


@every_reader
@pytest.mark.parametrize("fault", ["none", "absent", "401", "500", "reset", "truncate"])
def test_no_secret_is_shown_whatever_happens(
    read: Reader, fault: str, here: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Log records are searched at the end of every test here."""
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF_MAX", 0.0)
    if fault.isdigit():
        here.answer(int(fault), times=None)
    elif fault in ("reset", "truncate"):
        getattr(here, fault)(times=None)
    href = f"{here.url}/{'none.tif' if fault == 'absent' else NAME}"
    if fault == "none" or (fault == "truncate" and read is by_size):  # which asks for no body
        read(href, AUTHORIZED, tmp_path / "to")
        return
    with pytest.raises((InputError, SourceError), match=rf"^{href}: .*\. .*\.$") as raised:
        read(href, AUTHORIZED, tmp_path / "to")
    assert_hidden(raised.value, repr(raised.value))


def test_secrets_have_no_repr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY_ID", KEY)
    monkeypatch.setenv("SECRET", TOKEN)
    access = Access(headers=AUTHORIZED.headers, keys=Keys("KEY_ID", "SECRET", "SECRET"))
    connection = access.s3()
    assert (connection.access_key, connection.secret_key, connection.session_token) == (KEY, TOKEN, TOKEN)
    assert access.http_headers() == {"Authorization": f"Bearer {TOKEN}", "X-Api-Key": KEY}
    assert_hidden(access, repr(access), repr(connection), str(connection), repr(access.http_headers()))
    assert repr(Secret("x")) == "'***'"
    assert f"{Secret('x')}" == "x"


def test_a_job_for_another_process_shows_no_secret() -> None:
    connection = S3Connection(endpoint="http://127.0.0.1:9", access_key=KEY, secret_key=TOKEN)
    store = S3Store("bucket", "prefix", connection)
    job = SceneJob({"id": "a"}, "sentinel-2-l2a", "key", store, load_recipe("clay_v1"), stamp={})
    received = pickle.loads(pickle.dumps(job))
    assert received.store.connection == connection
    assert_hidden(repr(job), repr(received), repr(store), repr(store.access))


def test_an_access_for_another_process_holds_no_secret() -> None:
    pickled = pickle.dumps(AUTHORIZED)
    assert_hidden(pickled.decode("latin-1"))
    assert pickle.loads(pickled) == AUTHORIZED


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("'https://a.net/c/f.tif?st=1&sig=ab%2Bc%3D' is no raster", "'https://a.net/c/f.tif' is no raster"),
        ("https://a.net/c/f.tif?sig=abc: refused", "https://a.net/c/f.tif: refused"),
        ("f.tif?st=1&se=2&sig=a%3D, band 1: failed", "f.tif, band 1: failed"),
        ("url: /c/f.tif?sv=1&sig=abc&sr=c (Caused by x)", "url: /c/f.tif (Caused by x)"),
        ('"GET /f.tif?X-Amz-Credential=a%2Fb&X-Amz-Signature=c HTTP/1.1" 200', '"GET /f.tif HTTP/1.1" 200'),
        ("/f.tif?Expires=1&Signature=a~_b-c__&Key-Pair-Id=K", "/f.tif"),
        ("https://a.net/?significant=1", "https://a.net/?significant=1"),
        ("https://a.net/?design=1&signature_of=2", "https://a.net/?design=1&signature_of=2"),
        ("two /a?sig=1 and /b?sig=2", "two /a and /b"),
    ],
)
def test_no_signature_is_shown(text: str, shown: str) -> None:
    assert without_signature(text) == shown


def test_an_error_that_shows_a_signature_is_no_cause_of_another() -> None:
    hidden = ValueError("see below")
    hidden.__cause__ = OSError("https://a.net/f.tif?st=1&sig=abc")
    assert safe_cause(hidden) is None
    harmless = ValueError("see below")
    harmless.__context__ = OSError("https://a.net/f.tif")
    assert safe_cause(harmless) is harmless
