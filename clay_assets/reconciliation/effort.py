"""Upper bounds of the cost of a run per platform: searches, bytes, core-hours, hours on one machine and dollars.

Counts come from the requests or, before those exist, from the recipe's published counts. The cost per unit was measured
(docs/scale.md says how); machine prices are the provider's list prices.
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
    """Measured core-seconds per unit of work.

    Attributes:
        scene: core-seconds to pick a scene and write its index, land cover and headers.
        file: core-seconds to read the header of a file.
        gigabyte: core-seconds to decode and count a gigabyte of quality layers, before compression.
        resampled_gigabyte: core-seconds to read and resample a gigabyte of images, before compression.
        written_gigabyte: core-seconds to write a gigabyte of resampled images as COGs, before compression.
        thousand_chips: core-seconds to compute land cover for a thousand chips and merge them.
    """

    scene: float = 0.1
    file: float = 0.01
    gigabyte: float = 4
    resampled_gigabyte: float = 24
    written_gigabyte: float = 53
    thousand_chips: float = 0.16


@dataclass(frozen=True)
class Machine:
    """A machine close to most sources: an AWS m7i.2xlarge in us-west-2, on demand, in November 2026.

    Attributes:
        name: the provider's instance type.
        cores: virtual cores, like those that `Rates` were measured on.
        bytes_per_second: sustained read rate from S3.
        searches_per_second: search rate that a STAC API sustains.
        dollars_per_hour: list price of the machine.
        dollars_per_terabyte_month: list price of S3 storage.
    """

    name: str = "m7i.2xlarge"
    cores: int = 8
    bytes_per_second: float = 390e6
    searches_per_second: float = 5
    dollars_per_hour: float = 0.4032
    dollars_per_terabyte_month: float = 23


@dataclass(frozen=True)
class Effort:
    """Upper bounds of the cost of one platform.

    Attributes:
        platform: platform key.
        searches: searches of its catalogue.
        scenes: scenes to index.
        chips: chips in those scenes.
        gigabytes_to_read: quality layers, and images to resample, before compression.
        gigabytes_to_store: images written to our storage, before compression.
        core_hours: computing time.
        hours: time on one machine, set by the slowest of computing, reading and searching.
        dollars: price of these hours.
        dollars_a_month: monthly price of the storage.
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
    """Estimate the cost of each platform that has requests or published counts.

    Args:
        accounts: the platforms' accounts.
        recipe: the recipe; its chip size and imagery options are used.
        rates: cost per unit of work; None: as measured.
        machine: the machine that runs it; None: the default one.
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
        # A published chip count is closer to the truth than the bound, which assumes scenes without nodata.
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
