"""A form in a request: its fields, and the bytes of its one file."""

from collections.abc import Callable
from typing import NoReturn
from urllib.parse import parse_qs

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from voxmlx.errors import RequestError

__all__ = ["MultipartForm", "UrlEncodedForm", "read_form"]

# What is no file is a few words, and hot words.
_MAX_FIELDS, _MAX_FIELD_BYTES = 1100, 256 << 10
_MAX_HEAD_BYTES = 8 << 10


class UrlEncodedForm:
    """A form without a file: clients send it if they name the file in another way.

    It is read so that they can be told why that is not done.
    """

    def __init__(self) -> None:
        self._content = bytearray()

    @property
    def fields(self) -> dict[str, list[str]]:
        """Return all fields. Raises RequestError if they are too many."""
        try:
            return parse_qs(
                _text(bytes(self._content)),
                keep_blank_values=True,
                max_num_fields=_MAX_FIELDS,
            )
        except ValueError:
            raise _wrong(f"it has more than {_MAX_FIELDS} fields") from None

    def feed(self, content: bytes) -> bytes:
        """Return no bytes of a file. Raises RequestError for a form that is too long."""
        if len(self._content) + len(content) > _MAX_FIELD_BYTES:
            raise _wrong(f"its fields have more than {_MAX_FIELD_BYTES} bytes")
        self._content += content
        return b""

    def finish(self) -> NoReturn:
        """Raise RequestError: there is no file."""
        raise _no_file()


class MultipartForm:
    """Bytes of a body in, bytes of the file `file` out; `fields` is what else it has."""

    def __init__(self, content_type: str) -> None:
        """Raises RequestError for what is no such form."""
        _, parameters = parse_options_header(content_type)
        self.fields: dict[str, list[str]] = {}
        self.file_name: str | None = None
        self._file = bytearray()
        self._header_name, self._header_value = bytearray(), bytearray()
        self._n_head = 0
        self._disposition = b""
        self._name = ""
        self._is_file = False
        self._value = bytearray()
        self._n_fields = self._n_field_bytes = 0
        self._is_complete = False
        take: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": self._add_header_name,
            "on_header_value": self._add_header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": self._add_content,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        try:
            self._parser = MultipartParser(parameters[b"boundary"], take)  # pyright: ignore[reportArgumentType] -- a TypedDict
        except (KeyError, FormParserError):
            raise _wrong("it has no boundary") from None

    def feed(self, content: bytes) -> bytes:
        """Return the bytes of the file in the next bytes of the body.

        Raises RequestError for what is no form.
        """
        try:
            self._parser.write(content)
        except FormParserError as error:
            raise _wrong(str(error)) from None
        taken = bytes(self._file)
        self._file.clear()
        return taken

    def finish(self) -> str:
        """Return the file's name. Raises RequestError unless a whole file came."""
        if not self._is_complete:
            raise _wrong("it ends before its last boundary")
        if self.file_name is None:
            raise _no_file()
        return self.file_name

    def _begin_part(self) -> None:
        self._disposition = b""
        self._n_head = 0
        self._value.clear()

    def _add_header_name(self, content: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._header_name += content[start:end]

    def _add_header_value(self, content: bytes, start: int, end: int) -> None:
        self._count_head(end - start)
        self._header_value += content[start:end]

    def _count_head(self, n: int) -> None:
        self._n_head += n
        if self._n_head > _MAX_HEAD_BYTES:
            raise _wrong("a part has too long a head")

    def _end_header(self) -> None:
        if bytes(self._header_name).lower() == b"content-disposition":
            self._disposition = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _end_headers(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise _wrong("a part has no name")
        self._name = _text(options[b"name"])
        self._is_file = b"filename" in options
        if not self._is_file:
            self._n_fields += 1
            if self._n_fields > _MAX_FIELDS:
                raise _wrong(f"it has more than {_MAX_FIELDS} fields")
            return
        if self._name != "file":
            raise RequestError(
                f"{self._name[:40]!r} is a file, expected the sound in `file`, and "
                "text in all other fields",
                param=self._name[:256],
            )
        if self.file_name is not None:
            raise RequestError("several files, expected one", param="file")
        self.file_name = _text(options[b"filename"])

    def _add_content(self, content: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._file += content[start:end]
            return
        self._n_field_bytes += end - start
        if self._n_field_bytes > _MAX_FIELD_BYTES:
            raise _wrong(f"its fields have more than {_MAX_FIELD_BYTES} bytes")
        self._value += content[start:end]

    def _end_part(self) -> None:
        if not self._is_file:
            self.fields.setdefault(self._name, []).append(_text(bytes(self._value)))

    def _end(self) -> None:
        self._is_complete = True


def read_form(content_type: str) -> MultipartForm | UrlEncodedForm:
    """Return a reader of a body. Raises RequestError for what is no form."""
    kind, _ = parse_options_header(content_type)
    if kind == b"application/x-www-form-urlencoded":
        return UrlEncodedForm()
    if kind != b"multipart/form-data":
        raise _no_file()
    return MultipartForm(content_type)


def _text(content: bytes) -> str:
    return content.decode("utf-8", "replace")


def _wrong(reason: str) -> RequestError:
    return RequestError(f"the form cannot be read: {reason}")


def _no_file() -> RequestError:
    return RequestError(
        "file is missing, expected a sound file in multipart/form-data", param="file"
    )
