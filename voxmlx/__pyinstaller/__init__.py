"""Hooks for PyInstaller, so that a frozen application holds voxmlx."""

from pathlib import Path

__all__ = ["get_hook_dirs"]


def get_hook_dirs() -> list[str]:
    """Return the folder of the hooks; PyInstaller calls this by an entry point."""
    return [str(Path(__file__).parent)]
