"""`stage_asset`: what the assets of all stages share. The assets are defined in the stages' `assets.py`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Set
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.orchestration.failures import clay_errors_as_failures
from clay_assets.orchestration.metadata import column_metadata, table_schema
from clay_assets.orchestration.resources import ClayResource
from clay_assets.orchestration.source_code import code_reference

if TYPE_CHECKING:
    from clay_assets.storage.columns import Columns

# Pools limit how many steps, over all runs, use a remote service at once. The deployment sets the limits.
STAC_API = "stac_api"
LINZ_CATALOG = "linz_catalog"
WORLDCOVER = "worldcover"
IMAGERY = "imagery"

JOB_TAG = "clay/job"  # the job that an asset belongs to
OWNERS = ["team:clay"]  # owner of an asset; the catalogue can be filtered by it
_INJECTED = {"context": dg.AssetExecutionContext, "clay": ClayResource}


def stage_asset(
    *,
    group: str,
    number: int,
    version: str,
    job: str | None = None,
    kinds: Set[str] = frozenset(),
    columns: Columns | None = None,
    ledger: Columns | None = None,
    metadata: Mapping[str, Any] | None = None,
    **arguments: Any,
) -> Callable[[Callable[..., Any]], dg.AssetsDefinition]:
    """`dg.asset` for the assets of one stage; a `ClayError` in the body becomes a `dagster.Failure`.

    The body's docstring is the asset's description. Its annotations are only for readers and type checkers: Dagster
    would evaluate them when definitions load, which would import geopandas, and would skip the IO manager of a body
    that returns `MaterializeResult` with checks.

    Args:
        group: asset group; the stage's name.
        number: position of the stage in the chain, from 1.
        version: the asset's code version; increase it when the same inputs would give a different result.
        job: job that materialises the asset; by default the group's. All assets of a job share one partitioning.
        kinds: kinds in addition to those of every asset.
        columns: columns of its table, described.
        ledger: columns of its ledger, described, if it has one.
        metadata: additional metadata of its definition.
        arguments: passed to `dg.asset`.

    Returns:
        The decorator.
    """
    described = {
        **(column_metadata(columns) if columns else {}),
        **({"ledger_columns": table_schema(ledger)} if ledger else {}),
        **(metadata or {}),
    }

    def declare(body: Callable[..., Any]) -> dg.AssetsDefinition:
        declared: dg.AssetsDefinition = dg.asset(
            group_name=group,
            tags={"stage": str(number), JOB_TAG: job or group},
            kinds={"python", "geoparquet", *kinds},
            code_version=version,
            description=inspect.getdoc(body),
            owners=OWNERS,
            metadata={**described, **code_reference(body)},
            **arguments,
        )(_for_dagster(body))
        return declared

    return declare


def _for_dagster(body: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the body with clear errors, and replace its annotations by those that Dagster needs."""

    @functools.wraps(body)
    def run(*args: Any, **kwargs: Any) -> Any:
        with clay_errors_as_failures():
            return body(*args, **kwargs)

    parameters = [
        parameter.replace(annotation=_INJECTED.get(name, inspect.Parameter.empty))
        for name, parameter in inspect.signature(body).parameters.items()
    ]
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters if p.annotation is not inspect.Parameter.empty}
    return run
