"""Pictures are small, share one style, and show known numbers and pixels correctly."""

from __future__ import annotations

import copy
import io
from collections.abc import Mapping
from itertools import combinations
from typing import Any

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
from clay_assets.chips.split_map import COLOURS, split_map
from clay_assets.chips.splits import SPLITS, SplitPlan
from clay_assets.demo.planet import Planet
from clay_assets.errors import InputError
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
from clay_assets_tests.chips.made_world import land_cover

CLASSES = list(style.CLASS_COLOURS)
WHOLE = 255


def tiles(count: int) -> gpd.GeoDataFrame:
    """Tiles all over the world, with noisy land cover: the worst case for compression."""
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
    """Where a picture has exactly this colour."""
    wanted = np.rint(np.array(to_rgb(colour)) * WHOLE)
    return np.asarray((pixels(drawn) == wanted).all(axis=2))


def cell(chain: Chain, platform: str, year: int) -> ChipCell:
    store, key = chain.clay.store(), layout.chip_ledger(platform, year)
    return ChipCell(platform, year, store, decode(store.read(key), key))


def items(chain: Chain, platform: str, year: int) -> list[dict[str, Any]]:
    key = layout.table("scene_imagery", platform, year)
    return decode_items(chain.clay.store().read(key), key)


@pytest.mark.slow
@pytest.mark.parametrize("count", [12, 2_728, 18_000])
def test_maps_fit_the_event_log_however_many_tiles(count: int) -> None:
    frame = tiles(count)
    for png in (land_cover_map(frame), samples.sample_map(frame), maps.tile_map(frame, "tiles")):
        assert png.startswith(b"\x89PNG")
        assert len(png) <= style.MOST_BYTES <= PICTURE_BYTES
        assert pixels(png).shape[1] == style.WIDTH or count > 10_000  # noise, unlike real data
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


def test_bars_of_land_cover_are_as_long_as_their_shares() -> None:
    world, chips = np.zeros(len(CLASSES)), np.zeros(len(CLASSES))
    world[CLASSES.index("Cropland")], world[CLASSES.index("Tree cover")] = 0.75, 0.25
    chips[CLASSES.index("Cropland")] = 0.25  # and the rest without land cover
    nothing = np.zeros(len(CLASSES))
    drawn = pictures.composition_picture({"world": world, "chips": chips, "none": nothing}, "land cover")
    colours = style.CLASS_COLOURS
    crops, trees = (where(drawn, colours[name]) for name in ("Cropland", "Tree cover"))
    tall = drawn_rows(crops)
    # Both bars are equally high, so areas are proportional to shares; numbers are above them, legends next to them.
    assert crops[:tall].sum() / trees[:tall].sum() == pytest.approx((0.75 + 0.25) / 0.25, rel=0.1)
    assert not where(drawn, colours["Mangroves"]).any()  # absent classes are not in the legend either
    assert len(drawn) <= style.MOST_BYTES
    assert len(pixels(pictures.composition_picture({"none": nothing}, "land cover"))) < len(pixels(drawn))


def drawn_rows(mask: NDArray[np.bool_]) -> int:
    """The first row below the wide bars; legends are narrow."""
    return int(np.flatnonzero(mask.sum(axis=1) > 40).max()) + 1


@pytest.mark.slow
def test_a_rare_kind_keeps_its_colour_on_a_crowded_map_with_land_on_it() -> None:
    kinds = ["many"] * 2_999 + ["one"]
    places = tiles(3_000)
    drawn = samples.places_map(places, kinds, "places")
    colours = style.colours_of(["many", "one"])
    bottom = maps.TOP + maps.HEIGHT
    for kind, least in (("one", 1), ("many", 5_000)):
        assert where(drawn, colours[kind])[:bottom].sum() >= least
        assert where(drawn, colours[kind])[bottom:].sum() > 50  # its patch in the legend
    assert where(drawn, style.LAND).sum() > 5_000
    # Outcomes have their usual colours, and wide tiles are drawn as polygons.
    wide = gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 40, 40), shapely.box(60, 0, 100, 40)], crs="EPSG:4326")
    drawn = samples.places_map(wide, ["complete", "failed"], "tiles")
    assert where(drawn, style.GREEN).sum() > 5_000
    assert where(drawn, style.VERMILION).sum() > 5_000


