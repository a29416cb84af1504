"""The result of a check, and running checks side by side.

Each check runs in its own daemon thread; one that does not answer in time has failed. Secrets are removed from all
messages.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, Queue
from typing import Literal

from clay_assets.errors import ClayError
from clay_assets.transport.access import without_signature

Status = Literal["ok", "warning", "failed"]
# Names of variables whose values are never printed.
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASSW|CREDENTIAL|SAS", re.IGNORECASE)
SHORTEST_SECRET = 6  # characters; redacting shorter values would hide ordinary words
USER_IN_ADDRESS = re.compile(r"(?<=://)[^/\s@'\"]*:[^/\s@'\"]*@|(?<=://)[^/\s@'\":]+@")


@dataclass(frozen=True)
class Line:
    """The result of one check.

    Attributes:
        status: `ok`, `warning` or `failed`.
        what: name of the check.
        fact: the result, in words.
        remedy: what to do about it, as a sentence; empty if there is nothing to do.
    """

    status: Status
    what: str
    fact: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<7}  {self.what}: {self.fact}.{f' {self.remedy}' if self.remedy else ''}"


Check = Callable[[], Iterable[Line]]


def side_by_side(checks: Mapping[str, Check], timeout: float) -> list[Line]:
    """The results in the order of the checks. Threads of checks that hang are abandoned."""
    answers: Queue[tuple[str, list[Line]]] = Queue()

    def run(what: str, check: Check) -> None:
        try:
            lines = list(check())
        except Exception as error:  # whatever a library raises must not stop the other checks
            lines = [failure(what, error)]
        answers.put((what, lines))

    for what, check in checks.items():
        threading.Thread(target=run, args=(what, check), name=f"clay-doctor {what}", daemon=True).start()
    found: dict[str, list[Line]] = {}
    deadline = time.monotonic() + timeout
    with suppress(Empty):
        while len(found) < len(checks):
            what, lines = answers.get(timeout=max(0.0, deadline - time.monotonic()))
            found[what] = lines
    late = f"did not answer within {timeout:g} s"
    remedy = "Check the address and the network, or allow more time with --timeout."
    return [line for what in checks for line in found.get(what, [Line("failed", what, late, remedy)])]


def failure(what: str, error: Exception, status: Status = "failed") -> Line:
    """An error as a line; messages of a ClayError end with the remedy."""
    text = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if not isinstance(error, ClayError):
        return Line(status, what, f"{type(error).__name__}: {text}", "Check the related settings.")
    fact, _, remedy = text.rpartition(". ")
    return Line(status, what, fact, f"{remedy}.") if fact else Line(status, what, text, "See docs/operate.md.")


def without_secrets(line: Line) -> Line:
    """A line without signatures, passwords and values of secret variables."""
    secrets = [
        value
        for name, value in os.environ.items()
        if SECRET_NAME.search(name) and len(value) >= SHORTEST_SECRET and not value.isdecimal()
    ]

    def clean(text: str) -> str:
        text = USER_IN_ADDRESS.sub("***@", without_signature(text))
        for secret in sorted(secrets, key=len, reverse=True):
            text = text.replace(secret, "***")
        return text

    return replace(line, what=clean(line.what), fact=clean(line.fact), remedy=clean(line.remedy))
