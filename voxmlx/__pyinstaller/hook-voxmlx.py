"""PyInstaller's hook: modules that load on first use, kernels, the demo, MLX's files."""

from PyInstaller.utils.hooks import (
    collect_data_files,
    collect_dynamic_libs,
    collect_submodules,
    copy_metadata,
)

# Names of voxmlx load on first use, and commands by their name: no import shows them.
hiddenimports = collect_submodules(
    "voxmlx", filter=lambda name: not name.startswith("voxmlx.__pyinstaller")
) + collect_submodules("mlx")
# Model, page, Metal kernels; MLX's own kernels are data beside its libraries.
datas = (
    collect_data_files("voxmlx")
    + collect_data_files("mlx", includes=["**/*.metallib"])
    + copy_metadata("voxmlx-realtime")
)
binaries = collect_dynamic_libs("mlx")
