#!/usr/bin/env python3
"""`varve eval`: its figures, the same at any number of threads and after Ctrl-C and --resume, those of
llama-perplexity, windows beside their bytes, tasks, errors in one line."""
import functools
import json
import pathlib
import re
import signal
import subprocess

import common
from common import check, launched, program, run

CONFIGS = "f16,q4_0,q4_0+w64+s4"
SMALL = ("--ctx", 256, "--chunks", 2, "--configs", CONFIGS, "--no-partners", "-f",
         common.text_file())
TASKS = ("--ctx", 256, "--chunks", 1, "--configs", "q4_0", "--no-partners", "--tasks",
         "copy,passkey", "--task-items", 5, "-f", common.text_file())


def command(folder, *words):
    threads = () if "-t" in words else ("-t", 2)
    return [common.LAUNCHER, "eval", "-m", common.MODEL, "--work", pathlib.Path(folder) / "work",
            "--json", pathlib.Path(folder) / "figures.json", *threads, *words]


def figures(folder, *words):
    path = pathlib.Path(folder) / "figures.json"
    path.unlink(missing_ok=True)
    result = run(command(folder, *words), timeout=1200)
    assert result.code == 0 and path.stat().st_size > 0, result
    return result, json.loads(path.read_text(encoding="utf-8"))


def lasting(data):
    """The figures without what is measured with a clock or of the machine."""
    data = json.loads(json.dumps(data))
    data.pop("machine")
    for one in data["results"]:
        one.pop("speed")
    return data


def by_label(data):
    return {one["config"]["label"]: one for one in data["results"]}


# ---- figures --------------------------------------------------------------------------------

@functools.cache
def whole(words):
    """By one thread, to be compared with: result, figures, whether the folder is gone."""
    with common.folder() as folder:
        result, data = figures(folder, *words, "-t", 1)
        return result, data, not (pathlib.Path(folder) / "work").exists()


def small():
    result, one, gone = whole(SMALL)
    with common.folder() as folder:
        _, two = figures(folder, *SMALL, "--keep")
        sizes = [p.stat().st_size for p in (pathlib.Path(folder) / "work").iterdir()]
        _, all_tokens = figures(folder, *SMALL, "--configs", "q4_0", "--top-k", 1 << 24, "--work",
                                pathlib.Path(folder) / "whole")
    check(lasting(one) == lasting(two), "1 and 2 threads: the same figures",
          f"{json.dumps(lasting(one))}\n{json.dumps(lasting(two))}")
    check(gone and max(sizes) < 10 << 20, f"the folder is removed; kept files have {sizes} bytes")
    found = by_label(one)
    f16, q4, window = (found[label] for label in CONFIGS.split(","))
    check(f16["all"]["kl"]["max"] == 0 and f16["all"]["same_top"]["value"] == 1 and
          f16["all"]["positions"] == 2 * 127, "f16 by varve is the reference again", f16)
    kl = [r["all"]["kl"]["mean"] for r in (q4, window)]
    check(0.02 < kl[0]["value"] < 0.3 and kl[1]["high"] < kl[0]["low"],
          f"q4_0 {kl[0]['value']:.4f}, with a window {kl[1]['value']:.4f}", kl)
    check(q4["bytes"]["bits_per_value"] == 4.5 and q4["bytes"]["per_token"] ==
          2 * 192 * common.N_LAYER * 4.5 / 8 and window["bytes"]["hot_peak"] > 0 and
          window["bytes"]["per_token"] == (window["bytes"]["cold"] + window["bytes"]["hot_peak"]) / 256,
          "bytes per token, rows in F16 included", window["bytes"])
    check(all(r["attention_nodes"] == 2 * common.N_LAYER and r["rows_evicted"] == 0 and
              r["speed"]["prefill"]["tokens_per_second"] > 0 and
              r["speed"]["decode"]["tokens_per_second"] > 0 for r in one["results"]),
          "attention by varve, and both speeds")
    check(len(q4["by_position"]) == 8 and q4["by_distance"][-1]["last"] == 127 and
          q4["by_position"][0]["first"] == 128 and q4["by_position"][-1]["last"] == 254,
          "by position and by distance from the end", q4["by_distance"])
    check("100 %" in result.err and " left" in result.err and "bits/" in result.out,
          "progress on stderr, tables on stdout", result)
    for label, every in by_label(all_tokens).items():
        exact, kept = (r["all"]["kl"] for r in (every, found[label]))
        missing = exact["mean"]["value"] - kept["mean"]["value"]
        check(-1e-12 <= missing <= kept["missing_at_most"] + 1e-12 and
              exact["missing_at_most"] == 0,
              f"{label}: the whole vocabulary adds {missing:.2e}, at most "
              f"{kept['missing_at_most']:.2e}")


