"""What of the demo goes into the package: little, and nothing that trains."""

import subprocess
import sys

from voxmlx import demo


def test_checkpoint_and_sample_take_at_most_12_mb() -> None:
    files = [path for path in demo.DIRECTORY.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 12_000_000


def test_transcribing_imports_nothing_of_the_training_stack() -> None:
    program = """
import sys
from voxmlx.transcribe import main
main(["--demo"])
stack = {"torch", "training", "transformers", "scipy", "jiwer"}
assert not stack & {name.split(".")[0] for name in sys.modules}
"""
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
