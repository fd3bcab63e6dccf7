#!/usr/bin/env python3
"""A question about a long text: stock llama.cpp with an f16 cache, varve with a q4_0 cache, and
stock with a q4_0 cache, side by side (varve run --compare)."""
import argparse
import os
import pathlib
import sys

TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")
QUESTION = "Question: What is the name of this license, and who published it?"
CHARACTERS = 28500                      # of English, some 6,200 tokens
# of llama.cpp, where the system has no licence texts
OTHER_TEXTS = ("CONTRIBUTING.md", "README.md", "docs/build.md", "SECURITY.md")
OTHER_QUESTION = "Question: What is the first document above about?"
SECONDS = (40, 35, 210)                 # on two cores
LIMIT = 330                             # seconds for everything


def document(llama):
    """Text with the question, and where it comes from."""
    if TEXT.exists():
        text, question, name = TEXT.read_text(encoding="utf-8"), QUESTION, str(TEXT)
    else:
        paths = [llama / "src" / name for name in OTHER_TEXTS]
        text = "\n\n".join(path.read_text(encoding="utf-8") for path in paths if path.exists())
        question, name = OTHER_QUESTION, "documents of llama.cpp"
    text = text[:CHARACTERS].rpartition("\n\n")[0] or text[:CHARACTERS]
    return f"{text}\n\n{question}", f"the beginning of {name}", question


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="build folder (build)")
    parser.add_argument("--model", help="another GGUF model with a chat template")
    parser.add_argument("--threads", type=int, help="threads (default: all CPUs)")
    options = parser.parse_args()
    build = pathlib.Path(options.build).absolute()
    text, name, question = document(build / "llama")
    folder = build / "demo"
    folder.mkdir(exist_ok=True)
    (folder / "prompt.txt").write_text(text, encoding="utf-8")
    print(f"Text: {name} ({len(text) / 1024:.0f} KB)\n{question}\n"
          f"Three runs, about {SECONDS[0]}, {SECONDS[1]} and {SECONDS[2]} s on two cores; what has "
          f"not ended after {LIMIT} s is stopped.\n"
          "The model has 135 million parameters: watch its speed, not its wisdom.\n", flush=True)
    command = [build / "bin" / "varve", "run", "--compare", "--chat", "-n", "64",
               "-f", folder / "prompt.txt", "-m", options.model or build / "llama" / "model.gguf",
               "--limit", LIMIT, "--json", folder / "figures.json"]
    command += ["-t", options.threads] if options.threads else []
    try:
        os.execv(command[0], [str(word) for word in command])
    except OSError as error:
        sys.exit(f"demo: {command[0]}: {error.strerror}; run: make demo")


if __name__ == "__main__":
    main()
