"""The page in a real browser, as its user meets it."""

import json
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from web_helpers import LIMIT, Page, serving

from omnitune.serving.web.pages import PageModel


def said(model: PageModel, text: str, **media: Any) -> str:
    """What the model says to Python, as a page shows it."""
    answer = model.served.model.chat(text, max_new_tokens=LIMIT, **media)
    return " ".join(answer.split())


def plain(answers: list[str]) -> list[str]:
    return [" ".join(answer.split()) for answer in answers]


def test_a_picture_a_sound_and_both(page: Page, models: list[PageModel], files: Path) -> None:
    picture, sound = files / "a.png", files / "a.wav"
    answers = [
        page.ask("what is it?", picture),
        page.ask("", sound),
        page.ask("what is it?", picture, sound),
    ]
    right = [
        said(models[0], "what is it?", image=picture),
        said(models[0], "", image=picture, audio=sound),
        said(models[0], "what is it?", image=picture, audio=sound),
    ]
    # The picture moves along to the sound; a second one begins a new conversation.
    assert plain([one for [one] in answers]) == right
    notes = [note.text for note in page.all(".answer .note")]
    assert [note.partition(":")[0] for note in notes] == [
        "The model reads from here on, with a.png",
        "A new conversation for the model",
    ]
    assert len(page.all(".mine img")) == 2
    assert len(page.all(".mine .sound canvas")) == 2


def test_a_transcript_stands_under_its_sound(
    page: Page, models: list[PageModel], files: Path
) -> None:
    page.ask("what is it?", files / "a.wav")
    page.press("Transcribe")
    words = page.one(".transcript q").text.strip('“”" ')
    right = models[0].served.model.transcribe(files / "a.wav")
    assert words.split() == right.split()


def test_two_models_side_by_side(page: Page, models: list[PageModel], files: Path) -> None:
    page.press("Compare")
    answers = page.ask("what is it?", files / "a.png")
    right = [said(model, "what is it?", image=files / "a.png") for model in models]
    assert plain(answers) == right
    assert [title.text for title in page.all(".answer h3")] == ["model-1", "model-2"]
    one, other = (box.rect for box in page.all(".answer"))
    assert one["y"] == other["y"]


def test_later_turns_know_the_earlier_ones(page: Page, models: list[PageModel]) -> None:
    [first] = page.ask("hello")
    [second] = page.ask("and now?")
    chat = models[0].served.model
    history = [{"role": "user", "content": "hello"}]
    first_said = chat.chat("hello", max_new_tokens=LIMIT)
    history.append({"role": "assistant", "content": first_said})
    right = chat.chat("and now?", messages=history, max_new_tokens=LIMIT)
    assert plain([first, second]) == plain([first_said, right])


def test_stop_and_regenerate(page: Page, models: list[PageModel], held: threading.Event) -> None:
    page.type("what is the sky?")
    page.press("Send")
    page.until(lambda: page.all(".answer .said")[0].text)
    page.press("Stop")
    [begun] = page.answers()
    held.set()
    whole = said(models[0], "what is the sky?")
    assert plain([begun])[0] != whole
    assert "stopped" in page.one(".answer .row").text
    scheduler = models[0].served.engine.scheduler
    page.until(lambda: scheduler.idle)  # its place is free again
    page.press("Regenerate")
    page.until(lambda: plain(page.answers()) == [whole])


def test_escape_stops_too(page: Page, held: threading.Event) -> None:
    page.type("what is the sky?\n")
    page.until(lambda: page.all(".answer .said")[0].text)
    page.type("\ue00c")
    page.answers()
    assert "stopped" in page.one(".answer .row").text


def test_an_edited_question_is_asked_anew(page: Page, models: list[PageModel]) -> None:
    page.ask("hello")
    page.ask("and now?")
    page.all(".mine .row button")[0].click()
    field = page.one(".mine textarea")
    field.clear()
    field.send_keys("what is the sky?\n")
    page.until(lambda: len(page.all(".turn")) == 1)
    assert plain(page.answers()) == [said(models[0], "what is the sky?")]
    assert page.one(".mine .bubble").text == "what is the sky?"


def test_files_are_refused_in_words(page: Page, files: Path) -> None:
    field = page.driver.find_element("css selector", "input[data-kind=image]")
    field.send_keys(str(files / "notes.txt"))
    assert page.told().startswith("notes.txt: is neither picture nor sound; it takes pictures and")
    assert not page.all("#attached li")
    field.send_keys(str(files / "broken.png"))
    page.until(lambda: page.told().startswith("broken.png: is not an image"))
    assert not page.all("#attached li")
    assert page.ask("hello")[0]


def test_a_second_picture_takes_the_first_one_s_place(page: Page, files: Path) -> None:
    page.choose(files / "a.png")
    page.driver.find_element("css selector", "input[data-kind=image]").send_keys(
        str(files / "b.png")
    )
    page.until(lambda: "In place of a.png" in page.one("#hint").text)
    [image] = page.all("#attached img")
    assert image.get_attribute("alt") == "Picture: b.png"


