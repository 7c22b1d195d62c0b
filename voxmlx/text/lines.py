"""Lines of a user's text file."""

from pathlib import Path

from voxmlx.errors import HotwordError

__all__ = ["read_lines"]


def read_lines(path: Path, content: str) -> list[str]:
    """The lines of a UTF-8 file of `content`. Raises HotwordError."""
    try:
        text = path.read_text(encoding="utf-8-sig")
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
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines
