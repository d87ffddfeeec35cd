"""Pictures of what a reviewer sees of a finished study: its page, and MLflow's.

python -m benchmarks.screenshots outputs/digits_cnn-cpu-001 docs/images
"""

import contextlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

CHROMIUM = "chromium"  # Debian's
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
_CLOSE_ASSISTANT = 'localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true")'
_LOADED_MS = 150_000


@contextlib.contextmanager
def browser_page(width: int, height: int) -> Iterator[Page]:
    """A page of a fresh headless browser, in which MLflow's assistant has been closed once."""
    path = shutil.which(CHROMIUM)
    if path is None:
        raise SystemExit(f"{CHROMIUM} is not installed; apt-get install --no-install-recommends {CHROMIUM}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=list(FLAGS))
        page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=1.25)
        page.set_default_timeout(_LOADED_MS)
        page.add_init_script(_CLOSE_ASSISTANT)
        yield page
        browser.close()


@contextlib.contextmanager
def served(*overrides: str) -> Iterator[dict[str, str]]:
    """The addresses that `tune ui` prints, by what they show, while it runs."""
    command = [sys.executable, "-m", "tuner.cli", "ui", *overrides]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        addresses = {}
        assert process.stdout is not None
        for line in process.stdout:
            name, _, address = line.strip().rpartition(" ")
            if not address.startswith("http"):
                break
            addresses[name.strip()] = address
        try:
            yield addresses
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def main() -> None:
    study, images = Path(sys.argv[1]).absolute(), Path(sys.argv[2])
    images.mkdir(parents=True, exist_ok=True)
    with browser_page(1100, 1440) as page:
        page.goto((study / "report.html").as_uri())
        page.screenshot(path=images / "report.png")
    with served(f"out_dir={study.parent}") as addresses:
        for name, address, sign in (
            ("mlflow", addresses["every trial"], "text=accuracy_drop"),
            ("mlflow-charts", addresses["charts"], "svg.main-svg"),
            ("mlflow-verdict", addresses["latest verdict"], "text=How surely"),
        ):
            with browser_page(1900, 1000) as page:
                page.goto(address)
                page.locator(sign).first.wait_for()
                page.wait_for_timeout(3000)  # the charts move into place
                page.screenshot(path=images / f"{name}.png")


if __name__ == "__main__":
    main()
