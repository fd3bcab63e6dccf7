#!/usr/bin/env python3
"""Lengths of functions and files, and the share of comments, as a table."""
import re

import linting

FUNCTION_MAX, KERNEL_FUNCTION_MAX = 60, 120
FILE_MAX, HEADER_MAX = 600, 700
DIRECTIVE = re.compile(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", re.M)
NAME = re.compile(r"\b([A-Za-z_]\w*)\s*\(")
NO_FUNCTION = {"if", "for", "while", "switch", "sizeof", "return", "__attribute__", "defined"}


def functions(text):
    """(name, first line, number of lines) of each function of a C file, by counting braces."""
    text = DIRECTIVE.sub(lambda match: linting.blank(match[0]), linting.code(text))
    text = re.sub(r'extern\s*"\s*"\s*\{', lambda match: linting.blank(match[0]), text)
    depth, begin, head, found = 0, 0, None, []
    for match in re.finditer(r"[{};]", text):
        at = match.start()
        if match[0] == "{":
            before = text[begin:at]
            if depth == 0:
                head = (begin + len(before) - len(before.lstrip()), before)
            depth += 1
        elif match[0] == "}":
            depth = max(0, depth - 1)
            if depth == 0 and head is not None and head[1].rstrip().endswith(")"):
                names = [n for n in NAME.findall(head[1]) if n not in NO_FUNCTION]
                first = linting.line_of(text, head[0])
                found.append((names[0] if names else "?", first,
                              linting.line_of(text, at) - first + 1))
        if depth == 0:
            begin = at + 1
    return found


def comment_lines(text):
    """(lines with a comment, lines with code)."""
    bare = linting.code(text).split("\n")
    whole = linting.code(text, keep_strings=True).split("\n")
    n_comment = sum(1 for a, b in zip(text.split("\n"), whole) if a.rstrip() != b.rstrip())
    return n_comment, sum(1 for line in bare if line.strip())


def quantiles(values):
    values = sorted(values) or [0]
    return tuple(values[min(len(values) - 1, int(q * len(values)))] for q in (0.5, 0.9, 1.0))


def measure(report, title, paths, function_max):
    file_lengths, function_lengths, n_comment, n_code = [], [], 0, 0
    for path in paths:
        text = path.read_text(encoding="utf-8")
        n_line = text.count("\n")
        limit = HEADER_MAX if linting.name(path) == "include/varve/varve.h" else FILE_MAX
        file_lengths.append(n_line)
        if n_line > limit:
            report.add(path, n_line, f"{n_line} lines, at most {limit}")
        for function, first, length in functions(text):
            function_lengths.append(length)
            if length > function_max:
                report.add(path, first, f"{function} has {length} lines, at most {function_max}")
        comment, bare = comment_lines(text)
        n_comment, n_code = n_comment + comment, n_code + bare
    if paths:
        print(f"{title:14}{len(paths):6}{sum(file_lengths):8}   "
              f"{'%4d %4d %4d' % quantiles(file_lengths)} {len(function_lengths):7}   "
              f"{'%4d %4d %4d' % quantiles(function_lengths)}   {n_comment / max(1, n_code):8.2f}")


def main():
    report = linting.Report("lengths")
    print(f"{'':14}{'files':>6}{'lines':>8}   {'median p90 max':>14} functions "
          f"{'median p90 max':>14}  comments")
    for folder in ("include", "src", "src/kernel", "ggml", "op", "cli", "run", "eval", "tests",
                   "examples", "bench"):
        paths = linting.files("*.c", "*.h", "*.inc", folder=folder)
        if folder == "src":
            paths = [path for path in paths if path.parent.name != "kernel"]
        measure(report, folder, paths,
                KERNEL_FUNCTION_MAX if folder == "src/kernel" else FUNCTION_MAX)
    report.finish("done")


main()