def test_files_may_be_dropped_and_pasted(page: Page, models: list[PageModel], files: Path) -> None:
    drop = """
      const [kind, bytes] = arguments, data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], "a.png", {type: "image/png"}));
      document.body.dispatchEvent(kind === "paste"
        ? new ClipboardEvent("paste", {clipboardData: data, bubbles: true})
        : new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}));
    """
    content = list((files / "a.png").read_bytes())
    for kind in ("drop", "paste"):
        page.driver.execute_script(drop, kind, content)
        page.until(lambda: page.all("#attached img"))
        answer = page.ask("what is it?")
        assert plain(answer) == [said(models[0], "what is it?", image=files / "a.png")]


def test_the_microphone(page: Page) -> None:
    page.press("Record from the microphone")
    page.until(lambda: re.search(r"Recording, [1-9]", page.one("#hint").text))
    page.press("End the recording")
    page.until(lambda: page.all("#attached .sound"))
    assert page.ask("")[0]


def test_a_conversation_is_saved_and_opened_again(page: Page, files: Path, tmp_path: Path) -> None:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    [answer] = page.ask("what is it?", files / "a.png")
    page.press("Save")
    [file] = page.until(lambda: [f for f in tmp_path.glob("*.json") if f.stat().st_size])
    page.press("New")
    page.until(lambda: not page.all(".turn"))
    page.driver.find_element("id", "opener").send_keys(str(file))
    page.until(lambda: page.all(".turn img"))
    assert page.answers() == [answer]
    assert page.ask("and now?")[0]
    (tmp_path / "other.json").write_text(json.dumps({"turns": [{"media": [{"kind": "x"}]}]}))
    page.driver.find_element("id", "opener").send_keys(str(tmp_path / "other.json"))
    assert page.told().startswith("other.json: is no conversation that this page saved")
    assert len(page.all(".turn")) == 2


def test_what_it_saw(page: Page, files: Path) -> None:
    page.ask("what is it?", files / "a.png")
    page.press("What it saw")
    steps = page.until(lambda: page.all(".steps button"))
    assert len(page.all(".candidates dt")) == 8
    steps[-1].click()
    assert steps[-1].get_attribute("aria-pressed") == "true"
    assert len(page.all(".looked .patches i")) == 4
    assert "<image> × 4" in page.one("#side-body").text
    page.driver.switch_to.active_element.send_keys("\ue00c")
    page.until(lambda: not page.all("#side-panel"))


def test_a_phone(page: Page, files: Path) -> None:
    page.look(width=375)
    page.open()
    assert page.ask("what is it?", files / "a.png", files / "a.wav")[0]
    wide = "return document.documentElement.scrollWidth - window.innerWidth"
    assert page.driver.execute_script(wide) <= 0
    page.one(".menu summary").click()
    page.press("Model card")
    assert "million" in page.one("#side-panel").text
    assert page.driver.execute_script(wide) <= 0
    assert page.one("#side-panel").rect["width"] <= 375


def test_the_keyboard_is_enough(page: Page) -> None:
    """From the top: skip to the question, ask, go back to what stands under the answer."""
    keys = page.driver.switch_to
    page.driver.execute_script("document.activeElement.blur()")
    page.one("body").send_keys("\ue004")
    keys.active_element.send_keys("\n")
    assert keys.active_element.get_attribute("id") == "text"
    keys.active_element.send_keys("hello\n")
    page.answers()
    names = []
    for _ in range(40):
        keys.active_element.send_keys("\ue008\ue004\ue008")  # backwards
        names.append(keys.active_element.text)
        if "Edit" in names:
            break
    assert {"What it saw", "Copy", "Regenerate", "Edit"} <= set(names)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_serious_for_axe(page: Page, files: Path, dark: bool) -> None:
    page.look(dark)
    found = page.violations()
    page.press("Compare")
    page.ask("what is it?", files / "a.png", files / "a.wav")
    found += page.violations()
    for name in ("What it saw", "Model card", "Settings"):
        page.press(name)
        page.one("dialog[open] .body")
        found += page.violations()
        page.press("Close", "dialog[open]")
    page.look(dark, width=375)
    found += page.violations()
    assert found == []


def test_nothing_comes_from_elsewhere(page: Page, files: Path) -> None:
    page.ask("what is it?", files / "a.wav")
    names = page.driver.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert [name for name in names if not name.startswith((page.address, "data:", "blob:"))] == []
    severe = [
        entry for entry in page.driver.get_log("browser") if "Content Security" in entry["message"]
    ]
    assert severe == []


def test_a_key_is_asked_for(browser: Any, spare: PageModel) -> None:
    with serving([spare], api_key="secret") as address:
        page = Page(browser, address)
        browser.get(address)
        page.until(lambda: "API key" in page.told())
        page.press("Settings")
        page.one("#key").send_keys("secret")
        page.press("Close", "dialog[open]")
        page.until(lambda: page.all("#media-buttons button"))
        assert page.ask("hello")[0]
