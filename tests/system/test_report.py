#!/usr/bin/env python3
"""`varve eval --report` and `--plot`: a page that holds the figures of --json and asks for nothing
else, whatever names hold; in headless Chromium without an error, in light and dark, on a phone, on
paper; pictures by gnuplot.

With VARVE_PICTURES=FOLDER and VARVE_FIGURES=FILE (of --json), the part `pictures` puts pictures of
that page into the folder, for the docs."""
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
PLACEHOLDERS = ("@data@", ".css@", ".js@")
HAS_GNUPLOT = shutil.which("gnuplot") is not None


class Structure(html.parser.HTMLParser):
    """The elements of a page, end tags that close nothing, and the content of script elements."""
    VOID = {"meta", "link", "br", "hr", "img", "input"}

    def __init__(self, text):
        super().__init__()
        self.names, self.open, self.scripts, self.wrong = [], [], [], []
        self.feed(text)
        self.close()
        self.tags = [tag for tag, _ in self.names]

    def handle_starttag(self, tag, attrs):
        self.names.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "script":
            self.scripts.append((dict(attrs).get("id"), []))

    def handle_endtag(self, tag):
        # our template writes the ends of dt, dd and the like, so that each closes the last one
        if not self.open or self.open.pop() != tag:
            self.wrong.append((tag, self.getpos()))

    def handle_data(self, data):
        if self.open and self.open[-1] == "script":
            self.scripts[-1][1].append(data)

    def figures(self):
        return json.loads("".join(*(parts for name, parts in self.scripts if name == "data")))

    def addresses(self):
        return [attrs[key] for _, attrs in self.names for key in ("src", "href") if key in attrs]


def evaluate(*words, cwd=None):
    return run([common.LAUNCHER, "eval", *words], timeout=300, cwd=cwd)


def read(path):
    return pathlib.Path(path).read_text(encoding="utf-8")


@functools.cache
def small_run():
    """A tiny run with all that can be written: its figures, its page and its picture, as text."""
    with common.folder() as folder:
        at = pathlib.Path(folder)
        paths = [at / name for name in ("figures.json", "page.html", "plot.svg")]
        result = evaluate("-m", common.MODEL, "-f", common.text_file(), "--ctx", 16, "--configs",
                          "f16,q4_0+w8+s0", "--no-partners", "-t", 1, "--work", at / "work",
                          "--json", paths[0], "--report", paths[1], "--plot", paths[2])
        assert result.code == 0, result
        figures, page, plot = (read(path) if path.exists() else "" for path in paths)
    return json.loads(figures), page, plot


# ---- figures that were never measured -------------------------------------------------------

RATE = {"value": 0.8, "low": 0.7, "high": 0.9}
TASKS = {"passkey": {"right": 8, "of": 10, "rate": RATE, "lost": 2, "won": 0, "p": 0.5, "by_depth": [
             {"depth": depth, "right": 4, "of": 5, "rate": RATE} for depth in (0.1, 0.5, 0.9)]},
         "copy": {"right": 3, "of": 4, "rate": RATE, "lost": 1, "won": 0, "p": 1,
                  "tokens": {"right": 90, "of": 100, "rate": RATE}}}
N_MADE = 14


def made(plain, i):
    """The i-th of some configurations after a measured one: with intervals, windows and tasks."""
    one = copy.deepcopy(plain)
    one["config"].update(label=f"made-{i}" if i else EVIL, window=64 * (i % 3),
                         rotation=i % 5 != 0, default=i == 4)
    one["bytes"]["per_token"] = 6480 + 900 * i
    one["on_front"] = i % 2 == 0
    mean = 0.1 * 0.75 ** (i if i % 2 == 0 else i - 2)
    figures = [one["all"]["kl"]["mean"]]
    figures += [place["kl"] for place in one["by_position"] + one["by_distance"]]
    for j, figure in enumerate(figures):
        value = mean * (1 + 0.1 * j)
        figure.update(value=value, low=0.85 * value, high=1.2 * value)
    if one["config"]["window"]:
        beside = {"config": f"made-{i - 1}", "bytes_ratio": 0.93 if i % 2 else 1.01,
                  "warning": i % 2 == 1}
        one.update(same_bytes=beside, next_uniform=beside)
    one["tasks"] = TASKS
    return one


@functools.cache
def widened():
    """The tiny run with more configurations, and with names that are hard to write."""
    data = copy.deepcopy(small_run()[0])
    data["results"] += [made(data["results"][0], i) for i in range(N_MADE)]
    data.update(model=EVIL, texts=[EVIL], reference_tasks=TASKS)
    return data


