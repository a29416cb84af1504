"""`clay-assets doctor`: each check prints a line with a remedy, and none can block it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clay_assets.runs.doctor.lines import Line
from clay_assets.sampling.natural_earth_files import FEATURE_LAYERS
from clay_assets_tests.cli.conftest import Command
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.scenes.items import LANDSAT_L2, NAIP, SENTINEL_2, landsat_item, sentinel_2_item, snapshot
from clay_assets_tests.servers.daemon import free_port
from clay_assets_tests.servers.dask_cluster import DaskCluster, other_versions
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer
from clay_assets_tests.servers.stac_api import StacApi

WHEN = "2020-02-01T10:00:00Z"
SECRET = "NeverToBeSeen0"
Lines = dict[str, Line]
Doctor = Callable[..., Lines]


def at(item: dict[str, Any], address: str) -> dict[str, Any]:
    """The item with all its files at one address."""
    there = {"href": address, "alternate": {"s3": {"href": address}}}
    return {**item, "assets": dict.fromkeys(item["assets"], there)}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all sources of Sentinel-2, in an environment whose settings refer to it."""
    (tmp_path / "scene.tif").write_bytes(b"II*\0 pixels")
    (tmp_path / "grid.kml").write_text("<kml/>")
    (tmp_path / "worldcover").mkdir()
    (tmp_path / "worldcover" / "ESA_WorldCover_10m_2021_v200_N00E006_Map.tif").write_bytes(b"II*\0")
    item = at(sentinel_2_item("S2A_32NLG_20200201_0_L2A", WHEN), str(tmp_path / "scene.tif"))
    settings = {
        "STORAGE": tmp_path / "storage",
        "STAC_EARTH_SEARCH": snapshot(tmp_path / "items.parquet", [item]),
        "WORLDCOVER": tmp_path / "worldcover",
        "MGRS_GRID": tmp_path / "grid.kml",
    }
    for name, value in settings.items():
        monkeypatch.setenv(f"CLAY_{name}", str(value))
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    return tmp_path


@pytest.fixture
def doctor(world: Path, command: Command) -> Doctor:
    """Runs the command; name of the check → its line. Also checks what every run must satisfy."""

    def run(*arguments: str, **settings: object) -> Lines:
        only = () if "--platform" in arguments else ("--platform", SENTINEL_2)
        result = command("doctor", "--json", "--timeout", "300", *only, *arguments, **settings)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        document = json.loads(result.stdout)
        lines = [Line(**line) for line in document["lines"]]
        failed = [line for line in lines if line.status == "failed"]
        assert (result.exit_code, document["failed"]) == (1 if failed else 0, len(failed))
        assert all(line.fact and (line.remedy.endswith(".") or not line.remedy) for line in lines)
        assert all(line.remedy for line in failed if line.what != "recipe")
        return {line.what: line for line in lines}

    return run


def test_all_is_well(world: Path, doctor: Doctor) -> None:
    lines = doctor()
    assert {what for what, line in lines.items() if line.status == "failed"} == set()
    assert {what for what, line in lines.items() if line.status == "ok"} >= {
        "settings",
        "recipe",
        "versions",
        "storage",
        "scenes of sentinel-2-l2a",
        "files of sentinel-2-l2a",
        "WorldCover",
        "tiling grid",
    }
    assert lines["storage"].fact == f"{world / 'storage'}: written, read, listed and deleted"
    assert lines["files of sentinel-2-l2a"].fact == f"{world / 'scene.tif'}: can be read, 11 bytes"
    assert lines["WorldCover"].fact == f"{world / 'worldcover'}: holds 1 files"
    assert not (world / "storage").exists()  # no files are left behind
    (world / "storage").mkdir()
    doctor()
    assert not [path for path in (world / "storage").rglob("*") if path.is_file()]


