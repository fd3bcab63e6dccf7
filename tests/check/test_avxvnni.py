#!/usr/bin/env python3
"""The AVX-VNNI kernels where the CPU lacks AVX-VNNI.

Two things are checked, and a third is skipped by name. The library's objects have the products in the
VEX encoding and nothing in the EVEX one, which CPUs with AVX-VNNI alone do not know: by disassembly. The
same sources with the same instructions in the EVEX encoding compute what they should, on a CPU that
has AVX-512 VNNI: bin/varve-verify-evex. That the VEX encoding runs only a CPU with AVX-VNNI can show.
"""
import pathlib
import re
import shutil
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "system"))
import common  # noqa: E402
from common import BUILD, ROOT, check, note, run, skip  # noqa: E402

LEVEL, AS_EVEX = "avxvnni", "avxvnni_as_evex"
LIBRARY, CHECKER = BUILD / "lib" / "libvarve.a", BUILD / "bin" / "varve-verify-evex"
PRODUCT = re.compile(r"^\s*[0-9a-f]+:\t((?:[0-9a-f]{2} )+)\s*\t?(?:\{\w+\} )?vpdp(busd|wssd)\b", re.M)
CODE = re.compile(r"^\s*[0-9a-f]+:\t([0-9a-f]{2})((?: [0-9a-f]{2})+)\s*\t", re.M)
VEX, EVEX = "c4", "62"  # first bytes: 62 begins nothing else in 64-bit mode
EXPECTED = {"score": "busd", "pack": "busd", "foldq": "wssd", "packfold": "wssd"}


def members():
    return {path.name for path in (ROOT / "src" / "kernel").glob(f"*_{LEVEL}.c")}


def disassembled(member, folder):
    done = run(["ar", "x", f"--output={folder}", LIBRARY, member])
    check(done.code == 0, f"{member} is in the library", done)
    return run(["objdump", "-d", "--wide", pathlib.Path(folder) / member]).out


def encoding():
    if not shutil.which("objdump") or not shutil.which("ar"):
        skip("encoding", "no objdump or no ar")
        return
    sources = members()
    check(len(sources) == len(EXPECTED), f"kernels of the level: {sorted(sources)}")
    with common.folder() as folder:
        for source in sorted(sources):
            text = disassembled(source + ".o", folder)
            products = [(match[1].split()[0], match[2]) for match in PRODUCT.finditer(text)]
            kind = EXPECTED[source.split("_", maxsplit=1)[0]]
            check(products and {first for first, _ in products} == {VEX}
                  and {name for _, name in products} == {kind},
                  f"{source}: {len(products)} times vpdp{kind}, all VEX", products[:4])
            first = [match[1] for match in CODE.finditer(text)]
            check(len(first) > 100 and EVEX not in first,
                  f"{source}: none of {len(first)} instructions is EVEX")


def computed():
    result = run([CHECKER, "--quick", "--isa", AS_EVEX, "--seed", 3])
    if f"skipped: {AS_EVEX}" in result.out:
        skip(AS_EVEX, "this CPU lacks AVX-512 VNNI, too")
    else:
        listed = len(run([CHECKER, "--list", "--isa", AS_EVEX]).out.splitlines())
        check(result.code == 0 and f"{listed} kernels checked, 0 failed" in result.out
              and f"exercised: {AS_EVEX}" in result.out, f"{AS_EVEX}: {listed} kernels", result)
    native = run([BUILD / "bin" / "varve-verify", "--quick", "--isa", LEVEL, "--seed", 3])
    if f"skipped: {LEVEL}" in native.out:
        skip(f"{LEVEL} (VEX)", "this CPU lacks AVX-VNNI: that its encoding runs is not checked")
    else:
        check(native.code == 0 and ", 0 failed" in native.out, f"{LEVEL} runs as it is", native)
        note("AVX-VNNI is here")


common.need(CHECKER, LIBRARY)
common.main(encoding, computed)
