"""The number of samples that a W64 promises.

Measured with FFmpeg 8.1: it takes the length from where the file ends, so that it does
not tell that a file was cut.
"""

__all__ = ["W64_HEAD_BYTES", "w64_samples"]

# Its first parts are small: the format, and perhaps a few notes.
W64_HEAD_BYTES = 4096

# Each part begins with 16 bytes that name it and 8 that say its size, these included.
_PART_HEAD_BYTES = 24
_NAME_END = bytes.fromhex("f3acd3118cd100c04f8edb8a")
_FORMAT, _DATA = b"fmt " + _NAME_END, b"data" + _NAME_END
_FIRST_PART = 40


def w64_samples(head: bytes) -> int | None:
    """Return the samples per channel that the first bytes promise; None if unknown."""
    position = _FIRST_PART
    step_bytes = 0
    while (name := head[position : position + 16]) and len(head) >= position + 40:
        size = int.from_bytes(head[position + 16 : position + 24], "little")
        if name == _FORMAT:
            at = position + _PART_HEAD_BYTES + 12
            step_bytes = int.from_bytes(head[at : at + 2], "little")
        if name == _DATA:
            n_bytes = size - _PART_HEAD_BYTES
            return n_bytes // step_bytes if step_bytes and n_bytes > 0 else None
        if size < _PART_HEAD_BYTES:
            return None
        position += (size + 7) // 8 * 8
    return None
