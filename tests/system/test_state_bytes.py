#!/usr/bin/env python3
"""The cache holds stock's bytes: files that llama.cpp saves are equal with and without varve.

With VARVE_TEST_DECLINE_ATTENTION=1 varve writes the rows and leaves attention to ggml, so that
everything else in the model is computed by the same code and the files may be compared.
"""
import pathlib

import common
from common import check

N_TOKENS = 96
# Bytes of one value in the cache: block bytes / block values.
BYTES = {"f32": 4, "f16": 2, "bf16": 2, "q8_0": 34 / 32, "q4_0": 18 / 32, "q4_1": 20 / 32,
         "q5_0": 22 / 32, "q5_1": 24 / 32, "iq4_nl": 18 / 32}
N_VALUES = 192  # of one row of the default model: 3 KV heads of 64
WRITES_ONLY = {"VARVE_TEST_DECLINE_ATTENTION": 1}


def first_difference(a, b):
    at = next((i for i, (x, y) in enumerate(zip(a, b)) if x != y), min(len(a), len(b)))
    return f"{len(a)} and {len(b)} bytes, the first difference at {at}"


def compare_saved(binary, folder, what, **options):
    """Saves the state after the same prompt on stock and on varve."""
    files, written = {}, 0
    for who, env in (("stock", None), ("varve", common.plugged(WRITES_ONLY))):
        path = pathlib.Path(folder) / who
        answers = common.probe(binary, env, tokens=N_TOKENS, state=path, **options).answers
        files[who] = path.read_bytes()
        written = int(answers["written"])
    check(written > 0, f"{what}: varve wrote the rows ({written} nodes)", answers)
    check(int(answers["served"]) == 0, f"{what}: attention was left to ggml", answers)
    k, v = options.get("type_k", "f16"), options.get("type_v", "f16")
    content = int(common.N_LAYER * N_TOKENS * N_VALUES * (BYTES[k] + BYTES[v]))
    check(len(files["stock"]) >= content,
          f"{what}: the file of {len(files['stock'])} bytes can hold the {content} of the cache")
    check(files["stock"] == files["varve"], f"{what}: saved states are equal, byte for byte",
          first_difference(files["stock"], files["varve"]))


def every_type():
    with common.folder() as folder:
        binary = common.build_probe(folder)
        for name in common.FORMATS:
            compare_saved(binary, folder, name, type_k=name, type_v=name)


def mixed_types_and_ubatches():
    with common.folder() as folder:
        binary = common.build_probe(folder)
        compare_saved(binary, folder, "K q8_0, V q4_0", type_k="q8_0", type_v="q4_0")
        compare_saved(binary, folder, "K f16, V q5_1", type_k="f16", type_v="q5_1")
        compare_saved(binary, folder, "q4_0 in ubatches of 7", type_k="q4_0", type_v="q4_0",
                      ubatch=7)
        compare_saved(binary, folder, "q8_0 with 16 threads", type_k="q8_0", type_v="q8_0",
                      threads=16)


def prompt_cache():
    """The same through a program of llama.cpp and its --prompt-cache."""
    with common.folder() as folder:
        files = {}
        for who, wrap, env in (("stock", list, {}), ("varve", common.launched, WRITES_ONLY)):
            path = pathlib.Path(folder) / who
            command = [common.program("llama-completion"), "-m", common.MODEL, "-p",
                       common.excerpt(1500), "-c", 1024, "-n", 1, "--temp", 0, "-no-cnv",
                       "-fa", "on", "-ctk", "q8_0", "-ctv", "q4_0", "--prompt-cache", path]
            result = common.run(wrap(command), env)
            check(result.code == 0 and path.exists(), f"{who} saved its prompt cache", result)
            files[who] = path.read_bytes()
        check(files["stock"] == files["varve"] and len(files["stock"]) > 1000000,
              f"llama-completion: prompt caches of {len(files['stock'])} bytes are equal",
              first_difference(files["stock"], files["varve"]))


common.need(common.PLUGIN, common.LAUNCHER, common.program("llama-completion"), common.MODEL)
common.main(every_type, mixed_types_and_ubatches, prompt_cache)
