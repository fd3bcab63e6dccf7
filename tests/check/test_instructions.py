#!/usr/bin/env python3
"""Instructions that each kernel takes for a block, against tests/check/instructions.txt.

A slower kernel shows here on any machine, however busy: the counts are taken by single steps. They
hold for one compiler; with another one nothing is compared. A step takes 20 microseconds, so only the
main kernels are counted here; all of them with --all, and after a change that is meant:

    VARVE_BUILD=build python3 tests/check/test_instructions.py --update
"""
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import common  # noqa: E402
from common import BUILD, ROOT, check, note, run, skip  # noqa: E402

EVEX = BUILD / "bin" / "varve-verify-evex"  # see test_avxvnni.py
FILE = ROOT / "tests" / "check" / "instructions.txt"
HEAD = """# Instructions of each kernel for the block that `varve verify --bench` times: 64 rows of 128
# values; scores and folds of rows with 4 queries, tiles with 16. Scalar kernels are not counted.
# Compared by tests/check/test_instructions.py, which also writes this file (--update).
"""
MAIN = ("*_f16_*", "*_q8_0_*", "*_q4_0_*", "varve_tile*", "varve_pack*_q8_*", "varve_softmax*")
EVERYTHING = "--all" in sys.argv
MORE, LESS = 1.02, 0.95  # a count beyond these is a change that somebody should have meant


def parse(text):
    """(compiler, {symbol: count})"""
    compiler = re.search(r"^# compiler (\S+)", text, re.M)
    counts = {m[1]: int(m[2]) for m in re.finditer(r"^(\w+) (-?\d+)$", text, re.M)}
    return compiler[1] if compiler else None, counts


def taken(everything):
    """The encoding of an instruction does not change their number."""
    compiler, counts = None, {}
    for pattern in ["*"] if everything else MAIN:
        result = run([BUILD / "bin" / "varve-verify", "--count", "--kernel", pattern])
        compiler, some = parse(result.out)
        check(result.code == 0 and compiler, f"instructions of {pattern} are counted", result)
        counts.update(some)
        if EVEX.exists():
            counts.update(parse(run([EVEX, "--count", "--isa", "avxvnni_as_evex",
                                     "--kernel", pattern]).out)[1])
    return compiler, counts


def listed():
    """Kernels that are not scalar, whatever this CPU can run."""
    names = (line.split()[-1] for line in run([BUILD / "bin" / "varve-verify", "--list"]).out.splitlines())
    return {name for name in names if not name.endswith("_scalar")}


def levels_of(names):
    return {name.rsplit("_", 1)[1] for name in names}


def update():
    """Counts of levels that this CPU lacks stay as they are."""
    compiler, counts = taken(True)
    old_compiler, old = parse(FILE.read_text(encoding="utf-8")) if FILE.exists() else (None, {})
    if old_compiler == compiler:
        counts = {**{name: n for name, n in old.items() if name in listed()}, **counts}
    lines = [f"# compiler {compiler}"] + [f"{name} {counts[name]}" for name in sorted(counts)]
    FILE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    print(f"{FILE}: {len(counts)} kernels")


def compare():
    compiler, counts = taken(EVERYTHING)
    expected_compiler, expected = parse(FILE.read_text(encoding="utf-8"))
    if min(counts.values(), default=-1) < 0:
        skip("counts", "no kernel of this CPU could be run step by step")
        return
    known = levels_of(counts) | levels_of(expected)  # no count of a level that nobody could run
    missing = sorted(name for name in listed() - set(expected) if levels_of([name]) <= known)
    check(not missing, "each kernel has a count in the file (--update adds them)", "\n".join(missing))
    if compiler.split(".")[0] != expected_compiler.split(".")[0]:
        skip("counts", f"compiled by {compiler}, the file is for {expected_compiler}")
        return
    for level in sorted(levels_of(listed()) - levels_of(counts)):
        skip(level, "this CPU cannot run its kernels")
    for name in sorted(set(expected) & set(counts)):
        ratio = counts[name] / expected[name]
        if not LESS <= ratio <= MORE:
            check(False, f"{name}: {counts[name]} instructions, {expected[name]} in the file",
                  "slower?" if ratio > 1 else "faster: write the new count with --update")
    note(f"{len(counts)} kernels, {sum(counts.values()) / sum(expected[n] for n in counts if n in expected):.3f} "
         "of the instructions in the file")


if sys.argv[1:] == ["--update"]:
    update()
else:
    sys.argv[1:] = [word for word in sys.argv[1:] if word != "--all"]  # the rest names tests
    common.need(BUILD / "bin" / "varve-verify", FILE)
    common.main(compare)
