"""Who may use the server: names, origins and keys, each in all its spellings."""

import base64
import re
import socket
import ssl
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx
import pytest
import websockets.exceptions
from websockets import Subprotocol
from websockets.sync.client import connect

from tests.serve.loopback import PATIENCE_S, serving
from tests.serve.test_command import started
from voxmlx import Checkpoint
from voxmlx.errors import RequestError, ServerError
from voxmlx.serve.__main__ import main
from voxmlx.serve.server import tls_context
from voxmlx.web.access import Access, read_host, read_origin

# Every kind of character that a header carries: token, base64, space, Latin-1, beyond.
KEYS = ("secret", "q+/Zw8==", "two words", 'a"b,c;d', "schlüssel", "鍵")


def status(access: Access, **headers: str) -> int:
    """What a request with these headers is answered with, by the checks alone."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        access.check({"host": "localhost"} | named)
    except RequestError as error:
        return error.status
    return 200


# ------------------------------------------------------------------ names


LOOPBACK_NAMES = ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:80", "127.1.2.3")
STRANGE_NAMES = (
    "rebound.example",
    "127.0.0.1.rebound.example",
    "localhost.rebound.example",
    "x@localhost",
    "localhost/x",
    "[::1",
    "",
)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "192.168.1.5"])
def test_a_name_that_a_stranger_can_point_here_is_refused_on_any_address(
    host: str,
) -> None:
    access = Access.for_host(host, (), ())
    assert {status(access, host=name) for name in LOOPBACK_NAMES} == {200}
    assert {status(access, host=name) for name in STRANGE_NAMES} == {421}


def test_a_server_for_other_machines_answers_to_its_addresses_and_own_names() -> None:
    name = socket.gethostname()
    names = ("192.168.1.5:8000", "[fe80::1]:8000", name.upper(), f"{name}:8000")
    local = f"{name.partition('.')[0]}.local."
    open_to_all = Access.for_host("0.0.0.0", (), ())
    assert {status(open_to_all, host=one) for one in (*names, local)} == {200}
    for_this_machine = Access.for_host("127.0.0.1", (), ())
    assert {status(for_this_machine, host=one) for one in names[:2]} == {421}


def test_names_of_a_proxy_are_allowed_by_name_or_by_origin() -> None:
    proxied = Access.for_host(
        "127.0.0.1",
        (),
        [read_origin("https://Captions.Example:8443")],
        [read_host("mac.tail1234.ts.net")],
    )
    for name in ("captions.example:8443", "captions.example", "MAC.tail1234.ts.net"):
        assert status(proxied, host=name) == 200
    assert status(proxied, host="other.example") == 421
    anything = Access.for_host("0.0.0.0", (), (), [read_host("*")])
    assert status(anything, host="other.example") == 200


# ---------------------------------------------------------------- origins


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("https://notes.example", "https://notes.example"),
        ("https://Notes.Example/", "https://notes.example"),
        ("https://notes.example:443", "https://notes.example"),
        ("http://notes.example:8080", "http://notes.example:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("tauri://localhost", "tauri://localhost"),
        ("*", "https://anybody.example"),
    ],
)
def test_an_origin_is_known_as_browsers_write_it(given: str, sent: str) -> None:
    access = Access.for_host("127.0.0.1", (), [read_origin(given)])
    assert status(access, origin=sent) == 200
    if given != "*":
        strangers = ("https://evil.example", f"{sent}.evil.example", "null", "", "x")
        assert {status(access, origin=one) for one in strangers} == {403}


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            ["--allow-origin", text]
            for text in (
                "",
                "notes.example",
                "https://",
                "https:notes.example",
                "https://notes.example/page",
                "https://a@notes.example",
                "https://notes.example:port",
                "https://notes.example:99999",
                "https://notes example",
                "https://*.example",
                "https://notes.example?x",
                "null",
            )
        ),
        *(
            ["--allow-host", text]
            for text in ("", " ", "https://a.example", "a.example:80", "a b", "*.a.b")
        ),
        ["--ssl-keyfile", "key.pem"],
    ],
)
def test_doors_that_would_never_open_are_refused_at_the_start(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["--demo", "--port", "0", *arguments])
    assert "error: " in capsys.readouterr().err.splitlines()[-1]


# ------------------------------------------------------------------- keys


def as_headers(key: str, encoding: str) -> list[dict[str, str]]:
    """The ways in which clients send a key, values as a server reads them."""
    text = key.encode(encoding).decode("latin-1")
    return [{"authorization": f"Bearer {text}"}, {"x_api_key": text}]


def as_protocol(key: str) -> str:
    encoded = base64.urlsafe_b64encode(key.encode()).decode().rstrip("=")
    return f"openai-insecure-api-key.{encoded}"


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_any_characters_is_known_however_it_is_sent(key: str) -> None:
    access = Access.for_host("127.0.0.1", ["other", key], ())
    sent = [*as_headers(key, "utf-8"), {"sec_websocket_protocol": as_protocol(key)}]
    if key not in ("鍵",):
        sent += as_headers(key, "latin-1")
    assert [status(access, **headers) for headers in sent] == [200] * len(sent)
    for wrong in (key + "x", key[:-1], "", "Bearer", key.upper() + "!"):
        sent = [*as_headers(wrong, "utf-8")]
        sent.append({"sec_websocket_protocol": f"realtime, {as_protocol(wrong)}"})
        assert [status(access, **headers) for headers in sent] == [401] * 3
    access.check({"host": "localhost"}, is_open=True)


def test_a_plain_key_is_a_subprotocol_as_it_is() -> None:
    access = Access.for_host("127.0.0.1", ["secret"], ())
    name = "realtime, openai-insecure-api-key.secret"
    assert status(access, sec_websocket_protocol=name) == 200


@pytest.mark.parametrize("key", KEYS[:5])
def test_sockets_and_requests_with_such_a_key_are_served(
    tiny_checkpoint: Checkpoint, key: str
) -> None:
    with serving(tiny_checkpoint, keys=(key,)) as server:
        authorization = {b"Authorization": f"Bearer {key}".encode()}
        url = f"{server.http}/v1/models"
        assert (
            httpx.get(url, headers=authorization, timeout=PATIENCE_S).status_code == 200
        )
        refused = httpx.get(url, timeout=PATIENCE_S)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (
            401,
            "Bearer",
        )
        offered = [Subprotocol("realtime"), Subprotocol(as_protocol(key))]
        with connect(f"{server.ws}/v1/realtime", subprotocols=offered) as websocket:
            assert websocket.subprotocol == "realtime"
        with (
            pytest.raises(websockets.exceptions.InvalidStatus) as caught,
            connect(f"{server.ws}/v1/realtime", subprotocols=offered[:1]),
        ):
            pass
        assert caught.value.response.status_code == 401
        assert caught.value.response.headers["www-authenticate"] == "Bearer"


# ---------------------------------------------------------------- browsers


@pytest.mark.parametrize(
    "path",
    ["/", "/page/app.js", "/page/style.css", "/page/none.js", "/v1/models", "/health"],
)
def test_every_answer_tells_a_browser_what_it_may_do(
    tiny_checkpoint: Checkpoint, path: str
) -> None:
    with serving(tiny_checkpoint) as server:
        headers = httpx.get(f"{server.http}{path}", timeout=PATIENCE_S).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]


# --------------------------------------------------------------------- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    directory = tmp_path_factory.mktemp("tls")
    cert, key = directory / "cert.pem", directory / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(cert)]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return cert, key


def test_with_a_certificate_requests_and_sockets_are_encrypted(
    certificate: tuple[Path, Path],
) -> None:
    cert, key = certificate
    files = ("--ssl-certfile", str(cert), "--ssl-keyfile", str(key))
    context = ssl.create_default_context(cafile=str(cert))
    with started(*files) as (_, url):
        assert url.startswith("https://127.0.0.1:")
        assert (
            httpx.get(f"{url}/health", verify=context, timeout=PATIENCE_S).status_code
            == 200
        )
        address = url.replace("https", "wss")
        with connect(f"{address}/v1/realtime", ssl=context) as websocket:
            assert "session.created" in str(websocket.recv(timeout=PATIENCE_S))
        same_page = {"Origin": url}
        answer = httpx.get(
            f"{url}/v1/models", verify=context, headers=same_page, timeout=PATIENCE_S
        )
        assert answer.status_code == 200


def nothing(files: Sequence[Path]) -> tuple[Path, Path | None]:
    return files[0].with_name("none.pem"), None


def another_key(files: Sequence[Path]) -> tuple[Path, Path | None]:
    other = files[0].with_name("other.pem")
    command = ["openssl", "genrsa", "-out", str(other), "2048"]
    subprocess.run(command, check=True, capture_output=True)
    return files[0], other


def no_key(files: Sequence[Path]) -> tuple[Path, Path | None]:
    return files[0], None


def locked(files: Sequence[Path]) -> tuple[Path, Path | None]:
    other = files[0].with_name("locked.pem")
    command = ["openssl", "pkey", "-aes256", "-passout", "pass:x", "-in", str(files[1])]
    subprocess.run([*command, "-out", str(other)], check=True, capture_output=True)
    return files[0], other


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (nothing, "none.pem cannot be read (No such file"),
        (another_key, "hold no certificate with its private key in PEM"),
        (no_key, "hold no certificate with its private key in PEM"),
        (locked, "has a password; write it without one"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_one_line(
    certificate: tuple[Path, Path],
    wrong: Callable[[Sequence[Path]], tuple[Path, Path | None]],
    message: str,
) -> None:
    with pytest.raises(ServerError, match=re.escape(message)) as caught:
        tls_context(*wrong(certificate))
    assert "\n" not in str(caught.value)
