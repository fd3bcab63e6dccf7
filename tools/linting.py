"""What the lints (tools/lint_*.py) share: files of the tree, code without comments, a report."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SKIP = re.compile(r"^(build.*|\.git|__pycache__|.*\.egg-info)$")
TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)


def files(*patterns, folder="."):
    """Files of the tree, below a folder, whose names match one of the patterns (all if none)."""
    found = []
    for path in sorted((ROOT / folder).rglob("*")):
        parts = path.relative_to(ROOT).parts
        if path.is_file() and not any(SKIP.match(part) for part in parts):
            if not patterns or any(path.match(pattern) for pattern in patterns):
                found.append(path)
    return found


def name(path):
    return str(path.relative_to(ROOT))


def blank(text):
    """The text with everything but line ends replaced, so that line numbers stay."""
    return re.sub(r"[^\n]", " ", text)


def code(text, keep_strings=False):
    """C without comments and, unless wanted, without what stands inside of strings."""
    def cut(match):
        token = match[0]
        if token.startswith("/"):
            return blank(token)
        return token if keep_strings else token[0] + blank(token[1:-1]) + token[-1]
    return TOKEN.sub(cut, text)


def line_of(text, at):
    return text.count("\n", 0, at) + 1


class Report:
    """Collects file:line messages; finish() prints them and ends the program."""

    def __init__(self, title):
        self.title = title
        self.n_message = 0

    def add(self, path, line, message):
        print(f"{name(path)}:{line}: {message}")
        self.n_message += 1

    def finish(self, summary):
        print(f"{self.title}: {summary}: {self.n_message or 'no'} problem(s)")
        sys.exit(1 if self.n_message else 0)
