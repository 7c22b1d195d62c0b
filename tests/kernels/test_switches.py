"""Kernels run where they are wanted and known to work, and nowhere else."""

import pytest

from voxmlx.errors import KernelError
from voxmlx.kernels.switches import (
    NAMES,
    NUMPY,
    VARIABLE,
    KernelSwitches,
    kernel_switches,
    refusal,
)


def on(switches: KernelSwitches) -> list[str]:
    return [name for name in NAMES if switches.is_on(name)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("on", list(NAMES)),
        ("", list(NAMES)),
        ("off", []),
        ("add_rms_norm", ["add_rms_norm"]),
        (" add_rms_norm , ", ["add_rms_norm"]),
    ],
)
def test_the_variable_says_which_kernels_run(wanted: str, expected: list[str]) -> None:
    assert on(KernelSwitches(wanted, None)) == expected


@pytest.mark.parametrize("wanted", ["yes", "add_rms_norm,off", "add-rms-norm"])
def test_an_unknown_kernel_is_refused(wanted: str) -> None:
    with pytest.raises(KernelError, match="use on, off, or some of add_rms_norm"):
        KernelSwitches(wanted, None)


def test_a_machine_that_cannot_run_kernels_runs_none() -> None:
    closed = KernelSwitches("on", "no Metal device")
    assert on(closed) == []
    assert closed.why_off("add_rms_norm") == "no Metal device"


@pytest.mark.parametrize(
    ("architecture", "is_refused"),
    [
        ("applegpu_g13g", False),
        ("applegpu_g13s", False),
        ("applegpu_g17p", False),
        ("applegpu_g12p", True),
        ("air64_v27", True),
        ("", True),
        (None, True),
    ],
)
def test_only_known_architectures_run_kernels(
    architecture: str | None, is_refused: bool
) -> None:
    assert (refusal(architecture) is not None) == is_refused


def test_a_kernel_that_was_switched_off_says_why() -> None:
    some = KernelSwitches("on", None)
    assert some.why_off("add_rms_norm") is None
    some.switch_off("add_rms_norm", "wrong by 3")
    assert not some.is_on("add_rms_norm")
    assert some.why_off("add_rms_norm") == "wrong by 3"


def test_a_kernel_that_is_trusted_while_another_is_off_stays_so() -> None:
    some = KernelSwitches("on", None, are_tried=False)
    assert not some.is_on("add_rms_norm")
    with some.without(NUMPY), some.trying("window_attention"):
        some.trust("add_rms_norm")
    assert some.is_on("add_rms_norm")
    assert some.is_on(NUMPY)
    assert not some.is_on("window_attention")


def test_the_process_has_one_gate_by_its_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As at the start of a process; the switches of this one stay as they are.
    started = kernel_switches.__wrapped__
    monkeypatch.setenv(VARIABLE, "nonsense")
    with pytest.raises(KernelError, match="VOXMLX_KERNELS=nonsense"):
        started()
    monkeypatch.setenv(VARIABLE, "off")
    assert kernel_switches() is kernel_switches()
    assert on(started()) == []