def decode():
    """Token by token; and the windowed one beside those of its bytes."""
    words = ("--ctx", 64, "--chunks", 1, "--mode", "decode", "--configs", "f16,q4_0+w16+s4",
             "-f", common.text_file())
    with common.folder() as folder:
        result, one = figures(folder, *words, "-t", 1)
        _, two = figures(folder, *words)
    check(lasting(one) == lasting(two), "decode, 1 and 2 threads: the same figures")
    found = by_label(one)
    window = found["q4_0+w16+s4"]
    check(found["f16"]["all"]["kl"]["max"] == 0, "decode: f16 by varve is the reference again")
    beside = [window["same_bytes"], window["next_uniform"]]
    check(all(b is not None and b["config"] in found and
              b["warning"] == (abs(b["bytes_ratio"] - 1) > 0.02) for b in beside),
          f"beside the same bytes and the next type: {beside}", window)
    check("same bytes" in result.out and ("warning" in result.out) ==
          any(b["warning"] for b in beside), "and in the table", result)


def like_perplexity():
    """The same chunks by llama-perplexity, which keeps log-probabilities in 16 bits and starts the
    text with the same token."""
    bound = 0.03
    cases = (("q4_0", "none"), ("q4_0+w64+s4", "f16:64"))
    theirs = {}
    with common.folder() as folder:
        base = [program("llama-perplexity"), "-m", common.MODEL, "-f", common.text_file(), "-c",
                512, "-b", 512, "--chunks", 1, "--no-warmup", "-fa", "on", "-t", 2,
                "--kl-divergence-base", pathlib.Path(folder) / "reference"]
        done = run(launched(base), timeout=600)
        assert done.code == 0, done
        for label, tiers in cases:
            theirs[label] = run(launched([*base, "--kl-divergence", "-ctk", "q4_0", "-ctv", "q4_0"]),
                                {"VARVE_TIERS": tiers, "VARVE_SINKS": 4}, timeout=600)
        _, data = figures(folder, "--ctx", 512, "--chunks", 1, "--configs",
                          ",".join(label for label, _ in cases), "--no-partners", "-f",
                          common.text_file())
    for label, result in theirs.items():
        ours = by_label(data)[label]["all"]
        text = result.out + result.err
        mean = float(re.search(r"Mean +KLD: +([0-9.e-]+)", text)[1])
        top = float(re.search(r"Same top p: +([0-9.]+)", text)[1])
        far = ours["kl"]["mean"]["value"] / mean - 1
        check(-bound - ours["kl"]["missing_at_most"] / mean <= far <= bound and
              abs(100 * ours["same_top"]["value"] - top) <= 0.5,
              f"{label}: mean {ours['kl']['mean']['value']:.5f}, llama-perplexity {mean:.5f} "
              f"({far:+.1%}); same top {100 * ours['same_top']['value']:.2f} and {top:.2f} %", text)


# ---- interruptions --------------------------------------------------------------------------

def interrupt(folder, words, where):
    """Ctrl-C after the line of progress with those words."""
    with subprocess.Popen([str(w) for w in command(folder, *words)], stderr=subprocess.PIPE,
                          stdout=subprocess.DEVNULL, env=common.environment()) as process:
        for line in process.stderr:
            if where in line:
                break
        process.send_signal(signal.SIGINT)
        err = process.stderr.read().decode()
    return process, err


def interrupted():
    _, data, _ = whole(SMALL)
    with common.folder() as folder:
        # the first chunk of the first configuration is done
        process, err = interrupt(folder, SMALL, b"2 of 4")
        work = pathlib.Path(folder) / "work"
        check(process.returncode == 130 and "--resume" in err and work.exists(),
              "Ctrl-C: exit code 130, a line that says how to go on", err)
        one_line(run(command(folder, *SMALL)), 1, ["--resume"], "again without --resume")
        other = run(command(folder, *SMALL, "--resume", "--ctx", 128))
        one_line(other, 1, ["another model, text or option"], "--resume with another --ctx")
        result, again = figures(folder, *SMALL, "--resume")
    check(lasting(again) == lasting(data), "--resume gives the same figures",
          f"{json.dumps(lasting(data))}\n{json.dumps(lasting(again))}")
    check("1 of 4" not in result.err, "and does not read the reference once more", result)


