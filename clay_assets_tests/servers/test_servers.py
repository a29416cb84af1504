"""The servers behave like real ones, and the proxy fails as planned.

How clay_assets uses them is tested with its modules.
"""

from __future__ import annotations

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from botocore.exceptions import ClientError
from pyarrow import fs
from rasterio.windows import Window

from clay_assets_tests.conftest import Bucket
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.rasters import raster
from clay_assets_tests.servers.s3 import S3Server
from clay_assets_tests.servers.stac_api import StacApi

COLLECTION = "servers-test"


def square(west: float, south: float, size: float = 1.0) -> dict[str, Any]:
    east, north = west + size, south + size
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    return {"type": "Polygon", "coordinates": [ring]}


def item(number: int, datetime: str, cloud: float) -> dict[str, Any]:
    west = 10.0 * number
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": f"item-{number}",
        "collection": COLLECTION,
        "geometry": square(west, 0),
        "bbox": [west, 0, west + 1, 1],
        "properties": {"datetime": datetime, "eo:cloud_cover": cloud},
        "assets": {},
        "links": [],
    }


@pytest.fixture(scope="module")
def api(stac_api: StacApi) -> StacApi:
    rows = [
        item(0, "2020-01-05T10:00:00Z", 100.0),
        item(1, "2020-02-05T10:00:00Z", 20.0),
        item(2, "2020-10-31", 3.0),
        item(3, "2021-02-05T10:00:00.5Z", 70.0),
        item(4, "2021-03-05T10:00:00Z", 9.0),
    ]
    stac_api.load([], rows)
    return stac_api