def page_of(folder, data):
    source, page = pathlib.Path(folder) / "again.json", pathlib.Path(folder) / "again.html"
    source.write_text(json.dumps(data), encoding="utf-8")
    result = evaluate("--from-json", source, "--report", page)
    assert result.code == 0, result
    return page


# ---- files ----------------------------------------------------------------------------------

def written():
    data, text, plot = small_run()
    page = Structure(text)
    check(page.figures() == data, "the page holds the figures of --json")
    check(not page.open and not page.wrong and not any(word in text for word in PLACEHOLDERS),
          "the page is whole and well formed", f"{page.open} {page.wrong}")
    away = [address for address in page.addresses() if not address.startswith(("#", "data:"))]
    check(not away and "default-src 'none'" in text, "and names no other file", away)
    with common.folder() as folder:
        check(read(page_of(folder, data)) == text, "--from-json writes the same page")
    if not HAS_GNUPLOT:
        skip("--plot", "gnuplot is not installed")
        return
    drawn = "".join(xml.etree.ElementTree.fromstring(plot).itertext())
    check(all(one["config"]["label"] in drawn for one in data["results"]),
          "--plot names each configuration", drawn)


def escaped():
    plain = Structure(small_run()[1])
    with common.folder() as folder:
        page = Structure(read(page_of(folder, widened())))
        check(page.tags == plain.tags and not page.wrong and page.figures() == widened(),
              "names that look like markup stay within the figures")
        if not HAS_GNUPLOT:
            skip("names in pictures", "gnuplot is not installed")
            return
        source, bad = pathlib.Path(folder) / "again.json", pathlib.Path(folder) / "bad"
        for kind, begin in (("svg", b"<?xml"), ("png", b"\x89PNG")):
            picture = pathlib.Path(folder) / f"it's.{kind}"
            result = evaluate("--from-json", source, "--plot", picture, cwd=folder)
            check(result.code == 0 and picture.read_bytes().startswith(begin) and
                  not bad.exists(), f"and within the picture, as {kind}", result)
        xml.etree.ElementTree.parse(pathlib.Path(folder) / "it's.svg")


def errors():
    with common.folder() as folder:
        at = pathlib.Path(folder)
        for name, text in (("text", "no figures"), ("list", "[1]"), ("none", '{"results": []}'),
                           ("half", '{"results": [{}]}')):
            (at / name).write_text(text, encoding="utf-8")
        page = ("--report", at / "page.html")
        elsewhere = ("--report", at / "no" / "page", "--work", at / "work")
        cases = (
            (("--from-json", at / "text"), 64, "give --report or --plot"),
            (("--from-json", at / "text", *page, "--json", at / "x"), 64, "no --json"),
            (("--from-json", at / "absent", *page), 1, "cannot be read"),
            (("--from-json", at / "text", *page), 1, "not what --json wrote"),
            (("--from-json", at / "list", *page), 1, "not what --json wrote"),
            (("--from-json", at / "none", *page), 1, "no results"),
            (("--from-json", at / "half", *page), 1, "config"),
            (("-m", at / "absent", "-f", at / "text", *elsewhere), 1, "--report"),
        )
        for words, code, part in cases:
            result = evaluate(*words)
            lines = result.err.splitlines()
            check(result.code == code and len(lines) == 1 and part in lines[0],
                  f"{words[1].name}, {part}: {lines}", result)
        check(not (at / "page.html").exists() and not (at / "work").exists(),
              "and nothing is left behind")


# ---- in a browser ---------------------------------------------------------------------------

def content(page, data):
    points, rows = page.count("#scatter .mark"), page.count("#table-all tbody tr")
    check(points == rows == len(data["results"]),
          f"{points} points and {rows} lines for {len(data['results'])} configurations")
    check(EVIL in page.text("#lede") and page.value("window.bad === undefined"),
          "names are shown as they are, and nothing of them is run", page.text("#lede"))
    beside = [one[key] for one in data["results"] for key in ("same_bytes", "next_uniform")]
    n_warning = sum(bool(other and other["warning"]) for other in beside)
    check(page.count("#table-windows .warning") == n_warning > 8,
          f"{n_warning} warnings where bytes differ")
    check(page.count("#table-tasks tbody tr") == page.count("#table-depths tbody tr") == N_MADE + 1,
          "tasks, with the reference")
    check(json.loads(page.downloads("#save")) == data, "the figures can be saved")


