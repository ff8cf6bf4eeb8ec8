"""Open every page of the built site in Chromium, as a reader does, and report the faults.

    python tools/check_site.py build/docs AXE.js [--screenshots FOLDER] [--only PATTERN] [--every N]

Each page is opened from its file at 1400 and 390 px, in the light and in the dark theme. A fault is
an error or a warning on the console, a request to another host, a page broader than the screen, a
figure or an image without a text alternative, a formula that is not in the font of the site, or a
finding of axe-core (https://github.com/dequelabs/axe-core) that is moderate or worse. Then phrases
are searched for: each must list the expected page with an excerpt that contains the phrase.

Needs Chromium (Debian's ``chromium``), axe-core's ``axe.min.js`` and the extra ``browser``.
"""

from __future__ import annotations

import argparse
import collections
import shutil
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

WIDTHS = (1400, 390)
THEMES = ("light", "dark")
WORKERS, PARTS = 2, 6  # processes; parts of the pages, so that both are busy until the end
BAD = {"moderate", "serious", "critical"}
PHRASES = {  # a phrase, and a word in the address of a page that must be found
    "vanishing gradients": "tutorials/10",
    "early stopping": "terms",
    "attention": "terms",
    "gradient clipping": "tutorials/",
    "backpropagation through time": "tutorials/09",
    "perplexity": "",
    "random partitioning": "tutorials/06",
    "truncated": "",
    "beam search": "tutorials/13",
    "one-hot": "",
}
# Longer than the screen, without a scroll area of its own; alternatives; the font of the formulas.
MEASURE = """() => {
  const faults = [], root = document.documentElement
  if (root.scrollWidth > root.clientWidth) {
    const wide = [...document.querySelectorAll("article *")].filter(e => {
      const box = e.getBoundingClientRect()
      return box.width && box.right > root.clientWidth + 1
    })
    const first = wide.slice(0, 3).map(e => e.outerHTML.slice(0, 80))
    faults.push(`${root.scrollWidth} px broad: ${first}`)
  }
  for (const image of document.querySelectorAll("article img"))
    if (!(image.alt || "").trim()) faults.push(`no alternative text: ${image.src.slice(0, 60)}`)
  for (const svg of document.querySelectorAll("article figure svg"))
    if (!(svg.getAttribute("aria-label") || "").trim() && !svg.querySelector(":scope > title"))
      faults.push("a figure without an alternative text")
  const fonts = [...document.fonts].filter(f => f.family.includes("Math"))
  if (document.querySelector("math") && !fonts.some(f => f.status === "loaded"))
    faults.push("the mathematics font is not loaded")
  const described = "dl.py.function > dt, dl.py.class > dt, dl.py.exception > dt"
  const callables = document.querySelectorAll(described)
  for (const name of callables)
    if (!name.querySelector(".viewcode-link")) faults.push(`no link to the source: ${name.id}`)
  if (callables.length && !document.querySelector(".doctest")) faults.push("no example")
  return faults
}"""
NEXT_FRAME = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
RESULTS = """() => [...document.querySelectorAll("ul.search > li")].map(
  li => [li.querySelector("a").href, li.querySelector(".context")?.innerText ?? ""])"""
AXE = """async ([part, rules]) => {
  const options = {resultTypes: ["violations"], preload: false}
  if (rules) options.runOnly = {type: "rule", values: rules}
  return (await axe.run(part, options)).violations.map(v => [
    v.id, v.impact, v.nodes.length,
    v.nodes[0].html.slice(0, 160) + " " + (v.nodes[0].any[0]?.message ?? "")])
}"""


def faults_of(page: Any, file: Path, axe: str, screenshots: Path | None) -> list[str]:
    """Return the faults of one page at every width and in every theme."""
    found: list[str] = []
    settings = ""
    page.on("console", lambda m: m.type in {"error", "warning"} and said(m.text))
    page.on("pageerror", lambda error: said(str(error)))
    page.on("request", lambda r: r.url.split(":")[0] in {"file", "data", "blob"} or said(r.url))

    def said(text: str) -> None:
        found.append(f"{settings}: {text}")

    for theme in THEMES:
        page.emulate_media(color_scheme=theme, reduced_motion="reduce")
        for width in WIDTHS:
            settings = f"{width} px, {theme}"
            page.set_viewport_size({"width": width, "height": 900})
            if not page.url.startswith("file"):
                page.goto(file.as_uri())
                page.evaluate("document.fonts.ready")
                page.evaluate(axe)
            page.evaluate(NEXT_FRAME)
            found += [f"{settings}: {fault}" for fault in page.evaluate(MEASURE)]
            found += [f"{settings}: {fault}" for fault in axe_faults(page, width, theme)]
            if screenshots:
                name = f"{file.parent.name}-{file.stem}-{width}-{theme}.png"
                page.screenshot(path=screenshots / name, full_page=True)
    return found


