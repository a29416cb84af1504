"""Published, planned and present counts, on stores with hand-made tables, so that every number is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from clay_assets.errors import InputError, StorageError
from clay_assets.platforms import PLATFORMS
from clay_assets.reconciliation.accounts import records
from clay_assets.storage import layout
from clay_assets_tests.reconciliation.stores import MODIS, S1, S2, Made, numbers, tiles


def test_nothing_is_made(made: Made) -> None:
    made.change(published="\n[published.sentinel-2-l2a]\nlocations = 5\nrequests = 40\nchips = 900\n")
    accounts = made.accounts()
    assert list(accounts) == list(PLATFORMS)
    assert numbers(accounts[S2]) == {
        "locations": (5, None, None),
        "requests": (40, None, 0),
        "scenes": (40, None, 0),
        "chips": (900, None, 0),
        "land cover": (None, None, 0),
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
        "land cover": (None, 24 * 42 * 42, 0),
        "bytes to read": (None, 24 * 5490 * 5490, None),
        "bytes to copy": (None, 0, 0),
    }
    # Sentinel-1: one quarter of one year; 82 × 112 chips in 21,200 × 28,900 pixels; VV and VH are float32.
    assert numbers(accounts[S1]) == {
        "locations": (None, 3, None),
        "requests": (None, 3, 0),
        "scenes": (None, 3, 0),
        "chips": (None, 3 * 82 * 112, 0),
        "land cover": (None, 3 * 82 * 112, 0),
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
    # MODIS, 72 months: seven bands int16, QC uint32, state uint16, read for resampling; then red and quality again.
    pixels = 72 * 2400 * 2400
    assert accounts[MODIS]["requests"].planned == 72
    assert accounts[MODIS]["bytes to copy"].planned == pixels * (7 * 2 + 4 + 2)
    assert accounts[MODIS]["bytes to read"].planned == pixels * (7 * 2 + 4 + 2) + pixels * (2 + 4 + 2)


def test_all_is_done(done: Made) -> None:
    account = done.accounts()[S2]
    assert numbers(account) == {
        "locations": (None, 3, None),
        "requests": (None, 24, 24),
        "scenes": (None, 24, 4),  # some requests share a scene, others find none
        "chips": (None, 24 * 1764, 3000),
        "land cover": (None, 24 * 1764, 3000),
        "bytes to read": (None, 24 * 5490 * 5490, None),
        "bytes to copy": (None, 0, 3200),
    }
    assert (account.picked, account.unplanned, account.merged) == (4, 0, 3000)
    assert done.said() == []


@pytest.mark.slow
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
        (layout.landcover_ledger(S2, 2021), ["land cover computed for 1,500 of 3,000 chips"]),
        (layout.MANIFEST, ["0 of 3,000 chips are in the merged index"]),
        (layout.imagery_ledger(S2, 2021), []),  # its chips were indexed
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
    assert (account["requests"].present, account["scenes"].present, account["chips"].present) == (22, 3, 3000)
    assert done.said() == [
        "sentinel-2-l2a: 22 of 24 requests were answered",
        "sentinel-2-l2a: 3 of 4 picked scenes are indexed",
    ]


def test_cells_of_another_plan_are_told(done: Made) -> None:
    done.request(S2, tiles(("32NLG", "32NLH", "32NMG")))
    account = done.accounts()[S2]
    assert (account["requests"].planned, account["requests"].present, account.unplanned) == (24, 16, 8)
    assert done.said() == [
        "sentinel-2-l2a: 16 of 24 requests were answered",
        "sentinel-2-l2a: 8 requests in the ledgers are no longer planned; re-materialise scene_picks of their years",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("published", "tolerance", "said"),
    [
        ("chips = 3000", 0, None),
        ("chips = 3300", 0.1, None),  # a share of the published count
        ("chips = 3334", 0.1, "3,000 chips, -10.0% against the published set"),
        ("chips = 2728", 0.1, None),
        ("chips = 2727", 0.1, "3,000 chips, +10.0% against the published set"),
        ("chips = 2999", 0, "3,000 chips, +0.0% against the published set"),
        ("requests = 20", 0.2, None),
        ("requests = 20", 0.19, "24 requests, +20.0% against the published set"),
        ("locations = 4", 0.25, None),
        ("locations = 4", 0.24, "3 locations, -25.0% against the published set"),
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
    assert made.said() == ["sentinel-2-l2a: 0 locations, -100.0% against the published set"]


@pytest.mark.slow
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
    # Planned counts are upper bounds.
    for key in ("modis", "landsat-c2l1", "sentinel-1-rtc", "sentinel-2-l2a"):
        assert (accounts[key]["chips"].planned or 0) >= (expected[key][2] or 0), key


def test_the_table_for_people(done: Made) -> None:
    done.change(published="\n[published.sentinel-2-l2a]\nlocations = 2728\nchips = 18683945\n")
    rows = {(row["platform"], row["quantity"]): row for row in records(list(done.accounts().values()))}
    assert len(rows) == 7 * len(PLATFORMS)

    def shown(quantity: str, platform: str = S2) -> list[str]:
        return [rows[platform, quantity][column] for column in ("published", "planned", "present")]

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
    assert row["present"] == text


def test_a_damaged_table_is_named(done: Made) -> None:
    key = layout.chip_ledger(S2, 2021)
    done.store.write(key, b"PAR1")
    with pytest.raises(InputError, match=r"chips/ledger/sentinel-2-l2a/2021.parquet: not a readable Parquet file"):
        done.accounts()


def test_a_table_that_may_not_be_read_is_named(done: Made) -> None:
    key = layout.table("scene_requests", S2)
    done.store.delete([key])
    (done.folder / key).mkdir(parents=True)
    with pytest.raises(StorageError, match=r"cannot read .*scene_requests/sentinel-2-l2a.parquet"):
        done.accounts()


# --- the command ------------------------------------------------------------------------------------