def test_the_land_of_the_maps_is_the_worlds() -> None:
    land = shapely.union_all([shapely.Polygon(ring) for ring in maps._land()[0]])
    seas = shapely.union_all([shapely.Polygon(ring) for ring in maps._land()[1]])
    on_land = [(100, 72), (-100, 66), (-175, 66), (175, 68), (25, 67), (20, -20), (135, -17), (-60, -20), (0, -86)]
    at_sea = [(-8, 67), (0, 70), (-120, -16.4), (70, -16.4), (160, -16.4), (160, 75), (-140, 71), (0, 0), (-179, 0)]
    assert shapely.contains_xy(land, *zip(*on_land, strict=True)).all()
    assert not shapely.contains_xy(land, *zip(*at_sea, strict=True)).any()
    assert seas.contains(shapely.Point(51, 42))  # the Caspian Sea
    bounds = land.bounds
    assert (bounds[0], bounds[2]) == (-180, 180)
    assert bounds[1] == -90
    drawn = maps.tile_map(tiles(12), "tiles")
    world = where(drawn, style.LAND)[maps.TOP : maps.TOP + maps.HEIGHT, maps.LEFT : style.WIDTH - maps.RIGHT]
    assert 0.25 < world.mean() < 0.4


@pytest.mark.slow
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
    assert 2 * year - 10 < np.ptp(across) < 3 * year  # 2013 keeps its slot in between


def test_composition_weighs_tiles_by_their_valid_area() -> None:
    world = pd.DataFrame({name: [0.0, 0.0, 0.0] for name in CLASSES}).assign(valid_share=[1.0, 0.5, 0.5])
    world["Tree cover"] = [1.0, 0.0, 0.5]
    world["Mangroves"] = [0.0, 1.0, 0.5]
    shares = samples.composition(world.iloc[1:], world)
    assert list(shares.index) == CLASSES
    assert shares.loc["Tree cover"].to_numpy().tolist() == pytest.approx([0.25, 0.625])
    assert shares.loc["Mangroves"].to_numpy().tolist() == pytest.approx([0.75, 0.375])
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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_scene_that_cannot_be_drawn_is_not_on_the_map() -> None:
    ring = [[6, 0], [7, 0], [7, 1], [6, 0]]
    items = [
        {"id": "a", "properties": {"datetime": "2020-02-01T00:00:00Z"}, "geometry": geometry}
        for geometry in (
            {"type": "Polygon", "coordinates": [ring]},
            {"type": "Polygon", "coordinates": [[*ring[:2], [float("nan"), 1], ring[0]]]},
            {"type": "Polygon", "coordinates": [ring[:2]]},
            {"type": "Polygon", "coordinates": []},
            {"type": "Polygon"},
            None,
        )
    ]
    assert maps.scene_map(items, "odd footprints").startswith(b"\x89PNG")
    assert maps.scene_map(items[2:], "none can be drawn").startswith(b"\x89PNG")


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


# Approximate reflectance in red, green and blue, from the USGS Spectral Library, version 7.
WOODS, WATERS, SOIL, CLOUD = (0.024, 0.046, 0.021), (0.012, 0.028, 0.046), (0.19, 0.14, 0.10), (0.76, 0.77, 0.78)
GAIN_AND_OFFSET = {
    "sentinel-2": ((10_000, 10_000, 10_000), (0, 0, 0)),
    "landsat level 2": ((36_364, 36_364, 36_364), (7_273, 7_273, 7_273)),
    "landsat level 1 through haze": ((36_000, 36_000, 36_000), (5_430, 5_780, 6_450)),
    "aerial through haze": ((150, 150, 150), (40, 60, 75)),
}


def chip_of(kinds: Mapping[str, tuple[float, ...]], sensor: str, *, cloud: str = "") -> contact_sheet.Frame:
    """A noisy chip with stripes of several surface types, as a sensor would store it."""
    rng = np.random.default_rng(7)
    gain, offset = (np.array(values)[:, None, None] for values in GAIN_AND_OFFSET[sensor])
    side = 256 // len(kinds)
    ground = np.concatenate(
        [np.broadcast_to(np.array(k)[:, None, None], (3, side, 256)) for k in kinds.values()], axis=1
    )
    stored = ground * rng.normal(1, 0.06, ground.shape[1:]) * gain + offset
    clear = np.repeat([name != cloud for name in kinds], side)[:, None] & np.ones(256, np.bool_)
    return contact_sheet.Frame(0, 0, 0, 0, stored.astype(np.float32), np.ones_like(clear), clear)


