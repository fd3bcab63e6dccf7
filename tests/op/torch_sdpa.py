#!/usr/bin/env python3
"""Reads a case that test-flash-attn-state wrote, computes it with PyTorch in float64 and prints the
largest difference from the output in the file."""
import struct
import sys

import torch


def main():
    with open(sys.argv[1], "rb") as file:
        data = bytearray(file.read())
    n_batch, n_head, n_head_kv, n_query, dk, dv, *rows = struct.unpack_from("8i", data)
    values = torch.frombuffer(data, dtype=torch.float32, offset=32)
    at = 0

    def take(*shape):
        nonlocal at
        n = torch.Size(shape).numel()
        at += n
        return values[at - n:at].reshape(shape).double()

    q = take(n_batch, n_head, n_query, dk)
    k, v = [], []
    for n in rows:
        if n > 0:
            k.append(take(n_batch, n_head_kv, n, dk))
            v.append(take(n_batch, n_head_kv, n, dv))
    mask = take(n_batch, n_head, n_query, sum(rows))
    output = take(n_batch, n_query, n_head, dv)
    group = n_head // n_head_kv
    k, v = (torch.cat(x, dim=2).repeat_interleave(group, dim=1) for x in (k, v))
    found = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    blind = torch.isneginf(mask).all(dim=3)  # PyTorch gives NaN there, we give zeros
    found[blind] = 0
    difference = (found.transpose(1, 2) - output).abs().max().item()
    print(f"difference {difference if difference == difference else float('inf'):.9g}")


main()
