"""Names: one word per meaning, the field's terms, and no name that means two things."""

import ast
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CODE = [
    path
    for folder in ("voxmlx", "convert", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
TEXT = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *CODE,
    *sorted((ROOT / "tests").rglob("*.py")),
]

# Identifiers that were retired, and the word that stands in their place.
RETIRED = {
    r"quantis\w*|Quantis\w*": "quantize, as MLX spells it",
    r"Told|_told": "RemoteEvents",
    r"Wish|wish": "TranscriptionParams, params",
    r"Seats?|_?seats?|n_seats": "slot",
    r"_obey|_tell_news|_drop_who_left": "_run_commands, _wake, _drop_released",
    r"PlayedFile": "FileSource",
    r"attention_by_powers|pays_by_powers": "pow_attention",
    r"end_to_end|_?beside\(|_?apart\(": "concat_positions, stack_streams",
    r"Heard|TextSoFar|BoundedBody": "TokenAudio, TextBuffer, BodyLimit",
    r"take_back": "trim",
    r"_surroundings|try_kernels": "inventory, measure_kernels",
    r"Meter|RemoteMeter": "StreamMetrics, MetricsSink, RemoteMetrics",
    r"def (hear|say|accept|show|obey|tell|judge)\(": "push, emit, observe, on_events",
    r"Bet|_Bet|_?bets?|_judge|_settle\(": "trial, commit, rollback",
}
# Where a retired name must stay: the test itself, and aliases for one version.
ALLOWED = {
    "tests/test_names.py": "",
}
# Commands of benchmarks are named for what they measure.
COMMANDS = {"hotwords", "recipes", "speculation"}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("retired", RETIRED)
def test_retired_words_are_gone(retired: str) -> None:
    pattern = re.compile(rf"(?<!\w)(?:{retired})(?!\w)")
    found = [
        f"{relative(path)}:{number}: {line.strip()}"
        for path in TEXT
        for number, line in enumerate(path.read_text("utf-8").split("\n"), 1)
        if (match := pattern.search(line)) is not None
        and ALLOWED.get(relative(path)) not in ("", match.group())
    ]
    assert found == [], f"say {RETIRED[retired]} instead"


def test_no_module_shadows_the_standard_library_or_a_known_package() -> None:
    known = {"openai", "mistral", "mistralai", "vllm", "websockets", "websocket"}
    names = {path.stem for path in CODE} - {"__init__", "__main__"}
    assert names & (known | set(sys.stdlib_module_names)) == set()


def test_no_two_modules_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in CODE:
        is_command = path.parent.name == "benchmarks" and path.stem in COMMANDS
        if path.stem not in ("__init__", "__main__") and not is_command:
            places[path.stem].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_no_two_public_classes_share_a_name() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in CODE:
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(relative(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_glossary_has_at_most_forty_words() -> None:
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    table = design.split("## Glossary")[1].split("\n## ")[0]
    words = [line for line in table.split("\n") if line.startswith("| ")][1:]
    assert 20 <= len(words) <= 40


def test_the_house_names_every_module() -> None:
    design = (ROOT / "docs" / "design.md").read_text("utf-8")
    rooms = design.split("## Rooms")[1].split("\n## ")[0]
    named = set(re.findall(r"\b[a-z0-9_]+\.py\b", rooms))
    modules = {path.name for path in (ROOT / "voxmlx").rglob("*.py")}
    modules = {name for name in modules if not name.startswith(("__", "hook-"))}
    assert modules - named == set(), "give it a place in docs/design.md"
    everywhere = {path.name for path in (*CODE, *TEXT)}
    assert named - everywhere == set()


# A docstring's first line stands alone in `help()`: it does not begin mid-sentence.
MID_SENTENCE = re.compile(r"(Of|What|Whether|Where|How|Which|Who|Why|When|As if)\b")


def test_no_public_docstring_begins_in_mid_sentence() -> None:
    found = [
        f"{relative(path)}: {docstring.splitlines()[0]}"
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        )
        and (docstring := ast.get_docstring(node)) is not None
        and not getattr(node, "name", "module").startswith("_")
        and MID_SENTENCE.match(docstring)
    ]
    assert found == []
