"""Stage 2 in Dagster: `mgrs_sample`."""

import dagster as dg

from clay_assets.orchestration.metadata import described_by, picture, table
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.values import Tiles

GROUP = "sampling"


@dg.asset(
    group_name=GROUP,
    # Loaded in the body: a published sample needs the grid alone, and no land cover at all.
    deps=["mgrs_grid", "worldcover_stats"],
    kinds={"python", "geoparquet"},
    tags={"stage": "2"},
    code_version="1",
    io_manager_key="geo_tables",
    metadata={"flatgeobuf": True},
    description=described_by("clay_assets.sampling.tiles"),
)
def mgrs_sample(clay: ClayResource) -> dg.MaterializeResult[Tiles]:
    from clay_assets.orchestration.pictures import sample_map
    from clay_assets.sampling.tiles import sample_tiles, take_sample
    from clay_assets.storage.downloads import local_copy

    published = clay.settings.mgrs_sample
    if published:
        with local_copy(published, keep_in=clay.store(), folder="sampling/source") as path:
            sample = take_sample(path, clay.table("mgrs_grid"))
    else:
        sample = sample_tiles(clay.table("worldcover_stats"), clay.recipe())
    rules = sample.attrs["rules"]
    short = [rule["rule"] for rule in rules if rule["drawn"] < rule["tiles"]]
    return dg.MaterializeResult(
        value=sample,
        metadata={
            "taken_from": published or "drawn by the recipe",
            "rules": table(rules),
            "rules_with_too_few_candidates": ", ".join(short) or "none",
            "map": picture(sample_map(sample)),
        },
    )