def test_lines_for_people(world: Path, command: Command) -> None:
    result = command("doctor", "--platform", SENTINEL_2, worldcover=world / "nowhere")
    assert result.exit_code == 1
    (line,) = [line for line in result.stdout.splitlines() if " WorldCover: " in line]
    assert line.startswith(f"failed   WorldCover: WorldCover {world / 'nowhere'}: cannot be listed")
    assert line.endswith("Check CLAY_WORLDCOVER.")
    assert any(line.startswith("ok       storage: ") for line in result.stdout.splitlines())
    assert "unknown platform" in command("doctor", "--platform", "sentinel-9").stderr


def test_wrong_settings_are_told_and_the_rest_is_looked_at(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLAY_STORRAGE", "x")
    lines = doctor(workers="many")
    assert lines["settings"].status == "failed"
    assert "versions" in lines
    assert "storage" not in lines


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "value", "what", "told"),
    [
        ("recipe", "clay_v9", "recipe", "is neither clay_v1 nor clay_v0_1"),
        ("storage", "gs://bucket", "storage", "unsupported location"),
        ("storage", "{world}/grid.kml", "storage", "cannot write"),
        ("stac_earth_search", "{world}/none.parquet", "scenes of sentinel-2-l2a", "file not found"),
        ("stac_earth_search", "{world}/scene.tif", "scenes of sentinel-2-l2a", "cannot be read as STAC-GeoParquet"),
        ("mgrs_grid", "{world}/none.kml", "tiling grid", "file not found"),
        ("mgrs_sample", "{world}/none.fgb", "published sample", "file not found"),
        ("mgrs_grid", "http://127.0.0.1:9/grid.kml", "tiling grid", "http://127.0.0.1:9/grid.kml"),
    ],
)
def test_each_setting_that_leads_nowhere_is_a_line(
    world: Path, doctor: Doctor, setting: str, value: str, what: str, told: str
) -> None:
    line = doctor(**{setting: value.replace("{world}", str(world))})[what]
    assert (line.status, told in f"{line.fact}. {line.remedy}") == ("failed", True)


@pytest.mark.slow
def test_a_catalogue_of_others_and_a_file_that_is_gone(world: Path, doctor: Doctor) -> None:
    gone = at(sentinel_2_item("S2A_32NLG_20200201_0_L2A", WHEN), str(world / "gone.tif"))
    line = doctor(stac_earth_search=snapshot(world / "gone.parquet", [gone]))["files of sentinel-2-l2a"]
    assert (line.status, line.remedy) == ("failed", "Check the path.")
    others = snapshot(world / "landsat.parquet", [landsat_item("LC08_1", WHEN)])
    line = doctor(stac_earth_search=others)["scenes of sentinel-2-l2a"]
    assert line.fact == f"{others}: no items of collection sentinel-2-l2a"
    assert "CLAY_STAC_EARTH_SEARCH" in line.remedy


def test_natural_earth_is_looked_at_layer_by_layer(world: Path, doctor: Doctor) -> None:
    folder = world / "natural_earth"
    for layer in FEATURE_LAYERS[1:]:
        path = folder / layer.folder / f"{layer.archive or layer.file}.zip"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"PK")
    found = {"natural_earth": folder, "stac_planetary_computer": snapshot(world / "none.parquet", [])}
    lines = doctor("--platform", NAIP, **found)
    assert lines["Natural Earth"].fact == f"{folder}: missing {FEATURE_LAYERS[0].file}"
    assert lines["scenes of naip"].status == "failed"  # the snapshot has no items
    assert "tiling grid" not in lines


def test_a_static_catalogue(world: Path, doctor: Doctor, file_server: Callable[[Path], FileServer]) -> None:
    root = world / "nz"
    (root / "survey").mkdir(parents=True)
    scene = at(sentinel_2_item("sheet", WHEN), "./sheet.tiff")
    scene["assets"] = {"visual": {"href": "./sheet.tiff"}}
    (root / "survey" / "sheet.tiff").write_bytes(b"II*\0")
    (root / "catalog.json").write_text(json.dumps({"links": [{"rel": "child", "href": "./survey/collection.json"}]}))
    (root / "survey" / "collection.json").write_text(json.dumps({"links": [{"rel": "item", "href": "./sheet.json"}]}))
    (root / "survey" / "sheet.json").write_text(json.dumps(scene))
    url = f"{file_server(root).url}/catalog.json"
    lines = doctor("--platform", "linz", linz_catalog=url)
    assert (lines["scenes of linz"].status, lines["files of linz"].status) == ("ok", "ok")
    assert lines["files of linz"].fact.endswith("/survey/sheet.tiff: can be read, 4 bytes")
    lines = doctor("--platform", "linz", linz_catalog=url.replace("catalog", "none"))
    assert lines["scenes of linz"].status == "failed"


