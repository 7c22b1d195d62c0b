"""Lines of a user's text file."""

from pathlib import Path

from voxmlx.errors import HotwordError

__all__ = ["MAX_TEXT_BYTES", "TooLongError", "read_lines", "read_utf8"]

MAX_TEXT_BYTES = 16_000_000
"""No text of a user is longer: more comes from a device, or is no text."""


class TooLongError(Exception):
    """A text file of more than MAX_TEXT_BYTES; caught by who knows what was expected."""


def read_utf8(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises OSError, UnicodeDecodeError, and TooLongError before it is all in memory.
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise TooLongError
    text = content.decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(path: Path, content: str) -> list[str]:
    """The lines of a UTF-8 file of `content`. Raises HotwordError."""
    try:
        text = read_utf8(path)
    except FileNotFoundError:
        raise HotwordError(
            f"{path} does not exist; give a file of {content}, one per line"
        ) from None
    except UnicodeDecodeError as error:
        raise HotwordError(
            f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8"
        ) from None
    except OSError as error:
        raise HotwordError(f"{path} cannot be read: {error.strerror}") from None
    except TooLongError:
        raise HotwordError(
            f"{path} holds more than {MAX_TEXT_BYTES // 1_000_000} MB, expected a file "
            f"of {content}, one per line"
        ) from None
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
