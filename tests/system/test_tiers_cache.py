#!/usr/bin/env python3
"""Operations on the cache of stock llama.cpp under the hot tier: a stale F16 row is never read.

llama.cpp changes caches behind the back of SET_ROWS: it shifts K, copies streams, restores states
and clears (pitfall 10). tests/system/tiers_probe.c does these by libllama's public API, on a model
of two layers with random F32 weights (common.tiny_model), whose records of logits are compared bit for
bit where both runs must read the same rows in the same way. The trick for that: a context whose
state was restored has no twins and reads cold what it did not write itself, so it is the reference
for a context whose twins have all become stale. Where counters follow from docs/DESIGN.md 9, the
numbers are exact.
"""
import pathlib
import random
import statistics

import common
from common import check

N_LAYER = 2
W, S, SLACK = 64, 4, 32
TIERS = (f"tiers=f16:{W}", f"sinks={S}")
N = 300            # tokens of a prompt: window, slack and sinks leave cold rows between them
KEPT = W + SLACK + S   # twins of a sequence that is alone in its cache
K_ONLY, V_ONLY = ("type_k=q4_0", "type_v=f16"), ("type_k=f16", "type_v=q4_0")
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # thousands of small graphs: spinning hurts beside others
ROOM = 1e-3        # between logits of some size 1 that were added up in another order


