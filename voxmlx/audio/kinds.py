"""Kinds of files by their first bytes: sound in some container, or no sound."""

from voxmlx.errors import AudioError

__all__ = ["HEAD_BYTES", "is_container", "is_mp4", "needs_seeking", "refuse_no_sound"]

# What is looked at: 16 ms of sound at the least, so that a live pipe is not waited on.
HEAD_BYTES = 512

# Boxes that stand before the sound or its index in an MP4, and those that decide.
_MP4_BOXES = (b"ftyp", b"styp", b"free", b"skip", b"wide", b"pnot", b"uuid", b"sidx")
_MP4_INDEX, _MP4_SOUND = (b"moov", b"moof"), b"mdat"

# Containers that FFmpeg reads only with seeking: their index stands at the end
# (Core Audio's packet table), or it looks for it there.
_SEEKING = (b"caff", b"wvpk", b"MAC ", b"MPCK", b"riff\x2e\x91\xcf\x11")

# How files begin that are no sound: (first bytes, what they are).
_NO_SOUND = (
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x7fELF", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"SQLite format 3", "a database"),
)

# How sound begins that no bare samples begin with by chance.
_CONTAINERS = (
    b"RIFF", b"RF64", b"BW64", b"RIFX", b"fLaC", b"OggS", b"ID3", b"FORM", b"caff",
    b".snd", b"\x1aE\xdf\xa3", b"wvpk", b"MAC ", b"#!AMR", b"0&\xb2u\x8ef\xcf\x11",
)  # fmt: skip


def needs_seeking(head: bytes) -> bool:
    """Return whether FFmpeg must seek to read what begins like this.

    An MP4 or QuickTime file is read forward if its index stands before its sound.
    """
    if head.startswith(_SEEKING):
        return True
    position = 0
    while (box := head[position + 4 : position + 8]) in _MP4_BOXES:
        size = int.from_bytes(head[position : position + 4], "big")
        if size < 8:
            return True
        position += size
    if position == 0:
        return box == _MP4_SOUND
    return box not in _MP4_INDEX


def is_mp4(head: bytes) -> bool:
    """Return whether the bytes begin an MP4 or a QuickTime file."""
    return head[4:8] in (*_MP4_BOXES, *_MP4_INDEX, _MP4_SOUND)


def is_container(head: bytes) -> bool:
    """Return whether the bytes begin a container that is surely no bare samples."""
    return head.startswith(_CONTAINERS) or head[4:8] in (*_MP4_BOXES, *_MP4_INDEX)


def refuse_no_sound(head: bytes, name: str, shown: str) -> None:
    """Raise AudioError for text, pictures, archives and the like.

    `shown` is the command that looks closer at the bytes.
    """
    for start, what in _NO_SOUND:
        if head.startswith(start):
            raise AudioError(
                f"{name} is {what}, expected sound; look at it with: {shown}"
            )
    text = _as_text(head)
    if text is None:
        return
    begin = text.lstrip("\ufeff \t\r\n").lower()
    if begin.startswith(("<!doctype html", "<html", "<head", "<body")):
        what = "a web page (HTML)"
    elif begin.startswith("<"):
        what = "XML text"
    elif begin.startswith("#extm3u"):
        what = "a playlist (M3U), which only names sound"
    elif begin.startswith(("{", "[")):
        what = "JSON text"
    else:
        what = "text"
    raise AudioError(f"{name} is {what}, expected sound; look at it with: {shown}")


def _as_text(head: bytes) -> str | None:
    """Return the bytes as text, None if they hold what no text holds."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = head[: len(head) // 2 * 2].decode("utf-16", "replace")
        is_text = text[1:].isprintable() or all(_is_textual(char) for char in text[1:])
        return text if is_text and len(text) > 8 and "\ufffd" not in text else None
    # Sound of this length without one control character does not happen.
    if len(head) >= 64 and all(_is_textual(chr(byte)) or byte > 0x7F for byte in head):
        return head.decode("latin-1")
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text and all(_is_textual(char) for char in text) else None


def _is_textual(char: str) -> bool:
    return char.isprintable() or char in "\t\r\n\f\v\x1b\ufeff"
