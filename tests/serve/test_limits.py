"""The table of limits in the guide: whole, and as the code has them."""

import ast
import re
from dataclasses import fields
from pathlib import Path

import pytest
from uvicorn.config import Config

import voxmlx
from voxmlx.serve import (
    multipart_form,
    pcm,
    stream_options,
    text_buffer,
    upload_body,
    wyoming_dialect,
)
from voxmlx.serve.__main__ import make_parser
from voxmlx.serve.json_object import MAX_TEXT_CHARS
from voxmlx.session_options import DRAFT_WINDOW_MS
from voxmlx.web import bounded_server, sockets
from voxmlx.web.limits import Limits

ROOT = Path(voxmlx.__file__).parent.parent
SERVE = [
    path
    for folder in ("serve", "web")
    for path in (ROOT / "voxmlx" / folder).glob("*.py")
]
PAGE = ROOT / "docs" / "server.md"


class Noted:
    """The limits by default, and which of them were looked at."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._limits = Limits()

    def __getattr__(self, name: str) -> float:
        self.names.add(name)
        return getattr(self._limits, name)


def mb(n: float) -> str:
    assert n % (1 << 20) == 0
    return f"{int(n) >> 20} MB"


def kb(n: int) -> str:
    assert n % 1024 == 0
    return f"{n >> 10} kB"


def seconds(s: float) -> str:
    return f"{s:g} s"


def limits_of_the_code(limits: Noted) -> dict[str, str]:
    """The first words of each row -> its default, as the code has it."""
    args = make_parser().parse_args(["--demo"])
    repeated = text_buffer.TextBuffer().max_chars
    assert limits.max_body_bytes == args.max_body_mb << 20
    assert limits.max_upload_bytes == args.max_uploads_mb << 20
    assert limits.max_connections == args.max_connections
    assert limits.idle_s == args.idle
    keep_alive_s = Config(app="").timeout_keep_alive
    return {
        "clients served": f"{args.max_sessions}",
        "uploads at once": f"{args.max_uploads}",
        "size of one upload": mb(limits.max_body_bytes),
        "size of all uploads": mb(limits.max_upload_bytes),
        "connections": f"{limits.max_connections:g}",
        "time for the head": seconds(limits.head_s),
        "time for an event": seconds(limits.head_s),
        "time for a TLS": seconds(bounded_server._HANDSHAKE_S),
        "idle time between": seconds(keep_alive_s),
        "idle time within": seconds(limits.body_idle_s),
        "speed of a body": f"{kb(upload_body._LEAST_BYTES_PER_S)}/s",
        "rest of a body": seconds(sockets._REST_S),
        "time of a live client": seconds(limits.quiet_s),
        "idle time of a websocket": seconds(limits.idle_s),
        "time without reading": seconds(limits.write_s),
        "size of a websocket message": mb(limits.max_message_bytes),
        "size of an event": mb(limits.max_message_bytes),
        "events of Wyoming": mb(limits.max_partial_bytes),
        "length of a text": f"{MAX_TEXT_CHARS} characters",
        "hot words": f"{stream_options.MAX_HOTWORDS}, "
        f"{stream_options.MAX_HOTWORD_CHARS} characters",
        "rate of raw sound": f"{pcm._MIN_RATE} to {pcm._MAX_RATE} Hz",
        "channels": f"{wyoming_dialect._MAX_CHANNELS}",
        "pings": f"{sockets._MAX_FRAMES}, then {sockets._FRAMES_PER_S} a second",
        "drafts that a client": "1",
        "memory of a draft": f"{seconds(DRAFT_WINDOW_MS / 1000)}, 110 MB of the full "
        "model",
        "messages that a client": mb(limits.max_unread_bytes),
        "events of a file": f"{limits.max_unread_events:g}",
        "sound that waits": seconds(limits.max_waiting_ms / 1000),
        "messages that wait": f"{limits.max_waiting_messages:g}",
        "fields of a form": f"{multipart_form._MAX_FIELDS}, "
        f"{kb(multipart_form._MAX_FIELD_BYTES)}",
        "head of a part": kb(multipart_form._MAX_HEAD_BYTES),
        "text that a transcript": f"{repeated} characters",
        "time to end": seconds(limits.grace_s),
    }


# Constants that bound nothing that a client could go beyond.
OTHERS = {"MAX_READ_BYTES", "_MAX_READ_BYTES", "_MAX_OPEN_FILES", "_MAX_LISTS"}


def rows() -> list[list[str]]:
    """The cells of the table, row by row."""
    table = PAGE.read_text("utf-8").split("\n## Limits\n")[1].split("\n| limit")[1]
    lines = table.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_has_every_limit_with_its_default() -> None:
    expected = limits_of_the_code(Noted())
    found: dict[str, str] = {}
    for name, default, _, _ in rows():
        (begins,) = [one for one in expected if re.match(rf"{one}\b", name)]
        assert begins not in found, name
        found[begins] = default
    assert found == expected


def test_no_limit_of_the_code_is_missing() -> None:
    noted = Noted()
    limits_of_the_code(noted)
    assert noted.names == {one.name for one in fields(Limits)}
    source = Path(__file__).read_text("utf-8")
    for path in SERVE:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Store):
                continue
            if re.match(r"_?MAX_", node.id) and node.id not in OTHERS:
                assert node.id in source, f"{path.name}: {node.id} has no row"


def test_flags_of_the_table_are_those_of_the_command() -> None:
    parser = make_parser()
    flagged = {flag.strip("`"): default for _, default, flag, _ in rows() if flag}
    flags = {name for name in parser.option_names() if name.startswith("--max")}
    assert {*flagged} == flags | {"--idle"}
    for flag, default in flagged.items():
        assert default.split()[0] == str(
            parser.get_default(flag.strip("-").replace("-", "_"))
        )


def test_codes_of_the_table_are_those_of_errors() -> None:
    code = "".join(path.read_text("utf-8") for path in SERVE)
    code += (ROOT / "voxmlx" / "errors.py").read_text("utf-8")
    codes = {
        name for *_, beyond in rows() for name in re.findall(r"`([a-z_]+)`", beyond)
    }
    assert len(codes) >= 7
    for name in codes:
        assert re.search(rf'code: str = "{name}"|code="{name}"|"code": "{name}"', code)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:30])
def test_every_row_says_what_happens(row: list[str]) -> None:
    assert len(row) == 4
    assert len(row[3]) > 5
