"""Switches of the Metal kernels: which run in this process, and why others do not."""

import os
import re
from functools import cache

import mlx.core as mx

from voxmlx.errors import KernelError

__all__ = [
    "NAMES",
    "STOCK_ATTENTION",
    "VARIABLE",
    "KernelSwitches",
    "kernel_switches",
    "refusal",
]

VARIABLE = "VOXMLX_KERNELS"

NAMES = ("add_rms_norm", "quantize_rows", "ring_attention_q8", "window_attention")

# MLX's own attention runs everywhere, unless it was seen to fail.
STOCK_ATTENTION = "scaled_dot_product_attention"

# "applegpu_g13s": generation 13 is the M1. A virtual machine's GPU says "air64_...",
# and lacks what the bodies use (simdgroup reductions, bfloat16).
_ARCHITECTURE = re.compile(r"applegpu_g(\d+)[a-z]")
_OLDEST_GENERATION = 13


class KernelSwitches:
    """Says of every kernel whether it runs; a failed one can only be switched off."""

    def __init__(self, wanted: str, refusal: str | None) -> None:
        """`wanted` is "on", "off" or names with commas between.

        `refusal` says why this machine can run none. Raises KernelError for a name
        that is none of NAMES.
        """
        self._off: dict[str, str] = {}
        if refusal is not None:
            self._off = dict.fromkeys(NAMES, refusal)
        chosen = _parse(wanted)
        for name in NAMES:
            if name not in chosen:
                self._off.setdefault(name, f"not in {VARIABLE}={wanted}")

    def is_on(self, name: str) -> bool:
        return name not in self._off

    def switch_off(self, name: str, reason: str) -> None:
        assert name in (*NAMES, STOCK_ATTENTION)
        self._off.setdefault(name, reason)

    def why_off(self, name: str) -> str | None:
        """Return why a kernel does not run; None for a kernel that runs."""
        return self._off.get(name)


def _parse(wanted: str) -> frozenset[str]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if names == ["off"]:
        return frozenset()
    if names in ([], ["on"]):
        return frozenset(NAMES)
    for name in names:
        if name not in NAMES:
            raise KernelError(
                f"{VARIABLE}={wanted}: {name!r} is no kernel; use on, off, or some of "
                f"{','.join(NAMES)}"
            )
    return frozenset(names)


def refusal(architecture: str | None) -> str | None:
    """Return why no kernel may run on a GPU of this name (None: no Metal), or None."""
    if architecture is None:
        return "no Metal device"
    match = _ARCHITECTURE.match(architecture)
    if match is None or int(match.group(1)) < _OLDEST_GENERATION:
        return f"unknown GPU architecture {architecture!r}"
    return None


@cache
def kernel_switches() -> KernelSwitches:
    """The switches of this process, by its environment and its GPU."""
    architecture = None
    if mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu):
        architecture = str(mx.device_info().get("architecture", ""))
    return KernelSwitches(os.environ.get(VARIABLE, "on"), refusal(architecture))
