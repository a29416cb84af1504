"""S3 by boto3, pyarrow and GDAL alike: which server is asked, with which keys, and what its refusals mean."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import shapely

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import InputError, SourceError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.base import Request
from clay_assets.sampling.natural_earth_files import FEATURE_LAYERS, Files
from clay_assets.sources.downloads import fetch, names_in, read_bytes, size_of
from clay_assets.sources.rasters import gdal_options, open_raster
from clay_assets.storage.stores import LocalStore, Store, open_store
from clay_assets.transport.access import Access, Keys
from clay_assets.transport.s3 import S3Connection
from clay_assets_tests.conftest import Bucket, not_run
from clay_assets_tests.sampling.natural_earth_layers import FILES, world, write_zips
from clay_assets_tests.scenes.items import SENTINEL_2, sentinel_2_item, snapshot
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.s3 import REGION
from clay_assets_tests.servers.tls import make_certificate, tls_in_front_of
from clay_assets_tests.transport.readers import NAME, PIXELS, Reader, every_reader

Proxy = Callable[[str], FaultProxy]
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
PUBLIC = {"plain": Access(), "unsigned": Access(unsigned=True)}
either_access = pytest.mark.parametrize("access", PUBLIC.values(), ids=PUBLIC)


@pytest.fixture
def s3(s3_bucket: Bucket, fault_proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """A proxy in front of the server, which the AWS variables lead to."""
    proxy = fault_proxy(s3_bucket.server.endpoint_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    return proxy


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """GDAL and our own attempts come as often, and sooner."""
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF", 0.01)
    monkeypatch.setattr("clay_assets.transport.retries.BACK_OFF_MAX", 0.01)


@pytest.fixture
def private(s3_bucket: Bucket, web: Path) -> str:
    """Address of a raster in a bucket that only its owner may read."""
    s3_bucket.client.upload_file(str(web / NAME), s3_bucket.name, NAME)
    return f"{s3_bucket.url}/{NAME}"


@pytest.fixture
def public(s3_bucket: Bucket, web: Path) -> str:
    """A bucket that everybody may read and list, with a raster in it."""
    name = s3_bucket.server.new_bucket(f"{s3_bucket.name}-public", public_read=True)
    s3_bucket.client.upload_file(str(web / NAME), name, NAME)
    return name


@pytest.fixture
def no_keys(s3: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> FaultProxy:
    """The server, with no key anywhere."""
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return s3


def assert_unsigned(s3: FaultProxy) -> None:
    assert s3.total
    assert not any("authorization" in seen.headers for seen in s3.seen)


# --- a public bucket, without any keys ------------------------------------------------------------


@every_reader
@either_access
def test_a_public_file_is_read_without_keys(
    read: Reader, access: Access, public: str, no_keys: FaultProxy, tmp_path: Path
) -> None:
    read(f"s3://{public}/{NAME}", access, tmp_path / "to")
    assert_unsigned(no_keys)


@either_access
def test_a_public_bucket_is_listed_without_keys(access: Access, public: str, no_keys: FaultProxy) -> None:
    assert names_in(f"s3://{public}", access) == [NAME]
    assert_unsigned(no_keys)


@either_access
@pytest.mark.parametrize("key", ["items/a.parquet", "items"], ids=["file", "folder"])
def test_a_public_snapshot_is_searched_without_keys(
    access: Access, key: str, public: str, s3_bucket: Bucket, no_keys: FaultProxy, tmp_path: Path
) -> None:
    path = snapshot(tmp_path / "a.parquet", [sentinel_2_item("a", "2020-02-01T10:00:00Z")])
    s3_bucket.client.upload_file(path, public, "items/a.parquet")
    start, end = datetime(2020, 1, 1, tzinfo=UTC), datetime(2021, 1, 1, tzinfo=UTC)
    request = Request("r", "32NLG", "year", start, end, shapely.Point(6.5, 0.5))
    (answer,) = SnapshotCatalogue(f"s3://{public}/{key}", access).search(PLATFORMS[SENTINEL_2], [request])
    assert [item["id"] for item in answer.candidates] == ["a"]
    assert_unsigned(no_keys)


def test_natural_earth_is_read_from_a_public_bucket_without_keys(
    public: str, s3_bucket: Bucket, no_keys: FaultProxy, tmp_path: Path
) -> None:
    folder = write_zips(tmp_path / "natural-earth", {"ports": world()["ports"]})
    s3_bucket.client.upload_file(str(folder / f"{FILES['ports']}.zip"), public, f"ne/{FILES['ports']}.zip")
    (ports,) = (layer for layer in FEATURE_LAYERS if layer.key == "ports")
    store = LocalStore(tmp_path / "store")
    for _ in range(2):
        with ExitStack() as stack:
            assert Files(f"s3://{public}/ne", store, stack).features(ports).names.tolist() == ["Port"]
    assert_unsigned(no_keys)
    assert len([seen for seen in no_keys.seen if seen.method == "GET"]) == 1  # and kept


@every_reader
def test_what_is_not_public_cannot_be_read_without_keys(
    read: Reader, private: str, no_keys: FaultProxy, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=rf"^{private}: access refused .*Check AWS credentials") as raised:
        read(private, None, tmp_path / "to")
    assert "CLAY_STORAGE" not in str(raised.value)
    with pytest.raises(InputError, match=rf"^{private}: access refused .*Check that the bucket is public"):
        read(private, Access(unsigned=True), tmp_path / "to")


@every_reader
def test_an_unsigned_access_sends_none_of_the_keys_there_are(
    read: Reader, public: str, s3: FaultProxy, tmp_path: Path
) -> None:
    read(f"s3://{public}/{NAME}", Access(unsigned=True), tmp_path / "to")
    assert_unsigned(s3)


# --- keys of a bucket's own -----------------------------------------------------------------------


@pytest.fixture
def theirs(s3_bucket: Bucket, fault_proxy: Proxy) -> FaultProxy:
    """The server of a bucket with keys of its own."""
    return fault_proxy(s3_bucket.server.endpoint_url)


@pytest.fixture(params=["wrong keys", "keys of a session", "no keys"])
def their_bucket(
    request: pytest.FixtureRequest,
    s3_bucket: Bucket,
    theirs: FaultProxy,
    private: str,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[str, Access]:
    """Address of a raster, and its access by keys of its own, while the environment has others or none."""
    monkeypatch.setenv("THEIR_KEY", s3_bucket.server.access_key)
    monkeypatch.setenv("THEIR_SECRET", s3_bucket.server.secret_key)
    for name in ("AWS_ENDPOINT_URL", *KEYS):
        monkeypatch.delenv(name, raising=False)
    if request.param != "no keys":
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    if request.param == "keys of a session":
        monkeypatch.setenv("AWS_SESSION_TOKEN", "of the wrong keys")
    keys = Keys("THEIR_KEY", "THEIR_SECRET", endpoint=theirs.url, region=REGION)
    return private, Access(keys=keys)


@every_reader
def test_a_bucket_is_read_with_its_own_keys(
    read: Reader, their_bucket: tuple[str, Access], theirs: FaultProxy, tmp_path: Path
) -> None:
    read(*their_bucket, tmp_path / "to")
    assert theirs.total
    assert not any("x-amz-security-token" in seen.headers for seen in theirs.seen)


def test_pyarrow_reads_a_bucket_with_its_own_keys(their_bucket: tuple[str, Access], theirs: FaultProxy) -> None:
    href, access = their_bucket
    assert access.s3().filesystem().open_input_file(href.removeprefix("s3://")).read(2) == b"II"
    assert names_in(href.removesuffix(f"/{NAME}"), access) == [NAME]
    assert not any("x-amz-security-token" in seen.headers for seen in theirs.seen)


@every_reader
def test_wrong_keys_of_a_bucket_are_told_by_their_variables(
    read: Reader,
    s3_bucket: Bucket,
    private: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("THEIR_KEY", s3_bucket.server.access_key)
    monkeypatch.setenv("THEIR_SECRET", "Secret0NeverToBeSeen")
    wanted = rf"^{private}: access refused .*\. Check the keys in THEIR_KEY and THEIR_SECRET\.$"
    with pytest.raises(InputError, match=wanted) as raised:
        read(private, Access(keys=Keys("THEIR_KEY", "THEIR_SECRET")), tmp_path / "to")
    shown = "".join(traceback.format_exception(raised.value)) + caplog.text
    assert "Secret0NeverToBeSeen" not in shown


@every_reader
def test_a_key_that_is_not_set_is_named(read: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THEIR_KEY", "key")
    with pytest.raises(InputError, match=r"^THEIR_SECRET: not set, .*Set this environment variable"):
        read("s3://bucket/a.tif", Access(keys=Keys("THEIR_KEY", "THEIR_SECRET")), tmp_path / "to")


# --- several at once ------------------------------------------------------------------------------


def test_rasters_that_are_open_at_once_are_each_read_in_their_own_way(
    public: str, web: Path, s3_bucket: Bucket, fault_proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unsigned bucket, ours, a bucket on another server with its own keys, and one whose requester pays."""
    server = s3_bucket.server
    servers = {name: fault_proxy(server.endpoint_url) for name in ("ours", "theirs")}
    monkeypatch.setenv("AWS_ENDPOINT_URL", servers["ours"].url)
    monkeypatch.setenv("THEIR_KEY", server.access_key)
    monkeypatch.setenv("THEIR_SECRET", server.secret_key)
    ways = {
        "unsigned": Access(unsigned=True),
        "theirs": Access(keys=Keys("THEIR_KEY", "THEIR_SECRET", endpoint=servers["theirs"].url)),
        "paid": Access(requester_pays=True),
        "ours": Access(),
    }
    for order in (list(ways), list(reversed(ways))):
        for proxy in servers.values():
            proxy.clear()
        with ExitStack() as stack:
            opened = {}
            for name in order:
                bucket, key = public if name == "unsigned" else s3_bucket.name, f"{order[0]}/{name}.tif"
                s3_bucket.client.upload_file(str(web / NAME), bucket, key)
                opened[name] = stack.enter_context(open_raster(f"s3://{bucket}/{key}", ways[name]))
            for source in opened.values():
                assert (source.read(1) == PIXELS).all()
        asked = {
            (server, seen.path.split("/")[-1], "authorization" in seen.headers, "x-amz-request-payer" in seen.headers)
            for server, proxy in servers.items()
            for seen in proxy.seen
            if seen.method == "GET"  # buckets are asked for their region
        }
        assert asked == {
            ("ours", "unsigned.tif", False, False),
            ("theirs", "theirs.tif", True, False),
            ("ours", "paid.tif", True, True),
            ("ours", "ours.tif", True, False),
        }


