"""Film the attention view for README.md: python tools/moving_picture.py (needs Chromium).

A page of the shipped model is opened, with no network; a pointer goes over tokens and heads; every
frame is what the browser shows.
"""

import io
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw
from playwright.sync_api import Page, sync_playwright

from zeta_edu import load_pretrained
from zeta_edu.views import attention_view

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "attention.gif"
CODE = "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n"
WIDTH, HEIGHT = 900, 810
HEADS = (8, 15, 21, 26, 33)  # of the grid, row by row
TOKENS = (3, 6, 11, 14, 19, 23)


def main() -> None:
    """Write the picture, and say how large it is."""
    model, _ = load_pretrained("python-small")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = attention_view(model, CODE).save(Path(folder) / "page.html")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(path.as_uri())
        frames = list(film(page))
        browser.close()
    first, *others = [frame.quantize(96, dither=Image.Dither.NONE) for frame in frames]
    first.save(PICTURE, save_all=True, append_images=others, duration=650, loop=0, optimize=True)
    print(f"{PICTURE.name}: {len(frames)} frames, {PICTURE.stat().st_size / 1e6:.1f} MB")


def film(page: Page) -> Iterator[Image.Image]:
    """The page as it is, then with the pointer on tokens and heads in turn."""
    page.wait_for_selector(".row button")
    heads, tokens = page.locator(".row button"), page.locator(".strip .token")
    for head in HEADS:
        chosen = heads.nth(head % heads.count())
        chosen.click()
        yield picture(page, chosen)
        for token in TOKENS:
            picked = tokens.nth(token)
            picked.click()
            yield picture(page, picked)


def picture(page: Page, under: Any) -> Image.Image:
    """What the browser shows, with the pointer, which it leaves out."""
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    box = under.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    arrow = [(0, 0), (0, 17), (4, 13), (7, 19), (10, 18), (7, 12), (12, 12)]
    corners = [(x + dx, y + dy) for dx, dy in arrow]
    ImageDraw.Draw(image).polygon(corners, fill="black", outline="white")
    return image


if __name__ == "__main__":
    main()