class Bench:
    """The probe and its model."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.probe = common.build_with_llama("tiers_probe.c", folder)
        self.tiny = self.model("tiny.gguf", N_LAYER)

    def model(self, name, n_layer):
        # with seed 1 a value of K lies on the edge of a step of q4_0, where a batch of four sequences rounds
        # otherwise than one of them does: 4e-3 in the logits
        return common.tiny_model(self.folder / name, n_layer, seed=2)

    def raw(self, *words, env=None, varve=True, model=None, text="-"):
        env = {**PASSIVE, **(env or {})}
        env = common.plugged(env) if varve else env
        return common.run([self.probe, model or self.tiny, text, *words], env)

    def run(self, *words, **options):
        """The answers of the probe, as numbers; varve must have served all attention."""
        result = self.raw(*words, "counters=all", **options)
        if result.code != 0:
            raise RuntimeError(str(result))
        answers = common.numbers(result)
        if options.get("varve", True):
            assert answers["all.served"] == answers["all.nodes"] > 0, result
            assert answers["all.failed"] == answers["all.declined"] == 0, result
        return answers


def since(answers, later, earlier, field):
    return answers[f"{later}.{field}"] - answers[f"{earlier}.{field}"]


def check_same(answers, pair, what):
    check(answers[f"{pair}.same"] == 1,
          f"{what}: logits are equal, bit for bit (over {answers[f'{pair}.n']:.0f} tokens)",
          f"largest difference {answers[f'{pair}.max']}, KLD {answers[f'{pair}.kld']}")


def check_close(answers, pair, what, room=ROOM):
    check(answers[f"{pair}.max"] <= room,
          f"{what}: logits differ by {answers[f'{pair}.max']:.1e}, at most {room:.1e}")


def check_number(answers, later, earlier, field, expected, what):
    """`expected` is for one layer."""
    seen = since(answers, later, earlier, field)
    check(seen == expected * N_LAYER, f"{what}: {field} grew by {seen:.0f}",
          f"expected {expected} in each of {N_LAYER} layers")


def hot_in(first, n):
    """Recent rows of n queries, the first of which sees `first` rows."""
    return sum(min(W, first + i) for i in range(n))


# ---- one sequence ---------------------------------------------------------------------------

def rejected_tokens(bench):
    """Pitfall 4: j tokens are evaluated and removed again, and others follow. Up to the slack of 32
    the window is full again; and one more, as the next token fills a place itself. Without sinks:
    pinned rows would fill places, too."""
    for j in (1, 2, 31, 32, 33, 36):
        a = bench.run(*TIERS, "sinks=0", "open=0", f"say=0,0,{N}", "say=0,300,40,1", "record=a",
                      "say=0,340,30,1", "open=1", f"say=0,0,{N}", "say=0,300,40,1", "record=z",
                      f"say=0,5000,{j},1", f"rm=0,{N + 40},-1", "account=x", "record=b",
                      "say=0,340,30,1", "account=y", "compare=a,b")
        behind = max(0, j - SLACK - 1)
        for side in "kv":
            check_number(a, "y", "x", f"{side}.rows_missed", behind * (behind + 1) // 2,
                         f"{j} rejected tokens")
            check_number(a, "y", "x", f"{side}.twins_stale", 0, f"{j} rejected tokens")
        if j <= SLACK:
            check_same(a, "a_b", f"{j} rejected tokens")


def rejected_in_a_batch(bench):
    """A draft of 16 tokens is evaluated at once and half of it rejected."""
    a = bench.run(*TIERS, "open=0", f"say=0,0,{N}", "say=0,300,8,1", "record=a", "say=0,308,30,1",
                  "open=1", f"say=0,0,{N}", "record=z", "say=0,300,16", f"rm=0,{N + 8},-1",
                  "account=x", "record=b", "say=0,308,30,1", "account=y", "compare=a,b")
    check_close(a, "a_b", "8 of 16 tokens of a batch rejected")
    check_number(a, "y", "x", "k.rows_missed", 0, "8 of 16 tokens of a batch rejected")
    check_number(a, "y", "x", "k.rows_hot", hot_in(W, 30), "8 of 16 tokens of a batch rejected")


def k_shift(bench):
    """Pitfalls 10, 27: all positions move by 5, so stock rewrites K with ggml_cpy. All twins of K
    are stale at once; the reference gets K as it is after that and has no twins. The token that
    triggers the shift is removed again, so that both have the same rows."""
    a = bench.run(*TIERS, *K_ONLY, "open=0", f"say=0,0,{N}", "account=w", "add=0,0,-1,5",
                  f"say=0,{N},1", "account=x", f"rm=0,{N + 5},-1", "get=0,s", "open=1", "set=0,s",
                  "record=b", "say=0,400,20,1", "use=0", "record=a", "say=0,400,20,1", "account=y",
                  "compare=a,b")
    check_same(a, "a_b", "K shifted")
    check_number(a, "x", "w", "k.twins_stale", KEPT, "K shifted")
    check_number(a, "x", "w", "k.rows_hot", 1, "K shifted, its first token")
    check_number(a, "x", "w", "k.rows_missed", W - 1, "K shifted, its first token")
    check_number(a, "y", "x", "k.rows_missed", sum(W - 1 - i for i in range(20)), "K shifted, then")
    check_number(a, "y", "x", "k.twins_stale", 0, "K shifted, then")


def k_shift_leaves_v(bench):
    """V has no positions: its twins stay."""
    a = bench.run(*TIERS, *V_ONLY, "open=0", f"say=0,0,{N}", "account=w", "rm=0,4,104",
                  "add=0,104,-1,-100", f"say=0,{N},30,1", "account=x")
    for field, expected in (("twins_stale", 0), ("rows_missed", 0), ("rows_hot", hot_in(W, 30)),
                            ("rows_sink", 30 * S)):
        check_number(a, "x", "w", f"v.{field}", expected, "K shifted beside quantized V")


def restored_state(bench):
    """Pitfalls 13, 27: a restored row is read cold, though twins of its cell are there."""
    a = bench.run(*TIERS, "open=0", f"say=0,0,{N}", "get=0,s", "rm=0,-1,-1", f"say=0,900,{N}",
                  "account=x", "set=0,s", "get=0,t", "open=1", "set=0,s", "record=b",
                  "say=0,400,20,1", "use=0", "record=a", "say=0,400,20,1", "account=y",
                  "compare=a,b")
    check_same(a, "a_b", "state restored over other rows")
    check(a["state_s"] == a["state_t"], "a restored state is saved as it was", a)
    for side in "kv":
        check_number(a, "y", "x", f"{side}.twins_stale", KEPT, "state restored")
        check_number(a, "y", "x", f"{side}.rows_missed", sum(W - 1 - i for i in range(20)),
                     "state restored")


def restored_in_place(bench):
    """The same bytes in the same cells are the same rows again, and their twins hold."""
    a = bench.run(*TIERS, "open=0", f"say=0,0,{N}", "get=0,s", "rm=0,-1,-1", "set=0,s",
                  "account=x", "record=a", "say=0,400,20,1", "account=y", "open=1",
                  f"say=0,0,{N}", "record=b", "say=0,400,20,1", "compare=a,b")
    check_same(a, "a_b", "state restored where it was")
    check_number(a, "y", "x", "k.rows_missed", 0, "state restored where it was")


def failed_restore(bench):
    """Pitfall 13: a state that is cut off, or of another cache type, is refused and harms nothing
    that comes later."""
    a = bench.run("tiers=none", "type_k=q8_0", "open=2", f"say=0,0,{N}", "get=0,u", "close=2",
                  *TIERS, "type_k=q4_0", "open=0", f"say=0,0,{N}", "get=0,s", "cut=s,30000",
                  "set=0,s", "set=0,u", "clear=0", f"say=0,0,{N}", "record=a", "say=0,400,20,1",
                  "open=1", f"say=0,0,{N}", "record=b", "say=0,400,20,1", "compare=a,b")
    check(a["set_s"] == a["set_u"] == 0, "states cut off or of another type are refused", a)
    check_same(a, "a_b", "after failed restores")


def state_bytes(bench):
    """Promise 6 with tiers on: with one layer, rows depend on nothing that attention computes."""
    model = bench.model("layer.gguf", 1)
    for name in ("q4_0", "q8_0", "iq4_nl"):
        words = (f"type_k={name}", f"type_v={name}", "open=0", f"say=0,0,{N}", f"say=0,{N},40,1",
                 "get=0,s")
        stock = bench.raw(*words, varve=False, model=model)
        ours = bench.raw(*words, "account=x", env={"VARVE_TIERS": f"f16:{W}"}, model=model)
        assert stock.code == ours.code == 0, f"{stock}\n{ours}"
        saved = [common.answers(r)["state_s"] for r in (stock, ours)]
        n_twin = common.numbers(ours)["x.k.twins_written"]
        check(saved[0] == saved[1] and n_twin == N + 40,
              f"{name}: the state is stock's, byte for byte, beside {n_twin:.0f} twins", saved)


def cleared(bench):
    """Pitfalls 10, 18: clear with and without the data."""
    for data in (0, 1):
        a = bench.run(*TIERS, "open=0", f"say=0,700,{N}", f"clear={data}", "account=x",
                      f"say=0,0,{N}", "record=a", "say=0,400,20,1", "account=y", "open=1",
                      f"say=0,0,{N}", "record=b", "say=0,400,20,1", "compare=a,b")
        check_same(a, "a_b", f"memory cleared (data {data})")
        check_number(a, "y", "x", "k.rows_missed", 0, f"memory cleared (data {data})")


# ---- several sequences ----------------------------------------------------------------------

def copied_in_one_cache(bench):
    """Pitfall 8: in a unified cache both sequences have the same cells, and the same twins."""
    unified = ("sequences=2", "unified=1")
    a = bench.run(*TIERS, *unified, "open=0", f"say=0,0,{N}", "cp=0,1", "account=x", "record=a",
                  "say=1,500,40,1", "account=y", "record=z", "say=0,700,40,1", "account=z",
                  "open=1", f"say=0,0,{N}", "record=b", "say=0,500,40,1", "open=2",
                  f"say=0,0,{N}", "record=c", "say=0,700,40,1", "compare=a,b", "compare=z,c")
    check_same(a, "a_b", "a copied sequence")
    check_close(a, "z_c", "the sequence it was copied from, later")
    for last, first, what in (("y", "x", "a copied sequence"), ("z", "y", "its source, later")):
        check_number(a, last, first, "k.rows_missed", 0, what)
        check_number(a, last, first, "k.rows_hot", hot_in(W, 40), what)
        check_number(a, last, first, "k.rows_sink", 40 * S, what)


def copied_between_streams(bench):
    """Pitfalls 8, 9, 10: streams are copied by ggml_backend_tensor_copy, over rows that have
    twins. The reference gets the same rows as a state."""
    streams = ("sequences=2", "unified=0")
    a = bench.run(*TIERS, *streams, "open=0", f"say=0,0,{N}", "get=0,s", f"say=1,900,{N}", "cp=0,1",
                  "account=x", "record=a", "say=1,500,20,1", "account=y", "record=z",
                  "say=0,500,20,1", "account=z", "open=1", "set=1,s", "record=b",
                  "say=1,500,20,1", "open=2", f"say=0,0,{N}", "record=c", "say=0,500,20,1",
                  "compare=a,b", "compare=z,c")
    check_same(a, "a_b", "a stream copied over another")
    check_same(a, "z_c", "the stream it was copied from")
    for side in "kv":
        stale = since(a, "y", "x", f"{side}.twins_stale")
        check(stale >= KEPT * N_LAYER, f"a stream copied over another: {stale:.0f} stale {side}")
        check_number(a, "y", "x", f"{side}.rows_missed", sum(W - 1 - i for i in range(20)),
                     "a stream copied over another")
        check_number(a, "z", "y", f"{side}.rows_missed", 0, "the stream it was copied from")


def side_by_side(bench):
    """Pitfall 9: tokens of 4 sequences in one batch, in one cache and in one each."""
    for unified in (0, 1):
        say = [f"say={s},{1000 * s},{N}" for s in range(4)]
        alone = [w for s in range(4) for w in ("open=1", f"say=0,{1000 * s},{N}", f"record={'bcde'[s]}",
                                               "say=0,6000,1,1")]
        a = bench.run(*TIERS, "ctx=4096", "sequences=4", f"unified={unified}", "open=0", *say,
                      "account=x", "record=z", "together=6000,24", "account=y")
        what = f"4 sequences, unified={unified}"
        for side in "kv":
            check_number(a, "y", "x", f"{side}.rows_missed", 0, what)
            check_number(a, "y", "x", f"{side}.rows_hot", 4 * hot_in(W, 24), what)
            check_number(a, "y", "x", f"{side}.rows_sink", 4 * 24 * S, what)
        a = bench.run(*TIERS, "ctx=4096", "sequences=4", f"unified={unified}", "open=0", *say,
                      "sequences=1", "ctx=1024", "unified=1", *alone,
                      *[w for s in range(4)
                        for w in ("use=0", f"record={'ghij'[s]}", f"say={s},6000,1,1",
                                  f"compare={'bcde'[s]},{'ghij'[s]}")])
        for pair in ("b_g", "c_h", "d_i", "e_j"):
            check_close(a, pair, f"{what}, as alone")


def capacity(bench):
    """Pitfall 6: what is reserved but unused changes nothing."""
    runs = [w for i, (ctx, n, unified) in enumerate(
        ((512, 1, 1), (4096, 1, 1), (4096, 8, 1), (4096, 8, 0)))
            for w in (f"ctx={ctx}", f"sequences={n}", f"unified={unified}", "open=0",
                      f"say=0,0,{N}", f"record={'abcd'[i]}", "say=0,400,20,1")]
    a = bench.run(*TIERS, *runs, "compare=a,b", "compare=a,c", "compare=a,d")
    for pair, what in (("a_b", "8 times the cells"), ("a_c", "8 sequences in one cache"),
                       ("a_d", "8 sequences, a cache each")):
        check_same(a, pair, what)


def random_operations(bench):
    """Pitfall 8: what servers do, in random order, beside an F16 cache. Rows in F16 where they are
    recent make q4_0 better, as far as shifts and restores leave twins; a stale row would make it
    much worse."""
    kinds = ("tiers=none type_k=f16 type_v=f16", "tiers=none type_k=q4_0 type_v=q4_0",
             f"tiers=f16:{W} type_k=q4_0 type_v=q4_0")
    opening = [w for i, kind in enumerate(kinds)
               for w in (*kind.split(), "sequences=3", "unified=1", f"open={i}")]
    ratios = []
    for seed in range(1, 5):
        words = list(opening)
        for i in range(3):
            words.append(f"use={i}")
            words += random_words(random.Random(seed), "abc"[i])
        a = bench.run(*words, "compare=a,b", "compare=a,c", "total=t")
        common.note(f"seed {seed}: mean KLD q4_0 {a['a_b.kld']:.2e}, with tiers {a['a_c.kld']:.2e}, "
                    f"{a['t.k.twins_stale']:.0f} twins of K stale")
        ratios.append(a["a_c.kld"] / a["a_b.kld"])
        check(ratios[-1] < 1 and a["t.k.twins_stale"] > 0,
              f"random operations, seed {seed}: {ratios[-1]:.2f} of the divergence without tiers", a)
    mean = statistics.geometric_mean(ratios)
    check(mean < 0.85, f"random operations: {mean:.2f} of the divergence, below 0.85")


def random_words(rng, record):
    """Operations and, between them, tokens whose logits are recorded."""
    length, words = [0, 0, 0], ["record=z"]

    def say(s, n, step):
        words.append(f"say={s},{rng.randrange(10000)},{n},{step}")
        length[s] += n

    for s in range(3):
        say(s, rng.randint(90, 200), 512)
    for _ in range(40):
        s, t = rng.sample(range(3), 2)
        what = rng.choice(("rm", "shift", "cp", "state", "say", "say"))
        if what == "rm":
            length[s] -= rng.randint(1, 40)
            words.append(f"rm={s},{length[s]},-1")
        elif what == "shift":
            n = rng.randint(1, 30)
            words += [f"rm={s},4,{4 + n}", f"add={s},{4 + n},-1,-{n}"]
            length[s] -= n
        elif what == "cp":
            words += [f"rm={t},-1,-1", f"cp={s},{t}"]
            length[t] = length[s]
        elif what == "state":  # llama.cpp applies shifts when it decodes: a state first needs that
            words += [f"say={s},77,1", f"get={s},s", f"set={t},s"]
            length[s] += 1
            length[t] = length[s]
        say(s, rng.choice((1, 5, 30, 60)), rng.choice((1, 7, 512)))
        words += [f"record={record}", f"say={s},{rng.randrange(10000)},4,1", "record=z"]
        length[s] += 4
        if max(length) > 400:
            long = length.index(max(length))
            words.append(f"rm={long},120,-1")
            length[long] = 120
    return words


def every_length(bench):
    """Pitfalls 2, 5: a prompt of each length, at once and in pieces of 13, with a small window. The
    model of one layer, as rows of the cache are then the same."""
    model = bench.model("layer.gguf", 1)
    words = []
    for record, step in (("a", 512), ("b", 13)):
        words += ["tiers=f16:8", "sinks=2", "ctx=512", "open=0", f"record={record}"]
        for n in range(1, 200):
            words += ["clear=0", f"say=0,{n},{n},{step}"]
            if step == 13:  # one logit per length, and the pieces before are recorded elsewhere
                rest = n % 13 or 13
                words[-1:] = ["record=z", f"say=0,{n},{n - rest},13", "record=b",
                              f"say=0,{2 * n - rest},{rest}"]
    a = bench.run(*words, "compare=a,b", model=model)
    check(a["a_b.n"] == 199, "199 lengths", a)
    check_close(a, "a_b", "prompts of 1 to 199 tokens, at once and in pieces")


def sliding_window(bench):
    """Pitfall 24: a model most of whose layers have a window, whose cache is small and goes around
    (window_probe.c: three turns, rows of removed turns, a checkpoint). Most rows that such a layer
    sees are recent; fewer of them in the format of the cache, and the answer is nearer."""
    probe, maker = (common.build_with_llama(f"window_{name}.c", bench.folder)
                    for name in ("probe", "model"))
    model, reference = bench.folder / "window.gguf", bench.folder / "reference"
    done = common.run([maker, common.MODEL, model, "granite_swa"])
    assert done.code == 0, done
    common.probe(probe, PASSIVE, model=model, write=reference, type="f32", flash=0, full=1, fresh=1)
    means = {}
    for tiers in ("none", "f16:16", "f16:256"):
        env = common.plugged({**PASSIVE, "VARVE_TIERS": tiers})
        result = common.probe(probe, env, model=model, reference=reference, type="q4_0")
        a = common.numbers(result)
        assert a["served"] == a["nodes"] > 0 and a["not_finite"] == 0, result
        means[tiers] = a["kld"]
    common.note(f"sliding windows, mean KLD: {means}")
    check(means["f16:256"] < 0.7 * means["none"] and means["f16:16"] < means["none"],
          f"sliding windows: {means['f16:256'] / means['none']:.2f} of the divergence with f16:256, "
          f"{means['f16:16'] / means['none']:.2f} with f16:16", means)


# ---- contexts -------------------------------------------------------------------------------

def context_again(bench):
    """The cache of the second context lies where that of the first one was, with rows of the same
    size in another format: nothing of the first may be left."""
    words = (*TIERS, "type_v=f16")
    later = ("type_k=iq4_nl", "open=0", f"say=0,0,{N}", "record=a", "say=0,400,20,1", "account=x")
    a = bench.run(*words, "open=0", f"say=0,700,{N}", "close=0", *later, "close=0", "open=0",
                  f"say=0,0,{N}", "record=b", "say=0,400,20,1", "account=y", "open=1",
                  f"say=0,0,{N}", "record=c", "say=0,400,20,1", "compare=a,b", "compare=a,c")
    check_same(a, "a_b", "a context created again")
    check_same(a, "a_c", "and beside a second one")
    for field in ("k.rows_hot", "k.rows_sink", "k.rows_cold", "k.rows_missed", "k.twins_written",
                  "k.twins_stale", "bytes_hot"):
        check(a[f"x.{field}"] == a[f"y.{field}"], f"created again: its account begins anew: {field} "
              f"{a[f'y.{field}']:.0f}", a)


def two_contexts(bench):
    """Turn by turn, with other windows."""
    alone = bench.run(*TIERS, "open=0", f"say=0,0,{N}", "record=a", "say=0,400,20,1", "account=x",
                      "tiers=f16:16", "sinks=0", "open=1", f"say=0,900,{N}", "record=b",
                      "say=0,500,20,1", "account=y",
                      *TIERS, "open=2", "tiers=f16:16", "sinks=0", "open=3",
                      "use=2", "record=z", f"say=0,0,{N}", "use=3", f"say=0,900,{N}",
                      *[w for i in range(20)
                        for w in ("use=2", "record=c", f"say=0,{400 + i},1",
                                  "use=3", "record=d", f"say=0,{500 + i},1")],
                      "use=2", "account=v", "use=3", "account=w", "compare=a,c", "compare=b,d")
    check_same(alone, "a_c", "the first of two contexts in turn")
    check_same(alone, "b_d", "the second of two contexts in turn")
    for one, other in (("x", "v"), ("y", "w")):
        fields = [k[2:] for k in alone if k.startswith(f"{one}.") and "peak" not in k]
        differ = [f for f in fields if alone[f"{one}.{f}"] != alone[f"{other}.{f}"]]
        check(not differ and alone[f"{one}.k.rows_hot"] > 0,
              f"two contexts in turn: account {other} as alone", differ)


def one_side(bench):
    """K and V have twins of their own, and only where they are quantized."""
    for types, hot, none in ((K_ONLY, "k", "v"), (V_ONLY, "v", "k")):
        a = bench.run(*TIERS, *types, "open=0", f"say=0,0,{N}", "account=x")
        what = " ".join(types)
        check(a[f"x.{hot}.rows_hot"] == N_LAYER * hot_in(1, N) and
              a[f"x.{hot}.twins_written"] == N_LAYER * N, f"{what}: twins of {hot}", a)
        check(a[f"x.{none}.rows_hot"] == a[f"x.{none}.twins_written"] == 0,
              f"{what}: none of {none}", a)


# ---- settings -------------------------------------------------------------------------------

def nothing_to_do(bench):
    words = ("type_k=f16", "type_v=f16", "open=0", "say=0,0,20", "account=x")
    for given in (True, False):
        env = {"VARVE_TRACE": 1, **({"VARVE_TIERS": "f16:64"} if given else {})}
        result = bench.raw(*words, env=env)
        n_said = result.err.count("tiers have nothing to do")
        a = common.numbers(result)
        check(result.code == 0 and n_said == given and a["x.bytes_hot"] == 0,
              f"F16 cache, VARVE_TIERS {'' if given else 'not '}set: said {n_said} times", result)


def bad_values(bench):
    wrong = [("VARVE_TIERS", v) for v in ("f16", "f16:", "f16:0", "f16:-3", "f16:12x", "q8_0:64",
                                          "f16:99999999999999999999", "256", "NONE", "F16:64",
                                          "f16:+3", f"f16:{common.ROWS_MAX + 1}")]
    wrong += [("VARVE_SINKS", v) for v in ("-1", "x", "4.5", "99999999999999999999", "+4",
                                           f"{common.ROWS_MAX + 1}")]
    wrong += [("VARVE_HOT_MAX", v) for v in ("-5", "1G", "1e9")]
    for name, value in wrong:
        result = bench.raw("open=0", "say=0,0,20", "account=x", env={name: value})
        a = common.numbers(result)
        lines = [line for line in result.varve_lines() if f"{name}={value}" in line]
        check(result.code == 0 and len(lines) == len(result.varve_lines()) == 1 and
              (a["x.window"], a["x.n_sink"], a["x.bytes_limit"]) == (256, 4, 0),
              f"{name}={value}: one line and the default: {lines[:1]}", result)
    for tiers, sinks, window in (("none", 4, 0), ("f16:64", 0, 64),
                                 (f"f16:{common.ROWS_MAX}", common.ROWS_MAX, common.ROWS_MAX)):
        result = bench.raw("open=0", "say=0,0,20", "account=x",
                           env={"VARVE_TIERS": tiers, "VARVE_SINKS": sinks})
        a = common.numbers(result)
        check(result.code == 0 and not result.varve_lines() and
              (a["x.window"], a["x.n_sink"]) == (window, sinks) and
              (a["x.k.rows_hot"] > 0) == (window > 0), f"VARVE_TIERS={tiers}: taken", result)


def bad_values_by_function(bench):
    result = bench.raw("tiers=f16:64", "sinks=7", "tiers=f16:0", "tiers=q4_0:3", "tiers=NONE",
                       f"tiers=f16:{common.ROWS_MAX + 1}", f"sinks={common.ROWS_MAX + 1}",
                       "sinks=-2", "hot_max=-2", "open=0", "say=0,0,20", "account=x")
    said = [line.split()[1] for line in result.out.splitlines() if line.startswith("set_tiers")]
    a = common.numbers(result)
    check(said == ["1", "1", *7 * ["0"]] and
          (a["x.window"], a["x.n_sink"], a["x.bytes_limit"]) == (64, 7, 0),
          "varve_ggml_set_tiers refuses and changes nothing", result)


def shift_without_rotation(bench):
    """Pitfall 11. In the version of llama.cpp that is used here stock itself may crash."""
    env = {"LLAMA_ATTN_ROT_DISABLE": 1}
    words = (*K_ONLY, "open=0", f"say=0,0,{N}", "rm=0,4,104", "add=0,104,-1,-100",
             f"say=0,{N},20,1")
    stock = bench.raw(*words, env=env, varve=False)
    if stock.code != 0:
        common.skip("K shifted with rotation off",
                    f"stock llama.cpp itself ends with {stock.code} ({stock.err.strip()[-80:]})")
        return
    check(bench.raw(*words, env=env).code == 0, "K shifted with rotation off")


def without_rotation(bench):
    """Rotation is stock's, on both sides of the cache; twins do not depend on it."""
    a = bench.run(*TIERS, "open=0", f"say=0,0,{N}", "get=0,s", "rm=0,-1,-1", f"say=0,900,{N}",
                  "set=0,s", "open=1", "set=0,s", "record=b", "say=0,400,20,1", "use=0",
                  "record=a", "say=0,400,20,1", "compare=a,b", env={"LLAMA_ATTN_ROT_DISABLE": 1})
    check_same(a, "a_b", "state restored, rotation off")


def with_bench(part):
    def cache():
        with common.folder() as folder:
            part(Bench(folder))
    cache.__name__ = part.__name__
    return cache


common.need(common.PLUGIN, common.LLAMA / "src")
common.main(*map(with_bench, (
    rejected_tokens, rejected_in_a_batch, k_shift, k_shift_leaves_v, restored_state,
    restored_in_place, failed_restore, state_bytes, cleared, copied_in_one_cache,
    copied_between_streams, side_by_side, capacity, random_operations, every_length, sliding_window,
    context_again, two_contexts, one_side, nothing_to_do, bad_values, bad_values_by_function,
    shift_without_rotation, without_rotation)))
