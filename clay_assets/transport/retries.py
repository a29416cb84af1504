"""The retry policy: what is retried, how often, and after how long. Every client is configured from here.

A request is tried `ATTEMPTS` times, with exponential back-off and full jitter, or after the time that the server asks
for (Retry-After, up to a limit). Work whose requests a library retries itself (GDAL, botocore, urllib3) is tried
`WORK_ATTEMPTS` times on top, for errors that those libraries do not see, such as a truncated response.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from clay_assets.errors import SourceError

if TYPE_CHECKING:
    from tenacity import RetryCallState, Retrying
    from urllib3 import Retry

logger = logging.getLogger(__name__)

ATTEMPTS = 5
WORK_ATTEMPTS = 3
STATUSES = (408, 429, 500, 502, 503, 504)  # HTTP statuses worth another attempt
BACK_OFF = 0.5  # seconds, doubled with each attempt
BACK_OFF_MAX = 20.0  # seconds
RETRY_AFTER_MAX = 60  # seconds; the longest wait, even if a server asks for more
CONNECT_TIMEOUT, READ_TIMEOUT = 10, 60  # seconds to connect, seconds of silence while reading
TIMEOUT = (CONNECT_TIMEOUT, READ_TIMEOUT)


class BusyError(SourceError):
    """A server asks to retry later.

    Attributes:
        wait: seconds that it asked for (Retry-After); 0 if it did not.
    """

    def __init__(self, message: str, wait: float = 0) -> None:
        super().__init__(message)
        self.wait = wait


def retrying(
    attempts: int = ATTEMPTS,
    *,
    back_off: float = BACK_OFF,
    on: type[Exception] | tuple[type[Exception], ...] = SourceError,
) -> Retrying:
    """Retry by the policy; the last error is raised.

    Args:
        attempts: maximum number of attempts.
        back_off: initial back-off in seconds.
        on: errors to retry.
    """
    # Imported here, so that platforms and definitions load without it.
    from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

    exponential = wait_random_exponential(multiplier=back_off, max=BACK_OFF_MAX)

    def wait(state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(exponential(state), error.wait if isinstance(error, BusyError) else 0)

    def before_sleep(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        pause = state.next_action.sleep if state.next_action else 0
        asked = f", as the server asks ({error.wait:g} s)" if isinstance(error, BusyError) and error.wait else ""
        done = state.attempt_number
        logger.info("attempt %d of %d failed: %s Next in %.1f s%s.", done, attempts, error, pause, asked)

    return Retrying(
        retry=retry_if_exception_type(on),
        stop=stop_after_attempt(attempts),
        wait=wait,
        before_sleep=before_sleep,
        reraise=True,
    )


def urllib3_retry(attempts: int = ATTEMPTS, back_off: float = BACK_OFF) -> Retry:
    """The policy for a library with its own session of `requests`."""
    from urllib3 import Retry
    from urllib3.exceptions import InvalidHeader

    class Policy(Retry):
        def parse_retry_after(self, retry_after: str) -> float:
            try:
                return super().parse_retry_after(retry_after)
            except InvalidHeader:  # invalid time: our own back-off
                return 0

    return Policy(
        total=attempts - 1,
        backoff_factor=back_off,
        backoff_jitter=back_off,
        status_forcelist=STATUSES,
        allowed_methods=None,  # a search by POST changes nothing, so it may be repeated
        respect_retry_after_header=True,
        retry_after_max=RETRY_AFTER_MAX,
    )


def gdal_options() -> dict[str, str]:
    """The policy for GDAL, whose defaults neither retry a 503 nor time out."""
    return {
        "GDAL_HTTP_MAX_RETRY": str(ATTEMPTS - 1),  # after the first attempt
        "GDAL_HTTP_RETRY_DELAY": str(BACK_OFF),  # GDAL doubles it and adds jitter
        "GDAL_HTTP_RETRY_CODES": ",".join(map(str, STATUSES)),
        "GDAL_HTTP_CONNECTTIMEOUT": str(CONNECT_TIMEOUT),
        "GDAL_HTTP_TIMEOUT": str(READ_TIMEOUT),
    }


def botocore_options() -> dict[str, Any]:
    """The policy for botocore; its standard mode retries these statuses, and adds jitter."""
    return {
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
        "connect_timeout": CONNECT_TIMEOUT,
        "read_timeout": READ_TIMEOUT,
    }
