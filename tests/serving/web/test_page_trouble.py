"""The page with what goes wrong: odd files, hasty people, a server that goes away."""

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile
from helpers import write_image
from web_helpers import SAYS, Page, serving

from omnitune.serving.web.pages import PageModel


def give(page: Page, file: Path, kind: str = "image") -> None:
    page.driver.find_element("css selector", f"input[data-kind={kind}]").send_keys(str(file))


@pytest.mark.parametrize(
    ("name", "content", "kind", "words"),
    [
        ("empty.png", b"", "image", "empty.png is empty."),
        ("text.png", b"only words", "image", "text.png: is not an image"),
        ("text.wav", b"only words", "audio", "text.wav: "),
        ("picture.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image", "is not an image"),
        ("huge.png", None, "image", "huge.png has 40 MB; this server takes 24 MB."),
    ],
)
def test_a_file_is_refused_before_it_is_asked_about(
    page: Page, tmp_path: Path, name: str, content: bytes | None, kind: str, words: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content or b"")
    if content is None:
        with file.open("wb") as huge:
            huge.truncate(40 << 20)
    give(page, file, kind)
    page.until(lambda: words in page.told())
    assert not page.all("#attached li")


def test_pictures_and_sounds_that_browsers_cannot_show(
    page: Page, files: Path, tmp_path: Path
) -> None:
    """TIFF is seen and AIFF is heard; the model is sent the files as they are."""
    picture = write_image(tmp_path / "a.tif", size=40)
    wave, rate = soundfile.read(files / "a.wav")
    soundfile.write(tmp_path / "a.aiff", wave, rate, format="AIFF")
    page.driver.execute_script(SAYS, "yes", 0)
    give(page, picture)
    image = page.one("#attached img")
    size = "return arguments[0].complete && arguments[0].naturalWidth"
    assert page.until(lambda: page.driver.execute_script(size, image)) == 40
    give(page, tmp_path / "a.aiff", "audio")
    page.until(lambda: page.one("#attached .sound .time").text == "0:00")
    page.ask("what is it?")
    page.until(lambda: page.all("#kept .title"))
    [asked] = page.driver.execute_script("return window.asked")
    assert asked["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/tiff;")
    page.driver.refresh()
    page.until(lambda: page.all(".turn img"))
    assert page.driver.execute_script(size, page.one(".turn img")) == 40


def test_thirty_fast_clicks(page: Page) -> None:
    page.driver.execute_script(SAYS, "one answer", 5)
    page.type("hello")
    page.driver.execute_script(
        "for (let n = 0; n < 30; n++) document.getElementById('send').click()"
    )
    assert page.answers() == ["one answer"]
    assert len(page.all(".turn")) == 1
    for name in ("compare", "history", "theme", "new", "card"):
        many = "button.focus(); for (let n = 0; n < 30; n++) button.click()"
        page.driver.execute_script(f"const button = document.getElementById('{name}'); {many}")
    page.until(lambda: page.all("#side-panel"))
    page.press("Close", "dialog[open]")
    assert page.ask("again")
    errors = [one["message"] for one in page.driver.get_log("browser")]
    assert not [one for one in errors if "Uncaught" in one]


def test_leaving_a_conversation_in_mid_answer(page: Page) -> None:
    """The old answer neither goes on in the new conversation nor ends its answer."""
    page.driver.execute_script(SAYS, "slow " * 1000, 30)
    page.type("first\n")
    page.until(lambda: page.all(".answer.running"))
    page.press("New")
    page.until(lambda: not page.all(".turn"))
    page.driver.execute_script(SAYS, "quick", 0)
    assert page.ask("second") == ["quick"]
    page.until(lambda: len(page.all("#kept .title")) == 2)
    page.all("#kept .title")[1].click()
    page.until(lambda: page.one(".mine .bubble").text == "first")
    assert "stopped" in page.one(".answer .row").text


def test_an_answer_that_breaks_off_says_so(page: Page) -> None:
    page.driver.execute_script(SAYS, "half an ans", 0, True)
    assert page.ask("hello") == ["half an ans"]
    assert "The answer broke off" in page.one(".answer .problem").text
    page.driver.execute_script(SAYS, "whole", 0)
    page.press("Regenerate")
    page.until(lambda: page.answers() == ["whole"])
    assert not page.all(".answer .problem")


def test_a_server_that_stops_is_told(browser: Any, spare: PageModel) -> None:
    with serving([spare]) as address:
        page = Page(browser, address)
        page.open()
        assert page.ask("hello")
    page.ask("still there?")
    assert "cannot be reached" in page.one(".answer .problem").text


def test_timings_of_an_answer(page: Page) -> None:
    page.driver.execute_script(SAYS, "a" * 40, 20)
    page.ask("hello")
    count, per_second, begin = page.one(".answer .facts-line").text.split(" · ")
    assert count.startswith("10 tokens in ")
    seconds, rate, first = (
        float(re.findall(r"[\d.]+", words)[-1]) for words in (count, per_second, begin)
    )
    assert 0.01 < first < seconds  # a token each 20 ms; a busy machine takes longer
    assert seconds > 0.15
    assert (rate + 0.5) * (seconds - first + 0.01) >= 9  # as they are rounded


def test_a_system_prompt_and_a_copy(page: Page) -> None:
    page.driver.execute_script(SAYS, "**fine**", 0)
    page.press("Settings")
    page.one("#system").send_keys("Be brief.")
    page.one("#markdown").click()
    page.press("Close", "dialog[open]")
    assert page.ask("hello") == ["fine"]
    [asked] = page.driver.execute_script("return window.asked")
    assert asked["messages"][0] == {"role": "system", "content": "Be brief."}
    page.driver.execute_cdp_cmd(
        "Browser.grantPermissions",
        {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]},
    )
    page.press("Copy")
    page.until(lambda: "Copied" in page.one(".answer .row").text)
    copied = page.driver.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied == "**fine**"
