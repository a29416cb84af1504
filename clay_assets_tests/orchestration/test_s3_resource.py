"""S3 storage with endpoint and keys from a `dagster_aws` `S3Resource`, independent of the environment."""

from __future__ import annotations

import logging
import os
import pickle
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from dagster_aws.s3 import S3Resource

from clay_assets.definitions import build_definitions
from clay_assets.errors import InputError, SourceError, StorageError
from clay_assets.orchestration.resources import ClayResource
from clay_assets.sources.rasters import open_raster
from clay_assets.storage.stores import Store
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.rasters import raster
from clay_assets_tests.servers.s3 import REGION

PIXELS = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)


@pytest.fixture
def bucket(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Bucket:
    """A bucket that the environment does not refer to."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))  # without .aws
    return s3_bucket


def clay_on(bucket: Bucket, **changed: Any) -> ClayResource:
    server = bucket.server
    fields = {
        "endpoint_url": server.endpoint_url,
        "region_name": REGION,
        "aws_access_key_id": server.access_key,
        "aws_secret_access_key": server.secret_key,
    }
    return ClayResource(overrides={"storage": f"{bucket.url}/clay"}, s3=S3Resource(**{**fields, **changed}))


@pytest.fixture
def store(bucket: Bucket) -> Store:
    return clay_on(bucket).store()


def test_the_storage_is_written_listed_and_read(store: Store, bucket: Bucket) -> None:
    store.write("a/b", b"content")
    with store.writing("a/big") as path:
        path.write_bytes(bytes(9 << 20))  # in parts
    assert bucket.keys() == ["clay/a/b", "clay/a/big"]
    assert store.read("a/b") == b"content"
    assert store.list("a") == {"a/b": 7, "a/big": 9 << 20}
    store.delete(["a/b", "a/big"])
    assert bucket.keys() == []


def test_the_storage_is_read_by_pyarrow(store: Store) -> None:
    with store.writing("t.parquet") as path:
        pq.write_table(pa.table({"a": [1, 2, 3]}), path)
    found = ds.dataset("t.parquet", filesystem=store.filesystem(), format="parquet")
    assert found.to_table(filter=ds.field("a") > 1)["a"].to_pylist() == [2, 3]


@pytest.mark.parametrize("environment", ["none", "wrong"])
def test_the_storage_is_read_by_gdal(store: Store, environment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if environment == "wrong":
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
            monkeypatch.setenv(name, "wrong")
    with store.writing("a.tif") as path:
        raster(path, PIXELS)
    with open_raster(store.uri("a.tif"), store.access) as source:
        assert (source.read(1) == PIXELS).all()


def test_the_storage_is_the_same_in_another_process(store: Store, tmp_path: Path) -> None:
    store.write("a", b"content")
    (tmp_path / "store").write_bytes(pickle.dumps(store))
    code = "import pickle, sys; print(pickle.load(open(sys.argv[1], 'rb')).read('a').decode())"
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "content\n"


def test_assets_and_io_managers_have_the_resource_of_the_definitions(bucket: Bucket) -> None:
    s3 = clay_on(bucket).s3
    definitions = build_definitions({"s3": s3}, storage=f"{bucket.url}/clay")
    assert definitions.resources is not None
    clay = definitions.resources["clay"]
    assert isinstance(clay, ClayResource)
    clay.store().write("a", b"content")

    @dg.asset
    def reads(clay: ClayResource) -> str:
        return clay.store().read("a").decode()

    assert dg.materialize([reads], resources={"clay": clay, "s3": s3}).output_for_node("reads") == "content"


def test_what_is_no_s3_resource_is_named() -> None:
    clay = ClayResource(overrides={"storage": "s3://bucket"}, s3=dg.ResourceDefinition.hardcoded_resource("s3"))
    with pytest.raises(InputError, match=r"resource s3: a \w+, not an S3Resource\. Configure it where the definitions"):
        clay.store()


# --- a failing storage -------------------------------------------------------------------------


def actions(store: Store) -> dict[str, Callable[[], object]]:
    return {
        "write": lambda: store.write("a", b"x"),
        "read": lambda: store.read("a"),
        "list": lambda: store.list("a"),
        "delete": lambda: store.delete(["a"]),
    }


@pytest.mark.parametrize("verb", ["write", "read", "list", "delete"])
def test_an_endpoint_where_nobody_listens_is_told_in_time(bucket: Bucket, verb: str) -> None:
    store = clay_on(bucket, endpoint_url="http://127.0.0.1:9").store()
    began = time.monotonic()
    wanted = rf"^cannot {verb} {store.uri('a')}: .*http://127\.0\.0\.1:9/.*\. Check the endpoint .*of the S3 resource"
    with pytest.raises(StorageError, match=wanted):
        actions(store)[verb]()
    assert time.monotonic() - began < 120


@pytest.mark.parametrize("verb", ["write", "read", "list", "delete"])
def test_wrong_keys_are_told_and_not_shown(bucket: Bucket, verb: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    store = clay_on(bucket, aws_secret_access_key="Secret0NeverToBeSeen").store()
    with pytest.raises(
        StorageError, match=rf"^cannot {verb} {store.uri('a')}: .*SignatureDoesNotMatch.*cred"
    ) as raised:
        actions(store)[verb]()
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text + repr(store) + repr(store.access)
    assert "Secret0NeverToBeSeen" not in shown


def test_a_storage_that_gdal_cannot_reach_is_told_in_time(
    bucket: Bucket, fault_proxy: Callable[[str], FaultProxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF", 0.01)
    proxy = fault_proxy(bucket.server.endpoint_url)
    store = clay_on(bucket, endpoint_url=proxy.url).store()
    proxy.reset(times=None)
    with (
        pytest.raises(SourceError, match=rf"^{store.uri('a.tif')}: could not be read .*Run again"),
        open_raster(store.uri("a.tif"), store.access),
    ):
        pass
    assert proxy.total < 20


# --- what loading costs ---------------------------------------------------------------------------

LOADING = """
import sys
{load}
print(*sorted({{name.partition(".")[0] for name in sys.modules}} & {{"boto3", "botocore", "dagster_aws", "rasterio"}}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("load", "imported"),
    [
        ("import clay_assets.definitions", ""),
        ("from clay_assets.orchestration.resources import ClayResource; ClayResource(overrides={}).settings", ""),
        ("import boto3", "boto3 botocore"),  # otherwise the test would prove nothing
    ],
    ids=["definitions", "resource", "boto3"],
)
def test_definitions_and_the_resource_load_no_client_of_s3(load: str, imported: str) -> None:
    command = [sys.executable, "-c", LOADING.format(load=load)]
    loaded = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert loaded.stdout.strip() == imported
