"""Metal source -> C++ that clang compiles for a CPU, and the kernel's signature."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx

__all__ = ["MLX_HEADERS", "NATIVE", "MetalError", "Parameter", "Program", "translate"]

NATIVE = Path(__file__).parent / "native"
OVERLAY = NATIVE / "overlay"
MLX_HEADERS = Path(mx.__file__).parent / "include"

# What MLX puts before a custom kernel: its utility header, from the wheel.
_PRELUDE = """\
#include "mlx/backend/metal/kernels/utils.h"
#undef instantiate_kernel
#define instantiate_kernel(...)
"""

_COMMENT_OR_STRING = re.compile(
    r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"', flags=re.DOTALL
)
_FLOAT_LITERAL = re.compile(
    r"(?<![\w.])((?:\d+\.\d*|\.\d+)(?:[eE][+-]?\d+)?|\d+[eE][+-]?\d+)(?![\w.])"
)
_HALF_LITERAL = re.compile(r"(?<![\w.])(\d+\.\d*|\.\d+)(bf|h)\b")
_THREADGROUP = re.compile(
    r"(?P<before>[;{}]\s*|^\s*)threadgroup\s+"
    r"(?P<declaration>[^;(){}=*&]*\[[^;(){}=]*\]|[^;(){}=*&\[]+)\s*;",
    flags=re.MULTILINE,
)
_CONSTANT = re.compile(
    r"constant\s+(\w+)\s+(\w+)\s*\[\[function_constant\((\d+)\)\]\]\s*;"
)
_INSTANTIATION = re.compile(
    r"template\s*\[\[host_name\(.*?\)\]\]\s*\[\[kernel\]\].*?;", flags=re.DOTALL
)
_INCLUDE = re.compile(r'^[ \t]*#include "(mlx/[^"]+)"[^\n]*', flags=re.MULTILINE)

# Attributes that are three numbers.
_TRIPLES = {
    "dispatch_threads_per_threadgroup",
    "grid_origin",
    "grid_size",
    "thread_position_in_grid",
    "thread_position_in_threadgroup",
    "threadgroup_position_in_grid",
    "threadgroups_per_grid",
    "threads_per_grid",
    "threads_per_threadgroup",
}


class MetalError(Exception):
    """A kernel that does not compile, or does what it must not."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a kernel: a buffer by number, or an attribute by name."""

    type: str
    reference: str  # "*", "&" or ""
    name: str
    buffer: int | None
    attribute: str | None

    def argument(self) -> str:
        """What the entry passes: `b` are the buffers, `t` is the thread."""
        if self.buffer is not None:
            kind = "msl_ptr" if self.reference == "*" else "msl_ref"
            return f"{kind}{{b[{self.buffer}]}}"
        if self.type in ("uint3", "ushort3"):
            return f"msl_uint3(t->{self.attribute})"
        if self.type in ("uint2", "ushort2"):
            return f"msl_uint3(t->{self.attribute}).xy"
        return f"t->{self.attribute}" + (".x" if self.attribute in _TRIPLES else "")


@dataclass(frozen=True, slots=True)
class Program:
    """A translation unit with one entry, and the kernel's parameters."""

    text: str
    parameters: tuple[Parameter, ...]

    def buffer_names(self) -> list[str]:
        """The names of the buffers, in the order of their numbers."""
        buffers = [
            (parameter.buffer, parameter.name)
            for parameter in self.parameters
            if parameter.buffer is not None
        ]
        return [name for _, name in sorted(buffers)]


def translate(
    source: str,
    *,
    name: str | None = None,
    template: str | None = None,
    prelude: str = _PRELUDE,
) -> Program:
    """C++ for the kernel `name` (None: the only one) of Metal `source`.

    `template` are its arguments in angle brackets, where MLX's own line that
    instantiates it is not in the source. Raises MetalError for a missing header.
    """
    stripped = _strip_comments(source)
    found, parameters = _signature(stripped, name)
    if template is None:
        match = re.search(rf"decltype\({re.escape(found)}(<.*?>)\)", source)
        template = match.group(1) if match else ""
    body = _INSTANTIATION.sub("", source)
    constants = dict.fromkeys(_CONSTANT.findall(body))
    included: set[str] = set()
    # MLX's larger headers declare threadgroup memory: they are rewritten as well.
    if prelude != _PRELUDE:
        prelude = _rewritten(_with_includes(prelude, included))
        body = _with_includes(body, included)
    declared = "".join(
        f'extern "C" MSL_API {type_} msl_fc_{number}; {type_} msl_fc_{number};\n'
        for type_, _, number in constants
    )
    arguments = ", ".join(parameter.argument() for parameter in parameters)
    text = (
        f'{prelude}#line 1 "kernel.metal"\n{_rewritten(body)}\n#line 1 "entry"\n'
        f'{declared}extern "C" MSL_API MSL_NOSAN void msl_entry('
        f"void** b, const msl_builtins* t) {{ {found}{template}({arguments}); }}\n"
    )
    return Program(text, tuple(parameters))


