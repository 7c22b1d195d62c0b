"""The page that a bug report begins with."""

import itertools
import json
import math
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest

from benchmarks.full_size_checkpoint import FULL_SIZE as FULL_SIZE_CHECKPOINT
from benchmarks.launches import full_size_network, traced_decoder, traced_encoder
from benchmarks.mac_table import table
from voxmlx.config import ModelConfig
from voxmlx.doctor import __main__ as doctor
from voxmlx.doctor import estimate
from voxmlx.doctor.chips import ASSUMPTIONS, chip_of
from voxmlx.doctor.estimate import (
    ESTIMATED,
    FULL_SIZE,
    N_LAUNCHES,
    Speed,
    default_model,
    estimates,
    measured_speed,
    ring_bytes,
    speed_of,
    step_bytes,
    step_estimate,
    weight_bytes,
)
from voxmlx.doctor.inventory import microphones
from voxmlx.doctor.kernel_report import measure_kernels
from voxmlx.doctor.machine import this_machine
from voxmlx.doctor.report import Report
from voxmlx.errors import DeviceError
from voxmlx.kernels import metal
from voxmlx.kernels.switches import (
    CHOOSABLE,
    NAMES,
    STOCK_ATTENTION,
    VARIABLE,
    KernelSwitches,
    kernel_switches,
)
from voxmlx.layouts.recipes import RECIPES


@pytest.fixture
def is_small(monkeypatch: pytest.MonkeyPatch, tiny_config: ModelConfig) -> None:
    """The full model's sizes would take a minute here."""
    monkeypatch.setattr(doctor, "FULL_SIZE", tiny_config)
    monkeypatch.setattr(doctor, "measured_speed", lambda: Speed(68e9, 3e-6))


@pytest.fixture(scope="module")
def tiny_config(tiny_checkpoint: Any) -> ModelConfig:
    return tiny_checkpoint.config


@pytest.mark.usefixtures("is_small")
def test_the_page_says_what_is_here_without_metal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor.main([]) == 0
    page = capsys.readouterr().out
    for expected in (
        f"mlx {metadata.version('mlx')}",
        "no Metal: everything runs on the CPU, without kernels of ours",
        "add_rms_norm: no Metal device",
        f"{STOCK_ATTENTION}: on",
        "microphones:",
        "models in the Hub's cache:",
        "measured 68 GB/s, 3.0 us a launch",
        "q4-mixed",
        "no faults",
    ):
        assert expected in page
    assert max(map(len, page.splitlines())) < 120


@pytest.mark.usefixtures("is_small")
def test_json_has_all_that_the_page_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["gpu"] is None
    assert [kernel["name"] for kernel in found["kernels"]] == [*NAMES, STOCK_ATTENTION]
    assert found["kernels"][-1]["results"][0]["error"] < 1e-4
    assert len(found["estimates"]) == 2 * len(ESTIMATED)
    assert found["faults"] == []
    assert found["steps"] is None


