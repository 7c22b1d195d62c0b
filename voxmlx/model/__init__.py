"""The network: weights in modules, one stream's memory in states."""

from voxmlx.model.state import VoxtralState
from voxmlx.model.voxtral import VoxtralRealtime

__all__ = ["VoxtralRealtime", "VoxtralState"]
