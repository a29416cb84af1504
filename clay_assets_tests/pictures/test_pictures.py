"""Pictures are small, of one style, and show what is there: numbers and pixels that are known."""

from __future__ import annotations

import copy
import io
from itertools import combinations

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import rasterio
import shapely
from matplotlib.colors import to_rgb
from numpy.typing import NDArray
from PIL import Image
from rasterio.windows import Window

from clay_assets.chips import contact_sheet, pictures
from clay_assets.chips.cells import ChipCell
from clay_assets.landcover.pictures import land_cover_map
from clay_assets.orchestration.metadata import PICTURE_BYTES, picture
from clay_assets.pictures import bars, maps, style
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe
from clay_assets.sampling import pictures as samples
from clay_assets.scenes import pictures as scenes
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import decode
from clay_assets.storage.stac_geoparquet import decode_items
from clay_assets_tests.chain import Chain

CLASSES = list(style.CLASS_COLOURS)
WHOLE = 255


def tiles(count: int) -> gpd.GeoDataFrame:
    """Tiles all over the world, with noisy land cover: the hardest thing to compress."""
    rng = np.random.default_rng(1)
    points = gpd.points_from_xy(rng.uniform(-180, 180, count), rng.uniform(-60, 80, count))
    boxes = shapely.box(points.x - 0.5, points.y - 0.5, points.x + 0.5, points.y + 0.5)
    frame = gpd.GeoDataFrame({"name": np.arange(count).astype(str)}, geometry=boxes, crs="EPSG:4326")
    for name in CLASSES:
        frame[name] = rng.random(count)
    rules = load_recipe().tile_rules
    frame["rules"] = [[rules[number].rule] for number in rng.integers(0, len(rules), count)]
    frame.attrs["rules"] = [{"rule": rule.rule, "class": rule.land_cover} for rule in rules]
    return frame