def sorts(page):
    heading = "document.querySelectorAll('#table-all thead button')[3]"
    cells = "[...document.querySelectorAll('#table-all tbody tr')].map((row) => row.children[3])"
    for direction in ("ascending", "descending"):
        page.value(f"{heading}.click()")
        texts = page.value(f"{cells}.map((cell) => cell.firstChild.textContent)")
        seen = [float(text) for text in texts if "\u00d7" not in text]
        state = page.value(f"{heading}.parentElement.getAttribute('aria-sort')")
        check(state == direction and len(set(seen)) > 5 and
              seen == sorted(seen, reverse=direction == "descending"),
              f"a click on mean KL sorts, {direction}", f"{state} {seen}")


def details(page):
    def card():
        return page.value("document.getElementById('details').hidden") or page.text("#details")
    page.value("scrollTo(0, 0)")
    x, y = page.value("(({x, y}) => [x, y])(document.querySelector('#scatter .mark .shape')"
                      ".getBoundingClientRect())")
    page.point_at(x + 3, y + 3)
    near = card()
    page.point_at(2, 2)
    check("mean KL" in near and "bytes per token" in near and card() is True,
          "the card of a mark comes and goes with the pointer", near)
    seen = []
    page.key("Tab")
    for key in ("ArrowRight", "ArrowRight", "End"):
        seen.append((page.value("document.activeElement.getAttribute('aria-label')"), card()))
        page.key(key)
    check(len(set(seen)) == 3 and all(label and text[:4] == label[:4] for label, text in seen),
          "and the keys walk from mark to mark", seen)
    page.key("Escape")
    check(card() is True, "Escape puts it away")


def luminance(colour):
    """Relative luminance of "rgb(r, g, b)" (WCAG 2)."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1:-1].split(",")[:3]]
    parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def colours(page):
    """Text stands out from the paper by 7 to 1 (WCAG 2, AAA), soft text by 4.5 to 1 (AA)."""
    papers = []
    for scheme in ("light", "dark"):
        page.look(1280, scheme=scheme)
        text, soft, paper = (luminance(page.value(
            f"getComputedStyle(document.querySelector('{selector}')).{key}")) for selector, key in
            (("body", "color"), ("#lede", "color"), ("body", "backgroundColor")))
        hard, weak = ((max(a, paper) + 0.05) / (min(a, paper) + 0.05) for a in (text, soft))
        papers.append(paper)
        check(hard >= 7 and weak >= 4.5,
              f"{scheme}: text against paper {hard:.1f}, soft text {weak:.1f}")
    check(papers[0] > 0.8 and papers[1] < 0.1, "light and dark paper", papers)


def widths(page):
    for width, words in ((360, {"is_phone": True}), (768, {}), (1032, {"media": "print"})):
        page.look(width, **words)
        seen = page.value("[document.documentElement.scrollWidth, innerWidth]")
        where = "on paper, " if words.get("media") else ""
        check(seen == [width, width], f"{where}{width} pixels wide: nothing stands out", seen)
    page.look(1280)
    check(page.pdf().startswith(b"%PDF") and page.count("details[open]") == 0, "it can be printed")


def in_a_browser():
    if _browser.program() is None:
        skip("the page in a browser: errors, requests, points, sorting, keys, colours, widths",
             "no chromium is installed")
        return
    with common.folder() as folder:
        path = page_of(folder, widened())
        with _browser.Page(folder) as page:
            page.look(1280)
            page.open(path)
            for part in (sorts, details, colours, widths):
                part(page)
            check(page.requests() == [path.absolute().as_uri()],
                  f"no request but for the page: {len(page.requests())}", page.requests())
            content(page, widened())
            check(not page.complaints(), "no error, no warning", page.complaints())
            least = {"config": {"label": "q8_0", "type_k": "q8_0", "type_v": "q8_0"},
                     "bytes": {"per_token": 10}, "all": {"kl": {"mean": {"value": 0.1}}}}
            page.open(page_of(folder, {"results": [least]}))
            check(not page.complaints() and page.count("#scatter .mark") == 1,
                  "one configuration with nothing but its mean", page.complaints())


def pictures():
    if "VARVE_PICTURES" not in os.environ or _browser.program() is None:
        return
    with common.folder() as folder:
        path = page_of(folder, json.loads(read(os.environ["VARVE_FIGURES"])))
        with _browser.Page(folder) as page:
            for name, width, words in (("light", 1200, {}), ("dark", 1200, {"scheme": "dark"}),
                                       ("phone", 390, {"is_phone": True})):
                page.look(width, 840, **words)
                page.open(path)
                if name == "dark":
                    page.value("document.querySelector('#scatter .mark:has(.ring)')?.focus()")
                page.picture(pathlib.Path(os.environ["VARVE_PICTURES"]) / f"report-{name}.png")


common.need(common.LAUNCHER, common.BUILD / "bin" / "varve-eval", common.MODEL)
common.main(written, escaped, errors, in_a_browser, pictures)
