"""Puts the emulator in the place of MLX's Metal kernels."""

from collections.abc import Callable

import pytest

from tests.metal.emulator.dispatch import Options
from tests.metal.emulator.kernel import EmulatedKernel
from tests.metal.emulator.toolchain import why_unavailable
from voxmlx.kernels import launch, ops
from voxmlx.kernels.launch import MetalKernel
from voxmlx.kernels.switches import NUMPY, KernelSwitches

Emulated = dict[str, EmulatedKernel]
Emulate = Callable[..., Emulated]


@pytest.fixture(scope="session")
def compiler() -> None:
    """Skips, loudly, where no kernel can be emulated."""
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)


@pytest.fixture
def emulate(compiler: None, monkeypatch: pytest.MonkeyPatch) -> Emulate:
    """Switches the named kernels on, run by the emulator; returns them as they come.

    `options` say how threads are scheduled; with `checks` every launch is run twice.
    `body` gives a kernel's body; without `runs` it is translated and no more.
    """

    def switch_on(
        wanted: str = "on",
        *,
        options: Options | None = None,
        checks: bool = True,
        runs: bool = True,
        body: Callable[[MetalKernel], str] = MetalKernel.body,
    ) -> Emulated:
        kernels: Emulated = {}

        def build(kernel: MetalKernel) -> EmulatedKernel:
            if kernel.name not in kernels:
                kernels[kernel.name] = EmulatedKernel(
                    f"voxmlx_{kernel.name}",
                    kernel.inputs,
                    kernel.outputs,
                    body(kernel),
                    options=options,
                    checks=checks,
                    runs=runs,
                )
            return kernels[kernel.name]

        switches = KernelSwitches(wanted, None)
        switches.switch_off(NUMPY, "the emulator stands for a GPU")
        monkeypatch.setattr(launch, "compiled", build)
        monkeypatch.setattr(ops, "kernel_switches", lambda: switches)
        return kernels

    return switch_on
