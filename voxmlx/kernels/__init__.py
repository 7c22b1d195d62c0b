"""One public function per hot operation; each picks the fastest correct body."""

from voxmlx.kernels.reference import (
    add_rms_norm_reference,
    attention_reference,
    gelu_reference,
    rotate_reference,
    rotated_pairs_reference,
    swiglu_reference,
)
from voxmlx.kernels.select import (
    Fused,
    add_rms_norm,
    attention,
    gelu,
    rotate,
    rotate_pairs,
    swiglu,
)

__all__ = [
    "Fused",
    "add_rms_norm",
    "add_rms_norm_reference",
    "attention",
    "attention_reference",
    "gelu",
    "gelu_reference",
    "rotate",
    "rotate_pairs",
    "rotate_reference",
    "rotated_pairs_reference",
    "swiglu",
    "swiglu_reference",
]
