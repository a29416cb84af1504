"""What is published, planned and there, on stores that were made by hand, so that every number is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest
import shapely
from clay_assets.reconciliation.accounts.accounts import Account, disagreements, main, reconcile, records

from clay_assets.chips.merge import Part
from clay_assets.errors import InputError, StorageError
from clay_assets.platforms import PLATFORMS
from clay_assets.recipes import Recipe, load_recipe
from clay_assets.scenes.requests import make_requests
from clay_assets.storage import layout
from clay_assets.storage.geoparquet import encode
from clay_assets.storage.stores import LocalStore

S1, S2, MODIS = "sentinel-1-rtc", "sentinel-2-l2a", "modis"
TILES = ("32NLG", "32NLH", "32NKG")
RECIPE = """
name = "small"
seed = 7

[[tile_rules]]
rule = "built_up"
class = "Built-up"
tiles = 3
from_highest = 3

[platforms.sentinel-2-l2a]
years = [2020, 2021]
years_per_location = 2

[platforms.sentinel-1-rtc]
years = [2020, 2020]
"""


def tiles(names: tuple[str, ...]) -> gpd.GeoDataFrame:
    """A sample of MGRS tiles of these names, all in one place."""
    return gpd.GeoDataFrame({"name": list(names)}, geometry=[shapely.box(6, 0, 7, 1)] * len(names), crs="EPSG:4326")


@dataclass
class Made:
    """A store whose tables are made by hand, and a recipe."""

    folder: Path
    recipe_file: Path

    @property
    def store(self) -> LocalStore:
        return LocalStore(self.folder)

    @property
    def recipe(self) -> Recipe:
        return load_recipe(str(self.recipe_file))

    def change(self, *changes: tuple[str, str], published: str = "") -> None:
        """Rewrite the recipe."""
        text = self.recipe_file.read_text()
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        self.recipe_file.write_text(text + published)

    def request(self, platform: str, sample: gpd.GeoDataFrame | None = None) -> pd.DataFrame:
        """Write a platform's requests, and return them."""
        table = make_requests(PLATFORMS[platform], tiles(TILES) if sample is None else sample, self.recipe)
        self.store.write(layout.table("scene_requests", platform), encode(table, {}))
        return table

    def answer(self, platform: str, year: int, scenes: Mapping[str, str | None], failed: tuple[str, ...] = ()) -> None:
        """Write a ledger: request → the scene it got, None for none, and those that failed."""
        rows = [(name, "picked" if item else "none", item) for name, item in scenes.items()]
        rows += [(name, "failed", None) for name in failed]
        frame = pd.DataFrame(rows, columns=["request_id", "outcome", "item_id"]).astype("string")
        self.store.write(layout.request_ledger(platform, year), encode(frame, {}))

    def copy(self, platform: str, year: int, sizes: Mapping[str, int]) -> None:
        """Write a ledger of imagery: scene → bytes in our storage."""
        frame = pd.DataFrame({"item_id": list(sizes), "bytes": list(sizes.values())})
        self.store.write(layout.imagery_ledger(platform, year), encode(frame, {}))

    def index(self, platform: str, year: int, chips: Mapping[str, int], failed: tuple[str, ...] = ()) -> None:
        """Write a ledger of chips: scene → chips, and scenes that failed."""
        rows = [(name, "indexed", count) for name, count in chips.items()] + [(name, "failed", 0) for name in failed]
        frame = pd.DataFrame(rows, columns=["item_id", "outcome", "chips"])
        self.store.write(layout.chip_ledger(platform, year), encode(frame, {}))

    def merge(self, rows: Mapping[tuple[str, int], int]) -> None:
        """Write the manifest of a merged index: platform and year → chips."""
        parts = [asdict(Part(key, year, "", count, 1, 1, "", "")) for (key, year), count in rows.items()]
        self.store.write(layout.MANIFEST, json.dumps({"partitions": parts}).encode())

    def accounts(self) -> dict[str, Account]:
        return {account.platform: account for account in reconcile(self.store, self.recipe)}

    def said(self) -> list[str]:
        return disagreements(reconcile(self.store, self.recipe), self.recipe.tolerance.published)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    path = tmp_path / "small.toml"
    path.write_text(RECIPE)
    return Made(tmp_path / "clay", path)


