#!/usr/bin/env python3
"""`varve eval --report` and `--plot`: a page that holds the figures of --json and nothing that leaves it, whatever names
hold; in headless Chromium without an error, in light and dark, on a phone, on paper; pictures by gnuplot.

With VARVE_PICTURES=FOLDER and VARVE_FIGURES=FILE (of --json), pictures of that page are written there for the docs."""
import copy
import functools
import html.parser
import json
import os
import pathlib
import shutil
import xml.etree.ElementTree

import _browser
import common
from common import check, run, skip

EVIL = "</script><script>window.bad = 1</script><!-- \"'&amp;` `$(touch bad)` é"
SHOT = pathlib.Path(os.environ.get("VARVE_PICTURES") or ".")


class Structure(html.parser.HTMLParser):
    """Elements that are opened, those left open, and the content of script elements."""
    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.names, self.stack, self.scripts, self.wrong = [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.names.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs), []))

    def handle_endtag(self, tag):
        # the ends of dt, dd and the like are written, so each end tag closes the last one that was opened
        if not self.stack or self.stack.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "script":
            self.scripts[-1][1].append(data)

    def figures(self):
        return json.loads("".join(*(parts for attrs, parts in self.scripts if attrs.get("id") == "data")))


def evaluate(*words):
    return run([common.LAUNCHER, "eval", *words], timeout=300)


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


@functools.cache
def small_run():
    """A tiny run with all that can be written: its figures, its page and its picture, as text."""
    with common.folder() as folder:
        paths = [pathlib.Path(folder) / name for name in ("figures.json", "page.html", "plot.svg")]
        options = [word for option, path in zip(("--json", "--report", "--plot"), paths) for word in (option, path)]
        result = evaluate("-m", common.MODEL, "-f", common.text_file(), "--ctx", 16, "--configs", "f16,q4_0+w8+s0",
                          "--no-partners", "-t", 1, "--work", pathlib.Path(folder) / "work", *options)
        assert result.code == 0, result
        figures, page, plot = (read(path) if path.exists() else "" for path in paths)
    return json.loads(figures), page, plot


def spread(figure, value):
    figure.update(value=value, low=0.85 * value, high=1.2 * value)


def widened(data):
    """More configurations than were run, with intervals, tasks, and names that are hard to write."""
    data = copy.deepcopy(data)
    plain = data["results"][0]
    data["model"] = EVIL
    data["texts"] = [EVIL]
    for i in range(14):
        one = copy.deepcopy(plain)
        one["config"].update(label=f"made-{i}" if i else EVIL, window=64 * (i % 3), rotation=i % 5 != 0, default=i == 4)
        one["bytes"]["per_token"] = 6480 + 900 * i
        one["on_front"] = i % 2 == 0
        spread(one["all"]["kl"]["mean"], 0.1 * 0.75 ** (i if i % 2 == 0 else i - 2))
        for j, place in enumerate(one["by_position"] + one["by_distance"]):
            spread(place["kl"], one["all"]["kl"]["mean"]["value"] * (1 + 0.1 * j))
        if one["config"]["window"]:
            beside = {"config": f"made-{i - 1}", "bytes_ratio": 0.93 if i % 2 else 1.01, "warning": i % 2 == 1}
            one.update(same_bytes=beside, next_uniform=beside)
        rate = {"value": 0.8, "low": 0.7, "high": 0.9}
        one["tasks"] = {"passkey": {"right": 8, "of": 10, "rate": rate, "lost": 2, "won": 0, "by_depth": [
            {"depth": 0.1 * d, "right": 4, "of": 5, "rate": rate} for d in (1, 5, 9)]},
                        "copy": {"right": 3, "of": 4, "rate": rate, "lost": 1, "won": 0,
                                 "tokens": {"right": 90, "of": 100, "rate": rate}}}
        data["results"].append(one)
    data["reference_tasks"] = plain_tasks = copy.deepcopy(data["results"][-1]["tasks"])
    plain_tasks["passkey"]["right"] = 10
    return data


def page_of(folder, data, *words):
    source, page = pathlib.Path(folder) / "again.json", pathlib.Path(folder) / "again.html"
    source.write_text(json.dumps(data), encoding="utf-8")
    result = evaluate("--from-json", source, "--report", page, *words)
    assert result.code == 0, result
    return page


# ---- files ----------------------------------------------------------------------------------

