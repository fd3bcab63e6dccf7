#!/usr/bin/env python3
"""`varve bench`: its figures have all their parts and fit together, results are right, options that
make no sense are refused. No time is judged."""
import json
import pathlib
import shutil

import common
from common import BUILD, LAUNCHER, check, run

TEXTS = ("case", "type_k", "type_v", "tiers", "isa", "class", "kernel")
SIZES = ("head_dim", "head_dim_v", "kv_heads", "q_heads", "kv", "queries", "threads", "layers",
         "rounds", "stock_rounds", "bytes")
SPEEDS = ("ms", "ms_min", "stock_ms", "speedup", "gbps", "read_gbps", "read_ratio")
PRODUCTS = ("gflops", "peak_gflops", "peak_ratio")  # null where nothing is multiplied
SMALL = ("--head-dim", 64, "--kv-heads", 2, "--q-heads", 4, "--kv", 512, "--layers", 3, "--seconds",
         0.05)


def bench(*options):
    """(Result, figures) of a short run."""
    with common.folder() as name:
        path = pathlib.Path(name) / "figures.json"
        result = run([LAUNCHER, "bench", *SMALL, "--json", path, *options])
        figures = json.loads(path.read_text(encoding="utf-8")) if result.code == 0 else []
    return result, figures


def positive(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0


def check_figures(f, what):
    """Keys, signs, and the relations that hold exactly: speeds follow from times and bytes."""
    good = all(isinstance(f.get(k), str) and f[k] for k in TEXTS)
    check(good and all(positive(f.get(k)) for k in SIZES + SPEEDS), f"{what}: all keys", f)
    check(f["ms_min"] <= f["ms"] and f["rounds"] >= 5 and f["stock_rounds"] >= 3,
          f"{what}: the least time is the least, rounds are enough", f)
    check(abs(f["gbps"] - 1e-6 * f["bytes"] / f["ms"]) < 1e-6 * f["gbps"], f"{what}: GB/s", f)
    if f["case"] == "write":
        check(all(k in f and f[k] is None for k in PRODUCTS) and f["max_rel_err"] == 0,
              f"{what}: stock's bytes, nothing multiplied", f)
        return
    check(all(positive(f.get(k)) for k in PRODUCTS), f"{what}: arithmetic", f)
    check(0 < f["max_rel_err"] < 1e-3 and 0 < f["stock_rel_err"] < 0.3, f"{what}: errors", f)
    seen = f["queries"] * f["kv"] - f["queries"] * (f["queries"] - 1) / 2  # none of later queries
    flops = 2 * (f["head_dim"] + f["head_dim_v"]) * f["q_heads"] * seen
    check(abs(f["gflops"] - 1e-6 * flops / f["ms"]) < 1e-6 * f["gflops"], f"{what}: GFLOPS", f)


def row_bytes(kind, n):
    return {"f16": 2 * n, "q8_0": n // 32 * 34, "q4_0": n // 32 * 18}[kind]


def all_cases():
    result, figures = bench("--case", "all", "--tiers", "f16:64", "--threads", 2)
    names = [f["case"] for f in figures]
    check(result.code == 0 and names == ["decode", "prefill", "mixed", "write"],
          f"--case all: {names}", result)
    for f in figures:
        check_figures(f, f["case"])
        check(f["tiers"] == ("f16:64" if f["case"] in ("mixed", "write") else "none"),
              f"{f['case']}: tiers {f['tiers']}", f)
        check(f["queries"] == (512 if f["case"] in ("prefill", "write") else 1),
              f"{f['case']}: {f['queries']} queries", f)
        check(f["case"] in result.out, f"{f['case']}: a line of the table", result)
    lines = [line for line in result.err.splitlines() if " of 4: " in line]
    check(len(lines) == 4 and "about" in lines[0], "a line on stderr for each case", result)
    mixed = figures[2] if len(figures) > 2 else {}
    check(all(positive(mixed.get(k)) for k in ("cold_ms", "cold_ratio", "twins_ms", "view_ms")),
          "mixed beside all cold", mixed)


def settings():
    result, figures = bench("--type-k", "f16,q4_0", "--type-v", "f16,q8_0", "--head-dim-v", 32,
                            "--queries", 3, "--isa", "scalar", "--class", "exact", "--threads", 1,
                            "--pages", 16)
    check(len(figures) == 2, "two pairs of types", result)
    for f, (k, v) in zip(figures, (("f16", "f16"), ("q4_0", "q8_0"))):
        check_figures(f, f"{k}/{v}")
        wanted = {"type_k": k, "type_v": v, "head_dim_v": 32, "isa": "scalar", "class": "exact",
                  "threads": 1, "layers": 3, "bytes": 512 * 2 * (row_bytes(k, 64) + row_bytes(v, 32))}
        check(all(f.get(key) == value for key, value in wanted.items()), f"{k}/{v}: as asked",
              f"{wanted}\n{f}")
        check("scalar" in f["kernel"] and positive(f["pages_ratio"]), f"{k}/{v}: kernel, pages", f)
    result, figures = bench("--case", "prefill", "--kv", 192, "--queries", 192, "--causal")
    check(len(figures) == 1 and all(positive(figures[0].get(k)) for k in (
        "full_ms", "full_ratio", "position_ms", "position_ratio")), "--causal: three times", result)
    for options in (("--layout", "heads"), ("--case", "mixed", "--queries", 3, "--tiers", "f16:16"),
                    ("--case", "write", "--tiers", "none", "--type-k", "f32")):
        result, figures = bench(*options)
        check(len(figures) == 1, f"{options} runs", result)
        for f in figures[:1]:
            check_figures(f, " ".join(map(str, options)))


def pictures():
    with common.folder() as name:
        plot, roof = pathlib.Path(name) / "it's.svg", pathlib.Path(name) / "roof.svg"
        result, figures = bench("--sweep", "--plot", plot, "--roofline", roof)
        lengths = [(f["type_k"], f["kv"]) for f in figures]
        check(lengths == [(t, n) for t in ("f16", "q8_0", "q4_0") for n in (256, 512)],
              f"--sweep walks lengths and types: {lengths}", result)
        if shutil.which("gnuplot") is None:
            check(result.err.count("gnuplot is not installed") == 2, "no gnuplot: said", result)
            return
        for path, words in ((plot, ("GB/s", "context length", "plain read", "varve q4_0")),
                            (roof, ("GFLOPS", "arithmetic intensity", "stock f16"))):
            text = path.read_text(encoding="utf-8") if path.exists() else ""
            check(text.rstrip().endswith("</svg>") and all(w in text for w in words),
                  f"{path.name} has its axes and legend", text[-500:])
        result, _ = bench("--plot", pathlib.Path(name) / "nowhere" / "x.svg")
        check(result.code == 1 and "cannot be written" in result.err, "a picture nowhere", result)


def wrong_options():
    for words, said in (
            (("--case", "encode"), "expected decode, prefill, mixed, write or all"),
            (("--case", ""), "expected decode"),
            (("--class", "best"), "known are default, exact, q8 and fast"),
            (("--isa", "sse9"), "no such level"),
            (("--type-k", "q3_k"), "no such cache type"),
            (("--type-k", "f16,q8_0,q4_0", "--type-v", "f16,q8_0"), "give as many of each"),
            (("--head-dim", 0), "expected a whole number"),
            (("--kv-heads", 3), "no multiple of 3 KV heads"),
            (("--kv", 10, "--queries", 11), "more than the 10 rows"),
            (("--seconds", 0), "expected a number above 0"),
            (("--seconds", "nan"), "expected a number above 0"),
            (("--threads", "many"), "expected a whole number"),
            (("--tiers", "q8_0:3"), "expected f16:W"),
            (("--layout", "columns"), "expected rows or heads"),
            (("--case", "mixed", "--layout", "heads"), "side by side"),
            (("--case", "mixed", "--tiers", "none"), "nothing to measure"),
            (("--case", "mixed", "--type-k", "f16"), "not rounded further than F16"),
            (("--case", "mixed", "--kv", 4), "needs more rows"),
            (("decode",), "not an option")):
        result = run([LAUNCHER, "bench", *SMALL, *words])
        check(result.code == 64 and said in result.err and not result.out,
              f"bench {' '.join(map(str, words))}: {said}", result)
    for words, said in ((("--head-dim", 40, "--type-k", "q8_0"), "does not fit q8_0"),
                        (("--kv", 1 << 24, "--layers", 1000), "are available"),
                        (("--json", "/nowhere/x.json"), "cannot be written")):
        result = run([LAUNCHER, "bench", *SMALL, *words])
        check(result.code == 1 and said in result.err, f"bench {' '.join(map(str, words))}: {said}",
              result)
    result = run([LAUNCHER, "bench", "--help"])
    check(result.code == 0 and "--roofline" in result.out, "--help", result)


if __name__ == "__main__":
    common.need(LAUNCHER, BUILD / "bin" / "varve-bench")
    common.main(all_cases, settings, pictures, wrong_options)
