#!/usr/bin/env python3
"""Other architectures than that of the default model, as a new user would try them: a small model with
random weights (tools/random_model.py) goes through `varve plan`, `varve run` and `varve eval`, and what
they show carries the caution that it means nothing."""
import hashlib
import json
import pathlib

import common
from common import check

CAUTION = "random weights: figures of quality and the text mean nothing"
PASSIVE = {"OMP_WAIT_POLICY": "passive"}  # graphs of microseconds: spinning hurts beside others
N_LAYER, N_CTX = 2, 256    # layers; tokens of a chunk
PROMPT = common.excerpt(300)  # a token for each character, but one for " t"
MODELS = {
    "qwen2": ("--architecture", "qwen2"),
    "qwen3": ("--architecture", "qwen3", "--type", "q8_0"),
    "gemma2": ("--architecture", "gemma2", "--window", 64),
    "deepseek2": ("--architecture", "deepseek2", "--type", "q4_0"),
}


def varve(folder, *words):
    """The result of a command of varve's, with its JSON."""
    path = pathlib.Path(folder) / "figures.json"
    path.unlink(missing_ok=True)
    result = common.run([common.LAUNCHER, *words, "--json", path], PASSIVE)
    result.json = json.loads(path.read_text(encoding="utf-8")) if result.code == 0 else None
    return result


def plans(folder, name, model):
    done = varve(folder, "plan", "-m", model, "-c", 4096, "--ctk", "q8_0", "--ctv", "q8_0")
    if not check(done.code == 0 and CAUTION in done.out and done.json["random_weights"],
                 f"{name}: plan, with the caution", done):
        return
    layers = done.json["layers"]
    check([layer["number"] for layer in layers] == list(range(N_LAYER)) and
          done.json["declined"] is None and
          all(layer["latent"] == (name == "deepseek2") for layer in layers) and
          (layers[0]["cells"] < layers[1]["cells"]) == (name == "gemma2"),
          f"{name}: layers of {[layer['cells'] for layer in layers]} cells, all served", layers)


def runs(folder, name, model):
    done = varve(folder, "run", "-m", model, "--compare", "-p", PROMPT, "-n", 8)
    if not check(done.code == 0 and CAUTION in done.err and
                 all(run["random_weights"] for run in done.json["runs"]),
                 f"{name}: run --compare, with the caution", done):
        return
    stock, ours, rounded = done.json["runs"]
    kl = [run["divergence"]["mean"] for run in (ours, rounded)]
    check(stock["prompt"]["tokens"] == 1 + len(PROMPT) - PROMPT.count(" t") and ours["attention_nodes"] > 0 and
          ours["kv"]["bytes_cold"] < ours["kv"]["bytes_f16"] / 3 and 0 <= kl[0] < kl[1] < 1,
          f"{name}: attention by varve, {kl[0]:.1e} from f16, stock's {kl[1]:.1e}", done)


def evaluates(folder, name, model):
    done = varve(folder, "eval", "-m", model, "--ctx", N_CTX, "--chunks", 1, "--configs",
                 "f16,f16+stock,q8_0,q4_0,q8_0/q4_0,q4_0+w32+s4", "--no-partners", "-f", common.text_file(),
                 "--work", pathlib.Path(folder) / "work")
    if not check(done.code == 0 and CAUTION in done.out and done.json["random_weights"],
                 f"{name}: eval, with the caution", done):
        return
    found = {one["config"]["label"]: one for one in done.json["results"]}
    kl = [found[label]["all"]["kl"]["mean"]["value"] for label in ("f16", "q8_0", "q4_0")]
    check(("q8_0/q4_0" not in found) == (name == "deepseek2") ==
          ("q8_0/q4_0 is left out" in done.err), f"{name}: two types, unless V is a part of K", done)
    check(kl[0] == 0 and 0 < kl[1] < kl[2] < 1 and
          all((one["attention_nodes"] == 0) == one["config"]["stock"] for one in found.values()),
          f"{name}: KL divergence of q8_0 {kl[1]:.1e}, of q4_0 {kl[2]:.1e}", done)


def through_everything():
    with common.folder() as folder:
        for name, words in MODELS.items():
            model = common.random_model(pathlib.Path(folder) / f"{name}.gguf", *words)
            plans(folder, name, model)
            runs(folder, name, model)
            evaluates(folder, name, model)


def odd_heads():
    """Heads that blocks of 32 do not fit: only types without blocks are left."""
    with common.folder() as folder:
        model = common.random_model(pathlib.Path(folder) / "odd.gguf", "--head-dim", 40)
        words = ("eval", "-m", model, "--ctx", N_CTX, "--chunks", 1, "-f", common.text_file(), "--work",
                 pathlib.Path(folder) / "work")
        some = varve(folder, *words, "--configs", "f16+stock,q8_0,bf16")
        labels = [one["config"]["label"] for one in some.json["results"]] if some.json else []
        check(some.code == 0 and labels == ["f16+stock", "bf16"] and "q8_0 is left out" in some.err,
              f"heads of 40 values: {labels}", some)
        none = varve(folder, *words, "--configs", "q8_0")
        check(none.code == 1 and "no configuration is left" in none.err, "and nothing of q8_0 alone", none)


def repeatable():
    """The same seed gives the same bytes; a model of the world gets no caution."""
    with common.folder() as folder:
        digests = [hashlib.sha256(common.random_model(pathlib.Path(folder) / "model.gguf", "--seed",
                                                      seed).read_bytes()).hexdigest()
                   for seed in (1, 1, 2)]
        check(digests[0] == digests[1] != digests[2], "the seed decides the file", digests)
        real = varve(folder, "plan", "-m", common.MODEL, "-c", 512)
        check(real.code == 0 and not real.json["random_weights"] and CAUTION not in real.out,
              "the default model gets no caution", real)


common.need(common.PLUGIN, common.MODEL, common.BUILD / "bin" / "varve-eval")
common.main(through_everything, odd_heads, repeatable)
