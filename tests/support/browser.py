"""A headless browser for tests; `python -m tests.support.browser` makes the README's picture."""

import shutil
import subprocess
import tempfile
from pathlib import Path

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
PICTURE = Path(__file__).parents[2] / "benchmarks" / "pictures" / "mobilenet.png"


def browse(*arguments):
    """Runs the browser, with a profile that is forgotten."""
    with tempfile.TemporaryDirectory() as profile:
        command = [
            BROWSER,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--host-resolver-rules=MAP * ~NOTFOUND",  # nothing that it asks for leaves the machine
            "--hide-scrollbars",
            f"--user-data-dir={profile}",
            *arguments,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


def screenshot(page, target, size, dark, *arguments):
    """A picture of the upper part of a page."""
    return browse(
        f"--window-size={size[0]},{size[1]}",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}",
        f"--screenshot={target}",
        *arguments,
        page.as_uri(),
    )


def make_picture(target):
    """The README's picture: the report of MobileNet, with random weights that stay the same."""
    import keras

    import graphwd

    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(weights=None, name="mobilenet")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        graphwd.plan(model, graphwd.Policy.recipe("mobilenet")).save_html(page)
        screenshot(page, target, (1200, 980), False)


if __name__ == "__main__":
    PICTURE.parent.mkdir(exist_ok=True)
    make_picture(PICTURE)
