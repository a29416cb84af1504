"""The sampled MGRS tiles: drawn by a recipe's rules, or taken from a published sample.

Specification: the Clay model documentation, "Training Data", section "Global sampling". CHANGELOG.md, "Differences",
says how the draw differs from the published script.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyogrio
from pyogrio.errors import DataLayerError, DataSourceError

from clay_assets.draws import draw
from clay_assets.errors import InputError
from clay_assets.grids import HALF_TURN
from clay_assets.landcover.grid import NAME_COLUMNS, name_column, tile_name
from clay_assets.recipes import Recipe
from clay_assets.recipes.classes import DIVERSITY, WORLDCOVER_CLASSES
from clay_assets.recipes.loader import TileRule

__all__ = ["CLASS_COLUMNS", "PUBLISHED", "STATISTICS", "candidates_of", "sample_tiles", "take_sample"]

CLASS_COLUMNS = tuple(WORLDCOVER_CLASSES.values())
STATISTICS = (*CLASS_COLUMNS, "count", "valid_share", "diversity")
PUBLISHED = "published"  # the rule recorded for tiles of a published sample
NAMES_SHOWN = 5


def sample_tiles(stats: gpd.GeoDataFrame, recipe: Recipe) -> gpd.GeoDataFrame:
    """Draw MGRS tiles by every rule of a recipe, and merge the draws.

    A rule's pool is the `from_highest` tiles with the highest share of its class (ties go to the tile with the higher
    Shannon diversity, then by name); tiles without the class are not in it. The `tiles` with the lowest keyed hash are
    drawn from the pool, or all of it if it is smaller.

    Args:
        stats: `worldcover_stats`: `name`, class shares 0 to 1, `count`, `diversity`, geometry in EPSG:4326.
        recipe: the rules, and the seed.

    Returns:
        The drawn tiles ordered by name, with the columns of `stats`, and `rules`, the names of the rules that chose
        each tile. `attrs["rules"]` has one record per rule: tiles asked for, pool size, candidates, and tiles drawn.

    Raises:
        InputError: columns are missing, or names repeat.

    Examples:
        >>> import geopandas as gpd
        >>> from clay_assets import load_recipe, sample_tiles
        >>> stats = gpd.read_parquet("demo/storage/landcover/worldcover_stats.parquet")
        >>> sample = sample_tiles(stats, load_recipe("clay_v1"))
        >>> set(sample["name"]) <= set(stats["name"])
        True
    """
    _check_columns(stats)
    chosen: dict[str, list[str]] = {}
    report = []
    for rule in recipe.tile_rules:
        pool, candidates = _pool(stats, rule)
        drawn = draw(pool, rule.tiles, recipe.seed, rule.rule)
        for name in drawn:
            chosen.setdefault(str(name), []).append(rule.rule)
        report.append(
            {
                "rule": rule.rule,
                "class": rule.land_cover,
                "tiles": rule.tiles,
                "from_highest": rule.from_highest,
                "candidates": candidates,
                "drawn": len(drawn),
            }
        )
    sample = stats[stats["name"].isin(chosen)].sort_values("name", ignore_index=True)
    sample.insert(1, "rules", [chosen[name] for name in sample["name"]])
    sample = sample[["name", "rules", *STATISTICS, "geometry"]]
    sample.attrs = {"rules": report}
    return sample


def take_sample(path: str | Path, grid: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Take the tiles of a published sample, after checking them against the grid.

    Args:
        path: any vector file that GDAL reads, or GeoParquet, with a column of MGRS tile names as in a grid file.
            Statistics in the file are kept; the geometry is taken from the grid.
        grid: `mgrs_grid`.

    Returns:
        As `sample_tiles`, with `published` as the only rule; statistics that are not in the file are null.

    Raises:
        InputError: not a vector file, no column of names, no tiles, repeated names, or tiles that are not in the grid.
    """
    published = _read_vector(path)
    column = name_column([str(column) for column in published.columns])
    if column is None:
        raise InputError(
            f"CLAY_MGRS_SAMPLE {path}: no column of MGRS tile names, found {', '.join(published.columns)}. "
            f"Rename the column that holds them to {', '.join(NAME_COLUMNS[:-1])} or {NAME_COLUMNS[-1]}."
        )
    names = published[column].map(lambda name: tile_name(str(name)))
    grid = grid.assign(name=grid["name"].map(tile_name))
    if names.empty:
        raise InputError(f"CLAY_MGRS_SAMPLE {path}: no tiles in the file.")
    repeated = names[names.duplicated() & ~names.isin(_across_180(grid))].unique()
    if len(repeated):
        raise InputError(f"CLAY_MGRS_SAMPLE {path}: {_some(list(repeated))} repeated. Keep one row per tile.")
    unknown = names[~names.isin(grid["name"])]
    if len(unknown):
        raise InputError(
            f"CLAY_MGRS_SAMPLE {path}: {_some(list(unknown))} are not in the grid of {len(grid)} tiles. "
            "Use the grid that the sample was drawn from (CLAY_MGRS_GRID)."
        )
    statistics = [column for column in STATISTICS if column in published]
    kept = _one_row_each(pd.DataFrame(published[statistics]).assign(name=names))
    names = kept["name"]
    sample = grid[["name", "geometry"]].merge(kept, on="name", how="inner", validate="1:1")
    sample = sample.sort_values("name", ignore_index=True)
    for column in STATISTICS:
        numbers = pd.to_numeric(sample[column]) if column in sample else pd.Series(float("nan"), sample.index)
        sample[column] = numbers.astype("Int64" if column == "count" else "float64")
    sample.insert(1, "rules", [[PUBLISHED] for _ in range(len(sample))])
    sample = sample[["name", "rules", *STATISTICS, "geometry"]]
    record = {"rule": PUBLISHED, "class": "", "tiles": len(names), "from_highest": len(names)}
    sample.attrs = {"rules": [{**record, "candidates": len(names), "drawn": len(sample)}]}
    return sample


