"""An application that PyInstaller freezes transcribes the demo's sample."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from voxmlx import demo

ROOT = Path(__file__).parent.parent
PROGRAM = "import sys; from voxmlx.__main__ import main; sys.exit(main())\n"


def test_the_hook_is_found_by_its_entry_point() -> None:
    from voxmlx.__pyinstaller import get_hook_dirs

    (folder,) = get_hook_dirs()
    assert (Path(folder) / "hook-voxmlx.py").is_file()
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'hook-dirs = "voxmlx.__pyinstaller:get_hook_dirs"' in project


@pytest.mark.slow
def test_a_frozen_program_transcribes_the_sample(tmp_path: Path) -> None:
    pytest.importorskip("PyInstaller", reason="install pyinstaller, which freezes")
    # What pip would install, in a folder: PyInstaller does not see editable installs.
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("voxmlx", "convert"):
        shutil.copytree(ROOT / name, tree / name)
    code = "from setuptools import build_meta; build_meta.build_wheel('..')"
    subprocess.run([sys.executable, "-c", code], cwd=tree, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    packages = tmp_path / "packages"
    shutil.unpack_archive(wheel, packages, "zip")
    program = tmp_path / "captions.py"
    program.write_text(PROGRAM, encoding="utf-8")
    # Heavy packages that tests may have installed are no part of the application.
    excluded = [f"--exclude-module={name}" for name in ("torch", "transformers")]
    subprocess.run(
        [sys.executable, "-m", "PyInstaller", "--noconfirm", *excluded, program.name],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(packages)},
        check=True,
    )
    # Not one file of the installation may be needed.
    shutil.rmtree(packages)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    frozen = tmp_path / "dist" / "captions" / "captions"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [frozen, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = demo.SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").split()
    assert run("transcribe", "--demo").split() == said
    assert run("live", "--demo", "--input", str(demo.SAMPLE)).split() == said
    assert run("--version").startswith("voxmlx ")
    assert "no faults" in run("doctor")
