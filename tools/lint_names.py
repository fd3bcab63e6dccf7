#!/usr/bin/env python3
"""Kernels: what is listed is defined where its name says, what is defined is listed. And nothing in
the library asks for an instruction set, memory or the environment outside of its one place."""
import os
import re
import subprocess

import linting

KERNELS = linting.ROOT / "src" / "kernel"
LISTED = re.compile(r"VARVE_KERNEL\(\s*(\w+),\s*[^,]*,\s*(\w+),\s*(varve_\w+)\s*\)")
# A function, or a line of a list by which a file defines one kernel for each format.
DEFINED = re.compile(r"^(?:(?:void|bool|uint64_t)\s+(varve_\w+)\s*\(\s*const\s+struct\s+varve_\w+_args\b[^;{]*\{|"
                     r"[A-Z_]+\((varve_\w+),)", re.M)
SYMBOL = re.compile(r"^varve_([a-z]+)_(?:[a-z0-9]+_)+([a-z0-9]+)$")
CONTRACT = re.compile(r"^/\* (\w+): ", re.M)
ISA_MACRO = re.compile(r"\b__(?:AVX|ARM_|SSE|FMA|F16C)\w*")
HOST_CALL = re.compile(r"\b(malloc|calloc|realloc|aligned_alloc|posix_memalign|free|getenv|printf|"
                       r"fprintf|puts|fputs|abort|exit|_Exit|assert)\s*\(")


def expand(path):
    """The list of kernels as the compiler sees it: the formats' macros make most of its lines."""
    command = [*os.environ.get("CC", "cc").split(), "-E", "-P", "-DVARVE_X86", "-DVARVE_ARM",
               f"-I{linting.ROOT / 'src'}", "-x", "c", str(path)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def listed_kernels(report):
    """symbol -> (line of the list, as expanded, op, isa)."""
    path = KERNELS / "kernels.inc"
    text = expand(path)
    contracts = CONTRACT.findall((KERNELS / "kernel.h").read_text(encoding="utf-8"))
    kernels = {}
    for match in LISTED.finditer(text):
        op, isa, symbol = match[1], match[2].lower(), match[3]
        line = linting.line_of(text, match.start())
        parts = SYMBOL.match(symbol)
        if parts is None or parts[1] != op or parts[2] != isa:
            report.add(path, line, f"{symbol}: expected the name varve_{op}_..._{isa}")
        if op not in contracts:
            report.add(path, line, f"{op} has no contract in kernel.h (a comment \"/* {op}: \")")
        kernels[symbol] = (line, op, isa)
    return kernels


def defined_kernels():
    """symbol -> (path, line) of the kernel files."""
    found = {}
    for path in linting.files("*.c", folder="src/kernel"):
        text = linting.code(path.read_text(encoding="utf-8"))
        for match in DEFINED.finditer(text):
            symbol = match[1] or match[2]
            found[symbol] = (path, linting.line_of(text, match.start()))
    return found


def check_kernels(report):
    listed, defined = listed_kernels(report), defined_kernels()
    for symbol, (line, op, isa) in listed.items():
        if symbol not in defined:
            report.add(KERNELS / "kernels.inc", line, f"{symbol} is not defined in src/kernel")
            continue
        path, at = defined[symbol]
        stem = path.stem.split("_")
        if len(stem) != 2 or not op.startswith(stem[0]) or stem[1] != isa:
            report.add(path, at, f"{symbol} belongs into a file {op}_{isa}.c or a prefix of {op}")
    for symbol, (path, line) in defined.items():
        if symbol not in listed:
            report.add(path, line, f"{symbol} is not in kernels.inc")
    return len(listed)


def check_places(report):
    for path in linting.files("*.c", "*.h", "*.inc", folder="src"):
        text = linting.code(path.read_text(encoding="utf-8"))
        in_base = path.parent.name == "base"
        if not (in_base and path.name.startswith("isa")):
            for match in ISA_MACRO.finditer(text):
                report.add(path, linting.line_of(text, match.start()),
                           f"{match[0]}: a file belongs to one ISA or to none")
        if not (in_base and path.name == "host.c"):
            for match in HOST_CALL.finditer(text):
                report.add(path, linting.line_of(text, match.start()),
                           f"{match[1]}() belongs into base/host.c, if anywhere")


def main():
    report = linting.Report("names")
    n_kernel = check_kernels(report)
    check_places(report)
    report.finish(f"{n_kernel} kernels")


main()
