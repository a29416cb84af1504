"""Pictures stay small enough for the event log at the size of the real world."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pytest

from clay_assets.orchestration import pictures
from clay_assets.orchestration.metadata import PICTURE_BYTES, picture
from clay_assets.recipes import load_recipe


def tiles(count: int) -> gpd.GeoDataFrame:
    """Tiles all over the world, with noisy land cover: the hardest thing to compress."""
    rng = np.random.default_rng(1)
    points = gpd.points_from_xy(rng.uniform(-180, 180, count), rng.uniform(-60, 80, count))
    frame = gpd.GeoDataFrame({"name": np.arange(count).astype(str)}, geometry=points.buffer(0.5), crs="EPSG:4326")
    for name in pictures.CLASS_COLOURS:
        frame[name] = rng.random(count)
    rules = [rule.rule for rule in load_recipe().tile_rules]
    frame["rules"] = [[rules[number]] for number in rng.integers(0, len(rules), count)]
    return frame


@pytest.mark.parametrize("count", [12, 2_728, 18_000])
def test_maps_fit_the_event_log_however_many_tiles(count: int) -> None:
    frame = tiles(count)
    drawn = (pictures.land_cover_map(frame), pictures.sample_map(frame), pictures.tile_map(frame, "tiles"))
    for png in drawn:
        assert png.startswith(b"\x89PNG")
        assert len(png) <= PICTURE_BYTES
        assert picture(png).md_str is not None
        assert "data:image/png;base64," in str(picture(png).md_str)


def test_a_picture_that_is_too_large_is_left_out_and_loses_no_run() -> None:
    shown = str(picture(b"x" * (PICTURE_BYTES + 1)).md_str)
    assert "base64" not in shown
    assert "too many for the event log" in shown
