#!/usr/bin/env python3
"""The faults that the op with a state had where it comes from, put back one by one: the test of the
op must catch each of them. A copy of op/ is edited, compiled to a library of its own and preloaded
into test-flash-attn-state; nothing in the tree is touched."""
import os
import pathlib
import re
import shutil

import common
from common import BUILD, LLAMA, ROOT, check, run

TEST = BUILD / "bin" / "test-flash-attn-state"
CASES = ("--seed", "1", "--cases", "12")
SECONDS = 300  # a run takes two; a mutant may hang

# fault -> edits of op/: (file, a text that occurs once, what stands there instead)
FAULTS = {
    # only the first thread initialises the records that it carries
    "thread-init": [
        ("parts.c", "carry_record(&call, at, record);",
         "if (ith == 0) carry_record(&call, at, record);"),
    ],
    # records lie DV values apart instead of 2 + DV
    "scratch-offset": [
        ("call.h", "(size_t)op_number_of(call, at) * call->record_bytes",
         "(size_t)op_number_of(call, at) * (size_t)call->with.head_dim_v * sizeof(float)"),
    ],
    # the first call scales what the output held by exp(-large), instead of not reading it
    "read-output": [
        ("join.c", "memcpy(join->sum, op_carry_of(call, join->base, at), bytes);",
         "memcpy(join->sum, op_carry_of(call, join->base, at), bytes);"
         "if (call->with.kind == OP_ATTEND && op_has(call, FLAG_FIRST)) {"
         "    join->sum[0] = -1e30f;"
         "    memcpy(join->sum + 2, op_row_of(join->dst, at), bytes - 2 * sizeof(float));"
         "}"),
    ],
    # a mask is taken to be there
    "null-mask": [("call.c", "if (mask != NULL) {", "if (true) {")],
    # both parts of a call are taken to have the same length
    "unequal": [
        ("call.c", "s->n_rows = k->ne[1];",
         "s->n_rows = call->src[SRC_K] != NULL ? call->src[SRC_K]->ne[1] : k->ne[1];"),
    ],
}


def cache(name):
    """An entry of the build's CMakeCache.txt."""
    text = (BUILD / "CMakeCache.txt").read_text(encoding="utf-8")
    match = re.search(rf"^{name}:[A-Z]+=(.*)$", text, re.M)
    return match[1] if match else ""


def edit(folder, edits):
    for name, anchor, text in edits:
        path = folder / name
        source = path.read_text(encoding="utf-8")
        if source.count(anchor) != 1:
            raise RuntimeError(f"op/{name} has {source.count(anchor)} times, not once: {anchor}")
        path.write_text(source.replace(anchor, text), encoding="utf-8")


def compile_library(folder):
    """libvarve-op of the sources in a folder."""
    library = folder / "libvarve-op-mutant.so"
    flags = ["-std=c11", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-fvisibility=hidden",
             "-D_GNU_SOURCE", "-DVARVE_OP_BUILD", f"-I{ROOT / 'include'}"]
    if cache("VARVE_OPENMP") == "ON":
        flags.append("-fopenmp")
    flags += ["-isystem", LLAMA / "src" / "ggml" / "include",
              "-isystem", LLAMA / "src" / "ggml" / "src"]
    result = run([cache("CMAKE_C_COMPILER") or "cc", *flags, "-o", library,
                  *sorted(folder.glob("*.c")), BUILD / "lib" / "libvarve.a",
                  LLAMA / "lib" / "libggml-base.so", "-Wl,--exclude-libs,ALL", "-lm", "-lpthread"])
    if result.code != 0:
        raise RuntimeError(str(result))
    return library


def test_with(folder, name, edits):
    """Runs the test over a copy of op/ with these edits."""
    copy = pathlib.Path(folder) / name
    shutil.copytree(ROOT / "op", copy)
    edit(copy, edits)
    return run([TEST, *CASES], env={"LD_PRELOAD": compile_library(copy)}, timeout=SECONDS)


def last_line(result):
    lines = result.out.strip().splitlines()
    return lines[-1] if lines else ""


def unchanged():
    with common.folder() as folder:
        result = test_with(folder, "unchanged", [])
        check(result.code == 0 and last_line(result).startswith("passed: "),
              "the unchanged copy passes", result)


def mutants():
    with common.folder() as folder:
        for name, edits in FAULTS.items():
            result = test_with(folder, name, edits)
            # a negative code is a signal: the mutant crashed
            found = result.code < 0 or last_line(result).startswith("failed: ")
            check(result.code != 0 and found, f"caught: {name}", result)
            how = f"signal {-result.code}" if result.code < 0 else last_line(result)
            common.note(f"{name}: {how}")


def symbol_is_replaced():
    """That the copy is what runs: one whose calls all give NULL fails in all cases with rows."""
    with common.folder() as folder:
        result = test_with(folder, "null", [
            ("build.c", "if (!op_check_attend(&build.args)) {", "if (true) {")])
        check(last_line(result).startswith("failed: 0 passed"), "the copy is what runs", result)


common.need(TEST, BUILD / "lib" / "libvarve.a", LLAMA / "lib" / "libggml-base.so")
if os.environ.get("LD_PRELOAD"):
    common.note("LD_PRELOAD is set aside")
common.main(unchanged, symbol_is_replaced, mutants)
