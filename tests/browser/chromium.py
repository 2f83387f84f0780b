"""Chromium on a site: opens pages, waits, and keeps what went wrong."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.select import Select

CHROMIUM, DRIVER = "/usr/bin/chromium", "/usr/bin/chromedriver"  # Debian: chromium, chromium-driver
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
PATIENCE = 30.0  # seconds; a machine with other work is slow, a page that is wrong stays wrong


@contextmanager
def started(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start Chromium and end it.

    Args:
        profile: an empty folder for what it keeps.

    Raises:
        WebDriverException: it is not installed, or does not start.
    """
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    try:
        yield driver
    finally:
        driver.quit()


class Browser:
    """Chromium on one site: opens pages, waits, keeps what went wrong.

    Args:
        driver: of Selenium.
        site: folder.
    """

    def __init__(self, driver: webdriver.Chrome, site: Path) -> None:
        self.driver, self.site = driver, site

    def open(self, page: str, width: int = 1400, theme: str = "light") -> None:
        """Open a page of the site."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        colours = [{"name": "prefers-color-scheme", "value": theme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": colours})
        self.driver.get("about:blank")  # a hash alone would not load the page anew
        self.driver.get(f"file://{self.site}/{page}")
        ready = "document.readyState === 'complete' && location.pathname === arguments[0]"
        self.until(ready, (self.site / page.partition("#")[0]).as_posix())

    def run(self, script: str, *values: Any) -> Any:
        """Return what a script returns."""
        return self.driver.execute_script(script, *values)

    def all(self, selector: str, what: str = "innerText") -> list[Any]:
        """Return a property of each element."""
        script = "return [...document.querySelectorAll(arguments[0])].map(e => e[arguments[1]])"
        return self.run(script, selector, what)

    def click(self, selector: str) -> None:
        """Click on the first element that fits, as a reader does."""
        element = self._one(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def press(self, selector: str, keys: str) -> None:
        """Press keys in the first element that fits."""
        self._one(selector).send_keys(keys)

    def choose(self, selector: str, words: str) -> None:
        """Choose an option by its words."""
        Select(self._one(selector)).select_by_visible_text(words)

    def _one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def until(self, script: str, *values: Any) -> Any:
        """Wait until an expression is true, and return its value."""
        end = time.monotonic() + PATIENCE
        while not (value := self.run(f"return {script}", *values)):
            assert time.monotonic() < end, f"still not true after {PATIENCE} s: {script}"
            time.sleep(0.05)
        return value

    def drawn(self) -> None:
        """Scroll through the page until all of its charts and pictures are there."""
        self.until(
            "[...document.querySelectorAll('.chart[data-spec]:not([data-drawn])')]"
            ".map(c => c.scrollIntoView()).length === 0"
        )
        self.until(
            "[...document.images].filter(i => i.checkVisibility() && !(i.complete && "
            "i.naturalWidth)).map(i => i.scrollIntoView()).length === 0"
        )

    def picture(self, file: Path, width: int) -> None:
        """Save the page down to its end."""
        high = self.run("return document.documentElement.scrollHeight")
        size = {"width": width, "height": min(high, 4000), "deviceScaleFactor": 1}
        mobile = {"mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size | mobile)
        self.run("scrollTo(0, 0)")
        file.parent.mkdir(parents=True, exist_ok=True)
        assert self.driver.save_screenshot(str(file))

    def complaints(self) -> list[str]:
        """Return what the console said, and requests that left the folder, since the last call."""
        said = [entry["message"] for entry in self.driver.get_log("browser")]
        events = [json.loads(e["message"])["message"] for e in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        home = (f"file://{self.site}/", "data:", "about:", "chrome")  # the last: its first page
        return said + [url for url in asked if not url.startswith(home)]
