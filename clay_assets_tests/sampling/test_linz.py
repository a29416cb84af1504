"""Which sheets are drawn from a static catalogue, and how their items are stored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import geopandas as gpd
import pystac
import pytest

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.platforms.linz import LinzOptions
from clay_assets.platforms.request_table import requests_in
from clay_assets.sampling.linz import Drawn
from clay_assets.scenes.picks import pick_scenes
from clay_assets.storage.stac_geoparquet import encode_items
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
)
from clay_assets_tests.servers.files import FileServer

LINZ = PLATFORMS["linz"]


def names(drawn: Drawn) -> set[str]:
    return {item["properties"]["linz:sheet"] for item in drawn.items}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return small_catalogue(tmp_path / "catalogue")


# --- how many, and which ----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("count", "options", "drawn"),
    [
        (0, {}, 0),
        (3, {}, 3),
        (10, {}, 10),
        (15, {}, 10),
        (20, {}, 10),
        (21, {}, 10),
        (22, {}, 11),
        (40, {"share": 0.25}, 10),
        (44, {"share": 0.25}, 11),
        (30, {"share": 1}, 30),
        (12, {"min_scenes": 1}, 6),
        (1, {"min_scenes": 1}, 1),
        (5000, {"max_scenes": 40}, 40),
    ],
)
def test_half_of_a_collection_but_ten_or_all_and_not_too_many(
    tmp_path: Path, count: int, options: dict[str, Any], drawn: int
) -> None:
    catalogue = write_catalogue(tmp_path, {TARANAKI: collection("01T", sheets(count))})
    found = draw(catalogue, **options)
    assert len({item["id"] for item in found.items}) == len(found.items) == found.sheets == drawn
    record = {"survey": "taranaki/taranaki_2022_0.05m", "collection": "01T", "gsd": 0.1}
    assert found.collections == [{**record, "sheets": count, "drawn": drawn}]
    assert found.failures == []
    assert found.absent == []


def test_ids_are_of_the_collection_and_the_sheet(small: Path) -> None:
    found = draw(small).items
    assert [item["id"] for item in found] == [f"01{c}_{sheet}" for c in "AT" for sheet in sheets(8)]
    first = found[0]
    assert first["collection"] == "01A"
    assert first["properties"] == {
        "datetime": None,
        "start_datetime": "2022-01-07T11:00:00Z",
        "end_datetime": "2022-03-22T11:00:00Z",
        "gsd": 0.1,
        "linz:region": "auckland",
        "linz:survey": "auckland_2022_0.075m",
        "linz:sheet": "BK30_500_000000",
    }
    assert set(first["assets"]) == {"visual"}


@pytest.mark.slow
def test_the_draw_does_not_depend_on_the_order_of_links(tmp_path: Path) -> None:
    forward = {TARANAKI: collection("01T", sheets(60)), AUCKLAND: collection("01A", sheets(60))}
    backward = {AUCKLAND: collection("01A", sheets(60)[::-1]), TARANAKI: collection("01T", sheets(60)[::-1])}
    first = draw(write_catalogue(tmp_path / "a", forward))
    second = draw(write_catalogue(tmp_path / "b", backward), in_flight=1)
    assert [item["id"] for item in first.items] == [item["id"] for item in second.items]
    assert first.collections == second.collections
    assert len(first.items) == 60
    again = draw(tmp_path / "a")
    assert again.items == first.items
    assert encode_items(again.items, {}) == encode_items(first.items, {})
    assert names(draw(tmp_path / "a", seed=43)) != names(first)


def test_two_surveys_of_the_same_sheets_are_drawn_apart(tmp_path: Path) -> None:
    catalogue = write_catalogue(
        tmp_path, {TARANAKI: collection("01T", sheets(60)), AUCKLAND: collection("01A", sheets(60))}
    )
    drawn = {prefix: names(draw(catalogue, surveys=[prefix])) for prefix in (TARANAKI[:28], AUCKLAND[:29])}
    one, other = drawn.values()
    assert len(one) == len(other) == 30
    assert one != other
    both = draw(catalogue)
    assert len(both.items) == 60
    assert {item["properties"]["linz:sheet"] for item in both.items if item["collection"] == "01T"} == one


@pytest.mark.slow
def test_one_more_sheet_changes_one_member_at_most(tmp_path: Path) -> None:
    known, changed = sheets(40), 0
    before = names(draw(write_catalogue(tmp_path / "before", {TARANAKI: collection("01T", known)})))
    assert len(before) == 20
    for number in range(6):
        document = collection("01T", [f"ZZ99_{number}", *known])
        after = names(draw(write_catalogue(tmp_path / str(number), {TARANAKI: document})))
        assert len(after) == 20
        assert after - before <= {f"ZZ99_{number}"}
        changed += after != before
    assert 0 < changed < 6
    two_more = {TARANAKI: collection("01T", [*known, "ZZ99_6", "ZZ99_7"])}
    assert len(before - names(draw(write_catalogue(tmp_path / "two", two_more)))) <= 1


# --- which surveys ----------------------------------------------------------------------------------


def test_the_latest_survey_of_each_region(tmp_path: Path) -> None:
    def survey(end: str | None) -> dict[str, Any]:
        return collection(f"01{len(surveys)}", sheets(2), ("2015-01-01T11:00:00Z", end))

    surveys: dict[str, dict[str, Any]] = {}
    for path, end in {
        "otago/otago_2018_0.1m/rgb/2193": "2019-02-01T11:00:00Z",
        "otago/dunedin_2018-2019_0.1m/rgb/2193": "2019-03-01T11:00:00Z",
        "otago/otago_2021_0.3m/rgbnir/2193": "2021-03-01T11:00:00Z",
        "otago/otago_2021_1m/dem-hillshade/2193": "2021-03-01T11:00:00Z",
        "tasman/nelson_2022_0.1m/rgb/2193": "2022-02-01T11:00:00Z",
        "tasman/tasman_2022_0.1m/rgb/2193": "2022-02-01T11:00:00Z",
        "gisborne/wairoa_2023_0.1m/rgb/2193": "2023-02-01T11:00:00Z",
        "gisborne/gisborne_2019_0.1m/rgb/2193": None,
    }.items():
        surveys[path] = survey(end)
    found = draw(write_catalogue(tmp_path, surveys))
    assert [record["survey"] for record in found.collections] == [
        "gisborne/gisborne_2019_0.1m",  # still open
        "otago/dunedin_2018-2019_0.1m",
        "tasman/tasman_2022_0.1m",  # both ended together
    ]
    assert len(found.items) == 6


def test_named_surveys_and_those_that_the_catalogue_has_not(small: Path) -> None:
    asked = ["taranaki/taranaki_2022_0.05m", "taranaki/gone_2010_0.1m", "nowhere/nowhere_1999_1m"]
    found = draw(small, surveys=asked)
    assert found.absent == asked[1:]
    assert {item["collection"] for item in found.items} == {"01T"}
    assert found.failures == []
    with pytest.raises(
        InputError,
        match=r"CLAY_LINZ_CATALOG .*catalog\.json: none of the recipe's surveys found, such as taranaki/gone",
    ):
        draw(small, surveys=asked[1:])


def test_of_a_survey_only_the_colours(tmp_path: Path) -> None:
    catalogue = write_catalogue(
        tmp_path,
        {
            "canterbury/canterbury_2023_0.3m/rgb/2193": collection("01RGB", sheets(4)),
            "canterbury/canterbury_2023_0.3m/rgbnir/2193": collection("01NIR", sheets(4)),
        },
    )
    for surveys in ("latest", ["canterbury/canterbury_2023_0.3m"]):
        assert {item["collection"] for item in draw(catalogue, surveys=surveys).items} == {"01RGB"}


def test_what_is_linked_twice_is_drawn_once(small: Path) -> None:
    path = small / TARANAKI / "collection.json"
    path.write_text(json.dumps(collection("01T", [*sheets(8), *sheets(3)])))
    write_root(small, [TARANAKI, AUCKLAND, TARANAKI])
    found = draw(small, surveys=[TARANAKI[:28]])
    assert [record["sheets"] for record in found.collections] == [8]
    assert len(found.items) == 8


# --- addresses --------------------------------------------------------------------------------------


def test_the_root_is_a_folder_or_a_file(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw(small)
    for root in (f"{small}/", small / "catalog.json", f"file://{small}"):
        assert names(draw(root)) == names(whole)
    monkeypatch.chdir(small.parent)
    assert draw("catalogue").items == draw("./catalogue/catalog.json").items == whole.items


def test_hrefs_on_disk_are_absolute(tmp_path: Path) -> None:
    folder = tmp_path / "my copy"
    document = collection("01T", ["A1", "A2", "A3"])
    write_catalogue(folder, {TARANAKI: document})
    elsewhere = {"A2": "https://example.com/A2.tiff", "A3": "../../../images/A3.tiff"}
    for sheet, href in elsewhere.items():
        (folder / TARANAKI / f"{sheet}.json").write_text(json.dumps(item(sheet, assets={"visual": {"href": href}})))
    found = draw(folder).items
    assert [item["assets"]["visual"]["href"] for item in found] == [
        f"{folder}/{TARANAKI}/A1.tiff",
        "https://example.com/A2.tiff",
        f"{folder}/taranaki/images/A3.tiff",
    ]
    assert {link["rel"]: link["href"] for link in found[0]["links"]} == {
        "self": f"{folder}/{TARANAKI}/A1.json",
        "collection": f"{folder}/{TARANAKI}/collection.json",
    }


def test_over_http_with_encoded_addresses(tmp_path: Path, file_server: Callable[[Path], FileServer]) -> None:
    path = "west-coast/māwhera 2020_0.1m/rgb/2193"
    here = write_catalogue(tmp_path, {path: collection("01W", ["BK30 7"])}) / path
    encoded = "west-coast/m%C4%81whera%202020_0.1m/rgb/2193"
    write_root(tmp_path, [encoded])
    (here / "collection.json").write_text(json.dumps(collection("01W", ["BK30%207"])))
    document = item("BK30 7", assets={"visual": {"href": "./BK30%207.tiff"}})
    (here / "BK30 7.json").write_text(json.dumps(document))
    url = file_server(tmp_path).url
    for root in (url, f"{url}/", f"{url}/catalog.json"):
        found = draw(root)
        assert [item["id"] for item in found.items] == ["01W_BK30 7"]
        assert found.items[0]["assets"]["visual"]["href"] == f"{url}/{encoded}/BK30%207.tiff"
        assert found.items[0]["properties"]["linz:survey"] == "māwhera 2020_0.1m"


def test_on_s3(small: Path, s3_bucket: Bucket) -> None:
    (small / TARANAKI / "BK30_500_000003.json").unlink()
    for path in small.rglob("*.json"):
        s3_bucket.client.upload_file(str(path), s3_bucket.name, f"nz/{path.relative_to(small)}")
    here, there = draw(small), draw(f"{s3_bucket.url}/nz")
    assert [item["id"] for item in there.items] == [item["id"] for item in here.items]
    assert len(there.items) == 15
    assert there.items[-1]["assets"]["visual"]["href"] == f"{s3_bucket.url}/nz/{TARANAKI}/BK30_500_000007.tiff"
    lost = f"{s3_bucket.url}/nz/{TARANAKI}/BK30_500_000003.json: file not found (NoSuchKey). Check the address."
    assert failures(there) == {"taranaki/taranaki_2022_0.05m BK30_500_000003": lost}
    with pytest.raises(InputError, match=r"CLAY_LINZ_CATALOG: s3://.*/none/catalog\.json: file not found"):
        draw(f"{s3_bucket.url}/none")
    with pytest.raises(InputError, match=r"no-such-bucket-here/catalog\.json: file not found \(NoSuchBucket\)"):
        draw("s3://no-such-bucket-here")


# --- as a sample ------------------------------------------------------------------------------------


@pytest.fixture
def written(small: Path, tmp_path: Path) -> tuple[Path, Drawn]:
    """A sample in a file; two of its sheets were flown in other years than the rest, one has a `datetime` only."""
    for sheet, properties in {
        "BK30_500_000001": {"start_datetime": "2023-01-15T11:00:00Z", "end_datetime": "2023-02-03T11:00:00Z"},
        "BK30_500_000002": {"start_datetime": "2009-12-31T11:00:00Z", "end_datetime": "2010-02-03T11:00:00Z"},
        "BK30_500_000003": {"datetime": "2021-06-01T00:00:00Z"},
    }.items():
        changed = item(sheet, int(sheet[-1]), properties={"datetime": None, **properties})
        (small / TARANAKI / f"{sheet}.json").write_text(json.dumps(changed))
    drawn = draw(small)
    assert drawn.failures == []
    path = tmp_path / "linz_sample.parquet"
    path.write_bytes(encode_items(drawn.items, {}))
    return path, drawn


def test_items_are_valid_stac(written: tuple[Path, Drawn]) -> None:
    for document in written[1].items:
        assert document["stac_version"].startswith("1.")
        pystac.Item.from_dict({**document, "stac_extensions": []}, migrate=False).validate()


def test_the_table_is_geoparquet_and_gives_one_request_per_sheet(written: tuple[Path, Drawn]) -> None:
    path, drawn = written
    sample = gpd.read_parquet(path)
    assert sample["id"].tolist() == [item["id"] for item in drawn.items]
    assert sample.crs == "EPSG:4326"
    assert sample["gsd"].tolist() == [0.1] * 16
    table = LINZ.rules.requests(sample, LinzOptions(), 42)
    years = table.set_index("request_id")["year"].to_dict()
    others = {"01T_BK30_500_000001": 2023, "01T_BK30_500_000003": 2021}
    expected = {item["id"]: others.get(item["id"], 2022) for item in drawn.items}
    del expected["01T_BK30_500_000002"]  # 2009, before the first year
    assert years == expected
    assert (table["location"] == table["request_id"]).all()
    places = sample.set_index("id").geometry
    assert all(places[row.location].contains(row.geometry) for row in table.itertuples())
    assert table["draw"].is_unique
    later = LINZ.rules.requests(sample, LinzOptions(years=(2023, 2024)), 42)
    assert set(later["request_id"]) == {"01T_BK30_500_000001"}


def test_a_sample_where_every_sheet_has_a_moment(small: Path, tmp_path: Path) -> None:
    for path in small.rglob("BK30*.json"):
        changed = item(path.stem, int(path.stem[-1]), properties={"datetime": "2021-06-01T00:00:00Z"})
        path.write_text(json.dumps(changed))
    (tmp_path / "sample.parquet").write_bytes(encode_items(draw(small).items, {}))
    table = LINZ.rules.requests(gpd.read_parquet(tmp_path / "sample.parquet"), LinzOptions(), 42)
    assert table["year"].tolist() == [2021] * 16


def test_each_request_finds_its_own_sheet_in_the_sample(written: tuple[Path, Drawn]) -> None:
    path, drawn = written  # the two surveys overlap
    table = LINZ.rules.requests(gpd.read_parquet(path), LinzOptions(), 42)
    by_id = {item["id"]: item for item in drawn.items}
    picked: dict[int, list[str]] = {}
    for year, rows in table.groupby("year"):
        picks = pick_scenes(LINZ, int(year), requests_in(rows), SnapshotCatalogue(str(path)), LinzOptions())
        assert (picks.ledger["item_id"] == picks.ledger["location"]).all()
        for one in picks.items:
            assert {**one, "properties": {}} == {**by_id[one["id"]], "properties": {}}
        picked[int(year)] = [item["id"] for item in picks.items]
    assert Counter({year: len(ids) for year, ids in picked.items()}) == {2021: 1, 2022: 13, 2023: 1}
