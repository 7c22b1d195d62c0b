"""Access to the server: keys, origins of web pages, and host names."""

import base64
import binascii
import hmac
import ipaddress
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from voxmlx.errors import RequestError

__all__ = ["LOOPBACK", "Access", "is_loopback", "read_host", "read_key", "read_origin"]

ANY = "*"

# The address of this machine for itself, and its names.
LOOPBACK = "127.0.0.1"
_LOOPBACK = ("localhost", LOOPBACK, "::1")

# How a browser, which cannot set headers on a websocket, passes a key: as a name of a
# subprotocol (OpenAI's clients do so). Such a name allows few characters, so a key may
# also be base64url there.
_KEY_PROTOCOL = "openai-insecure-api-key."

_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Access:
    """Keys, origins and host names that a server accepts.

    A page of a stranger can give its own name the address of this server (DNS
    rebinding). The page is then of the same origin for the browser. So a request must
    name the server by one of `hosts`, or by an address if `has_addresses`: nobody can
    point an address elsewhere.
    """

    keys: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = (ANY,)
    has_addresses: bool = True

    @staticmethod
    def for_host(
        host: str,
        keys: Sequence[str],
        origins: Sequence[str],
        hosts: Sequence[str] = (),
    ) -> "Access":
        """Return what a server bound to `host` accepts.

        `origins` and `hosts` are as `read_origin` and `read_host` give them. The name
        in an origin is a name of the server too: a reverse proxy has one name for both.
        """
        names = [*_LOOPBACK, *hosts]
        names += [urlsplit(one).hostname or ANY for one in origins if one != ANY]
        if not is_loopback(host):
            names += [host.lower(), *_names_of_this_machine()]
        return Access(tuple(keys), tuple(origins), tuple(names), not is_loopback(host))

    def check(self, headers: Mapping[str, str], *, is_open: bool = False) -> None:
        """Raise RequestError unless a request may pass; `is_open` needs no key."""
        self._check_host(headers.get("host", ""))
        self._check_origin(headers.get("origin"), headers.get("host", ""))
        if self.keys and not is_open:
            self._check_key(headers)

    def _check_host(self, host: str) -> None:
        if ANY in self.hosts:
            return
        name = _host_name(host)
        if name in self.hosts or is_loopback(name):
            return
        if self.has_addresses and _is_address(name):
            return
        raise RequestError(
            f"the host {host[:80]!r} is not this server; use its address, or start it "
            "with --allow-host NAME",
            code="wrong_host",
            status=421,
        )

    def _check_origin(self, origin: str | None, host: str) -> None:
        if origin is None or ANY in self.origins:
            return
        if origin.lower() in self.origins or _netloc(origin) == host.lower() != "":
            return
        raise RequestError(
            f"pages of {origin[:80]!r} may not use this server; start it with "
            "--allow-origin to let them",
            code="origin_not_allowed",
            status=403,
        )

    def _check_key(self, headers: Mapping[str, str]) -> None:
        # All pairs, whatever matches: the time taken tells nothing about a key.
        matches = [
            hmac.compare_digest(one, encoded)
            for one in _given_keys(headers)
            for key in self.keys
            for encoded in _encodings(key)
        ]
        if not any(matches):
            raise RequestError(
                "the API key is missing or wrong; send `Authorization: Bearer KEY`",
                code="invalid_api_key",
                status=401,
            )


def read_key(text: str) -> str:
    """Return a key as clients send it. Raises ValueError for what no header carries."""
    if not text or text.isspace():
        raise ValueError(
            "the key is empty, expected visible characters; is a variable not set?"
        )
    if text != text.strip() or not text.isprintable():
        raise ValueError(
            "the key begins or ends with white space, or has a control character; no "
            "HTTP header can carry it"
        )
    return text


def read_origin(text: str) -> str:
    """Return an origin as browsers write it, or `*`. Raises ValueError."""
    if text == ANY:
        return text
    wrong = ValueError(
        f"{text[:80]!r} is no origin, expected SCHEME://NAME or SCHEME://NAME:PORT, as "
        "in https://notes.example"
    )
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise wrong from None
    if not parts.scheme or "@" in parts.netloc or port == 0:
        raise wrong
    if parts.path not in ("", "/") or "?" in text or "#" in text:
        raise wrong
    try:
        name = read_host(parts.netloc.removesuffix(f":{port}"))
    except ValueError:
        raise wrong from None
    shown = f"[{name}]" if ":" in name else name
    if port is None or port == _DEFAULT_PORTS.get(parts.scheme):
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{port}"


def read_host(text: str) -> str:
    """Return a host's name in lower case, or `*`. Raises ValueError."""
    if text == ANY:
        return text
    name = text.strip("[]") if text.startswith("[") else text
    if _is_address(name):
        return name.lower()
    try:
        name = name.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if not name.replace(".", "").replace("-", "").replace("_", "").isalnum():
        raise ValueError(
            f"{text[:80]!r} is no host name, expected one without a scheme or a port, "
            "as in captions.example"
        )
    return name


def _given_keys(headers: Mapping[str, str]) -> Iterator[bytes]:
    """All that a request may mean as a key; its header values are Latin-1."""
    yield _bytes(headers.get("x-api-key", ""))
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield _bytes(credentials.strip())
    for name in headers.get("sec-websocket-protocol", "").split(","):
        if name.strip().startswith(_KEY_PROTOCOL):
            given = _bytes(name.strip().removeprefix(_KEY_PROTOCOL))
            yield given
            try:
                padded = given + b"=" * (-len(given) % 4)
                yield base64.b64decode(padded, altchars=b"-_", validate=True)
            except binascii.Error:
                pass  # a key as it is


def _bytes(value: str) -> bytes:
    return value.encode("latin-1", "replace")


def _encodings(key: str) -> Iterator[bytes]:
    """A key's bytes, as either of the encodings that clients use in headers."""
    yield key.encode()
    if not key.isascii():
        try:
            yield key.encode("latin-1")
        except UnicodeEncodeError:
            return


def _names_of_this_machine() -> Iterator[str]:
    """What others call this machine without asking a name server of the internet."""
    name = socket.gethostname().lower().removesuffix(".")
    yield name
    yield name.partition(".")[0]
    yield f"{name.partition('.')[0]}.local"


def is_loopback(host: str) -> bool:
    """Return whether no other machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _host_name(host: str) -> str:
    """Without the port, in lower case; nothing where that makes no sense."""
    try:
        parts = urlsplit(f"//{host}")
        if "@" in parts.netloc or parts.path:
            return ""
        return (parts.hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _netloc(url: str) -> str:
    """Host and port, in lower case; nothing where that makes no sense."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""
