"""Which tiles the rules choose, from tables with known answers and from 936 real tiles."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from clay_assets.errors import InputError
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.sampling.tiles import CLASS_COLUMNS, sample_tiles, take_sample
from clay_assets_tests.recipes.test_recipes import CLAY_V0_1, CLAY_V1

CLASSES = (
    "Tree cover",
    "Shrubland",
    "Grassland",
    "Cropland",
    "Built-up",
    "Bare / sparse vegetation",
    "Snow and Ice",
    "Permanent water bodies",
    "Herbaceous wetland",
    "Mangroves",
    "Moss and lichen",
)


def stats(shares: dict[str, dict[str, float]]) -> gpd.GeoDataFrame:
    """A table of statistics; the rest of each tile is grassland."""
    rows = []
    for number, (name, given) in enumerate(shares.items()):
        filled = {**dict.fromkeys(CLASSES, 0.0), **given}
        filled["Grassland"] += 1 - sum(given.values())
        present = [share for share in filled.values() if share > 0]
        rows.append(
            {
                "name": name,
                **filled,
                "count": len(present),
                "valid_share": 1.0,
                "diversity": -sum(share * math.log(share) for share in present),
                "geometry": shapely.box(number, 0, number + 1, 1),
            }
        )
    return gpd.GeoDataFrame(rows, crs="EPSG:4326")


def recipe(*rules: tuple[str, str, int, int], seed: int = 42) -> Recipe:
    table = [
        {"rule": rule, "class": kind, "tiles": tiles, "from_highest": highest} for rule, kind, tiles, highest in rules
    ]
    return Recipe.model_validate({"name": "test", "seed": seed, "tile_rules": table})


def lowest(names: list[str], size: int, rule: str, seed: int = 42) -> set[str]:
    """An independent implementation of the draw."""
    hashes = {name: hashlib.blake2b(f"{seed}\x1f{rule}\x1f{name}".encode(), digest_size=8).digest() for name in names}
    return set(sorted(hashes, key=lambda name: hashes[name])[:size])


def test_the_columns_are_the_classes() -> None:
    assert CLASS_COLUMNS == CLASSES


def test_the_highest_shares_are_the_pool() -> None:
    table = stats({f"{n:02}AAA": {"Built-up": n / 100} for n in range(1, 31)})
    sample = sample_tiles(table, recipe(("core", "Built-up", 4, 4)))
    assert sample["name"].tolist() == ["27AAA", "28AAA", "29AAA", "30AAA"]
    assert sample.columns.tolist() == ["name", "rules", *CLASSES, "count", "valid_share", "diversity", "geometry"]
    assert sample.crs == "EPSG:4326"
    assert sample["geometry"].iloc[0].equals(shapely.box(26, 0, 27, 1))


def test_both_built_up_rows_apply_and_are_united() -> None:
    table = stats({f"{n:02}AAA": {"Built-up": n / 100} for n in range(1, 31)})
    sample = sample_tiles(table, recipe(("core", "Built-up", 4, 4), ("wide", "Built-up", 6, 20)))
    core = {"27AAA", "28AAA", "29AAA", "30AAA"}
    wide = lowest([f"{n:02}AAA" for n in range(11, 31)], 6, "wide")
    assert wide - core
    assert wide & core
    assert set(sample["name"]) == core | wide
    expected = {name: [r for r, chosen in (("core", core), ("wide", wide)) if name in chosen] for name in core | wide}
    assert dict(zip(sample["name"], sample["rules"], strict=True)) == expected
    assert [record["drawn"] for record in sample.attrs["rules"]] == [4, 6]


def test_ties_go_to_the_more_diverse_tile_then_by_name() -> None:
    table = stats(
        {
            "09AAA": {"Mangroves": 0.2},
            "05AAA": {"Mangroves": 0.2},
            "07AAA": {"Mangroves": 0.2, "Cropland": 0.3},
            "08AAA": {"Mangroves": 0.1},
            "01AAA": {"Mangroves": 0.2, "Cropland": 0.01},
        }
    )
    for size, expected in ((1, {"07AAA"}), (2, {"07AAA", "01AAA"}), (3, {"07AAA", "01AAA", "05AAA"})):
        for order in (slice(None), slice(None, None, -1)):
            sample = sample_tiles(table.iloc[order], recipe(("m", "Mangroves", size, size)))
            assert set(sample["name"]) == expected


def test_diversity_ranks_by_the_number_of_classes() -> None:
    many = {"Cropland": 0.001, "Tree cover": 0.001, "Built-up": 0.001}
    table = stats({"01AAA": {"Cropland": 0.5}, "02AAA": many, "03AAA": {"Cropland": 0.3, "Tree cover": 0.3}})
    assert sample_tiles(table, recipe(("d", "Diversity", 1, 1)))["name"].tolist() == ["02AAA"]
    assert sample_tiles(table, recipe(("d", "Diversity", 2, 2)))["name"].tolist() == ["02AAA", "03AAA"]


def test_a_tile_without_the_class_is_no_candidate_and_too_few_are_reported() -> None:
    table = stats({"01AAA": {"Snow and Ice": 0.1}, "02AAA": {}, "03AAA": {"Snow and Ice": 0.2}})
    sample = sample_tiles(table, recipe(("ice", "Snow and Ice", 25, 500), ("moss", "Moss and lichen", 50, 500)))
    assert sample["name"].tolist() == ["01AAA", "03AAA"]
    ice, moss = sample.attrs["rules"]
    assert ice == {
        "rule": "ice",
        "class": "Snow and Ice",
        "tiles": 25,
        "from_highest": 500,
        "candidates": 2,
        "drawn": 2,
    }
    assert (moss["candidates"], moss["drawn"]) == (0, 0)


def test_an_empty_sample_keeps_its_columns() -> None:
    sample = sample_tiles(stats({"01AAA": {}}), recipe(("ice", "Snow and Ice", 1, 1)))
    assert len(sample) == 0
    assert "rules" in sample
    assert sample.crs == "EPSG:4326"


def test_the_order_of_the_table_does_not_matter() -> None:
    table = stats({f"{n:02}AAA": {"Built-up": (n % 7) / 100, "Cropland": (n % 5) / 50} for n in range(1, 50)})
    rules = recipe(("b", "Built-up", 5, 20), ("c", "Cropland", 5, 20), ("d", "Diversity", 5, 20))
    first = sample_tiles(table, rules)
    shuffled = sample_tiles(table.sample(frac=1, random_state=1), rules)
    pd.testing.assert_frame_equal(pd.DataFrame(first), pd.DataFrame(shuffled))


@pytest.mark.slow
def test_one_more_tile_in_the_world_changes_at_most_one_of_each_draw() -> None:
    shares = {f"{n:02}AAA": {"Built-up": n / 100, "Cropland": (n * 7 % 31) / 100} for n in range(1, 50)}
    rules = recipe(("b", "Built-up", 5, 20), ("c", "Cropland", 5, 20))

    def draws(table: gpd.GeoDataFrame) -> dict[str, set[str]]:
        sample = sample_tiles(table, rules)
        return {rule: {n for n, by in zip(sample["name"], sample["rules"], strict=True) if rule in by} for rule in "bc"}

    before = draws(stats(shares))
    changes = 0
    for n in range(1, 60):
        after = draws(stats({**shares, f"{n:02}ZZZ": {"Built-up": n / 120, "Cropland": 0.3}}))
        for rule in "bc":
            assert len(before[rule] - after[rule]) <= 1
            changes += before[rule] != after[rule]
    assert changes


def test_statistics_that_lack_columns_or_repeat_names() -> None:
    table = stats({"01AAA": {}, "02AAA": {}})
    with pytest.raises(InputError, match=r"worldcover_stats: column Cropland, diversity is missing"):
        sample_tiles(table.drop(columns=["Cropland", "diversity"]), recipe(("g", "Grassland", 1, 1)))
    with pytest.raises(InputError, match="01AAA repeated"):
        sample_tiles(pd.concat([table, table.head(1)]), recipe(("g", "Grassland", 1, 1)))


# --- 936 real tiles ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real_tiles(real_data: Path) -> gpd.GeoDataFrame:
    """The published early sample, with the two missing columns added."""
    table = gpd.read_file(real_data / "mgrs_sample" / "mgrs_sample_v0.gpkg")
    shares = table[list(CLASSES)].to_numpy()
    shares = shares / shares.sum(axis=1, keepdims=True)
    table["diversity"] = -(shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))).sum(axis=1)
    table["valid_share"] = 1.0
    return table


def by_hand(table: gpd.GeoDataFrame, rules: list[tuple[str, int, int]], names: list[str]) -> list[set[str]]:
    """Every rule's draw, tile by tile in plain Python."""
    tiles: list[dict[str, Any]] = table.drop(columns="geometry").to_dict("records")
    draws = []
    for (kind, size, highest), rule in zip(rules, names, strict=True):
        column = "count" if kind == "Diversity" else kind
        pool = [tile for tile in tiles if tile[column] > 0]
        pool.sort(key=lambda tile: tile["name"])
        pool.sort(key=lambda tile: (tile[column], tile["diversity"]), reverse=True)  # stable: names stay in order
        draws.append(lowest([tile["name"] for tile in pool[:highest]], size, rule))
    return draws


