"""Sockets that listen: bound to an address, with enough open files behind them."""

import errno
import resource
import socket
from contextlib import suppress

from voxmlx.errors import ServerError

__all__ = ["BACKLOG", "address_of", "listen", "raise_open_files"]

BACKLOG = 512
"""Connections that may wait to be accepted."""

# What macOS allows a process at most.
_MAX_OPEN_FILES = 10_240


def raise_open_files() -> int:
    """Let the process have as many open files as it may; return how many that are.

    A Mac starts programs with 256. Each connection is one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
    wanted = min(most, _MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # a system may allow less than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
    return _MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def listen(
    host: str, port: int, *, host_option: str = "--host", port_option: str = "--port"
) -> socket.socket:
    """A socket bound to a port, any free one for 0. Raises ServerError.

    The options are those of the command, for what an error says.
    """
    try:
        host.encode("idna")
    except UnicodeError:
        raise _no_address(host, host_option, "it is no name of a host") from None
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            why = "in use" if error.errno == errno.EADDRINUSE else "not for everybody"
            raise ServerError(
                f"port {port} of {host} is {why}; choose another {port_option}, or 0 for "
                "any that is free"
            ) from None
        # Python adds to the reason what it tried.
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise _no_address(host, host_option, reason) from None


def _no_address(host: str, host_option: str, reason: str) -> ServerError:
    shown = ascii(host)[1:-1] if len(host) < 80 else f"of {len(host)} characters"
    return ServerError(
        f"{host_option} {shown} is no address of this machine ({reason}); 127.0.0.1 "
        "serves this machine alone, 0.0.0.0 others too"
    )


def address_of(sock: socket.socket) -> str:
    """Return HOST:PORT of a socket that is bound."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