@pytest.fixture
def done(made: Made) -> Made:
    """Sentinel-2 from the requests to the merged index: 12 requests and 2 scenes in each of two years."""
    for year, requests in made.request(S2).groupby("year"):
        names = requests["request_id"].tolist()
        assert len(names) == 12
        scenes = {name: f"{year}-{'a' if number < 3 else 'b'}" for number, name in enumerate(names[:5])}
        made.answer(S2, int(year), {**scenes, **dict.fromkeys(names[5:])})
        made.copy(S2, int(year), {f"{year}-a": 700, f"{year}-b": 900})
        made.index(S2, int(year), {f"{year}-a": 1000, f"{year}-b": 500})
    made.merge({(S2, 2020): 1500, (S2, 2021): 1500})
    return made


def numbers(account: Account) -> dict[str, tuple[int | None, int | None, int | None]]:
    return {count.quantity: (count.published, count.planned, count.there) for count in account.counts}


def test_nothing_is_made(made: Made) -> None:
    made.change(published="\n[published.sentinel-2-l2a]\nlocations = 5\nrequests = 40\nchips = 900\n")
    accounts = made.accounts()
    assert list(accounts) == list(PLATFORMS)
    assert numbers(accounts[S2]) == {
        "locations": (5, None, None),
        "requests": (40, None, 0),
        "scenes": (40, None, 0),
        "chips": (900, None, 0),
        "bytes to read": (None, None, None),
        "bytes to copy": (None, None, 0),
    }
    assert numbers(accounts["naip"])["requests"] == (None, None, 0)
    assert made.said() == []


def test_requests_alone_tell_the_plan(made: Made) -> None:
    made.request(S2)
    made.request(S1)
    accounts = made.accounts()
    # Sentinel-2: 3 tiles × 2 years × 4 quarters; 42 × 42 chips of 256 in 10,980 pixels; SCL has a quarter as many.
    assert numbers(accounts[S2]) == {
        "locations": (None, 3, None),
        "requests": (None, 24, 0),
        "scenes": (None, 24, 0),
        "chips": (None, 24 * 42 * 42, 0),
        "bytes to read": (None, 24 * 5490 * 5490, None),
        "bytes to copy": (None, 0, 0),
    }
    # Sentinel-1: one quarter of one year; 82 × 112 chips in 21,200 × 28,900 pixels; VV and VH are float32.
    assert numbers(accounts[S1]) == {
        "locations": (None, 3, None),
        "requests": (None, 3, 0),
        "scenes": (None, 3, 0),
        "chips": (None, 3 * 82 * 112, 0),
        "bytes to read": (None, 3 * 21200 * 28900 * 2 * 4, None),
        "bytes to copy": (None, 0, 0),
    }
    assert made.said() == [
        "sentinel-1-rtc: 0 of 3 requests were answered",
        "sentinel-2-l2a: 0 of 24 requests were answered",
    ]


def test_larger_chips_are_fewer(made: Made) -> None:
    made.change(("seed = 7", "seed = 7\nchip_size = 512"))
    made.request(S2)
    assert made.accounts()[S2]["chips"].planned == 24 * 21 * 21


def test_bytes_follow_the_policy_of_imagery(made: Made) -> None:
    made.change(("years_per_location = 2", 'years_per_location = 2\nimagery = "copy"'))
    made.request(S2)
    sample = tiles(("h18v04",)).assign(vertical=4, horizontal=18)
    made.request(MODIS, sample)
    accounts = made.accounts()
    pixels = 24 * 10980 * 10980
    assert accounts[S2]["bytes to read"].planned == pixels // 4
    # Four bands of two bytes at 10 m, six at 20 m, and SCL of one.
    assert accounts[S2]["bytes to copy"].planned == pixels * 4 * 2 + pixels // 4 * (6 * 2 + 1)
    # MODIS, 72 months: seven bands int16, QC uint32, state uint16, read to be made anew; then red and quality again.
    pixels = 72 * 2400 * 2400
    assert accounts[MODIS]["requests"].planned == 72
    assert accounts[MODIS]["bytes to copy"].planned == pixels * (7 * 2 + 4 + 2)
    assert accounts[MODIS]["bytes to read"].planned == pixels * (7 * 2 + 4 + 2) + pixels * (2 + 4 + 2)