@pytest.mark.parametrize(
    ("name", "rules", "drawn", "total"),
    [
        ("clay_v1", CLAY_V1, [400, 300, 755, 50, 50, 50, 654, 150, 100, 200, 50, 25, 50], 900),
        ("clay_v0_1", CLAY_V0_1, [500, 400, 50, 50, 50, 100, 100, 50, 50, 50, 50, 100], 806),
    ],
)
def test_the_rules_on_936_real_tiles(
    real_tiles: gpd.GeoDataFrame, name: str, rules: list[tuple[str, int, int]], drawn: list[int], total: int
) -> None:
    loaded = load_recipe(name)
    sample = sample_tiles(real_tiles, loaded)
    names = [rule.rule for rule in loaded.tile_rules]
    draws = by_hand(real_tiles, rules, names)
    for rule, expected in zip(names, draws, strict=True):
        assert {tile for tile, by in zip(sample["name"], sample["rules"], strict=True) if rule in by} == expected
    assert [len(expected) for expected in draws] == drawn
    assert [record["drawn"] for record in sample.attrs["rules"]] == drawn
    assert len(sample) == len(set.union(*draws)) == total
    assert sample["name"].is_monotonic_increasing
    assert sample["name"].is_unique


# --- published samples ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grid() -> gpd.GeoDataFrame:
    names = [f"{n:02}AAA" for n in range(1, 11)]
    return gpd.GeoDataFrame({"name": names}, geometry=[shapely.box(n, 0, n + 1, 1) for n in range(10)], crs=4326)


