"""Put faults into core files, and count which of them the tests notice.

python .ci/mutation.py                 all faults, then a table for each file
python .ci/mutation.py --report        the table of the last run
python .ci/mutation.py voxmlx.decoding.rules    the faults of one module
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

from mutmut.configuration import config
from mutmut.mutation.data import SourceFileMutationData
from mutmut.stats import status_by_exit_code

NOTICED = ("killed", "timeout", "caught by type check", "segfault")
NOT_TRIED = ("not checked", "skipped", "check was interrupted by user")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--report", action="store_true", help="show the last run only")
    parser.add_argument("--max-children", type=int, default=1, help="processes at once")
    parser.add_argument(
        "module", nargs="*", help="modules to try, such as voxmlx.decoding.rules"
    )
    arguments = parser.parse_args()
    if not arguments.report:
        command = [sys.executable, "-m", "mutmut", "run"]
        command += ["--max-children", str(arguments.max_children)]
        command += [f"{module}.*" for module in arguments.module]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        status = subprocess.run(command, env=environment).returncode
        if status:
            return status
    report()
    return 0


def report() -> None:
    """Print a table for each file, and the faults that no test has noticed."""
    print("| file | faults | tried | noticed | share of tried |\n|---|---|---|---|---|")
    n_all = n_tried = n_noticed = 0
    left: list[str] = []
    for path in config().only_mutate:
        faults = SourceFileMutationData(path=Path(path))
        faults.load()
        statuses = {
            name: status_by_exit_code[code]
            for name, code in faults.exit_code_by_key.items()
        }
        tried = {k: v for k, v in statuses.items() if v not in NOT_TRIED}
        noticed = [name for name, status in tried.items() if status in NOTICED]
        left += [f"{v}: {k}" for k, v in tried.items() if v not in NOTICED]
        print(row(path, len(statuses), len(tried), len(noticed)))
        n_all += len(statuses)
        n_tried += len(tried)
        n_noticed += len(noticed)
    print(row("all", n_all, n_tried, n_noticed))
    print("\nNot noticed (`mutmut show NAME` shows one):\n")
    print("\n".join(left))


def row(name: str, n: int, n_tried: int, n_noticed: int) -> str:
    share = f"{n_noticed / n_tried:.1%}" if n_tried else "not tried"
    return f"| {name} | {n} | {n_tried} | {n_noticed} | {share} |"


if __name__ == "__main__":
    sys.exit(main())
