"""Fail unless every dependency has a wheel for macOS on Apple silicon.

pip can resolve for another platform, but reads environment markers as its own: a
package that only macOS needs (mlx-metal, say) would go unnoticed. So markers are read
here as on a Mac, and resolving is repeated until nothing is missing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
MAX_ROUNDS = 5


def mac_environment(python: str) -> dict[str, str]:
    return {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.0",
        "os_name": "posix",
        "platform_machine": "arm64",
        "platform_python_implementation": "CPython",
        "platform_release": "23.0.0",
        "platform_system": "Darwin",
        "platform_version": "Darwin Kernel Version 23.0.0",
        "python_full_version": f"{python}.0",
        "python_version": python,
        "sys_platform": "darwin",
    }


def lines_of(extra: str, project: dict[str, Any]) -> list[str]:
    """Return the requirements of an extra, with those of the extras it names itself."""
    lines: list[str] = []
    for line in project["optional-dependencies"][extra]:
        requirement = Requirement(line)
        if canonicalize_name(requirement.name) == project["name"]:
            for inner in sorted(requirement.extras):
                lines += lines_of(inner, project)
        else:
            lines.append(line)
    return lines


def needed_on_mac(
    lines: list[str], extras: set[str], environment: dict[str, str]
) -> list[Requirement]:
    """The requirements whose marker holds there, markers removed."""
    needed: list[Requirement] = []
    for line in lines:
        requirement = Requirement(line)
        marker, requirement.marker = requirement.marker, None
        if marker is None or any(
            marker.evaluate({**environment, "extra": extra}) for extra in extras | {""}
        ):
            needed.append(requirement)
    return needed


def resolve(requirements: list[str], python: str) -> list[dict[str, Any]]:
    """What pip would install on a Mac from wheels alone; exits with pip's words."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.json")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--quiet"]
        command += ["--dry-run", "--ignore-installed", "--target", folder]
        command += ["--platform", "macosx_14_0_arm64", "--implementation", "cp"]
        command += ["--python-version", python, "--only-binary=:all:"]
        command += ["--report", str(report), *requirements]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"no set of wheels for macOS, Python {python}:\n{done.stderr}")
        return json.loads(report.read_text(encoding="utf-8"))["install"]


def missing(
    installed: list[dict[str, Any]],
    roots: list[Requirement],
    environment: dict[str, str],
) -> list[str]:
    """Requirements of what is installed that nothing installed meets."""
    names = {canonicalize_name(i["metadata"]["name"]) for i in installed}
    extras = {canonicalize_name(r.name): set(r.extras) for r in roots}
    found: dict[str, str] = {}
    for item in installed:
        name = canonicalize_name(item["metadata"]["name"])
        lines = item["metadata"].get("requires_dist", [])
        for needed in needed_on_mac(lines, extras.get(name, set()), environment):
            if canonicalize_name(needed.name) not in names:
                found[needed.name] = str(needed)
    return sorted(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--python", default="3.11", help="version of Python, as 3.11")
    parser.add_argument("--extras", nargs="*", default=[], help="of pyproject.toml")
    args = parser.parse_args()
    environment = mac_environment(args.python)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = list(project["project"]["dependencies"])
    for extra in args.extras:
        lines += lines_of(extra, project["project"])
    roots = needed_on_mac(lines, set(), environment)
    requirements = [str(r) for r in roots]
    for _ in range(MAX_ROUNDS):
        installed = resolve(requirements, args.python)
        more = missing(installed, roots, environment)
        if not more:
            print(
                f"macOS arm64, Python {args.python}: {len(installed)} packages, all wheels"
            )
            return
        requirements += more
    sys.exit(f"still missing after {MAX_ROUNDS} rounds: {', '.join(more)}")


if __name__ == "__main__":
    main()
