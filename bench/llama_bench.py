#!/usr/bin/env python3
"""llama-bench on stock llama.cpp and through `varve exec`, side by side.

Runs are interleaved (stock, varve, stock, varve...), so that a disturbance hits both; a speed is the
median of its runs, a ratio the median of the rounds' ratios: clocks that change from minute to minute
move both sides of a round. Stock is the faster of -fa on and -fa off where both work: with a quantized
V it needs -fa on. Stock takes minutes to fill a deep quantized cache: in such cells each program
makes all its runs in one process, which fills the cache once and restores it (said in the table).
There the runs of the two are minutes apart, which only a ratio far from 1 allows.
At depth, varve's decode has a process of its own: after llama-bench's prefill test the cache is
restored into a new context, which knows no hot rows yet and would be read cold.

Writes OUT.json (every sample) and OUT.md (the table). To see what it would do: --dry-run.
"""
import argparse
import datetime
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
N_PROMPT = 512
N_DECODE, N_DECODE_SHORT = 32, 128  # behind a depth, and at depth 0, where a token takes no time
FLOATS = ("f16", "f32", "bf16")

# Seconds to start and load, and tokens/s (prefill, decode) of stock on two cores at depth 0 and
# 7680: first guesses for the time needed, replaced by what is measured.
LOAD_SECONDS = 1.5
GUESS = {"f16": ((200, 83), (110, 15)), "quantized": ((180, 22), (110, 14))}
SLOW_SECONDS = 25  # a run above this is a slow one


# ---- what to run ----------------------------------------------------------------------------

class Cell:
    """One line of the table twice (prefill and decode): a cache type at a depth in a setting."""

    def __init__(self, setting, kind, threads, cache, depth):
        self.setting, self.kind, self.threads = setting, kind, threads
        self.cache, self.depth = cache, depth
        flash = ("on", "off") if cache in FLOATS else ("on",)
        self.variants = [f"stock -fa {fa}" for fa in flash] + ["varve"]
        self.samples = {v: {"prefill": [], "decode": []} for v in self.variants}
        self.seconds = {v: guess_seconds(cache, depth) for v in self.variants}
        self.rounds, self.repeats = 1, 1  # processes of each variant, and runs in one process

    def n_decode(self):
        return N_DECODE if self.depth > 0 else N_DECODE_SHORT

    def name(self):
        return f"{self.setting}, {self.cache}, depth {self.depth}"

    def median(self, variant, test):
        values = self.samples[variant][test]
        return statistics.median(values) if values else None

    def stock(self, test):
        """The faster of the stock variants: (tokens/s, its name)."""
        return max((self.median(v, test) or 0, v) for v in self.variants if v != "varve")


def guess_fill(cache, depth):
    (p0, p1), _ = GUESS["f16" if cache in FLOATS else "quantized"]
    part = min(depth / 7680, 1)
    return depth * ((1 - part / 2) / p0 + part / 2 / p1)


def guess_seconds(cache, depth):
    (p0, p1), (d0, d1) = GUESS["f16" if cache in FLOATS else "quantized"]
    part = min(depth / 7680, 1)
    # times per token, not speeds, grow with depth
    prefill, decode = (1 - part) / p0 + part / p1, (1 - part) / d0 + part / d1
    n_decode = N_DECODE if depth > 0 else N_DECODE_SHORT
    return LOAD_SECONDS + guess_fill(cache, depth) + N_PROMPT * prefill + n_decode * decode


def repeat_seconds(cell):
    """A further run in a process: the cache is restored, not filled again."""
    return guess_seconds(cell.cache, cell.depth) - guess_fill(cell.cache, cell.depth) - LOAD_SECONDS


def cells_of(args):
    cores = os.cpu_count() or 1
    cells = [Cell("default", "linked", args.threads, cache, depth)
             for depth in args.depths for cache in args.types]
    for depth in args.extra_depths:
        for cache in args.types:
            cells.append(Cell(f"{2 * cores} threads on {cores} cores", "linked", 2 * cores, cache,
                              depth))
            if (args.llama / "noomp" / "bin" / "llama-bench").exists():
                cells.append(Cell("host without OpenMP", "noomp", args.threads, cache, depth))
    for cell in cells:
        slow = max(cell.seconds.values()) > SLOW_SECONDS
        cell.rounds, cell.repeats = (1, args.runs) if slow else (args.runs, 1)
        for variant in cell.variants:
            cell.seconds[variant] += (cell.repeats - 1) * repeat_seconds(cell)
    return sorted(cells, key=lambda c: c.depth)


