"""Column descriptions of requests, and of the ledgers of picks and imagery. Those of STAC items are in `storage`."""

from __future__ import annotations

from clay_assets.storage.columns import Column, Columns, geometry

_REQUEST = (
    Column("request_id", "string", "unique within the platform, such as `{location}-{year}-Q{quarter}`"),
    Column("platform", "string", "key of the platform, such as `sentinel-2-l2a`"),
    Column("location", "string", "name of the sampled place in the sample"),
    Column("year", "int16", "the year partition"),
    Column("period", "string", "requested part of the year: `Q1` … `Q4`, `M01` … `M12`, `latest`, …"),
)

SCENE_REQUESTS = Columns(
    (
        *_REQUEST,
        Column("start", "timestamp[ms, UTC]", "first moment of the period"),
        Column("end", "timestamp[ms, UTC]", "first moment after the period"),
        Column("filters", "string", "JSON list of alternatives, each `{property: value}` that an item must equal"),
        Column("draw", "uint64", "keyed hash by which the request was drawn; 0 if it was not drawn at random"),
        *geometry("the area that items must intersect"),
    ),
)
REQUEST_LEDGER = Columns(
    (
        *_REQUEST,
        Column(
            "outcome",
            "string",
            "`picked`, `none` (no eligible scene), or `failed` (no answer, or a bug in a rule)",
        ),
        Column("reason", "string", "why no scene was picked, or the error; null if one was picked"),
        Column("candidates", "int32", "items that the catalogue offered"),
        Column("rejected", "string", "JSON object: reason → number of candidates refused for it"),
        Column("item_id", "string", "id of the picked scene, which several requests may share; null if there is none"),
        Column("cloud_cover", "float64", "`eo:cloud_cover` of the picked scene, percent; null if it has none"),
    ),
)
IMAGERY_LEDGER = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("outcome", "string", "`referenced`, `copied`, `derived` or `failed`"),
        Column("files", "int32", "number of files in our storage"),
        Column("bytes", "int64", "total size of these files"),
        Column("note", "string", "anything unusual, such as a source too coarse to be resampled; else null"),
        Column("error", "string", "why the scene failed and was set aside; else null"),
    ),
)
