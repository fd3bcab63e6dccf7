#!/usr/bin/env python3
"""What no formatter sees: blanks, tabs, line ends, stray characters, long macros, dead code, and
things that belong to one machine."""
import re

import linting

TEXT = ("*.c", "*.h", "*.inc", "*.py", "*.md", "*.cmake", "*.txt", "*.in", "*.json", "*.lock",
        "*.html", "*.css", "*.js", "Makefile", "LICENSE", "run", ".clang-format", ".editorconfig", ".gitignore")
C_LIKE = (".c", ".h", ".inc")
COLUMNS = 100
MACRO_LINES = 3
# spelled so that this file does not contain the words itself
MACHINE = (
    (re.compile(r"(?<![\w.$}])/(?:home|root|work|Users|mnt|media)/\w"), "a path of one machine"),
    (re.compile(r"\b(?:[a-z]+\.)*(?:pypi|pythonhosted|crates|docker|npmjs|huggingface)"
                r"\.(?:org|io|com|co)\b"), "a host for downloads"),
    (re.compile(r"\b(?:TO[D]O|FIX[M]E|X[X]X)\b"), "unfinished work belongs into the issues"),
)
DEAD = re.compile(r"^[ \t]*#[ \t]*if[ \t]+0\b", re.M)
MACRO = re.compile(r"^[ \t]*#[ \t]*define[ \t]+(\w+)(?:\([^)\n]*\))?(.*(?:(?<=\\)\n.*)*)", re.M)
STRUCT = re.compile(r"[\s\\]*struct\b")
X_LIST = re.compile(r"VARVE_(?:KERNEL|ISA|FORMAT_FLOAT|FORMAT_QUANT)$")


def check_lines(report, path, text):
    is_c = path.suffix in C_LIKE
    for number, line in enumerate(text.split("\n"), 1):
        if line != line.rstrip() and not path.suffix == ".md":
            report.add(path, number, "blanks at the end of the line")
        elif line.endswith((" ", "\t", "\r")):
            report.add(path, number, "blanks or a carriage return at the end of the line")
        if "\t" in line and (is_c or path.suffix == ".py"):
            report.add(path, number, "a tab")
        if is_c and len(line) > COLUMNS:
            report.add(path, number, f"{len(line)} columns, at most {COLUMNS}")
        if is_c and not line.isascii():
            report.add(path, number, "a character that is not ASCII")
        for pattern, what in MACHINE:
            if pattern.search(line):
                report.add(path, number, f"{what}: {pattern.search(line)[0]}")


def check_macros(report, path, text):
    """Macros are lists and forwarding, never code: three lines are enough. Struct types and the
    lines of the lists in *.inc may be longer."""
    for match in MACRO.finditer(linting.code(text)):
        n_line = match[2].count("\n") + 1
        if n_line <= MACRO_LINES or STRUCT.match(match[2]) or X_LIST.match(match[1]):
            continue
        report.add(path, linting.line_of(text, match.start()),
                   f"macro {match[1]} has {n_line} lines, at most {MACRO_LINES}")


def main():
    report = linting.Report("style")
    paths = linting.files(*TEXT)
    for path in paths:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            report.add(path, 1, f"not UTF-8: {error}")
            continue
        if text and not text.endswith("\n"):
            report.add(path, text.count("\n") + 1, "no line end at the end of the file")
        if text.endswith("\n\n"):
            report.add(path, text.count("\n"), "empty lines at the end of the file")
        check_lines(report, path, text)
        if path.suffix in C_LIKE:
            check_macros(report, path, text)
            for match in DEAD.finditer(text):
                report.add(path, linting.line_of(text, match.start()), "code switched off by #if 0")
    report.finish(f"{len(paths)} files")


main()
