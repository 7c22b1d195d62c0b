"""Microphones of this machine, and models in the Hub's cache."""

from collections.abc import Callable
from dataclasses import dataclass

from voxmlx.audio.devices import PortAudio, import_portaudio
from voxmlx.errors import DeviceError

__all__ = ["CachedModel", "Microphones", "cached_models", "microphones"]


@dataclass(frozen=True, slots=True)
class Microphones:
    """Number of inputs and the default input's rate; `trouble` says why there are none.

    Not their names: those often tell a person's.
    """

    n_inputs: int
    default_rate_hz: int | None
    trouble: str | None


@dataclass(frozen=True, slots=True)
class CachedModel:
    """A model of this kind that needs no download."""

    repository: str
    n_bytes: int


def microphones(
    portaudio: Callable[[], PortAudio] = import_portaudio,
) -> Microphones:
    try:
        found = portaudio()
    except DeviceError as error:
        return Microphones(0, None, str(error))
    try:
        devices = found.query_devices()
        n = sum(device["max_input_channels"] > 0 for device in devices)
        if n == 0:
            return Microphones(0, None, "there is no input device")
        default = found.query_devices(kind="input")
    except found.PortAudioError as error:
        return Microphones(0, None, str(error))
    return Microphones(n, round(default["default_samplerate"]), None)


def cached_models() -> list[CachedModel]:
    """The repositories named for Voxtral that are in the Hub's cache."""
    # Local imports: the network client must not load with the package.
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        cache = scan_cache_dir()
    except CacheNotFound:
        return []
    models = [
        CachedModel(repository.repo_id, repository.size_on_disk)
        for repository in cache.repos
        if "voxtral" in repository.repo_id.lower()
    ]
    return sorted(models, key=lambda model: model.repository)