def test_a_model_is_loaded_and_its_steps_are_timed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "measured_speed", lambda: Speed(68e9, 3e-6))
    assert doctor.main(["--demo", "--json", "--kv-bits", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["steps"]["model"] == found["sizes"] == "demo"
    assert 0 < found["steps"]["median_ms"] <= found["steps"]["p95_ms"]


def test_a_model_that_is_not_there_is_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert doctor.main(["--model", "no/such/model/here"]) == 1
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_wrong_choice_of_kernels_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As at the start of a process; the switches of this one stay as they are.
    monkeypatch.setattr(doctor, "kernel_switches", kernel_switches.__wrapped__)
    monkeypatch.setenv(VARIABLE, "fast")
    assert doctor.main([]) == 1
    assert capsys.readouterr().err == (
        "voxmlx: error: VOXMLX_KERNELS=fast: 'fast' is no kernel; use on, off, or some "
        f"of {','.join(CHOOSABLE)}\n"
    )


@pytest.mark.usefixtures("is_small")
def test_a_kernel_that_fails_is_a_fault_and_status_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tiny_config: ModelConfig,
) -> None:
    def broken(*_: object) -> mx.array:
        raise RuntimeError("[metal] unable to build")

    for name in dir(metal):
        if name.endswith("_metal"):
            monkeypatch.setattr(metal, name, broken)
    machine = this_machine()
    tried = measure_kernels(
        tiny_config, mx.float32, KernelSwitches("on", None), has_metal=True
    )
    monkeypatch.setattr(doctor, "measure_kernels", lambda *_, **__: tried)
    monkeypatch.setattr(doctor, "this_machine", lambda: machine)
    assert doctor.main([]) == 1
    page = capsys.readouterr().out
    ours = [kernel for kernel in tried if kernel.name in NAMES]
    n_broken = sum(len(kernel.results) for kernel in ours)
    assert page.count("FAILS: RuntimeError: [metal] unable to build") == n_broken
    assert f"{n_broken} FAULTS, see above" in page


def test_times_stand_beside_those_of_mlx(
    monkeypatch: pytest.MonkeyPatch, tiny_config: ModelConfig
) -> None:
    from tests.kernels.test_check import REFERENCES

    for name, reference in REFERENCES.items():
        monkeypatch.setattr(metal, name, reference)
    switches = KernelSwitches("add_rms_norm", None)
    tried = measure_kernels(tiny_config, mx.float32, switches, has_metal=True)
    for kernel in tried:
        is_ours = kernel.name in NAMES
        assert (kernel.off is None) == (
            kernel.name != "x" and switches.is_on(kernel.name)
        )
        for trial in kernel.results:
            assert trial.fault is None
            assert trial.ms is not None
            assert math.isfinite(trial.ms)
            assert (trial.stock_ms is not None) == is_ours


def test_no_page_names_a_device_or_a_person() -> None:
    devices = [
        {"name": "Ada's AirPods", "max_input_channels": 1, "default_samplerate": 24e3},
        {"name": "speaker", "max_input_channels": 0, "default_samplerate": 48e3},
    ]

    def query(device: Any = None, kind: Any = None) -> Any:
        return devices if kind is None else devices[0]

    fake: Any = SimpleNamespace(query_devices=query, PortAudioError=OSError)
    found = microphones(lambda: fake)
    assert (found.n_inputs, found.default_rate_hz, found.trouble) == (1, 24_000, None)
    assert "Ada" not in repr(found)


def test_a_machine_without_portaudio_says_so() -> None:
    def missing() -> Any:
        raise DeviceError("PortAudio is not installed")

    assert microphones(missing).trouble == "PortAudio is not installed"


def test_the_full_size_is_that_of_the_published_checkpoint() -> None:
    assert ModelConfig.from_params(FULL_SIZE_CHECKPOINT.params()) == FULL_SIZE


def test_every_recipe_in_affine_groups_is_estimated() -> None:
    rows = estimates(Speed(100e9, 1e-6), None)
    names = ["default", "bf16", "q8", "q6", "q4", "q4-mixed", "q3", "q3-mixed"]
    assert [row.recipe for row in rows] == [n for name in names for n in (name, name)]
    sizes = {row.recipe: row.step_bytes for row in rows if row.kv_bits == 16}
    assert sizes["q3"] < sizes["q3-mixed"] < sizes["q4"] < sizes["q4-mixed"]
    # An embedding of 8.5 bits and not of 4.5.
    assert sizes["default"] - sizes["q4"] == 131072 * 3072 // 2


def test_parts_of_a_mixed_recipe_have_their_own_bits() -> None:
    # Attention (q, o, k, v) and adapter get one bit more, the embedding two.
    n = 26 * 2 * 3072 * (4096 + 1024) + 32 * 4 * 1280 * 2048 + (5120 + 3072) * 3072
    mixed, plain = (weight_bytes(RECIPES[name]) for name in ("q4-mixed", "q4"))
    assert mixed - plain == (n + 2 * 131072 * 3072) // 8


def test_bytes_are_those_of_the_field() -> None:
    # 106.5 kB a position in fp16, 8192 of them, and 197 MB of encoder.
    assert ring_bytes(16) == pytest.approx(872e6 + 197e6, rel=0.002)
    assert step_bytes(RECIPES["q4"], 16) == pytest.approx(3565e6, rel=0.01)
    assert step_bytes(RECIPES["q4"], 8) == pytest.approx(3143e6, rel=0.01)


def test_launches_are_those_that_are_counted() -> None:
    network = full_size_network()
    encoder = traced_encoder(network).n_launches
    for kv_bits, n in N_LAUNCHES.items():
        counted = encoder + traced_decoder(network, kv_bits=kv_bits).n_launches
        assert counted == n


def test_a_fast_machine_can_and_a_slow_or_small_one_cannot() -> None:
    verdicts = {
        (o.recipe, o.kv_bits): o.verdict
        for o in estimates(Speed(100e9, 3e-6), 8_000_000_000)
    }
    assert verdicts["q4", 16] == "yes"
    assert verdicts["q8", 8] == "yes"
    assert verdicts["bf16", 16] == "no room"
    slow = {
        (o.recipe, o.kv_bits): o.verdict for o in estimates(Speed(50e9, 3e-6), None)
    }
    assert slow["q4", 16] == "just"
    assert slow["q8", 16] == "no"


def test_speed_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=0.002)  # that one run takes, on any machine
    clock = SimpleNamespace(perf_counter=lambda: next(seconds))
    monkeypatch.setattr(estimate, "time", clock)
    speed = measured_speed(probe_bytes=4_000_000)
    assert speed.bytes_per_s == pytest.approx(2e9)
    assert 0 < speed.launch_s < 0.002