def written():
    with common.folder() as folder:
        data, text, plot = small_run()
        page = Structure(text)
        check(page.figures() == data, "the page holds the figures of --json")
        check(not page.stack and not page.wrong and not any(c in text for c in ("@data@", ".js@", ".css@")),
              "the page is whole and well formed", f"{page.stack} {page.wrong}")
        away = [value for _, attrs in page.names for key, value in attrs.items() if key in ("src", "href") and value[:1] not in "#d"]
        check(not away and "default-src 'none'" in text, "and names no other file", away)
        again = page_of(folder, data)
        check(read(again) == text, "--from-json writes the same page")
        if shutil.which("gnuplot"):
            drawn = "".join(xml.etree.ElementTree.fromstring(plot).itertext())
            check(all(one["config"]["label"] in drawn for one in data["results"]), "--plot names each configuration", drawn)
        else:
            skip("--plot", "gnuplot is not installed")


def escaped():
    with common.folder() as folder:
        data, text, _ = small_run()
        plain, evil = Structure(text), widened(data)
        page = Structure(read(page_of(folder, evil)))
        check([tag for tag, _ in page.names] == [tag for tag, _ in plain.names] and not page.wrong and page.figures() == evil,
              "names that look like markup stay within the figures")
        if shutil.which("gnuplot"):
            for kind, begin in (("svg", b"<?xml"), ("png", b"\x89PNG")):
                picture = pathlib.Path(folder) / f"it's.{kind}"
                result = run([common.LAUNCHER, "eval", "--from-json", pathlib.Path(folder) / "again.json", "--plot", picture], cwd=folder)
                check(result.code == 0 and picture.read_bytes().startswith(begin) and not (pathlib.Path(folder) / "bad").exists(),
                      f"and within the picture, as {kind}", result)
        else:
            skip("names in pictures", "gnuplot is not installed")


def errors():
    with common.folder() as folder:
        at = pathlib.Path(folder)
        for name, text in (("text", "no figures"), ("list", "[1]"), ("none", '{"results": []}'), ("half", '{"results": [{}]}')):
            (at / name).write_text(text, encoding="utf-8")
        page = ("--report", at / "page.html")
        cases = ((("--from-json", at / "text"), 64, "give --report or --plot"),
                 (("--from-json", at / "text", *page, "--json", at / "x"), 64, "no --json"),
                 (("--from-json", at / "absent", *page), 1, "--from-json"), (("--from-json", at / "text", *page), 1, "not what --json wrote"),
                 (("--from-json", at / "list", *page), 1, "not what --json wrote"), (("--from-json", at / "none", *page), 1, "no results"),
                 (("--from-json", at / "half", *page), 1, "config"),
                 (("-m", at / "absent", "-f", at / "text", "--report", at / "no" / "page", "--work", at / "work"), 1, "--report"))
        for words, code, part in cases:
            result = evaluate(*words)
            lines = result.err.splitlines()
            check(result.code == code and len(lines) == 1 and part in lines[0], f"{' '.join(map(str, words[2:3]))} {part}: {lines}", result)
        check(not (at / "page.html").exists() and not (at / "work").exists(), "and nothing is left behind")


# ---- in a browser ---------------------------------------------------------------------------

def column(table, number):
    """JavaScript: the texts of a column as they stand; numbers first lose what groups digits."""
    return (f"[...document.querySelectorAll('#{table} tbody tr')].map((tr) => tr.children[{number}].firstChild.textContent"
            ".replaceAll(',', ''))")


def sorts(page):
    heading = "document.querySelectorAll('#table-all thead button')[3]"
    for direction in ("ascending", "descending"):
        page.value(f"{heading}.click()")
        seen = [float(text) for text in page.value(column("table-all", 3)) if "\u00d7" not in text]
        state = page.value(f"{heading}.parentElement.getAttribute('aria-sort')")
        check(state == direction and seen == sorted(seen, reverse=direction == "descending") and len(set(seen)) > 5,
              f"a click on mean KL sorts, {direction}", f"{state} {seen}")