def colours_of(frame: contact_sheet.Frame, count: int) -> list[NDArray[np.float64]]:
    """The median colour of each stripe of a rendered chip."""
    (image,) = contact_sheet.images([frame])
    assert image is not None
    side = contact_sheet.FRAME // count
    return [np.median(image[n * side + 3 : (n + 1) * side - 3], axis=(0, 1)) for n in range(count)]


@pytest.mark.parametrize("sensor", GAIN_AND_OFFSET)
def test_contact_sheets_have_true_colours(sensor: str) -> None:
    kinds = {"woods": WOODS, "water": WATERS, "soil": SOIL, "cloud": CLOUD}
    aerial = "aerial" in sensor  # aerial images are taken below clouds, and contain white roofs
    woods, water, soil, cloud = colours_of(chip_of(kinds, sensor, cloud="" if aerial else "cloud"), len(kinds))
    assert woods[1] > woods[0] + 10
    assert woods[1] > woods[2] + (0 if aerial else 10)
    assert water[2] > water[1] > water[0] - 1
    assert water[2] > water[0] + 20
    # Thick haze cannot be fully separated from the ground: soil stored as blue is at least grey.
    assert np.ptp(soil) < 10 if aerial else soil[0] > soil[1] > soil[2]
    assert cloud.min() > (200 if aerial else 250)
    assert woods.mean() < 130  # nor is it black
    assert woods.max() > 30
    assert soil.mean() > woods.mean() + 40


@pytest.mark.parametrize("sensor", ["sentinel-2", "landsat level 2"])
def test_a_sheet_of_one_kind_of_ground_keeps_its_colour_and_is_not_garish(sensor: str) -> None:
    (woods,), (water,), (snow,) = (
        colours_of(chip_of({"it": kind}, sensor), 1) for kind in (WOODS, WATERS, (0.84, 0.86, 0.87))
    )
    assert woods.argmax() == 1
    assert water.argmax() == 2
    assert np.ptp(snow) < 50
    for shown in (woods, water):
        assert 20 < np.ptp(shown) < 150
        assert 40 < shown.mean() < 190


@pytest.mark.parametrize("platform", ["sentinel-2-l2a", "landsat-c2l1", "landsat-c2l2-sr"])
def test_scenes_of_the_planet_that_are_indexed_show_the_clouds_that_are_counted(built: Chain, platform: str) -> None:
    found = items(built, platform, 2021)
    cloudy = [item for item in found if 0 < item["properties"]["eo:cloud_cover"] <= 50]
    assert len(cloudy) > len(found) / 3
    for item in cloudy:
        assert f"/{item['id']}/" in item["assets"]["red"]["href"]


def test_backscatter_is_grey_in_decibels() -> None:
    power = np.repeat(10.0 ** np.linspace(-2.5, 0, 256)[None], 256, axis=0)[None].astype(np.float32)
    power[0, 0] = 0  # as some software writes for nodata
    all_of_it = np.ones((256, 256), np.bool_)
    (image,) = contact_sheet.images([contact_sheet.Frame(0, 0, 0, 0, power, all_of_it, all_of_it)])
    assert image is not None
    assert (image == image[:, :, :1]).all()
    steps = np.diff(image[80, 10:-10, 0].astype(int))
    assert steps.min() >= 1
    assert steps.max() <= 3


