"""What the columns of requests mean, and of the ledgers of picks and imagery. Those of STAC items are storage's."""

from __future__ import annotations

from clay_assets.storage.columns import Column, Columns, geometry

_REQUEST = (
    Column("request_id", "string", "unique within the platform, such as `{location}-{year}-Q{quarter}`"),
    Column("platform", "string", "key of the platform, such as `sentinel-2-l2a`"),
    Column("location", "string", "the sampled place, by its name in the sample"),
    Column("year", "int16", "the year partition"),
    Column("period", "string", "what of the year is asked for: `Q1` … `Q4`, `M01` … `M12`, `latest`, …"),
)

SCENE_REQUESTS = Columns(
    (
        *_REQUEST,
        Column("start", "timestamp[ms, UTC]", "first moment of the period"),
        Column("end", "timestamp[ms, UTC]", "first moment after the period"),
        Column("filters", "string", "JSON list of alternatives, each `{property: value}` that an item must equal"),
        Column("draw", "uint64", "the keyed hash by which it was drawn; 0 where nothing was left to chance"),
        *geometry("what items must intersect"),
    ),
)
REQUEST_LEDGER = Columns(
    (
        *_REQUEST,
        Column(
            "outcome",
            "string",
            "`picked`, `none` (nothing could be taken), or `failed` (no answer, or a bug in a rule)",
        ),
        Column("reason", "string", "why nothing was taken, or the error; null where a scene was picked"),
        Column("candidates", "int32", "items that the catalogue offered"),
        Column("rejected", "string", "JSON object: reason → number of candidates refused for it"),
        Column("item_id", "string", "the scene picked, which several requests may share; null where none was"),
        Column("cloud_cover", "float64", "`eo:cloud_cover` of the scene picked, percent; null where it has none"),
    ),
)
IMAGERY_LEDGER = Columns(
    (
        Column("item_id", "string", "the scene"),
        Column("outcome", "string", "`referenced`, `copied`, `derived` or `failed`"),
        Column("files", "int32", "files in our storage; 0 where there are none"),
        Column("bytes", "int64", "bytes of these files"),
        Column("note", "string", "what is out of the ordinary, such as a source too coarse to be resampled; else null"),
        Column("error", "string", "why it failed; such a scene is set aside. Null where it did not"),
    ),
)
