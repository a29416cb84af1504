"""One retry policy, and every client that is configured by it."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter
from tenacity import RetryCallState

from clay_assets.errors import InputError, SourceError
from clay_assets.sources.downloads import read_bytes
from clay_assets.sources.rasters import gdal_options as options_of_rasters
from clay_assets.sources.rasters import open_raster
from clay_assets.transport import retries
from clay_assets.transport.access import Access
from clay_assets.transport.retries import (
    ATTEMPTS,
    BACK_OFF_MAX,
    CONNECT_TIMEOUT,
    READ_TIMEOUT,
    RETRY_AFTER_MAX,
    STATUSES,
    BusyError,
    botocore_options,
    gdal_options,
    retrying,
    urllib3_retry,
)
from clay_assets.transport.s3 import S3Connection
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.transport.readers import NAME, PIXELS

# S3 has a status of its own for what others call 429, and 408 and 429 of HTTP are not among those that botocore repeats
# without the name of an error in the body.
S3_STATUSES = (500, 502, 503, 504)


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests count attempts, and need not wait for them."""
    monkeypatch.setattr(retries, "BACK_OFF_MAX", 0.0)


def by_tenacity(proxy: FaultProxy, bucket: str) -> None:
    read_bytes(f"{proxy.url}/{NAME}")


def by_urllib3(proxy: FaultProxy, bucket: str) -> None:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=urllib3_retry(back_off=0)))
        session.get(f"{proxy.url}/{NAME}", timeout=30).raise_for_status()


def by_gdal(proxy: FaultProxy, bucket: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retries, "BACK_OFF", 0.01)
        with open_raster(f"{proxy.url}/{NAME}") as source:
            source.read(1)


CLIENTS = {"tenacity": by_tenacity, "urllib3": by_urllib3, "GDAL": by_gdal}
every_client = pytest.mark.parametrize("ask", CLIENTS.values(), ids=CLIENTS)
Ask = Callable[[FaultProxy, str], None]


# --- what is tried again, and how often -----------------------------------------------------------


@every_client
@pytest.mark.parametrize("status", STATUSES)
def test_a_status_that_may_pass_is_tried_again(ask: Ask, status: int, here: FaultProxy) -> None:
    here.answer(status, times=2)
    ask(here, "")
    assert [seen.fault for seen in here.seen[:3]] == ["answer", "answer", None]


@every_client
@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 501])
def test_a_status_that_stays_is_not(ask: Ask, status: int, here: FaultProxy) -> None:
    here.answer(status, times=None)
    with pytest.raises((InputError, SourceError, requests.HTTPError)):
        ask(here, "")
    assert here.total <= (2 if ask is by_gdal else 1)  # GDAL asks once more for some, with another range


@every_client
def test_the_policys_attempts_are_made_and_no_more(ask: Ask, here: FaultProxy) -> None:
    here.answer(503, times=None)
    with pytest.raises((SourceError, requests.exceptions.RetryError)):
        ask(here, "")
    assert here.total == ATTEMPTS + (ask is by_gdal)  # and once more to empty GDAL's cache


# pyarrow waits as long as it likes between attempts, so it is tried with two of them.
@pytest.mark.parametrize(
    ("by", "status"), [*product(("boto3", "GDAL"), S3_STATUSES), ("pyarrow", 500), ("pyarrow", 503)]
)
def test_clients_of_s3_try_again(
    by: str,
    status: int,
    s3_bucket: Bucket,
    web: Path,
    fault_proxy: Callable[[str], FaultProxy],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "BACK_OFF", 0.01)
    s3_bucket.client.upload_file(str(web / NAME), s3_bucket.name, NAME)
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    connection = S3Connection(endpoint=proxy.url)
    proxy.answer(status, times=2)
    if by == "boto3":
        assert connection.client().get_object(Bucket=s3_bucket.name, Key=NAME)["Body"].read()[:2] == b"II"
    elif by == "pyarrow":
        assert connection.filesystem().open_input_file(f"{s3_bucket.name}/{NAME}").read(2) == b"II"
    else:
        with open_raster(f"{s3_bucket.url}/{NAME}", Access(connection=connection)) as source:
            assert (source.read(1) == PIXELS).all()
    assert [seen.fault for seen in proxy.seen[:3]] == ["answer", "answer", None]


