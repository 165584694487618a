"""A server and a browser for the tests of the page."""

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from waiting import PATIENCE, wait_until

from omnitune.serving.api.app import build_app
from omnitune.serving.api.server import listen
from omnitune.serving.served import Served
from omnitune.serving.web.pages import PageModel, add_pages

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
AXE = Path(str(files("axe_core_python"))) / "axe.min.js"
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",  # a microphone that beeps
    "--use-fake-ui-for-media-stream",
    "--window-size=1200,900",
)
LIMIT = 24  # tokens of an answer


@contextlib.contextmanager
def serving(models: Sequence[PageModel], **options: Any) -> Iterator[str]:
    """Serves models with their page on a free port; gives its address."""
    app = build_app([model.served for model in models], **options)
    add_pages(app, models)
    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join(PATIENCE)
    listener.close()


def open_browser(profile: Path) -> Any:
    """A headless Chromium; skips the test where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (CHROMIUM and DRIVER):
        pytest.skip("there is no chromium or no chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(PATIENCE)
    return driver


class Page:
    """The page as its user sees it: what is visible can be pressed and read."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver, self.address = driver, address

    def open(self) -> None:
        self.driver.get(self.address)
        self.driver.execute_script("localStorage.clear(); sessionStorage.clear()")
        self.forget()
        self.driver.get(self.address)
        self.until(lambda: self.all("#media-buttons button"))

    def forget(self) -> None:
        """Empties what the browser keeps of conversations."""
        self.driver.execute_async_script(
            "const done = arguments[0];"
            "import('/history.js').then((history) => history.clear()).then(() => done())"
        )

    def all(self, selector: str) -> list[Any]:
        found = self.driver.find_elements("css selector", selector)
        return [element for element in found if element.is_displayed()]

    def one(self, selector: str) -> Any:
        return self.until(lambda: self.all(selector))[0]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Waits for something that is there; elements may come late, or be drawn anew meanwhile."""
        from selenium.common.exceptions import StaleElementReferenceException

        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(StaleElementReferenceException, IndexError):
                if found := condition():
                    return found
            time.sleep(0.03)
        raise AssertionError(f"in vain; the page says: {self.one('body').text}")

    def press(self, name: str, inside: str = "body") -> None:
        """Presses the last visible button of this text or label."""

        def named() -> list[Any]:
            buttons = self.all(f"{inside} button")
            return [b for b in buttons if name in (b.text, b.get_attribute("aria-label"))]

        self.until(lambda: [b for b in named() if b.is_enabled()])[-1].click()

    def choose(self, *files: Path) -> None:
        """Chooses files with the button of their kind, and waits until they are attached."""
        for file in files:
            kind = "audio" if file.suffix == ".wav" else "image"
            field = self.driver.find_element("css selector", f"input[data-kind={kind}]")
            before = len(self.all("#attached li"))
            field.send_keys(str(file))
            self.until(lambda before=before: len(self.all("#attached li")) > before)

    def type(self, text: str) -> None:
        self.one("#text").send_keys(text)

    def ask(self, text: str, *files: Path) -> list[str]:
        """Asks and waits for the answers."""
        turns = len(self.all(".turn"))
        self.choose(*files)
        self.type(text)
        self.press("Send")
        self.until(lambda: len(self.all(".turn")) == turns + 1)
        return self.answers()

    def answers(self) -> list[str]:
        """The answers of the last turn, once they are complete."""
        self.until(lambda: self.all("#send") and not self.all(".answer.running"))
        return [said.text for said in self.all(".turn:last-child .answer .said")]

    def told(self) -> str:
        """What the page says is wrong."""
        return str(self.one("#notice").text)

    def look(self, dark: bool = False, width: int = 1200) -> None:
        """Sets light or dark, and the width of the screen."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size = {"width": width, "height": 860, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)

    def violations(self) -> list[str]:
        """What axe finds serious or worse on the page as it is."""
        self.driver.execute_cdp_cmd("Runtime.evaluate", {"expression": AXE.read_text()})
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run(document, {resultTypes: ['violations']}).then((r) => done(r.violations))"
        )
        return [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]


def page_model(name: str, chat: Any, path: Path) -> PageModel:
    """A model for the page."""
    return PageModel(Served(name, chat), path)


# Answers of the page's own: what a model would say, in pieces of four letters, so many
# milliseconds apart; then the stream ends as a server ends it, or breaks off.
SAYS = """
window.realFetch ??= window.fetch;
const [text, wait, breaks] = arguments, coder = new TextEncoder();
const event = (value) => coder.encode(`data: ${JSON.stringify(value)}\\n\\n`);
window.asked = [];
window.fetch = (path, options) => {
  if (!String(path).includes("chat/completions")) return window.realFetch(path, options);
  window.asked.push(JSON.parse(options.body));
  const pieces = text.match(/[^]{1,4}/g) ?? [];
  return Promise.resolve(new Response(new ReadableStream({
    async start(out) {
      options.signal.addEventListener("abort", () => out.error(options.signal.reason));
      for (const content of pieces) {
        if (wait) await new Promise((done) => setTimeout(done, wait));
        out.enqueue(event({ choices: [{ delta: { content } }] }));
      }
      if (breaks) { out.close(); return; }
      const usage = { completion_tokens: pieces.length };
      out.enqueue(event({ choices: [{ delta: {}, finish_reason: "stop" }], usage }));
      out.enqueue(coder.encode("data: [DONE]\\n\\n"));
      out.close();
    },
  })));
};
"""