def tasks():
    result, one, _ = whole(TASKS)
    with common.folder() as folder:
        # the text and the first sequence of q4_0 are done
        interrupt(folder, TASKS, b"2 of 2: q4_0, chunk 3 of 3")
        other = run(command(folder, *TASKS, "--resume", "--seed", 2))
        one_line(other, 1, ["another model, text or option"], "tasks: --resume with another seed")
        again_result, again = figures(folder, *TASKS, "--resume")
    check(lasting(one) == lasting(again) and "1 of 2" not in again_result.err,
          "tasks: the same answers by 1 and 2 threads, and with --resume",
          f"{json.dumps(lasting(one))}\n{json.dumps(lasting(again))}")
    reference, q4 = one["reference_tasks"], one["results"][0]["tasks"]
    for name, row in [*reference.items(), *q4.items()]:
        rate = row["rate"]
        check(row["of"] >= 5 and rate["value"] == row["right"] / row["of"] and
              rate["low"] <= rate["value"] <= rate["high"], f"{name}: {row['right']} of {row['of']}",
              row)
        same = row["right"] - reference[name]["right"]
        check(row["won"] - row["lost"] == same, f"{name}: lost {row['lost']}, won {row['won']}", row)
    depths = reference["passkey"]["by_depth"]
    check([d["depth"] for d in depths] == [0.1, 0.3, 0.5, 0.7, 0.9] and
          sum(d["right"] for d in depths) == reference["passkey"]["right"] and
          all(d["of"] == 1 for d in depths), "pass keys by depth", depths)
    check(reference["passkey"]["right"] >= 2 and reference["copy"]["tokens"]["rate"]["value"] > 0.7,
          "the model can do the tasks", reference)
    check("pass keys" in result.out and "lines copied" in result.out, "tasks as tables", result)


# ---- errors ---------------------------------------------------------------------------------

def one_line(result, code, words, what):
    lines = result.varve_lines()
    check(result.code == code and len(lines) == 1 and all(w in lines[0] for w in words) and
          len(result.err.splitlines()) == 1, f"{what}: {lines}", result)


def errors():
    with common.folder() as folder:
        empty, short, bad = (pathlib.Path(folder) / name for name in ("empty", "short", "bad.gguf"))
        empty.write_bytes(b"")
        short.write_text("A few words.", encoding="utf-8")
        bad.write_bytes(b"GGUF and no more")
        some = ("--configs", "q8_0")
        cases = (
            (("-f", pathlib.Path(folder) / "none", *some), 1, ["cannot read the text", "none"]),
            (("-f", empty, *some), 1, ["empty"]),
            (("-f", short, *some), 1, ["too few", "--ctx"]),
            (("-f", "/bin/ls", *some), 1, ["not UTF-8", "byte"]),
            (("-f", short, "-m", bad, *some), 1, ["ends inside its header"]),
            (("-f", short, "-m", short, *some), 1, ["not a GGUF file"]),
            (("--configs", "q9_9"), 1, ["no such cache type"]),
            (("--configs", "q4_0+s4"), 1, ["sinks need a window"]),
            (("--configs", "q4_0+w64+stock"), 1, ["stock has no window"]),
            (("--configs", "q4_0+x"), 1, ["'x' is none of"]),
            (("--configs", ","), 1, ["no configuration"]),
            (("--mode", "chat"), 64, ["expected prefill or decode"]),
            (("--ctx", 64, "--from", 63), 64, ["--from"]),
            (("text",), 64, ["-f"]),
            (("-f", common.text_file(), *some, "--tasks", "passkey", "--ctx", 64), 1, ["too short"]),
            (("--tasks", "passkey,poem"), 64, ["expected passkey, copy"]),
            (("--task-items", 0), 64, ["--task-items"]),
            (("-f", short, *some, "--json", pathlib.Path(folder) / "no" / "x"), 1, ["--json"]),
            (("-f", short, *some, "--work", short), 1, ["--work"]),
        )
        for words, code, parts in cases:
            one_line(run(command(folder, *words)), code, parts, " ".join(map(str, words[-2:])))
        check(not (pathlib.Path(folder) / "work").exists(), "no folder is left behind")


def from_file():
    with common.folder() as folder:
        path = pathlib.Path(folder) / "list"
        path.write_text("# two\nq8_0/q8_0, q8_0  # the same\nq4_0+norot\nf16+stock\n",
                        encoding="utf-8")
        _, data = figures(folder, "--configs", path, "--ctx", 64, "--chunks", 1)
    found = by_label(data)
    check(list(found) == ["q8_0", "q4_0+norot", "f16+stock"] and len(data["texts"]) >= 1 and
          len(data["chunks"]) == len(data["texts"]),
          f"a file of configurations, and the texts {data['texts']}", data)
    check(found["f16+stock"]["attention_nodes"] == 0 and
          not found["q4_0+norot"]["config"]["rotation"], "stock, and no rotation")


common.need(common.PLUGIN, common.LAUNCHER, common.BUILD / "bin" / "varve-eval", common.MODEL)
common.main(small, decode, interrupted, tasks, errors, from_file,
            *((like_perplexity,) if program("llama-perplexity").exists() else ()))
