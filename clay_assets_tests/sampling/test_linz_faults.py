"""Static catalogues with bad documents or a bad network: what is recorded as a failure, and what is an error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import dagster as dg
import pandas as pd
import pytest

from clay_assets.errors import InputError, SourceError
from clay_assets.orchestration.gates import stop_if_too_many_failed
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.linz import LinzOptions
from clay_assets.sampling.linz import Drawn, draw_sheets
from clay_assets.storage.stac_geoparquet import encode_items
from clay_assets.transport.locations import local_path
from clay_assets_tests.conftest import Bucket
from clay_assets_tests.sampling.static_catalogue import (
    AUCKLAND,
    TARANAKI,
    collection,
    draw,
    failures,
    item,
    sheets,
    small_catalogue,
    write_catalogue,
    write_root,
    write_survey,
)
from clay_assets_tests.servers.faults import FaultProxy
from clay_assets_tests.servers.files import FileServer

LINZ = PLATFORMS["linz"]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return small_catalogue(tmp_path / "catalogue")


# --- bad documents are recorded as failures ---------------------------------------------------------


BAD_ITEMS: dict[str, tuple[str | None, str]] = {
    "no file": (None, "file not found"),
    "no geometry": (json.dumps({**item("x"), "geometry": None}), "not a valid STAC item with geometry"),
    "geometry left out": (
        json.dumps(item("x", geometry=None)),
        "valid STAC item with geometry.*KeyError.*geometry",
    ),
    "empty geometry": (
        json.dumps(item("x", geometry={"type": "Polygon", "coordinates": []})),
        "geometry and bbox must",
    ),
    "odd geometry": (json.dumps(item("x", geometry={"type": "Circle", "coordinates": []})), "with geometry"),
    "torn geometry": (
        json.dumps(item("x", geometry={"type": "Polygon", "coordinates": [[[1, 2], [3]]]})),
        "with geometry",
    ),
    "no bbox": (json.dumps(item("x", bbox=None)), "with geometry.*KeyError.*bbox"),
    "bbox in 3D": (json.dumps(item("x", bbox=[174, -39, 0, 175, -38, 9])), "geometry and bbox must be two-dimensional"),
    "no visual": (json.dumps(item("x", assets={"thumbnail": {"href": "./x.jpg"}})), "asset visual is missing"),
    "no assets": (json.dumps(item("x", assets=None)), "with geometry and assets.*KeyError.*assets"),
    "no href": (json.dumps(item("x", assets={"visual": {"type": "image/tiff"}})), "KeyError.*href"),
    "no links": (json.dumps(item("x", links=None)), "KeyError.*links"),
    "no time": (json.dumps(item("x", properties={"datetime": None})), "neither datetime nor start_datetime"),
    "no properties": (json.dumps(item("x", properties=None)), "KeyError.*properties"),
    "a collection": (json.dumps(collection("01X", [])), "not a valid STAC item"),
    "a list": (json.dumps([item("x")]), "not a STAC document"),
    "half": (json.dumps(item("x"))[:300], "not JSON"),
    "nothing": ("", "not JSON"),
    "web page": ("<html><body>It works!</body></html>", "not JSON"),
    "binary": ("\x00\x01\x02", "not JSON"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("content", "said"), BAD_ITEMS.values(), ids=BAD_ITEMS)
def test_a_bad_item_is_a_failure_and_not_the_others(small: Path, content: str | None, said: str) -> None:
    path = small / TARANAKI / "BK30_500_000005.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    found = draw(small)
    assert list(failures(found)) == ["taranaki/taranaki_2022_0.05m BK30_500_000005"]
    assert pd.Series(failures(found)).str.contains(said, regex=True).all()
    assert "BK30_500_000005" in found.failures[0]["error"]
    assert len(found.items) == 15
    assert found.sheets == 16
    encode_items(found.items, {})  # the remaining items fit one table


BAD_COLLECTIONS: dict[str, tuple[str | None, str]] = {
    "no file": (None, "file not found"),
    "no extent": (json.dumps({"type": "Collection", "id": "01T", "links": []}), "valid STAC collection.*extent"),
    "no interval": (
        json.dumps({**collection("01T", []), "extent": {"temporal": {"interval": []}}}),
        "not a valid STAC",
    ),
    "null extent": (json.dumps({**collection("01T", []), "extent": None}), "not a valid STAC collection"),
    "no id": (
        json.dumps({k: v for k, v in collection("01T", []).items() if k != "id"}),
        "valid STAC collection.*id",
    ),
    "half": (json.dumps(collection("01T", sheets(8)))[:500], "not JSON"),
    "text": ('"collection"', "not a STAC document"),
}


@pytest.mark.parametrize(("content", "said"), BAD_COLLECTIONS.values(), ids=BAD_COLLECTIONS)
def test_a_bad_collection_is_a_failure_and_not_the_others(small: Path, content: str | None, said: str) -> None:
    path = small / TARANAKI / "collection.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    found = draw(small)
    assert list(failures(found)) == ["taranaki/taranaki_2022_0.05m"]
    assert pd.Series(failures(found)).str.contains(said, regex=True).all()
    assert "collection.json" in found.failures[0]["error"]
    assert {item["collection"] for item in found.items} == {"01A"}
    assert len(found.items) == 8


def test_a_collection_without_links_has_no_sheets(small: Path) -> None:
    path = small / TARANAKI / "collection.json"
    nothing: Any
    for nothing in ([], None):
        path.write_text(json.dumps({**collection("01T", []), "links": nothing}))
        assert [record["sheets"] for record in draw(small).collections] == [8, 0]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, r"CLAY_LINZ_CATALOG: .*catalog\.json: file not found.*Give the root document of nz-imagery"),
        ("<html>", r"CLAY_LINZ_CATALOG: .*catalog\.json: not JSON.*Give the root document of nz-imagery"),
        ("[]", "not a STAC document"),
        ('{"type": "Catalog"}', r"none of its 0 children is a collection \{region\}/\{survey\}/rgb/\{epsg\}/coll"),
        (
            json.dumps({"links": [{"rel": "child", "href": "./sentinel-2/collection.json"}, {"rel": "child"}, 7]}),
            "none of its 1 children is a collection.*Give the root document of nz-imagery, or a copy of it",
        ),
    ],
)
def test_what_is_no_catalogue(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "catalog.json").write_text(content)
    with pytest.raises(InputError, match=said):
        draw(tmp_path)


NAMES = ["a#b", "a?b=c", "a b", "100%", "a%23b", "Māori"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("as_url", [False, True])
def test_a_catalogue_below_a_folder_with_any_name(tmp_path: Path, name: str, as_url: bool) -> None:
    folder = small_catalogue(tmp_path / name)
    whole = draw(small_catalogue(tmp_path / "plain"))
    found = draw(folder.as_uri() if as_url else folder)
    assert found.failures == []
    assert [sheet["id"] for sheet in found.items] == [sheet["id"] for sheet in whole.items]
    assert [record["survey"] for record in found.collections] == [record["survey"] for record in whole.collections]
    for sheet in found.items:
        assert local_path(sheet["assets"]["visual"]["href"]).parents[4] == folder


@pytest.mark.parametrize("name", NAMES)
def test_a_catalogue_whose_own_folders_have_any_name(tmp_path: Path, name: str) -> None:
    path = f"{name}/{name}/rgb/2193"
    write_catalogue(tmp_path, {path: collection("01T", sheets(8))})
    encoded = small_catalogue(tmp_path / "encoded")
    write_survey(encoded, path, collection("01T", sheets(8)))
    write_root(encoded, [quote(path)])
    for folder in (tmp_path, encoded):
        found = draw(folder)
        assert found.failures == []
        assert [record["survey"] for record in found.collections] == [f"{name}/{name}"]
        assert {sheet["properties"]["linz:region"] for sheet in found.items} == {name}


@pytest.mark.parametrize("name", ["a#b", "a?b=c", "a%23b"])
def test_a_catalogue_below_any_prefix_of_a_bucket(s3_bucket: Bucket, tmp_path: Path, name: str) -> None:
    small = small_catalogue(tmp_path)
    for file in small.rglob("*.json"):
        key = f"{name}/{file.relative_to(small).as_posix()}"
        s3_bucket.client.put_object(Bucket=s3_bucket.name, Key=key, Body=file.read_bytes())
    found = draw(f"{s3_bucket.url}/{name}")
    assert (found.failures, len(found.items)) == ([], 16)
    assert found.items[0]["assets"]["visual"]["href"].startswith(f"{s3_bucket.url}/{name}/auckland/")


def test_collections_that_all_fail_leave_nothing_tried(small: Path) -> None:
    for path in (TARANAKI, AUCKLAND):
        (small / path / "collection.json").write_text("<html>")
    found = draw(small)
    assert (found.items, found.sheets, len(found.failures)) == ([], 0, 2)
    failures = pd.DataFrame(found.failures)
    with pytest.raises(dg.Failure, match=r"2 sheets failed, 100\.0%.*First: auckland/.*collection\.json: not JSON"):
        stop_if_too_many_failed("sheets", failures, found.sheets, 0.01, "linz_sample")


# --- over a bad network -----------------------------------------------------------------------------


@pytest.fixture
def web(
    small: Path, file_server: Callable[[Path], FileServer], fault_proxy: Callable[[str], FaultProxy]
) -> tuple[FaultProxy, Drawn]:
    """The small catalogue behind a proxy, and the draw from it without faults."""
    proxy = fault_proxy(file_server(small).url)
    whole = draw(proxy.url)
    assert len(whole.items) == 16
    assert proxy.total == 1 + 2 + 16  # each document once
    proxy.clear()
    return proxy, whole


@pytest.mark.parametrize("path", [r"/catalog\.json", f"{AUCKLAND}/collection", f"{TARANAKI}/BK30_500_000002"])
@pytest.mark.parametrize("fault", ["503", "truncate", "reset"])
def test_a_fault_that_passes_costs_nothing(web: tuple[FaultProxy, Drawn], path: str, fault: str) -> None:
    proxy, whole = web
    if fault.isdigit():
        proxy.answer(int(fault), times=2, path=path)
    else:
        getattr(proxy, fault)(times=1, path=path)
    again = draw(proxy.url)
    assert (again.items, again.collections, again.failures) == (whole.items, whole.collections, [])
    assert proxy.total == 19 + (2 if fault == "503" else 1)


def test_documents_that_are_not_there_are_asked_for_once(web: tuple[FaultProxy, Drawn]) -> None:
    proxy, _ = web
    proxy.answer(404, times=None, path="BK30_500_000002")
    proxy.answer(404, times=None, path=f"{AUCKLAND}/collection")
    found = draw(proxy.url)
    assert [(name, "file not found (404" in error) for name, error in failures(found).items()] == [
        ("auckland/auckland_2022_0.075m", True),
        ("taranaki/taranaki_2022_0.05m BK30_500_000002", True),
    ]
    assert [item["id"] for item in found.items] == [f"01T_{sheet}" for sheet in sheets(8) if sheet[-1] != "2"]
    assert proxy.total == 1 + 2 + 8


def test_a_sheet_that_stays_unreadable_is_a_failure(web: tuple[FaultProxy, Drawn]) -> None:
    proxy, whole = web
    proxy.garbage(times=None, path=f"{TARANAKI}/BK30_500_000002")
    proxy.answer(503, times=None, path=f"{TARANAKI}/BK30_500_000006")
    found = draw(proxy.url)
    assert len(found.failures) == 2
    assert "BK30_500_000002.json: not JSON" in found.failures[0]["error"]
    assert "BK30_500_000006.json: the server answered 503. Run again later." in found.failures[1]["error"]
    lost = {"01T_BK30_500_000002", "01T_BK30_500_000006"}
    assert found.items == [item for item in whole.items if item["id"] not in lost]


def test_a_root_that_does_not_answer_is_an_error(web: tuple[FaultProxy, Drawn]) -> None:
    proxy, _ = web
    proxy.answer(503, times=None)
    with pytest.raises(SourceError, match=r"catalog\.json: the server answered 503"):
        draw(proxy.url)


def test_requests_in_flight_are_bounded(web: tuple[FaultProxy, Drawn]) -> None:
    proxy, whole = web
    proxy.delay(0.05)
    assert draw(proxy.url, in_flight=3).items == whole.items
    assert proxy.max_in_flight == 3


def test_progress_counts_every_sheet(small: Path) -> None:
    (small / TARANAKI / "BK30_500_000005.json").unlink()
    told: list[tuple[int, int]] = []
    draw_sheets(LINZ, str(small), LinzOptions(), 42, 2, lambda done, total: told.append((done, total)))
    assert told == [(done, 16) for done in range(1, 17)]
