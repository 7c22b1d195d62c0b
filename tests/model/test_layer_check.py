"""Compiled layers say what they say when Python builds them."""

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from io import StringIO
from itertools import pairwise
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.graph import on_metal
from benchmarks.host_time import narrow_network
from convert.quality import read_sounds
from tests.sounds import speech_like
from voxmlx import Checkpoint, demo, load
from voxmlx.decoding.loop import greedy_ids
from voxmlx.kernels import CompiledGraph, check_kernels, ops
from voxmlx.kernels.switches import COMPILED_LAYERS, KernelSwitches
from voxmlx.model import layer, layer_check
from voxmlx.model.layer import Residual
from voxmlx.model.layer_check import layer_cases


def needs_compiler(test: Any) -> Any:
    """MLX compiles for a CPU with what the system has, a second for each size."""
    has_one = shutil.which("g++") is not None
    skip = pytest.mark.skipif(not has_one, reason="MLX finds no C++ compiler")
    return pytest.mark.slow(skip(test))


@pytest.fixture
def switches(monkeypatch: pytest.MonkeyPatch) -> KernelSwitches:
    """The form that layers have on a Mac, but for Metal kernels, on this CPU."""
    made = KernelSwitches(COMPILED_LAYERS, None)
    monkeypatch.setattr(ops, "has_metal", lambda: True)
    for module in (ops, layer_check):
        monkeypatch.setattr(module, "kernel_switches", lambda: made)
    return made


