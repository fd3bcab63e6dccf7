#!/usr/bin/env python3
"""`varve plan`: what it says is what a context takes, for caches of all kinds; bad files are errors.

tests/system/plan_probe.c creates a context, fills it to the last cell, and gives the account of the plug-in
(equal to the byte but for staging) and the growth of the process's Pss (within 2 % or 2 MB).
"""
import json
import os
import pathlib
import random
import struct

import common
from common import check

PLAN = common.BUILD / "bin" / "varve-plan"
MIB = 1 << 20
THREADS = 2
N_FUZZ = int(os.environ.get("VARVE_FUZZ", "150"))


def plan(*words, env=None, program=None):
    with common.folder() as folder:
        path = pathlib.Path(folder) / "plan.json"
        command = [program] if program else [common.LAUNCHER, "plan"]
        result = common.run([*command, *words, "-t", THREADS, "--json", path], env)
        text = path.read_text() if path.exists() else ""
        result.json = json.loads(text) if text else None
        return result


# ---- as it comes to be ----------------------------------------------------------------------

def compare(probe, model, n_ctx, n_slot, unified, n_ubatch, type_k, type_v, tiers):
    what = (f"{model.name}, {n_ctx} tokens, {n_slot} slots{' unified' * unified}, "
            f"{type_k}/{type_v}, {tiers}")
    env = {"VARVE_TIERS": tiers}
    seen = common.run([probe, model, n_ctx, n_slot, int(unified), n_ubatch, type_k, type_v,
                       THREADS], common.plugged(env))
    told = plan("-m", model, "-c", n_ctx, "--slots", n_slot, "-u", n_ubatch, "--ctk", type_k,
                "--ctv", type_v, *(["--unified"] if unified else []), env=env)
    if not check(seen.code == 0 and told.code == 0, f"{what}: both ran", f"{seen}\n{told}"):
        return
    seen, told = common.numbers(seen), told.json["bytes"]
    hot = told["hot"] + told["sinks"]
    check(told["cold"] == seen["cold"], f"{what}: cold {told['cold']} bytes", seen)
    check(hot == seen["hot"], f"{what}: hot and sinks {hot} bytes", seen)
    check(abs(told["staging"] - seen["staging"]) <= 0.05 * told["staging"],
          f"{what}: staging {told['staging']} bytes, {seen['staging']:.0f} taken", seen)
    check(seen["evicted"] == 0 or told["hot"] > 0, f"{what}: twins evicted {seen['evicted']:.0f}")
    apart = told["context"] - seen["pss"]
    check(abs(apart) <= max(0.02 * seen["pss"], 2e6),
          f"{what}: {told['context'] / MIB:.1f} MiB planned, {seen['pss'] / MIB:.1f} taken", told)


def default_model():
    """Contexts of several windows; with slots, of two windows for each, so that staging is filled."""
    cases = [("f16", 1, False, "none"), ("q8_0", 1, False, "none"), ("q8_0", 1, False, "f16:256"),
             ("q4_0", 1, False, "none"), ("q4_0", 1, False, "f16:256"),
             ("f16", 4, False, "none"), ("q8_0", 4, False, "f16:256"),
             ("q4_0", 4, False, "none"), ("q4_0", 4, False, "f16:256"),
             ("q4_0", 4, True, "f16:64")]
    with common.folder() as folder:
        probe = common.build_with_llama("plan_probe.c", folder)
        for cache, n_slot, unified, tiers in cases:
            n_ctx = 2048 if n_slot > 1 else 1024
            compare(probe, common.MODEL, n_ctx, n_slot, unified, 512, cache, cache, tiers)


def other_models():
    """Sliding windows, latent attention, many layers."""
    with common.folder() as folder:
        probe = common.build_with_llama("plan_probe.c", folder)
        maker = common.build_with_llama("window_model.c", folder)
        models = []
        for kind in ("granite_swa", "gemma2", "deepseek2"):
            models.append(pathlib.Path(folder) / f"{kind}.gguf")
            common.run([maker, common.MODEL, models[-1], kind])
        models.append(common.tiny_model(pathlib.Path(folder) / "tiny.gguf", 60))
        for model in models:
            compare(probe, model, 4096, 1, False, 512, "q4_0", "q4_0", "f16:256")
        swa = plan("-m", models[1], "-c", 4096).json["layers"]
        check([layer["cells"] for layer in swa] == [768, 4096, 768, 4096],
              "gemma2: every second layer has a window", swa)
        mla = plan("-m", models[2], "-c", 4096).json["layers"]
        check(all(layer["latent"] and layer["cold_v"] == 0 for layer in mla),
              "deepseek2: V is a part of K", mla)


# ---- what it says ---------------------------------------------------------------------------

DIMENSIONS = ("--layers", 32, "--kv-heads", 8, "--heads", 32, "--head-dim", 128)