def test_boto3_makes_the_policys_attempts(s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy]) -> None:
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    proxy.answer(503, times=None)
    client = S3Connection(endpoint=proxy.url).client()
    with pytest.raises(Exception, match="503"):
        client.head_bucket(Bucket=s3_bucket.name)
    assert proxy.total == ATTEMPTS


def test_every_client_has_the_timeouts_of_the_policy(s3_bucket: Bucket) -> None:
    config = S3Connection().client().meta.config
    assert (config.connect_timeout, config.read_timeout) == (CONNECT_TIMEOUT, READ_TIMEOUT)
    assert botocore_options()["retries"] == {"mode": "standard", "total_max_attempts": ATTEMPTS}
    of_gdal = {"GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_TIMEOUT), "GDAL_HTTP_TIMEOUT": str(READ_TIMEOUT)}
    assert of_gdal.items() <= gdal_options().items() <= options_of_rasters("/disk/a.tif", Access()).items()
    assert set(urllib3_retry().status_forcelist) == set(STATUSES)
    assert gdal_options()["GDAL_HTTP_RETRY_CODES"] == ",".join(map(str, STATUSES))


# --- how long to wait -----------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [by_tenacity, by_urllib3], ids=["tenacity", "urllib3"])
def test_a_server_is_asked_again_when_it_says(ask: Ask, here: FaultProxy) -> None:
    here.answer(429, retry_after=1)
    here.answer(503, retry_after="tomorrow")  # no time that we know
    ask(here, "")
    first, second, _ = here.seen
    assert second.at - first.at >= 0.99


@pytest.mark.parametrize(("asked", "waited"), [("3600", RETRY_AFTER_MAX), ("tomorrow", 0), ("7", 7), (None, None)])
def test_a_server_is_not_waited_for_longer_than_the_policy_says(
    here: FaultProxy, asked: str | None, waited: int | None
) -> None:
    here.answer(503, retry_after=asked)
    answer = requests.get(f"{here.url}/{NAME}", timeout=20)
    assert urllib3_retry().get_retry_after(answer.raw) == waited


def wait_after(error: Exception, attempt: int) -> float:
    """Seconds that the policy waits after an attempt that failed so."""
    policy = retrying()
    state = RetryCallState(policy, None, (), {})
    state.attempt_number = attempt
    state.set_exception((type(error), error, None))
    wait: Any = policy.wait
    return float(wait(state))


def test_the_wait_grows_is_random_and_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "BACK_OFF_MAX", BACK_OFF_MAX)
    first, last = ([wait_after(SourceError("x"), attempt) for _ in range(200)] for attempt in (1, 20))
    assert len(set(first)) > 100
    assert 0 <= max(first) <= 0.5
    assert 5 < max(last) <= BACK_OFF_MAX


def test_the_wait_is_at_least_what_the_server_asked_for() -> None:
    assert wait_after(BusyError("x", 33), 1) == 33
    assert wait_after(BusyError("x"), 1) == wait_after(SourceError("x"), 1) == 0


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "attempts"),
    [(SourceError("x"), 3), (BusyError("x"), 3), (InputError("x"), 1), (ValueError("x"), 1), (KeyboardInterrupt(), 1)],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_only_what_may_pass_is_tried_again_and_the_last_error_is_raised(error: BaseException, attempts: int) -> None:
    tried = []

    def fail() -> None:
        tried.append(1)
        raise error

    with pytest.raises(type(error)) as raised:
        retrying(3)(fail)
    assert raised.value is error
    assert len(tried) == attempts


def test_what_succeeds_is_not_tried_again() -> None:
    began = time.monotonic()
    assert retrying()(lambda: 1) == 1
    assert time.monotonic() - began < 5
