"""What the server allows, and whom."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from voxmlx.errors import RequestError

__all__ = ["Access", "Limits"]

_LOOPBACK = ("localhost", "127.0.0.1", "::1")

# How a browser, which cannot set headers on a websocket, passes a key: as a name of a
# subprotocol (OpenAI's clients do so).
_KEY_PROTOCOL = "openai-insecure-api-key."


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one client may take."""

    max_message_bytes: int = 16 << 20
    max_body_bytes: int = 512 << 20
    idle_s: float = 300.0
    # Sound that may wait to be decoded (38 MB) before no more is read from a client,
    # whose pings then wait too: many give up after 20 s without an answer.
    max_waiting_ms: int = 600_000
    # Messages that may wait to be read by a client before it is given up.
    max_unread_messages: int = 4096
    # How long sessions may take to end when the server is told to.
    grace_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """Who may use the server: keys, origins of web pages, names it answers to.

    Without `hosts` any name is right; a server on loopback has only loopback's, or a
    web page could reach it through a name of its own (DNS rebinding).
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()

    @staticmethod
    def for_host(host: str, keys: Sequence[str], origins: Sequence[str]) -> "Access":
        """What a server bound to `host` allows."""
        hosts = _LOOPBACK if _is_loopback(host) else ()
        return Access(
            tuple(keys), tuple(origin.rstrip("/") for origin in origins), hosts
        )

    def check(self, headers: Mapping[str, str], *, is_open: bool = False) -> None:
        """Raise RequestError unless a request may pass; `is_open` needs no key."""
        self._check_host(headers.get("host", ""))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        if self.keys and not is_open:
            self._check_key(headers)

    def _check_host(self, host: str) -> None:
        if self.hosts and _host_name(host) not in self.hosts:
            raise RequestError(
                f"the host {host[:80]!r} is not this server; use one of "
                f"{', '.join(self.hosts)}",
                code="wrong_host",
                status=421,
            )

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or origin.rstrip("/") in self.origins:
            return
        if "*" in self.origins:
            return
        if urlsplit_netloc(origin) == host.lower():
            return
        raise RequestError(
            f"pages of {origin[:80]!r} may not use this server; start it with "
            "--allow-origin to let them",
            code="origin_not_allowed",
            status=403,
        )

    def _check_key(self, headers: Mapping[str, str]) -> None:
        given = [headers.get("x-api-key", "")]
        scheme, _, credentials = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            given.append(credentials.strip())
        for name in headers.get("sec-websocket-protocol", "").split(","):
            if name.strip().startswith(_KEY_PROTOCOL):
                given.append(name.strip().removeprefix(_KEY_PROTOCOL))
        # All pairs, whatever matches: the time taken tells nothing about a key.
        matches = [
            hmac.compare_digest(one.encode("utf-8", "replace"), key.encode())
            for one in given
            for key in self.keys
        ]
        if not any(matches):
            raise RequestError(
                "the API key is missing or wrong; send `Authorization: Bearer KEY`",
                code="invalid_api_key",
                status=401,
            )


def _is_loopback(host: str) -> bool:
    return host in _LOOPBACK or host.startswith("127.")


def _host_name(host: str) -> str:
    """Without the port."""
    name = urlsplit_netloc(f"//{host}")
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def urlsplit_netloc(url: str) -> str:
    """Host and port, in lower case; nothing where that makes no sense."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
