"""The number of samples of an MP3, from the entry of its encoder.

FFmpeg uses that entry only where it can seek. Measured with FFmpeg 8.1: from a pipe
the padding of the last packet (up to 70 ms) stays in the sound, and no length is known
by which a cut file would show; with seeking, a sound of one sample becomes 530.
"""

__all__ = ["Mp3Length"]

# The header, checksum and side information of a packet stand before the entry.
_REACH_BYTES = 4 + 2 + 32
# The entry: label, flags, counts, table, quality, encoder, delays.
_ENTRY_BYTES = 4 + 4 + 4 + 4 + 100 + 4 + 24

_HAS_COUNT, _HAS_BYTES, _HAS_TABLE, _HAS_QUALITY = 1, 2, 4, 8


class Mp3Length:
    """Watches the first bytes of an MP3 as they are read, tags passed over."""

    def __init__(self) -> None:
        self._head = b""
        self._n_to_skip = 0
        self._is_over = False
        self.n_samples: int | None = None

    def watch(self, piece: bytes) -> None:
        """See the next bytes of the file."""
        if self._is_over:
            return
        skipped = min(self._n_to_skip, len(piece))
        self._n_to_skip -= skipped
        self._head += piece[skipped:]
        while not self._n_to_skip and len(self._head) >= 10:
            size = _tag_bytes(self._head)
            if size == 0:
                break
            self._n_to_skip = max(0, size - len(self._head))
            self._head = self._head[size:]
        if len(self._head) >= _REACH_BYTES + _ENTRY_BYTES:
            self._is_over = True
            self.n_samples = _n_samples(self._head)
            self._head = b""


def _tag_bytes(head: bytes) -> int:
    """Return the size of the ID3v2 tag that begins here, 0 if none does."""
    if head[:3] != b"ID3" or max(head[6:10]) > 0x7F:
        return 0
    size = 0
    for seven_bits in head[6:10]:
        size = size << 7 | seven_bits
    has_footer = head[5] & 0x10
    return 10 + size + (10 if has_footer else 0)


def _n_samples(head: bytes) -> int | None:
    """Return the length that the first packet's Xing or Info entry tells, if any."""
    if head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    for label in (b"Xing", b"Info"):
        at = head.find(label, 4, _REACH_BYTES + len(label))
        if at >= 0:
            break
    else:
        return None
    flags = int.from_bytes(head[at + 4 : at + 8], "big")
    if not flags & _HAS_COUNT:
        return None
    n_packets = int.from_bytes(head[at + 8 : at + 12], "big")
    is_mpeg_1 = head[1] >> 3 & 3 == 3
    n_samples = n_packets * (1152 if is_mpeg_1 else 576)
    at += 12
    for flag, size in ((_HAS_BYTES, 4), (_HAS_TABLE, 100), (_HAS_QUALITY, 4)):
        at += size if flags & flag else 0
    if head[at : at + 4] in (b"LAME", b"Lavf", b"Lavc"):
        delays = int.from_bytes(head[at + 21 : at + 24], "big")
        n_samples -= (delays >> 12) + (delays & 0xFFF)
    return n_samples if n_samples > 0 else None