def publish(path: Path, names: list[Any], **columns: Any) -> Path:
    frame = gpd.GeoDataFrame(
        {"name": names, **columns}, geometry=[shapely.box(50, 50, 51, 51) for _ in names], crs="EPSG:4326"
    )
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


@pytest.mark.parametrize("suffix", [".gpkg", ".fgb", ".parquet", ".geojson"])
def test_a_published_sample_is_taken_with_the_geometry_of_the_grid(
    tmp_path: Path, grid: gpd.GeoDataFrame, suffix: str
) -> None:
    path = publish(tmp_path / f"sample{suffix}", ["05AAA", "02AAA"], **{"Tree cover": [0.25, 0.5], "count": [3, 4]})
    sample = take_sample(path, grid)
    assert sample["name"].tolist() == ["02AAA", "05AAA"]
    assert sample["rules"].tolist() == [["published"], ["published"]]
    assert sample["Tree cover"].tolist() == [0.5, 0.25]
    assert sample["count"].tolist() == [4, 3]
    assert sample["Mangroves"].isna().all()
    assert sample.geometry.iloc[0].equals(shapely.box(1, 0, 2, 1))
    assert sample.columns.tolist() == ["name", "rules", *CLASSES, "count", "valid_share", "diversity", "geometry"]
    assert [(r["rule"], r["tiles"], r["drawn"]) for r in sample.attrs["rules"]] == [("published", 2, 2)]


@pytest.mark.slow
def test_the_real_published_sample_is_taken_whole(real_data: Path) -> None:
    world = gpd.read_parquet(real_data / "s2_grid" / "esa_kml_56686_tiles.parquet")[["name", "geometry"]]
    sample = take_sample(real_data / "mgrs_sample" / "mgrs_sample_v0.gpkg", world)
    assert len(sample) == 936
    built_up = sample.set_index("name")["Built-up"]
    assert built_up["18PZS"] == pytest.approx(0.0354943, abs=1e-7)
    assert sample["diversity"].isna().all()


