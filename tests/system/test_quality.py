#!/usr/bin/env python3
"""How far attention by varve moves the model's predictions, beside how far stock's does.

Mean KL divergence over positions, from float logits (tests/system/probe.c; llama-perplexity keeps
log-probabilities in 16 bits, steps of some 2e-4). Measured with the weights of the default model
as F32 (tests/system/widen.c says why): there stock's F16 run lies 1e-6 from the F32 reference, and
1e-5 can be seen. With its own quantized weights two correct runs lie 5e-3 apart.

Quantized caches have noise in them: a last-bit difference in one layer changes roundings in the
next ones, so that the mean of N positions wavers by some 2 / sqrt(N) of itself. "Within 5 %" is
therefore asserted with two standard errors of the paired difference for each type, and without
them for the types together.
"""
import math
import os
import pathlib
import statistics

import common
from common import check

TYPES = ("q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
# Chunks of 512 tokens for quantized caches; more of them for a sharper answer by hand. What one node
# adds is compared with stock's by tests/ggml/test_attention.c, without this noise.
N_CHUNK = int(os.environ.get("VARVE_QUALITY_CHUNKS", "2"))
BLOCK = 32    # neighbouring positions see the same rounded rows: errors are taken from blocks
EXACT = {"type_k": "f32", "type_v": "f32", "fa": "off"}  # with -fa on, stock casts F32 to F16


class Bench:
    """The probe, a model with F32 weights, and one reference at a time."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.binary = common.build_probe(folder)
        self.reference = self.folder / "reference"
        lib, source = common.LLAMA / "lib", common.LLAMA / "src"
        widen = common.compile_c(pathlib.Path(__file__).with_name("widen.c"), folder,
                                 f"-I{source}/ggml/include", f"-L{lib}", f"-Wl,-rpath,{lib}",
                                 "-lggml-base")
        self.wide = self.folder / "wide.gguf"
        done = common.run([widen, common.MODEL, self.wide])
        assert done.code == 0, done

    def set_reference(self, model, **options):
        common.probe(self.binary, None, model=model, write=self.reference, **options)

    def divergences(self, model, varve, **options):
        """One per position. varve must have served all of them."""
        path = self.folder / "divergences"
        answers = common.probe(self.binary, common.plugged() if varve else None, model=model,
                               reference=self.reference, divergences=path, **options).answers
        served = answers["nodes"] if varve else "0"
        assert answers["served"] == served, answers
        return [float(line) for line in path.read_text(encoding="utf-8").split()]


def block_means(values):
    return [statistics.fmean(values[i:i + BLOCK]) for i in range(0, len(values), BLOCK)]


def standard_error(differences):
    means = block_means(differences)
    return statistics.stdev(means) / math.sqrt(len(means))


def compare(stock, ours, what):
    """(mean of stock, mean of ours, standard error of the difference); printed."""
    error = standard_error([b - a for a, b in zip(stock, ours)])
    a, b = statistics.fmean(stock), statistics.fmean(ours)
    common.note(f"{what}: mean KLD stock {a:.3e}, varve {b:.3e}, ratio {b / a:.3f} +- "
                f"{error / a:.3f}, over {len(stock)} tokens")
    return a, b, error


def f16_cache(bench):
    """As a prompt, and token by token."""
    for tokens, ubatch in ((512, 512), (128, 1)):
        bench.set_reference(bench.wide, tokens=tokens, **EXACT)
        stock, ours = (bench.divergences(bench.wide, varve, tokens=tokens, ubatch=ubatch)
                       for varve in (False, True))
        what = f"F16 cache, F32 weights, ubatch {ubatch}"
        a, b, _ = compare(stock, ours, what)
        check(b <= a + 1e-5, f"{what}: {b:.3e} is at most stock's {a:.3e} + 1e-5")


def f16_cache_default_model(bench):
    bench.set_reference(common.MODEL, tokens=512, **EXACT)
    stock, ours = (bench.divergences(common.MODEL, varve, tokens=512) for varve in (False, True))
    what = "F16 cache, default model"
    a, b, error = compare(stock, ours, what)
    check(b <= a + 1e-5 + 2 * error,
          f"{what}: {b:.3e} is at most stock's {a:.3e} + 1e-5 + 2 standard errors ({error:.1e})")


def quantized_caches(bench):
    options = {"tokens": 512, "chunks": N_CHUNK}
    bench.set_reference(bench.wide, **options)
    ratios = []
    for name in TYPES:
        stock, ours = (bench.divergences(bench.wide, varve, type_k=name, type_v=name, **options)
                       for varve in (False, True))
        a, b, error = compare(stock, ours, f"{name} cache")
        ratios.append(b / a)
        check(b <= 1.05 * a + 2 * error,
              f"{name} cache: {b / a:.3f} of stock's divergence, at most 1.05 + 2 standard errors "
              f"({error / a:.3f})")
    mean = statistics.geometric_mean(ratios)
    check(mean <= 1.05, f"all types together: {mean:.3f} of stock's divergence, at most 1.05")


def quality():
    """All parts with one model of F32 weights, which takes seconds to write."""
    with common.folder() as folder:
        bench = Bench(folder)
        for part in (f16_cache, f16_cache_default_model, quantized_caches):
            part(bench)


common.need(common.PLUGIN, common.MODEL, common.LLAMA / "src")
common.main(quality)