def test_all_is_done(done: Made) -> None:
    account = done.accounts()[S2]
    assert numbers(account) == {
        "locations": (None, 3, None),
        "requests": (None, 24, 24),
        "scenes": (None, 24, 4),  # requests share scenes, or get none
        "chips": (None, 24 * 1764, 3000),
        "bytes to read": (None, 24 * 5490 * 5490, None),
        "bytes to copy": (None, 0, 3200),
    }
    assert (account.picked, account.unplanned, account.merged) == (4, 0, 3000)
    assert done.said() == []


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (
            layout.request_ledger(S2, 2021),
            ["12 of 24 requests were answered", "4 of 2 picked scenes are indexed"],
        ),
        (
            layout.chip_ledger(S2, 2021),
            ["2 of 4 picked scenes are indexed", "3,000 of 1,500 chips are in the merged index"],
        ),
        (layout.MANIFEST, ["0 of 3,000 chips are in the merged index"]),
        (layout.imagery_ledger(S2, 2021), []),  # what it holds was indexed
    ],
)
def test_a_missing_cell_is_told(done: Made, cell: str, said: list[str]) -> None:
    done.store.delete([cell])
    assert done.said() == [f"sentinel-2-l2a: {what}" for what in said]


def test_a_merged_index_that_lacks_a_newer_cell_is_told(done: Made) -> None:
    done.index(S2, 2021, {"2021-a": 1000, "2021-b": 499})
    assert done.said() == ["sentinel-2-l2a: 3,000 of 2,999 chips are in the merged index"]
    done.merge({(S2, 2020): 1500})
    assert done.said() == ["sentinel-2-l2a: 1,500 of 2,999 chips are in the merged index"]


def test_what_failed_is_not_there(done: Made) -> None:
    names = done.request(S2).query("year == 2021")["request_id"].tolist()
    done.answer(S2, 2021, {names[0]: "2021-a", names[1]: "2021-b", **dict.fromkeys(names[2:10])}, tuple(names[10:]))
    done.index(S2, 2021, {"2021-a": 1500}, failed=("2021-b",))
    account = done.accounts()[S2]
    assert (account["requests"].there, account["scenes"].there, account["chips"].there) == (22, 3, 3000)
    assert done.said() == [
        "sentinel-2-l2a: 22 of 24 requests were answered",
        "sentinel-2-l2a: 3 of 4 picked scenes are indexed",
    ]


def test_cells_of_another_plan_are_told(done: Made) -> None:
    done.request(S2, tiles(("32NLG", "32NLH", "32NMG")))
    account = done.accounts()[S2]
    assert (account["requests"].planned, account["requests"].there, account.unplanned) == (24, 16, 8)
    assert done.said() == [
        "sentinel-2-l2a: 16 of 24 requests were answered",
        "sentinel-2-l2a: 8 requests in the ledgers are not among those planned; "
        "materialise scene_picks of their years again",
    ]


@pytest.mark.parametrize(
    ("published", "tolerance", "said"),
    [
        ("chips = 3000", 0, None),
        ("chips = 3300", 0.1, None),  # a share of what was published
        ("chips = 3334", 0.1, "3,000 chips, -10.0% to the published set"),
        ("chips = 2728", 0.1, None),
        ("chips = 2727", 0.1, "3,000 chips, +10.0% to the published set"),
        ("chips = 2999", 0, "3,000 chips, +0.0% to the published set"),
        ("requests = 20", 0.2, None),
        ("requests = 20", 0.19, "24 requests, +20.0% to the published set"),
        ("locations = 4", 0.25, None),
        ("locations = 4", 0.24, "3 locations, -25.0% to the published set"),
        ("locations = 0", 0, None),
    ],
)
def test_counts_far_from_the_published_ones_are_told(
    done: Made, published: str, tolerance: float, said: str | None
) -> None:
    done.change(
        ("seed = 7", f"seed = 7\ntolerance = {{published = {tolerance}}}"),
        published=f"\n[published.sentinel-2-l2a]\n{published}\n",
    )
    assert done.said() == ([f"sentinel-2-l2a: {said}"] if said else [])


