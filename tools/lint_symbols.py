#!/usr/bin/env python3
"""What the libraries export and what libvarve.so asks of the C library. VARVE_BUILD names the build
folder."""
import os
import pathlib
import shutil
import subprocess
import sys

import linting

SKIPPED = 77
LINKER = {"_init", "_fini", "_edata", "_end", "__bss_start"}
# printing, ending the process, reading the environment
FORBIDDEN = {
    "abort", "exit", "_exit", "_Exit", "quick_exit", "__assert_fail", "raise",
    "printf", "__printf_chk", "vprintf", "fprintf", "__fprintf_chk", "vfprintf", "puts", "fputs",
    "putchar", "fputc", "fwrite", "perror", "stderr", "stdout", "getenv", "secure_getenv",
}


def symbols(library, *options):
    done = subprocess.run(["nm", "-D", *options, str(library)], capture_output=True, text=True,
                          check=True)
    return [line.split()[-1].split("@")[0] for line in done.stdout.splitlines() if line.strip()]


def check_exports(library, headers):
    """Exported are the functions that the public headers declare, and nothing else."""
    n_problem = 0
    exported = symbols(library, "--defined-only")
    declared = "".join((linting.ROOT / "include" / "varve" / name).read_text(encoding="utf-8")
                       for name in headers)
    for symbol in exported:
        if not symbol.startswith("varve_") and symbol not in LINKER:
            print(f"{library}:1: exports {symbol}")
            n_problem += 1
        elif symbol.startswith("varve_") and symbol + "(" not in declared:
            print(f"{library}:1: exports {symbol}, which no public header declares")
            n_problem += 1
    return len(exported), n_problem


def main():
    build = pathlib.Path(os.environ.get("VARVE_BUILD") or linting.ROOT / "build")
    library = build / "lib" / "libvarve.so"
    if not library.exists() or shutil.which("nm") is None:
        print("symbols: skipped, no library in the build folder's lib/, or no nm")
        sys.exit(SKIPPED)
    n_exported, n_problem = check_exports(library, ("varve.h", "hot.h"))
    op = build / "lib" / "libvarve-op.so"
    if op.exists():
        n_op, n_op_problem = check_exports(op, ("op.h",))
        n_exported, n_problem = n_exported + n_op, n_problem + n_op_problem
    for symbol in symbols(library, "--undefined-only"):
        if symbol in FORBIDDEN:
            print(f"{library}:1: needs {symbol}: the library never prints, aborts or exits")
            n_problem += 1
    print(f"symbols: {n_exported} exported: {n_problem or 'no'} problem(s)")
    sys.exit(1 if n_problem else 0)


main()
