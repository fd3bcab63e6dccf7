#!/usr/bin/env python3
"""The faults that the op with a state had where it comes from, put back one by one: its tests must
catch each of them. A copy of op/ is edited, compiled to a library of its own and preloaded into the
tests; nothing in the tree is touched."""
import pathlib
import re
import shutil

import common
from common import BUILD, LLAMA, ROOT, check, run

TEST = BUILD / "bin" / "test-flash-attn-state"
CASES = ("--seed", "1", "--cases", "12")
LINES = BUILD / "bin" / "test-op-state-lines"  # threads in turn: sees a race that did not happen
SECONDS = 300  # a run takes two; a mutant may hang

# fault -> edits of op/: (file, a text that occurs once, what stands there instead). The faults are
# those of docs/state.md; where one can be had in two ways, both are here.
FAULTS = {
    # only the first thread makes its records empty
    "thread-init": [
        ("parts.c", "            op_record_empty(call, record);",
         "            if (thread == 0) op_record_empty(call, record);"),
    ],
    # records lie DV values apart instead of 2 + DV
    "scratch-offset": [
        ("call.h", "(size_t)op_number_of(call, at) * call->record_bytes",
         "(size_t)op_number_of(call, at) * (size_t)call->with.head_dim_v * sizeof(float)"),
    ],
    # all threads work in the scratch of the first one
    "scratch-offset-of-threads": [
        ("parts.c", "&call->io, scratch, 0, task, thread)", "&call->io, scratch, 0, task, 0)"),
        ("call.h", "(size_t)thread * WORK_COUNT + work", "(size_t)(thread * 0) + work"),
    ],
    # the first call goes on from what state and output hold
    "read-output": [("parts.c", "const bool first = op_has(call, FLAG_FIRST);",
                     "const bool first = false;")],
    # the first call scales what the output held by exp(-large): 0 times whatever was there
    "read-output-times-zero": [
        ("join.c", "memcpy(join->sum, op_carry_of(call, join->base, at), bytes);",
         "memcpy(join->sum, op_carry_of(call, join->base, at), bytes);"
         "if (call->with.kind == OP_ATTEND && op_has(call, FLAG_FIRST)) {"
         "    join->sum[0] = -1e30f;"
         "    memcpy(join->sum + 2, op_row_of(join->dst, at), bytes - 2 * sizeof(float));"
         "}"),
    ],
    # a mask is taken to be there
    "null-mask": [("call.c", "if (mask != NULL) {", "if (true) {")],
    # the mask of the other part stands for one that is not there
    "null-mask-of-other-part": [
        ("call.c", "if (mask != NULL) {",
         "if (mask == NULL) mask = call->src[SRC_MASK + (1 - part) * PART_STRIDE];"
         "if (mask != NULL) {"),
    ],
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


def mutant(folder, name, edits):
    """The environment that has tests run a copy of op/ with these edits."""
    copy = pathlib.Path(folder) / name
    shutil.copytree(ROOT / "op", copy)
    edit(copy, edits)
    library = compile_library(copy)  # a path in LD_PRELOAD must have no blanks, a name has none
    return {"LD_PRELOAD": library.name, "LD_LIBRARY_PATH": library.parent}


def last_line(result):
    lines = result.out.strip().splitlines()
    return lines[-1] if lines else ""


def unchanged():
    with common.folder() as folder:
        env = mutant(folder, "unchanged", [])
        result = run([TEST, *CASES], env=env, timeout=SECONDS)
        check(result.code == 0 and last_line(result).startswith("passed: "),
              "the unchanged copy passes", result)
        result = run([LINES], env=env, timeout=SECONDS)
        check(result.code == 0, "and its threads keep to their lines", result)


def catch(name, env):
    """A mutant is caught when a test fails in its own words, or crashes."""
    result = run([TEST, *CASES], env=env, timeout=SECONDS)
    how = f"signal {-result.code}" if result.code < 0 else last_line(result)
    if result.code == 0:
        result = run([LINES], env=env, timeout=SECONDS)
        said = re.search(r"threads \d+ and \d+ of \d+ both write .*", result.out + result.err)
        how = said[0] if said else "not caught"
    found = result.code < 0 or how.startswith(("failed: ", "threads "))
    check(result.code != 0 and found, f"caught: {name}", result)
    common.note(f"{name}: {how}")


def mutants():
    with common.folder() as folder:
        for name, edits in FAULTS.items():
            catch(name, mutant(folder, name, edits))


def symbol_is_replaced():
    """That the copy is what runs: one whose calls all give NULL fails in all cases."""
    with common.folder() as folder:
        env = mutant(folder, "null", [
            ("build.c", "if (!op_check_attend(&build.args)) {", "if (true) {")])
        result = run([TEST, *CASES], env=env, timeout=SECONDS)
        check(last_line(result).startswith("failed: 0 passed"), "the copy is what runs", result)


common.need(TEST, LINES, BUILD / "lib" / "libvarve.a", LLAMA / "lib" / "libggml-base.so")
common.main(unchanged, symbol_is_replaced, mutants)
