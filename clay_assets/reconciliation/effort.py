"""What a run takes, at most: searches, bytes, core-hours, hours on one machine and money, per platform.

Counts are those of the requests or, where none are made yet, the published ones of the recipe. What a count takes was
measured (docs/scale.md says how), and what a machine costs is the provider's list price.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clay_assets.platforms import platform_of
from clay_assets.recipes import Recipe
from clay_assets.reconciliation.accounts import Account
from clay_assets.scenes.cost import estimate_cost

HOUR, GIGABYTE, THOUSAND = 3600, 1e9, 1000


@dataclass(frozen=True)
class Rates:
    """Core-seconds that were measured, for each of what there is.

    Attributes:
        scene: to pick it, and to write its index, land cover and headers.
        file: to read its header.
        gigabyte: of quality layers to decode and count, before compression.
        resampled_gigabyte: of images that are resampled, before compression: to read them, and to resample them.
        written_gigabyte: of images that are made of them, before compression: to write them as COGs.
        thousand_chips: to look up their land cover, and to merge them.
    """

    scene: float = 0.1
    file: float = 0.01
    gigabyte: float = 4
    resampled_gigabyte: float = 24
    written_gigabyte: float = 53
    thousand_chips: float = 0.16


@dataclass(frozen=True)
class Machine:
    """A machine beside most of the sources: an m7i.2xlarge of AWS in us-west-2, on demand, in November 2026.

    Attributes:
        name: the provider's.
        cores: virtual ones, as those that `Rates` were measured on.
        bytes_per_second: that it may read from S3 without pause.
        searches_per_second: that a STAC API bears.
        dollars_per_hour: list price.
        dollars_per_terabyte_month: of S3 storage.
    """

    name: str = "m7i.2xlarge"
    cores: int = 8
    bytes_per_second: float = 390e6
    searches_per_second: float = 5
    dollars_per_hour: float = 0.4032
    dollars_per_terabyte_month: float = 23


@dataclass(frozen=True)
class Effort:
    """Of one platform, at most.

    Attributes:
        platform: its key.
        searches: of its catalogue.
        scenes: to index.
        chips: in them.
        gigabytes_to_read: of quality layers and of images that are resampled, before compression.
        gigabytes_to_store: of images in our storage, before compression.
        core_hours: computing.
        hours: on one machine, by what takes longest: computing, reading or searching.
        dollars: for these hours.
        dollars_a_month: for what is stored.
    """

    platform: str
    searches: int
    scenes: int
    chips: int
    gigabytes_to_read: float
    gigabytes_to_store: float
    core_hours: float
    hours: float
    dollars: float
    dollars_a_month: float


def efforts(
    accounts: Iterable[Account], recipe: Recipe, rates: Rates | None = None, machine: Machine | None = None
) -> list[Effort]:
    """What each platform takes, of those that have requests or published counts.

    Args:
        accounts: of the platforms.
        recipe: chip size, and whether images are copied.
        rates: what a scene, a file and a chip take; None: as measured.
        machine: that runs it; None: the usual one.
    """
    rates, machine = rates or Rates(), machine or Machine()
    found = []
    for account in accounts:
        requests, chips = account["requests"], account["chips"]
        platform = platform_of(account.platform)
        per_scene = platform.typical.chips(recipe.chip_size)
        count = requests.planned if requests.planned is not None else requests.published
        if count is None and chips.published is not None:
            count = -(-chips.published // per_scene)
        if count is None:
            continue
        cost = estimate_cost(platform, count, recipe)
        # What is published of the chips is nearer to the truth than scenes without any margin.
        total = cost.chips if requests.planned is not None or chips.published is None else chips.published
        typical, is_derived = platform.typical, recipe.options(platform.key).imagery == "derived"
        resampled = count * typical.height * typical.width * typical.image_bytes if is_derived else 0
        seconds = (
            cost.scenes * (rates.scene + rates.file * len(platform.asset_names))
            + (cost.bytes_to_read - resampled) / GIGABYTE * rates.gigabyte
            + resampled / GIGABYTE * rates.resampled_gigabyte
            + (cost.bytes_to_copy / GIGABYTE * rates.written_gigabyte if is_derived else 0)
            + total / THOUSAND * rates.thousand_chips
        )
        hours = (
            max(
                seconds / machine.cores,
                cost.bytes_to_read / machine.bytes_per_second,
                count / machine.searches_per_second,
            )
            / HOUR
        )
        found.append(
            Effort(
                platform=platform.key,
                searches=count,
                scenes=cost.scenes,
                chips=total,
                gigabytes_to_read=cost.bytes_to_read / GIGABYTE,
                gigabytes_to_store=cost.bytes_to_copy / GIGABYTE,
                core_hours=seconds / HOUR,
                hours=hours,
                dollars=hours * machine.dollars_per_hour,
                dollars_a_month=cost.bytes_to_copy / GIGABYTE / THOUSAND * machine.dollars_per_terabyte_month,
            )
        )
    return found
