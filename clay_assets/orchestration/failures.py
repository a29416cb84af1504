"""How failures are reported in the UI, in a terminal and in tables: what failed comes first.

Tolerances, and what stops a run, are in `gates`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import dagster as dg

from clay_assets.errors import ClayError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def clay_errors_as_failures() -> Iterator[None]:
    """Re-raise a ClayError as a `dagster.Failure`, so that the UI shows its message first.

    Raises:
        dagster.Failure: replaces a `ClayError`, with the same message.
    """
    try:
        yield
    except ClayError as error:
        raise dg.Failure(str(error), metadata={"error": type(error).__name__}) from error


def run_error(result: dg.ExecuteInProcessResult) -> str:
    """The first error of a failed run, in one line."""
    for event in result.all_events:
        if event.is_step_failure:
            return f"{event.step_key}: {step_error(event)}"
    return "no step failed; see the run's log"


def step_error(event: dg.DagsterEvent) -> str:
    """The error of a failed step in one line: the message of the ClayError, if there is one."""
    data = event.step_failure_data
    text = data.user_failure_data.description if data.user_failure_data else None
    error = data.error
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause  # Dagster wraps the original error
    return " ".join((text or (error.message if error else "") or "no message").split())


def outcomes(ledger: pd.DataFrame) -> list[dict[str, Any]]:
    """Scenes per outcome and error as rows of a small table, most frequent first.

    Errors that only differ in words containing the scene's id, such as file names, are counted together.

    Args:
        ledger: `item_id`, `outcome`, `error` (None if there is none), one row per scene.
    """
    counts: dict[tuple[str, str], list[str]] = {}
    for item, outcome, error in zip(ledger["item_id"], ledger["outcome"], ledger["error"].fillna(""), strict=True):
        reason = " ".join("…" if item in word else word for word in error.split())
        counts.setdefault((outcome, reason), []).append(item)
    rows = [
        {"outcome": outcome, "reason": reason, "scenes": len(items), "such as": items[0]}
        for (outcome, reason), items in counts.items()
    ]
    return sorted(rows, key=lambda row: (-row["scenes"], row["outcome"], row["reason"]))
