#!/usr/bin/env python3
"""The direction of includes, and public headers that compile alone (docs/DESIGN.md 3)."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile

import linting

# folder -> folders of src that it may include besides itself; "varve/" is open to all
MAY = {
    "api": {"attend", "cache", "kernel", "format", "base"},
    "cache": {"kernel", "format", "base"},
    "attend": {"kernel", "format", "base"},
    "kernel": {"format", "base"},
    "format": {"base"},
    "base": set(),
}
# which parts of the library know which public header
PUBLIC = {"varve/varve.h": set(MAY), "varve/hot.h": {"cache"},
          "varve/cache.h": {"cache"}}  # none knows varve/op.h
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*([<"])([^">]+)[">]', re.M)
GGML = re.compile(r"^(ggml|gguf|llama)([-_.].*)?\.h$")
# run/, plan/ and eval/ are programs on llama.cpp's public interface, bench/ one on ggml's; they share options and
# messages with cli/, and bench/ the file of figures with run/
GGML_PLACES = ("ggml/", "op/", "run/", "plan/", "eval/", "bench/", "include/varve/op.h", "examples/op_",
               "tests/ggml/", "tests/op/", "tests/system/")
SHARED = {"run": ("cli",), "plan": ("cli", "run"), "eval": ("cli", "run"), "bench": ("cli", "run")}
ORACLE = ("bench", "check/oracle.h")  # results are compared with the checker's attention


def includes(path):
    text = linting.code(path.read_text(encoding="utf-8"), keep_strings=True)
    for match in INCLUDE.finditer(text):
        yield linting.line_of(text, match.start()), match[1] == '"', match[2]


def layer(path):
    parts = linting.name(path).split("/")
    return parts[1] if len(parts) > 2 else "api"


def check_library(report, path, line, quoted, header):
    """One include of a file in src."""
    folder = header.split("/")[0]
    own = layer(path)
    if folder in MAY and folder != own and folder not in MAY[own]:
        report.add(path, line, f"{own} must not include {header}")
    elif quoted and folder not in MAY and folder != "varve":
        report.add(path, line, f"{header}: write the folder too, as in \"base/host.h\"")
    elif folder == "varve" and own not in PUBLIC.get(header, set()):
        report.add(path, line, f"{own} must not know {header}")


def check_user(report, path, line, quoted, header):
    """One include of the plug-in, a program or an example: the public headers and own files."""
    folders = (path.parent.name, *SHARED.get(path.parent.name, ()))
    beside = any((path.parent.parent / folder / header).exists() for folder in folders)
    if (path.parent.name, header) == ORACLE:
        return
    if quoted and "/" in header and not header.startswith("varve/"):
        report.add(path, line, f"only public headers may be included, not {header}")
    elif quoted and not (beside or header.startswith("varve/") or GGML.match(header)):
        report.add(path, line, f"{header} is no file of this folder")


def ggml_headers():
    """The folder of ggml.h that make has set up, or None."""
    for llama in (os.environ.get("VARVE_LLAMA"), linting.ROOT / "build" / "llama"):
        folder = llama and pathlib.Path(llama) / "src" / "ggml" / "include"
        if folder and (folder / "ggml.h").exists():
            return str(folder)
    return None


def check_alone(report, header):
    """A public header compiles by itself, as C11 and as C++17."""
    flags = []
    if header.name == "op.h":  # the one that needs ggml's own header
        ggml = ggml_headers()
        if ggml is None:
            print(f"layers: no ggml.h known, {linting.name(header)} not tried")
            return
        flags = ["-isystem", ggml]
    languages = ((os.environ.get("CC", "cc"), "c", "c11"),
                 (os.environ.get("CXX", "c++"), "c++", "c++17"))
    for compiler, language, standard in languages:
        if shutil.which(compiler) is None:
            print(f"layers: {compiler} is not there, {linting.name(header)} not tried as {language}")
            continue
        with tempfile.NamedTemporaryFile("w", suffix="." + language) as source:
            source.write(f'#include "varve/{header.name}"\n')
            source.flush()
            done = subprocess.run([compiler, "-x", language, f"-std={standard}", "-Wall", "-Wextra",
                                   "-pedantic", "-Werror", "-fsyntax-only",
                                   "-I", str(linting.ROOT / "include"), *flags, source.name],
                                  capture_output=True, text=True)
        if done.returncode != 0:
            report.add(header, 1, f"does not compile alone as {standard}:\n{done.stderr.strip()}")


def main():
    report = linting.Report("layers")
    sources = linting.files("*.c", "*.h", "*.inc")
    for path in sources:
        place = linting.name(path)
        for line, quoted, header in includes(path):
            if GGML.match(header) and not place.startswith(GGML_PLACES):
                report.add(path, line, f"{header}: only the plug-in, the op, varve run, varve plan, "
                                       "varve eval and varve bench may know ggml")
            if place.startswith("src/"):
                check_library(report, path, line, quoted, header)
            elif place.startswith(("ggml/", "op/", "cli/", "run/", "plan/", "eval/", "examples/",
                                     "bench/")):
                check_user(report, path, line, quoted, header)
    headers = linting.files("*.h", folder="include/varve")
    for header in headers:
        check_alone(report, header)
    report.finish(f"{len(sources)} files, {len(headers)} public headers")


main()
