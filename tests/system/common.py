"""What the system tests share: where programs are, running them, reading what they say.

CMake sets VARVE_BUILD, VARVE_SOURCE, VARVE_LLAMA and VARVE_MODEL; by hand the defaults fit a tree
that `make build` has prepared. Each test is a script of its own: it ends with finish(), which
gives 0, 1 or 77 (nothing could be run).
"""
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("VARVE_BUILD") or ROOT / "build")
LLAMA = pathlib.Path(os.environ.get("VARVE_LLAMA") or BUILD / "llama")
MODEL = pathlib.Path(os.environ.get("VARVE_MODEL") or LLAMA / "model.gguf")
PLUGIN = BUILD / "lib" / "libggml-varve.so"
PRELOAD = BUILD / "lib" / "libvarve-preload.so"
LAUNCHER = BUILD / "bin" / "varve"

N_LAYER = 30  # of the default model: attention nodes in one graph
FORMATS = ("f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q5_0", "q5_1", "iq4_nl")
ROWS_MAX = 1 << 30  # VARVE_HOT_ROWS_MAX: of a window, and sinks
TOOK_HOLD = "varve: attention runs on varve"

_counts = {"passed": 0, "failed": 0, "skipped": 0}


# ---- results --------------------------------------------------------------------------------

def check(ok, what, detail=""):
    """Counts one assertion; a failed one says what was seen."""
    _counts["passed" if ok else "failed"] += 1
    print(f"{'ok  ' if ok else 'FAIL'} {what}", flush=True)
    if not ok and detail:
        print("     " + str(detail).strip().replace("\n", "\n     "), flush=True)
    return ok


def skip(what, why):
    _counts["skipped"] += 1
    print(f"skip {what}: {why}", flush=True)


def note(text):
    print(f"     {text}", flush=True)


def finish():
    tail = f", {_counts['skipped']} skipped" if _counts["skipped"] else ""
    print(f"{_counts['passed']} passed, {_counts['failed']} failed{tail}")
    if _counts["failed"]:
        sys.exit(1)
    sys.exit(0 if _counts["passed"] else 77)


def main(*parts):
    """Runs the parts of a test; one that breaks fails and does not hide the others. Words on the
    command line pick the parts whose names contain one of them."""
    chosen = [p for p in parts if len(sys.argv) < 2 or any(w in p.__name__ for w in sys.argv[1:])]
    for part in chosen:
        began = time.monotonic()
        print(f"---- {part.__name__}", flush=True)
        try:
            part()
        except Exception:  # an assertion of the machinery, shown in full
            check(False, f"{part.__name__} ran to its end", traceback.format_exc())
        note(f"{part.__name__} took {time.monotonic() - began:.1f} s")
    finish()


def need(*paths):
    """Ends the whole test as skipped when something that it needs was not built."""
    for path in paths:
        if not pathlib.Path(path).exists():
            print(f"skip: {path} is not there")
            print("0 passed, 0 failed, 1 skipped")
            sys.exit(77)


# ---- programs -------------------------------------------------------------------------------

KINDS = {"linked": LLAMA / "bin", "dl": LLAMA / "dl" / "bin", "noomp": LLAMA / "noomp" / "bin"}


def program(name, kind="linked"):
    return KINDS[kind] / name


class Result:
    """What a program gave: code, out, err (text), seconds."""

    def __init__(self, command, code, out, err, seconds):
        self.command, self.code, self.seconds = [str(c) for c in command], code, seconds
        self.out, self.err = out, err

    def __str__(self):
        return (f"$ {' '.join(self.command)}\nexit code {self.code}\n"
                f"stdout: {self.out[-1500:]}\nstderr: {self.err[-2500:]}")

    def varve_lines(self):
        return [line for line in self.err.splitlines() if line.startswith("varve")]


def environment(extra=None):
    """Ours without anything that would steer varve, llama.cpp or ggml from outside."""
    drop = ("VARVE_", "LLAMA_ARG_", "GGML_", "OMP_", "LD_PRELOAD", "GLIBC_TUNABLES")
    env = {k: v for k, v in os.environ.items() if not k.startswith(drop)}
    env.update({k: str(v) for k, v in (extra or {}).items()})
    return env