def test_a_report_is_a_page_of_text(tiny_config: ModelConfig) -> None:
    report = Report(
        machine=this_machine(),
        kernel_choice="on",
        dtype="float32",
        sizes="x",
        kernels=[],
        microphones=microphones(),
        models=[],
        speed=Speed(1e9, 1e-6),
        estimates=[],
        delay_ms=480,
        steps=None,
    )
    assert report.text().endswith("no faults\n")


def test_a_stream_holds_until_its_window_has_made_its_steps_too_long() -> None:
    by_recipe = {(o.recipe, o.kv_bits): o for o in estimates(Speed(45e9, 3e-6), None)}
    q4 = by_recipe["q4", 16]
    assert q4.start_ms < 80 < q4.step_ms
    assert q4.holds_hours is not None
    assert 0 < q4.holds_hours < 8192 * 0.08 / 3600
    assert by_recipe["bf16", 16].holds_hours == 0
    assert by_recipe["q4", 8].share == by_recipe["q4", 8].step_ms / 80


def test_the_chip_of_this_machine_adds_arithmetic_and_python() -> None:
    m1 = chip_of("Apple M1")
    assert m1 is not None
    assert chip_of("Apple M1 Pro") != m1
    assert chip_of("AMD EPYC") is None
    bytes_alone = step_estimate(speed_of(m1), RECIPES["q4"], 8)
    known = step_estimate(speed_of(m1), RECIPES["q4"], 8, chip=m1)
    assert known.encoder_ms > bytes_alone.encoder_ms
    assert known.rings_ms > bytes_alone.rings_ms
    assert known.host_ms > bytes_alone.host_ms == 0
    assert known.decoder_ms == bytes_alone.decoder_ms


def test_the_default_model_holds_real_time_on_an_m1_with_rings_of_8_bits() -> None:
    m1 = chip_of("Apple M1")
    assert m1 is not None
    steps = {
        kv_bits: step_estimate(speed_of(m1), default_model(), kv_bits, 1.0, m1).total_ms
        for kv_bits in (8, 16)
    }
    assert steps[8] < 80
    assert steps[8] < steps[16]


def test_the_page_in_the_documentation_has_the_table_that_is_predicted() -> None:
    page = (Path(__file__).parents[2] / "docs" / "macs.md").read_text("utf-8")
    assert "\n".join(table()) in page
    for assumption in ASSUMPTIONS:
        assert f"- {assumption}\n" in page