def test_a_sample_without_a_place_is_far_from_the_published_one(made: Made) -> None:
    made.change(published="\n[published.sentinel-2-l2a]\nlocations = 5\n")
    made.request(S2, tiles(()))
    assert made.said() == ["sentinel-2-l2a: 0 locations, -100.0% to the published set"]


def test_the_plan_of_clay_v1_is_the_published_one(tmp_path: Path) -> None:
    made = Made(tmp_path, Path("clay_v1"))
    sample = tiles(tuple(f"T{number:04d}" for number in range(2728)))
    published = made.recipe.options(MODIS).published_tiles
    vertical, horizontal = zip(*published, strict=True)
    names = tuple(f"h{h:02d}v{v:02d}" for v, h in published)
    for key in PLATFORMS:
        if PLATFORMS[key].scenes.sample == "mgrs_sample":
            made.request(key, sample)
    made.request(MODIS, tiles(names).assign(vertical=vertical, horizontal=horizontal))
    # Source: the Clay model documentation, "Training Data".
    expected = {
        "landsat-c2l1": (2728, 10_912, 5_827_333),
        "landsat-c2l2-sr": (2728, 10_912, 5_790_651),
        "linz": (None, None, 3_299_006),
        "modis": (233, 16_776, 1_350_864),
        "naip": (None, None, 20_984_171),
        "sentinel-1-rtc": (2728, 2728, 16_133_394),
        "sentinel-2-l2a": (2728, 21_824, 18_683_945),
    }
    accounts = made.accounts()
    assert {
        key: tuple(account[quantity].published for quantity in ("locations", "requests", "chips"))
        for key, account in accounts.items()
    } == expected
    for key in expected:
        planned = (accounts[key]["locations"].planned, accounts[key]["requests"].planned)
        assert planned == (expected[key][:2] if key not in ("naip", "linz") else (None, None))
        assert accounts[key]["scenes"].published == accounts[key]["requests"].published
    assert all("requests were answered" in what for what in made.said())  # no count differs from a published one
    # What is planned is the most that there can be.
    for key in ("modis", "landsat-c2l1", "sentinel-1-rtc", "sentinel-2-l2a"):
        assert (accounts[key]["chips"].planned or 0) >= (expected[key][2] or 0), key


def test_the_table_for_people(done: Made) -> None:
    done.change(published="\n[published.sentinel-2-l2a]\nlocations = 2728\nchips = 18683945\n")
    rows = {(row["platform"], row["quantity"]): row for row in records(list(done.accounts().values()))}
    assert len(rows) == 6 * len(PLATFORMS)

    def shown(quantity: str, platform: str = S2) -> list[str]:
        return [rows[platform, quantity][column] for column in ("published", "planned", "there")]

    assert shown("locations") == ["2,728", "3", "—"]
    assert shown("chips") == ["18,683,945", "42,336", "3,000"]
    assert shown("bytes to read") == ["—", "723.4 MB", "—"]  # 24 × 5,490²
    assert shown("bytes to copy") == ["—", "0 B", "3.2 kB"]
    assert shown("requests", "naip") == ["—", "—", "0"]


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (2.5e12, "2.5 TB"), (1.5e18, "1,500.0 PB")]
)
def test_bytes_for_people(made: Made, size: float, text: str) -> None:
    made.copy(S2, 2020, {"a": int(size)})
    (row,) = [r for r in records([made.accounts()[S2]]) if r["quantity"] == "bytes to copy"]
    assert row["there"] == text


def test_a_damaged_table_is_named(done: Made) -> None:
    key = layout.chip_ledger(S2, 2021)
    done.store.write(key, b"PAR1")
    with pytest.raises(InputError, match=r"chips/ledger/sentinel-2-l2a/2021.parquet: is not a readable Parquet file"):
        done.accounts()


def test_a_table_that_may_not_be_read_is_named(done: Made) -> None:
    key = layout.table("scene_requests", S2)
    done.store.delete([key])
    (done.folder / key).mkdir()
    with pytest.raises(StorageError, match=r"cannot read .*scene_requests/sentinel-2-l2a.parquet"):
        done.accounts()