def run(command, env=None, timeout=600, cwd=None):
    """Runs a command with nothing on stdin. A program that hangs is ended and counts as 124."""
    began = time.monotonic()
    with subprocess.Popen([str(c) for c in command], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd,
                          env=environment(env)) as process:
        try:
            out, err = process.communicate(timeout=timeout)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            code = 124
    return Result(command, code, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"),
                  time.monotonic() - began)


def launched(command, options=()):
    """The command under `varve exec`."""
    return [LAUNCHER, "exec", *options, "--", *command]


def plugged(extra=None):
    """Environment that loads the plug-in without the launcher."""
    return {"GGML_BACKEND_PATH": PLUGIN, **(extra or {})}


def counters(text):
    """The report of VARVE_TRACE=1, with the reasons for declined nodes."""
    found = {"reasons": re.findall(r"varve: declined (\d+ times: .*)", text)}
    patterns = {
        "attention": r"varve: attention: (\d+) nodes",
        "writes": r"varve: cache writes: (\d+) nodes",
        "yes": r"varve: questions: attention (\d+) yes",
        "no": r"varve: questions: attention \d+ yes, (\d+) no",
        "failed": r"nodes that failed: (\d+)",
    }
    for name, pattern in patterns.items():
        match = re.search(pattern, text)
        found[name] = int(match.group(1)) if match else None
    return found


def account(text):
    """The last account of all contexts in a report of VARVE_TRACE=1, with names as in
    include/varve/ggml.h; empty if there is none."""
    found = {}
    sides = (r"varve: all contexts: rows of (K|V): (\d+) hot, (\d+) sink, (\d+) cold "
             r"\((\d+) missed\); twins: (\d+) written, (\d+) stale, (\d+) evicted")
    names = ("rows_hot", "rows_sink", "rows_cold", "rows_missed", "twins_written", "twins_stale",
             "twins_evicted")
    for match in re.finditer(sides, text):
        for name, value in zip(names, match.groups()[1:]):
            found[f"{match.group(1).lower()}.{name}"] = int(value)
    match = re.search(r"varve: all contexts: bytes: (\d+) cold, (\d+) hot, (\d+) staging, (\d+) hot "
                      r"and staging at most; limit (\d+)", text)
    if match:
        names = ("bytes_cold", "bytes_hot", "bytes_staging", "bytes_hot_peak", "bytes_limit")
        found.update(zip(names, map(int, match.groups())))
    return found


def check_served(result, what, nodes=None):
    """Every attention node was computed by varve: none declined, whole graphs, the exact number
    where it is known."""
    seen = counters(result.err)
    whole = bool(seen["attention"]) and seen["attention"] % N_LAYER == 0
    exact = nodes is None or seen["attention"] == nodes
    wanted = f" of {nodes}" if nodes is not None else ""
    check(result.code == 0 and whole and exact and seen["no"] == 0 and seen["failed"] == 0,
          f"{what}: {seen['attention']}{wanted} attention nodes served, {seen['no']} declined",
          f"{seen}\n{result}")
    return seen


# ---- text and C programs --------------------------------------------------------------------

LICENCES = pathlib.Path("/usr/share/common-licenses")


def text_file():
    """Some 7,000 tokens of English that every Debian has; elsewhere, the licence of llama.cpp and
    the documents of its source."""
    if (LICENCES / "GPL-3").exists():
        return LICENCES / "GPL-3"
    return LLAMA / "src" / "README.md"


def excerpt(characters):
    """The beginning of the text, in one line."""
    return " ".join(text_file().read_text(encoding="utf-8")[:characters].split())