def _across_180(grid: gpd.GeoDataFrame) -> list[str]:
    """Names of the tiles that cross ±180, which published samples may split into two rows."""
    bounds = grid.bounds
    return list(grid["name"][(bounds["minx"] <= -HALF_TURN) & (bounds["maxx"] >= HALF_TURN)])


def _one_row_each(tiles: pd.DataFrame) -> pd.DataFrame:
    """One row per name. Statistics that differ between the rows of a tile describe its parts, and become null."""
    if tiles["name"].is_unique:
        return tiles
    groups = tiles.groupby("name", sort=False)
    return groups.first().where(groups.nunique(dropna=False) == 1).reset_index()


def candidates_of(stats: pd.DataFrame, rule: TileRule) -> int:
    """Number of tiles eligible for a rule's pool: those where its class is present."""
    return int((stats[_value(rule)] > 0).sum())


def _value(rule: TileRule) -> str:
    return "count" if rule.land_cover == DIVERSITY else rule.land_cover


def _pool(stats: gpd.GeoDataFrame, rule: TileRule) -> tuple[list[str], int]:
    value = _value(rule)
    shares = stats[value].to_numpy(np.float64, na_value=np.nan)
    present = np.flatnonzero(shares > 0)
    if len(present) > rule.from_highest:  # select before sorting: few tiles can be in the pool
        lowest = np.partition(shares[present], -rule.from_highest)[-rule.from_highest]
        highest = present[shares[present] >= lowest]
    else:
        highest = present
    pool = pd.DataFrame({name: stats[name].to_numpy()[highest] for name in ("name", value, "diversity")})
    ordered = pool.sort_values([value, "diversity", "name"], ascending=[False, False, True])
    return ordered["name"].head(rule.from_highest).tolist(), len(present)


def _check_columns(stats: gpd.GeoDataFrame) -> None:
    missing = [column for column in ("name", *STATISTICS) if column not in stats]
    if missing:
        raise InputError(f"worldcover_stats: column {', '.join(missing)} is missing. Materialise it again.")
    repeated = stats["name"][stats["name"].duplicated()].unique()
    if len(repeated):
        raise InputError(f"worldcover_stats: {_some(list(repeated))} repeated. Materialise it again.")


def _read_vector(path: str | Path) -> pd.DataFrame:
    try:
        if str(path).endswith((".parquet", ".geoparquet")):
            return pd.read_parquet(path)
        table: pd.DataFrame = pyogrio.read_dataframe(path, read_geometry=False)
        return table
    except (DataSourceError, DataLayerError, OSError, ValueError) as error:
        raise InputError(f"CLAY_MGRS_SAMPLE {path}: not a readable vector file ({error}).") from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:NAMES_SHOWN]))
    more = len(names) - NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
