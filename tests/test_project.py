"""The files by which others join the project agree with one another."""

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from typing import Any

import pytest
import yaml

from tests.markdown import README, ROOT, links

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
    "project"
]
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
GITHUB = ROOT / ".github"


def read(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


def test_pre_commit_calls_exactly_the_tools_of_ci() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    tools = re.findall(r"^(ruff .*|pyright)$", CI, re.MULTILINE)
    hooks = [hook["entry"] for hook in repository["hooks"]]
    assert hooks == [tool.removesuffix(" .") for tool in tools]


def test_the_workflows_run_what_everybody_can_run() -> None:
    steps = read(".github/workflows/ci.yml")["jobs"]["linux"]["steps"]
    assert steps[-1]["run"] == ".ci/run"
    release = read(".github/workflows/release.yml")["jobs"]["build"]["steps"]
    assert ".ci/run" in [step.get("run") for step in release]


def test_ci_tries_the_lowest_and_the_newest_python() -> None:
    classified = [
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if re.search(r"Python :: 3\.\d+$", line)
    ]
    matrix = read(".github/workflows/ci.yml")["jobs"]["linux"]["strategy"]["matrix"]
    assert matrix["python"] == [classified[0], classified[-1]]
    assert PROJECT["requires-python"] == f">={classified[0]}"


def test_the_templates_ask_for_the_doctors_page() -> None:
    for name in ("ISSUE_TEMPLATE/bug.yml", "ISSUE_TEMPLATE/speed.yml"):
        first = read(f".github/{name}")["body"][0]
        assert "voxmlx doctor" in first["attributes"]["description"]
        assert first["validations"]["required"] is True
    assert "voxmlx doctor" in (GITHUB / "pull_request_template.md").read_text("utf-8")


def test_no_workflow_may_write_more_than_it_needs() -> None:
    for path in (GITHUB / "workflows").glob("*.yml"):
        workflow = read(f".github/workflows/{path.name}")
        assert workflow["permissions"]["contents"] == "read"
        for job in workflow["jobs"].values():
            assert job["timeout-minutes"] <= 350


def test_addresses_of_the_project_are_those_of_its_metadata() -> None:
    urls = PROJECT["urls"]
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert f"site_url: {urls['Documentation']}" in site
    assert f"repo_url: {urls['Repository']}" in site
    for link in read(".github/ISSUE_TEMPLATE/config.yml")["contact_links"]:
        assert link["url"].startswith((urls["Documentation"], urls["Repository"]))


def test_the_registry_gets_absolute_links_to_what_is_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    copy = tmp_path_factory.mktemp("readme") / "README.md"
    copy.write_text(README.read_text(encoding="utf-8"), encoding="utf-8")
    subprocess.run(
        [sys.executable, str(ROOT / ".ci" / "absolute_links.py"), str(copy)], check=True
    )
    base = f"{PROJECT['urls']['Repository']}/blob/main/"
    ours = [link for link in links(copy) if link.startswith(base)]
    assert len(ours) > 5
    for link in ours:
        assert (ROOT / link.removeprefix(base).partition("#")[0]).exists()
    for link in links(copy):
        assert re.match(r"https?:|#", link), link


def test_the_source_distribution_is_the_whole_repository(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git repository: this is a source distribution itself")
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    tree = tmp_path_factory.mktemp("tree")
    for name in tracked:
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    code = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    subprocess.run(
        [sys.executable, "-c", code], cwd=tree, check=True, capture_output=True
    )
    (archive,) = (tree / "dist").glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        packed = {name.partition("/")[2] for name in opened.getnames()}
    assert tracked <= packed
