"""Items made of the columns of a snapshot are what reading, checking and migrating each of them gives."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clay_assets.catalogues.snapshot import SnapshotCatalogue
from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.stac import Item, as_stac_1_1
from clay_assets_tests.catalogues.test_columns import hostile_items
from clay_assets_tests.catalogues.test_snapshot_types import large, only_intervals, single_precision, with_dictionaries
from clay_assets_tests.scenes.items import snapshot

COUNT = 150


def step_by_step(key: str, catalogue: SnapshotCatalogue, ids: list[str]) -> dict[str, str]:
    platform, found = PLATFORMS[key], {}
    whole = catalogue.complete(platform, [{"id": name} for name in ids])
    for item, read in zip(whole, platform.read_items(whole), strict=True):
        if not isinstance(read, InputError):
            try:
                found[item["id"]] = json.dumps(as_stac_1_1(read))
            except InputError:
                continue
    return found


def compared(key: str, location: str, ids: list[str]) -> int:
    """How many of some items columns tell, all of them as they should."""
    catalogue = SnapshotCatalogue(location)
    expected = step_by_step(key, catalogue, ids)
    stored = catalogue.stored(PLATFORMS[key], ids)
    assert {item["id"]: json.dumps(item) for item in stored} == {item["id"]: expected[item["id"]] for item in stored}
    assert len(stored) == len({item["id"] for item in stored})
    return len(stored)


def items(key: str, *, mixed: bool = False) -> list[Item]:
    """Hostile items whose links, assets and other properties are odd too."""
    draw = random.Random(key)
    found = []
    for item in hostile_items(key, COUNT, 7, mixed=mixed):
        asset = draw.choice(sorted(item["assets"]) or [""])
        changes: dict[str, Any] = draw.choice(
            (
                {},
                {"type": "image/tiff", "roles": ["data"]},
                {"description": "d", "eo:bands": [{"name": "b", "gsd": None}]},
                {"href": "\\\\share\\b.tif"},
                {"href": "https://example.com/a\\b.tif"},
                {"href": "b.tif"},
            )
        )
        if asset:
            item["assets"] = {**item["assets"], asset: {**item["assets"][asset], **changes}}
        item["stac_version"] = draw.choice(("1.1.0", "1.1.0", "1.0.0"))
        item["links"] = draw.choice(
            (
                [],
                item["links"],
                [{"rel": "license", "href": "../l.html", "type": "text/html"}, {"rel": "next", "href": "n"}],
                [{"rel": "self", "href": "s.json"}, {"rel": "derived_from", "href": "a\\b", "title": "t"}],
            )
        )
        more: tuple[dict[str, Any], ...] = (
            {},
            {"gsd": 10, "nested": {"a": [1, None], "b": None}},
            {"created": "2020-05-01T00:00:00.25Z", "updated": None},
            {"zz": [{"n": 1.5}], "proj:shape": [1, 2]},
        )
        item["properties"] |= draw.choice(more)
        found.append(item)
    return found


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("key", sorted(PLATFORMS))
def test_of_odd_items(key: str, mixed: bool, tmp_path: Path) -> None:
    made = items(key, mixed=mixed)
    half = len(made) // 2
    for number, some in enumerate((made[:half], made[half:] + made[:5])):
        snapshot(tmp_path / f"{number}.parquet", some)
    told = compared(key, str(tmp_path), sorted({item["id"] for item in made}))
    assert told or mixed


def with_extensions(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("stac_extensions")
    urls = [["https://stac-extensions.github.io/eo/v1.0.0/schema.json"] if n % 2 else [] for n in range(len(table))]
    return table.set_column(at, "stac_extensions", pa.array(urls))


def without(*names: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.drop_columns(list(names))


@pytest.mark.parametrize(
    ("change", "some"),
    [
        (lambda table: table, True),
        (large, True),
        (with_dictionaries, True),
        (single_precision, True),
        (lambda table: only_intervals(table, pa.timestamp("us", "UTC")), False),
        (with_extensions, True),
        (without("links", "type", "stac_extensions", "collection"), True),
        (without("stac_version"), False),
        (without("bbox"), True),
    ],
)
def test_of_other_writers(change: Callable[[pa.Table], pa.Table], some: bool, tmp_path: Path) -> None:
    key = "sentinel-2-l2a"
    made = items(key)
    path = tmp_path / "items.parquet"
    snapshot(path, made)
    pq.write_table(change(pq.read_table(path)), path)
    assert bool(compared(key, str(path), sorted({item["id"] for item in made}))) == some


def test_an_item_that_columns_do_not_tell_is_not_taken_from_a_later_file(tmp_path: Path) -> None:
    plain = next(item for item in items("sentinel-2-l2a") if item["stac_version"] == "1.1.0")
    plain["geometry"] = {"type": "Polygon", "coordinates": [[[6, 0], [7, 0], [7, 1], [6, 1], [6, 0]]]}
    old = {**plain, "stac_version": "1.0.0", "properties": {**plain["properties"], "first": True}}
    for number, item in enumerate((old, plain)):
        snapshot(tmp_path / f"{number}.parquet", [item])
    assert SnapshotCatalogue(str(tmp_path)).stored(PLATFORMS["sentinel-2-l2a"], [plain["id"]]) == []
