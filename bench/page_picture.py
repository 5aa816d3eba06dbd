"""Take the picture of `cogview serve`'s page that README shows.

    python bench/page_picture.py --picture docs/images/serve.png

It begins a server of its own with the bundled model and an empty history, draws a few texts with fixed seeds in
Chromium, and takes the page as it is then. Letters are those of this machine's fonts: install some that look well
(fonts-inter and fonts-noto-cjk were there).
"""

import argparse
import io
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

EARLIER = (
    ("橙色背景上的一艘帆船", 1),
    ("three strawberries on a yellow background", 5),
    ("蓝色背景上，一只企鹅在一个雪人的左边", 1),
    ("a birthday cake and a gift on a pink background", 1),
)
SHOWN = ("a guitar and a drum on a purple background", 1)
MILLISECONDS = 120_000


def draw(page: Page, text: str, seed: int) -> None:
    """Have the best four of eight pictures drawn, and wait for them."""
    page.locator("#text").fill(text)
    page.locator("#seed").fill(str(seed))
    page.locator("#seed").press("Enter")
    page.locator("#stop").wait_for()
    page.locator(".stage-tools[data-shown=over]").wait_for()


def taken(url: str, width: int, height: int) -> bytes:
    """Return the page as a PNG after a few pictures were drawn."""
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=shutil.which("chromium"))
        context = browser.new_context(
            viewport={"width": width, "height": height},
            locale="en-GB",
            color_scheme="light",
            reduced_motion="reduce",
        )
        page = context.new_page()
        page.set_default_timeout(MILLISECONDS)
        page.goto(url)
        page.locator("body[data-ready]").wait_for()
        page.locator("#settings-button").click()
        for text, seed in (*EARLIER, SHOWN):
            draw(page, text, seed)
        page.locator("#seed").fill("")
        page.locator("#settings-button").click()
        page.locator("body").click(position={"x": 2, "y": 2})
        page.evaluate("Promise.all([...document.images].map((image) => image.decode()))")
        data = page.screenshot()
        browser.close()
    return data


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--picture", type=Path, required=True, help="a PNG to write")
    arguments.add_argument("--width", type=int, default=1280, help="of the window, in pixels")
    arguments.add_argument("--height", type=int, default=960, help="of the window, in pixels")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as data:
        command = [sys.executable, "-m", "cogview", "serve", "--port", "0", "--data", data]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                found = re.search(r"http://\S+", server.stdout.readline())
                if found is None:
                    raise SystemExit("the server did not begin")
                file = taken(found[0], chosen.width, chosen.height)
            finally:
                server.terminate()
    with Image.open(io.BytesIO(file)) as opened:
        # 256 colours are enough for it, and a fraction of the bytes.
        opened.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(chosen.picture, optimize=True)


if __name__ == "__main__":
    main()
