"""Sound from files, pipes and microphones, as 16 kHz mono float32."""

from typing import NoReturn

from voxmlx.other_package import explanation


def __getattr__(name: str) -> NoReturn:
    # Nothing of ours asks for names here. The other package named voxmlx does, first
    # of all, when its files have been written over ours.
    why = explanation() or "import it from a module of voxmlx.audio"
    raise ImportError(f"voxmlx.audio has no {name}: {why}")
