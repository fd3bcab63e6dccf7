#!/usr/bin/env python3
"""`varve exec` before programs of llama.cpp, in builds of each kind, and before what is not one.

Programs run with their defaults, `-fa auto` and F16 caches included; from the counters, every
attention node must have been computed by varve, and one line must say so.
"""
import os
import pathlib
import re
import threading

import common
from common import ROWS_MAX, check, launched, program, run

TRACE = {"VARVE_TRACE": 1}
CACHES = {"f16 cache": (), "q4_0/q8_0 cache": ("--ctk", "q4_0", "--ctv", "q8_0")}
PROMPT = "The capital of France is"


def command_of(name, kind):
    """Small work for each program: the words, and the attention nodes where their number is
    known."""
    model = ["-m", common.MODEL]
    words = {
        # without warm-up: one graph for the prompt, one per token
        "llama-bench": (["-p", 64, "-n", 4, "-r", 1, "--no-warmup", "-o", "json"], 5),
        # -n tokens take n - 1 graphs after that of the prompt
        "llama-completion": (["-p", PROMPT, "-n", 6, "-c", 512, "--temp", 0, "-no-cnv",
                              "--no-warmup"], 6),
        "llama-perplexity": (["-f", "{text}", "-c", 128, "-b", 128, "--chunks", 2,
                              "--no-warmup"], 2),
        "llama-batched-bench": (["-c", 1024, "-npp", 32, "-ntg", 4, "-npl", "1,2"], None),
    }[name]
    text = [str(common.text_file()) if w == "{text}" else w for w in words[0]]
    nodes = words[1] * common.N_LAYER if words[1] else None
    return [program(name, kind), *model, *text], nodes


def took_hold_once(result, what):
    lines = [line for line in result.varve_lines() if line.startswith(common.TOOK_HOLD)]
    check(len(lines) == 1, f"{what}: one line says that varve took hold", result)


# ---- programs -------------------------------------------------------------------------------

def serve_program(name, kind):
    for cache, options in CACHES.items():
        what = f"{name}, {kind}, {cache}"
        command, nodes = command_of(name, kind)
        result = run(launched(command, options), TRACE)
        common.check_served(result, what, nodes)
        took_hold_once(result, what)
        check("varve:" not in result.out, f"{what}: nothing of ours on stdout", result.out[-500:])


def bench():
    for kind in ("linked", "dl", "noomp"):
        serve_program("llama-bench", kind)


def completion():
    for kind in ("linked", "dl", "noomp"):
        serve_program("llama-completion", kind)


def perplexity():
    for kind in ("linked", "dl"):
        serve_program("llama-perplexity", kind)


def batched_bench():
    for kind in ("linked", "dl"):
        serve_program("llama-batched-bench", kind)


def same_words_as_stock():
    """With an F16 cache the differences are some 1e-6: greedy text is the same."""
    for kind in ("linked", "dl"):
        command, _ = command_of("llama-completion", kind)
        command[command.index("-n") + 1] = 12
        stock, ours = run(command), run(launched(command))
        check(stock.code == 0 and PROMPT in stock.out and len(stock.out) > len(PROMPT) + 10,
              f"{kind}: stock wrote {stock.out[-60:]!r}", stock)
        check(ours.code == stock.code and ours.out == stock.out,
              f"{kind}: under varve exec, stdout is the same",
              f"{stock.out[-300:]!r}\n{ours.out[-300:]!r}\n{ours}")


def disabled():
    command, _ = command_of("llama-completion", "linked")
    result = run(launched(command), {"VARVE_DISABLE": 1, **TRACE})
    stock = run(command)
    check(result.code == 0 and result.out == stock.out, "VARVE_DISABLE=1: stock's output", result)
    check(not result.varve_lines(), "VARVE_DISABLE=1: not a word of varve",
          result.varve_lines())


