"""The explorer as people have it: its own process, and a real browser without a window."""

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

START_UP, ANSWER = 120.0, 60.0
"""Seconds that a server may take to start, and the page to come to rest: for a machine that does other things."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-features=BackForwardCache",
    "--window-size=1280,800",
)


class Page:
    """What a person does with the page, and what the page shows."""

    def __init__(self, driver, address: str) -> None:
        self.driver = driver
        self.address = address

    def open(self, query: str = "") -> "Page":
        # Another page in between, so that the same address is loaded anew.
        self.driver.get("about:blank")
        self.driver.get(f"{self.address}?{query}" if query else self.address)
        return self.rest()

    def rest(self, *panels: str) -> "Page":
        """Wait until what some panels show is drawn, by default the numbers, the landscape and the stopping times."""
        panels = panels or ("results", "stopping-panel")
        calm = " && ".join(
            f"document.getElementById('{name}')?.getAttribute('aria-busy') === 'false'" for name in panels
        )
        self.until(f"return {calm}", 0.1)
        return self

    def until(self, script: str, still: float = 0.0):
        """Wait until a script returns something true, for so many seconds without a break."""
        end, since = time.monotonic() + ANSWER, None
        while time.monotonic() < end:
            value = self.driver.execute_script(script)
            now = time.monotonic()
            since = (since or now) if value else None
            if since is not None and now - since >= still:
                return value
            time.sleep(0.03)
        raise AssertionError(
            f"the page did not come to: {script}; it says: {self.text('notice')} {self.text('status')}"
        )

    def element(self, identifier: str, part: str = ""):
        """Return an element by its id; a field of a control by the control's name and the part."""
        if part:
            identifier = f'{{"name":"{identifier}","part":"{part}"}}'
        return self.with_id(identifier)

    def with_id(self, identifier: str):
        # Selenium's own search by id does not quote what it is given.
        return self.driver.find_element("css selector", f"[id='{identifier}']")

    def text(self, identifier: str, part: str = "") -> str:
        return self.element(identifier, part).get_attribute("textContent")

    def number(self, identifier: str) -> float:
        words = self.text(identifier).replace("−", "-").replace("∞", "inf").replace("–", "nan")
        return float(words)

    def query(self) -> str:
        """Return the address's query once it has followed the scene."""
        time.sleep(0.4)
        return self.driver.execute_script("return window.location.search.slice(1)")

    def field(self, name: str, part: str = "number") -> str:
        return self.element(name, part).get_property("value")

    def type(self, name: str, text: str, part: str = "number") -> "Page":
        from selenium.webdriver.common.keys import Keys

        self.element(name, part).send_keys(Keys.CONTROL, "a", Keys.NULL, text, Keys.ENTER)
        return self.rest()

    def choose(self, name: str, words: str, part: str = "choice") -> "Page":
        """Open a list and click on one of its options."""
        self.element(name, part).click()
        self.until("return document.querySelector('.dash-dropdown-content')")
        for option in self.driver.find_elements("css selector", ".dash-dropdown-content .dash-dropdown-option"):
            if option.text == words:
                option.click()
                return self.rest()
        raise AssertionError(f"{name} does not offer {words}")

    def press(self, identifier: str) -> None:
        self.element(identifier).click()

    def element_of_file(self, kind: str):
        """Return the button that saves something."""
        return self.with_id(f'{{"file":"{kind}"}}')

    def wait_for_file(self, path: Path) -> None:
        """Wait until a download is complete: Chromium gives it its name then."""
        end = time.monotonic() + ANSWER
        while time.monotonic() < end:
            if path.exists() and path.stat().st_size:
                return
            time.sleep(0.05)
        raise AssertionError(f"{path.name} was not saved; the page says: {self.text('notice-text')}")

    def errors(self) -> list[str]:
        """Return what the browser's console has to complain about since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def program(name: str) -> str:
    """Return where a program is; without it the test is skipped, and fails where everything has to be tested."""
    path = shutil.which(name)
    if path is None:
        message = f"{name} is not installed: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return path


@contextmanager
def serving() -> Iterator[str]:
    """Start ``odestop explore``, give its address, and end it with Ctrl-C."""
    command = [sys.executable, "-m", "odestop", "explore", "--no-browser", "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A job in the background ignores Ctrl-C, and hands that on.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://\S+/", line)
        assert found, line + (process.stdout.read() if process.poll() is not None else "")
        yield found[0]
        process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    assert process.returncode == 0, output
    assert output == "", "the server writes nothing but its address"


@contextmanager
def browsing(profile: Path, downloads: Path) -> Iterator[object]:
    """Start Chromium with an empty profile; nothing is downloaded for it."""
    chromium, chromedriver = program("chromium"), program("chromedriver")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    # A script that is saved is no danger here.
    preferences = {"download.default_directory": str(downloads), "safebrowsing.enabled": True}
    options.add_experimental_option("prefs", preferences)
    driver = webdriver.Chrome(options=options, service=Service(executable_path=chromedriver))
    driver.set_script_timeout(ANSWER)
    try:
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    with serving() as address:
        yield address


@pytest.fixture(scope="session")
def downloads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory, downloads: Path) -> Iterator[object]:
    with browsing(tmp_path_factory.mktemp("profile"), downloads) as driver:
        yield driver


@pytest.fixture
def page(driver, address: str) -> Iterator[Page]:
    """The page, not opened yet; afterwards its console has to be empty."""
    page = Page(driver, address)
    page.errors()
    yield page
    assert page.errors() == []
