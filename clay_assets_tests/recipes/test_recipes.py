"""The recipes match the published tables, and messages about mistakes name file, rule and field."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from clay_assets.errors import InputError
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import load_recipe

# The Clay model documentation, "Training Data": class, number of tiles, from highest.
CLAY_V1 = [
    ("Diversity", 400, 2000),
    ("Built-up", 300, 300),
    ("Built-up", 1000, 1500),
    ("Herbaceous wetland", 50, 500),
    ("Mangroves", 50, 500),
    ("Moss and lichen", 50, 500),
    ("Cropland", 800, 3600),
    ("Tree cover", 150, 750),
    ("Shrubland", 100, 500),
    ("Grassland", 200, 500),
    ("Bare / sparse vegetation", 50, 500),
    ("Snow and Ice", 25, 500),
    ("Permanent water bodies", 50, 1000),
]
CLAY_V0_1 = [
    ("Diversity", 500, 3000),
    ("Built-up", 400, 400),
    ("Herbaceous wetland", 50, 500),
    ("Mangroves", 50, 500),
    ("Moss and lichen", 50, 500),
    ("Cropland", 100, 500),
    ("Tree cover", 100, 500),
    ("Shrubland", 50, 500),
    ("Grassland", 50, 500),
    ("Bare / sparse vegetation", 50, 500),
    ("Snow and Ice", 50, 500),
    ("Permanent water bodies", 100, 1000),
]

SMALL = """\
name = "mine"
seed = 7

[[tile_rules]]
rule = "towns"
class = "Built-up"
tiles = 3
from_highest = 5

[[tile_rules]]
rule = "woods"
class = "Tree cover"
tiles = 2
from_highest = 2

