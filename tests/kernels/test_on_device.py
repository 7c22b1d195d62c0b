"""Every kernel and a compiled layer on a real GPU, at the sizes of the full model."""

import mlx.core as mx
import pytest

from voxmlx import demo, load
from voxmlx.checkpoint import best_dtype
from voxmlx.doctor.estimate import FULL_SIZE
from voxmlx.kernels.cases import cases
from voxmlx.kernels.check import run_case
from voxmlx.model.layer_check import layer_cases

pytestmark = [
    pytest.mark.metal,
    pytest.mark.skipif(not mx.metal.is_available(), reason="there is no Metal here"),
]


@pytest.mark.parametrize("kv_bits", [16, 8])
def test_every_case_passes_on_this_gpu(kv_bits: int) -> None:
    findings = [run_case(case) for case in cases(FULL_SIZE, best_dtype(), kv_bits)]
    assert findings
    assert [f for f in findings if f.fault is not None] == []


def test_compiled_layers_are_right_on_this_gpu() -> None:
    findings = [run_case(case) for case in layer_cases(load(demo.NAME).model)]
    assert [f.fault for f in findings] == [None, None]
