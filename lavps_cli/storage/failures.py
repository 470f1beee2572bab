"""What clients of stores raise, as a file system would raise it; tried again where it may pass."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

WAITS = (0.5, 2.0)
"""Seconds before each further try where the connection is lost or the store is busy."""
_BUSY = (408, 409, 425, 429, 500, 502, 503, 504)
_BUSY_ERRORS = (errno.EBUSY, getattr(errno, "EREMOTEIO", errno.EIO))
_DENIED = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError")
_PASSING = {"TransportError", "HTTPClientError", "ConnectionError", "ClientError", "HTTPError",
            "IncompleteRead"}  # fmt: skip
"""Classes, or their bases, that clients raise where a connection breaks."""
_CLIENTS = ("botocore", "aiohttp", "aiobotocore", "gcsfs", "google", "httpx", "httpx2", "httpcore",
            "httpcore2", "requests", "urllib3", "huggingface_hub")  # fmt: skip

T = TypeVar("T")


class UnreachableError(ConnectionError):
    """A store cannot be reached, or broke off, as often as it was asked."""


def asked(where: str, ask: Callable[[], T]) -> T:
    """Return a store's answer, after a few tries where it may pass, or an error in words."""
    for wait in (*WAITS, None):
        try:
            return ask()
        except Exception as error:
            told = told_of(error, where)
            if told is None:
                raise
            if wait is None or not isinstance(told, UnreachableError):
                raise told from error
            time.sleep(wait)
    raise AssertionError("unreachable")


def told_of(error: Exception, where: str) -> OSError | None:
    """Return an error as a file system would raise it, None where it is of no store."""
    name, status = type(error).__name__, _status(error)
    if isinstance(error, FileNotFoundError) or status == 404:
        return FileNotFoundError(errno.ENOENT, "there is no such object", where)
    if isinstance(error, IsADirectoryError):
        return IsADirectoryError(errno.EISDIR, "it is a folder", where)
    if isinstance(error, PermissionError) or status in (401, 403) or name in _DENIED:
        return PermissionError(errno.EACCES, f"access is denied ({_line(error)})", where)
    passing = isinstance(error, ConnectionError | TimeoutError) or status in _BUSY
    if passing or getattr(error, "errno", None) in _BUSY_ERRORS or _is_transport(error):
        text = f"the connection was lost, {len(WAITS) + 1} times ({_line(error)})"
        return UnreachableError(errno.ECONNABORTED, text, where)
    if isinstance(error, OSError | ValueError) or _of_client(error):
        return OSError(errno.EIO, _line(error), where)
    return None


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that an error came with."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        for holder, name in ((response, "status_code"), (error, "status"), (error, "code")):
            value = getattr(holder, name, None)
            if isinstance(value, int):
                return value
        error = error.__cause__
    return None


def _of_client(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in _CLIENTS


def _is_transport(error: BaseException) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    answered = isinstance(getattr(error, "response", None), dict)  # By botocore: no.
    return _of_client(error) and not answered and bool(names & _PASSING)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:200].rstrip(".")
