"""Signatures of the Planetary Computer: who is asked for them, how often, and what is said where there are none.

The token service and the storage are real servers, reached by the real host names through a proxy.
"""

from __future__ import annotations

import json
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clay_assets.errors import SourceError
from clay_assets.sources.downloads import read_bytes
from clay_assets.transport.access import Access
from clay_assets.transport.signing import KEY_VARIABLE, BlobSigner, shared_signer
from clay_assets_tests.servers.blobs import HOST, TOKENS, BlobService
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.process import ServerProcess
from clay_assets_tests.servers.signed import assert_unsigned, signed_blobs

ACCOUNT, CONTAINER = "naipeuwest", "naip"
PLACE = f"{ACCOUNT}/{CONTAINER}"
ROOT = f"http://{ACCOUNT}{HOST}/{CONTAINER}"
SECRET = "Never0ToBeSeen"


@pytest.fixture
def blobs(
    tmp_path: Path, servers_apart: ServerProcess, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> Iterator[BlobService]:
    """The service and the storage, which the environment leads to; one blob."""
    folder = tmp_path / "blobs" / ACCOUNT / CONTAINER
    folder.mkdir(parents=True)
    (folder / "a.tif").write_bytes(b"content")
    with signed_blobs(tmp_path / "blobs", servers_apart, monkeypatch, caplog) as service:
        yield service
    assert SECRET not in caplog.text


@pytest.fixture
def tokens(blobs: BlobService, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the token service alone."""
    proxy = fault_proxy(blobs.url)
    monkeypatch.setenv("PC_SDK_SAS_URL", proxy.url + TOKENS.rstrip("/"))
    return proxy


@pytest.fixture
def signer() -> BlobSigner:
    return BlobSigner()


# --- signatures -----------------------------------------------------------------------------------


def test_a_signed_address_can_be_read_and_the_href_cannot(blobs: BlobService, signer: BlobSigner) -> None:
    address = signer.sign(f"{ROOT}/a.tif")
    assert address.startswith(f"{ROOT}/a.tif?")
    assert read_bytes(address) == read_bytes(f"{ROOT}/a.tif", Access(signer=signer)) == b"content"
    assert len(blobs.asked) == 1
    assert signer.sign(address) == address  # it is signed already


@pytest.mark.parametrize(
    "href",
    [
        "/disk/vv.tif",
        "s3://naip-analytic/al/2021/a.tif",
        "https://example.com/a.tif",
        f"https://naipeuwest{HOST}.example.com/naip/a.tif",
        f"https://naipeuwest{HOST}@example.com/naip/a.tif",
    ],
)
def test_other_hosts_are_never_asked_about(blobs: BlobService, signer: BlobSigner, href: str) -> None:
    assert signer.sign(href) == href
    assert blobs.asked == []


def test_threads_share_one_answer(blobs: BlobService, tokens: FaultProxy, signer: BlobSigner) -> None:
    tokens.delay(0.3)
    start = threading.Barrier(16)

    def sign(number: int) -> str:
        start.wait()
        return signer.sign(f"{ROOT}/{number}.tif")

    with ThreadPoolExecutor(16) as pool:
        addresses = list(pool.map(sign, range(16)))
    assert len(blobs.asked) == 1
    assert [address.partition("?")[0] for address in addresses] == [f"{ROOT}/{number}.tif" for number in range(16)]
    assert len({address.partition("?")[2] for address in addresses}) == 1


def test_a_signature_is_kept_and_each_container_has_its_own(blobs: BlobService, signer: BlobSigner) -> None:
    for _ in range(3):
        signer.sign(f"{ROOT}/a.tif")
    assert len(blobs.asked) == 1
    signer.sign(f"http://{ACCOUNT}{HOST}/another/a.tif")
    assert [asked.place for asked in blobs.asked] == [PLACE, f"{ACCOUNT}/another"]


def test_a_signature_that_ends_soon_is_replaced(blobs: BlobService, signer: BlobSigner) -> None:
    blobs.hand_out_for(30)  # seconds, too short to begin a scene with
    for _ in range(3):
        signer.sign(f"{ROOT}/a.tif")
    assert len(blobs.asked) == 3


def test_a_forgotten_signature_is_replaced_once(blobs: BlobService, signer: BlobSigner) -> None:
    first = signer.sign(f"{ROOT}/a.tif")
    for _ in range(3):  # as threads do that were refused together
        signer.forget(first)
        second = signer.sign(f"{ROOT}/a.tif")
        assert second != first
    assert len(blobs.asked) == 2


@pytest.mark.parametrize("key", ["0123456789abcdef", None])
def test_the_subscription_key_is_sent_where_there_is_one(
    blobs: BlobService, signer: BlobSigner, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    if key:
        monkeypatch.setenv(KEY_VARIABLE, key)
    signer.sign(f"{ROOT}/a.tif")
    assert [asked.key for asked in blobs.asked] == [key]


def test_the_subscription_key_never_follows_a_redirect(
    blobs: BlobService, tokens: FaultProxy, signer: BlobSigner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, SECRET)
    tokens.answer(302, headers={"Location": f"{blobs.url}{TOKENS}{PLACE}"})
    assert signer.sign(f"{ROOT}/a.tif") != f"{ROOT}/a.tif"
    assert [seen.headers.get("ocp-apim-subscription-key") for seen in tokens.seen] == [SECRET]
    assert [asked.key for asked in blobs.asked] == [None]


def test_another_process_has_one_signer_for_all(signer: BlobSigner) -> None:
    assert pickle.loads(pickle.dumps(signer)) is shared_signer(signer.patience)
    access = Access(signer=shared_signer(), hosts=(f"{ACCOUNT}{HOST}",))
    assert pickle.loads(pickle.dumps(access)) == access


def test_no_signature_is_pickled_or_shown(blobs: BlobService, signer: BlobSigner) -> None:
    signer.sign(f"{ROOT}/a.tif")
    pickled = pickle.dumps(Access(signer=signer)).decode("latin-1")
    assert_unsigned(blobs, pickled, repr(signer), repr(vars(signer)), repr(Access(signer=signer)))


# --- a service in trouble -------------------------------------------------------------------------


def token(**fields: str | None) -> bytes:
    """The body of an answer, some of its fields changed or (None) left out."""
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    changed = {"msft:expiry": later, "token": f"st=1&se=2&sp=r&sig={SECRET}", **fields}
    return json.dumps({name: value for name, value in changed.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html><body>It works!</body></html>", r"unexpected answer from the token service \(not JSON\)"),
        (200, b"", "unexpected answer"),
        (200, b"[]", "unexpected answer"),
        (200, b'"sp=r"', "unexpected answer"),
        (200, token(token=None), "unexpected answer"),
        (200, token(**{"msft:expiry": None}), "unexpected answer"),
        (200, token(**{"msft:expiry": f"sig={SECRET}"}), "unexpected answer"),
        (401, b"", f"/{PLACE}: access refused .401 Planned"),
        (404, token(), f"/{PLACE}: file not found .404 Planned"),
    ],
    ids=["html", "empty", "list", "text", "no-token", "no-expiry", "expiry-is-no-time", "401", "404"],
)
def test_an_answer_that_is_no_token(
    blobs: BlobService, tokens: FaultProxy, signer: BlobSigner, status: int, body: bytes, said: str
) -> None:
    tokens.answer(status, body=body, headers={"Content-Type": "application/json"})
    wanted = rf"^{ROOT}/a\.tif: no signature from the Planetary Computer \(.*{said}.*\)\. Run again.*{KEY_VARIABLE}"
    with pytest.raises(SourceError, match=wanted) as raised:
        signer.sign(f"{ROOT}/a.tif")
    assert_unsigned(blobs, raised.value)
    assert SECRET not in str(raised.value)
    assert signer.sign(f"{ROOT}/a.tif").startswith(f"{ROOT}/a.tif?")  # and it leaves nothing behind


def test_a_token_whose_end_has_no_time_zone_ends_in_utc(tokens: FaultProxy, signer: BlobSigner) -> None:
    tokens.answer(200, body=token(**{"msft:expiry": "2100-01-01T00:00:00"}))
    assert SECRET in signer.sign(f"{ROOT}/a.tif")
    assert SECRET in signer.sign(f"{ROOT}/a.tif")
    tokens.answer(200, body=token(**{"msft:expiry": "2020-01-01T00:00:00"}))
    expired = BlobSigner()
    assert SECRET in expired.sign(f"{ROOT}/a.tif")
    assert SECRET not in expired.sign(f"{ROOT}/a.tif")


def test_an_error_that_passes_is_not_noticed(tokens: FaultProxy, signer: BlobSigner) -> None:
    tokens.answer(500)
    assert signer.sign(f"{ROOT}/a.tif").startswith(f"{ROOT}/a.tif?")
    assert [seen.fault for seen in tokens.seen] == ["answer", None]


@pytest.mark.parametrize("fault", ["stall", "500"])
def test_a_service_that_never_answers_is_not_waited_for(tokens: FaultProxy, fault: str) -> None:
    if fault == "stall":
        tokens.stall(times=None)
    else:
        tokens.answer(500, times=None, retry_after=30)
    impatient = BlobSigner(patience=1)

    def sign(number: int) -> str:
        with pytest.raises(SourceError, match=rf"/{number}\.tif: .*no answer within 1 s.*status page") as raised:
            impatient.sign(f"{ROOT}/{number}.tif")
        return str(raised.value)

    began = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        assert len(set(pool.map(sign, range(12)))) == 12
    assert time.monotonic() - began < 6  # threads that waited for their turn do not ask again, one after another


def test_no_service_at_all(blobs: BlobService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PC_SDK_SAS_URL", "http://127.0.0.1:1/token")
    with pytest.raises(SourceError, match=r"a\.tif: no signature from the Planetary Computer .*Run again"):
        BlobSigner(patience=0.5).sign(f"{ROOT}/a.tif")
