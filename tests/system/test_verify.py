#!/usr/bin/env python3
"""`varve verify`: what it says, its options, its exit codes, and that it finds a wrong kernel."""
import pathlib
import re

import common
from common import BUILD, LAUNCHER, ROOT, check, compile_c, run

QUICK = [LAUNCHER, "verify", "--quick"]


def closing(result):
    """(checked, failed) of the last line, or None."""
    lines = result.out.splitlines()
    match = re.fullmatch(r"(\d+) kernels checked, (\d+) failed", lines[-1] if lines else "")
    return tuple(map(int, match.groups())) if match else None


def levels(result):
    exercised = re.findall(r"^exercised: (\w+)$", result.out, re.M)
    skipped = re.findall(r"^skipped: (\w+) \(this CPU lacks .+\)$", result.out, re.M)
    return exercised, skipped


def listed(*options):
    return run([LAUNCHER, "verify", "--list", *options]).out.splitlines()


def everything():
    result = run([*QUICK, "--seed", 5])
    done = closing(result)
    exercised, skipped = levels(result)
    check(result.code == 0 and done is not None and done[0] > 0 and done[1] == 0,
          f"all kernels pass: {done}", result)
    check("scalar" in exercised and len(exercised + skipped) == len(set(exercised + skipped)),
          f"each level is named once: exercised {exercised}, skipped {skipped}", result)
    check(bool(skipped) == (done is not None and done[0] < len(listed())),
          "kernels are left out where a level is skipped, and only there", result)
    check("seed 5" in result.out.splitlines(), "the seed is printed", result)


def narrowed():
    scalar = run([*QUICK, "--isa", "scalar"])
    check(scalar.code == 0 and closing(scalar) == (len(listed("--isa", "scalar")), 0)
          and levels(scalar) == (["scalar"], []), "--isa scalar checks that level alone", scalar)
    for pattern in ("q8_0", "varve_score_*_scalar"):
        some = run([*QUICK, "--kernel", pattern])
        names = [line.split()[-1] for line in listed("--kernel", pattern)]
        word = pattern.split("*", maxsplit=1)[0]
        check(some.code == (closing(some)[0] == 0) and closing(some)[0] <= len(names)
              and all(word in name for name in names) and names, f"--kernel {pattern}", some)
    one = [run([*QUICK, "--isa", "scalar", "--kernel", "softmax", "--seed", 9]).out for _ in "ab"]
    check(one[0] == one[1] and "1 kernels checked, 0 failed" in one[0], "--seed repeats", one)


def wrong_options():
    for words, said in ((["--isa", "sse9"], "no such level; known are scalar"),
                        (["--op", "nothing"], "no such operation"),
                        (["--kernel", "nothing"], "no kernel is all that was asked for"),
                        (["--seed", "x"], "expected a whole number"),
                        (["--seed", "-1"], "expected a whole number"),
                        (["more"], "unexpected argument 'more'")):
        result = run([LAUNCHER, "verify", *words])
        check(result.code == 64 and said in result.err and result.err.startswith("varve verify: ")
              and not result.out, f"verify {' '.join(words)}: {said}", result)
    result = run([LAUNCHER, "verify", "--help"])
    check(result.code == 0 and "--kernel" in result.out, "--help", result)


def wrong_kernel():
    """The checker with a kernel that writes nothing, and one that crashes, in place of ours."""
    with common.folder() as name:
        source = pathlib.Path(name) / "wrong.c"
        source.write_text("void varve_narrow_any_scalar(const void *args) { (void)args; }\n"
                          "void varve_quantq_any_scalar(const void *args)\n"
                          "{ *(volatile char *)8 = args != 0; }\n", encoding="utf-8")
        program = compile_c(source, name, BUILD / "lib" / "libvarve_check_library.a",
                            BUILD / "lib" / "libvarve.a", f"-I{ROOT}/src", "-fopenmp",
                            "-Wl,--allow-multiple-definition", "-lm", "-lpthread")
        for kernel, said in (("narrow", "FAIL varve_narrow_any_scalar"), ("quantq", "crashed")):
            result = run([program, "--quick", "--isa", "scalar", "--kernel", kernel])
            check(result.code == 1 and closing(result) == (1, 1) and said in result.out,
                  f"a wrong {kernel} is found", result)


if __name__ == "__main__":
    common.need(LAUNCHER, BUILD / "bin" / "varve-verify")
    common.main(everything, narrowed, wrong_options, wrong_kernel)
