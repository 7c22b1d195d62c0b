"""The network: weights in modules, one stream's memory in states."""

from voxmlx.model.voxtral import VoxtralRealtime, VoxtralState

__all__ = ["VoxtralRealtime", "VoxtralState"]
