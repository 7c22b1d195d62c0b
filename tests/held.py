"""How much an object holds, whatever its parts are called."""

import gc
import sys
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import mlx.core as mx
import numpy as np

__all__ = ["held_bytes"]

# Shared by all: what an object refers to of these is no memory of its own.
_SHARED = (type, ModuleType, FunctionType, BuiltinFunctionType)


def held_bytes(*owners: Any) -> int:
    """Return the bytes of everything that can be reached from `owners`."""
    seen: set[int] = set()
    waiting: list[Any] = list(owners)
    n_bytes = 0
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _SHARED):
            continue
        seen.add(id(one))
        n_bytes += sys.getsizeof(one)
        if isinstance(one, mx.array):
            n_bytes += one.nbytes
        elif isinstance(one, np.ndarray):
            waiting.append(one.base)  # a view keeps all of it
        else:
            waiting += gc.get_referents(one)
    return n_bytes
