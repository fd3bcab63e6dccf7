#!/usr/bin/env python3
"""The shipped kernels for AMX hold the instructions that they are there for: products of tiles, a
configuration before the first use of one, and a release. Runs on any x86-64: nothing is executed."""
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import common  # noqa: E402
from common import BUILD, check, run, skip  # noqa: E402

PRODUCTS = {"varve_packscore_q8_amx": "tdpbsud",
            "varve_packfold_any_amx": "tdpbssd",
            "varve_pairscore_any_amx": "tdpbf16ps",
            "varve_pairfold_any_amx": "tdpbf16ps"}


def instructions(symbol, lines):
    """Mnemonics of a function, in the order of its addresses."""
    found, inside = [], False
    for line in lines:
        if line.endswith(">:"):
            inside = line.endswith(f"<{symbol}>:")
        elif inside:
            match = re.match(r"\s+[0-9a-f]+:\s+(\w+)", line)
            if match:
                found.append(match[1])
    return found


def shipped():
    objects = sorted(BUILD.glob("CMakeFiles/varve_objs.dir/src/kernel/*_amx.c.o"))
    if shutil.which("objdump") is None or not objects:
        skip("kernels for AMX", "no objdump, or a build for another architecture")
        return
    text = run(["objdump", "-d", "--no-show-raw-insn", *objects]).out.splitlines()
    for symbol, product in PRODUCTS.items():
        found = instructions(symbol, text)
        tiles = [name for name in found if name.startswith("tile") or "tdp" in name]
        check(product in tiles, f"{symbol} multiplies by {product}", tiles)
        check("ldtilecfg" in found and found.index("ldtilecfg") < found.index(tiles[0]),
              f"{symbol} configures its tiles first", found[:20])
        check("tilerelease" in tiles, f"{symbol} releases its tiles", tiles)
    kernels = {line.split("<")[1][:-2] for line in text if re.search(r"<varve_\w+_amx>:$", line)}
    check(kernels == set(PRODUCTS), "every kernel for AMX is looked at", kernels)


common.main(shipped)