def test_a_sheet_of_the_planet_shows_water_plants_and_clouds_as_they_are(built: Chain) -> None:
    seen: dict[str, list[NDArray[np.float64]]] = {"water": [], "plants": [], "clouds": []}
    chosen, scenes, size = cell(built, "sentinel-2-l2a", 2021), items(built, "sentinel-2-l2a", 2021), 256
    for item_id in chosen.scenes["item_id"].iloc[::4]:
        alone = ChipCell(chosen.platform, chosen.year, chosen.store, chosen.ledger[chosen.ledger["item_id"] == item_id])
        sheet = contact_sheet.read_sheet(alone, scenes, built.clay.recipe().seed, size)
        assert sheet is not None
        drawn = pixels(contact_sheet.contact_sheet(alone, scenes, built.clay.recipe().seed, size, "chips"))
        assets = next(item for item in scenes if item["id"] == item_id)["assets"]
        assert isinstance(assets, dict)
        with rasterio.open(assets["scl"]["href"]) as source:
            scl = source.read(1)
        for number, frame in enumerate(sheet.frames):
            row, column = divmod(number, contact_sheet.COLUMNS)
            top = contact_sheet.TOP + row * (contact_sheet.FRAME + contact_sheet.LABEL)
            left = style.EDGE + column * (contact_sheet.FRAME + contact_sheet.GAP)
            shown = drawn[top : top + contact_sheet.FRAME, left : left + contact_sheet.FRAME]
            codes = Image.fromarray(scl[frame.y * 128 : (frame.y + 1) * 128, frame.x * 128 : (frame.x + 1) * 128])
            judged = np.asarray(codes.resize((contact_sheet.FRAME, contact_sheet.FRAME), Image.Resampling.NEAREST))
            for what, code in (("water", 6), ("plants", 4), ("clouds", 9)):
                seen[what].append(shown[judged == code].astype(float))
    red, green, blue = np.concatenate(seen["water"]).T
    assert (blue > red + 10).mean() > 0.8
    red, green, blue = np.concatenate(seen["plants"]).T
    assert np.median(green - red) > 5
    assert np.median(green - blue) > 15
    clouds = np.concatenate(seen["clouds"])
    assert len(clouds) > 5_000
    assert (clouds.min(axis=1) > 200).mean() > 0.8


@pytest.mark.parametrize(("platform", "year"), [("sentinel-2-l2a", 2020), ("modis", 2023), ("naip", 2021)])
def test_a_contact_sheet_shows_the_pixels_of_its_chips(built: Chain, planet: Planet, platform: str, year: int) -> None:
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
    offset = int(planet.radiometry().set_index("item_id").offset.get(sheet.item_id, 0))
    for frame in sheet.frames:
        assert frame.pixels is not None
        assert frame.valid is not None
        assert 1 - frame.valid.mean() == pytest.approx(frame.nodata, abs=1e-6)
        for shown, (name, band) in zip(frame.pixels, PLATFORMS[platform].assets.view, strict=True):
            with rasterio.open(assets[name]["href"]) as source:
                truth = source.read(band, window=Window(frame.x * size, frame.y * size, size, size))
            harmonised = np.where(truth == 0, 0, np.maximum(truth.astype(int) - offset, 1)) if offset else truth
            assert np.array_equal(shown, harmonised.astype(np.float32))

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
        item["assets"]["image"]["href"] = "/nowhere/gone.tif"
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
    with pytest.raises(InputError, match="cannot be read"):  # our own files, not the source's
        contact_sheet.read_sheet(ChipCell("modis", 2020, chosen.store, chosen.ledger), scenes, seed, 256)


@pytest.mark.slow
def test_the_map_of_splits_shows_every_block_and_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clay_assets.chips.splits.DRAWS", 1)  # any splits will do
    plan = SplitPlan.of(load_recipe(), land_cover(step=4))
    drawn = split_map(plan, "splits")
    assert len(drawn) <= style.MOST_BYTES
    assert pixels(drawn).shape[1] == style.WIDTH
    top, bottom = slice(maps.TOP + 5, maps.TOP + maps.HEIGHT - 5), slice(maps.TOP + maps.HEIGHT + 25, None)
    west, south, east, north = plan.ground.grid.bounds().T
    degrees = (east - west) * (np.minimum(north, 85) - np.maximum(south, -90)).clip(0)
    inside = {name: where(drawn, colour)[top].sum() for name, colour in COLOURS.items()}
    for code, name in enumerate(SPLITS):
        share = degrees[plan.ground.codes == code].sum() / degrees.sum()
        assert inside[name] / sum(inside.values()) == pytest.approx(share, abs=0.04), name  # coasts are drawn on top
        assert where(drawn, COLOURS[name])[bottom].sum() > 50, name  # its patch in the legend
    nearest = min(np.linalg.norm(np.subtract(to_rgb(a), to_rgb(b))) for a, b in combinations(COLOURS.values(), 2))
    assert nearest > 0.2