def compile_c(source, folder, *flags):
    """A small C program or library; fails the test with the compiler's words."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, ("cc", "gcc", "clang")))
    target = pathlib.Path(folder) / pathlib.Path(source).stem
    for i, flag in enumerate(flags):
        if flag == "-o":
            target = pathlib.Path(flags[i + 1])
    done = run([compiler, "-std=c11", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-o", target,
                source, *flags], timeout=120)
    if done.code != 0:
        raise RuntimeError(str(done))
    return target


def build_with_llama(name, folder):
    """A C program of tests/system against the linked kind of llama.cpp."""
    source, lib = LLAMA / "src", LLAMA / "lib"
    return compile_c(pathlib.Path(__file__).with_name(name), folder,
                     f"-I{source}/include", f"-I{source}/ggml/include", f"-I{ROOT}/include",
                     f"-L{lib}", f"-Wl,-rpath,{lib}", "-lllama", "-lggml", "-lggml-base", "-lm")


def build_probe(folder):
    return build_with_llama("probe.c", folder)


def answers(result):
    """Lines "name value..." of a probe's output."""
    return dict(line.split(" ", 1) for line in result.out.splitlines() if " " in line)


def numbers(result):
    """The same as numbers, where they are; hashes and such stay text."""
    found = {}
    for name, value in answers(result).items():
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = value
    return found


def probe(binary, env=None, timeout=900, model=MODEL, **options):
    """Runs the probe; its answers are lines "name value...". Options as in probe.c."""
    words = [f"{k}={v}" for k, v in options.items()]
    result = run([binary, model, text_file(), *words], env=env, timeout=timeout)
    if result.code != 0:
        raise RuntimeError(str(result))
    result.answers = answers(result)
    return result


def cache():
    """The folder of what was downloaded and built: where llama.cpp is, unless VARVE_CACHE says it."""
    found = os.environ.get("VARVE_CACHE") or LLAMA.resolve().parent
    return {"VARVE_CACHE": found} if (pathlib.Path(found) / ".lock").exists() else {}


def random_model(path, *words):
    """A model with random weights; words: options of tools/random_model.py."""
    done = run([sys.executable, ROOT / "tools" / "random_model.py", path, *words], cache())
    if done.code != 0:
        raise RuntimeError(str(done))
    return pathlib.Path(path)


def tiny_model(path, n_layer, seed=1):
    """The smallest llama model whose rows llama.cpp rotates when it quantizes them, for runs of many
    tokens: one KV head of 64 values, 256 tokens that are numbers only, F32 weights (widen.c)."""
    return random_model(path, "--layers", n_layer, "--heads", 2, "--kv-heads", 1, "--ff", 128,
                        "--ctx", 1 << 20, "--rope-base", 10000, "--no-tokenizer", "--seed", seed)


def folder():
    """A folder that is removed at the end. Beside the build, as some files are large."""
    return tempfile.TemporaryDirectory(prefix="varve-test-", dir=BUILD)


# ---- the HTTP server ------------------------------------------------------------------------

def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def http(port, path, body=None, timeout=120):
    """GET, or POST of JSON, on the loopback address; the answer is JSON."""
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=data,
                                     headers={"Content-Type": "application/json"})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout) as answer:
        return json.loads(answer.read())


class Server:
    """llama-server on a free port for the length of a `with`; stop() ends it by SIGTERM."""

    def __init__(self, binary, options=(), exec_options=None, env=None):
        self.port = free_port()
        command = [binary, "-m", MODEL, "--host", "127.0.0.1", "--port", self.port, "--no-webui",
                   "--offline", *options]
        if exec_options is not None:
            command = launched(command, exec_options)
        self.command, self.env = [str(c) for c in command], environment(env)

    def __enter__(self):
        self.out, self.err = tempfile.TemporaryFile(), tempfile.TemporaryFile()
        self.process = subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=self.out,
                                        stderr=self.err, env=self.env)
        return self

    def __exit__(self, *unused):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.out.close()
        self.err.close()

    def healthy(self, seconds=120):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                return http(self.port, "/health", timeout=5)
            except OSError:  # not listening yet, or still loading the model (503)
                time.sleep(0.2)
        return None

    def stop(self, seconds=60):
        """The Result of the whole run."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = 124
        texts = []
        for stream in (self.out, self.err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
        return Result(self.command, code, *texts, time.monotonic() - began)
