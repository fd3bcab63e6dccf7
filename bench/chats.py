#!/usr/bin/env python3
"""Four chats at once on llama-server: seconds, tokens/s and memory, with varve or on stock.

usage: bench/chats.py [--stock] [--type TYPE] [--build DIR] [-- OPTIONS OF LLAMA-SERVER...]

All have the same long instructions (1,800 tokens of a licence) and a question of their own, then a second turn.
"""
import argparse
import json
import pathlib
import re
import subprocess
import threading
import time
import urllib.request

TEXT = pathlib.Path("/usr/share/common-licenses/GPL-3")
CHARACTERS = 9000                       # of the instructions
QUESTIONS = ("Who published this licence?", "What does it say about patents?",
             "What is source code here?", "May I sell copies?")
AGAIN = "Say that again in other words."
N_PREDICT, PORT = 96, 18231


class Server:
    """llama-server for the length of a `with`."""

    def __init__(self, o):
        binary = o.build / "llama" / "bin" / "llama-server"
        command = [binary, "-m", o.model or o.build / "llama" / "model.gguf", "--port", PORT, "-c", 32768,
                   "-np", 4, "-fa", "on", "--no-webui", "--cache-ram", 0, *o.options]
        types = ("-ctk", o.type, "-ctv", o.type) if o.stock else ()
        varve = () if o.stock else (o.build / "bin" / "varve", "exec", "--ctk", o.type, "--ctv", o.type,
                                    "--")
        self.command = [str(word) for word in (*varve, *command, *types)]
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        while True:
            try:
                self.ask("/health")
                return self
            except OSError:             # not listening yet, or still loading the model
                if self.process.poll() is not None:
                    raise SystemExit(f"llama-server ended: {' '.join(self.command)}") from None
                time.sleep(0.2)

    def __exit__(self, *unused):
        self.process.terminate()
        self.process.wait()

    def ask(self, path, body=None):
        request = urllib.request.Request(f"http://127.0.0.1:{PORT}{path}",
                                         data=json.dumps(body).encode() if body else None,
                                         headers={"Content-Type": "application/json"})
        with self.opener.open(request, timeout=600) as answer:
            return json.loads(answer.read())

    def pss(self):
        """Memory of the process, its share of what it has in common with others, in MiB."""
        text = pathlib.Path(f"/proc/{self.process.pid}/smaps_rollup").read_text(encoding="ascii")
        return int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]) / 1024


def turn(server, chats):
    """One answer for each chat, all at once: a line of figures."""
    answers = [None] * len(chats)

    def one(i):
        answers[i] = server.ask("/v1/chat/completions", {
            "messages": chats[i], "max_tokens": N_PREDICT, "temperature": 0, "ignore_eos": True})

    began = time.monotonic()
    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(chats))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - began
    for chat, answer in zip(chats, answers):
        chat += [{"role": "assistant", "content": answer["choices"][0]["message"]["content"]},
                 {"role": "user", "content": AGAIN}]
    total = {name: sum(answer["timings"].get(name, 0) for answer in answers)
             for name in ("prompt_n", "cache_n", "predicted_n", "predicted_per_second")}
    return (f"{seconds:5.1f} s, prompt {total['prompt_n']} tokens and {total['cache_n']} from the cache, "
            f"text {total['predicted_n']} tokens, {total['predicted_per_second']:.1f} tokens/s in all")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"), metavar="DIR")
    parser.add_argument("--model", help="default: the one that was set up by make")
    parser.add_argument("--stock", action="store_true", help="without varve")
    parser.add_argument("--type", default="q8_0", help="of the cache (default: %(default)s)")
    parser.add_argument("options", nargs="*", help="further options of llama-server, behind --")
    o = parser.parse_args()
    text = " ".join(TEXT.read_text(encoding="utf-8").split())[:CHARACTERS]
    chats = [[{"role": "system", "content": text}, {"role": "user", "content": question}]
             for question in QUESTIONS]
    with Server(o) as server:
        print(f"{'stock' if o.stock else 'varve'}, cache {o.type}")
        for which in ("first", "second"):
            print(f"  {which} turn: {turn(server, chats)}", flush=True)
        print(f"  memory of the server: {server.pss():.0f} MiB")


if __name__ == "__main__":
    main()