def axe_faults(page: Any, width: int, theme: str) -> list[str]:
    """Return what axe-core finds at a width in a theme.

    Navigation is checked once. Colours are the only difference between the themes, and are the same
    at all widths.
    """
    rules = ["color-contrast"] if theme == "dark" else None
    if rules and width != WIDTHS[0]:
        return []
    part = "body" if (width, theme) == (WIDTHS[0], THEMES[0]) else "[role=main]"
    return [
        f"axe {rule} ({impact}), {count} times: {node}"
        for rule, impact, count, node in page.evaluate(AXE, [part, rules])
        if impact in BAD
    ]


def search(page: Any, site: Path) -> list[str]:
    """Search for every phrase; return those that a reader does not find."""
    missed = []
    for phrase, expected in PHRASES.items():
        page.goto(f"{(site / 'search.html').as_uri()}?q={phrase.replace(' ', '+')}")
        page.wait_for_function("document.querySelector('.search-summary')?.innerText")
        results = page.evaluate(RESULTS)
        first = [(url, text) for url, text in results[:10] if expected in url]
        words = [word[:6] for word in phrase.lower().replace("-", " ").split()]
        if not any(all(word in text.lower() for word in words) for _, text in first):
            missed.append(f"search for {phrase!r}: {results[:3]}")
        print(f"{phrase!r}: {len(results)} pages, first {results[0][0] if results else None}")
    return missed


def browse(site: Path, files: list[Path], axe: str, chromium: str, shots: Path | None) -> Any:
    """Return the faults of some pages, by page; with no pages, those of the search."""
    from playwright.sync_api import sync_playwright

    found: dict[str, list[str]] = {}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for file in files:
            page = browser.new_page()
            found[str(file.relative_to(site))] = faults_of(page, file, axe, shots)
            page.close()
        if not files:
            found["search.html"] = search(browser.new_page(), site)
        browser.close()
    return found


def main() -> int:
    """Check a site; return 1 if it has faults."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("axe", type=Path)
    parser.add_argument("--chromium", default=shutil.which("chromium"))
    parser.add_argument("--screenshots", type=Path)
    parser.add_argument("--only", default="**/*.html", help="a pattern of pages")
    parser.add_argument(
        "--every", type=int, default=1, help="of the pages of names and sources every n-th alone"
    )
    options = parser.parse_args()
    if not options.chromium:
        print("the site is not checked: no chromium in PATH (apt-get install chromium)")
        return 1
    if options.screenshots:
        options.screenshots.mkdir(parents=True, exist_ok=True)
    start, site = time.monotonic(), options.site.resolve()
    pages = sorted(file for file in site.glob(options.only) if "_static" not in file.parts)
    generated = [file for file in pages if {"reference", "_modules"}.intersection(file.parts)]
    left_out = {*generated} - {*generated[:: options.every]}
    pages = [file for file in pages if file not in left_out]
    axe = options.axe.read_text(encoding="utf-8")
    with ProcessPoolExecutor(WORKERS) as pool:
        parts = [[], *(pages[i::PARTS] for i in range(PARTS))]
        jobs = [
            pool.submit(browse, site, part, axe, options.chromium, options.screenshots)
            for part in parts
            if part or options.only == "**/*.html"
        ]
        found = {name: faults for job in jobs for name, faults in job.result().items()}
    count = collections.Counter()
    for name, faults in sorted(found.items()):
        for fault in faults:
            count[" ".join(fault.split(": ")[1].split()[:2])] += 1
            print(f"{name}: {fault}")
    seconds = time.monotonic() - start
    print(f"{len(pages)} pages at {WIDTHS} px in {THEMES}, {seconds:.0f} s, faults: {dict(count)}")
    return 1 if any(found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
