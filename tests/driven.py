"""A session whose requests to the network are looked at on their way."""

from collections.abc import Callable

from voxmlx import Event, Session
from voxmlx.decoding.loop import compute
from voxmlx.decoding.network_requests import DecodeRequest
from voxmlx.model import VoxtralRealtime

__all__ = ["drive"]


def drive(
    session: Session, model: VoxtralRealtime, look: Callable[[DecodeRequest], None]
) -> list[Event]:
    """Do all work of a session; `look` sees each of its requests for ids first."""
    events: list[Event] = []
    while (work := session.work()) is not None:
        try:
            request = next(work)
            while True:
                if isinstance(request, DecodeRequest):
                    look(request)
                request = work.send(compute(model, request))
        except StopIteration as end:
            events += end.value
    return events
