"""How the files of one source are reached. Words only, so that platforms can be read without a raster library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Access:
    """How the files of one source are reached.

    Attributes:
        unsigned: send no AWS credentials (public buckets).
        requester_pays: accept that the reader's account is billed (S3 header `x-amz-request-payer`).
        sign: turns a stored, unsigned href into one that can be read now; None where none is needed.
    """

    unsigned: bool = False
    requester_pays: bool = False
    sign: Callable[[str], str] | None = None