def search(url: str, **body: Any) -> dict[str, Any]:
    request = urllib.request.Request(
        f"{url}/search",
        json.dumps({"collections": [COLLECTION], **body}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def ids(found: dict[str, Any]) -> list[str]:
    return [feature["id"] for feature in found["features"]]


def test_stac_search_by_place_time_and_property(api: StacApi) -> None:
    assert ids(search(api.url, intersects={"type": "Point", "coordinates": [30.5, 0.5]})) == ["item-3"]
    assert sorted(ids(search(api.url, datetime="2020-02-01T00:00:00Z/2020-12-31T00:00:00Z"))) == [
        "item-1",
        "item-2",
    ]
    assert sorted(ids(search(api.url, query={"eo:cloud_cover": {"lte": 20}}))) == [
        "item-1",
        "item-2",
        "item-4",
    ]
    # As numbers; as text 100.0 would come before 20.0.
    by_cloud = search(api.url, sortby=[{"field": "properties.eo:cloud_cover", "direction": "asc"}])
    assert ids(by_cloud) == ["item-2", "item-4", "item-1", "item-3", "item-0"]


def test_stac_paging_visits_every_item_once(api: StacApi) -> None:
    page, seen = search(api.url, limit=2), []
    for _ in range(5):
        seen += ids(page)
        following = [link for link in page["links"] if link["rel"] == "next"]
        if not following:
            break
        page = search(api.url, **following[0]["body"])
    assert sorted(seen) == [f"item-{n}" for n in range(5)]
    assert len(seen) == len(set(seen))


def test_stac_load_replaces_and_keeps_dates_without_time(api: StacApi) -> None:
    changed = item(2, "2020-10-31", 4.0)
    api.load([], [item(2, "2020-10-31", 99.0), changed])
    found = search(api.url, ids=["item-2"])["features"]
    assert [f["properties"]["eo:cloud_cover"] for f in found] == [4.0]
    assert ids(search(api.url, datetime="2020-10-31T00:00:00Z/2020-10-31T00:00:00Z")) == ["item-2"]
    assert found[0]["properties"]["datetime"] == "2020-10-31"
    api.load([], [item(2, "2020-10-31", 3.0)])


def test_stac_clear_removes_items(api: StacApi) -> None:
    other = {**item(7, "2020-01-01T00:00:00Z", 1.0), "collection": "servers-test-cleared"}
    kept = search(api.url)["features"]
    api.load([], [other])
    api.clear()
    with urllib.request.urlopen(f"{api.url}/collections", timeout=20) as answer:
        assert json.load(answer)["collections"] == []
    api.load([], kept)
    assert len(search(api.url)["features"]) == len(kept)


def test_s3_put_get_range_copy_list(s3_bucket: Bucket) -> None:
    client, name = s3_bucket.client, s3_bucket.name
    client.put_object(Bucket=name, Key="a/b", Body=b"0123456789")
    assert client.get_object(Bucket=name, Key="a/b", Range="bytes=2-4")["Body"].read() == b"234"
    client.copy_object(Bucket=name, Key="a/c", CopySource={"Bucket": name, "Key": "a/b"})
    assert client.get_object(Bucket=name, Key="a/c")["Body"].read() == b"0123456789"
    assert s3_bucket.keys("a/") == ["a/b", "a/c"]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=name, Key="a/b", Body=b"x", IfNoneMatch="*")


def test_s3_multipart_upload(s3_bucket: Bucket) -> None:
    client, name = s3_bucket.client, s3_bucket.name
    upload = client.create_multipart_upload(Bucket=name, Key="big")["UploadId"]
    parts = []
    for number, body in enumerate((b"x" * (5 << 20), b"yz"), start=1):
        answer = client.upload_part(Bucket=name, Key="big", UploadId=upload, PartNumber=number, Body=body)
        parts.append({"PartNumber": number, "ETag": answer["ETag"]})
    assert s3_bucket.keys() == []
    client.complete_multipart_upload(Bucket=name, Key="big", UploadId=upload, MultipartUpload={"Parts": parts})
    assert client.head_object(Bucket=name, Key="big")["ContentLength"] == (5 << 20) + 2
    assert client.get_object(Bucket=name, Key="big", Range="bytes=-3")["Body"].read() == b"xyz"


def test_s3_refuses_bad_credentials(s3_server: S3Server, s3_bucket: Bucket) -> None:
    s3_bucket.client.put_object(Bucket=s3_bucket.name, Key="k", Body=b"secret")
    wrong = s3_server.client(aws_secret_access_key="wrong")
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.get_object(Bucket=s3_bucket.name, Key="k")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{s3_server.endpoint_url}/{s3_bucket.name}/k", timeout=20)
    assert refused.value.code == 403
    refused.value.close()


def test_s3_public_bucket_is_read_unsigned_and_not_written(s3_server: S3Server, s3_bucket: Bucket) -> None:
    public = s3_server.new_bucket(f"{s3_bucket.name}-public", public_read=True)
    s3_bucket.client.put_object(Bucket=public, Key="k", Body=b"open")
    address = f"{s3_server.endpoint_url}/{public}/k"
    with urllib.request.urlopen(address, timeout=20) as answer:
        assert answer.read() == b"open"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address, b"x", method="PUT"), timeout=20)
    assert refused.value.code == 403
    refused.value.close()


def test_s3_requester_pays_header_is_accepted(s3_bucket: Bucket) -> None:
    client, name = s3_bucket.client, s3_bucket.name
    client.put_bucket_request_payment(Bucket=name, RequestPaymentConfiguration={"Payer": "Requester"})
    client.put_object(Bucket=name, Key="k", Body=b"paid")
    assert client.get_bucket_request_payment(Bucket=name)["Payer"] == "Requester"
    assert client.get_object(Bucket=name, Key="k", RequestPayer="requester")["Body"].read() == b"paid"


@pytest.fixture
def big_raster(tmp_path: Path) -> tuple[Path, np.ndarray[Any, Any]]:
    values = np.random.default_rng(1).integers(0, 60000, (2048, 2048), dtype=np.uint16)
    raster(tmp_path / "big.tif", values)
    return tmp_path / "big.tif", values


