"""A warning about the other package that installs a folder `voxmlx`."""

import sys
from contextlib import suppress
from pathlib import Path

__all__ = [
    "MENDED_BY",
    "explanation",
    "other_package",
    "warn_of_other_package",
]

# What replaces both packages by ours. One `pip install` alone would find ours
# installed, and leave the other's files where they are.
MENDED_BY = "pip uninstall --yes voxmlx voxmlx-realtime && pip install voxmlx-realtime"


def other_package() -> Path | None:
    """Return the folder that records the other package's installation, or None.

    The registry's `voxmlx` and our `voxmlx-realtime` write the same folder `voxmlx`.
    A look at file names takes a millisecond; importlib.metadata takes fifty.
    """
    for folder in sys.path:
        # A folder that may not be read, or a name that none can have, holds nothing.
        with suppress(OSError, ValueError):
            for record in Path(folder or ".").glob("voxmlx-[0-9]*.dist-info"):
                return record
    return None


def explanation() -> str | None:
    """Return one sentence that says what is wrong and how to mend it, or None."""
    record = other_package()
    if record is None:
        return None
    version = record.name.removesuffix(".dist-info").replace("-", " ")
    return (
        f"the package {version} is installed beside voxmlx-realtime, and both write "
        f"the folder voxmlx; mend it with {MENDED_BY}"
    )


def warn_of_other_package() -> None:
    """Write one line to stderr if the other package is installed too."""
    why = explanation()
    if why is not None and sys.stderr is not None:
        sys.stderr.write(f"voxmlx: warning: {why}\n")
