"""The result of checking a table against a rule: counts, and the violations.

Each stage defines its rules in its `rules` module. A gate stops an asset before a violating table is published; a check
reports violations in published tables.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clay_assets.errors import InputError

SHOWN = 10  # violations that are listed one by one
LOWEST, HIGHEST = "lowest_", "highest_"  # counts whose extreme is kept when findings are combined; others add up


@dataclass(frozen=True)
class Finding:
    """The result of one rule.

    Attributes:
        numbers: name → count or measurement. The names determine how findings are combined (`combined`).
        violations: the first violations, each naming the tile, request, item, file or chip.
        violation_count: how many things break the rule; one message may cover many, such as all chips of a scene.
        omitted: how many messages were left out of `violations`.
        rows: records for a table that gives more detail.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    violations: tuple[str, ...] = ()
    violation_count: int = 0
    omitted: int = 0
    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing breaks the rule."""
        return not self.violation_count

    @property
    def summary(self) -> str:
        """The violations in one line, without a full stop; empty if there are none."""
        return "; ".join(self.violations) + (f"; and {self.omitted:,} more" if self.omitted else "")

    def raise_if_violated(self, where: str, remedy: str) -> None:
        """Reject the table if it breaks the rule.

        Raises:
            InputError: names the place, the first violations, and what to do.
        """
        if not self.ok:
            raise InputError(f"{where}: {self.summary}. {remedy}")


def make_finding(
    violations: Sequence[str],
    rows: Iterable[Mapping[str, Any]] = (),
    violation_count: int | None = None,
    omitted: int = 0,
    **numbers: Any,
) -> Finding:
    """A finding that keeps only the first violations.

    Args:
        violations: messages about what breaks the rule.
        rows: records for a table.
        violation_count: how many things break it, if different from the number of messages.
        omitted: messages that were left out earlier.
        numbers: counts and measurements by name.
    """
    kept = tuple(violations[:SHOWN])
    count = len(violations) if violation_count is None else violation_count
    return Finding(numbers, kept, count, omitted + len(violations) - len(kept), tuple(rows))


def combined(findings: Mapping[str, Finding]) -> Finding:
    """The findings of several places as one.

    Numbers add up, except those named `lowest_…` and `highest_…`; text is dropped. The first violations are kept,
    each prefixed with the name of its place.

    Args:
        findings: name of the place → its finding; an empty name adds no prefix.
    """
    numbers: dict[str, Any] = {}
    for one in findings.values():
        for name, value in one.numbers.items():
            if isinstance(value, str):
                continue
            if name not in numbers:
                numbers[name] = value
            elif name.startswith((LOWEST, HIGHEST)):
                numbers[name] = (min if name.startswith(LOWEST) else max)(numbers[name], value)
            else:
                numbers[name] += value
    violations = [
        f"{place}: {violation}" if place else violation
        for place, one in findings.items()
        for violation in one.violations
    ]
    return make_finding(
        violations,
        violation_count=sum(one.violation_count for one in findings.values()),
        omitted=sum(one.omitted for one in findings.values()),
        **numbers,
    )


def names(values: Iterable[Any]) -> list[str]:
    """Values as sorted text without duplicates, so that messages are the same in every run."""
    return sorted({str(value) for value in values})