def test_gdal_reads_a_window_from_s3(gdal_s3: Bucket, big_raster: tuple[Path, np.ndarray[Any, Any]]) -> None:
    path, values = big_raster
    gdal_s3.client.upload_file(str(path), gdal_s3.name, "big.tif")
    with rasterio.open(f"/vsis3/{gdal_s3.name}/big.tif") as source:
        window = source.read(1, window=Window(1000, 700, 300, 200))
    np.testing.assert_array_equal(window, values[700:900, 1000:1300])


def test_pyarrow_follows_the_environment(s3_bucket: Bucket) -> None:
    # Not S3FileSystem(), which ignores AWS_ENDPOINT_URL (apache/arrow issue 49643).
    remote, path = fs.FileSystem.from_uri(f"{s3_bucket.url}/from_arrow")
    with remote.open_output_stream(path) as stream:
        stream.write(b"arrow")
    assert s3_bucket.client.get_object(Bucket=s3_bucket.name, Key="from_arrow")["Body"].read() == b"arrow"


# --- files ----------------------------------------------------------------------------------------


def get(url: str, timeout: float = 20, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """GET without raising on an HTTP status."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), dict(error.headers)


@pytest.mark.parametrize(
    ("wanted", "status", "body"),
    [
        ("bytes=0-3", 206, b"0123"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=7-", 206, b"789"),
        ("bytes=-2", 206, b"89"),
        ("bytes=10-", 416, b""),
        ("lines=1-2", 200, b"0123456789"),
    ],
)
def test_file_server_ranges(
    file_server: Callable[[Path], FileServer], tmp_path: Path, wanted: str, status: int, body: bytes
) -> None:
    (tmp_path / "ten").write_bytes(b"0123456789")
    server = file_server(tmp_path)
    found = get(f"{server.url}/ten", Range=wanted)
    assert found[:2] == (status, body)
    assert get(f"{server.url}/nine")[0] == 404
    assert server.requests == ["GET /ten", "GET /nine"]


def test_gdal_reads_a_small_part_of_a_file_over_http(
    file_server: Callable[[Path], FileServer], big_raster: tuple[Path, np.ndarray[Any, Any]]
) -> None:
    path, values = big_raster
    server = file_server(path.parent)
    with rasterio.open(f"/vsicurl/{server.url}/big.tif") as source:
        np.testing.assert_array_equal(source.read(1, window=Window(0, 0, 5, 5)), values[:5, :5])
    reads = [request for request in server.requests if request == "GET /big.tif"]
    assert 1 <= len(reads) <= 3


def test_gdal_meets_faults(
    gdal_s3: Bucket,
    big_raster: tuple[Path, np.ndarray[Any, Any]],
    fault_proxy: Callable[[str], FaultProxy],
) -> None:
    path, values = big_raster
    gdal_s3.client.upload_file(str(path), gdal_s3.name, "big.tif")
    proxy = fault_proxy(gdal_s3.server.endpoint_url)
    endpoint = proxy.url.removeprefix("http://")
    proxy.answer(503, times=2)
    with (
        rasterio.Env(AWS_S3_ENDPOINT=endpoint, GDAL_HTTP_MAX_RETRY=3, GDAL_HTTP_RETRY_DELAY=0.05),
        rasterio.open(f"/vsis3/{gdal_s3.name}/big.tif") as source,
    ):
        np.testing.assert_array_equal(source.read(1, window=Window(0, 0, 5, 5)), values[:5, :5])
    assert [seen.fault for seen in proxy.seen[:3]] == ["answer", "answer", None]


# --- faults ---------------------------------------------------------------------------------------


@pytest.fixture
def proxy(
    file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy], tmp_path: Path
) -> FaultProxy:
    (tmp_path / "f.json").write_text('{"ok": true}')
    (tmp_path / "g.json").write_text('{"ok": 2}')
    return fault_proxy(file_server(tmp_path).url)


def test_fault_statuses_then_pass(proxy: FaultProxy) -> None:
    proxy.answer(429, times=1, retry_after=2)
    proxy.answer(503, times=2, body=b"down")
    answers = [get(f"{proxy.url}/f.json") for _ in range(4)]
    assert [a[0] for a in answers] == [429, 503, 503, 200]
    assert answers[0][2]["Retry-After"] == "2"
    assert [a[1] for a in answers[1:]] == [b"down", b"down", b'{"ok": true}']
    assert [s.fault for s in proxy.seen] == ["answer", "answer", "answer", None]
    proxy.clear()
    assert proxy.total == 0


def test_fault_by_path_and_method(proxy: FaultProxy) -> None:
    proxy.answer(500, times=None, path=r"^/g\.json\?page=2", method="GET")
    assert get(f"{proxy.url}/g.json?page=1")[0] == 200
    assert [get(f"{proxy.url}/g.json?page=2")[0] for _ in range(3)] == [500] * 3
    proxy.answer(500, method="POST")
    assert get(f"{proxy.url}/f.json")[0] == 200


def test_fault_bodies(proxy: FaultProxy) -> None:
    proxy.garbage()
    status, body, headers = get(f"{proxy.url}/f.json")
    assert (status, headers["Content-Type"]) == (200, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(body)
    proxy.empty()
    assert get(f"{proxy.url}/f.json")[:2] == (200, b"")
    proxy.truncate(keep=3)
    with pytest.raises(Exception, match="3 bytes read, 9 more expected"):
        get(f"{proxy.url}/f.json")
    assert get(f"{proxy.url}/f.json")[1] == b'{"ok": true}'


def test_fault_connections(proxy: FaultProxy) -> None:
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        get(f"{proxy.url}/f.json")
    proxy.stall()
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        get(f"{proxy.url}/f.json", timeout=0.3)
    assert time.monotonic() - began < 5
    proxy.stall(0.1)
    with pytest.raises(Exception, match="without response"):
        get(f"{proxy.url}/f.json")
    proxy.delay(0.2, times=1)
    began = time.monotonic()
    assert get(f"{proxy.url}/f.json")[0] == 200
    assert time.monotonic() - began >= 0.2


def test_fault_proxy_counts_requests_in_flight(proxy: FaultProxy) -> None:
    proxy.delay(0.2)
    with ThreadPoolExecutor(3) as pool:
        statuses = list(pool.map(lambda _: get(f"{proxy.url}/f.json")[0], range(6)))
    assert statuses == [200] * 6
    assert (proxy.total, proxy.max_in_flight) == (6, 3)
    assert proxy.seen[0].headers["host"] == proxy.url.removeprefix("http://")


def test_fault_proxy_stops_with_requests_open(proxy: FaultProxy) -> None:
    proxy.stall()
    failed: list[BaseException] = []

    def ask() -> None:
        try:
            get(f"{proxy.url}/f.json")
        except OSError as error:
            failed.append(error)

    client = threading.Thread(target=ask)
    client.start()
    end = time.monotonic() + 5
    while proxy.total == 0 and time.monotonic() < end:
        time.sleep(0.01)
    proxy.stop()
    client.join(5)
    assert len(failed) == 1


def test_signed_s3_requests_pass_the_proxy(s3_bucket: Bucket, fault_proxy: Callable[[str], FaultProxy]) -> None:
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    client = s3_bucket.server.client(endpoint_url=proxy.url)
    proxy.answer(503, times=1, method="PUT")
    client.put_object(Bucket=s3_bucket.name, Key="k", Body=b"v" * 100_000)
    assert [seen.method for seen in proxy.seen] == ["PUT", "PUT"]
    assert client.get_object(Bucket=s3_bucket.name, Key="k")["Body"].read() == b"v" * 100_000


def test_stac_paging_stays_on_the_proxy(api: StacApi, fault_proxy: Callable[[str], FaultProxy]) -> None:
    proxy = fault_proxy(api.url)
    found = search(proxy.url, limit=2)
    following = next(link["href"] for link in found["links"] if link["rel"] == "next")
    assert following.startswith(proxy.url)