# ---- running --------------------------------------------------------------------------------

def command_of(args, cell, variant, prompt, decode):
    folder = args.llama / ("bin" if cell.kind == "linked" else f"{cell.kind}/bin")
    flash = variant.rsplit(" ", 1)[1] if variant != "varve" else "on"
    words = [folder / "llama-bench", "-m", args.model, "-p", prompt, "-n", decode, "-r", cell.repeats,
             "-d", cell.depth, "-t", cell.threads, "-ctk", cell.cache, "-ctv", cell.cache,
             "-fa", flash, "-o", "json"]
    if variant == "varve":
        words = [args.build / "bin" / "varve", "exec", "--", *words]
    return [str(w) for w in words]


def run_once(args, cell, variant):
    """Adds the samples of each test; False when the program failed."""
    began = time.monotonic()
    apart = variant == "varve" and cell.depth > 0
    n = cell.n_decode()
    parts = [(N_PROMPT, 0), (0, n)] if apart else [(N_PROMPT, n)]
    ok = all(run_part(args, cell, variant, command_of(args, cell, variant, *part))
             for part in parts)
    cell.seconds[variant] = time.monotonic() - began
    return ok


def run_part(args, cell, variant, command):
    drop = ("VARVE_", "LLAMA_ARG_", "GGML_", "OMP_", "GLIBC_TUNABLES")
    env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, text=True, env=env, check=False)
    if done.returncode != 0:
        print(f"failed: {' '.join(command)}\n{done.stderr[-1500:]}", file=sys.stderr)
        return False
    held = "varve: attention runs on varve" in done.stderr
    if held != (variant == "varve"):
        print(f"varve ran where it should not, or the other way round: {' '.join(command)}\n"
              f"{done.stderr[-1500:]}", file=sys.stderr)
        return False
    for test in json.loads(done.stdout):
        name = "prefill" if test["n_gen"] == 0 else "decode"
        cell.samples[variant][name] += test["samples_ts"]
    args.level = next((line.split("(")[1].split(";")[0] for line in done.stderr.splitlines()
                       if "runs on varve (" in line), args.level)
    return True


def schedule(cells, runs):
    """Round by round over all cells: if time runs out, every cell has had some runs."""
    return [(cell, variant) for i in range(runs) for cell in cells if i < cell.rounds
            for variant in cell.variants]


def seconds_left(rest):
    return sum(cell.seconds[variant] for cell, variant in rest)


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d} min"


def run_all(args, cells):
    plan = schedule(cells, args.runs)
    ok = True
    for i, (cell, variant) in enumerate(plan):
        print(f"[{i + 1}/{len(plan)}, about {clock(seconds_left(plan[i:]))} left] {cell.name()}, "
              f"{variant}", flush=True)
        ok = run_once(args, cell, variant) and ok
        write(args, cells)
    return ok


# ---- report ---------------------------------------------------------------------------------

def cpu_name():
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown CPU"
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")),
                "unknown CPU")


def rows_of(cell):
    for test in ("prefill", "decode"):
        stock, variant = cell.stock(test)
        varve = cell.median("varve", test)
        if stock and varve:
            rounds = zip(cell.samples["varve"][test], cell.samples[variant][test])
            ratio = statistics.median(a / b for a, b in rounds)
            yield {"setting": cell.setting, "threads": cell.threads, "cache": cell.cache,
                   "depth": cell.depth, "test": test, "stock": stock, "stock_variant": variant,
                   "varve": varve, "ratio": ratio,
                   "one_process": cell.repeats > 1,
                   "runs": min(len(cell.samples[v][test]) for v in cell.variants)}


