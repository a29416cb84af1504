"""How the files of one source are reached. Words only, so that platforms can be read without a raster library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Access:
    """How the files of one source are reached.

    Attributes:
        unsigned: send no AWS credentials (public buckets).
        requester_pays: accept that the reader's account is billed (S3 header `x-amz-request-payer`).
        sign: turns a stored, unsigned href into one that can be read now; None where none is needed.
        places: buckets (or hosts) that this holds for, such as `sentinel-cogs`; none: for all. Copies in our own
            storage are read as our own.
    """

    unsigned: bool = False
    requester_pays: bool = False
    sign: Callable[[str], str] | None = None
    places: tuple[str, ...] = ()

    def to(self, href: str) -> Access:
        """How one href is reached: this way if it lies in one of the places, else as any other file."""
        host = urlsplit(href).netloc
        here = not self.places or any(host == place or host.startswith(f"{place}.") for place in self.places)
        return self if here else Access()
