#!/usr/bin/env python3
"""llama-server with tiers under a mix of requests: long, short, cancelled, with shared prefixes.

Its defaults: 4 slots in one unified cache, prompts that are not in a slot any more kept in RAM and
restored (pitfalls 8, 10, 13, 27). The requests come from a fixed seed; which of the three clients
sends which one when is up to the machine.
"""
import http.client
import json
import pathlib
import queue
import random
import re
import threading

import common
from common import check, program

N_REQUEST, N_CLIENT, SEED = 200, 3, 20240229
CACHE = ("--ctk", "q4_0", "--ctv", "q4_0")
# The cache of prompts is filled by the first few requests; 8 GiB, its default, would grow on.
WORDS = ["-c", 2048, "--cache-ram", 4, "-t", 2]
ENV = {"VARVE_TIERS": "f16:256", "VARVE_TRACE": 1, "OMP_WAIT_POLICY": "passive"}
RING_BYTES = 300 * (2 * 192 + 16) + 128  # 256 + 32 + 8 + 4 rows of 3 KV heads of 64
# The model counts on without doubt: small differences of its sums change no word.
COUNTING = "Numbers: " + " ".join(f"{i}," for i in range(1, 60))


def requests():
    """(prompt, tokens to predict, whether it is cancelled), the same in each run."""
    rng = random.Random(SEED)
    words = common.excerpt(30000).split()
    prefixes = [" ".join(words[i:i + 60]) for i in (0, 900, 2000)]
    made = []
    for _ in range(N_REQUEST):
        kind = rng.choices(("short", "shared", "long"), (6, 5, 1))[0]
        at = rng.randrange(len(words) - 400)
        n_word = {"short": rng.randint(3, 20), "shared": rng.randint(2, 10),
                  "long": rng.randint(250, 380)}[kind]
        text = " ".join(words[at:at + n_word])
        if kind == "shared":
            text = f"{rng.choice(prefixes)} {text}"
        cancelled = rng.random() < 0.1
        made.append((text, 64 if cancelled else rng.randint(1, 4), cancelled))
    return made


# ---- clients --------------------------------------------------------------------------------

def ask(port, text, n_predict, **more):
    return common.http(port, "/completion", {"prompt": text, "n_predict": n_predict,
                                             "temperature": 0, **more})


