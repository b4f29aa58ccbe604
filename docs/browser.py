"""Look at the built pages in headless Chromium, at two widths, light and dark.

    make docs && python docs/browser.py                     # every page
    python docs/browser.py index.html --pictures runs/look  # one, with pictures

A page fails if it scrolls sideways, if a line of code is longer than its box, if text is hardly
told from its ground, or if a picture is missing. Tables may scroll inside of their frame. Needs
selenium, Chromium and its driver.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from selenium import webdriver

BUILT = Path(__file__).parent / "_build" / "html"
WIDTHS = (1300, 390)  # a laptop and a phone
# Everything is asked of the page as it is laid out; each complaint is one line.
ASK = """
const said = [], wide = document.documentElement.clientWidth;
const name = e => e.tagName.toLowerCase() + (e.className ? '.' + String(e.className).split(' ')[0]
    : '') + ' "' + (e.textContent || e.alt || '').trim().slice(0, 40) + '"';
const shown = e => e.checkVisibility && e.checkVisibility();
const scrolls = e => { for (; e && e !== document.body; e = e.parentElement)
    if (['auto', 'scroll'].includes(getComputedStyle(e).overflowX)) return true; return false; };
if (document.documentElement.scrollWidth > wide) said.push('scrolls sideways: '
    + document.documentElement.scrollWidth + ' of ' + wide + ' px');
const main = document.querySelector('article') || document.body;
for (const e of main.querySelectorAll('p, li, h1, h2, h3, pre, img, table, dt, code, .sd-card')) {
    if (!shown(e)) continue;
    const box = e.getBoundingClientRect();
    if (box.right > wide + 1 && !scrolls(e)) said.push('leaves the page: ' + name(e));
    if (e.tagName === 'IMG' && e.naturalWidth === 0) said.push('no picture: ' + e.src);
}
for (const e of main.querySelectorAll('pre'))
    if (shown(e) && e.scrollWidth > e.clientWidth + 1) said.push('code overflows: ' + name(e));
const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const ground = e => { for (; e; e = e.parentElement) {
    const c = getComputedStyle(e).backgroundColor;
    if (!/, 0\\)|transparent/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
const pale = new Set();
for (const e of main.querySelectorAll('p, li, h1, h2, td, th, pre span')) {
    if (!shown(e) || !e.textContent.trim()) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(ground(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 3) pale.add(name(e));
}
for (const e of [...pale].slice(0, 3)) said.push('hardly legible: ' + e);
return said;
"""


def browser(width: int, dark: bool) -> webdriver.Chrome:
    """Return a browser without a window, as wide as asked for."""
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    # Those of this machine: selenium would ask the net for others.
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    # A window is never narrower than 500 px: the page is told what it shall believe.
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    return driver


def look(page: Path, driver: webdriver.Chrome, picture: Path | None) -> list[str]:
    """Return what is wrong with a page; keep a picture of it if a file is named."""
    driver.get(page.resolve().as_uri())
    said: list[str] = driver.execute_script(ASK)
    if picture is not None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        driver.save_screenshot(str(picture))
    return said


def main(pages: list[Path], pictures: Path | None) -> int:
    """Look at all pages; return how many complaints there are."""
    found = 0
    for width in WIDTHS:
        for dark in (False, True):
            driver = browser(width, dark)
            try:
                for page in pages:
                    tag = f"{page.parent.name}-{page.stem}-{width}-{'dark' if dark else 'light'}"
                    kept = None if pictures is None else pictures / f"{tag}.png"
                    for complaint in look(page, driver, kept):
                        found += 1
                        sys.stdout.write(f"{page.name} at {tag.partition('-')[2]}: {complaint}\n")
            finally:
                driver.quit()
    sys.stdout.write(f"{len(pages)} pages, {2 * len(WIDTHS)} looks each: {found} complaints\n")
    return found


def arguments() -> dict[str, Any]:
    """Return the pages and the folder for pictures that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "pages", nargs="*", type=Path, help="HTML files (default: all that are built)"
    )
    parser.add_argument("--pictures", type=Path, help="a folder for a picture of each look")
    args = parser.parse_args()
    pages = [p if p.exists() else BUILT / p for p in args.pages] or sorted(BUILT.rglob("*.html"))
    return {"pages": pages, "pictures": args.pictures}


if __name__ == "__main__":
    sys.exit(1 if main(**arguments()) else 0)
