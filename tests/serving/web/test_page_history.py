"""Past conversations, which the browser keeps and the server does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from web_helpers import SAYS, Page


def titles(page: Page) -> list[str]:
    return [title.text for title in page.all("#kept .title")]


def press(page: Page, what: str, number: int = 0) -> None:
    """Presses a small button of a kept conversation, which shows when the mouse is there."""
    buttons = f"document.querySelectorAll('#kept button[aria-label^={what}]')"
    page.until(lambda: page.driver.execute_script(f"return {buttons}[{number}]"))
    page.driver.execute_script(f"{buttons}[{number}].click()")


def talk(page: Page, *questions: str) -> None:
    """A conversation for each question, the last one open."""
    for question in questions:
        page.press("New")
        page.ask(question)
        page.until(lambda question=question: question in titles(page))


def stored(page: Page, work: str) -> Any:
    """What `work(history)` gives."""
    return page.driver.execute_async_script(
        "const done = arguments[0];"
        f"import('/history.js').then({work}).then(done, (error) => done(String(error)))"
    )


def test_conversations_are_kept_and_come_back(page: Page, files: Path) -> None:
    page.driver.execute_script(SAYS, "red, I think", 0)
    page.ask("what is it?", files / "a.png", files / "a.wav")
    talk(page, "and you?")
    assert titles(page) == ["and you?", "what is it?"]
    page.all("#kept .title")[1].click()
    page.until(lambda: page.all(".turn img"))
    assert page.answers() == ["red, I think"]
    assert page.all(".turn .sound")
    page.driver.refresh()  # the conversation of this tab is there again
    page.until(lambda: page.all(".turn img"))
    assert titles(page) == ["and you?", "what is it?"]
    assert page.one("#kept [aria-current]").text == "what is it?"
    page.driver.execute_script(SAYS, "yes", 0)
    page.ask("sure?")
    [asked] = page.driver.execute_script("return window.asked")
    kinds = [[part["type"] for part in m["content"]] for m in asked["messages"][::2]]
    assert kinds == [["image_url", "input_audio", "text"], ["text"]]
    assert asked["messages"][1]["content"] == "red, I think"


def test_rename_delete_search(page: Page) -> None:
    page.driver.execute_script(SAYS, "I like apples", 0)
    talk(page, "one", "two", "three")
    press(page, "Rename", 2)
    page.one("#kept input").send_keys("<b>the first</b>\n")
    page.until(lambda: titles(page) == ["three", "two", "<b>the first</b>"])
    search = page.one("#search")
    search.send_keys("FIRST apples")  # in the title, and in the answer
    page.until(lambda: titles(page) == ["<b>the first</b>"])
    search.send_keys(" pears")
    page.until(lambda: "Nothing found" in page.one("#nothing").text)
    search.clear()
    search.send_keys(" ")
    press(page, "Delete", 0)  # the one that is open
    page.until(lambda: titles(page) == ["two", "<b>the first</b>"])
    assert not page.all(".turn")
    page.press("Undo")
    page.until(lambda: titles(page) == ["three", "two", "<b>the first</b>"])
    page.press("Settings")
    page.press("Delete all conversations")
    page.press("Really delete 3? This cannot be undone.")
    page.until(lambda: not titles(page))


def test_a_reload_in_mid_answer_keeps_what_was_said(page: Page) -> None:
    page.driver.execute_script(SAYS, "word " * 2000, 40)
    page.type("go on\n")
    page.until(
        lambda: page.all(".answer .said") and page.all(".answer .said")[0].text.count("w") > 40
    )
    page.driver.refresh()
    page.until(lambda: page.all(".turn"))
    assert page.answers()[0].startswith("word word")
    assert "stopped" in page.one(".answer .row").text
    page.press("Regenerate")
    assert page.answers()[0]


def test_media_are_kept_within_a_bound(page: Page, files: Path) -> None:
    page.driver.execute_script(SAYS, "yes", 0)
    page.ask("old", files / "a.png")
    page.until(lambda: "old" in titles(page))
    page.press("New")
    told = stored(
        page,
        """async (history) => {
          const medium = (id, size) => ({ id, kind: "image", name: id, type: "image/png",
            uri: "data:image/png;base64," + "A".repeat(size) });
          const turn = (media) => [{ text: "q", media: [media], answers: [] }];
          const talk = (id, title, turns) => ({ id, title, turns, system: "" });
          const one = talk("x1", "new", turn(medium("big", 9000)));
          const first = await history.keep(one, 2e12, 9100);
          const other = talk("x2", "huge", turn(medium("huge", 9200)));
          const second = await history.keep(other, 2e12, 9100);
          const kept = (await history.list()).map((row) => [row.title, row.media.length]);
          return [first, second, kept];
        }""",
    )
    assert told[0] == ""
    assert told[1].startswith("The browser keeps only the words of this conversation")
    assert sorted(told[2]) == [["huge", 0], ["new", 1], ["old", 0]]
    page.driver.refresh()
    page.until(lambda: len(titles(page)) == 3)
    [old] = [title for title in page.all("#kept .title") if title.text == "old"]
    old.click()
    assert "no longer kept by this browser" in page.one(".turn .file").text
    page.driver.execute_script(SAYS, "no", 0)
    assert page.ask("and now?") == ["no"]  # the words go on
    [asked] = page.driver.execute_script("return window.asked")
    assert asked["messages"][0]["content"] == [{"type": "text", "text": "old"}]


JUNK: list[Any] = [
    [], {}, None, "x", {"format": "omnitune conversation 1"},
    {"format": "omnitune conversation 1", "turns": [None, 3]},
    {"format": "omnitune conversation 1", "turns": [{"media": [{"kind": "image", "name": 3}]}]},
    {"format": "omnitune conversation 1",
     "turns": [{"media": [{"kind": "image", "name": "a", "uri": "https://a.b/c.png"}]}]},
    {"format": "omnitune conversation 1",
     "turns": [{"media": [{"kind": "image", "name": "a", "uri": "data:text/html;base64,AA"}]}]},
    {"format": "omnitune conversation 1", "turns": [{"text": {}, "answers": "x", "media": 5}]},
    {"format": "omnitune conversation 1", "title": {}, "turns": [{"text": 5, "answers": [
        None, 7, {"text": [], "seconds": "<b>", "tokens": -1, "state": 9}]}]},
    {"format": "omnitune conversation 1", "settings": {"system": {}}, "turns": [
        {"text": "a", "version": 0, "versions": [None, {"answers": 7}]},
        {"text": "a", "version": 1, "versions": [{"after": 5}, None]}]},
    {"format": "omnitune conversation 1", "settings": 7, "turns": [
        {"text": "a", "version": n, "versions": v} for n, v in
        ((0, "x"), (5, [None]), (0, [None]), (1, [None, {}]), (0, [None, None]))]},
]  # fmt: skip


def test_an_opened_file_of_junk_harms_nothing(page: Page, tmp_path: Path) -> None:
    page.driver.execute_script(SAYS, "fine", 0)
    for number, junk in enumerate(JUNK):
        file = tmp_path / f"junk-{number}.json"
        file.write_text(json.dumps(junk))
        page.driver.find_element("id", "opener").send_keys(str(file))
        page.until(lambda file=file: file.name in page.one("body").text or page.all(".turn"))
    page.press("New")
    assert page.ask("well?") == ["fine"]
    assert severe(page) == []


def severe(page: Page) -> list[str]:
    """Errors of the page's scripts, and what its rules had to forbid."""
    found = [entry["message"] for entry in page.driver.get_log("browser")]
    return [one for one in found if "Uncaught" in one or "Content Security" in one]


