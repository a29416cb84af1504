"""How the files of one source are reached. Words only, so that platforms can be read without a raster library."""

from __future__ import annotations

import os
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
        places: buckets (or hosts) that this holds for, such as `sentinel-cogs`, so that copies in our own storage
            are read as our own; none: for all.
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


def s3_endpoint() -> str | None:
    """Where S3 is, by the AWS SDK's own variables; None for AWS itself."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
