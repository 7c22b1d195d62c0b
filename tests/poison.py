"""Infinities and NaN put into one stream's numbers, once, anywhere."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import mlx.core as mx
import numpy as np

from voxmlx.model.layer import Layer
from voxmlx.model.state import VoxtralState
from voxmlx.session import Session

__all__ = ["PASSING", "STATE", "poison_state", "poisoned_once"]


def _state(session: Session) -> VoxtralState:
    return session.state


def _ring(part: str, layer: int) -> Callable[[Session], tuple[Any, Any]]:
    return lambda session: (getattr(_state(session), part).cache.rings, layer)


# What a stream remembers, by name -> (its owner, attribute or index).
STATE: dict[str, Callable[[Session], tuple[Any, Any]]] = {
    "mel": lambda s: (_state(s).mel, "pending"),
    "first convolution": lambda s: (_state(s).encoder.stem.conv1, "pending"),
    "second convolution": lambda s: (_state(s).encoder.stem.conv2, "pending"),
    "conditioned norms": lambda s: (_state(s).decoder, "mlp_norms"),
} | {
    f"{part} ring {layer}": _ring(part, layer)
    for part in ("encoder", "decoder")
    for layer in (0, 1)
}

# What is on its way through the network.
PASSING = ("mel frames", "audio embedding", "encoder 0", "encoder 1", "decoder 0",
           "decoder 1", "logits")  # fmt: skip


def poison_state(session: Session, place: str, value: float, share: float) -> None:
    """Put `value` into one number of the state, `share` of the way through it."""
    owner, key = STATE[place](session)
    array = owner[key] if isinstance(key, int) else getattr(owner, key)
    if array.size == 0:
        return
    if isinstance(array, np.ndarray):
        array = array.copy()
        array.flat[min(array.size - 1, int(share * array.size))] = value
        setattr(owner, str(key), array)
        return
    flat = mx.array(array.reshape(-1))
    flat[min(flat.size - 1, int(share * flat.size))] = value
    array = flat.reshape(array.shape)
    mx.eval(array)
    if isinstance(key, int):
        owner[key] = array
    else:
        setattr(owner, key, array)


@contextmanager
def poisoned_once(model: Any, place: str, value: float, row: int) -> Iterator[None]:
    """Put `value` into what passes `place` next, of the stream with this index.

    A stream alone has index 0. Streams that are not in a pass have no index in it.
    """
    spent: list[bool] = []

    def hit(arrays: Sequence[mx.array]) -> list[mx.array]:
        changed = list(arrays)
        if not spent and row < len(changed) and changed[row].size:
            spent.append(True)
            x = mx.array(changed[row].reshape(-1))
            x[x.size // 2] = value
            changed[row] = x.reshape(changed[row].shape)
        return changed

    def hit_row(x: mx.array) -> mx.array:
        """x, [1, T, ...] of one stream or [N, 1, ...] of several with one position."""
        if spent or row >= x.shape[0]:
            return x
        spent.append(True)
        flat = mx.array(x.reshape(x.shape[0], -1))
        flat[row, flat.shape[1] // 2] = value
        return flat.reshape(x.shape)

    part, _, number = place.partition(" ")
    owner: Any = Layer
    name, layer = "__call__", None
    if part == "mel":
        owner, name = type(model.mel), "step_together"
    elif part == "audio":
        owner, name = type(model), "encode_together"
    elif part == "logits":
        owner, name = type(model.decoder), "_logits"
    else:
        layer = getattr(model, part).layers[int(number)]
    step = getattr(owner, name)

    def stand_in(*arguments: Any) -> Any:
        result = step(*arguments)
        if isinstance(result, list):
            return hit(result)
        if isinstance(result, mx.array):
            return hit_row(result)
        if arguments[0] is not layer:
            return result
        return result._replace(branch=hit_row(result.branch))

    with patch.object(owner, name, stand_in):
        yield
