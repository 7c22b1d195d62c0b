"""The package of sound: its modules are found however they are asked for."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ["microphone", "files", "wav"])
def test_a_module_is_found_by_an_import_from_the_package(name: str) -> None:
    code = f"from voxmlx.audio import {name}; print({name}.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == (f"voxmlx.audio.{name}\n", "")


def test_a_name_that_is_none_of_ours_is_explained() -> None:
    with pytest.raises(ImportError, match="import it from a module"):
        from voxmlx.audio import load_audio  # type: ignore[attr-defined]  # noqa: F401


def test_questions_of_tools_are_answered() -> None:
    import voxmlx.audio

    assert not hasattr(voxmlx.audio, "__wrapped__")
