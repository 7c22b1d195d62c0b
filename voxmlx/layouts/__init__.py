"""The ways a model lies in a directory: which tensor of theirs is which of ours."""

from voxmlx.layouts.directory import (
    ModelFiles,
    StoredTensor,
    open_model,
    weight_paths,
)
from voxmlx.layouts.names import LAYOUTS, Layout
from voxmlx.layouts.tensors import Module, model_modules, packed_path

__all__ = [
    "LAYOUTS",
    "Layout",
    "ModelFiles",
    "Module",
    "StoredTensor",
    "model_modules",
    "open_model",
    "packed_path",
    "weight_paths",
]
