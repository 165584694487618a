"""Earlier versions of what was asked and answered, and the system prompt of each conversation."""

import json
from pathlib import Path
from typing import Any

from web_helpers import SAYS, Page

from omnitune.serving.conversations import read_conversation


def says(page: Page, text: str) -> None:
    page.driver.execute_script(SAYS, text, 0)


def turns(page: Page) -> list[tuple[str, str]]:
    """Question and answer of each turn on the page."""
    page.answers()
    asked = [bubble.text for bubble in page.all(".mine .bubble")]
    return list(zip(asked, [said.text for said in page.all(".answer .said")], strict=True))


def regenerate(page: Page, text: str) -> None:
    says(page, text)
    page.press("Regenerate")
    page.until(lambda: turns(page)[-1][1] == text)


def edit(page: Page, number: int, text: str) -> None:
    [*_, button] = page.all(f".turn:nth-child({number}) .mine .row button")
    button.click()
    field = page.one(".mine textarea")
    field.clear()
    field.send_keys(f"{text}\n")
    page.until(lambda: not page.all(".mine textarea"))


def pagers(page: Page) -> list[str]:
    """What stands between the arrows; read aloud with more words."""
    return [pager.text.replace("\n", "").partition("Version")[0] for pager in page.all(".pager")]


def kept_words(page: Page) -> str:
    """What the browser keeps of the newest conversation, to search in."""
    return str(
        page.driver.execute_async_script(
            "const done = arguments[0]; import('/history.js').then((history) => history.list())"
            ".then(([newest]) => done(newest?.words ?? ''))"
        )
    )


def saved(page: Page, folder: Path) -> Path:
    page.driver.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)}
    )
    page.press("Save")
    found: list[Path] = page.until(lambda: list(folder.glob("*.json")))
    return found[0]


def test_regenerated_answers_can_be_paged_through(page: Page, files: Path) -> None:
    says(page, "one")
    page.ask("what is it?", files / "a.png")
    assert not page.all(".pager")
    regenerate(page, "two")
    regenerate(page, "three")
    assert "3/3" in pagers(page)[0]
    assert page.all(".answer .pager")  # under the answer, which is what differs
    page.press("Earlier version")
    assert turns(page) == [("what is it?", "two")]
    page.press("Earlier version")
    assert turns(page) == [("what is it?", "one")]
    focused = page.driver.switch_to.active_element
    assert focused.get_attribute("aria-label") == "Later version"  # the other one has no more
    focused.send_keys("\n")
    assert turns(page) == [("what is it?", "two")]
    assert "Version 2 of 3" in page.driver.execute_script(
        "return document.getElementById('live').textContent"
    )
    says(page, "and so on")
    page.ask("why?")
    [asked] = page.driver.execute_script("return window.asked")
    assert asked["messages"][1]["content"] == "two"  # the one that is shown goes on


def test_an_edited_question_keeps_what_followed(page: Page) -> None:
    says(page, "A")
    page.ask("first")
    says(page, "B")
    page.ask("second")
    says(page, "C")
    edit(page, 1, "other")
    assert turns(page) == [("other", "C")]
    assert page.all(".mine .pager")  # at the question, which differs
    page.press("Earlier version")
    assert turns(page) == [("first", "A"), ("second", "B")]
    says(page, "D")
    edit(page, 2, "third")
    assert turns(page) == [("first", "A"), ("third", "D")]
    assert [text[1:4] for text in pagers(page)] == ["1/2", "2/2"]
    page.all(".pager button[data-by='1']")[0].click()
    assert turns(page) == [("other", "C")]
    page.press("Earlier version")
    assert turns(page) == [("first", "A"), ("third", "D")]


def test_an_answer_without_a_word_is_no_version(page: Page) -> None:
    page.driver.execute_script(SAYS, "", 0, True)
    page.ask("hello")
    regenerate(page, "fine")
    assert not page.all(".pager")


def test_versions_are_kept_saved_and_opened(page: Page, files: Path, tmp_path: Path) -> None:
    says(page, "A")
    page.ask("first", files / "a.png")
    page.ask("second", files / "b.png")
    says(page, "C")
    edit(page, 1, "other")
    regenerate(page, "delta")
    page.until(lambda: "delta" in kept_words(page))  # it is written when there is time
    file = saved(page, tmp_path)
    [turn] = json.loads(file.read_text())["turns"]
    assert (turn["text"], turn["version"], turn["versions"][2]) == ("other", 2, None)
    assert [one["text"] for one in turn["versions"][:2]] == ["first", "other"]
    assert turn["versions"][0]["after"][0]["media"][0]["uri"].startswith("data:image/png")
    # The terminal reads the version that was shown.
    assert read_conversation(file)[0][0]["answers"][0]["text"] == "delta"

    def all_versions() -> list[Any]:
        found = [turns(page)]
        for _ in range(2):
            page.press("Earlier version")
            found.append(turns(page))
        assert len(page.all(".mine img")) == 2
        page.press("Later version")
        page.press("Later version")
        return found

    right = [[("other", "delta")], [("other", "C")], [("first", "A"), ("second", "A")]]
    assert all_versions() == right
    page.driver.refresh()
    page.until(lambda: page.all(".pager"))
    assert all_versions() == right
    page.press("New")
    page.driver.find_element("id", "opener").send_keys(str(file))
    page.until(lambda: page.all(".pager"))
    assert all_versions() == right
    search = page.one("#search")
    search.send_keys("second")  # it is found, though another version is shown
    page.until(lambda: len(page.all("#kept .title")) == 2)


def set_system(page: Page, text: str, usual: bool = False) -> None:
    page.press("Settings")
    field = page.one("#system")
    field.send_keys("\ue009a\ue009\ue017", text)  # in place of what stood there
    if usual:
        page.press("Use it for new ones")
    page.press("Close", "dialog[open]")


def asked_with(page: Page) -> str:
    """The system prompt of the newest request."""
    asked = page.driver.execute_script("return window.asked")[-1]["messages"][0]
    return str(asked["content"]) if asked["role"] == "system" else ""


def test_each_conversation_has_its_own_system_prompt(page: Page, tmp_path: Path) -> None:
    says(page, "fine")
    set_system(page, "Be brief.")
    page.ask("one")
    assert asked_with(page) == "Be brief."
    assert page.one("#system-line").text == "System prompt Be brief."
    file = saved(page, tmp_path)
    assert read_conversation(file)[1] == "Be brief."
    page.press("New")
    assert not page.all("#system-line")
    page.ask("two")
    assert asked_with(page) == ""
    set_system(page, "Be kind.", usual=True)
    page.ask("and?")
    assert asked_with(page) == "Be kind."
    page.until(lambda: len(page.all("#kept .title")) == 2)
    page.all("#kept .title")[1].click()
    page.until(lambda: page.one("#system-line").text == "System prompt Be brief.")
    page.ask("still?")
    assert asked_with(page) == "Be brief."
    page.press("New")
    assert page.one("#system-line").text == "System prompt Be kind."
    page.driver.find_element("id", "opener").send_keys(str(file))
    page.until(lambda: page.all(".turn"))
    assert page.one("#system-line").text == "System prompt Be brief."
    page.one("#system-line").click()
    assert page.driver.switch_to.active_element.get_attribute("id") == "system"
