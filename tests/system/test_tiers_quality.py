#!/usr/bin/env python3
"""What F16 twins of recent rows do to the model's predictions: mean KL divergence from stock.

By llama-perplexity on the default model, whose quantized weights give two correct runs a divergence
of some 4e-3 already, so the improvements that it shows are lower bounds; and by probe.c on the same
weights as F32 (widen.c says why), where the noise of roundings is gone. "Within 15 %" is asserted
with two standard errors of the difference, taken as if the two runs were independent, which is more
than the paired error.

VARVE_QUALITY_LONG=1 adds 8,192 tokens, and the comparison of mixed types on F32 weights (minutes).
"""
import math
import os
import pathlib
import re

import common
from common import check, launched, program, run

LONG = os.environ.get("VARVE_QUALITY_LONG") == "1"
TIERS = {"VARVE_TIERS": "f16:256", "VARVE_SINKS": 4, "VARVE_TRACE": 1}
NONE = {"VARVE_TIERS": "none", "VARVE_TRACE": 1}


# ---- llama-perplexity -----------------------------------------------------------------------

class Perplexity:
    """A reference by stock with an F16 cache, and the divergences from it."""

    def __init__(self, folder, n_token):
        self.folder, self.n_token = pathlib.Path(folder), n_token
        self.text = self.folder / "text"
        self.text.write_bytes(long_text())
        self.reference = self.folder / "reference"
        done = run(self.command("--kl-divergence-base", self.reference), timeout=2400)
        assert done.code == 0, done

    def command(self, *more):
        return [program("llama-perplexity"), "-m", common.MODEL, "-f", self.text, "-c",
                self.n_token, "-b", 2048, "--chunks", 1, "--no-warmup", "-fa", "on", *more]

    def divergence(self, k, v, env):
        """(mean, its standard error), with every attention node computed by varve."""
        command = self.command("--kl-divergence-base", self.reference, "--kl-divergence", "-ctk",
                               k, "-ctv", v)
        result = run(launched(command), env, timeout=2400)
        seen = common.counters(result.err)
        assert result.code == 0 and seen["attention"] and not seen["no"], result
        found = re.search(r"Mean +KLD: +([0-9.e-]+) +\S+ +([0-9.e-]+)", result.out + result.err)
        mean, error = float(found.group(1)), float(found.group(2))
        common.note(f"{self.n_token} tokens, K {k}, V {v}, {env['VARVE_TIERS']}: mean KLD "
                    f"{mean:.6f} +- {error:.6f} ({result.seconds:.0f} s)")
        return mean, error


def long_text():
    """Enough for two contexts of 8,192 tokens, which llama-perplexity asks for."""
    paths = [common.text_file()]
    if paths[0].parent == common.LICENCES:
        paths += [p for p in sorted(common.LICENCES.iterdir())
                  if p.is_file() and not p.is_symlink() and p != paths[0]]
    return b"\n".join(p.read_bytes() for p in paths)


def check_window_helps(bench, most):
    (alone, _), (tiers, _) = (bench.divergence("q4_0", "q4_0", env) for env in (NONE, TIERS))
    check(tiers <= most * alone, f"{bench.n_token} tokens, q4_0 with f16:256 and 4 sinks: "
          f"{tiers / alone:.3f} of the divergence of q4_0 alone, at most {most}")


def default_model():
    """q4_0 with a window; and K q8_0, V q4_0 with a window like q8_0 alone."""
    with common.folder() as folder:
        bench = Perplexity(folder, 2048)
        check_window_helps(bench, 0.25)
        (alone, e1), (mixed, e2) = (bench.divergence("q8_0", "q8_0", NONE),
                                    bench.divergence("q8_0", "q4_0", TIERS))
        error = 2 * math.hypot(e1, e2)
        check(mixed <= 1.15 * alone + error,
              f"2048 tokens, K q8_0, V q4_0 with f16:256 and 4 sinks: {mixed / alone:.3f} of the "
              f"divergence of q8_0 alone, at most 1.15 + {error / alone:.3f}")


def default_model_long():
    if not LONG:
        common.skip("8192 tokens", "takes minutes; VARVE_QUALITY_LONG=1")
        return
    with common.folder() as folder:
        check_window_helps(Perplexity(folder, 8192), 0.2)


# ---- F32 weights ----------------------------------------------------------------------------

class Wide:
    """probe.c on F32 weights; the reference is stock with an F16 cache."""

    def __init__(self, folder, n_token):
        self.folder = pathlib.Path(folder)
        self.probe = common.build_probe(folder)
        widen = common.build_with_llama("widen.c", folder)
        self.model, self.reference = self.folder / "wide.gguf", self.folder / "reference"
        done = run([widen, common.MODEL, self.model])
        assert done.code == 0, done
        common.probe(self.probe, model=self.model, write=self.reference, tokens=n_token)

    def divergence(self, tiers, **options):
        env = common.plugged({"VARVE_TIERS": tiers, "VARVE_SINKS": 4})
        answers = common.probe(self.probe, env, model=self.model, reference=self.reference,
                               **options).answers
        assert answers["served"] == answers["nodes"] != "0", answers
        mean = float(answers["kld"])
        common.note(f"F32 weights, {options}, {tiers}: mean KLD {mean:.3e}")
        return mean


def wide_model():
    """A window that holds everything leaves nothing of the cache's format; and the cut into ubatches
    does not decide which rows are read in F16 (pitfalls 2, 5)."""
    n_token = 1024 if LONG else 512
    q4 = {"type_k": "q4_0", "type_v": "q4_0"}
    with common.folder() as folder:
        bench = Wide(folder, n_token)
        mean = bench.divergence("f16:100000", tokens=512, **q4)
        check(mean <= 1e-4, f"a window larger than the context: mean KLD {mean:.1e}, at most 1e-4")
        means = [bench.divergence("f16:64", tokens=384, ubatch=n, **q4) for n in (1, 7, 64, 512)]
        check(max(means) <= 1.1 * min(means),
              f"ubatches of 1, 7, 64, 512: mean KLD within {max(means) / min(means) - 1:.1%}, "
              "at most 10 %")
        if LONG:
            mixed_types(bench, n_token)


def mixed_types(bench, n_token):
    alone = bench.divergence("none", tokens=n_token, type_k="q8_0", type_v="q8_0")
    mixed = bench.divergence("f16:256", tokens=n_token, type_k="q8_0", type_v="q4_0")
    common.note(f"K q8_0, V q4_0 with f16:256 and 4 sinks: {mixed / alone:.3f} of q8_0 alone")


common.need(common.PLUGIN, common.LAUNCHER, program("llama-perplexity"), common.MODEL,
            common.LLAMA / "src")
common.main(default_model, wide_model, default_model_long)