def markdown(args, rows):
    lines = [f"{cpu_name()}, {os.cpu_count()} cores, varve level {args.level}, "
             f"{args.model.resolve().name}, {args.began:%Y-%m-%d}, load average at the beginning "
             f"{args.load[0]:.2f} and at the end {os.getloadavg()[0]:.2f}. Tokens/s, medians of "
             f"interleaved runs; prefill of {N_PROMPT} tokens, decode of {N_DECODE} "
             f"({N_DECODE_SHORT} at depth 0). Stock at the faster of -fa on and off; ratios are "
             "medians of the rounds' ratios.", "",
             "| setting | cache | depth | test | stock | -fa | varve | varve/stock | runs |",
             "|---|---|---:|---|---:|---|---:|---:|---:|"]
    for r in rows:
        lines.append(f"| {r['setting']} | {r['cache']} | {r['depth']} | {r['test']} | "
                     f"{r['stock']:.1f} | {r['stock_variant'].rsplit(' ', 1)[1]} | "
                     f"{r['varve']:.1f} | {r['ratio']:.2f} | "
                     f"{r['runs']}{' (one process)' if r['one_process'] else ''} |")
    return "\n".join(lines) + "\n"


def write(args, cells):
    """After every run, so that nothing is lost when it is interrupted."""
    rows = [row for cell in cells for row in rows_of(cell)]
    samples = [{"setting": c.setting, "threads": c.threads, "cache": c.cache, "depth": c.depth,
                "tokens_per_second": c.samples} for c in cells]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = {"cpu": cpu_name(), "cores": os.cpu_count(), "level": args.level,
            "model": args.model.resolve().name, "date": args.began.isoformat(timespec="seconds"),
            "load_average": {"begin": args.load, "end": os.getloadavg()},
            "rows": rows, "samples": samples}
    args.out.with_suffix(".json").write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    args.out.with_suffix(".md").write_text(markdown(args, rows), encoding="utf-8")
    return rows


def judge(args, rows):
    slow = [r for r in rows if r["ratio"] < args.at_least]
    for r in slow:
        print(f"below {args.at_least}: {r['setting']}, {r['cache']}, depth {r['depth']}, "
              f"{r['test']}: {r['ratio']:.3f}")
    print(f"{len(rows) - len(slow)} of {len(rows)} figures are at least {args.at_least} of stock")
    return not slow


# ---- options --------------------------------------------------------------------------------

def numbers(text):
    return [int(word) for word in text.split(",") if word]


def words(text):
    return [word for word in text.split(",") if word]


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--llama", type=pathlib.Path, help="default: BUILD/llama")
    parser.add_argument("--model", type=pathlib.Path, help="default: LLAMA/model.gguf")
    parser.add_argument("--depths", type=numbers, default=[0, 2048, 7680])
    parser.add_argument("--extra-depths", type=numbers, default=[0, 2048, 7680],
                        help="for more threads than cores and the host without OpenMP")
    parser.add_argument("--types", type=words, default=["f16", "q8_0", "q4_0"])
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="depths 0 and 1024, one run")
    parser.add_argument("--at-least", type=float, default=0.97, help="ratio wanted (exit code)")
    parser.add_argument("--out", type=pathlib.Path, help="default: BUILD/bench/llama-bench")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its time")
    args = parser.parse_args()
    args.llama = args.llama or args.build / "llama"
    args.model = args.model or args.llama / "model.gguf"
    args.out = args.out or args.build / "bench" / "llama-bench"
    if args.quick:
        args.depths, args.extra_depths, args.runs = [0, 1024], [0], 1
    args.level, args.load, args.began = "unknown", os.getloadavg(), datetime.datetime.now()
    return args


def main():
    args = parse()
    cells = cells_of(args)
    plan = schedule(cells, args.runs)
    print(f"{len(plan)} runs of llama-bench, about {clock(seconds_left(plan))} on two cores; "
          f"results in {args.out}.md and .json", flush=True)
    for cell in cells:
        print(f"  {cell.name()}: {cell.rounds} x {cell.repeats} x ({', '.join(cell.variants)}), about "
              f"{clock(sum(cell.seconds.values()))} each", flush=True)
    if args.dry_run:
        return 0
    if args.load[0] > 0.5:
        print(f"the load average is {args.load[0]:.2f}: other programs will disturb the figures")
    ok = run_all(args, cells)
    rows = write(args, cells)
    print(markdown(args, rows))
    return 0 if judge(args, rows) and ok else 1


if __name__ == "__main__":
    sys.exit(main())
