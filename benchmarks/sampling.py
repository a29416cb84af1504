"""How fast tiles are sampled: every rule of Clay v1's recipe on as many tiles as the Earth has.

    python benchmarks/sampling.py [--tiles 57000]

Makes land-cover statistics with a few classes of skewed shares per tile and many ties, like real ones. The floor sorts
one column once per rule. Both alternate; the best of five counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import shapely
from harness import Row, table, took

from clay_assets.recipes import load_recipe
from clay_assets.sampling.tiles import CLASS_COLUMNS, sample_tiles

REPEATS = 5
LETTERS, SQUARES, ROWS = "CDEFGHJKLMNPQRSTUVWX", "ABCDEFGHJKLMNPQRSTUVWXYZ", "ABCDEFGHJKLMNPQRSTUV"


def statistics(count: int) -> gpd.GeoDataFrame:
    """Land-cover statistics of a number of tiles, in the form of `worldcover_stats`."""
    rng, numbers = np.random.default_rng(0), range(count)
    names = [f"{1 + n % 60:02}{LETTERS[n // 60 % 20]}{SQUARES[n // 1200 % 24]}{ROWS[n // 28800 % 20]}" for n in numbers]
    shares = np.round(rng.dirichlet(np.full(len(CLASS_COLUMNS), 0.2), count), 4)
    shares[shares < 0.01] = 0
    logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    west, south = rng.uniform(-179, 178, count), rng.uniform(-60, 60, count)
    columns = {
        "name": names,
        **dict(zip(CLASS_COLUMNS, shares.T, strict=True)),
        "count": (shares > 0).sum(axis=1),
        "valid_share": rng.uniform(0, 1, count),
        "diversity": -(shares * logs).sum(axis=1),
    }
    return gpd.GeoDataFrame(columns, geometry=shapely.box(west, south, west + 1, south + 1), crs="EPSG:4326")


def seconds(work: Callable[[], Any]) -> float:
    """Seconds of one run."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def rows(_: Path | None = None, tiles: int = 57_000) -> Iterator[Row]:
    """The row of this stage."""
    stats, recipe = statistics(tiles), load_recipe("clay_v1")
    column = stats[CLASS_COLUMNS[0]].to_numpy()
    ours = floor = float("inf")
    for _ in range(REPEATS):
        floor = min(floor, seconds(lambda: [np.sort(column) for _ in recipe.tile_rules]))
        ours = min(ours, seconds(lambda: sample_tiles(stats, recipe)))
    drawn = len(sample_tiles(stats, recipe))
    note = f"{drawn:,} of {tiles:,} tiles by {len(recipe.tile_rules)} rules (goal < 1 s)"
    yield Row("sampling tiles", "tiles", took(ours), floor=("sorting a column", took(floor)), note=note)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tiles", type=int, default=57_000)
    print(table(list(rows(tiles=parser.parse_args().tiles))))