def test_a_list_of_tiles_without_geometry_will_do(tmp_path: Path, grid: gpd.GeoDataFrame) -> None:
    (tmp_path / "tiles.csv").write_text("name,why\n03AAA,because\n")
    assert take_sample(tmp_path / "tiles.csv", grid)["name"].tolist() == ["03AAA"]


@pytest.mark.slow
@pytest.mark.parametrize("column", ["Name", "NAME", "tile", "Tile_ID", "mgrs"])
@pytest.mark.parametrize("suffix", [".gpkg", ".parquet", ".csv"])
def test_names_are_found_and_read_as_those_of_a_grid(
    tmp_path: Path, grid: gpd.GeoDataFrame, column: str, suffix: str
) -> None:
    spellings = ["3AAA", " 05aaa", "T07AAA", "MGRS-9AAA"]
    path = tmp_path / f"sample{suffix}"
    if suffix == ".csv":
        pd.DataFrame({column: spellings}).to_csv(path, index=False)
    else:
        frame = gpd.read_file(publish(tmp_path / "plain.gpkg", spellings)).rename(columns={"name": column})
        frame.to_parquet(path) if suffix == ".parquet" else frame.to_file(path)
    for names in (grid["name"], grid["name"].str.lstrip("0")):  # stored grids may have older names
        sample = take_sample(path, grid.assign(name=names))
        assert sample["name"].tolist() == ["03AAA", "05AAA", "07AAA", "09AAA"]


def test_a_tile_that_a_sample_has_cut_in_two_is_one(tmp_path: Path, grid: gpd.GeoDataFrame) -> None:
    sides = shapely.MultiPolygon([shapely.box(179, 0, 180, 1), shapely.box(-180, 0, -179, 1)])
    world = pd.concat([grid, gpd.GeoDataFrame({"name": ["01CCV"]}, geometry=[sides], crs=4326)])
    path = publish(
        tmp_path / "sample.parquet", ["1CCV", "02AAA", "01CCV"], **{"Tree cover": [0.2, 0.5, 0.3], "count": [4, 3, 4]}
    )
    sample = take_sample(path, world)
    assert sample["name"].tolist() == ["01CCV", "02AAA"]
    assert sample["count"].tolist() == [4, 3]
    assert sample["Tree cover"].isna().tolist() == [True, False]  # the two sides differ, so neither holds for the tile
    assert sample.geometry.iloc[0].equals(sides)
    assert sample.attrs["rules"][0]["tiles"] == 2
    (tmp_path / "list.csv").write_text("Name\n1CCV\n01CCV\n")
    assert take_sample(tmp_path / "list.csv", world)["name"].tolist() == ["01CCV"]


def test_what_is_wrong_with_a_published_sample_is_said(tmp_path: Path, grid: gpd.GeoDataFrame) -> None:
    def said(path: Path) -> str:
        with pytest.raises(InputError) as caught:
            take_sample(path, grid)
        assert str(path) in str(caught.value)
        return str(caught.value)

    unknown = publish(tmp_path / "unknown.gpkg", ["01AAA", "99ZZZ"])
    assert "99ZZZ are not in the grid of 10 tiles" in said(unknown)
    many = publish(tmp_path / "many.gpkg", [f"{n}ZZZ" for n in range(20, 28)])
    assert "20ZZZ, 21ZZZ, 22ZZZ, 23ZZZ, 24ZZZ and 3 more" in said(many)
    twice = publish(tmp_path / "twice.parquet", ["01AAA", "02AAA", "01AAA"])
    assert "01AAA repeated" in said(twice)
    assert "no tiles in the file" in said(publish(tmp_path / "empty.parquet", []))
    nameless = tmp_path / "nameless.gpkg"
    grid.rename(columns={"name": "label"}).to_file(nameless)
    assert "no column of MGRS tile names, found label. Rename the column" in said(nameless)
    (tmp_path / "text.gpkg").write_text("this is no GeoPackage")
    assert "not a readable vector file" in said(tmp_path / "text.gpkg")
    (tmp_path / "text.parquet").write_text("this is no Parquet")
    assert "not a readable vector file" in said(tmp_path / "text.parquet")
    missing = publish(tmp_path / "missing.parquet", ["01AAA", None])
    assert "are not in the grid" in said(missing)
