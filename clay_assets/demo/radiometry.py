"""Which Sentinel-2 scenes hold the offset of 1000 in their numbers, and what their items say of it.

As in the real catalogue: a scene of a baseline before 04.00 has none; a later one has it or not, and of these half of
the items are wrong about it. Only places with a second set of files have scenes that hold it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from clay_assets.demo.calendar import Scene
from clay_assets.demo.noise import generator
from clay_assets.demo.sites import Site, sentinel_2_sites

OFFSET = 1000
OFFSET_SINCE = 2022  # the first whole year in which no scene was processed without it
EVERY = 2  # every second place has files with the offset
FORMER, LATER = ("02.12", "02.14", "03.01"), ("04.00", "05.00", "05.09", "05.11")


@dataclass(frozen=True)
class Numbers:
    """How the numbers of a scene are scaled, and what its item says.

    Attributes:
        baseline: processing baseline.
        offset: 0 or 1000, what the numbers really hold too much.
        stated: the offset that the item tells of.
        applied: `earthsearch:boa_offset_applied`; None: the item lacks it.
        noted: the offset of its `raster:bands`, in reflectance.
    """

    baseline: str
    offset: int
    stated: int
    applied: bool | None
    noted: float

    @property
    def truth(self) -> dict[str, Any]:
        """What `Planet.radiometry` tells of it."""
        return {"baseline": self.baseline, "offset": self.offset, "stated": self.stated}


def has_offset_files(site: Site) -> bool:
    """Whether a place has a second set of files, with the offset."""
    return sentinel_2_sites().index(site) % EVERY == 0


def numbers(seed: int, scene: Scene) -> Numbers:
    """How the numbers of a scene are scaled; of two processings the second has the higher baseline."""
    rng = generator(seed, "radiometry", scene.site.name, scene.lucky, scene.sequence)
    former, later = str(rng.choice(FORMER)), str(rng.choice(LATER))
    there, lie, plain, early = (bool(one) for one in rng.integers(2, size=4))
    again = scene.quarter_kind == "two_processings"
    if scene.year < OFFSET_SINCE and (scene.sequence == 0 if again else early):
        return Numbers(former, 0, 0, False, 0.0)
    if again:
        later = LATER[-1] if scene.sequence else LATER[0]
    offset = OFFSET if there and has_offset_files(scene.site) else 0
    stated = OFFSET - offset if lie else offset
    # Earth Search notes the product's offset even where it took it away; other catalogues say nothing else.
    return (
        Numbers(later, offset, stated, None, -0.1 if stated else 0.0)
        if plain
        else Numbers(later, offset, stated, stated == 0, -0.1)
    )
