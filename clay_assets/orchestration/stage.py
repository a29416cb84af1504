"""How a stage declares its assets: what all of them have in common, and errors that say first what failed.

The assets themselves are in the stages' `assets.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Set
from typing import Any

import dagster as dg

from clay_assets.orchestration.failures import what_failed
from clay_assets.orchestration.metadata import described_by

# Pools: of the runs together, how many steps may use one remote service at once. Limits are the deployment's.
STAC_API = "stac_api"
LINZ_CATALOG = "linz_catalog"
WORLDCOVER = "worldcover"
IMAGERY = "imagery"

Declare = Callable[[Callable[..., Any]], dg.AssetsDefinition]


def stage(number: int, group: str) -> Callable[..., Declare]:
    """`dg.asset` for the assets of one stage.

    What it returns takes the module whose docstring describes the asset, the kinds that it has besides those of all,
    and whatever else `dg.asset` takes.
    """

    def asset(described: str, kinds: Set[str] = frozenset(), **arguments: Any) -> Declare:
        def declare(body: Callable[..., Any]) -> dg.AssetsDefinition:
            declared: dg.AssetsDefinition = dg.asset(
                group_name=group,
                tags={"stage": str(number)},
                kinds={"python", "geoparquet", *kinds},
                code_version="1",
                description=described_by(described),
                **arguments,
            )(_explained(body))
            return declared

        return declare

    return asset


def _explained(body: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(body)  # its signature is what Dagster reads inputs and resources from
    def explained(*args: Any, **kwargs: Any) -> Any:
        with what_failed():
            return body(*args, **kwargs)

    return explained
