"""What those see who run the pipeline in the Dagster UI. Screenshots of it are kept in `artifacts/screenshots/`."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
from playwright.sync_api import FloatRect, Locator, expect

from clay_assets.chips.index import CHIP_SCHEMA
from clay_assets.platforms import PLATFORMS
from clay_assets_tests.browser.conftest import A_RUN, Ui
from clay_assets_tests.orchestration.test_checks import run_checks

GROUPS = {
    "landcover": ["mgrs_grid", "worldcover_stats"],
    "sampling": ["linz_sample", "mgrs_sample", "modis_sample", "naip_sample"],
    "scenes": ["scene_requests", "scene_picks", "scene_imagery"],
    "chips": ["chip_index", "chip_landcover", "merged_index"],
    "training": ["cog_headers"],
}
AUTOMATION = [
    "alert_on_failed_partitions",
    "daily_checks",
    "fill_missing_cells",
    "new_year",
    "refresh_merged_index",
    "retry_failed_cells",
]
# Every box of the graph at one moment: the words in it, and its edges in pixels of the page.
BOXES = """boxes => boxes.map(box => {
  const words = [...box.querySelectorAll('*')].filter(e => !e.children.length).map(e => e.textContent.trim());
  const {left, right, top, bottom} = box.getBoundingClientRect();
  return {words, left, right, top, bottom};
})"""

Box = dict[str, Any]


def inside(inner: Box, outer: Box) -> bool:
    return bool(
        outer["left"] < inner["left"] < inner["right"] < outer["right"]
        and outer["top"] < inner["top"] < inner["bottom"] < outer["bottom"]
    )


def around(boxes: list[Box], margin: float = 12) -> FloatRect:
    left, top = min(box["left"] for box in boxes) - margin, min(box["top"] for box in boxes) - margin
    right, bottom = max(box["right"] for box in boxes) + margin, max(box["bottom"] for box in boxes) + margin
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def drawn(picture: Locator) -> tuple[int, int]:
    """Width and height of a picture that was really decoded; 0 of one that was not."""
    expect(picture).to_be_visible()
    expect(picture).to_have_js_property("complete", True)
    width, height = picture.evaluate("img => [img.naturalWidth, img.naturalHeight]")
    return width, height


def whole(table: Locator, headings: list[str] | None = None) -> None:
    """A table of which every column can be read, and nothing is cut off."""
    found = table.get_by_role("columnheader")
    expect(found.first).to_be_visible()
    if headings is not None:
        expect(found).to_have_text(headings)
    for cell in (*found.all(), *table.get_by_role("cell").all()):
        expect(cell).to_be_in_viewport(ratio=1)


def test_the_graph_shows_the_chain_in_its_groups(ui: Ui) -> None:
    page = ui.page
    page.set_viewport_size({"width": 1080, "height": 1040})  # so that no button covers the graph
    ui.goto("/asset-groups")
    boxes = page.locator("svg foreignObject")
    assets = [asset for members in GROUPS.values() for asset in members]

    def box(word: str) -> Locator:
        return boxes.filter(has=page.get_by_text(word, exact=True))

    for group in GROUPS:
        expect(box(group)).to_be_visible()
    expect(box(assets[0])).to_have_count(0)
    page.get_by_role("button", name="panel_show_right", exact=True).last.click()  # the list beside the graph
    page.keyboard.press("Alt+e")  # "Expand all groups" of the graph's own menu
    for word in (*assets, *GROUPS):
        expect(box(word)).to_be_visible()
    at: dict[str, Box] = {word: found for found in boxes.evaluate_all(BOXES) for word in found["words"] if word}
    for group, members in GROUPS.items():
        assert {asset for asset in assets if inside(at[asset], at[group])} == set(members), group
    order = [at[group] for group in GROUPS]
    *chain, training = order
    assert all(before["right"] < after["left"] for before, after in pairwise(chain))
    assert at["scenes"]["right"] < training["left"]  # headers are those of scene_imagery; no chip is needed
    expect(box("mgrs_sample").locator("[style*=green]")).to_be_visible()  # is materialised
    ui.keep("asset_graph", around(order))


def test_partitions_are_a_grid_of_platform_and_year(ui: Ui) -> None:
    ui.asset("chip_index", "Partitions")
    page = ui.page
    for dimension in ("platform", "year"):
        expect(page.get_by_placeholder(f"Filter by {dimension}")).to_be_visible()
    for platform in PLATFORMS:
        expect(ui.text(platform)).to_be_visible()
    there = ui.chain.instance.get_materialized_partitions(dg.AssetKey("chip_index"))
    expect(page.get_by_text(f"Materialized ({len(there)})")).to_be_visible()
    ui.text("sentinel-2-l2a").click()
    for year, shown in (("2019", "No metadata entries"), ("2020", "Materialized"), ("2021", "Materialized")):
        assert (f"sentinel-2-l2a|{year}" in there) == (shown == "Materialized")
        ui.text(year).click()
        expect(ui.text(f"sentinel-2-l2a|{year}")).to_be_visible()
        expect(ui.text(shown)).to_be_visible()
    chips = ui.chain.metadata("chip_index", "sentinel-2-l2a|2021")["chips"]
    expect(ui.value("chips")).to_contain_text(str(chips))
    page.get_by_role("tab", name="Partitions").scroll_into_view_if_needed()
    ui.keep("partitions_of_chip_index")


def test_pictures_and_tables_are_visible(ui: Ui) -> None:
    ui.asset("chip_index")
    for field in CHIP_SCHEMA:
        expect(ui.page.get_by_role("cell", name=field.name, exact=True)).to_be_visible()
    ui.keep("columns_of_chip_index")
    for key in ("map", "contact_sheet"):
        picture = ui.value(key).get_by_role("img", name="picture")
        width, height = drawn(picture)
        assert (width >= 600, height >= 300) == (True, True), (key, width, height)
        ui.keep(f"{key}_of_chip_index")
        ui.close()

    ui.asset("merged_index")
    for key in ("composition", "splits"):
        width, height = drawn(ui.value(key).get_by_role("img", name="picture"))
        assert (width >= 600, height >= 200) == (True, True), (key, width, height)
        ui.keep(f"{key}_of_merged_index")
        ui.close()
    whole(ui.value("chips_by_split"), ["platform", "train", "validate", "test", "buffer"])

    ui.asset("mgrs_sample")
    rules = ui.value("rules")
    whole(rules, ["rule", "tiles", "candidates", "drawn"])
    for rule in ui.chain.clay.recipe().tile_rules:
        expect(rules.get_by_role("cell", name=rule.rule, exact=True).first).to_be_visible()
    ui.keep("rules_of_mgrs_sample")
    ui.close()

    ui.asset("naip_sample")  # its table of layers is the widest
    whole(ui.value("layers"))
    ui.keep("layers_of_naip_sample")

    ui.goto("/assets/scene_picks?view=partitions&partition=sentinel-2-l2a%7C2021")
    reasons = ui.value("reasons")
    whole(reasons, ["reason", "candidates refused", "requests without a scene"])
    expect(reasons.get_by_role("cell", name="no item in the catalogue", exact=True)).to_be_visible()
    ui.keep("reasons_of_scene_picks")


def test_checks_tell_what_they_found(ui: Ui) -> None:
    ui.asset("chip_index", "Checks")
    keys = ui.chain.defs.resolve_asset_graph().asset_check_keys
    names = {key.name for key in keys if key.asset_key == dg.AssetKey("chip_index")}
    for name in names:
        expect(ui.text(name).last).to_be_visible()
    # What looks at all partitions together is no part of a partition's run.
    expect(ui.text("Succeeded")).to_have_count(len(names - {"no_partition_failed"}))
    ui.text("shares_in_range").click()
    expect(ui.text("Passed")).to_be_visible()
    expect(ui.text("sentinel-2-l2a|2021")).to_be_visible()
    expect(ui.page.get_by_role("row", name="violation_count 0")).to_be_visible()
    ui.keep("checks_of_chip_index")


def test_runs_launched_by_clicking_succeed_or_say_what_failed(ui: Ui) -> None:
    page = ui.page
    ui.asset("mgrs_sample")
    page.get_by_role("button", name="Materialize").first.click()
    succeeding = ui.launched()
    # No scene was ever picked for it. The page is loaded anew, so that the notice of the first run is gone.
    page.goto("/assets/scene_imagery?view=partitions&partition=modis%7C2012")
    expect(ui.text("modis|2012")).to_be_visible()
    page.get_by_role("button", name="Materialize").first.click()
    page.get_by_role("button", name="Launch 1 run").click()
    ui.launched()

    expect(ui.text("Failure")).to_be_visible(timeout=A_RUN)
    first = r"Failure: \S+/scene_picks/modis/2012\.parquet: file not found\. Materialise scene_picks first"
    expect(page.get_by_text(re.compile(first)).filter(visible=True).last).to_be_visible()
    ui.keep("run_that_failed")

    ui.goto(succeeding)
    expect(ui.text("Success")).to_be_visible(timeout=A_RUN)
    expect(ui.text("RUN_SUCCESS")).to_be_visible()
    ui.keep("run_of_mgrs_sample")
    ui.asset("mgrs_sample", "Events")
    expect(page.get_by_role("link", name=succeeding.rpartition("/")[2][:8]).first).to_be_visible()
    rows = ui.chain.metadata("mgrs_sample")["dagster/row_count"]
    expect(ui.value("dagster/row_count")).to_contain_text(str(rows))


def test_schedules_and_sensors_are_listed_and_stopped(ui: Ui) -> None:
    page = ui.page
    ui.goto("/automation")
    for name in AUTOMATION:
        expect(page.get_by_role("link", name=name)).to_be_visible()
    # One to select all; for each, one to select it, and its switch.
    expect(page.get_by_role("checkbox")).to_have_count(1 + 2 * len(AUTOMATION))
    expect(page.get_by_role("checkbox", checked=True)).to_have_count(0)
    ui.keep("automation")


def test_the_number_of_rows_is_that_of_the_asset_or_of_the_partition(ui: Ui) -> None:
    rows = ui.chain.metadata("merged_index")["dagster/row_count"]
    ui.asset("merged_index")
    expect(ui.text("Row count")).to_be_visible()
    expect(ui.text(f"{rows:,}").first).to_be_visible()
    ui.keep("rows_of_merged_index")
    ui.asset("chip_index")
    expect(ui.text("Latest materialization")).to_be_visible()
    expect(ui.text("Row count")).to_have_count(0)  # would be that of the last cell


def test_the_cell_that_breaks_a_rule_is_seen_in_the_grid(ui: Ui) -> None:
    cell = "sentinel-2-l2a|2021"
    chips = sorted((Path(ui.copied.storage) / "chips" / "chip_index").glob("sentinel-2-l2a/2021/*.parquet"))
    chips[0].unlink()
    assert not run_checks(ui.copied, "chip_index", cell)["rows_of_ledger"].passed
    ui.asset("chip_index", "Checks")
    ui.text("rows_of_ledger").click()
    ui.page.get_by_role("tab", name="Partitions").last.click()
    expect(ui.page.get_by_text(re.compile(r"^Failed\s*\(1\)$")).filter(visible=True)).to_be_visible()
    ui.text("sentinel-2-l2a").last.click()
    expect(ui.text("2021")).to_be_visible()
    ui.keep("grid_of_a_failed_check")
