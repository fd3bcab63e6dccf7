#!/usr/bin/env python3
"""`varve run`: what it writes where, its figures as JSON, errors in one line, Ctrl-C, --compare."""
import json
import math
import os
import pathlib
import pty
import re
import resource
import select
import signal
import subprocess
import time

import common
from common import check, run

PROGRAM = common.BUILD / "bin" / "varve-run"
PROMPT = "The capital of France is"
SUMMARY = "cache type of K/V"


def varve_run(*words):
    """One thread where no other number is given: on a busy machine more of them wait for each
    other."""
    threads = () if "-t" in words else ("-t", "1")
    return [common.LAUNCHER, "run", "-m", common.MODEL, *threads, *words]


def figures(folder, *words, env=None):
    """A run with --json: its Result, and what the file holds."""
    path = pathlib.Path(folder) / "figures.json"
    result = run(varve_run(*words, "--json", path), env)
    return result, json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


# ---- one run --------------------------------------------------------------------------------

def normal():
    with common.folder() as folder:
        result, data = figures(folder, "-p", PROMPT, "-n", 12)
    if not check(result.code == 0 and data is not None, "a run: exit code 0, figures as JSON", result):
        return
    one = data["runs"][0]
    check(len(data["runs"]) == 1 and one["name"] == "varve" and one["type_k"] == "q4_0" and
          data["settings"]["tiers"] == "f16:256" and data["settings"]["sinks"] == 4 and
          data["settings"]["hot_max"] == 0,
          "the defaults: varve, q4_0, f16:256, 4 sinks", data)
    check(result.out.rstrip("\n") == one["generated"]["text"].rstrip("\n") and "Paris" in result.out,
          f"stdout has the text and nothing else: {result.out!r}", result)
    check(one["prompt"]["tokens"] == one["prompt"]["read"] == 5 and one["stopped"] is None and
          one["generated"]["tokens"] == 12 and one["generated"]["steps"] == 11 and
          one["prompt"]["tokens_per_second"] > 0 and one["generated"]["tokens_per_second"] > 0,
          "tokens and speeds of both parts", one)
    check(one["attention_nodes"] == 12 * common.N_LAYER,
          f"all attention by varve: {one['attention_nodes']} nodes", one)
    kv = one["kv"]
    cells = 256 * 2 * 192 * common.N_LAYER  # K and V, 3 heads of 64
    check(kv["context"] == 256 and kv["bytes_f16"] == 2 * cells and
          kv["bytes_cold"] == cells // 32 * 18, "bytes of the cache, and as F16", kv)
    check(SUMMARY in result.err and "100 %" in result.err and "KV cache" in result.err,
          "progress and a summary on stderr", result)


def rows_add_up():
    """With a hot tier: each query reads each visible row once, hot, pinned or cold."""
    with common.folder() as folder:
        _, data = figures(folder, "-p", common.excerpt(1200), "-n", 4, "--tiers", "f16:32")
    one = data["runs"][0]
    if one["rows"] is None:
        common.skip("account of rows", "this plug-in has no hot tier")
        return
    n = one["prompt"]["tokens"] + one["generated"]["steps"]
    for side in ("k", "v"):
        rows = one["rows"][side]
        total = rows["hot"] + rows["sink"] + rows["cold"]
        check(total == n * (n + 1) // 2 * common.N_LAYER and rows["missed"] == rows["stale"] ==
              rows["evicted"] == 0 and rows["hot"] > 0 and rows["sink"] > 0,
              f"rows of {side}: {rows}", f"{n} tokens")
    check(one["kv"]["bytes_hot"] > 0, "the hot tier takes memory", one["kv"])


def limited():
    """--hot-max, or VARVE_HOT_MAX: the limit holds and is among the settings."""
    long = ("-p", common.excerpt(1200), "-n", 2)
    for options, env, limit in ((("--hot-max", "1M"), {"VARVE_HOT_MAX": 7}, 1 << 20),
                                ((), {"VARVE_HOT_MAX": 900000}, 900000), ((), {}, 0)):
        with common.folder() as folder:
            result, data = figures(folder, *long, *options, env=env)
        one = data["runs"][0]
        what = f"{' '.join(options)} {env}"
        if one["rows"] is None:
            common.skip(what, "this plug-in has no hot tier")
            continue
        check(result.code == 0 and data["settings"]["hot_max"] == limit,
              f"{what}: hot_max {data['settings']['hot_max']} in the settings", data["settings"])
        check((0 < one["kv"]["bytes_hot_peak"] <= limit) == (limit > 0) and
              (one["rows"]["k"]["evicted"] > 0) == (limit > 0),
              f"{what}: {one['kv']['bytes_hot_peak']} bytes, "
              f"{one['rows']['k']['evicted']} rows without room", one)
    for value in ("1M", "-1", "many"):
        one_line(run(varve_run("-p", "x"), {"VARVE_HOT_MAX": value}), 64,
                 ["VARVE_HOT_MAX", "expected"], f"VARVE_HOT_MAX={value}")


def chat():
    with common.folder() as folder:
        plain, _ = figures(folder, "-p", "What is a glacier?", "-n", 16)
        result, data = figures(folder, "-p", "What is a glacier?", "-n", 16, "--chat")
    check(result.code == 0 and "<|im" not in result.out and result.out != plain.out and
          data["runs"][0]["prompt"]["tokens"] > 10,
          f"--chat: the template is there and not shown: {result.out!r}", result)


def same_again():
    greedy = [run(varve_run("-p", PROMPT, "-n", 16)).out for _ in range(2)]
    check(greedy[0] == greedy[1] and len(greedy[0]) > 20, "the same text twice", greedy)
    words = ("-p", PROMPT, "-n", 16, "--temp", "1.5", "--seed")
    texts = [run(varve_run(*words, seed)).out for seed in (1, 1, 2)]
    check(texts[0] == texts[1] and texts[0] != texts[2], "--temp: a seed fixes the text", texts)


def input_places():
    with subprocess.Popen([str(w) for w in varve_run("-f", "-", "-n", 4)], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=common.environment()) as process:
        out, err = process.communicate(PROMPT.encode())
    check(process.returncode == 0 and b"Paris" in out, "-f -: the prompt comes from stdin", err)
    with common.folder() as folder:
        odd = os.path.join(os.fsencode(folder), b"odd\xff")
        with open(odd, "wb") as file:
            file.write(PROMPT.encode())
        _, data = figures(folder, "-f", os.fsdecode(odd), "-n", 2)
        with open(odd, "wb") as file:
            file.write(b"12345 \xf5\x80\x80\x80")
        one_line(run(varve_run("-f", os.fsdecode(odd), "-n", 2)), 1,
                 ["not UTF-8", "byte 7", "0xf5", "iconv"], "a text that is not UTF-8")
    check(data is not None and data["settings"]["file"].endswith("odd\N{REPLACEMENT CHARACTER}"),
          "bytes that are no UTF-8 in a name", data)
    result = run(varve_run("-p", PROMPT, "-n", 2), {"VARVE_DISABLE": 1})
    check(result.code == 0 and "VARVE_DISABLE" in result.err.splitlines()[-1],
          "VARVE_DISABLE=1: the last line says that varve did nothing", result)
    result = run(varve_run("-p", PROMPT, "-n", 2, "--ctk", "f16", "--ctv", "f16"))
    check(result.code == 0 and result.err.count("--tiers has nothing to do") == 1,
          "an f16 cache: one line says that tiers do nothing", result)
    result = run([common.LAUNCHER, "run", "-p", PROMPT, "-n", 2, "-t", 2],
                 {"VARVE_MODEL": common.MODEL})
    check(result.code == 0, "VARVE_MODEL names the default model", result)


# ---- progress and signals -------------------------------------------------------------------

def progress():
    result = run(varve_run("-p", common.excerpt(7000), "-n", 1))
    lines = [line for line in result.varve_lines() if "tokens/s" in line]
    check(result.code == 0 and 2 <= len(lines) <= 10 and "100 %" in lines[-1] and "left" in lines[0],
          f"no terminal: a line for each tenth: {len(lines)}", result)


def comparison_progress():
    """The second reading of the text shows how far it is, as the prompt does."""
    words = varve_run("-p", "Once upon a time", "-n", 100, "--compare")
    result = run(words)
    lines = [line for line in result.varve_lines() if line.startswith("varve: comparison")]
    done = [line for line in lines if re.search(r" 100 %, (\d+) of \1 tokens", line)]
    check(result.code == 0 and len(done) == result.err.count("varve: prompt 100 %") == 3 and
          len(lines) <= 33 and all("left" in line for line in lines if line not in done),
          f"no terminal: 100 % for each of 3 runs, {len(lines)} lines", result)
    pressed = []

    def press(shown, terminal):
        if b"\rcomparison" in shown and not pressed:
            pressed.append(time.monotonic())
            os.write(terminal, b"\x03")
    code, shown = on_terminal(words, press)
    check(code == 130 and pressed and SUMMARY in shown and "stopped (interrupted)" in shown and
          "2 of 3" not in shown, "a terminal: redrawn, Ctrl-C stops it", f"{code} {shown[-1500:]}")


def on_terminal(words, act):
    """A run with a terminal; act(what has been shown, descriptor) is called as it goes."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(str(words[0]), [str(w) for w in words], common.environment())
    shown, end = b"", time.monotonic() + 60
    while time.monotonic() < end:
        if not select.select([terminal], [], [], 0.1)[0]:
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the last process has closed it
            break
        shown += data
        act(shown, terminal)
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode("utf-8", "replace")


def terminal_and_its_ctrl_c():
    """The terminal sends the signal to all processes: it must count once."""
    pressed = []

    def press(shown, terminal):
        if b"\rprompt" in shown and not pressed:
            pressed.append(time.monotonic())
            os.write(terminal, b"\x03")
    code, shown = on_terminal(varve_run("-f", common.text_file(), "-n", 4), press)
    check(code == 130 and pressed and SUMMARY in shown and "stopped (interrupted)" in shown,
          "a terminal: progress is redrawn, Ctrl-C stops and sums up", f"{code} {shown[-1500:]}")


def interrupted(words, ready, count=1):
    """The Result after SIGINT to the one process that was started."""
    command = [str(w) for w in varve_run(*words)]
    began = time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=common.environment()) as process:
        ready(process)
        began = time.monotonic()
        for _ in range(count):
            process.send_signal(signal.SIGINT)
            time.sleep(0.01)
        out, err = process.communicate(timeout=60)
    return common.Result(command, process.returncode, out.decode("utf-8", "replace"),
                         err.decode("utf-8", "replace"), time.monotonic() - began)


def interrupts():
    long = ("-f", common.text_file(), "-n", 8)
    result = interrupted(long, lambda process: time.sleep(1.5))
    check(result.code == 130 and SUMMARY in result.err and "stopped (interrupted)" in result.err,
          f"SIGINT while the prompt is read: {result.seconds:.2f} s to the summary", result)
    result = interrupted(("-p", "Once upon a time", "-n", 4000),
                         lambda process: process.stdout.read(1))
    check(result.code == 130 and SUMMARY in result.err and len(result.out) > 0,
          f"SIGINT while text is generated: {result.seconds:.2f} s", result)
    result = interrupted(long, lambda process: time.sleep(1.5), 2)
    check(result.code in (130, -signal.SIGINT), f"a second one: {result.seconds:.2f} s", result)
    result = interrupted((*long, "--compare"), lambda process: time.sleep(1.5))
    check(result.code == 130 and "1 of 3" in result.err and "2 of 3" not in result.err and
          SUMMARY in result.err, "--compare: no further run is started", result)
    check(not left_over(), "no process is left", left_over())


def left_over():
    """Processes of the program that is tested."""
    found = []
    for link in pathlib.Path("/proc").glob("[0-9]*/exe"):
        try:
            target = os.readlink(link)
        except OSError:
            continue
        if target == str(PROGRAM.resolve()):
            found.append(str(link))
    return found


def time_limit():
    with common.folder() as folder:
        result, data = figures(folder, "-f", common.text_file(), "-n", 8, "--limit", 2)
    check(result.code == 0 and "stopped (time limit)" in result.err and data and
          data["runs"][0]["stopped"] == "time limit" and
          data["runs"][0]["prompt"]["read"] < data["runs"][0]["prompt"]["tokens"],
          f"--limit 2: stopped after {result.seconds:.1f} s, with figures", result)


# ---- errors ---------------------------------------------------------------------------------

def one_line(result, code, words, what):
    lines = result.err.strip().splitlines()
    check(result.code == code and len(lines) == 1 and lines[0].startswith("varve: ") and
          all(w in lines[0] for w in words), f"{what}: {lines[:1]}", result)


def wrong_model():
    def with_model(path):
        return run([common.LAUNCHER, "run", "-m", path, "-p", "x", "-t", 2])
    with common.folder() as folder:
        folder = pathlib.Path(folder)
        with open(common.MODEL, "rb") as model:
            head = model.read(60 << 20)
        one_line(with_model(folder / "none.gguf"), 1, ["none.gguf", "-m"], "a missing model")
        one_line(with_model(folder), 1, ["not a file", "-m"], "a folder as model")
        for size in (1 << 20, len(head)):
            (folder / "cut.gguf").write_bytes(head[:size])
            one_line(with_model(folder / "cut.gguf"), 1, ["cut.gguf", "whole"],
                     f"a model cut off after {size >> 20} MiB")
        (folder / "text.gguf").write_text("This is no model.\n", encoding="utf-8")
        one_line(with_model(folder / "text.gguf"), 1, ["not a GGUF file"], "a text as model")


def wrong_options():
    for words, code, said in (
            ((), 64, ["-p", "-f"]),
            (("-p", "x", "-f", "y"), 64, ["-p", "-f"]),
            (("-p", "x", "word"), 64, ["word"]),
            (("-p", "x", "--ctk", "q9_0"), 64, ["--ctk", "q8_0"]),
            (("-p", "x", "--tiers", "f16:0"), 64, ["--tiers", "f16:W"]),
            (("-p", "x", "--tiers", "q8_0:9"), 64, ["--tiers", "f16:W"]),
            (("-p", "x", "--tiers", "NONE"), 64, ["--tiers", "none"]),
            (("-p", "x", "--tiers", f"f16:{common.ROWS_MAX + 1}"), 64, [f"to {common.ROWS_MAX}"]),
            (("-p", "x", "--sinks", f"{common.ROWS_MAX + 1}"), 64, [f"to {common.ROWS_MAX}"]),
            (("-p", "x", "--sinks", "-1"), 64, ["--sinks"]),
            (("-p", "x", "--hot-max", "64X"), 64, ["--hot-max", "64M"]),
            (("-p", "x", "-n", "0"), 64, ["-n"]),
            (("-p", "x", "--temp", "hot"), 64, ["--temp"]),
            (("-f", "/no/such/file"), 1, ["/no/such/file", "No such file"]),
            (("-p", ""), 1, ["empty"]),
            (("-p", common.excerpt(3000), "-c", "256"), 1, ["-c", "256", "-n"]),
            (("-p", "x", "--json", "/no/such/folder/x"), 1, ["--json", "No such file"])):
        shown = " ".join(w[:20] for w in words)
        one_line(run(varve_run(*words)), code, said, f"`varve run {shown}`")


def no_room():
    """Full disks, readers that went away, and too little memory."""
    result = run(varve_run("-p", PROMPT, "-n", 4, "--json", "/dev/full"))
    last = result.err.strip().splitlines()[-1]
    check(result.code == 1 and "Paris" in result.out and SUMMARY in result.err and
          "/dev/full" in last and "No space" in last, f"--json on a full disk: {last}", result)
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(w) for w in varve_run("-p", PROMPT, "-n", 4)], stdout=full,
                              stderr=subprocess.PIPE, env=common.environment(), check=False)
    check(done.returncode == 1 and b"stdout" in done.stderr, "stdout on a full disk", done.stderr)
    size = 3 << 30
    limited = subprocess.run([str(w) for w in varve_run("-p", PROMPT, "-c", 2000000)],
                             capture_output=True, env=common.environment(), check=False,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS,
                                                                   (size, size)))
    lines = limited.stderr.decode().strip().splitlines()
    check(limited.returncode == 1 and "-c" in lines[-1] and "memory" in lines[-1],
          f"too little memory for the context: {lines[-1:]}", lines)


def not_built():
    with common.folder() as folder:
        copy = pathlib.Path(folder) / "varve"
        copy.write_bytes(common.LAUNCHER.read_bytes())
        copy.chmod(0o755)
        one_line(run([copy, "run", "-p", "x"]), 125, ["varve-run", "make build"],
                 "without varve-run beside it")


def other_kinds():
    """Other builds of the same llama.cpp: without OpenMP, and with back ends loaded at run time."""
    for kind in ("noomp", "dl"):
        libraries = common.KINDS[kind].parent / "lib"
        if not libraries.exists():
            common.skip(f"kind {kind}", "it was not built")
            continue
        with common.folder() as folder:
            result, data = figures(folder, "-p", PROMPT, "-n", 4, "--compare",
                                   env={"LD_LIBRARY_PATH": libraries})
        nodes = [one["attention_nodes"] for one in data["runs"]] if data else []
        check(result.code == 0 and "Paris" in result.out and len(nodes) == 3 and
              nodes[0] == nodes[2] == 0 and nodes[1] > 0, f"{kind}: nodes of 3 runs: {nodes}", result)
        if kind != "dl":
            continue
        with common.folder() as folder:
            for library in libraries.iterdir():
                (pathlib.Path(folder) / library.name).symlink_to(library)
            result = run(varve_run("-p", PROMPT), {"LD_LIBRARY_PATH": folder}, cwd=folder)
            one_line(result, 1, ["libggml-cpu", folder], "no back end for the CPU")


# ---- comparison -----------------------------------------------------------------------------

def comparison():
    with common.folder() as folder:
        result, data = figures(folder, "-p", common.excerpt(1500), "-n", 12, "--compare", "-t", 2,
                               env={"TMPDIR": folder})
        left = os.listdir(folder)
    if not check(result.code == 0 and data is not None and len(data["runs"]) == 3,
                 "--compare: three runs", result):
        return
    first, ours, stock = data["runs"]
    names = [f"{one['name']} {one['type_k']}" for one in data["runs"]]
    check(names == ["stock f16", "varve q4_0", "stock q4_0"], f"in order: {names}")
    check(first["attention_nodes"] == stock["attention_nodes"] == 0 and ours["attention_nodes"] > 0,
          "stock is stock, varve is varve")
    check(first["divergence"]["mean"] == 0 and first["divergence"]["max"] == 0 and
          first["divergence"]["same_top"] == 1, "f16 does not differ from itself", first)
    for one in (ours, stock):
        found = one["divergence"]
        check(found["positions"] == first["generated"]["tokens"] and
              0 < found["mean"] <= found["max"] < 5 and math.isfinite(found["max"]) and
              0 <= found["same_top"] <= 1, f"{one['name']}: {found}", one)
    check(all(one["kv"]["bytes_f16"] == first["kv"]["bytes_cold"] for one in data["runs"]) and
          ours["kv"]["bytes_cold"] == stock["kv"]["bytes_cold"], "the same cells in all runs")
    check(result.out.count("\n") >= 3 and "3 of 3" in result.err and "KL divergence" in result.err,
          "texts on stdout, headings and one table on stderr", result)
    check(left == ["figures.json"], "the temporary file is gone", left)


def exact_comparison():
    """With an f16 cache only rounding differs: weights in 4 bits make 5e-3 of it."""
    with common.folder() as folder:
        _, data = figures(folder, "-p", common.excerpt(1500), "-n", 12, "--compare", "--ctk", "f16",
                          "--ctv", "f16")
    runs = data["runs"]
    check(len(runs) == 2 and runs[1]["divergence"]["mean"] < 0.03,
          f"varve with f16: {runs[1]['divergence']}", data)


common.need(common.LAUNCHER, common.PLUGIN, common.MODEL, PROGRAM)
common.main(normal, rows_add_up, limited, chat, same_again, input_places, progress,
            comparison_progress, terminal_and_its_ctrl_c, interrupts, time_limit, wrong_model,
            wrong_options, no_room, not_built, other_kinds, comparison, exact_comparison)
