#!/usr/bin/env python3
"""Make a model with random weights: a GGUF file of any dimensions, for speeds and memory.

What it says means nothing, and neither do divergences measured on it; the file says so
(varve.random_weights), and varve's programs repeat it. Speeds and bytes are those of a real model of
these dimensions. The same seed gives the same file.
"""
import argparse
import math
import os
import pathlib
import sys

import setup

FLAG = "varve.random_weights"           # run/model_file.c looks for it
SPREAD = 1.4                            # of q and of k: scores have its square as deviation, about
N_PLAIN_VOCAB = 256                     # tokens of a model without tokenizer
BLOCK = 32                              # values of q8_0 and q4_0
PIECE = 1 << 24                         # values drawn at once

gguf = numpy = None                     # come with setup.setup_gguf


# ---- tokenizer ------------------------------------------------------------------------------

def byte_tokens():
    """GPT-2's one printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = iter(range(256, 512))
    return [chr(b if b in plain else next(other)) for b in range(256)]


def add_tokenizer(writer, n_vocab):
    """A byte is a token; beyond that come words that no text is cut into, but the model may say."""
    tokens = byte_tokens() + ["\u0120t", "<|endoftext|>"]
    special = len(tokens) - 1
    tokens += [f"\u0120w{i}" for i in range(len(tokens), n_vocab)]
    types = [gguf.TokenType.NORMAL] * len(tokens)
    types[special] = gguf.TokenType.CONTROL
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["\u0120 t"])
    writer.add_bos_token_id(special)
    writer.add_eos_token_id(special)
    writer.add_add_bos_token(True)


# ---- architectures: (tensor, shape with the length of a row first, gain; None: ones) -------------

def feed_forward(o):
    return [("ffn_norm", (o.embd,), None), ("ffn_gate", (o.embd, o.ff), 1),
            ("ffn_up", (o.embd, o.ff), 1), ("ffn_down", (o.ff, o.embd), 1)]


def attention(o):
    n_q, n_kv = o.heads * o.head_dim, o.kv_heads * o.head_dim
    return [("attn_norm", (o.embd,), None), ("attn_q", (o.embd, n_q), SPREAD),
            ("attn_k", (o.embd, n_kv), SPREAD), ("attn_v", (o.embd, n_kv), 1),
            ("attn_output", (n_q, o.embd), 1)]


def llama(o, _):
    return attention(o) + feed_forward(o)


def qwen2(o, _):
    if o.heads * o.head_dim != o.embd:
        raise setup.Fail("qwen2 has --embd equal to --heads times --head-dim")
    biases = [(f"{name}.bias", (shape[1],), 0.1) for name, shape, _ in attention(o)[1:4]]
    return attention(o) + biases + feed_forward(o)


def qwen3(o, _):
    norms = [(name, (o.head_dim,), None) for name in ("attn_q_norm", "attn_k_norm")]
    return attention(o) + norms + feed_forward(o)


def gemma2(o, writer):
    """Softcap; every second layer has a sliding window. Its output is the embedding."""
    writer.add_sliding_window(o.window)
    writer.add_attn_logit_softcapping(50.0)
    writer.add_final_logit_softcapping(30.0)
    norms = [(name, (o.embd,), None) for name in ("post_attention_norm", "post_ffw_norm")]
    return attention(o) + norms + feed_forward(o)


def deepseek2(o, writer):
    """Latent attention (MLA): one row for all heads, V is a part of K. Without experts."""
    n_rope = o.head_dim // 2
    writer.add_q_lora_rank(0)
    writer.add_kv_lora_rank(o.latent)
    writer.add_key_length_mla(o.head_dim + n_rope)
    writer.add_value_length_mla(o.head_dim)
    writer.add_leading_dense_block_count(o.layers)
    writer.add_expert_feed_forward_length(0)
    writer.add_expert_shared_count(0)
    return [("attn_norm", (o.embd,), None),
            ("attn_q", (o.embd, o.heads * (o.head_dim + n_rope)), SPREAD),
            ("attn_kv_a_mqa", (o.embd, o.latent + n_rope), SPREAD),
            ("attn_kv_a_norm", (o.latent,), None),
            ("attn_k_b", (o.head_dim, o.latent, o.heads), 1),
            ("attn_v_b", (o.latent, o.head_dim, o.heads), 1),
            ("attn_output", (o.heads * o.head_dim, o.embd), 1)] + feed_forward(o)


ARCHITECTURES = {f.__name__: f for f in (llama, qwen2, qwen3, gemma2, deepseek2)}
TIED = ("gemma2",)                      # the output is the embedding


def add_keys(writer, o):
    latent = o.architecture == "deepseek2"
    n_rope = o.head_dim // 2 if latent else o.head_dim
    writer.add_name(f"random weights, {o.architecture}, seed {o.seed}")
    writer.add_bool(FLAG, True)
    writer.add_context_length(o.ctx)
    writer.add_embedding_length(o.embd)
    writer.add_block_count(o.layers)
    writer.add_feed_forward_length(o.ff)
    writer.add_head_count(o.heads)
    writer.add_head_count_kv(1 if latent else o.kv_heads)
    writer.add_key_length(o.latent + n_rope if latent else o.head_dim)
    writer.add_value_length(o.latent if latent else o.head_dim)
    writer.add_rope_dimension_count(n_rope)
    writer.add_rope_freq_base(o.rope_base)
    writer.add_layer_norm_rms_eps(1e-5)
    if o.tokenizer:
        add_tokenizer(writer, o.vocab)
    else:
        writer.add_tokenizer_model("no_vocab")
        writer.add_vocab_size(N_PLAIN_VOCAB)


def all_tensors(writer, o):
    n_vocab = max(o.vocab, N_PLAIN_VOCAB + 2) if o.tokenizer else N_PLAIN_VOCAB
    found = [("token_embd", (o.embd, n_vocab), 1), ("output_norm", (o.embd,), None)]
    if o.architecture not in TIED:
        found.append(("output", (o.embd, n_vocab), 1))
    layer = ARCHITECTURES[o.architecture](o, writer)
    found += [(f"blk.{i}.{name}", shape, gain) for i in range(o.layers) for name, shape, gain in layer]
    return [(name if name.endswith(".bias") else f"{name}.weight", shape, gain)
            for name, shape, gain in found]


# ---- weights --------------------------------------------------------------------------------

def type_of(shape, o):
    """Vectors stay F32; rows that are no whole blocks too."""
    if len(shape) == 1 or (o.type in ("q8_0", "q4_0") and shape[0] % BLOCK):
        return gguf.GGMLQuantizationType.F32
    return gguf.GGMLQuantizationType[o.type.upper()]


def draw(random, n, kind, size):
    """n values as bytes, evenly spread in [-size, size]; for quantized types, blocks that all have
    the same scale."""
    if kind.name in ("F32", "F16"):
        values = (2 * random.random(n, dtype=numpy.float32) - 1) * size
        return values.astype(numpy.float16 if kind.name == "F16" else numpy.float32).view(numpy.uint8)
    most = 127 if kind.name == "Q8_0" else 7
    scale = numpy.full(n // BLOCK, size / most, numpy.float16).view(numpy.uint8).reshape(-1, 2)
    values = random.integers(0, 256, (n // BLOCK, 32 if most == 127 else 16), dtype=numpy.uint8)
    if most == 127:
        values[values == 128] = 129     # -128 is not used
    else:                               # two values of 1 to 15 in a byte, 8 stands for 0
        values |= ((values & 0x0f) == 0).astype(numpy.uint8) * 0x08
        values |= ((values & 0xf0) == 0).astype(numpy.uint8) * 0x80
    return numpy.concatenate([scale, values], axis=1).reshape(-1)


def weights(random, shape, gain, kind):
    """A product with such a matrix makes values of a row larger by `gain`."""
    n = math.prod(shape)
    if gain is None:
        return numpy.ones(n, numpy.float32).view(numpy.uint8)
    size = gain * math.sqrt(3 / shape[0]) if len(shape) > 1 else gain
    return numpy.concatenate([draw(random, min(PIECE, n - at), kind, size)
                              for at in range(0, n, PIECE)])


def write(o):
    part = o.output.with_name(o.output.name + ".part")
    writer = gguf.GGUFWriter(part, o.architecture)
    random = numpy.random.default_rng(o.seed)
    add_keys(writer, o)
    tensors = all_tensors(writer, o)
    for name, shape, _ in tensors:
        kind = type_of(shape, o)
        n_value, n_byte = gguf.GGML_QUANT_SIZES[kind]
        writer.add_tensor_info(name, shape[::-1], numpy.dtype(numpy.float32),
                               math.prod(shape) // n_value * n_byte, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, shape, gain in tensors:
        writer.write_tensor_data(weights(random, shape, gain, type_of(shape, o)))
    writer.close()
    os.replace(part, o.output)
    return sum(math.prod(shape) for _, shape, _ in tensors)


# ---- command line ---------------------------------------------------------------------------

def count(text):
    value = int(text)
    if not 1 <= value < 1 << 31:
        raise ValueError
    return value


def parse():
    parser = argparse.ArgumentParser(description=__doc__, epilog="The dimensions of Llama 3.2 3B: "
                                     "--layers 28 --heads 24 --kv-heads 8 --head-dim 128 --ff 8192 "
                                     "--vocab 128256 --type q4_0",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=pathlib.Path, metavar="OUTPUT", help="the GGUF file")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="llama",
                        help="default: %(default)s")
    for name, value, what in (
            ("layers", 2, "layers"), ("heads", 4, "query heads"), ("kv-heads", 2, "KV heads"),
            ("head-dim", 64, "values of a head"),
            ("embd", None, "values of an embedding; heads times head-dim if not given"),
            ("ff", None, "width of the feed-forward part; twice embd if not given"),
            ("vocab", N_PLAIN_VOCAB + 2, "tokens, 258 at least"),
            ("ctx", 1 << 17, "tokens that the model claims to have been trained for"),
            ("window", 512, "rows of gemma2's sliding window"),
            ("latent", None, "values of deepseek2's latent rows; 4 times head-dim if not given")):
        parser.add_argument(f"--{name}", type=count, default=value, metavar="N",
                            help=what + ("" if value is None else " (default: %(default)s)"))
    parser.add_argument("--rope-base", type=float, default=5e5, metavar="F", help="default: %(default)g")
    parser.add_argument("--type", choices=("f32", "f16", "q8_0", "q4_0"), default="f32",
                        help="of the weights (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-tokenizer", dest="tokenizer", action="store_false",
                        help="256 tokens that are numbers only")
    o = parser.parse_args()
    o.embd = o.embd or o.heads * o.head_dim
    o.ff = o.ff or 2 * o.embd
    o.latent = o.latent or 4 * o.head_dim
    if o.heads % o.kv_heads or o.head_dim % 4 or o.seed < 0:
        parser.error("--heads is a multiple of --kv-heads, --head-dim one of 4, --seed 0 or more")
    return o


def load_packages():
    global gguf, numpy                  # pylint: disable=global-statement
    with setup.Cache() as cache:
        sys.path.insert(0, str(setup.setup_gguf(cache)))
    import gguf as g                    # pylint: disable=import-outside-toplevel,import-error
    import numpy as n                   # pylint: disable=import-outside-toplevel,import-error
    gguf, numpy = g, n


def main():
    o = parse()
    try:
        load_packages()
        n = write(o)
    except (setup.Fail, OSError) as e:
        print(f"random_model: {e}", file=sys.stderr)
        return 1
    print(f"{o.output}: {o.architecture}, {o.layers} layers, {n / 1e6:.1f} million random weights of "
          f"type {o.type}, seed {o.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
