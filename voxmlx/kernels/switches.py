"""Switches of kernels: which run in this process, and why others do not."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache

import mlx.core as mx

from voxmlx.errors import KernelError

__all__ = [
    "CHOOSABLE",
    "COMPILED",
    "COMPILED_LAYERS",
    "NAMES",
    "NUMPY",
    "ON_METAL",
    "STOCK_ATTENTION",
    "STOCK_PRODUCT",
    "VARIABLE",
    "KernelSwitches",
    "kernel_switches",
    "refusal",
]

VARIABLE = "VOXMLX_KERNELS"

NAMES = ("add_rms_norm", "quantize_rows", "ring_attention_q8", "window_attention")

# Layers that MLX compiles as a whole; Python builds their graph without.
COMPILED_LAYERS = "compiled_layers"

ON_METAL = (*NAMES, COMPILED_LAYERS)

# Layers and products in float32 where there is no GPU; MLX's operations without.
NUMPY = "numpy"

CHOOSABLE = (*ON_METAL, NUMPY)

# Bodies that MLX's compiler makes one kernel of; plain operations do without it.
COMPILED = ("gelu", "rotated_pairs", "swiglu")

# MLX's own attention runs everywhere, unless it was seen to fail.
STOCK_ATTENTION = "scaled_dot_product_attention"

# So do its products, which nothing could do without.
STOCK_PRODUCT = "quantized_matmul"

# "applegpu_g13s": generation 13 is the M1. A virtual machine's GPU says "air64_...",
# and lacks what the bodies use (simdgroup reductions, bfloat16).
_ARCHITECTURE = re.compile(r"applegpu_g(\d+)[a-z]")
_OLDEST_GENERATION = 13


class KernelSwitches:
    """Says of every kernel whether it runs; a failed one can only be switched off."""

    def __init__(
        self, wanted: str, refusal: str | None, *, are_tried: bool = True
    ) -> None:
        """`wanted` is "on", "off" or names with commas between.

        `refusal` says why this machine can run none on a GPU. Unless they `are_tried`,
        none of those runs before `trust`. Raises KernelError for a name that is not known.
        """
        self.n_changes = 0
        """How often a switch has moved."""
        self.has_gradients = False
        """Whether only bodies run that have a gradient."""
        self._untried = frozenset[str]() if are_tried else frozenset(ON_METAL)
        self._off: dict[str, str] = {}
        if refusal is not None:
            self._off = dict.fromkeys(ON_METAL, refusal)
        chosen = _parse(wanted)
        for name in CHOOSABLE:
            if name not in chosen:
                self._off.setdefault(name, f"not in {VARIABLE}={wanted}")

    def is_on(self, name: str) -> bool:
        return name not in self._off and name not in self._untried

    def trust(self, name: str) -> None:
        """Let a kernel run, now that it was tried; unless it is switched off."""
        if name in self._untried:
            self._untried -= {name}
            self.n_changes += 1

    def switch_off(self, name: str, reason: str) -> None:
        assert name in (*CHOOSABLE, *COMPILED, STOCK_ATTENTION, STOCK_PRODUCT)
        self._off.setdefault(name, reason)
        self.n_changes += 1

    @contextmanager
    def trying(self, name: str) -> Generator[None]:
        """Let an untried kernel run meanwhile."""
        with self._meanwhile(self._untried - {name}):
            yield

    @contextmanager
    def without(self, name: str) -> Generator[None]:
        """Let a kernel not run meanwhile."""
        with self._meanwhile(self._untried | {name}):
            yield

    @contextmanager
    def with_gradients(self) -> Generator[None]:
        """Let nothing run meanwhile that has no gradient, such as a kernel of ours."""
        self.has_gradients = True
        try:
            with self._meanwhile(self._untried | frozenset(CHOOSABLE)):
                yield
        finally:
            self.has_gradients = False

    @contextmanager
    def _meanwhile(self, untried: frozenset[str]) -> Generator[None]:
        # What is trusted meanwhile stays so: only the change made here is taken back.
        added, removed = untried - self._untried, self._untried - untried
        self._untried = untried
        try:
            yield
        finally:
            self._untried = (self._untried - added) | removed

    def why_off(self, name: str) -> str | None:
        """Return why a kernel must not run; None for one that may."""
        return self._off.get(name)


def _parse(wanted: str) -> frozenset[str]:
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if names == ["off"]:
        return frozenset()
    if names in ([], ["on"]):
        return frozenset(CHOOSABLE)
    for name in names:
        if name not in CHOOSABLE:
            raise KernelError(
                f"{VARIABLE}={wanted}: {name!r} is no kernel; use on, off, or some of "
                f"{','.join(CHOOSABLE)}"
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
    """The switches of this process, by its environment and its GPU.

    No kernel runs before `self_check` has tried it.
    """
    architecture = None
    if mx.metal.is_available() and mx.default_device() == mx.Device(mx.gpu):
        architecture = str(mx.device_info().get("architecture", ""))
    wanted = os.environ.get(VARIABLE, "on")
    return KernelSwitches(wanted, refusal(architecture), are_tried=False)
