"""Sound from files, pipes and microphones, as 16 kHz mono float32."""

from importlib.util import find_spec
from typing import NoReturn

from voxmlx.other_package import explanation


def __getattr__(name: str) -> NoReturn:
    # Nothing of ours asks for names here. The other package named voxmlx does, first
    # of all, when its files have been written over ours.
    if name.startswith("__") or find_spec(f"{__name__}.{name}") is not None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    why = explanation() or "import it from a module of voxmlx.audio"
    raise ImportError(f"voxmlx.audio has no {name}: {why}")
