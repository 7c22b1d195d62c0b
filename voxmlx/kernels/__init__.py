"""One public function per hot operation; each picks the fastest correct body."""

from voxmlx.kernels.cases import Case
from voxmlx.kernels.check import check_kernels, self_check
from voxmlx.kernels.compiled_graph import CompiledGraph
from voxmlx.kernels.ops import (
    Fused,
    Rotation,
    add_rms_norm,
    attention,
    begin,
    dense_product,
    gelu,
    has_ring_attention_q8,
    has_window_attention,
    quantize_rows,
    ring_attention_q8,
    rms_norm,
    rotate,
    rotation,
    runs_in_numpy,
    swiglu,
    window_attention,
)
from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    attention_reference,
    gelu_reference,
    rotate_reference,
    rotated_pairs_reference,
    swiglu_reference,
)
from voxmlx.kernels.ring_reference import (
    SCALE_BYTES,
    dequantize_rows,
    quantize_rows_reference,
    ring_attention_q8_reference,
    window_attention_reference,
)
from voxmlx.kernels.switches import kernel_switches

__all__ = [
    "SCALE_BYTES",
    "Case",
    "CompiledGraph",
    "Fused",
    "Rotation",
    "add_rms_norm",
    "add_rms_norm_reference",
    "attention",
    "attention_reference",
    "begin",
    "check_kernels",
    "dense_product",
    "dequantize_rows",
    "gelu",
    "gelu_reference",
    "has_ring_attention_q8",
    "has_window_attention",
    "kernel_switches",
    "quantize_rows",
    "quantize_rows_reference",
    "ring_attention_q8",
    "ring_attention_q8_reference",
    "rms_norm",
    "rotate",
    "rotate_reference",
    "rotated_pairs_reference",
    "rotation",
    "runs_in_numpy",
    "self_check",
    "swiglu",
    "swiglu_reference",
    "window_attention",
    "window_attention_reference",
]