def without_the_launcher():
    """GGML_BACKEND_PATH alone, with -fa on: served where the program loads it, in linked builds
    llama-bench only."""
    for name, kind in (("llama-bench", "linked"), ("llama-completion", "dl")):
        command, nodes = command_of(name, kind)
        result = run(command + ["-fa", "on"], common.plugged(TRACE))
        common.check_served(result, f"{name}, {kind}, GGML_BACKEND_PATH and -fa on", nodes)
    command, _ = command_of("llama-completion", "dl")
    result = run(command, common.plugged())
    said = [line for line in result.varve_lines() if "flash attention is off" in line]
    check(result.code == 0 and len(said) == 1,
          "GGML_BACKEND_PATH without -fa on: one line says why nothing happened", result)


def levels():
    """--isa: a level below the CPU's, and one that does not exist."""
    command, nodes = command_of("llama-completion", "linked")
    result = run(launched(command, ("--isa", "scalar")), TRACE)
    common.check_served(result, "--isa scalar", nodes)
    check(f"{common.TOOK_HOLD} (scalar" in result.err, "--isa scalar: the line names the level",
          result.varve_lines())
    result = run(launched(command, ("--class", "fast")), TRACE)
    common.check_served(result, "--class fast", nodes)
    check(", class fast; K" in result.err, "--class fast: the line names the class",
          result.varve_lines())


# ---- the server -----------------------------------------------------------------------------

def ask(port, text, answers, i):
    try:
        answers[i] = common.http(port, "/completion", {"prompt": text, "n_predict": 8,
                                                       "temperature": 0, "cache_prompt": False})
    except OSError as error:
        answers[i] = {"content": "", "error": str(error)}