def pixels(drawn: bytes) -> NDArray[np.int16]:
    """A picture's colours, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(drawn)).convert("RGB")).astype(np.int16)


def where(drawn: bytes, colour: str) -> NDArray[np.bool_]:
    """Where a picture has just this colour."""
    wanted = np.rint(np.array(to_rgb(colour)) * WHOLE)
    return np.asarray((pixels(drawn) == wanted).all(axis=2))


def cell(chain: Chain, platform: str, year: int) -> ChipCell:
    store, key = chain.clay.store(), layout.chip_ledger(platform, year)
    return ChipCell(platform, year, store, decode(store.read(key), key))


def items(chain: Chain, platform: str, year: int) -> list[dict[str, object]]:
    key = layout.table("scene_imagery", platform, year)
    return decode_items(chain.clay.store().read(key), key)


@pytest.mark.parametrize("count", [12, 2_728, 18_000])
def test_maps_fit_the_event_log_however_many_tiles(count: int) -> None:
    frame = tiles(count)
    for png in (land_cover_map(frame), samples.sample_map(frame), maps.tile_map(frame, "tiles")):
        assert png.startswith(b"\x89PNG")
        assert len(png) <= style.MOST_BYTES <= PICTURE_BYTES
        assert pixels(png).shape[1] == style.WIDTH or count > 10_000  # noise; no real dataset is
        assert "data:image/png;base64," in str(picture(png).md_str)


def test_a_picture_that_is_too_large_is_left_out_and_loses_no_run() -> None:
    shown = str(picture(b"x" * (PICTURE_BYTES + 1)).md_str)
    assert "base64" not in shown
    assert "too many for the event log" in shown


def test_colours_of_different_things_can_be_told_apart() -> None:
    outcomes = {*scenes.OUTCOMES.values()}, {*samples.OUTCOMES.values()}
    quarters = set(style.period_colours(["Q1", "Q2", "Q3", "Q4"]).values())
    for colours in (set(style.CATEGORIES), set(style.platform_colours().values()), *outcomes, quarters):
        nearest = min(np.linalg.norm(np.subtract(to_rgb(a), to_rgb(b))) for a, b in combinations(colours, 2))
        assert nearest > 0.2  # of √3
    assert len(set(style.platform_colours().values())) == len(PLATFORMS)
    assert scenes.OUTCOMES["failed"] == samples.OUTCOMES["failed"]
    rules = samples.rule_colours({"core": "Built-up", "all": "Built-up", "trees": "Tree cover"})
    assert rules["core"] == style.CLASS_COLOURS["Built-up"] != rules["all"]
    assert rules["trees"] == style.CLASS_COLOURS["Tree cover"]


def test_a_rare_kind_keeps_its_colour_on_a_crowded_map_with_land_on_it() -> None:
    kinds = ["many"] * 2_999 + ["one"]
    places = tiles(3_000)
    drawn = samples.places_map(places, kinds, "places")
    colours = style.colours_of(["many", "one"])
    bottom = maps.TOP + maps.HEIGHT
    for kind, least in (("one", 1), ("many", 5_000)):
        assert where(drawn, colours[kind])[:bottom].sum() >= least
        assert where(drawn, colours[kind])[bottom:].sum() > 50  # its patch in the legend
    # The map's land is there: a dependency carries it for its own tests, and may stop to.
    assert where(drawn, style.LAND).sum() > 5_000
    # Kinds that are outcomes have the colours of outcomes, and wide tiles are drawn whole.
    wide = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 40, 40), shapely.box(60, 0, 100, 40)], crs="EPSG:4326")
    drawn = samples.places_map(wide, ["complete", "failed"], "tiles")
    assert where(drawn, style.GREEN).sum() > 5_000
    assert where(drawn, style.VERMILION).sum() > 5_000


def test_a_single_bar_is_no_wider_than_one_of_many() -> None:
    ledger = pd.DataFrame(
        {"period": ["survey"] * 5, "outcome": "picked", "item_id": list("abcde"), "cloud_cover": np.nan}
    )
    green = where(scenes.picks_by_period(ledger, "one period, no clouds"), style.GREEN)
    widest = green.sum(axis=1).max()
    assert 20 < widest < style.WIDTH / bars.LEAST_SLOTS
    clouds = ledger.assign(period=["Q1", "Q2", "Q3", "Q4", "Q4"], cloud_cover=[0, 1, 2, 3, 60])
    for colour in style.period_colours(["Q1", "Q2", "Q3", "Q4"]).values():
        assert where(scenes.picks_by_period(clouds, "with clouds"), colour).sum() > 100
    requests = pd.DataFrame({"year": [2012, 2012, 2014], "period": ["M01", "M07", "M07"]})
    drawn = scenes.requests_by_period(requests, "requests")
    july, year = where(drawn, style.period_colours(["M07"])["M07"]), style.WIDTH / bars.LEAST_SLOTS
    across = np.flatnonzero(july[80:300].any(axis=0))
    assert 2 * year - 10 < np.ptp(across) < 3 * year  # 2013 has its place between


def test_composition_weighs_tiles_by_their_valid_area() -> None:
    world = pd.DataFrame({name: [0.0, 0.0, 0.0] for name in CLASSES}).assign(valid_share=[1.0, 0.5, 0.5])
    world["Tree cover"] = [1.0, 0.0, 0.5]
    world["Mangroves"] = [0.0, 1.0, 0.5]
    shares = samples.composition(world.iloc[1:], world)
    assert list(shares.index) == CLASSES
    assert shares.loc["Tree cover"].tolist() == pytest.approx([0.25, 0.625])
    assert shares.loc["Mangroves"].tolist() == pytest.approx([0.75, 0.375])
    assert shares.sum().tolist() == pytest.approx([1, 1])
    drawn = samples.composition_bars(world.iloc[1:], world)
    bar = {name: where(drawn, style.CLASS_COLOURS[name]).sum(axis=1).max() for name in ("Tree cover", "Mangroves")}
    assert bar["Mangroves"] == pytest.approx(3 * bar["Tree cover"], rel=0.05)


def test_nothing_is_a_picture_too(built: Chain) -> None:
    no_tiles = tiles(1).iloc[:0]
    empty = cell(built, "sentinel-2-l2a", 2020)
    empty = ChipCell(empty.platform, empty.year, empty.store, empty.ledger.iloc[:0])
    ledger = pd.DataFrame(columns=["period", "outcome", "item_id", "cloud_cover"])
    for drawn in (
        maps.tile_map(no_tiles, "no tiles"),
        samples.places_map(no_tiles, [], "no places"),
        maps.scene_map([], "no scenes"),
        scenes.requests_by_period(pd.DataFrame(columns=["year", "period"]), "no requests"),
        scenes.picks_by_period(ledger, "no picks"),
        samples.composition_bars(no_tiles, None),
        pictures.cell_map(empty, "no chips"),
        pictures.index_map(pictures.scene_places([empty]), [], "no index"),
        contact_sheet.contact_sheet(empty, [], 1, 256, "no chips"),
    ):
        assert drawn.startswith(b"\x89PNG")
        assert where(drawn, "white").mean() > 0.5


def test_maps_of_chips_count_every_chip_where_it_is(built: Chain) -> None:
    cells = [cell(built, "sentinel-2-l2a", 2020), cell(built, "linz", 2022)]
    stored = cells[0].dataset().to_table().to_pandas()
    counted = pictures.tally(cells[0])
    assert counted.chips.sum() == len(stored)
    for name, column in (("cloud", "cloud_cover_percentage"), ("nodata", "nodata_percentage")):
        tenths = pd.cut(stored[column], [-1, 0, *np.linspace(0.1, 1, 10)]).value_counts(sort=False)
        assert counted.shares[name].tolist() == tenths.tolist()
    corners = pd.DataFrame(stored["bbox"].tolist())
    square = (np.abs(corners["xmin"] - counted.x[0]) < 0.05) & (np.abs(corners["ymin"] - counted.y[0]) < 0.05)
    assert counted.chips[(counted.x == counted.x[0]) & (counted.y == counted.y[0])].sum() == square.sum()

    places = pictures.scene_places(cells)
    footprints = shapely.union_all(
        [shapely.geometry.shape(i["geometry"]) for c in cells for i in items(built, c.platform, c.year)]
    )
    assert places["chips"].sum() == sum(c.ledger["chips"].sum() for c in cells)
    assert shapely.contains_xy(footprints, places["x"], places["y"]).all()
    parts = [{"platform": c.platform, "year": c.year, "rows": int(c.ledger["chips"].sum())} for c in cells]
    drawn = pictures.index_map(places, parts, "two cells")
    for c in cells:
        assert where(drawn, style.platform_colours()[c.platform]).sum() > 100
    assert len(drawn) <= style.MOST_BYTES


@pytest.mark.parametrize(("platform", "year"), [("sentinel-2-l2a", 2020), ("modis", 2023), ("naip", 2021)])
def test_a_contact_sheet_shows_the_pixels_of_its_chips(built: Chain, platform: str, year: int) -> None:
    chosen, scenes, size = cell(built, platform, year), items(built, platform, year), 256
    seed = built.clay.recipe().seed
    sheet = contact_sheet.read_sheet(chosen, scenes, seed, size)
    assert sheet is not None
    assert not sheet.note
    indexed = chosen.scenes.set_index("item_id")["chips"]
    assert len(sheet.frames) == min(contact_sheet.CHIPS, indexed[sheet.item_id])
    assert indexed[sheet.item_id] >= min(contact_sheet.CHIPS, indexed.max())
    shuffled = ChipCell(platform, year, chosen.store, chosen.ledger.iloc[::-1])
    again = contact_sheet.read_sheet(shuffled, scenes[::-1], seed, size)
    assert again is not None
    assert [(f.x, f.y) for f in again.frames] == [(f.x, f.y) for f in sheet.frames]
    assert np.all(np.diff([f.cloud + f.nodata for f in sheet.frames]) >= 0)

    assets = next(item for item in scenes if item["id"] == sheet.item_id)["assets"]
    assert isinstance(assets, dict)
    for frame in sheet.frames:
        assert frame.pixels is not None
        assert frame.valid is not None
        assert 1 - frame.valid.mean() == pytest.approx(frame.nodata, abs=1e-6)
        for shown, (name, band) in zip(frame.pixels, PLATFORMS[platform].assets.view, strict=True):
            with rasterio.open(assets[name]["href"]) as source:
                truth = source.read(band, window=Window(frame.x * size, frame.y * size, size, size))
            assert np.array_equal(shown, truth.astype(np.float32))

    drawn = contact_sheet.contact_sheet(chosen, scenes, seed, size, "chips")
    assert len(drawn) <= style.MOST_BYTES
    assert "data:image/jpeg;base64," in str(picture(drawn).md_str)
    for number, (frame, image) in enumerate(zip(sheet.frames, contact_sheet.images(sheet.frames), strict=True)):
        row, column = divmod(number, contact_sheet.COLUMNS)
        top = contact_sheet.TOP + row * (contact_sheet.FRAME + contact_sheet.LABEL)
        left = style.EDGE + column * (contact_sheet.FRAME + contact_sheet.GAP)
        place = pixels(drawn)[top + 3 : top + contact_sheet.FRAME - 3, left + 3 : left + contact_sheet.FRAME - 3]
        assert image is not None
        assert np.abs(place.mean(axis=(0, 1)) - image[3:-3, 3:-3].mean(axis=(0, 1))).max() < 4
        if frame.nodata == 1:
            assert np.abs(place - np.array(to_rgb(style.NODATA)) * WHOLE).max() < 12


def test_what_cannot_be_read_is_an_empty_frame_and_a_note(built: Chain) -> None:
    chosen, scenes = cell(built, "naip", 2021), items(built, "naip", 2021)
    seed = built.clay.recipe().seed
    gone = copy.deepcopy(scenes)
    for item in gone:
        item["assets"]["image"]["href"] = "/nowhere/gone.tif"  # type: ignore[index]
    sheet = contact_sheet.read_sheet(chosen, gone, seed, 256)
    assert sheet is not None
    assert "gone.tif" in sheet.note
    assert sheet.frames
    assert all(frame.pixels is None for frame in sheet.frames)
    drawn = contact_sheet.contact_sheet(chosen, gone, seed, 256, "chips")
    assert len(drawn) <= style.MOST_BYTES
    absent = contact_sheet.read_sheet(chosen, [], seed, 256)
    assert absent is not None
    assert "no longer among the items" in absent.note
    with pytest.raises(FileNotFoundError):  # our own files are not the source's
        contact_sheet.read_sheet(ChipCell("modis", 2020, chosen.store, chosen.ledger), scenes, seed, 256)
