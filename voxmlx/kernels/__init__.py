"""One public function per hot operation; each picks the fastest correct body."""

from voxmlx.kernels.check import self_check
from voxmlx.kernels.ops import (
    Fused,
    add_rms_norm,
    attention,
    gelu,
    has_ring_attention_q8,
    has_window_attention,
    quantize_rows,
    ring_attention_q8,
    rotate,
    rotate_pairs,
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
    ring_attention_reference,
    window_attention_reference,
)

__all__ = [
    "SCALE_BYTES",
    "Fused",
    "add_rms_norm",
    "add_rms_norm_reference",
    "attention",
    "attention_reference",
    "dequantize_rows",
    "gelu",
    "gelu_reference",
    "has_ring_attention_q8",
    "has_window_attention",
    "quantize_rows",
    "quantize_rows_reference",
    "ring_attention_q8",
    "ring_attention_q8_reference",
    "ring_attention_reference",
    "rotate",
    "rotate_pairs",
    "rotate_reference",
    "rotated_pairs_reference",
    "self_check",
    "swiglu",
    "swiglu_reference",
    "window_attention",
    "window_attention_reference",
]
