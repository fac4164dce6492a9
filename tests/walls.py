#!/usr/bin/env python3
"""The walls between the floors, checked from the sources.

    walls.py [ROOT]     names every breach as file:line and fails when there is one

SPDX-License-Identifier: BSD-3-Clause
"""
import re
import sys
from pathlib import Path

# What a floor may include besides itself.
FLOORS = {
    "base": [],
    "kernel": ["base"],
    "comm": ["base"],
    "store": ["base", "comm"],
    "linalg": ["base", "comm"],
    "method": ["base", "kernel", "comm", "store", "linalg"],
    "layer": ["base", "kernel", "comm", "store", "linalg", "method"],
    "study": ["base", "kernel", "comm", "store", "linalg", "method", "layer"],
    "app": ["base", "linalg"],  # the rest through the public headers, as any other program
}
PUBLIC = "include"
MAX_LINES = 450

# (what the code may not name, the floors where it may, why)
NAMES = [
    (r"\bMPI_COMM_WORLD\b", ["app"], "the caller passes the communicator"),
    (r"\bMPI_(Init|Init_thread|Finalize|Abort)\b", ["app"], "the program's, not the library's"),
    (r"\bP?MPI_[A-Z]\w*\s*\(", ["comm", "store", "linalg", "app"], "MPI is called here only"),
    (r"\bH5[A-Z]{1,2}\w*\s*\(", ["store"], "HDF5 is called in store only"),
    (r"\b(secure_)?getenv\s*\(|\b(setenv|putenv)\s*\(|\benviron\b", ["app"], "the library does not read the environment"),
    (r"\b(exit|_exit|_Exit|quick_exit|abort)\s*\(", ["app"], "the library returns a status"),
    (r"\bassert\s*\(", [], "checks return a status, or are tests"),
    (r"\b(printf|vprintf|puts|putchar|perror|fputs|fprintf|vfprintf|dprintf|fputc)\s*\(|\b(stdout|stderr)\b",
     ["app"], "the library does not print"),
    (r"\b(malloc|calloc|realloc|aligned_alloc|posix_memalign|memalign|alloca)\s*\(|\bfree\s*\(",
     ["base", "app"], "memory comes from base/memory.h"),
    (r"\b(p[a-z0-9]{4,}|c?blacs_[a-z0-9_]+|[sdcz][a-z0-9]{3,7})_\s*\(", ["linalg"], "Fortran symbols are linalg's"),
]
KERNEL_NAMES = [
    (r"\bMPI_\w+", "kernels do not communicate"),
    (r"\blsp_memory_\w+|\blsp_free\b", "kernels do not allocate"),
    (r"\blsp_(error|context|log)_\w+", "kernels do not fail or log"),
]
# (header, the floors that may include it)
HEADERS = [
    (r"mpi\.h", ["comm", "store", "linalg", "app", PUBLIC]),
    (r"(hdf5|H5\w*)\.h", ["store"]),
    (r"(cblas|lapacke|f77blas|openblas_config)\.h", ["linalg"]),
    (r"(assert|setjmp)\.h", []),
]


def code_only(text):
    """The text with comments and the insides of literals blanked, lines kept."""

    def blank(match):
        return re.sub(r"[^\n]", " ", match.group(0))

    pattern = r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\''
    return re.sub(pattern, blank, text, flags=re.S)


def check_includes(where, floor, text, src):
    for number, line in enumerate(text.split("\n"), 1):
        match = re.match(r'\s*#\s*include\s*(["<])([^">]+)[">]', line)
        if not match:
            continue
        quoted, name = match.group(1) == '"', match.group(2)
        for header, floors in HEADERS:
            if re.fullmatch(header, name) and floor not in floors:
                yield f"{where}:{number}: {name} belongs to {', '.join(floors) or 'no floor'}"
        if not quoted:
            continue
        above = name.split("/")[0]
        if floor == PUBLIC:
            yield f"{where}:{number}: a public header includes {name}"
        elif "/" not in name or above not in FLOORS:
            yield f'{where}:{number}: "{name}" is not of the form "floor/file.h"'
        elif above != floor and above not in FLOORS[floor]:
            yield f"{where}:{number}: {floor} may not include {above} ({name})"
        elif not (src / name).is_file():
            yield f"{where}:{number}: there is no src/{name}"


def check_names(where, floor, code):
    rules = [(pattern, why) for pattern, floors, why in NAMES if floor not in floors]
    if floor == "kernel":
        rules += KERNEL_NAMES
    for number, line in enumerate(code.split("\n"), 1):
        for pattern, why in rules:
            match = re.search(pattern, line)
            if match:
                yield f"{where}:{number}: {match.group(0).strip()}: {why}"


def check_file(root, path, floor):
    where = path.relative_to(root)
    text = path.read_text()
    lines = text.count("\n")
    if lines > MAX_LINES:
        yield f"{where}:{MAX_LINES}: {lines} lines, at most {MAX_LINES}"
    if "SPDX-License-Identifier: BSD-3-Clause" not in text:
        yield f"{where}:1: no SPDX-License-Identifier"
    if floor is None:
        return
    yield from check_includes(where, floor, text, root / "src")
    yield from check_names(where, floor, code_only(text))


def check(root):
    """All breaches below root, and the number of source files looked at."""
    breaches, count = [], 0
    for top in ("include", "src", "tests"):
        for path in sorted((root / top).rglob("*.[ch]")):
            parts = path.relative_to(root).parts
            floor = PUBLIC if top == "include" else None if top == "tests" else parts[1]
            if floor is not None and floor != PUBLIC and floor not in FLOORS:
                breaches.append(f"{path.relative_to(root)}:1: src/{floor} is not a floor")
                continue
            breaches += check_file(root, path, floor)
            count += 1
    return breaches, count


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    breaches, count = check(root)
    for breach in breaches:
        print(breach)
    if count == 0:
        sys.exit(f"walls: no sources under {root}")
    print(f"walls: {count} files, {len(breaches)} breaches")
    sys.exit(1 if breaches else 0)


if __name__ == "__main__":
    main()
