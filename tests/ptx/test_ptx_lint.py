"""What nvcc made of the kernels, read: no local memory, no calls, no float atomics, no multiply-add that the source did
not write, and no slow instruction in a loop that is not listed with a reason."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import pytest

from benchmarks.profile.interpreter import NO_NVCC, NVCC, ROOT, folder

pytestmark = pytest.mark.skipif(not NVCC, reason=NO_NVCC)

#: (file, line's text) -> why a slow instruction may stand in a loop there
SLOW_IN_LOOPS: dict[tuple[str, str], str] = {
    ("csrc/cuda/contrastive.cuh", "log1p(state.s)"): "once a sample, for each of its 1 + k rows",
    ("csrc/cuda/contrastive.cuh", "exp(-static_cast<double>(state.top))"): "the same",
    ("csrc/cuda/contrastive.cuh", "log(divisor)"): "the same",
    ("csrc/cuda/label_preserving.cuh", "const double e = exp("): "once a pair of a row and a label",
    ("csrc/cuda/head.cuh", "labels[s / k]"): "once a support, of which a block has one",
    (
        "csrc/cuda/head.cuh",
        "put(mine, get(mine))",
    ): "nvcc counts the turns of a loop, once a row of update_clusters; in 32 bits unless these are too few",
    ("csrc/cuda/head.cuh", "number[q] = get("): "the same",
    ("csrc/cuda/soft_nce.cu", "rest += exp("): "once a row and kept slot",
    ("csrc/cuda/online_softmax.cuh", "return exp((static_cast<double>(product)"): "once a row and kept slot",
    ("csrc/cuda/online_softmax.cuh", "log1p(others(s, e) / e)"): "once a row and kept slot",
}

ENTRY = re.compile(r"\.entry (\w+)\(.*?\)[^{;]*\{(.*?)(?=\n(?:\.visible )?\.entry |\n\t?\.file)", re.DOTALL)
LOCATION = re.compile(r"\.loc\s+(\d+) (\d+) (\d+)(?:, function_name \S+, inlined_at (\d+) (\d+) (\d+))?")
FUSED_BY_THE_SOURCE = re.compile(r"fma|\b(exp|log|log1p|ldexp)\(")


@dataclass
class Instruction:
    text: str
    source: str  # the project's line that it came from, "csrc/math/dot.h:30"


@dataclass
class Entry:
    name: str
    body: str
    code: list[Instruction] = field(default_factory=list)
    labels: dict[str, int] = field(default_factory=dict)

    def in_loops(self) -> Iterator[Instruction]:
        """Instructions between a label and a branch back to it."""
        loops = [
            (self.labels[target[1]], i)
            for i, instruction in enumerate(self.code)
            if (target := re.search(r"\bbra(?:\.uni)?\s+(\$\w+)", instruction.text)) and self.labels[target[1]] <= i
        ]
        return (
            instruction for i, instruction in enumerate(self.code) if any(begin <= i <= end for begin, end in loops)
        )


def modules() -> Iterator[str]:
    """The PTX of every source: the library carries it as text."""
    library = (folder() / "libise_fast_ptx.so").read_bytes()
    for start in re.finditer(rb"\.version \d", library):
        yield library[start.start() : library.index(b"\0", start.start())].decode()


def entry(name: str, body: str, files: dict[str, str]) -> Entry:
    """An entry with the source line of each instruction; inlined code of CUDA's own belongs to its caller."""
    found = Entry(name, body)
    known: dict[tuple[str, ...], str] = {}
    here = "?"
    for line in body.splitlines():
        if location := LOCATION.search(line):
            key, caller = location.group(1, 2, 3), location.group(4, 5, 6)
            path = files[key[0]]
            own = next((path[path.rindex(part) + 1 :] for part in ("/csrc/", "/tests/") if part in path), None)
            if key[1] != "0":
                here = f"{own}:{key[1]}" if own else known.get(caller, here)
                known[key] = here
        elif label := re.match(r"\s*(\$\w+):", line):
            found.labels[label[1]] = len(found.code)
        elif line.strip(" \t{}") and not line.strip().startswith("."):
            found.code.append(Instruction(line.strip(), here))
    return found


@cache
def entries() -> list[Entry]:
    found = []
    for text in modules():
        files = dict(re.findall(r'\.file\s+(\d+) "([^"]+)"', text))
        found += [entry(name, body, files) for name, body in ENTRY.findall(text) if "planted_cu" not in name]
    assert len(found) > 60
    return found


def source_text(source: str) -> str:
    """The line and the two after it: a statement may be long."""
    path, number = source.rsplit(":", 1)
    lines = (ROOT / re.sub(r"\w+/\.\./", "", path)).read_text().splitlines()
    return " ".join(line.strip() for line in lines[int(number) - 1 : int(number) + 2])


def where(kernel: Entry, instruction: Instruction) -> str:
    return f"{kernel.name}: {instruction.text} at {instruction.source}: {source_text(instruction.source)}"


def offending(pattern: str) -> list[str]:
    wanted = re.compile(pattern)
    return [where(kernel, i) for kernel in entries() for i in kernel.code if wanted.search(i.text)]


def test_nothing_lives_in_local_memory() -> None:
    assert offending(r"\b(ld|st)\.local") == []
    assert [kernel.name for kernel in entries() if ".local" in kernel.body] == []


def test_no_calls() -> None:
    assert offending(r"\bcall\b") == []


def test_no_float_atomics() -> None:
    assert offending(r"\b(atom|red)\.\S*\.(f16|f16x2|bf16|f32|f64)\b") == []
    assert offending(r"\batom\.") != []  # the pattern would see them


def test_multiply_adds_are_those_of_the_source() -> None:
    """fma, or a function of CUDA's library that is made of them."""
    fused = [(kernel, i) for kernel in entries() for i in kernel.code if re.search(r"\bfma\.", i.text)]
    assert len(fused) > 50
    assert sorted({where(k, i) for k, i in fused if not FUSED_BY_THE_SOURCE.search(source_text(i.source))}) == []


def test_slow_instructions_in_loops_are_listed() -> None:
    """64-bit division (70 instructions) and float64 exp or log (40, at 1/64 of the rate on consumer cards)."""
    found = {}
    for kernel in entries():
        for i in kernel.in_loops():
            divides = re.search(r"\b(div|rem)\.[su]64\b", i.text)
            if divides or ("fma.rn.f64" in i.text and re.search(r"\b(exp|log|log1p)\(", source_text(i.source))):
                found[i.source] = where(kernel, i)

    def lists(key: tuple[str, str], source: str) -> bool:
        return source.startswith(key[0] + ":") and key[1] in source_text(source)

    assert sorted(text for source, text in found.items() if not any(lists(key, source) for key in SLOW_IN_LOOPS)) == []
    assert [key for key in SLOW_IN_LOOPS if not any(lists(key, source) for source in found)] == []