EVIL = '<img src=x onerror="window.evil=1"><script>window.evil=1</script>'


@pytest.mark.parametrize("way", ["talk", "file"])
def test_words_stay_words(page: Page, files: Path, tmp_path: Path, way: str) -> None:
    """In a question, a file's name, an answer, a title, an opened conversation."""
    picture = tmp_path / "<img src=x onerror=window.evil=1>.png"
    picture.write_bytes((files / "a.png").read_bytes())
    if way == "talk":
        page.driver.execute_script(SAYS, f"{EVIL} [a](javascript:window.evil=1) **{EVIL}**", 0)
        page.ask(EVIL, picture)
    else:
        medium = {"kind": "image", "name": EVIL, "uri": "data:image/png;base64,AA"}
        sound = {
            "kind": "audio",
            "name": EVIL,
            "transcript": EVIL,
            "uri": "data:audio/wav;base64,A",
        }
        answer = {"model": EVIL, "title": EVIL, "text": EVIL, "note": EVIL, "problem": EVIL}
        turn = {"text": EVIL, "reference": EVIL, "media": [medium, sound], "answers": [answer] * 2}
        saved = {"format": "omnitune conversation 1", "title": EVIL, "turns": [turn]}
        (tmp_path / "saved.json").write_text(json.dumps(saved))
        page.driver.find_element("id", "opener").send_keys(str(tmp_path / "saved.json"))
        page.until(lambda: page.all(".turn .file"))
    page.until(lambda: titles(page))
    assert EVIL in page.one(".mine .bubble").text
    assert EVIL.split(">")[0] in page.one(".answer .said").text
    assert page.driver.execute_script("return window.evil ?? null") is None
    assert page.driver.execute_script("return document.querySelector('main script')") is None
    assert severe(page) == []