def dimensions():
    told = plan(*DIMENSIONS, "-c", 32768, "--ctk", "f16", "--ctv", "f16").json
    check(told["bytes"]["cold"] == 32 * 2 * 1024 * 2 * 32768, "dimensions: cold rows of f16", told)
    check([layer["number"] for layer in told["layers"]] == list(range(32)), "dimensions: numbers", told)
    told = plan(*DIMENSIONS, "-c", 32768).json
    check(told["bytes"]["cold"] == 32 * 2 * 1024 // 32 * 18 * 32768, "dimensions: of q4_0", told)
    check(len(told["layers"]) == 32, "dimensions: 32 layers", told)
    told = plan(*DIMENSIONS, "--window", 1024, "-c", 32768).json
    cells = [layer["cells"] for layer in told["layers"]]
    check(cells == [1536, 1536, 1536, 32768] * 8, "dimensions: windows in three of four", cells)
    for words in (DIMENSIONS[:2], (*DIMENSIONS, "-m", "x"), ("--layers", 0), ("--heads", 3, *DIMENSIONS[:4], "--head-dim", 64),
                  ("-m", "x", "--ctk", "q9"), (*DIMENSIONS, "--tiers", "f16:0"), ()):
        result = plan(*words)
        check(result.code == 64 and result.err.count("\n") <= 3, f"options {words}: refused", result)


def longest():
    """The longest context fits, the next step does not; and --ram is heeded."""
    ram = 160 * MIB
    for cache in ("f16", "q4_0"):
        words = ("-m", common.MODEL, "--ctk", cache, "--ctv", cache, "--ram", ram)
        rows = plan(*words, "-c", 512).json["types"]
        most = next(row["longest"] for row in rows if row["type_k"] == row["type_v"] == cache)
        check(most % 256 == 0 and 0 < most, f"{cache}: {most} tokens into {ram} bytes", rows)
        check(plan(*words, "-c", most).code == 0, f"{cache}: {most} tokens fit")
        if most < 8192:
            over = plan(*words, "-c", most + 256)
            check(over.code == 1 and "does not fit" in over.err, f"{cache}: 256 more do not", over)
    none = plan("-m", common.MODEL, "--ram", "1M").json["types"]
    check(all(row["longest"] == 0 for row in none), "nothing fits into 1 MiB", none)


def on_a_terminal():
    result = common.run([common.LAUNCHER, "plan", "-m", common.MODEL])
    widest = max(len(line) for line in result.out.splitlines())
    check(result.code == 0 and widest <= 110, f"a table of {widest} columns", result)
    for word in ("weights", "cold", "hot", "sinks", "staging", "mask", "compute", "scratch",
                 "longest", "MiB"):
        check(word in result.out, f"the table has {word}", result)


# ---- files that are none --------------------------------------------------------------------

def header():
    """The header of the default model, without its weights."""
    with open(common.MODEL, "rb") as file:
        return file.read(3 << 20)


def failed_well(result):
    lines = [line for line in result.err.splitlines() if line.startswith("varve: ")]
    return result.code == 1 and lines and "Sanitizer" not in result.err and not result.out


def bad_files():
    whole = header()
    cases = {
        "empty": b"", "short": b"GG", "wrong magic": b"ABCD" + whole[4:], "half": whole[:12],
        "version 1": whole[:4] + struct.pack("<I", 1) + whole[8:],
        "version 9": whole[:4] + struct.pack("<I", 9) + whole[8:],
        "big-endian": whole[:4] + struct.pack(">I", 3) + whole[8:],
        "many tensors": whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:],
        "many keys": whole[:16] + struct.pack("<Q", 1 << 40) + whole[24:],
        "truncated": whole[:100000], "without weights": whole,
    }
    wanted = {"empty": "empty", "version 1": "version 1", "big-endian": "byte order",
              "many tensors": "fetch it again", "wrong magic": "not a GGUF file"}
    with common.folder() as folder:
        path = pathlib.Path(folder) / "bad.gguf"
        for what, content in cases.items():
            path.write_bytes(content)
            result = plan("-m", path)
            check(failed_well(result) and wanted.get(what, "") in result.err,
                  f"{what}: {result.err.strip()[:110]}", result)
        for what, place in (("a folder", folder), ("no file", f"{folder}/none")):
            result = plan("-m", place)
            check(failed_well(result), f"{what}: {result.err.strip()[:110]}", result)


def fuzz():
    """Random truncations and changed bytes: an error or a plan, never a crash of ours, never a hang."""
    asan = pathlib.Path(os.environ.get("VARVE_ASAN_BUILD", "")) / "bin" / "varve-plan"
    program = asan if os.environ.get("VARVE_ASAN_BUILD") and asan.exists() else PLAN
    with common.folder() as folder:
        path = common.tiny_model(pathlib.Path(folder) / "fuzz.gguf", 2)
        whole = path.read_bytes()
        rng = random.Random(1)
        n_bad = n_plan = 0
        for i in range(N_FUZZ):
            content = bytearray(whole)
            if i % 3 == 0:
                del content[rng.randrange(rng.choice((64, 2000, len(whole)))):]
            for _ in range(rng.choice((1, 1, 4, 30)) if i % 3 else 0):
                content[rng.randrange(rng.choice((64, 600, 2000)))] = rng.randrange(256)
            path.write_bytes(content)
            result = plan("-m", path, "-c", 512, program=program)
            n_plan += result.code == 0
            if result.code != 0 and not failed_well(result):
                n_bad += 1
                common.note(str(result))
        check(n_bad == 0, f"{N_FUZZ} damaged files: {n_plan} planned, the others refused in a line "
              f"({program})")


common.need(PLAN, common.PLUGIN, common.MODEL)
common.main(dimensions, on_a_terminal, bad_files, longest, fuzz, other_models, default_model)