@pytest.fixture
def n_runs(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    counted: list[None] = []
    real = CompiledGraph.run

    def run(self: CompiledGraph, *arguments: Any) -> Any:
        counted.append(None)
        return real(self, *arguments)

    monkeypatch.setattr(CompiledGraph, "run", run)
    return lambda: len(counted)


def ids_of(checkpoint: Checkpoint) -> list[int]:
    """Ids of live steps over the demo's sample: one audio token at a time."""
    state = checkpoint.model.open_state()
    (sound,) = read_sounds([demo.SAMPLE], with_transcripts=False)
    samples = sound.samples[None]
    steps = np.split(samples, range(1280, samples.shape[1], 1280), axis=1)
    return [i for s in steps for i in greedy_ids(checkpoint.model, s, state).tolist()]


@needs_compiler
def test_ids_are_the_same_from_compiled_layers(
    switches: KernelSwitches, n_runs: Callable[[], int]
) -> None:
    compiled = ids_of(load(demo.NAME, "float32"))
    assert n_runs() > len(compiled)
    switches.switch_off(COMPILED_LAYERS, "for comparison")
    before = n_runs()
    assert ids_of(load(demo.NAME, "float32")) == compiled
    assert n_runs() == before


@needs_compiler
@pytest.mark.usefixtures("switches")
def test_rings_are_written_in_place_between_compiled_graphs() -> None:
    model = load(demo.NAME, "float32").model
    state = model.open_state()
    sound = speech_like(1280 * 40)[None]
    places: list[list[int]] = []
    for i in range(40):
        greedy_ids(model, sound[:, 1280 * i : 1280 * (i + 1)], state)
        mx.eval(state.arrays())
        cache = state.decoder.cache
        places.append(
            [
                np.array(r, copy=False).__array_interface__["data"][0]
                for r in cache.rings
            ]
        )
    # Rings grow now and then, and are elsewhere afterwards.
    assert sum(a != b for a, b in pairwise(places)) <= 2


@needs_compiler
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_layer_passes_its_case(switches: KernelSwitches, dtype: Any) -> None:
    network = load(demo.NAME, dtype).model
    untried = KernelSwitches(COMPILED_LAYERS, None, are_tried=False)
    for module in (ops, layer_check):
        module.kernel_switches = lambda: untried  # type: ignore[attr-defined]
    assert not untried.is_on(COMPILED_LAYERS)
    findings = check_kernels(layer_cases(network), untried)
    assert [(f.label, f.fault) for f in findings] == [
        ("encoder, 4 positions", None),
        ("decoder, 1 position", None),
    ]
    assert untried.is_on(COMPILED_LAYERS)
    assert switches.is_on(COMPILED_LAYERS)


@needs_compiler
def test_a_layer_that_is_compiled_wrong_is_built_by_python(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    switches: KernelSwitches,
) -> None:
    network = load(demo.NAME, "float32").model
    real = CompiledGraph.run

    def wrong(self: CompiledGraph, *arguments: Any) -> Any:
        first, *rest = real(self, *arguments)
        return first * 1.01, *rest

    monkeypatch.setattr(CompiledGraph, "run", wrong)
    with caplog.at_level(logging.WARNING, "voxmlx"):
        check_kernels(layer_cases(network), switches)
    assert not switches.is_on(COMPILED_LAYERS)
    (line,) = caplog.messages
    assert "compiled layers are off, and Python builds every step" in line


def test_a_switch_can_be_moved_for_a_while() -> None:
    untried = KernelSwitches("on", None, are_tried=False)
    with untried.trying(COMPILED_LAYERS):
        assert untried.is_on(COMPILED_LAYERS)
    assert not untried.is_on(COMPILED_LAYERS)
    tried = KernelSwitches("on", None)
    with tried.without(COMPILED_LAYERS):
        assert not tried.is_on(COMPILED_LAYERS)
    assert tried.is_on(COMPILED_LAYERS)


@pytest.mark.usefixtures("switches")
def test_a_graph_is_compiled_again_when_a_kernel_is_switched_off(
    switches: KernelSwitches,
) -> None:
    n_traces = 0

    def body(x: mx.array) -> mx.array:
        nonlocal n_traces
        n_traces += 1
        return mx.transpose(x)

    compiled = CompiledGraph(body)
    x = mx.zeros((1, 2, 3))
    for _ in range(3):
        compiled(x)
    assert n_traces == 1
    switches.switch_off("add_rms_norm", "it failed")
    for _ in range(3):
        compiled(x)
    assert n_traces == 2


@pytest.mark.usefixtures("switches")
def test_long_steps_and_several_streams_are_not_compiled() -> None:
    compiled = CompiledGraph(lambda x: x)
    assert compiled.is_on(mx.zeros((1, 4, 8)))
    assert not compiled.is_on(mx.zeros((1, 5, 8)))
    assert not compiled.is_on(mx.zeros((2, 1, 8)))


def nodes(outputs: tuple[mx.array, ...]) -> Counter[str]:
    """Kernels of a graph by name, as it is handed to MLX."""
    dot = StringIO()
    mx.export_to_dot(dot, *outputs)
    return Counter(
        line.split('label ="')[1].split('"')[0]
        for line in dot.getvalue().splitlines()
        if "shape=rectangle" in line
    )


def test_a_compiled_layer_launches_what_python_builds() -> None:
    network = narrow_network()
    found: dict[str, list[Counter[str]]] = {}

    def compare(unused: mx.array) -> mx.array:
        for case in stacks():
            stack, cache, n, norm = case
            counted: list[Counter[str]] = []
            for is_compiled in (True, False):
                own = cache.copy()
                step = layer_check.begin_step(
                    [own], stack.rotary, [n], stack.config.n_kv_heads
                )
                x = mx.zeros((1, n, 64))
                residual = Residual(x, x, stack.layers[0].mlp.down_proj.get("bias"))
                made = KernelSwitches("on", None)
                if not is_compiled:
                    made.switch_off(COMPILED_LAYERS, "for comparison")
                ops.kernel_switches = lambda made=made: made
                left = stack.layers[0](residual, 0, step, norm)
                assert left.branch is not None
                counted.append(nodes((left.x, left.branch, *own.waiting)))
            found[type(stack).__name__] = counted
        return unused

    def stacks() -> Iterator[tuple[Any, Any, int, mx.array | None]]:
        yield network.encoder, network.encoder.make_state().cache, 4, None
        state = network.decoder.make_state([6])
        yield network.decoder, state.cache, 1, state.mlp_norms[0]

    fused = ops.Fused.__call__
    with on_metal():
        ops.Fused.__call__ = fused  # what MLX fuses, as MLX fuses it
        mx.export_function(lambda *_: None, compare, mx.zeros(1))
    for compiled, built in found.values():
        assert compiled == built
    graphs = [one for one in vars(layer).values() if isinstance(one, CompiledGraph)]
    assert "_entered" in {graph.body.__name__ for graph in graphs}