# --- servers -----------------------------------------------------------------------------------------------------


def test_a_stac_api(stac_api: StacApi, world: Path, doctor: Doctor) -> None:
    stac_api.clear()
    empty = doctor(stac_earth_search=stac_api.url)["scenes of sentinel-2-l2a"]
    assert empty.fact == f"{stac_api.url}: no items of collection sentinel-2-l2a"
    stac_api.load([], [at(sentinel_2_item("S2A_32NLG_20200201_0_L2A", WHEN), (world / "scene.tif").as_uri())])
    lines = doctor(stac_earth_search=stac_api.url)
    assert lines["scenes of sentinel-2-l2a"].fact == f"{stac_api.url}: has items of sentinel-2-l2a"
    assert lines["files of sentinel-2-l2a"].status == "ok"
    stac_api.clear()


@pytest.fixture
def proxy(
    world: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> FaultProxy:
    return fault_proxy(file_server(world).url)


def test_what_is_no_api_or_is_down(proxy: FaultProxy, doctor: Doctor) -> None:
    assert "did not answer as a STAC API" in doctor(stac_earth_search=proxy.url)["scenes of sentinel-2-l2a"].fact
    line = doctor(stac_earth_search="http://127.0.0.1:9/v1")["scenes of sentinel-2-l2a"]
    assert (line.status, "http://127.0.0.1:9/v1" in line.fact) == ("failed", True)


def test_what_never_answers_is_given_up(proxy: FaultProxy, world: Path) -> None:
    """In a separate process, which also has to exit."""
    proxy.stall(times=None)
    command = [sys.executable, "-m", "clay_assets.cli", "doctor", "--platform", SENTINEL_2, "--timeout", "3"]
    environment = {"CLAY_STAC_EARTH_SEARCH": proxy.url, "CLAY_WORLDCOVER": proxy.url}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 1, result.stderr
    lines = result.stdout.splitlines()
    remedy = "Check the address and the network, or allow more time with --timeout."
    for what in ("scenes of sentinel-2-l2a", "WorldCover"):
        assert f"failed   {what}: did not answer within 3 s. {remedy}" in lines
    assert any(line.startswith("ok       recipe") for line in lines)


def test_secrets_are_never_printed(
    proxy: FaultProxy, world: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = proxy.url.removeprefix("http://")
    monkeypatch.setenv("THEIR_TOKEN", SECRET)
    settings = {
        "stac_earth_search": f"http://me:{SECRET}@{host}/v1",
        "mgrs_grid": f"http://{host}/none.kml?sig={SECRET}",
        "worldcover": f"http://{SECRET}@{host}/wc",
        "mgrs_sample": f"http://{host}/{SECRET}/none.fgb",
        "workers": "2",
    }
    for arguments in ([], ["--json"]):
        result = command("doctor", "--platform", SENTINEL_2, *arguments, **settings)
        assert result.exit_code == 1
        assert SECRET not in result.output
        assert "***" in result.stdout


# --- S3 ----------------------------------------------------------------------------------------------------------


def test_a_bucket(s3_bucket: Bucket, doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    line = doctor(storage=f"{s3_bucket.url}/clay")["storage"]
    assert (line.status, line.fact) == ("ok", f"{s3_bucket.url}/clay: written, read, listed and deleted")
    assert s3_bucket.keys() == []
    assert "free space in the storage" not in doctor(storage=s3_bucket.url)
    assert doctor(storage="s3://clay-there-is-no-such-bucket/x")["storage"].status == "failed"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    line = doctor(storage=s3_bucket.url)["storage"]
    assert (line.status, SECRET in str(line)) == ("failed", False)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    line = doctor(storage=s3_bucket.url)["storage"]
    assert (line.status, "AWS credentials not found" in line.fact) == ("failed", True)


def test_a_bucket_that_bills_the_reader(
    s3_bucket: Bucket, world: Path, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3_bucket.server.new_bucket("usgs-landsat")
    s3_bucket.client.put_object(Bucket="usgs-landsat", Key="scene.tif", Body=b"1234567")
    found = at(landsat_item("LC08_L2SP_188060_20200102_20200110_02_T1_SR", WHEN), "s3://usgs-landsat/scene.tif")
    gone = at(found, "s3://usgs-landsat/gone.tif")
    here, there = (snapshot(world / f"{n}.parquet", [item]) for n, item in enumerate((found, gone)))
    only = ("--platform", LANDSAT_L2)
    line = doctor(*only, stac_usgs=here)[f"files of {LANDSAT_L2}"]
    assert line.fact == "s3://usgs-landsat/scene.tif: can be read, at your account's cost, 7 bytes"
    assert doctor(*only, stac_usgs=there)[f"files of {LANDSAT_L2}"].status == "failed"
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    line = doctor(*only, stac_usgs=here)[f"files of {LANDSAT_L2}"]
    assert line.remedy == "The bucket is requester-pays: set AWS credentials of an account that may be billed."


# --- versions, Dagster, Dask -------------------------------------------------------------------------------------


def test_libraries_out_of_bounds(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = tmp_path / "site" / "clay_assets-9.9.dist-info" / "METADATA"
    told.parent.mkdir(parents=True)
    told.write_text(
        "Metadata-Version: 2.1\nName: clay_assets\nVersion: 9.9\nRequires-Python: >=99\nRequires-Dist: click>=99\n"
        "Requires-Dist: no-such-library>=1,<2\nRequires-Dist: pyarrow>=1\nRequires-Dist: other; extra == 'dev'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    lines = doctor()
    assert lines["Python"].fact.endswith("not >=99")
    assert lines["click"].remedy == "Run pip install 'click>=99'."
    assert lines["no-such-library"].fact == "not installed"
    assert "pyarrow" not in lines
    assert "other" not in lines


@pytest.mark.slow
def test_the_dagster_instance(doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor()["Dagster"].status == "warning"
    home = tmp_path / "home"
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    assert doctor()["Dagster"].status == "failed"
    home.mkdir()
    assert doctor()["Dagster"].fact == f"0 runs in {home}"
    (home / "dagster.yaml").write_text("run_queue: [1")
    line = doctor()["Dagster"]
    assert (line.status, line.remedy) == ("failed", f"Check {home / 'dagster.yaml'} and the database configured there.")


@pytest.mark.slow
def test_a_dask_cluster(doctor: Doctor, world: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    none = doctor(dask_scheduler=f"tcp://127.0.0.1:{free_port()}")
    assert none["Dask"].status == "failed"
    assert "no scheduler answers" in none["Dask"].fact
    cluster = DaskCluster(0)
    try:
        assert doctor(dask_scheduler=cluster.address)["Dask"].fact == f"{cluster.address}: no workers connected"
        cluster.add_worker()
        cluster.wait_for(1)
        line = doctor(dask_scheduler=cluster.address)["Dask"]
        assert (line.status, line.fact) == ("ok", f"{cluster.address}: 1 workers connected")
        assert not (world / "storage").exists()
        cluster.add_worker(other_versions(tmp_path / "other", "distributed"))
        cluster.wait_for(2)
        line = doctor(dask_scheduler=cluster.address)["Dask"]
        assert line.status == "failed"
        assert ": distributed 0.0.7 (here: " in line.fact
        assert line.remedy == "Install the same versions there as here, and restart it."
    finally:
        cluster.stop()
