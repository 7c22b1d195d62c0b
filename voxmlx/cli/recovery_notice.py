"""The line that a command prints when a stream recovers."""

from voxmlx.events import Event, Recovered

__all__ = ["RecoveryNotice"]

_HINTS = {
    "auto": "--dtype bfloat16 has room for larger numbers",
    "float16": "--dtype bfloat16 has room for larger numbers",
}
_OTHER_HINT = "please report it with what python -m voxmlx.doctor prints"


class RecoveryNotice:
    """Tells a stream's first recovery, and at the second one what to do."""

    def __init__(self, dtype: str) -> None:
        """`dtype` is what --dtype asked for."""
        self._hint = _HINTS.get(dtype, _OTHER_HINT)
        self._n_told = 0

    def observe(self, event: Event) -> str | None:
        """The sentence to show with an event; None for most events."""
        if not isinstance(event, Recovered) or self._n_told == 2:
            return None
        self._n_told += 1
        told = (
            f"the {event.cause} gave numbers that are not finite at "
            f"{event.time_ms / 1000:.1f} s; the stream goes on"
        )
        return (
            told
            if self._n_told == 1
            else f"{told}. It is the second time: {self._hint}"
        )