def begin_and_leave(port, text, n_predict):
    """Closes the connection after the first token."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    body = json.dumps({"prompt": text, "n_predict": n_predict, "stream": True})
    connection.request("POST", "/completion", body, {"Content-Type": "application/json"})
    line = connection.getresponse().readline()
    connection.close()
    return {"content": line.decode()} if line.startswith(b"data:") else None


def client(port, waiting, answers):
    while True:
        try:
            i, (text, n_predict, cancelled) = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            answers[i] = (begin_and_leave if cancelled else ask)(port, text, n_predict)
        except OSError as error:
            answers[i] = {"error": str(error)}


def serve(port, some, answers):
    """Some requests by all clients; back when all have an answer."""
    waiting = queue.Queue()
    for item in some:
        waiting.put(item)
    clients = [threading.Thread(target=client, args=(port, waiting, answers))
               for _ in range(N_CLIENT)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()


# ---- the mix --------------------------------------------------------------------------------

def resident(process):
    text = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text).group(1))


def server():
    """`varve exec` becomes the server, so its process is the one whose memory is read."""
    return common.Server(program("llama-server"), WORDS, CACHE, ENV)


def check_answers(asked, answers):
    bad = [(i, answers.get(i)) for i, (_, n_predict, cancelled) in enumerate(asked)
           if not answers.get(i) or "error" in answers[i]
           or (not cancelled and not 1 <= answers[i]["tokens_predicted"] <= n_predict)]
    n_cancelled = sum(cancelled for *_, cancelled in asked)
    check(not bad, f"{N_REQUEST} requests by {N_CLIENT} clients, {n_cancelled} cancelled: "
          "every answer arrived", bad[:3])


def check_account(result):
    """Nothing declined or failed; twins are used, and those of 4 sequences have enough room."""
    common.check_served(result, "the mix")
    a = common.account(result.err)
    check(a["k.rows_hot"] > 0 and a["k.rows_sink"] > 0 and a["k.rows_cold"] > a["k.rows_missed"],
          f"rows of K: {a['k.rows_hot']} hot, {a['k.rows_sink']} sink, {a['k.rows_cold']} cold")
    for side in "kv":
        wanted = a[f"{side}.rows_hot"] + a[f"{side}.rows_missed"]
        missed = a[f"{side}.rows_missed"] / wanted
        check(missed <= 0.25, f"{side}: {missed:.1%} of the recent rows had no twin", a)
        for what in ("stale", "evicted"):
            part = a[f"{side}.twins_{what}"] / a[f"{side}.twins_written"]
            check(part <= 0.5, f"{side}: {part:.1%} of the twins {what}", a)
    most = 4 * 2 * common.N_LAYER * RING_BYTES
    hot = int(re.search(r"varve: context: bytes: \d+ cold, (\d+) hot", result.err).group(1))
    check(0 < hot <= most, f"{hot} bytes of twins, at most 4 rings: {most}")


def mix():
    asked, answers = requests(), {}
    numbered = list(enumerate(asked))
    with server() as busy:
        if not check(busy.healthy() == {"status": "ok"}, "/health is ok"):
            return
        n_slot = len(common.http(busy.port, "/slots"))
        check(n_slot == 4, f"{n_slot} slots by default")
        serve(busy.port, numbered[:N_REQUEST // 2], answers)
        middle = resident(busy.process)
        serve(busy.port, numbered[N_REQUEST // 2:], answers)
        end = resident(busy.process)
        counted = ask(busy.port, COUNTING, 24, cache_prompt=False)
        result = busy.stop()
    check_answers(asked, answers)
    check(end - middle <= 12 << 10, f"VmRSS {middle} KiB in the middle, {end} at the end: "
          "at most 12 MiB more")
    check_account(result)
    with server() as fresh:
        fresh.healthy()
        again = ask(fresh.port, COUNTING, 24, cache_prompt=False)
    check(counted["content"] == again["content"] and " 61," in again["content"],
          f"afterwards, the same words as by a fresh server: {again['content']!r}",
          counted["content"])


# ---- one slot -------------------------------------------------------------------------------

def same_as_run():
    """Greedy text of one slot and of `varve run`: the same model, cache, tiers and cuts (so no prompt
    is taken up from the last one). Two are longer than the window, one is longer than a ubatch."""
    words = ["-c", 2048, "-np", 1, "-t", 2, "-ub", 512]
    prompts = [COUNTING, common.excerpt(1500), common.excerpt(3500)]
    with common.Server(program("llama-server"), words, CACHE, ENV) as one:
        one.healthy()
        served = [ask(one.port, text, 32, cache_prompt=False) for text in prompts]
        again = [ask(one.port, text, 32, cache_prompt=False) for text in prompts]
    check([a["content"] for a in served] == [a["content"] for a in again],
          "the same prompts again: the same text, whatever the cache held before", again)
    for text, answer in zip(prompts, served):
        with common.folder() as folder:
            path = pathlib.Path(folder) / "prompt"
            path.write_text(text, encoding="utf-8")
            figures = pathlib.Path(folder) / "figures.json"
            result = common.run([common.LAUNCHER, "run", "-m", common.MODEL, "-f", path, "-n", 32,
                                 "-c", 2048, "-t", 2, *CACHE, "--tiers", ENV["VARVE_TIERS"],
                                 "--json", figures], ENV)
            if not check(result.code == 0, "varve run answers", result):
                continue
            ran = json.loads(figures.read_text(encoding="utf-8"))["runs"][0]
        check(ran["prompt"]["tokens"] == answer["tokens_evaluated"] and
              ran["generated"]["text"] == answer["content"] and len(answer["content"]) > 20,
              f"{answer['tokens_evaluated']} tokens: one slot and varve run give the same greedy "
              f"text: {answer['content'][:40]!r}...",
              f"{answer['content']!r}\n{ran['generated']!r}")


common.need(common.PLUGIN, common.LAUNCHER, common.MODEL, program("llama-server"))
common.main(mix, same_as_run)
