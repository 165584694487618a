"""The report's page: one HTML file that needs no network, with pictures and sound inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from omnitune.evaluation.scoreboard import Prediction
from omnitune.sample import Media, UserError

SOUND_BUDGET = 1_900_000  # characters of base64 that all players of a page may take
PICTURE_SIDE = 256  # pixels of the longer side, at most
_VERBATIM = 30_000  # bytes up to which a small PNG is taken as it is


@dataclass(frozen=True)
class Exhibit:
    """An answer that was generated, with what the model was shown for it.

    Attributes:
        question: in writing; may be empty.
        heard: what the sound says, where it is known and not what is asked for.
    """

    prediction: Prediction
    right: bool
    question: str = ""
    heard: str = ""
    media: tuple[Media, ...] = ()
    split: str = ""


@dataclass(frozen=True)
class ScoreRow:
    """One line of the scoreboard: a task's score in every split; ``unit`` says how to write it."""

    task: str
    name: str
    unit: str
    values: tuple[float | None, ...]
    is_kind: bool = False


@dataclass(frozen=True)
class Contents:
    """All that a page shows.

    Attributes:
        title: name of the model's folder.
        tiles: label and value of the headline numbers.
        main_split: the split that these are of.
        drawings: title and inline SVG of each diagram.
        legend: role and words of the lines in the diagrams.
        splits: names of the columns of ``rows``.
        rows: the scoreboard, the rows of a task one after the other.
        exhibits: the gallery, in the order in which it is shown.
        note: what to say below the gallery's heading.
        settings: the resolved configuration; empty if it is not known.
        facts: label and value of environment and command.
    """

    title: str
    tiles: list[tuple[str, str]]
    main_split: str
    drawings: list[tuple[str, str]]
    legend: Sequence[tuple[str, str]]
    splits: list[str]
    rows: list[ScoreRow]
    exhibits: list[Exhibit]
    note: str
    settings: list[tuple[str, str]]
    facts: list[tuple[str, str]]


def write_score(value: float | None, unit: str) -> str:
    """A score in words: percent with one decimal, a loss with three, a count in full."""
    if value is None:
        return "–"
    if unit == "percent":
        return f"{100 * value:.1f} %"
    return f"{value:,.0f}" if unit == "count" else f"{value:.3f}"


def render_page(contents: Contents) -> str:
    """Renders the page."""
    title = escape(contents.title)
    sections = [
        _section("Curves", _curves(contents)),
        _section("Scoreboard", _scoreboard(contents)),
        _section("Held-out answers", _gallery(contents)),
        _section("Configuration", _pairs(contents.settings, "run.json is not there.")),
        _section("Environment", _pairs(contents.facts)),
    ]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} – omnitune report</title>
