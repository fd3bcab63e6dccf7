#!/usr/bin/env python3
"""The figures of `varve bench` beside those that other programs take of the same attention.

test-backend-ops of llama.cpp times FLASH_ATTN_EXT on the back ends VARVE (our plug-in) and CPU. It
uses half of the CPUs as threads, keeps the rows of a head together, reads the same rows again and
again, and its mask hides a few rows, so `varve bench` is run with that number of threads, with
--layout heads and --layers 1. PyTorch's scaled_dot_product_attention is timed where it is
installed. Programs run in turn, in rounds; a ratio is the median of the rounds' ratios.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
# (head size, KV heads, group, rows, queries, type): cases that test-backend-ops has
CASES = [(64, 8, 8, 7680, 1, "f16"), (64, 8, 8, 7680, 1, "q8_0"), (64, 8, 8, 7680, 1, "q4_0"),
         (256, 2, 16, 10000, 1, "q8_0"), (256, 2, 16, 10000, 1, "f16"),
         (256, 4, 6, 4096, 512, "f16")]
TARGET = 0.10  # ratios within this of 1


def name_of(case):
    dim, heads, group, rows, queries, kind = case
    return f"{kind}, {queries} x {rows}, head size {dim}, {heads * group} heads over {heads}"


def ops_threads():
    return max(1, (os.cpu_count() or 1) // 2)  # as test-backend-ops has it


def ops_ms(args, case, backend):
    """Milliseconds of one node, or None."""
    dim, heads, group, rows, queries, kind = case
    params = (rf"hsk={dim},hsv={dim},nh={heads},nr23=\[{group},1\],kv={rows},nb={queries},mask=1,"
              rf"sinks=0,.*type_K={kind},type_V={kind},permute=\[0,1,2,3\],kv_view=1,"
              r"v_is_view_of_k=0,n_kv_max=0")
    plugin = args.build / "lib" / "libggml-varve.so"
    done = subprocess.run([args.llama / "bin" / "test-backend-ops", "perf", "-o", "FLASH_ATTN_EXT",
                           "-b", backend, "-p", params], capture_output=True, text=True, check=False,
                          env={**os.environ, "GGML_BACKEND_PATH": str(plugin)})
    found = re.findall(r"([\d.]+) us/run", done.stdout)
    return float(found[0]) / 1000 if done.returncode == 0 and len(found) == 1 else None


def bench(args, case, *options):
    """The object of the case in the figures of `varve bench`."""
    dim, heads, group, rows, queries, kind = case
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        subprocess.run([args.build / "bin" / "varve", "bench", "--case",
                        "prefill" if queries > 8 else "decode", "--head-dim", str(dim),
                        "--kv-heads", str(heads), "--q-heads", str(heads * group), "--kv",
                        str(rows), "--queries", str(queries), "--type-k", kind, "--seconds",
                        str(args.seconds), "--layers", "1", "--json", file.name, *options],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return json.load(file)[0]


def compare_ops(args, case):
    """(what, ours, theirs, ratio) for varve and for stock."""
    rounds = []
    for _ in range(args.rounds):
        ours = bench(args, case, "--layout", "heads", "--threads", str(ops_threads()))
        rounds.append((ours["ms"], ops_ms(args, case, "VARVE"),
                       ours["stock_flash_ms"], ops_ms(args, case, "CPU")))
    for what, at in (("varve", 0), ("stock", 2)):
        pairs = [(r[at], r[at + 1]) for r in rounds if r[at + 1]]
        if pairs:
            yield (what, statistics.median(a for a, _ in pairs),
                   statistics.median(b for _, b in pairs),
                   statistics.median(a / b for a, b in pairs))


def torch_ms(torch, case, threads):
    dim, heads, group, rows, queries, kind = case
    dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
    torch.set_num_threads(threads)
    q = torch.randn(1, heads * group, queries, dim).to(dtype)
    k, v = (torch.randn(1, heads, rows, dim).to(dtype) for _ in range(2))
    samples = []
    for _ in range(7):
        begin = time.perf_counter()
        torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        samples.append(1000 * (time.perf_counter() - begin))
    return statistics.median(samples[1:])


def compare_torch(args, cases):
    """PyTorch computes the same attention its own way: a ratio to know, not one to meet."""
    try:
        import torch  # pylint: disable=import-outside-toplevel
    except ImportError:
        print("PyTorch: skipped, it is not installed")
        return
    threads = len(os.sched_getaffinity(0))
    for case in (c for c in cases if c[5] in ("f32", "f16", "bf16")):
        ours = bench(args, case, "--threads", str(threads))["ms"]
        theirs = torch_ms(torch, case, threads)
        print(f"PyTorch {torch.__version__}: {name_of(case)}: {theirs:.3f} ms, varve {ours:.3f} ms, "
              f"{theirs / ours:.2f} times as long")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build")
    parser.add_argument("--llama", type=pathlib.Path, help="default: BUILD/llama")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of each run of varve bench")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    args.llama = args.llama or args.build / "llama"
    return args


def main():
    args = parse()
    cases = [case for case in CASES if args.only in name_of(case)]
    n_far = n_row = 0
    print(f"test-backend-ops, {ops_threads()} thread(s): ms here, ms there, ratio "
          f"(within {TARGET:.0%} of 1 is wanted)", flush=True)
    for case in cases:
        for what, ours, theirs, ratio in compare_ops(args, case):
            far = abs(ratio - 1) > TARGET
            n_row, n_far = n_row + 1, n_far + far
            print(f"  {what} {name_of(case)}: {ours:.3f} {theirs:.3f} {ratio:.3f}"
                  f"{'  far' if far else ''}", flush=True)
    compare_torch(args, cases)
    print(f"{n_row - n_far} of {n_row} within {TARGET:.0%}")
    return 0 if n_row > 0 and n_far == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