[platforms.sentinel-2-l2a]
years = [2019, 2020]
"""


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SMALL)
    return path


def mistake(path: Path, old: str, new: str) -> str:
    """The message for the small recipe after one change."""
    assert old in SMALL
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    return str(caught.value)


@pytest.mark.parametrize(("name", "table"), [("clay_v1", CLAY_V1), ("clay_v0_1", CLAY_V0_1)])
def test_tables_are_those_of_the_specification(name: str, table: list[tuple[str, int, int]]) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert [(rule.land_cover, rule.tiles, rule.from_highest) for rule in recipe.tile_rules] == table


@pytest.mark.parametrize("name", ["clay_v1", "clay_v0_1"])
def test_choices_for_the_platforms(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.chip_size == 256
    sentinel = recipe.options("sentinel-2-l2a")
    assert (sentinel.years, sentinel.years_per_location, sentinel.quarters) == ((2018, 2023), 2, (1, 2, 3, 4))
    assert (sentinel.max_cloud_cover, sentinel.max_scene_nodata, sentinel.max_chip_nodata) == (75, 20, 0.5)
    for level in ("landsat-c2l1", "landsat-c2l2-sr"):
        landsat = recipe.options(level)
        assert (landsat.years, landsat.years_per_location, landsat.quarters) == ((2018, 2023), 1, (1, 2, 3, 4))
        assert (landsat.max_cloud_cover, landsat.min_sun_elevation, landsat.max_chip_nodata) == (75, 0, 0)
    radar = recipe.options("sentinel-1-rtc")
    assert (radar.years, radar.years_per_location, radar.quarters_per_year) == ((2018, 2023), 1, 1)
    naip = recipe.options("naip")
    assert (naip.years, naip.random_points, naip.source) == ((2010, 2023), 4000, "planetary-computer")
    linz = recipe.options("linz")
    assert (linz.share, linz.min_scenes, linz.max_scenes, linz.gsd) == (0.5, 10, 2000, 0.3)
    modis = recipe.options("modis")
    assert (modis.years, modis.months, modis.tiles) == ((2018, 2023), tuple(range(1, 13)), "computed")
    assert (str(modis.reference_date), modis.reference_band) == ("2023-09-22", "sur_refl_b01")
    anew = {"linz", "modis"}
    assert {key: recipe.options(key).imagery for key in PLATFORMS} == {
        key: "derived" if key in anew else "reference" for key in PLATFORMS
    }


def test_clay_v1_carries_what_was_published(real_data: Path) -> None:
    recipe = load_recipe("clay_v1")
    surveys = (real_data / "published" / "linz_surveys.txt").read_text().split()
    assert list(recipe.options("linz").surveys) == surveys
    tiles = [tuple(map(int, line.split(","))) for line in csv_lines(real_data / "published" / "modis_sin_tiles.csv")]
    assert list(recipe.options("modis").published_tiles) == tiles
    published = recipe.published
    assert len(surveys) == 39
    assert len(tiles) == published["modis"].locations == 233
    assert published["modis"].requests == 233 * 72 == 16_776
    assert published["sentinel-2-l2a"].requests == 2728 * 2 * 4
    assert sum(one.chips or 0 for one in published.values()) == 72_069_364


def csv_lines(path: Path) -> list[str]:
    return path.read_text().splitlines()[1:]


def test_published_counts_of_a_platform_that_does_not_exist(recipe_file: Path) -> None:
    recipe_file.write_text(SMALL + "\n[published.landsat]\nchips = 1\n")
    with pytest.raises(InputError, match="published: landsat: unknown platform"):
        load_recipe(recipe_file)


@pytest.mark.parametrize("name", ["clay_v1", "clay_v0_1"])
def test_packaged_files_spell_every_platform_field_out(name: str) -> None:
    content = tomllib.loads((resources.files("clay_assets.recipes") / f"{name}.toml").read_text(encoding="utf-8"))
    for key, platform in PLATFORMS.items():
        assert set(content["platforms"][key]) == set(platform.rules.options.model_fields)


@pytest.mark.slow
def test_a_built_in_recipe_needs_no_file_of_its_own(tmp_path: Path) -> None:
    code = "from clay_assets.recipes import load_recipe; print(load_recipe().hash)"
    told = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == load_recipe("clay_v1").hash


def test_ones_own_recipe_by_path_with_defaults_for_the_rest(recipe_file: Path) -> None:
    recipe = load_recipe(str(recipe_file))
    assert recipe == load_recipe(recipe_file)
    assert (recipe.name, recipe.seed, recipe.chip_size) == ("mine", 7, 256)
    assert recipe.options("sentinel-2-l2a").years == (2019, 2020)
    assert recipe.options("sentinel-2-l2a").max_cloud_cover == 75
    assert recipe.options("landsat-c2l1").years == (2018, 2023)


def test_a_recipe_without_platforms_takes_their_defaults(recipe_file: Path) -> None:
    recipe_file.write_text(SMALL.split("[platforms")[0])
    assert set(load_recipe(recipe_file).platforms) == set(PLATFORMS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("seed = 7", "seed = 8"),
        ('name = "mine"', 'name = "yours"'),
        ("seed = 7", "seed = 7\nchip_size = 128"),
        ("seed = 7", "seed = 7\ntolerance = {failed_scenes = 0.5}"),
        ("tiles = 3", "tiles = 4"),
        ("from_highest = 5", "from_highest = 6"),
        ('class = "Tree cover"', 'class = "Grassland"'),
        ('rule = "woods"', 'rule = "forests"'),
        ("years = [2019, 2020]", "years = [2019, 2021]"),
        ("years = [2019, 2020]", "years = [2019, 2020]\nmax_cloud_cover = 74"),
        ("years = [2019, 2020]", 'years = [2019, 2020]\nimagery = "copy"'),
        ("[platforms.sentinel-2-l2a]", "[platforms.landsat-c2l1]\nmax_chip_nodata = 0.1\n[platforms.sentinel-2-l2a]"),
    ],
)
def test_the_hash_changes_with_any_choice(recipe_file: Path, old: str, new: str) -> None:
    before = load_recipe(recipe_file).hash
    recipe_file.write_text(SMALL.replace(old, new, 1))
    assert load_recipe(recipe_file).hash != before


def test_the_hash_is_of_choices_not_of_their_spelling(recipe_file: Path) -> None:
    before = load_recipe(recipe_file)
    spelt = SMALL.replace("seed = 7", "# why seven?\nseed=7\nchip_size = 256", 1)
    recipe_file.write_text(spelt.replace("[2019, 2020]", "[2019, 2020]\nmax_cloud_cover = 75.0"))
    assert load_recipe(recipe_file).hash == before.hash
    stamp = before.stamp()
    assert stamp["recipe_hash"] == before.hash
    assert len(before.hash) == 16
    assert {"recipe_name", "recipe", "software_version"} < set(stamp)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('class = "Built-up"', 'class = "Built up"', ("tile rule 1 (towns)", "class", "'Built up': unknown class")),
        ("tiles = 3", "tiles = 6", ("tile rule 1 (towns)", "tiles 6 is more than from_highest 5")),
        ("tiles = 2", "tils = 2", ("tile rule 2 (woods)", "tils: no such field", "tiles: Field required")),
        ("tiles = 2", "tiles = 0", ("tile rule 2 (woods), tiles: ", "greater than or equal to 1")),
        ("tiles = 2", 'tiles = "two"', ("tile rule 2 (woods), tiles: ", "valid integer")),
        ("tiles = 2", "tiles = 1.5", ("tile rule 2 (woods), tiles: ", "valid integer")),
        ('rule = "woods"\n', "", ("tile rule 2 (unnamed), rule: Field required",)),
        ('rule = "woods"', 'rule = "towns"', ("rule towns occurs twice",)),
        ("seed = 7", "sede = 7", ("sede: no such field", "seed: Field required")),
        ("seed = 7", "seed = -1", ("seed: ",)),
        ("seed = 7", "seed = 7\nchip_size = 8", ("chip_size: ",)),
        ("seed = 7", "seed = 7\ntolerance = {failed_scenes = 2}", ("tolerance, failed_scenes: ",)),
        ("[platforms.sentinel-2-l2a]", "[platforms.sentinel-2]", ("platforms: sentinel-2: unknown platform",)),
        ("years = [", "yaers = [", ("platforms: sentinel-2-l2a, yaers: no such field",)),
        ("[2019, 2020]", "[2020, 2019]", ("sentinel-2-l2a", "years [2020, 2019]: the first is after the last")),
        ("[2019, 2020]", "[2019]", ("platforms: sentinel-2-l2a, years",)),
        ("[2019, 2020]", "[2019, 2020]\nyears_per_location = 3", ("years_per_location 3 is more than the 2 years",)),
        ("[2019, 2020]", "[2019, 2020]\nquarters = [1, 5]", ("quarters [1, 5]",)),
        ("[2019, 2020]", "[2019, 2020]\nquarters = [1, 1]", ("quarters [1, 1]",)),
        ("[2019, 2020]", "[2019, 2020]\nquarters = []", ("sentinel-2-l2a, quarters",)),
        ("[2019, 2020]", "[2019, 2020]\nmax_cloud_cover = 101", ("sentinel-2-l2a, max_cloud_cover",)),
        ("[2019, 2020]", "[2019, 2020]\nmax_cloud_cover = nan", ("sentinel-2-l2a, max_cloud_cover",)),
        ("[2019, 2020]", '[2019, 2020]\nimagery = "move"', ("sentinel-2-l2a, imagery", "'reference' or 'copy'")),
        ("[2019, 2020]", "[2019, 2020]\nmin_sun_elevation = 3", ("sentinel-2-l2a, min_sun_elevation: no such",)),
        ("seed = 7", "seed = ", ("not valid TOML", "line 2")),
    ],
)
def test_each_mistake_is_told_by_file_rule_and_field(
    recipe_file: Path, old: str, new: str, told: tuple[str, ...]
) -> None:
    said = mistake(recipe_file, old, new)
    assert str(recipe_file) in said
    for words in told:
        assert words in said


def test_all_mistakes_are_told_at_once(recipe_file: Path) -> None:
    said = mistake(recipe_file, SMALL, SMALL.replace("tiles = 3", "tiles = 6").replace("tiles = 2", "tiles = 0"))
    assert "2 mistake(s)" in said
    assert "towns" in said
    assert "woods" in said


@pytest.mark.parametrize("platforms", ["platforms = 3", "platforms = ['sentinel-2-l2a']"])
def test_platforms_that_are_no_table(recipe_file: Path, platforms: str) -> None:
    said = mistake(recipe_file, SMALL, f"{platforms}\n{SMALL.split('[platforms')[0]}")
    assert "platforms: " in said


@pytest.mark.parametrize(
    "rules", ["tile_rules = 3", "tile_rules = []", "tile_rules = [3]", "tile_rules = {rule = 'a'}"]
)
def test_rules_that_are_no_rules(recipe_file: Path, rules: str) -> None:
    assert "tile" in mistake(recipe_file, SMALL, f'name = "x"\nseed = 1\n{rules}\n')


def test_a_recipe_that_begins_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = (resources.files("clay_assets.recipes") / "clay_v1.toml").read_text(encoding="utf-8")
    (tmp_path / "marked.toml").write_text(text.replace("\n", "\r\n"), encoding="utf-8-sig")
    assert load_recipe(tmp_path / "marked.toml").hash == load_recipe("clay_v1").hash


def test_a_recipe_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clay_v2.*neither clay_v1 nor clay_v0_1 nor a readable file"):
        load_recipe("clay_v2")
    with pytest.raises(InputError, match="nor a readable file"):
        load_recipe(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"not UTF-8 text .*Save it as UTF-8"):
        load_recipe(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("years = [2018, 2023]", "years = [2005, 2006]", "outside the partitions 2010 to"),
        ("years = [2018, 2023]", "years = [2018, 2940]", "outside the partitions 2010 to"),
        ("chip_size = 256", "chip_size = 255", "chip_size"),
        ("seed = 42", 'seed = "42"', "seed"),
        ("tiles = 300", "tiles = true", "tile rule 2 (built_up_core), tiles"),
    ],
)
def test_values_that_could_only_fail_later_are_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    text = (resources.files("clay_assets.recipes") / "clay_v1.toml").read_text(encoding="utf-8")
    path = tmp_path / "recipe.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError, match=re.escape(said)):
        load_recipe(path)


@pytest.mark.parametrize("name", ["clay_v1", "clay_v0_1"])
def test_choices_for_the_splits(name: str) -> None:
    splits = load_recipe(name).splits
    assert splits.shares == {"train": 90, "validate": 5, "test": 5}
    assert (splits.distance_km, splits.block_km) == (5, 800)
    assert [region.name for region in splits.regions] == ["conus", "new_zealand"]
    west, south, east, north = (
        pick(corner[axis] for region in splits.regions[:1] for corner in region.outline)
        for pick, axis in ((min, 0), (min, 1), (max, 0), (max, 1))
    )
    assert (-125 < west < -124, 24 < south < 26, -67 < east < -66, north == 49) == (True,) * 4


REGION = "[[splits.regions]]\nname = 'here'\nblock_km = 400\noutline = [[0, 0], [9, 0], [9, 9]]\n"


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("shares = { train = 80, validate = 5, test = 5 }", "splits, shares: .*sum to 90, not 100 percent"),
        ("shares = { train = 90, validate = 10 }", "splits, shares: test is missing; use 0 for an empty split"),
        ("shares = { train = 0, validate = 50, test = 50 }", "splits, shares: train is 0; "),
        ("shares = { train = 110, validate = -5, test = -5 }", "splits, shares, train: .*less than or equal to 100"),
        ("shares = { train = nan, validate = 5, test = 5 }", "splits, shares"),
        (
            "shares = { train = 90, validate = 5, dev = 5 }",
            "splits, shares: dev: unknown split; known: train, ",
        ),
        (
            "block_km = 120",
            r"block_km 120 is not larger than a MODIS chip \(128 km\) and distance_km \(5 km\) together",
        ),
        ("block_km = 131\ndistance_km = 3", "block_km 131 is not larger than a MODIS chip"),
        ("block_km = 500\ndistance_km = 600", "Make the blocks larger"),
        ("block_km = 9000", "block_km 9000 is too large for three blocks on Earth"),
        ("block_km = -1", "splits, block_km: .*greater than 0"),
        ("block_km = inf", "splits, block_km: .*finite"),
        ("distance_km = -1", "splits, distance_km: .*greater than or equal to 0"),
        ("distance_km = nan", "splits, distance_km"),
        ("blocks = 500", "splits, blocks: no such field; check the spelling"),
        (REGION.replace("400", "300"), "region here: block_km 300 does not divide 800; use 800 / 2, / 3"),
        (REGION.replace("400", "100"), "region here, block_km 100 is not larger than a MODIS chip"),
        (REGION.replace("400", "1600"), "region here: block_km 1600 does not divide 800"),
        (REGION + REGION, "region here occurs twice"),
        (REGION.replace("[9, 9]", "[9, 99]"), r"\[9.0, 99.0\] is not a valid longitude"),
        (REGION.replace(", [9, 9]", ""), "splits, regions, 0, outline"),
    ],
)
def test_splits_that_cannot_be_are_refused_when_the_recipe_is_loaded(recipe_file: Path, table: str, said: str) -> None:
    recipe_file.write_text(f"{SMALL}\n[splits]\n{table}\n")
    with pytest.raises(InputError, match=said):
        load_recipe(recipe_file)


def test_splits_may_have_no_test_and_no_distance(recipe_file: Path) -> None:
    recipe_file.write_text(f"{SMALL}\n[splits]\nshares = {{ train = 95, validate = 5, test = 0 }}\ndistance_km = 0\n")
    assert load_recipe(recipe_file).splits.shares["test"] == 0