def details(page):
    mark = page.value("(() => { scrollTo(0, 0); const box = document.querySelector('#scatter .mark .shape').getBoundingClientRect();"
                      "return [box.x + box.width / 2, box.y + box.height / 2]; })()")
    card = "document.getElementById('details').hidden ? '' : document.getElementById('details').textContent"
    page.point_at(mark[0] + 3, mark[1] + 3)
    near = page.value(card)
    page.point_at(2, 2)
    check("mean KL" in near and "bytes per token" in near and page.value(card) == "", "the card of a mark comes and goes with the pointer", near)
    seen = []
    page.key("Tab")
    for key in ("ArrowRight", "ArrowRight", "End"):
        seen.append((page.value("document.activeElement.getAttribute('aria-label')"), page.value(card)))
        page.key(key)
    check(len(set(seen)) == 3 and all(label and text[:4] == label[:4] for label, text in seen),
          "and the keys walk from mark to mark", seen)
    page.key("Escape")
    check(page.value(card) == "", "Escape puts it away")


def in_a_browser():
    if _browser.program() is None:
        skip("the page in a browser (errors, requests, points, sorting, colours, widths)", "no chromium is installed")
        return
    with common.folder() as folder:
        data = widened(small_run()[0])
        path = page_of(folder, data)
        with _browser.Page(folder) as page:
            page.look(1280)
            page.open(path)
            check(not page.complaints() and page.value("window.bad === undefined"), "no error, no warning, nothing of a name is run",
                  page.complaints())
            check(page.requests() == [path.absolute().as_uri()], f"no request but for the page: {len(page.requests())}", page.requests())
            points = page.value("document.querySelectorAll('#scatter .mark').length")
            rows = page.value("document.querySelectorAll('#table-all tbody tr').length")
            check(points == rows == len(data["results"]), f"{points} points and {rows} lines for {len(data['results'])} configurations")
            names = page.value("document.getElementById('lede').textContent")
            check(EVIL in names, "names are shown as they are", names)
            check(page.value("document.querySelectorAll('#table-windows .warning').length") ==
                  sum(bool(r[key] and r[key]["warning"]) for r in data["results"] for key in ("same_bytes", "next_uniform")) > 8,
                  "a warning where bytes differ")
            check(page.value("document.querySelectorAll('#table-tasks tbody tr').length") == 15, "tasks, with the reference")
            sorts(page)
            details(page)
            colours(page)
            widths(page)
            page.pdf(pathlib.Path(folder) / "page.pdf")
            check(page.value("!document.querySelector('details').open") and not page.complaints(), "it can be printed", page.complaints())


def colours(page):
    """Text stands out from the paper by 7 to 1 (WCAG 2 AAA), soft text by 4.5 to 1, in both schemes."""
    luminance = """(colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).map((v) => { v /= 255;
        return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * r + 0.7152 * g + 0.0722 * b; }"""
    papers = {}
    for scheme in ("light", "dark"):
        page.look(1280, scheme=scheme)
        body, soft, paper = page.value(f"[[document.body, 'color'], [document.getElementById('lede'), 'color'], "
                                       f"[document.body, 'backgroundColor']].map(([node, key]) => ({luminance})(getComputedStyle(node)[key]))")
        ratios = [(max(a, paper) + 0.05) / (min(a, paper) + 0.05) for a in (body, soft)]
        papers[scheme] = paper
        check(ratios[0] >= 7 and ratios[1] >= 4.5, f"{scheme}: text against paper {ratios[0]:.1f}, soft text {ratios[1]:.1f}")
    check(papers["light"] > 0.8 and papers["dark"] < 0.1, "light and dark paper", papers)


def widths(page):
    for width, words in ((360, {"is_phone": True}), (768, {}), (1032, {"media": "print"})):
        page.look(width, **words)
        seen = page.value("[document.documentElement.scrollWidth, innerWidth]")
        check(seen == [width, width], f"{width} pixels wide{', on paper' if 'media' in words else ''}: nothing stands out", seen)


def pictures():
    """For the docs; only on request."""
    if "VARVE_PICTURES" not in os.environ or _browser.program() is None:
        return
    with common.folder() as folder:
        path = page_of(folder, json.loads(read(os.environ["VARVE_FIGURES"])))
        with _browser.Page(folder) as page:
            for name, width, height, words in (("report-light", 1200, 700, {}), ("report-dark", 1200, 700, {"scheme": "dark"}),
                                               ("report-phone", 390, 844, {"is_phone": True})):
                page.look(width, height, **words)
                page.open(path)
                page.picture(SHOT / f"{name}.png")


common.need(common.LAUNCHER, common.BUILD / "bin" / "varve-eval", common.MODEL)
common.main(written, escaped, errors, in_a_browser, pictures)
