"""Markdown of answers in a real browser: what it looks like, and that it never does harm."""

import math
import random
import time
from typing import Any

import pytest

RENDER = """
  const [texts, grows] = arguments, done = arguments[arguments.length - 1];
  import("/markdown.js").then(({ markdownView }) => {
    done(texts.map((text) => {
      const element = document.createElement("div"), view = markdownView(element);
      if (grows) for (let end = 1; end < text.length; end++) view.update(text.slice(0, end), true);
      view.update(text);
      return element.innerHTML;
    }));
  }).catch((error) => done(["failed: " + error]));
"""
ALLOWED = {"P", "BR", "H4", "H5", "H6", "STRONG", "EM", "DEL", "CODE", "PRE", "DIV", "SPAN"}
ALLOWED |= {"BUTTON", "UL", "OL", "LI", "BLOCKQUOTE", "HR", "TABLE", "THEAD", "TBODY", "TR"}
ALLOWED |= {"TH", "TD", "A"}
LINK = '<a href="{0}" title="{0}" target="_blank" rel="noopener noreferrer nofollow">{1}</a>'
PIECES = ["*", "**", "_", "`", "```\n", "[", "](", ")", "!", "javascript:alert(1)", "https://a.b"]
PIECES += ["<img src=x onerror=alert(1)>", "\n", "\n\n", "- ", "1. ", "> ", "|", "|-|\n", "# "]
PIECES += ["\\", " ", "  ", "word", "~~", "<", "&lt;", '"', "data:text/html,x", "---\n", "\t"]


@pytest.fixture
def driver(browser: Any, address: str) -> Any:
    """On a page of the server, whose rules hold."""
    if browser.current_url != f"{address}style.css":
        browser.get(f"{address}style.css")
    return browser


def render(driver: Any, *texts: str, grows: bool = False) -> list[str]:
    found = driver.execute_async_script(RENDER, list(texts), grows)
    assert not found[0].startswith("failed"), found[0]
    return list(found)


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
        ("## Title ##", '<h5 class="level2">Title</h5>'),
        ("**a** *b* ~~c~~ `d`", "<strong>a</strong> <em>b</em> <del>c</del> <code>d</code>"),
        ("***a***", "<p><strong><em>a</em></strong></p>"),
        ("2 * 3 * 4, snake_case_name", "<p>2 * 3 * 4, snake_case_name</p>"),
        (r"\*a\* `\*`", r"<p>*a* <code>\*</code></p>"),
        ("- a\n- b\n  - c", "<ul><li>a</li><li>b<ul><li>c</li></ul></li></ul>"),
        ("3. a\n4. b", '<ol start="3"><li>a</li><li>b</li></ol>'),
        ("> a\n> b", "<blockquote><p>a<br>b</p></blockquote>"),
        ("a\n\n---\nb", "<p>a</p><hr><p>b</p>"),
        ("| a | b |\n|---|--:|\n| 1 | `|` |", '<td>1</td><td class="right"><code>|</code></td>'),
        ("```py\n<b>*x*\n```", "<code>&lt;b&gt;*x*</code>"),
        ("[a](https://b.c)", LINK.format("https://b.c/", "a")),
        ("see https://b.c/d.", LINK.format("https://b.c/d", "https://b.c/d") + "."),
        ("![a](https://b.c/d.png)", LINK.format("https://b.c/d.png", "a")),
        ("[a](javascript:alert(1))", "<p>[a](javascript:alert(1))</p>"),
        ("<b>a</b> &amp;", "<p>&lt;b&gt;a&lt;/b&gt; &amp;amp;</p>"),
    ],
)
def test_what_answers_look_like(driver: Any, text: str, html: str) -> None:
    assert html in render(driver, text)[0]


def test_no_text_does_harm_or_is_lost(driver: Any) -> None:
    """Only known elements, links to pages only, each word there, and grown is as if at once."""
    draw = random.Random(0)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(1, 30))) for _ in range(300)]
    whole, grown = render(driver, *texts), render(driver, *texts, grows=True)
    assert whole == grown
    found = driver.execute_script(
        """
        return arguments[0].map((html) => {
          const doc = document.implementation.createHTMLDocument("");
          const policy = window.policy ??= trustedTypes.createPolicy("t", {createHTML: (x) => x});
          doc.body.innerHTML = policy.createHTML(html);
          const all = [...doc.body.querySelectorAll("*")];
          return [all.map((e) => e.tagName), all.flatMap((e) => e.getAttributeNames()),
            all.filter((e) => e.href).map((e) => e.href), doc.body.textContent];
        });
        """,
        whole,
    )
    for text, (tags, attributes, links, shown) in zip(texts, found, strict=True):
        assert set(tags) <= ALLOWED, text
        assert not any(name.startswith("on") or name in ("style", "src") for name in attributes)
        assert all(link.startswith(("https://", "http://", "mailto:")) for link in links), text
        assert shown.count("word") >= text.count("word") - text.count("```") - text.count("|"), text


def test_long_nonsense_takes_no_time(driver: Any) -> None:
    pieces = ("*", "[", "[a](", "`", "> ", "- ", "|", "**a ", "_a", "!", "\n", "# ", "http")
    for piece in pieces:
        least = math.inf
        for _ in range(3):  # one of them, should the machine be busy with something else
            start = time.monotonic()
            render(driver, piece * (20_000 // len(piece)))
            least = min(least, time.monotonic() - start)
            if least < 5:
                break
        assert least < 5, piece  # with the square of the length it would be 100


def test_a_block_keeps_its_element_while_more_comes(driver: Any) -> None:
    same = driver.execute_async_script(
        """
        const done = arguments[0];
        import("/markdown.js").then(({ markdownView }) => {
          const element = document.createElement("div"), view = markdownView(element);
          view.update("# a\\n\\nfirst\\n\\n```\\nlet", true);
          const before = [...element.children];
          view.update("# a\\n\\nfirst\\n\\n```\\nlet x = 1", true);
          const after = [...element.children];
          done([before.map((child, n) => child === after[n]), after[2].textContent]);
        });
        """
    )
    assert same[0] == [True, True, True]
    assert "let x = 1" in same[1]


def test_what_has_no_end_yet_looks_as_it_will(driver: Any) -> None:
    html = driver.execute_async_script(
        """
        const done = arguments[0];
        import("/markdown.js").then(({ markdownView }) => {
          const element = document.createElement("div");
          markdownView(element).update("it is **bo", true);
          done(element.innerHTML);
        });
        """
    )
    assert html == "<p>it is <strong>bo</strong></p>"
