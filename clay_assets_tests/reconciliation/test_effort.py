"""The cost of a run, calculated by hand for given requests."""

from __future__ import annotations

from pathlib import Path

import pytest

from clay_assets.recipes import load_recipe
from clay_assets.reconciliation.accounts import reconcile
from clay_assets.reconciliation.effort import Machine, Rates, efforts
from clay_assets.storage.stores import LocalStore
from clay_assets_tests.reconciliation.stores import MODIS, S1, S2, Made, tiles

PAGE = Path(__file__).parents[2] / "docs" / "scale.md"
CORE, DISK, CATALOGUE = "computing", "reading", "searching"
FREE = Rates(scene=0, file=0, gigabyte=0, resampled_gigabyte=0, written_gigabyte=0, thousand_chips=0)
ENDLESS = 1e30


def test_each_rate_counts_what_it_is_of(made: Made) -> None:
    made.request(S2)
    accounts = list(made.accounts().values())

    def core_seconds(**rates: float) -> float:
        (found,) = [
            one for one in efforts(accounts, made.recipe, Rates(**{**vars(FREE), **rates})) if one.platform == S2
        ]
        return found.core_hours * 3600

    # 24 scenes of 42 × 42 chips; SCL and ten bands; SCL has a quarter of 10,980² pixels, of one byte.
    assert core_seconds(scene=1) == pytest.approx(24)
    assert core_seconds(file=1) == pytest.approx(24 * 11)
    assert core_seconds(gigabyte=1) == pytest.approx(24 * 5490 * 5490 / 1e9)
    assert core_seconds(thousand_chips=1) == pytest.approx(24 * 42 * 42 / 1000)
    assert core_seconds(resampled_gigabyte=1, written_gigabyte=1) == 0


def test_images_that_are_resampled_count(made: Made) -> None:
    made.request(MODIS, tiles(("h18v04",)).assign(vertical=4, horizontal=18))
    (account,) = [one for one in made.accounts().values() if one.platform == MODIS]
    rates = Rates(**{**vars(FREE), "resampled_gigabyte": 1, "written_gigabyte": 1000})
    (found,) = efforts([account], made.recipe, rates)
    # Seven bands and two quality layers make 20 bytes per pixel, read and written.
    gigabytes = (account["requests"].planned or 0) * 2400 * 2400 * 20 / 1e9
    assert gigabytes
    assert found.core_hours * 3600 == pytest.approx(1001 * gigabytes)
    assert found.gigabytes_to_store == pytest.approx(gigabytes)
    assert found.dollars_a_month == pytest.approx(gigabytes / 1000 * Machine().dollars_per_terabyte_month)


@pytest.mark.parametrize("longest", [CORE, DISK, CATALOGUE])
def test_hours_are_those_of_what_takes_longest(made: Made, longest: str) -> None:
    made.request(S1)
    machine = Machine(
        cores=2 if longest == CORE else 10**9,
        bytes_per_second=1e6 if longest == DISK else ENDLESS,
        searches_per_second=0.01 if longest == CATALOGUE else ENDLESS,
        dollars_per_hour=2,
    )
    (found,) = [one for one in efforts(made.accounts().values(), made.recipe, machine=machine) if one.platform == S1]
    hours = {
        CORE: found.core_hours / 2,
        DISK: 3 * 21200 * 28900 * 8 / 1e6 / 3600,
        CATALOGUE: 3 / 0.01 / 3600,
    }
    assert found.hours == pytest.approx(hours[longest])
    assert found.dollars == pytest.approx(2 * hours[longest])


def test_published_counts_stand_in_for_requests(made: Made) -> None:
    made.change(
        published="\n[published.sentinel-2-l2a]\nrequests = 40\nchips = 900\n\n[published.naip]\nchips = 4000\n"
    )
    found = {one.platform: one for one in efforts(made.accounts().values(), made.recipe)}
    assert set(found) == {S2, "naip"}  # the other platforms have no counts
    assert (found[S2].searches, found[S2].chips) == (40, 900)
    assert (found["naip"].scenes, found["naip"].chips) == (3, 4000)  # a scene has 48 × 37 chips


def test_the_page_on_scale_says_what_is_estimated(tmp_path: Path) -> None:
    recipe, page = load_recipe("clay_v1"), PAGE.read_text(encoding="utf-8")
    for one in efforts(reconcile(LocalStore(tmp_path), recipe), recipe):
        counts = f"{one.searches:,} | {one.scenes:,} | {one.chips:,}"
        bytes_ = f"{one.gigabytes_to_read:,.0f} | {one.gigabytes_to_store:,.0f}"
        time = f"{one.core_hours:,.1f} | {one.hours:,.1f}"
        money = f"{one.dollars:,.2f} | {one.dollars_a_month:,.2f}"
        assert f"| {one.platform} | {counts} | {bytes_} | {time} | {money} |" in page
    for rate in vars(Rates()).values():
        assert f"| {rate:g} |" in page
    machine = Machine()
    assert f"`{machine.name}`" in page
    assert f"${machine.dollars_per_hour}" in page