def _strip_comments(source: str) -> str:
    """Blanks instead of comments; strings and line numbers stay."""

    def blank(match: re.Match[str]) -> str:
        text = match.group(0)
        return text if text[0] == '"' else re.sub(r"[^\n]", " ", text)

    return _COMMENT_OR_STRING.sub(blank, source)


def _with_includes(source: str, included: set[str]) -> str:
    """`source` with MLX's headers in place of their #include lines, each once."""

    def content(match: re.Match[str]) -> str:
        path = match.group(1)
        if path in included:
            return ""
        included.add(path)
        for root in (OVERLAY, MLX_HEADERS):
            file = root / path
            if file.exists():
                text = file.read_text(encoding="utf-8").replace("#pragma once", "")
                return _with_includes(text, included)
        raise MetalError(f"{path} is neither in MLX's wheel nor in {OVERLAY}")

    return _INCLUDE.sub(content, source)


def _rewritten(source: str) -> str:
    """Metal's spellings as C++: literals, threadgroup memory, function constants."""
    source = _strip_comments(source)
    source = re.sub(r"\[\[threadgroup\(\d+\)\]\]", "", source)
    types = {"bf": "bfloat", "h": "half"}
    source = _HALF_LITERAL.sub(lambda m: f"(({types[m[2]]}){m[1]}f)", source)
    source = _FLOAT_LITERAL.sub(r"\1f", source)  # without suffix, Metal's are float
    source = _threadgroup_variables(source)
    return _CONSTANT.sub(
        lambda m: f'extern "C" {m[1]} msl_fc_{m[3]};\n#define {m[2]} msl_fc_{m[3]}',
        source,
    )


def _threadgroup_variables(source: str) -> str:
    """Every `threadgroup T name[n];` as a macro that takes it from the runtime."""
    n_variables = 0

    def declare(match: re.Match[str]) -> str:
        nonlocal n_variables
        declaration = match.group("declaration").strip()
        first, *others = re.split(r",(?![^\[<]*[\]>])", declaration)
        head = re.match(r"(.+?[\s>])(\w+)\s*((?:\[[^\]]*\]\s*)*)$", first, re.DOTALL)
        assert head is not None, declaration
        type_ = head.group(1).strip()
        variables = [(head.group(2), head.group(3))]
        for other in others:
            more = re.match(r"\s*(\w+)\s*(.*)$", other, re.DOTALL)
            assert more is not None, declaration
            variables.append((more.group(1), more.group(2)))
        made = []
        for variable, dimensions in variables:
            n = n_variables
            n_variables += 1
            made.append(
                f"typedef {type_} msl_type_{n}; "
                f"MSL_THREADGROUP({n}, msl_type_{n}, {variable}, {dimensions.strip()});"
            )
        return match.group("before") + " ".join(made) + "\n" * declaration.count("\n")

    previous = None
    while previous != source:  # neighbours share a semicolon
        previous, source = source, _THREADGROUP.sub(declare, source)
    return source


def _signature(source: str, name: str | None) -> tuple[str, list[Parameter]]:
    match = re.search(
        rf"(?:\[\[kernel\]\]|\bkernel)\s+void\s+({name or chr(92) + 'w+'})\s*\(",
        source,
    )
    if match is None:
        raise MetalError(f"no kernel {name or ''} in the source")
    pieces, end = _split_arguments(source, match.end())
    text = source[match.end() : end]
    used = {int(number) for number in re.findall(r"buffer\((\d+)\)", text)}
    free = (number for number in range(1000) if number not in used)
    return match.group(1), [_parameter(piece, free) for piece in pieces]


def _split_arguments(source: str, start: int) -> tuple[list[str], int]:
    """The pieces between commas up to the closing bracket, and where that is."""
    pieces, piece, depth, at = [], "", 0, start
    while True:
        char = source[at]
        if char == ")" and depth == 0:
            return [*pieces, piece], at
        depth += (char in "([<") - (char in ")]>")
        if char == "," and depth == 0:
            pieces.append(piece)
            piece = ""
        else:
            piece += char
        at += 1


def _parameter(piece: str, free_numbers: Iterator[int]) -> Parameter:
    piece = " ".join(piece.split())
    if "[[" not in piece:  # Metal numbers them in order
        piece += f" [[buffer({next(free_numbers)})]]"
    match = re.match(r"(.*?)([*&]?)\s*(\w+)\s*\[\[(.*?)\]\]$", piece)
    if match is None:
        raise MetalError(f"parameter {piece!r} cannot be read")
    type_, reference, name, attribute = match.groups()
    buffer = re.match(r"buffer\((\d+)\)", attribute)
    return Parameter(
        type=type_.strip(),
        reference=reference,
        name=name,
        buffer=int(buffer.group(1)) if buffer else None,
        attribute=None if buffer else attribute.split("(")[0].strip(),
    )
