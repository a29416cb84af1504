"""Which scenes exist: the acquisitions of each place in each quarter of 2018 to 2023.

Every place has the same kinds of quarters in its own order, so that every situation a search can meet occurs at every
place, whatever years a recipe draws. Pixels are drawn elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from clay_assets.demo.noise import generator
from clay_assets.demo.sites import Site

YEARS = range(2018, 2024)
QUARTERS = range(1, 5)
COVER_LEVELS = 128  # cloud cover is drawn in steps of 1/128
LOCAL_HOUR, NIGHT_HOUR = 10.5, 22.5  # mean solar time of the overpass
LANDSAT_9_FROM = 2022  # first whole year
FIRST_DAY, LAST_DAY = 2, 87  # days of a quarter; the UTC date can differ from the local one by a day

NO_WEDGE = (0, 0)
THICK = COVER_LEVELS * 3 // 5  # few searches accept scenes with more clouds
WIDE = 0.25  # share of a scene; searches do not accept one with a wider wedge
CLOUDS_FROM = 2021  # year; earlier ones are not in the demo's recipe


@dataclass(frozen=True)
class Draft:
    """The properties of one date in a kind of quarter.

    Attributes:
        cover: lowest and highest share of cloud, percent.
        wedge: pixels without data at the left, at the top and at the bottom of the quality raster.
        kind: `day`, `night`, `landsat_7`, or `again` (the scene before, in its second processing).
        stated: cloud cover to state regardless of what is drawn, or None.
    """

    cover: tuple[int, int]
    wedge: tuple[int, int] = NO_WEDGE
    kind: str = "day"
    stated: float | None = None


CLEAR = Draft((0, 0))
FAIR, MIXED, CLOUDY, OVERCAST = Draft((3, 25)), Draft((20, 50)), Draft((40, 70)), Draft((94, 100))

# Kind of quarter → (number among the 24 quarters, its dates). Wedges in pixels of 20 m.
SENTINEL_2_QUARTERS: dict[str, tuple[int, tuple[Draft, ...]]] = {
    "empty": (2, ()),
    "overcast": (3, (OVERCAST, OVERCAST)),
    "wedge_least_cloudy": (2, (Draft((1, 4), (350, 90)), MIXED)),
    "only_wedge": (1, (Draft((5, 20), (300, 140)),)),
    "tie": (2, (CLEAR, CLEAR, MIXED)),
    "strip": (2, (Draft((2, 8), (64, 64)), CLOUDY)),  # half a chip wide
    "sliver": (3, (Draft((5, 20), (90, 0)), CLOUDY)),
    "two_processings": (1, (Draft((8, 20)), Draft((8, 20), kind="again"))),
    "ordinary": (8, (FAIR, CLOUDY)),
}
# Wedges in pixels of 30 m.
LANDSAT_QUARTERS: dict[str, tuple[int, tuple[Draft, ...]]] = {
    "empty": (2, ()),
    "overcast": (3, (OVERCAST, OVERCAST)),
    "only_night": (1, (Draft((0, 0), kind="night", stated=-1),)),
    "night_least_cloudy": (1, (Draft((0, 0), kind="night"), MIXED)),
    "unknown_cloud": (2, (Draft((1, 10), stated=-1), MIXED)),
    "tie": (2, (CLEAR, CLEAR)),
    "wedge": (3, (Draft((3, 20), (230, 40)), CLOUDY)),
    "strip": (2, (Draft((2, 8), (128, 128)), CLOUDY)),  # half a chip wide
    "landsat_7_least_cloudy": (1, (Draft((0, 0), kind="landsat_7"), MIXED)),
    "ordinary": (7, (FAIR, CLOUDY)),
}


@dataclass(frozen=True)
class Scene:
    """One acquisition.

    Attributes:
        site: the place and its grid.
        kind: the draft's kind.
        quarter_kind: the quarter's kind, a key of the tables above.
        year, quarter: year and quarter of the acquisition.
        number: index among the dates of its quarter.
        moment: acquisition time, UTC.
        level: cloud cover to draw, 0 to `COVER_LEVELS`.
        wedge: nodata pixels at the left of the quality raster, at its top and its bottom.
        stated: cloud cover to state regardless of what is drawn, or None.
        spacecraft: `A` or `B` for Sentinel-2; 7, 8 or 9 for Landsat, as text.
        sequence: 0, or 1 for a second processing of the same acquisition.
        lucky: the scene's random number for all other choices.
        shows_clouds: whether it has its own visible bands with clouds; other scenes share those of their place.
    """

    site: Site
    kind: str
    quarter_kind: str
    year: int
    quarter: int
    number: int
    moment: datetime
    level: int
    wedge: tuple[int, int]
    stated: float | None
    spacecraft: str
    sequence: int
    lucky: int
    shows_clouds: bool

    @property
    def is_night(self) -> bool:
        """Whether it was acquired on the night side of the orbit."""
        return self.kind == "night"


def quarter_kinds(seed: int, family: str, site: Site) -> dict[tuple[int, int], str]:
    """The kind of each (year, quarter) of a place; `family` is `sentinel-2` or `landsat`."""
    table = SENTINEL_2_QUARTERS if family == "sentinel-2" else LANDSAT_QUARTERS
    kinds = [kind for kind, (times, _) in table.items() for _ in range(times)]
    order = generator(seed, family, site.name, "quarters").permutation(len(kinds))
    quarters = [(year, quarter) for year in YEARS for quarter in QUARTERS]
    return {when: kinds[index] for when, index in zip(quarters, order, strict=True)}


def scenes(seed: int, family: str, site: Site) -> list[Scene]:
    """Every acquisition of a place, ordered by time."""
    table = SENTINEL_2_QUARTERS if family == "sentinel-2" else LANDSAT_QUARTERS
    found: list[Scene] = []
    for (year, quarter), kind in quarter_kinds(seed, family, site).items():
        rng = generator(seed, family, site.name, year, quarter)
        drafts = table[kind][1]
        days = rng.choice(np.arange(FIRST_DAY, LAST_DAY + 1), len(drafts), replace=False)
        of_quarter = len(found)
        for number, (draft, day) in enumerate(zip(drafts, days, strict=True)):
            low, high = (round(share * COVER_LEVELS / 100) for share in draft.cover)
            level = int(rng.integers(low, high + 1))
            hour = NIGHT_HOUR if draft.kind == "night" else LOCAL_HOUR
            moment = datetime(year, 3 * quarter - 2, 1, tzinfo=UTC) + timedelta(
                days=int(day),
                hours=hour - site.middle[0] / 15,
                seconds=int(rng.integers(-900, 900)),
                microseconds=int(rng.integers(1000)) * 1000,
            )
            moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
            lucky = int(rng.integers(2**31))
            if family == "sentinel-2":
                spacecraft = "AB"[lucky % 2]
            else:
                spacecraft = "89"[lucky % 2 if moment.year >= LANDSAT_9_FROM else 0]
            scene = Scene(
                site=site,
                kind=draft.kind,
                quarter_kind=kind,
                year=year,
                quarter=quarter,
                number=number,
                moment=moment,
                level=level,
                wedge=draft.wedge,
                stated=draft.stated,
                spacecraft="7" if draft.kind == "landsat_7" else spacecraft,
                sequence=0,
                lucky=lucky,
                shows_clouds=False,
            )
            if draft.kind == "again":
                first = found[-1]
                scene = Scene(**{**vars(first), "kind": "again", "number": number, "sequence": 1})
            found.append(scene)
        found[of_quarter:] = _with_clouds(found[of_quarter:])
    return sorted(found, key=lambda one: (one.moment, one.sequence))


def _with_clouds(quarter: list[Scene]) -> list[Scene]:
    """The scenes of a quarter; only those that a search picks show clouds, as drawing all would be slow."""
    taken = [
        one.level
        for one in quarter
        if one.kind in ("day", "again") and one.stated is None and sum(one.wedge) < WIDE * 2 * one.site.width
    ]
    if not taken or quarter[0].year < CLOUDS_FROM:
        return quarter
    # If the least cloudy scene lacks a corner, the tiles in that corner use the next one.
    shown = taken if quarter[0].quarter_kind == "wedge" else [min(taken)]
    return [replace(one, shows_clouds=0 < one.level <= THICK and one.level in shown) for one in quarter]
