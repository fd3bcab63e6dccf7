#!/usr/bin/env python3
"""A question about a long text: stock llama.cpp, then the same through varve with a q4_0 cache."""
import argparse
import pathlib
import re
import signal
import subprocess
import sys
import time

TEXT = pathlib.Path("/usr/share/common-licenses/GPL-2")
QUESTION = "Who published this license?"
OTHER_TEXT = "CONTRIBUTING.md"          # of llama.cpp, where the system has no licence texts
OTHER_QUESTION = "What is the document above about, and for whom was it written?"
N_PREDICT = 64
TIME_LIMIT = 240                        # seconds for all runs; the slowest one comes last


class Stopped(Exception):
    """A run that took too long."""


def prompt(llama):
    """Chat prompt with the whole text in it."""
    path, question = TEXT, QUESTION
    if not path.exists():
        path, question = llama / "src" / OTHER_TEXT, OTHER_QUESTION
    text = path.read_text(encoding="utf-8", errors="replace")
    print(f"Text: {path} ({len(text) / 1024:.0f} KB)\nQuestion: {question}\n")
    return (f"<|im_start|>system\nYou answer questions about a document in one sentence.<|im_end|>\n"
            f"<|im_start|>user\n{text}\n\nQuestion: {question}<|im_end|>\n<|im_start|>assistant\n")


def command(llama, model, prompt_file, threads):
    threads = ["-t", str(threads)] if threads else []
    return [str(llama / "bin" / "llama-completion"), "-m", str(model), "-f", str(prompt_file),
            "-c", "8192", "-n", str(N_PREDICT), "--temp", "0", "-no-cnv", "--no-display-prompt",
            "--perf", "-lv", "4", *threads]


def run(name, arguments, log_path, limit):
    """Run to the end, the answer going to the terminal; return what the program reported."""
    start = time.monotonic()
    with open(log_path, "wb") as log:
        process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stderr=log)
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Stopped(f"not finished after {limit:.0f} s") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    text = log_path.read_text(encoding="utf-8", errors="replace")
    if status != 0:
        tail = "\n".join(text.splitlines()[-8:])
        raise SystemExit(f"demo: {name} failed (status {status}); the end of {log_path}:\n{tail}")
    return measure(text, time.monotonic() - start)


def measure(log, seconds):
    def number(pattern):
        match = re.search(pattern, log)
        return float(match[1]) if match else float("nan")
    rate = r".*?([\d.]+) tokens per second"
    return {
        "tokens": number(r"prompt eval time = .*?/\s*(\d+) tokens"),
        "prefill": number(r"prompt eval time =" + rate),
        "decode": number(r"[^t] eval time =" + rate),
        "kv": sum(map(float, re.findall(r"KV buffer size =\s*([\d.]+) MiB", log))),
        "seconds": seconds,
        "said": [line for line in log.splitlines() if line.startswith("varve")],
    }


def report(rows):
    print(f"\n{'':34}{'prefill':>12}{'decode':>12}{'KV cache':>12}{'whole run':>12}")
    print(f"{'':34}{'tokens/s':>12}{'tokens/s':>12}{'MiB':>12}{'s':>12}")
    for label, result in rows:
        if isinstance(result, Stopped):
            print(f"{label:34}  {result}")
        else:
            print(f"{label:34}{result['prefill']:12.1f}{result['decode']:12.1f}"
                  f"{result['kv']:12.1f}{result['seconds']:12.0f}")
    done = [r for _, r in rows if isinstance(r, dict)]
    print(f"\n{done[0]['tokens']:.0f} tokens of prompt, up to {N_PREDICT} of answer, "
          f"context 8192; KV cache as allocated for the whole context.")
    print("The model has 135 million parameters: watch its speed, not its wisdom.")


def runs(build, llama, arguments):
    """What is run: label, expected seconds on two cores, command. The slowest comes last."""
    q4_0 = ["-ctk", "q4_0", "-ctv", "q4_0"]
    launcher = [str(build / "bin" / "varve"), "exec", "--ctk", "q4_0", "--ctv", "q4_0", "--"]
    return [
        ("stock, f16 cache (its default)", 45, arguments),
        ("varve, q4_0 cache", 60, launcher + arguments),
        ("stock, q4_0 cache", 100, arguments + q4_0),
    ]


def demo(options):
    build = pathlib.Path(options.build).absolute()
    llama = build / "llama"
    model = pathlib.Path(options.model) if options.model else llama / "model.gguf"
    for path in (build / "bin" / "varve", llama / "bin" / "llama-completion", model):
        if not path.exists():
            raise SystemExit(f"demo: {path} is missing; run: make demo")
    folder = build / "demo"
    folder.mkdir(exist_ok=True)
    (folder / "prompt.txt").write_text(prompt(llama), encoding="utf-8")
    rows, begin = [], time.monotonic()
    arguments = command(llama, model, folder / "prompt.txt", options.threads)
    for number, (label, usual, line) in enumerate(runs(build, llama, arguments)):
        print(f"--- {label}: about {usual} s on two cores", flush=True)
        left = None if number < 2 else max(60, TIME_LIMIT - (time.monotonic() - begin))
        try:
            result = run(label, line, folder / f"run{number + 1}.log", left)
            print("".join(f"{said}\n" for said in result["said"]), end="", flush=True)
        except Stopped as reason:
            result = reason
            print(f"\n(stopped: {reason})", flush=True)
        rows.append((label, result))
    report(rows)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build", help="build folder (build)")
    parser.add_argument("--model", help="another GGUF model with the ChatML prompt format")
    parser.add_argument("--threads", type=int, help="threads (the program's default)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        demo(options)
    except KeyboardInterrupt:
        print("\ndemo: stopped")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
