#!/usr/bin/env python3
"""The default model through varve: every attention node served, the same tokens at any number of
threads.

Nodes are counted twice: by the scheduler's callback in the host (tests/system/probe.c) and by
varve. Equal counts, and no attention outside of FLASH_ATTN_EXT nodes, mean 100 %.
"""
import re

import common
from common import check, launched, program, run

PAIRS = (("f16", "f16"), ("q8_0", "q8_0"), ("q4_0", "q4_0"), ("q4_0", "f16"), ("bf16", "f32"),
         ("q8_0", "iq4_nl"), ("q5_1", "q4_1"), ("f16", "q5_0"))


def all_served(binary, what, env=None, **options):
    answers = common.probe(binary, env or common.plugged(), **options).answers
    nodes, served = int(answers["nodes"]), int(answers["served"])
    check(0 < nodes == served and answers["declined"] == "0" and answers["other_nodes"] == "0",
          f"{what}: {served} of {nodes} attention nodes served", answers)
    return answers


def cache_types():
    """Prefill in one ubatch, then decode."""
    with common.folder() as folder:
        binary = common.build_probe(folder)
        for k, v in PAIRS:
            all_served(binary, f"K {k}, V {v}", type_k=k, type_v=v, tokens=100, generate=4)


def caches_of_several_sequences():
    with common.folder() as folder:
        binary = common.build_probe(folder)
        for unified in (0, 1):
            for n in (1, 2, 4):
                for name in ("f16", "q8_0"):
                    kind = "one cache" if unified else "a cache each"
                    all_served(binary, f"{n} sequences, {kind}, {name}", type_k=name,
                               type_v=name, tokens=48, generate=3, sequences=n, unified=unified,
                               ubatch=64)


def sequences_do_not_mix():
    """Side by side or alone, a sequence continues in the same way."""
    with common.folder() as folder:
        binary = common.build_probe(folder)
        alone = all_served(binary, "alone", tokens=48, generate=4)["generated"].split()
        for unified in (0, 1):
            both = all_served(binary, f"two, unified={unified}", tokens=48, generate=4,
                              sequences=2, unified=unified)["generated"].split()
            check(both[0::2] == alone, f"unified={unified}: the first of two continues as alone",
                  f"{alone} {both}")


def threads():
    with common.folder() as folder:
        binary = common.build_probe(folder)
        for name in ("f16", "q8_0", "q4_0"):
            texts = {}
            for n in (1, 2, 3, 16):
                answers = all_served(binary, f"{name}, {n} threads", type_k=name, type_v=name,
                                     tokens=64, generate=6, threads=n)
                texts[n] = answers["generated"]
            check(len(set(texts.values())) == 1, f"{name}: the same tokens at 1, 2, 3, 16 threads",
                  texts)


def batched_bench():
    for options in ((), ("-kvu",)):
        command = [program("llama-batched-bench"), "-m", common.MODEL, "-c", 2048, "-npp", 48,
                   "-ntg", 3, "-npl", "1,2,4", *options]
        result = run(launched(command, ("--ctk", "q8_0", "--ctv", "q8_0")), {"VARVE_TRACE": 1})
        common.check_served(result, f"llama-batched-bench -npl 1,2,4 {' '.join(options)}")


def off_and_on():
    """`-fa off` is the user's word: varve says that it has nothing to do."""
    command = [program("llama-completion"), "-m", common.MODEL, "-p", "Hello", "-n", 2, "-c", 256,
               "-no-cnv", "--temp", 0, "-fa", "off"]
    result = run(launched(command), {"VARVE_TRACE": 1})
    seen = common.counters(result.err)
    lines = [line for line in result.varve_lines() if "never ran on varve" in line]
    check(result.code == 0 and seen["attention"] == 0 and len(lines) == 1,
          f"-fa off: {lines}", result)


def prefill_in_pieces():
    """Ubatches of any length; what is said may differ, as stock's matrix products do."""
    with common.folder() as folder:
        binary = common.build_probe(folder)
        for name in ("f16", "q8_0"):
            for n in (1, 7):
                all_served(binary, f"{name}, ubatches of {n}", type_k=name, type_v=name,
                           tokens=30, generate=3, ubatch=n)


common.need(common.LAUNCHER, common.PLUGIN, common.MODEL, program("llama-batched-bench"))
common.main(cache_types, caches_of_several_sequences, sequences_do_not_mix, threads,
            prefill_in_pieces, batched_bench, off_and_on)
