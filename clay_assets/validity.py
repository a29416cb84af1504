"""What looking at a table found: numbers, and what breaks a rule. The rules are the stages' own, in their `validity`
modules; a gate stops an asset on a finding before it publishes, a check reports one on what was published.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from clay_assets.errors import InputError

SHOWN = 10  # violations that are told one by one
LOWEST, HIGHEST = "lowest_", "highest_"  # numbers of which findings taken together keep the extreme; others add up


@dataclass(frozen=True)
class Finding:
    """What was found by one rule.

    Attributes:
        numbers: name → what was counted or measured. Names say how findings are taken together (`together`).
        violations: the first few things that break the rule, each naming tile, request, item, file or chip.
        violated: how many things break it; one violation may tell of many, such as the chips of a scene.
        untold: how many violations were left out.
        rows: records for a table, where numbers alone say too little.
    """

    numbers: Mapping[str, Any] = field(default_factory=dict)
    violations: tuple[str, ...] = ()
    violated: int = 0
    untold: int = 0
    rows: tuple[Mapping[str, Any], ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing breaks the rule."""
        return not self.violated

    @property
    def told(self) -> str:
        """The violations in one line, without a full stop; empty if there are none."""
        return "; ".join(self.violations) + (f"; and {self.untold:,} more" if self.untold else "")

    def demand(self, where: str, remedy: str) -> None:
        """Refuse what was looked at, if it breaks the rule.

        Raises:
            InputError: names the place, the first violations, and what to do.
        """
        if not self.holds:
            raise InputError(f"{where}: {self.told}. {remedy}")


def finding(
    violations: Sequence[str],
    rows: Iterable[Mapping[str, Any]] = (),
    violated: int | None = None,
    untold: int = 0,
    **numbers: Any,
) -> Finding:
    """A finding of which only the first violations are kept.

    Args:
        violations: what breaks the rule.
        rows: records for a table.
        violated: how many things break it, where that is not the number of violations.
        untold: violations that were left out before.
        numbers: what was counted or measured.
    """
    kept = tuple(violations[:SHOWN])
    left_out = untold + len(violations) - len(kept)
    return Finding(numbers, kept, len(violations) if violated is None else violated, left_out, tuple(rows))


def together(findings: Mapping[str, Finding]) -> Finding:
    """The findings of several places as one.

    Numbers add up, except those named `lowest_…` and `highest_…`; text is left out. Every violation is kept up to
    the usual few, behind the name of its place.

    Args:
        findings: name of the place → what was found there; an empty name is not told.
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
    violated, untold = (sum(getattr(one, name) for one in findings.values()) for name in ("violated", "untold"))
    return finding(violations, violated=violated, untold=untold, **numbers)


def names(values: Iterable[Any]) -> list[str]:
    """Values as text, each once, in order: what a violation is told by must not change from run to run."""
    return sorted({str(value) for value in values})
