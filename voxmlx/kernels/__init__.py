"""One public function per hot operation; each picks the fastest correct body."""

from voxmlx.kernels.reference import (
    attention_reference,
    gelu_reference,
    rotate_reference,
    swiglu_reference,
)
from voxmlx.kernels.select import attention, gelu, rotate, swiglu

__all__ = [
    "attention",
    "attention_reference",
    "gelu",
    "gelu_reference",
    "rotate",
    "rotate_reference",
    "swiglu",
    "swiglu_reference",
]
