#!/usr/bin/env python3
"""Memory of the hot tier: as planned, within VARVE_HOT_MAX, and flat over many tokens.

tests/system/tiers_probe.c on tiny models with random weights (common.tiny_model); sizes are those of
docs/DESIGN.md 9 and include/varve/hot.h. VARVE_TOKENS=200000 makes the long run longer.
"""
import os
import pathlib

import common
from common import check

N_TOKEN = int(os.environ.get("VARVE_TOKENS", "20000"))
N_LAYER = 2
N_VALUE = 64             # of a row of K or V: one KV head
W, S = 64, 4
SLACK, ROOM = 32, 8      # rows of a ring beside window and sinks
TIERS = (f"tiers=f16:{W}", f"sinks={S}")
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # thousands of small graphs: spinning hurts beside others
MIB = 1 << 20


class Bench:
    """The probe, and tiny models of some layers."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.probe = common.build_with_llama("tiers_probe.c", folder)

    def model(self, n_layer):
        path = self.folder / f"tiny{n_layer}.gguf"
        return path if path.exists() else common.tiny_model(path, n_layer)

    def run(self, *words, n_layer=N_LAYER, model=None, text="-"):
        result = common.run([self.probe, model or self.model(n_layer), text, *words,
                             "counters=all"], common.plugged(PASSIVE), timeout=2400)
        if result.code != 0:
            raise RuntimeError(str(result))
        answers = common.numbers(result)
        assert answers["all.served"] == answers["all.nodes"] > 0, result
        assert answers["all.failed"] == answers["all.declined"] == 0, result
        return answers


def ring_bytes(n_row, n_value=N_VALUE):
    """Rows on whole cache lines, fingerprints and times; a bit for each row, and a header."""
    row_bytes = (2 * n_value + 63) // 64 * 64
    return n_row * (row_bytes + 16) + (n_row + 63) // 64 * 8 + 64


def ring_rows(window, n_sink):
    return window + SLACK + ROOM + n_sink


# ---- as planned -----------------------------------------------------------------------------

def check_hot(answers, name, planned, what):
    """Never more than planned, and no less than 1 % below it: this is what the twins need."""
    seen = answers[f"{name}.bytes_hot"]
    check(0.99 * planned <= seen <= planned, f"{what}: {seen:.0f} bytes of twins, "
          f"planned {planned}", answers)


def as_planned(bench):
    """Pitfall 7: one ring per tensor for one sequence, whatever the prompt; staging for one ubatch
    of K and V."""
    one = 2 * N_LAYER * ring_bytes(ring_rows(W, S))
    for n, ubatch in ((200, 512), (2000, 512), (2000, 64), (300, 1)):
        a = bench.run(*TIERS, f"ubatch={ubatch}", "open=0", f"say=0,0,{n}", "say=0,0,40,1",
                      "account=x")
        what = f"{n} tokens in ubatches of {ubatch}"
        check_hot(a, "x", one, what)
        rows = min(n, ubatch)
        # K and V of a ubatch, and the mask of a view: an F16 for each query and row that differs
        most = 2 * ring_bytes(rows) + rows * 2 * (2 * rows + 2 * W + 128)
        check(a["x.bytes_staging"] <= most,
              f"{what}: {a['x.bytes_staging']:.0f} bytes of staging, at most {most}", a)
        check(a["x.bytes_hot_peak"] <= one + most,
              f"{what}: peak {a['x.bytes_hot_peak']:.0f}, at most {one + most}", a)
        check(a["x.k.twins_evicted"] == a["x.v.twins_evicted"] == 0, f"{what}: none evicted", a)


def large_window(bench):
    """Never more than an F16 copy of the cache."""
    a = bench.run("tiers=f16:100000", "ctx=1024", "open=0", "say=0,0,900", "say=0,0,60,1",
                  "account=x")
    check_hot(a, "x", 2 * N_LAYER * ring_bytes(1024), "a window larger than the cache")


def several_sequences(bench):
    """At most 4 rings in one cache, or one for each of its streams."""
    for n, unified, n_ring in ((2, 1, 4), (8, 1, 4), (8, 0, 8)):
        say = [f"say={s},{500 * s},300" for s in range(n)]
        a = bench.run(*TIERS, f"ctx={512 * n}", f"sequences={n}", f"unified={unified}", "open=0",
                      *say, "together=9000,150", "account=x")
        most = n_ring * 2 * N_LAYER * ring_bytes(ring_rows(W, S))
        seen = a["x.bytes_hot"]
        check(most / n_ring < seen <= most,
              f"{n} sequences, unified={unified}: {seen:.0f} bytes of twins, at most {most}", a)


def used_after_another(bench):
    """What is known about a context is not forgotten when another one is opened before its first
    token, as with a draft model."""
    a = bench.run(*TIERS, "open=0", "open=1", "use=0", "say=0,0,300", "say=0,0,40,1", "account=x")
    check_hot(a, "x", 2 * N_LAYER * ring_bytes(ring_rows(W, S)), "used after another was opened")


def resident(bench):
    """Pitfall 7: what the process really takes at most, beside a run without tiers."""
    n_layer, words = 8, ("ctx=4096", "open=0", "say=0,0,4000", "say=0,0,50,1", "rss=m", "account=x")
    without = bench.run("tiers=none", *words, n_layer=n_layer)
    for window in (64, 1024, 4096):
        a = bench.run(f"tiers=f16:{window}", *words, n_layer=n_layer)
        extra = (a["m.peak"] - without["m.peak"]) * 1024
        most = 1.1 * a["x.bytes_hot_peak"] + 4 * MIB
        check(extra <= most, f"window {window}: the process takes {extra / MIB:.1f} MiB more, "
              f"the account says {a['x.bytes_hot_peak'] / MIB:.1f} MiB", a)


# ---- VARVE_HOT_MAX --------------------------------------------------------------------------

F16 = ("type_k=f16", "type_v=f16")
Q4 = ("type_k=q4_0", "type_v=q4_0")


def limited(bench):
    """The budget binds: twins are evicted and counted, nothing else happens."""
    words = ("say=0,0,1000", "say=0,3000,300,1")
    for limit in (1, 5000, 40000, 100000, 700000):
        a = bench.run(*F16, "tiers=none", "open=0", "record=a", *words, *Q4, "open=1", "record=b",
                      *words, *TIERS, f"hot_max={limit}", "open=2", "record=c", *words, "account=x",
                      "compare=a,b", "compare=a,c", "compare=b,c")
        what = f"limit of {limit} bytes"
        n_twin, n_evicted = a["x.k.twins_written"], a["x.k.twins_evicted"]
        check(a["x.bytes_hot_peak"] <= limit and a["x.bytes_limit"] == limit,
              f"{what}: at most {a['x.bytes_hot_peak']:.0f} in use", a)
        check((n_evicted > 0) == (limit < 700000),
              f"{what}: of {n_twin:.0f} twins of K {n_evicted:.0f} evicted, "
              f"{a['x.k.rows_missed']:.0f} rows missed", a)
        check(a["a_c.kld"] <= 1.1 * a["a_b.kld"],
              f"{what}: mean KLD {a['a_c.kld']:.2e}, without tiers {a['a_b.kld']:.2e}", a)
        check(n_twin > 0 or a["b_c.same"] == 1, f"{what}: {n_twin:.0f} twins, else as without", a)


def limited_together(bench):
    """The limit is for all contexts together, and given back by those that end."""
    limit = 150000
    words = ("say=0,0,300", "say=0,300,100,1")
    a = bench.run(*TIERS, f"hot_max={limit}", "open=0", *words, "open=1", *words, "open=2", *words,
                  "total=t", "close=0", "close=1", "close=2", "total=u", "open=0", *words,
                  "account=x")
    check(a["t.bytes_hot_peak"] <= limit, f"three contexts: {a['t.bytes_hot_peak']:.0f} bytes of "
          f"{limit} at most", a)
    check(a["u.bytes_hot"] == a["u.bytes_staging"] == 0, "closed contexts give all back", a)
    check(a["x.bytes_hot"] > 0, f"the next one has {a['x.bytes_hot']:.0f}", a)


def limited_default_model(bench):
    """The default model under a limit that leaves it some of its twins, and one that leaves few."""
    words = ("say=0,0,300", "say=0,400,16,1")
    tiers = ("tiers=f16:256", "sinks=4")
    a = bench.run("ctx=512", "threads=2", *F16, "tiers=none", "open=0", "record=a", *words, *Q4,
                  "open=1", "record=b", *words, "close=1", *tiers, "hot_max=500000", "open=2",
                  "record=c", *words, "account=x", "close=2", "hot_max=4000000", "open=3",
                  "record=d", *words, "account=y", "compare=a,b", "compare=a,c", "compare=a,d",
                  model=common.MODEL, text=common.text_file())
    for name, pair, limit in (("x", "a_c", 500000), ("y", "a_d", 4000000)):
        seen, peak = a[f"{pair}.kld"], a[f"{name}.bytes_hot_peak"]
        check(peak <= limit and a[f"{name}.k.twins_evicted"] > 0 and seen <= 1.25 * a["a_b.kld"],
              f"default model, {limit} bytes: peak {peak:.0f}, mean KLD {seen:.3f}, without tiers "
              f"{a['a_b.kld']:.3f}", a)


def counted_as_read(bench):
    """When there is no room for the mask of a view, a node is read cold: it is not counted as hot,
    and one line says so."""
    words = (*TIERS, "hot_max=700000", "open=0", "say=0,0,1000", "account=x")
    result = common.run([bench.probe, bench.model(N_LAYER), "-", *words],
                        common.plugged({"VARVE_TRACE": 1, **PASSIVE}))
    a = common.numbers(result)
    n_said = result.err.count("all rows are read cold")
    check(n_said == 0 or a["x.k.rows_hot"] == 0, "no room for a mask: rows are counted as they are "
          f"read: {a['x.k.rows_hot']:.0f} hot", result)
    check(n_said <= 1, f"no room for a mask: said {n_said} times", result)


# ---- many tokens ----------------------------------------------------------------------------

def many_tokens(bench):
    """Pitfalls 4, 10, 28: tokens one by one through a cache of 512 cells that is shifted again and
    again, so that cells are used anew and twins go stale all the time."""
    warm = 2000
    half = (N_TOKEN - warm) // 2
    a = bench.run(*TIERS, "ctx=512", "open=0", f"stream={warm}", "account=x", "rss=x",
                  f"stream={half}", "rss=y", f"stream={half}", "account=z", "rss=z")
    n_shift = (N_TOKEN - 512) // 254 + 1
    common.note(f"{N_TOKEN} tokens, about {n_shift} shifts: VmRSS {a['x.rss']:.0f}, "
                f"{a['y.rss']:.0f}, {a['z.rss']:.0f} KiB; VmHWM {a['x.peak']:.0f}, "
                f"{a['z.peak']:.0f} KiB; twins {a['z.bytes_hot']:.0f} bytes")
    for field in ("bytes_hot", "bytes_hot_peak", "bytes_staging", "bytes_cold"):
        check(a[f"x.{field}"] == a[f"z.{field}"],
              f"{field} is {a[f'z.{field}']:.0f} after {warm} and after {N_TOKEN} tokens", a)
    for field in ("rss", "peak"):
        grown = a[f"z.{field}"] - a[f"x.{field}"]
        check(grown <= 256, f"{field} of the process has grown by {grown:.0f} KiB, at most 256", a)
    check(a["z.k.twins_written"] == a["z.v.twins_written"] == N_LAYER * N_TOKEN,
          f"every row had a twin: {a['z.k.twins_written']:.0f} of each side", a)
    check(a["z.v.rows_missed"] == a["z.v.twins_stale"] == 0, "V is not shifted: no row missed", a)
    per_shift = N_LAYER * (W + SLACK)  # the sinks stay where they are
    check(abs(a["z.k.twins_stale"] - n_shift * per_shift) <= 2 * per_shift,
          f"each shift makes the twins of K stale: {a['z.k.twins_stale']:.0f}", a)


def with_bench(part):
    def memory():
        with common.folder() as folder:
            part(Bench(folder))
    memory.__name__ = part.__name__
    return memory


common.need(common.PLUGIN, common.MODEL, common.LLAMA / "src")
common.main(*map(with_bench, (as_planned, large_window, several_sequences, used_after_another,
                              resident, limited, limited_together, limited_default_model,
                              counted_as_read, many_tokens)))