<style>{_CSS}</style>
</head>
<body>
<header><p class="muted">omnitune report</p><h1>{title}</h1></header>
<main>
{_tiles(contents)}
{"".join(sections)}</main>
</body>
</html>
"""


def thumbnail(path: Path) -> Any:
    """A picture as RGB, made smaller if it is large.

    Returns:
        PIL image, its longer side at most ``PICTURE_SIDE`` pixels.

    Raises:
        UserError: the file is missing, damaged, huge or no image.
    """
    from PIL import Image

    from omnitune.modalities.image import FORMATS, ImageModality

    ImageModality.check(path)
    try:
        with Image.open(path, formats=FORMATS) as image:
            picture = image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: the image is damaged ({error})") from None
    picture.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    return picture


def _section(heading: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{body}\n</section>\n"


def _tiles(contents: Contents) -> str:
    split = escape(contents.main_split)
    if not contents.tiles:
        return f'<p class="muted">results.json holds no scores of the split {split}.</p>'
    cells = [
        f'<div class="tile"><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>'
        for label, value in contents.tiles
    ]
    heading = f'<p class="muted">Scores on the split {split}, which is held out of training.</p>'
    return f'{heading}\n<dl class="tiles">{"".join(cells)}</dl>'


def _curves(contents: Contents) -> str:
    if not contents.drawings:
        return '<p class="muted">metrics.jsonl holds no points to draw.</p>'
    # The SVG is the drawing code's own; nothing of the user's is in it.
    figures = [
        f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>"
        for title, svg in contents.drawings
    ]
    keys = [f'<li class="{role}">{escape(words)}</li>' for role, words in contents.legend]
    return f'<ul class="legend">{"".join(keys)}</ul>\n<div class="curves">{"".join(figures)}</div>'


def _scoreboard(contents: Contents) -> str:
    if not contents.rows:
        return '<p class="muted">results.json holds no scores.</p>'
    heads = "".join(
        f'<th scope="col" class="score">{_breakable(name)}</th>' for name in contents.splits
    )
    lines = [f'<thead><tr><th scope="col">task and score</th>{heads}</tr></thead>']
    task = None
    for row in contents.rows:
        if row.task != task:
            opened = "" if task is None else "</tbody>"
            span = len(contents.splits) + 1
            lines.append(
                f'{opened}<tbody><tr class="task"><th scope="rowgroup" colspan="{span}">'
                f"{_breakable(row.task)}</th></tr>"
            )
            task = row.task
        lines.append(_score_line(row))
    table = "\n".join(lines)
    return (
        '<div class="scroll" role="region" aria-label="scoreboard" tabindex="0">'
        f'<table style="--splits:{len(contents.splits)}">'
        f"{table}</tbody></table></div>\n"
        '<p class="muted">A dash: the split holds no such question. '
        "Of loss and word error rate (WER), less is better.</p>"
    )


def _score_line(row: ScoreRow) -> str:
    cells = []
    for value in row.values:
        text = escape(write_score(value, row.unit)).replace(" ", "&nbsp;")
        bar = ""
        if row.unit == "percent" and value is not None:
            bar = f' class="bar" style="--share:{100 * min(1.0, max(0.0, value)):.1f}%"'
        cells.append(f"<td{bar}>{text}</td>")
    css = ' class="kind"' if row.is_kind else ""
    return f'<tr{css}><th scope="row">{_breakable(row.name)}</th>{"".join(cells)}</tr>'


def _gallery(contents: Contents) -> str:
    left = SOUND_BUDGET
    cards = []
    for exhibit in contents.exhibits:
        shown = []
        for medium in exhibit.media:
            html = _show(medium, left)
            left -= len(html) if medium.modality == "audio" else 0
            shown.append(html)
        cards.append(_card(exhibit, "".join(shown)))
    note = f'<p class="muted">{escape(contents.note)}</p>' if contents.note else ""
    return f'{note}\n<div class="gallery">{"".join(cards)}</div>' if cards else note


def _card(exhibit: Exhibit, media: str) -> str:
    prediction = exhibit.prediction
    verdict, css = ("✓ right", "right") if exhibit.right else ("✗ wrong", "wrong")
    group = dict.fromkeys(filter(None, (prediction.task, prediction.kind, exhibit.split)))
    return (
        f'<article class="card {css}"><div class="media">{media}</div>'
        f'<p class="verdict">{verdict}</p><dl>'
        f"{_term('question', exhibit.question)}{_term('in the sound', exhibit.heard)}"
        f"<dt>reference</dt><dd>{escape(prediction.reference)}</dd>"
        f'<dt>answer</dt><dd class="answer">{escape(prediction.answer) or "(nothing)"}</dd></dl>'
        f'<p class="where">{escape(" · ".join(group))}<br>{escape(prediction.id)}</p></article>\n'
    )


def _term(name: str, text: str) -> str:
    return f"<dt>{name}</dt><dd>{escape(text)}</dd>" if text else ""


def _show(medium: Media, budget: int) -> str:
    """A medium as HTML with its data inside, or a line that says why it is not there."""
    try:
        if medium.modality == "image":
            return f'<img src="{_picture(medium.path)}" alt="the picture of this question">'
        if medium.modality == "audio":
            source = _sound(medium.path)
            if len(source) <= budget:
                return f'<audio controls preload="metadata" src="{source}"></audio>'
            return '<p class="absent">(sound left out to keep the page small)</p>'
    except UserError:
        pass
    return f'<p class="absent">({escape(medium.modality)}: cannot be shown)</p>'


def _picture(path: Path) -> str:
    picture = thumbnail(path)
    if path.suffix.lower() == ".png" and path.stat().st_size <= _VERBATIM:
        return _data_uri("image/png", path.read_bytes())
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return _data_uri("image/jpeg", buffer.getvalue())


def _sound(path: Path) -> str:
    """Any sound as the mono 16 kHz WAV that the model hears, 16 bits a sample."""
    import soundfile

    from omnitune.modalities.audio import SAMPLE_RATE, read_wave

    buffer = io.BytesIO()
    soundfile.write(buffer, read_wave(path), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return _data_uri("audio/wav", buffer.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _pairs(pairs: list[tuple[str, str]], otherwise: str = "") -> str:
    if not pairs:
        return f'<p class="muted">{otherwise}</p>'
    lines = [
        f"<div><dt>{_breakable(name)}</dt><dd>{escape(value).replace('/', '/<wbr>')}</dd></div>"
        for name, value in pairs
    ]
    return f'<dl class="pairs">{"".join(lines)}</dl>'


def _breakable(name: str) -> str:
    """Escaped, and allowed to break after an underscore or a dot."""
    return escape(name).replace("_", "_<wbr>").replace(".", ".<wbr>")


_CSS = """
:root{color-scheme:light dark;--paper:#f6f7f9;--card:#fff;--ink:#1c2128;--muted:#57606a;
--line:#d8dce2;--train:#1f66c1;--held:#b9500b;--right:#1a7f37;--wrong:#c0272d;--bar:#dce8f7}
@media (prefers-color-scheme:dark){:root{--paper:#12151a;--card:#1b1f26;--ink:#e6e9ee;
--muted:#a3acb9;--line:#363d48;--train:#6aa8f7;--held:#f0a25b;--right:#5dc477;--wrong:#ff8b86;
--bar:#233f61}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);line-height:1.45;
font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main{max-width:1160px;margin:0 auto;padding:0 16px}
header{padding-top:28px}main{padding-bottom:48px}
header p,h1,h2{margin:0}h1{font-size:1.75rem;line-height:1.2;overflow-wrap:anywhere}
h2{font-size:1.2rem;margin:40px 0 12px}
.muted,.where,.absent{color:var(--muted);font-size:.875rem}
.where,.absent{margin:0;overflow-wrap:anywhere}
dl,dd,dt,figure{margin:0}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;
margin-top:12px}
.tile,figure,.card,.scroll,.pairs{background:var(--card);border:1px solid var(--line);
border-radius:10px}
.tile{padding:14px 16px;display:flex;flex-direction:column;justify-content:space-between}
.tile dt{color:var(--muted);font-size:.875rem}
.tile dd{font-size:1.75rem;font-weight:650;font-variant-numeric:tabular-nums}
.curves{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:12px}
figure{padding:12px 12px 6px;min-width:0}figcaption{font-weight:600;margin:0 0 6px 4px}
figure svg{display:block;width:100%;height:auto}
/* Letters of a drawing grow with it; on a wide screen that would be too much. */
figure svg text{font-family:inherit!important}
@media (min-width:720px){figure svg text{font-size:7.6px!important}
.score{width:calc(66%/var(--splits))}}
.legend{display:flex;flex-wrap:wrap;gap:4px 22px;list-style:none;margin:0 0 12px;padding:0;
color:var(--muted);font-size:.875rem}
.legend li::before{content:"";display:inline-block;width:22px;margin-right:8px;
vertical-align:middle;border-top:2px solid var(--train)}
.legend .epoch::before{border:0;height:9px;background:radial-gradient(circle,var(--held) 4px,
transparent 4.5px),linear-gradient(var(--held),var(--held)) center/100% 2px no-repeat}
.legend .probe::before{border-top:1px solid var(--held);opacity:.6}
.scroll{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9375rem}
th,td{padding:6px 12px;text-align:right;font-weight:400;font-variant-numeric:tabular-nums}
th:first-child{text-align:left}
thead th{color:var(--muted);font-size:.875rem;vertical-align:bottom}
.task th{font-weight:650;padding-top:14px;border-top:1px solid var(--line)}
tbody tr:last-child>*{padding-bottom:12px}
tbody th[scope=row]{padding-left:24px;min-width:8rem}
.kind th[scope=row]{padding-left:40px;color:var(--muted)}
.bar{background:linear-gradient(var(--bar),var(--bar)) left center/var(--share) 70% no-repeat;
background-origin:content-box}
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));
gap:12px}
.card{padding:12px;border-top:3px solid var(--line);min-width:0;display:flex;
flex-direction:column;gap:8px}
.card.right{border-top-color:var(--right)}.card.wrong{border-top-color:var(--wrong)}
.media{display:grid;gap:8px;justify-items:center}.media:empty{display:none}
.media img{width:192px;max-width:100%;height:auto;border-radius:6px}
.media audio{width:100%}
.verdict{margin:0;font-weight:650;font-size:.9375rem}
.right .verdict,.right .answer{color:var(--right)}
.wrong .verdict,.wrong .answer{color:var(--wrong)}
.card dl{display:grid;grid-template-columns:auto 1fr;gap:2px 10px;font-size:.9375rem}
.card dt{color:var(--muted)}.card dd{overflow-wrap:anywhere;min-width:0}
.card .where{margin-top:auto;font-size:.8125rem}
.pairs{padding:6px 16px;columns:2;column-gap:40px}
.pairs div{display:flex;gap:16px;justify-content:space-between;padding:5px 0;
break-inside:avoid;border-bottom:1px solid var(--line);font-size:.9375rem}
.pairs dt{color:var(--muted);flex:0 1 auto}
.pairs dd{text-align:right;overflow-wrap:anywhere;min-width:0}
@media (max-width:719px){.pairs{columns:1}.bar{background:none}
table{font-size:.8125rem}th,td{padding:4px 5px}thead th{font-size:.8125rem}
th:first-child{padding-left:10px}td:last-child,th:last-child{padding-right:10px}
tbody th[scope=row]{padding-left:14px;min-width:0}.kind th[scope=row]{padding-left:24px}}
"""