def test_the_requester_pays_where_an_access_says_so(private: str, s3: FaultProxy, tmp_path: Path) -> None:
    for access, payer in ((Access(), None), (Access(requester_pays=True), "requester"), (Access(), None)):
        s3.clear()
        with open_raster(private, access):
            pass
        read_bytes(private, access)
        size_of(private, access)
        fetch(private, tmp_path / "fetched", access)
        names_in(private.removesuffix(f"/{NAME}"), access)
        assert {seen.headers.get("x-amz-request-payer") for seen in s3.seen} == {payer}


# --- options --------------------------------------------------------------------------------------


def test_each_access_has_its_options_of_gdal(s3_bucket: Bucket) -> None:
    assert gdal_options("s3://b/a.tif", Access(unsigned=True))["AWS_NO_SIGN_REQUEST"] == "YES"
    assert gdal_options("s3://b/a.tif", Access())["AWS_NO_SIGN_REQUEST"] == "NO"
    assert gdal_options("s3://b/a.tif", Access(requester_pays=True))["AWS_REQUEST_PAYER"] == "requester"
    for href in ("/disk/a.tif", "https://example.com/a.tif"):
        assert not [name for name in gdal_options(href, Access()) if name.startswith("AWS_")]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("endpoint", "bucket", "options"),
    [
        ("http://127.0.0.1:9000", "b", {"127.0.0.1:9000", "NO", "FALSE"}),
        ("https://s3.example.com/path/", "b", {"s3.example.com/path", "YES", "FALSE"}),
        (None, "b", {"s3.amazonaws.com", "YES", "TRUE"}),
        (None, "dotted.b", {"s3.amazonaws.com", "YES", "FALSE"}),
    ],
)
def test_gdal_asks_the_server_that_boto3_asks(
    endpoint: str | None, bucket: str, options: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for connection in (S3Connection(), S3Connection(endpoint=endpoint)):
        found = connection.gdal_options(bucket)
        assert {found[name] for name in ("AWS_S3_ENDPOINT", "AWS_HTTPS", "AWS_VIRTUAL_HOSTING")} == options
        assert connection.endpoint_url() == endpoint


@pytest.mark.slow
def test_a_changed_environment_gets_another_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    first = S3Connection().client()
    assert S3Connection().client() is first
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:2")
    assert S3Connection().client().meta.endpoint_url == "http://127.0.0.1:2"


@pytest.mark.slow
@pytest.mark.parametrize(
    "connection", [S3Connection(profile="nobody"), S3Connection(endpoint="no url")], ids=["profile", "endpoint"]
)
def test_a_connection_that_cannot_be_is_told(connection: S3Connection) -> None:
    with pytest.raises(InputError, match=r"^S3: .*(nobody|no url).*\. Check the endpoint, region and profile"):
        connection.client()


def test_a_profile_is_used_by_every_client(
    private: str, s3_bucket: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = s3_bucket.server
    (tmp_path / "credentials").write_text(
        f"[theirs]\naws_access_key_id = {server.access_key}\naws_secret_access_key = {server.secret_key}\n"
    )
    (tmp_path / "config").write_text(f"[profile theirs]\nregion = {REGION}\nendpoint_url = {server.endpoint_url}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAWRONG")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    store = open_store(private.removesuffix(f"/{NAME}"), S3Connection(profile="theirs"))
    assert store.read(NAME)[:2] == store.filesystem().open_input_file(NAME).read(2) == b"II"
    with open_raster(store.uri(NAME), store.access) as source:
        assert (source.read(1) == PIXELS).all()


# --- HTTPS with a certificate of one's own --------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("openssl") is None:
        not_run("HTTPS", "openssl is not installed")
    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def tls(s3_bucket: Bucket, certificate: Path, tmp_path: Path, impatient: None) -> Iterator[str]:
    """Address of the server by HTTPS."""
    with tls_in_front_of(s3_bucket.server.endpoint_url, certificate, tmp_path / "tls.log") as url:
        yield url


def by_boto3(store: Store) -> None:
    store.read(NAME)


def by_pyarrow(store: Store) -> None:
    store.filesystem().open_input_file(NAME).read()


def by_gdal(store: Store) -> None:
    with open_raster(store.uri(NAME), store.access) as source:
        source.read(1)


every_client = pytest.mark.parametrize("read", [by_boto3, by_pyarrow, by_gdal], ids=["boto3", "pyarrow", "GDAL"])


@every_client
@pytest.mark.parametrize("told", ["connection", "environment"])
def test_a_certificate_is_checked_with_the_bundle_that_the_connection_or_the_environment_names(
    read: Callable[[Store], None],
    told: str,
    private: str,
    s3_bucket: Bucket,
    tls: str,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if told == "connection":  # once is enough, as clients try again before they say so
        with pytest.raises(OSError, match=r"(?i)certificate"):
            read(open_store(s3_bucket.url, S3Connection(endpoint=tls)))
    else:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
    read(
        open_store(s3_bucket.url, S3Connection(endpoint=tls, verify=str(certificate) if told == "connection" else None))
    )


@pytest.mark.parametrize("read", [by_boto3, by_gdal], ids=["boto3", "GDAL"])
def test_a_certificate_is_not_checked_where_the_connection_says_so(
    read: Callable[[Store], None], private: str, s3_bucket: Bucket, tls: str
) -> None:
    read(open_store(s3_bucket.url, S3Connection(endpoint=tls, verify=False)))


def test_what_a_storage_trusts_is_not_what_another_file_trusts(
    private: str, s3_bucket: Bucket, tls: str, certificate: Path
) -> None:
    for verify in (str(certificate), False):
        store = open_store(s3_bucket.url, S3Connection(endpoint=tls, verify=verify))
        with (
            open_raster(store.uri(NAME), store.access),
            pytest.raises(SourceError, match="certificate"),
            open_raster(f"{tls}/another.tif"),
        ):
            pass


# --- what a foreign bucket's errors mean ----------------------------------------------------------


@every_reader
@pytest.mark.parametrize("where", ["object", "bucket"])
def test_what_a_bucket_does_not_have_is_told(
    read: Reader, where: str, private: str, s3_bucket: Bucket, tmp_path: Path
) -> None:
    href = f"{s3_bucket.url}/none.tif" if where == "object" else "s3://clay-no-such-bucket/a.tif"
    with pytest.raises(InputError, match=rf"^{href}: file not found .*\. Check the (address|href)") as raised:
        read(href, None, tmp_path / "to")
    assert "CLAY_STORAGE" not in str(raised.value)


@every_reader
@pytest.mark.parametrize("secret", ["wrong", None], ids=["wrong secret", "unknown key"])
def test_a_bucket_that_refuses_is_told(
    read: Reader, secret: str | None, private: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY" if secret else "AWS_ACCESS_KEY_ID", secret or "AKIAUNKNOWN")
    with pytest.raises(InputError, match=rf"^{private}: access refused .*\. Check AWS credentials") as raised:
        read(private, None, tmp_path / "to")
    assert "CLAY_STORAGE" not in str(raised.value)


@every_reader
@pytest.mark.parametrize("fault", ["503", "reset"])
def test_a_server_in_trouble_may_be_asked_again(
    read: Reader, fault: str, private: str, s3: FaultProxy, tmp_path: Path, impatient: None
) -> None:
    s3.answer(503, times=None) if fault == "503" else s3.reset(times=None)
    with pytest.raises(SourceError, match=rf"^{private}: could not be read .*\. Run again") as raised:
        read(private, None, tmp_path / "to")
    assert "CLAY_STORAGE" not in str(raised.value)


def test_a_bucket_that_cannot_be_listed_is_told(s3_bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"^s3://clay-no-such-bucket/a: file not found \(NoSuchBucket\)"):
        names_in("s3://clay-no-such-bucket/a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(InputError, match=rf"^{s3_bucket.url}: access refused \(SignatureDoesNotMatch\)"):
        names_in(s3_bucket.url)


def test_a_connection_is_replaced_as_a_whole_where_it_is_unsigned() -> None:
    ours = S3Connection(endpoint="http://127.0.0.1:1", region="r")
    assert Access(connection=ours, unsigned=True).s3() == replace(ours, unsigned=True)
    assert Access(connection=ours).s3() == ours