def two_clients(port):
    prompts = ("The capital of France is", "Water is made of hydrogen and")
    answers = [None, None]
    threads = [threading.Thread(target=ask, args=(port, prompts[i], answers, i)) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def serve_http(kind, cache, options):
    what = f"llama-server, {kind}, {cache}"
    words = ["-c", 1024, "--parallel", 2, "-n", 16]
    with common.Server(program("llama-server", kind), words, options, TRACE) as server:
        health = server.healthy()
        if not check(health == {"status": "ok"}, f"{what}: /health is ok", health):
            return
        answers = two_clients(server.port)
        texts = [a.get("content", "") for a in answers]
        check(all(len(t.strip()) > 3 for t in texts), f"{what}: two clients at once: {texts}",
              answers)
        result = server.stop()
    check(result.code == 0, f"{what}: SIGTERM ends it in {result.seconds:.1f} s", result)
    common.check_served(result, what)
    took_hold_once(result, what)


def server():
    for kind in ("linked", "dl"):
        for cache, options in CACHES.items():
            serve_http(kind, cache, options)


# ---- what is not a program of llama.cpp -----------------------------------------------------

def one_line(result, code, words, what):
    lines = result.varve_lines()
    check(result.code == code and len(lines) == 1 and all(w in lines[0] for w in words),
          f"{what}: exit code {code} and one line: {lines[:1]}", result)


def no_ggml():
    one_line(run(launched(["true"])), 0, ["no ggml"], "`varve exec -- true`")
    one_line(run(launched(["false"])), 1, ["no ggml"], "`varve exec -- false`")
    result = run(launched(["sh", "-c", "printf out; printf err >&2; exit 7"]))
    check(result.code == 7 and result.out == "out" and result.err.startswith("err"),
          "exit code, stdout and stderr of the command pass through", result)
    result = run(launched(["sh", "-c", "kill -TERM $$"]))
    check(result.code == -15, "a signal that ends the command ends `varve exec`", result)


def wrong_command():
    one_line(run(launched(["no-such-command"])), 127, ["no-such-command"], "missing command")
    one_line(run(launched(["/no/such/file"])), 127, ["/no/such/file"], "missing file")
    one_line(run(launched([common.MODEL])), 126, ["not an executable"], "a file of data")
    one_line(run([common.LAUNCHER, "exec"]), 125, ["no command"], "no command")
    one_line(run([common.LAUNCHER, "exec", "--"]), 125, ["no command"], "nothing after --")


def wrong_option():
    for option in ("--ctk", "--ctv"):
        for name in ("q9_0", "", "q4"):
            result = run(launched(["true"], (option, name)))
            one_line(result, 125, [option, "q8_0", "iq4_nl"], f"{option} {name!r}")
    for option, value in (("--tiers", "f16"), ("--tiers", "f16:0"), ("--tiers", "q8_0:4"),
                          ("--tiers", "NONE"), ("--tiers", f"f16:{ROWS_MAX + 1}"),
                          ("--sinks", "-1"), ("--sinks", ROWS_MAX + 1), ("--hot-max", "64X"),
                          ("--hot-max", "")):
        result = run(launched(["true"], (option, value)))
        most = [str(ROWS_MAX)] if option != "--hot-max" else []
        one_line(result, 125, [option, "expected", *most], f"{option} {value!r}")
    one_line(run(launched(["true"], ("--isa", "mmx"))), 125, ["--isa", "scalar"], "--isa mmx")
    one_line(run(launched(["true"], ("--class", "best"))), 125, ["--class", "exact"],
             "--class best")
    result = run(launched(["true"], ("--nonsense",)))
    check(result.code not in (0, 1) and "nonsense" in result.err, "an unknown option", result)


def tiers():
    """Options of the hot tier become variables; without options these pass through."""
    options = ("--tiers", "f16:64", "--sinks", "0", "--hot-max", "3M")
    seen = run(launched(["env"], options)).out.splitlines()
    wanted = ["VARVE_TIERS=f16:64", "VARVE_SINKS=0", f"VARVE_HOT_MAX={3 << 20}"]
    check(all(line in seen for line in wanted), f"{' '.join(options)}: {wanted}", seen)
    largest = (f"VARVE_TIERS=f16:{ROWS_MAX}", f"VARVE_SINKS={ROWS_MAX}")
    seen = run(launched(["env"], ("--tiers", f"f16:{ROWS_MAX}", "--sinks", ROWS_MAX))).out
    check(all(line in seen.splitlines() for line in largest), f"the largest: {largest}", seen)
    seen = run(launched(["env"]), {"VARVE_TIERS": "none"}).out.splitlines()
    check("VARVE_TIERS=none" in seen and not any(s.startswith("VARVE_SINKS=") for s in seen),
          "no options: the environment as it was", seen)


def large_pages():
    """malloc of the program is asked for large pages, unless the user has said something."""
    def tunables(before):
        env = {} if before is None else {"GLIBC_TUNABLES": before}
        lines = run(launched(["env"]), env).out.splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith("GLIBC_TUNABLES=")]

    asked, other = "glibc.malloc.hugetlb=1", "glibc.malloc.perturb=0"
    for before, after in ((None, asked), ("", asked), (other, f"{other}:{asked}"),
                          ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"), (asked, asked)):
        check(tunables(before) == [after], f"GLIBC_TUNABLES: {before} before, {after} after")


def foreign_back_end():
    """GGML_BACKEND_PATH holds one back end; somebody else's is not thrown out silently."""
    result = run(launched(["true"]), {"GGML_BACKEND_PATH": "/lib/other.so"})
    one_line(result, 125, ["GGML_BACKEND_PATH"], "GGML_BACKEND_PATH in use")


def static_program():
    with common.folder() as folder:
        source = pathlib.Path(folder) / "still.c"
        source.write_text("int main(void) { return 5; }\n", encoding="utf-8")
        try:
            binary = common.compile_c(source, folder, "-static")
        except RuntimeError:
            common.skip("static program", "this compiler links no static programs")
            return
        one_line(run(launched([binary])), 5, ["statically"], "a static program")


# ---- refusals -------------------------------------------------------------------------------

def refused(result, words, what):
    lines = [line for line in result.varve_lines() if "not loaded" in line and "built" in line]
    check(result.code == 0 and len(lines) == 1 and all(w in lines[0] for w in words),
          f"{what}: refused with one line, and the host goes on: {lines}", result)
    check(result.err.count("varve:") == 1, f"{what}: and nothing else is said", result)


def host_version():
    """The version of ggml as the host's library gives it, from its file name."""
    name = os.path.realpath(common.LLAMA / "lib" / "libggml-base.so")
    return re.search(r"(\d+\.\d+\.\d+)$", name).group(1)


def patched_ggml(folder, old, new):
    """Copies of the host's ggml libraries with one string replaced by another of its length."""
    assert len(old) == len(new)
    n_found = 0
    for name in ("libggml-base.so.0", "libggml-cpu.so.0", "libggml.so.0"):
        image = (common.LLAMA / "lib" / name).read_bytes()
        n_found += image.count(old)
        target = pathlib.Path(folder) / name.replace(old.strip(b"\0").decode(),
                                                     new.strip(b"\0").decode())
        target.write_bytes(image.replace(old, new))
    assert n_found > 0, f"no {old!r} in the host's libraries"


def other_version():
    """A host whose ggml says that it is of another version."""
    command, _ = command_of("llama-completion", "linked")
    own = host_version()
    for digits, accepted in (((0, 9), False), ((2, 9), True)):
        parts = own.split(".")
        parts[digits[0]] = str(digits[1]) * len(parts[digits[0]])
        version = ".".join(parts)
        with common.folder() as folder:
            patched_ggml(folder, f"\0{own}\0".encode(), f"\0{version}\0".encode())
            result = run(launched(command), {"LD_LIBRARY_PATH": folder})
        if accepted:
            check(result.code == 0 and common.TOOK_HOLD in result.err,
                  f"a host with ggml {version} is accepted", result)
        else:
            refused(result, [version, own], f"a host with ggml {version}")


def second_copy():
    """A host that carries ggml under other names, in a scope of its own: the plug-in would get a
    second libggml-base, whose tables are not the host's."""
    with common.folder() as folder:
        source = pathlib.Path(folder) / "host.c"
        source.write_text(HOST, encoding="utf-8")
        host = common.compile_c(source, folder, "-ldl")
        env = {"LD_LIBRARY_PATH": common.LLAMA / "lib"}
        result = run([host, common.LLAMA / "lib" / "libggml.so.0", common.PLUGIN], env)
        check(result.code == 0 and "accepted" in result.out and not result.varve_lines(),
              "a host with one copy of ggml-base: accepted", result)
        patched_ggml(folder, b"libggml-base.so.0\0", b"libggml-host.so.0\0")
        result = run([host, pathlib.Path(folder) / "libggml.so.0", common.PLUGIN], env)
        lines = result.varve_lines()
        check(result.code == 0 and "refused" in result.out and len(lines) == 1 and
              "two copies" in lines[0], f"a host with its own copy: refused: {lines}", result)


# Opens libggml as Python does, and has it load the plug-in.
HOST = r"""
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    void *(*load)(const char *) = NULL;
    void *ggml = argc == 3 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
    if (ggml != NULL) {
        *(void **)&load = dlsym(ggml, "ggml_backend_load");
    }
    if (load == NULL) {
        fprintf(stderr, "host: %s\n", dlerror());
        return 1;
    }
    puts(load(argv[2]) == NULL ? "refused" : "accepted");
    return 0;
}
"""


common.need(common.LAUNCHER, common.PLUGIN, common.PRELOAD, common.MODEL, program("llama-bench"))
common.main(no_ggml, wrong_command, wrong_option, tiers, large_pages, foreign_back_end,
            static_program, bench, completion, perplexity, batched_bench, same_words_as_stock, disabled,
            without_the_launcher, levels, other_version, second_copy, server)
