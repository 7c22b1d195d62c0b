"""Errors of the operating system -> errors of the server's API."""

import errno
import logging

from voxmlx.errors import RequestError

__all__ = ["as_request_error"]

_log = logging.getLogger("voxmlx.serve")

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def as_request_error(error: OSError) -> RequestError:
    """Return a refusal for a full disk (507), and for all else that may pass (503)."""
    reason = error.strerror or str(error) or type(error).__name__
    _log.warning("a request was refused: %s", reason)
    if error.errno in _NO_ROOM:
        return RequestError(
            f"the server has no room for the file ({reason}); try again later, or send "
            "a shorter one",
            code="insufficient_storage",
            status=507,
        )
    return RequestError(
        f"the server cannot do this now ({reason}); try again later",
        code="unavailable",
        status=503,
    )