# --- the command ------------------------------------------------------------------------------------

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command in this process; settings by keyword."""

    def run(*arguments: str, **settings: object) -> int:
        monkeypatch.setattr(sys, "argv", ["clay-reconcile", *arguments])
        for name, value in settings.items():
            monkeypatch.setenv(f"CLAY_{name.upper()}", str(value))
        return main()

    return run


def test_the_command_prints_a_table(done: Made, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(storage=done.folder, recipe=done.recipe_file) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{done.folder}, recipe small ({done.recipe.hash})"
    cells = [line.split() for line in lines]
    assert ["platform", "quantity", "published", "planned", "there"] in cells
    first = cells.index([S2, "locations", "—", "3", "—"])  # a platform's name stands once
    assert cells[first + 1 : first + 6] == [
        ["requests", "—", "24", "24"],
        ["scenes", "—", "24", "4"],
        ["chips", "—", "42,336", "3,000"],
        ["bytes", "to", "read", "—", "723.4", "MB", "—"],
        ["bytes", "to", "copy", "—", "0", "B", "3.2", "kB"],
    ]
    table = [line for line in lines if "  " in line]
    assert len({len(line) for line in table}) == 1
    assert lines[-1] == "All that was planned is there."


def test_the_command_says_what_is_missing(done: Made, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    done.store.delete([layout.MANIFEST])
    assert command(storage=done.folder, recipe=done.recipe_file) == 0
    out = capsys.readouterr().out
    assert out.endswith("\n\nsentinel-2-l2a: 0 of 3,000 chips are in the merged index\n")
    assert "All that was planned" not in out


def test_the_command_on_an_empty_storage(made: Made, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(storage=made.folder, recipe="clay_v1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Nothing is planned yet: materialise scene_requests of the platforms that you want."
    assert ["modis", "locations", "233", "—", "—"] in [line.split() for line in lines]
    assert not made.folder.exists()  # asking leaves no trace


def test_the_command_for_programs(done: Made, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    done.index(S2, 2021, {"2021-a": 1000})
    assert command("--json", storage=done.folder, recipe=done.recipe_file) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["differing"] == done.said()
    assert len(document["differing"]) == 2
    account = {account["platform"]: account for account in document["accounts"]}[S2]
    assert (account["picked"], account["merged"]) == (4, 3000)
    assert {count.pop("quantity"): tuple(count.values()) for count in account["counts"]} == numbers(done.accounts()[S2])


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("recipe", "clay_v2", "CLAY_RECIPE='clay_v2' is neither clay_v1 nor clay_v0_1 nor a readable file"),
        ("storage", "gs://bucket", "only a folder or s3://bucket/prefix can be written to"),
        ("workers", "none", "CLAY_WORKERS='none'"),
    ],
)
def test_the_command_names_a_wrong_setting(
    done: Made, command: Command, capsys: pytest.CaptureFixture[str], setting: str, value: str, words: str
) -> None:
    assert command(**{"storage": done.folder, "recipe": done.recipe_file, setting: value}) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err


def test_the_command_names_what_it_cannot_read(
    done: Made, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    done.store.write(layout.MANIFEST, b"{")
    assert command(storage=done.folder, recipe=done.recipe_file) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert f"{done.folder}/{layout.MANIFEST}: cannot be understood" in said.err


def test_the_command_runs_from_a_shell(done: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*command: str, recipe: str) -> subprocess.CompletedProcess[str]:
        monkeypatch.setenv("CLAY_STORAGE", str(done.folder))
        monkeypatch.setenv("CLAY_RECIPE", recipe)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    installed = str(Path(sys.executable).parent / "clay-reconcile")
    result = run(installed, "--json", recipe=str(done.recipe_file))
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["differing"] == []
    result = run(sys.executable, "-m", "clay_assets.reconciliation.accounts", recipe="no/such/recipe.toml")
    assert (result.returncode, result.stdout) == (1, "")
    assert "no/such/recipe.toml" in result.stderr
    assert "Traceback" not in result.stderr
