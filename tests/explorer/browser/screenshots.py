"""Pictures of every scene: ``python -m tests.explorer.browser.screenshots FOLDER``, light and dark, in two sizes.

With ``--docs`` it renews the two in ``docs/images`` instead.
"""

import sys
import tempfile
from pathlib import Path

from odestop.explorer.presets import PRESETS
from tests.explorer.browser.conftest import Page, browsing, serving

DOCS = Path(__file__).parents[3] / "docs" / "images"
SIZES, THEMES = ((1280, 800), (1920, 1080)), ("light", "dark")
EVERYTHING = ("results", "stopping-panel", "errors-panel")


def set_size(driver, width: int, height: int) -> None:
    """Make the page, not the window, this large."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def photograph(page: Page, scene: str, theme: str, path: Path) -> None:
    page.open(f"scene={scene}")
    if page.driver.execute_script("return document.documentElement.dataset.theme") != theme:
        page.press("toggle-theme")
    page.rest(*EVERYTHING)
    page.driver.save_screenshot(str(path))
    print(path)


def main(arguments: list[str]) -> None:
    for_docs = arguments == ["--docs"]
    folder = DOCS if for_docs else Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    with serving() as address:
        for size in SIZES[:1] if for_docs else SIZES:
            profile = Path(tempfile.mkdtemp())
            with browsing(profile, profile) as driver:
                set_size(driver, *size)
                page = Page(driver, address)
                if for_docs:
                    photograph(page, "figure-1", "light", folder / "explorer_light.png")
                    photograph(page, "overshooting-heavy-ball", "dark", folder / "explorer_dark.png")
                    continue
                for theme in THEMES:
                    for scene in PRESETS:
                        photograph(page, scene, theme, folder / f"{scene}_{size[0]}x{size[1]}_{theme}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
