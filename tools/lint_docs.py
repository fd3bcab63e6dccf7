#!/usr/bin/env python3
"""Every function of the public headers is documented in full, and every section of docs/ that the
code cites exists."""
import re

import linting

TAGS = ("@units", "@owns", "@errors", "@threads", "@see")
# a prototype with VARVE_API or VARVE_OP_API, or a typedef of a function that a host looks up by name
PROTOTYPE = re.compile(r"^(?:VARVE_(?:OP_)?API\b[^;{]*?\b(varve_\w+)\s*\(|typedef\b[^;{]*\(\*(varve_\w+)\)\s*\()",
                       re.M)
OTHER = re.compile(r"^(?!VARVE_API|VARVE_OP_API|typedef|#|\s|\})[a-z][^;{}=]*\b(varve_\w+)\s*\([^;{}]*\)\s*;", re.M)
COMMENT = re.compile(r"/\*\*((?:(?!\*/).)*)\*/\s*\Z", re.S)
CITED = re.compile(r"docs/([A-Z]+)\.md(?: (\d+(?:(?:, | and )\d+)*))?")
HEADING = re.compile(r"^#+ (\d+)\.? ", re.M)


def check_header(report, path):
    raw = path.read_text(encoding="utf-8")
    text = linting.code(raw)
    n_function = 0
    for match in PROTOTYPE.finditer(text):
        n_function += 1
        function = match[1] or match[2]
        line = linting.line_of(text, match.start())
        before = raw[:match.start()]
        comment = COMMENT.match(before, max(0, before.rfind("/**")))
        if comment is None:
            report.add(path, line, f"{function} has no comment /** ... */ right before it")
            continue
        missing = [tag for tag in TAGS if not re.search(tag + r"[ ]+\S", comment[1])]
        if missing:
            report.add(path, line, f"{function}: missing {', '.join(missing)}")
        if not re.match(r"\s*[A-Z]", comment[1]):
            report.add(path, line, f"{function}: the comment does not begin with its purpose")
    for match in OTHER.finditer(text):
        report.add(path, linting.line_of(text, match.start()), f"{match[1]} lacks VARVE_API")
    return n_function


def check_cited(report):
    """docs/X.md N means the heading "## N. ..." of that file."""
    sections = {path.stem: set(HEADING.findall(path.read_text(encoding="utf-8")))
                for path in linting.files("*.md", folder="docs")}
    n_cited = 0
    for path in linting.files("*.c", "*.h", "*.inc", "*.py", "*.md", "*.cmake", "CMakeLists.txt"):
        if path.name == "lint_docs.py":
            continue
        text = path.read_text(encoding="utf-8")
        for match in CITED.finditer(text):
            n_cited += 1
            line = linting.line_of(text, match.start())
            if match[1] not in sections:
                report.add(path, line, f"docs/{match[1]}.md does not exist")
                continue
            for number in re.findall(r"\d+", match[2] or ""):
                if number not in sections[match[1]]:
                    report.add(path, line, f"docs/{match[1]}.md has no section {number}")
    return n_cited


def main():
    report = linting.Report("docs")
    n_function = sum(check_header(report, path)
                     for path in linting.files("*.h", folder="include/varve"))
    n_cited = check_cited(report)
    report.finish(f"{n_function} public functions, {n_cited} citations")


main()
