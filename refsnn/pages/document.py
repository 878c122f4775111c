"""Pages of HTML that need nothing else: no network, every figure inline SVG."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any

from .figures.style import PIXELS_PER_INCH, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CSS", "document", "html_table", "live", "picture", "svg"]

CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fdfdfb; color: #222; font: 17px/1.6 Charter, "Bitstream Charter", "Source Serif 4",
  Georgia, "DejaVu Serif", serif; }
main { max-width: 66rem; margin: 0 auto; padding: 2.5rem 2rem 4rem; }
h1, h2, nav, table, figcaption b, .numbers { font-family: system-ui, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: 2rem; line-height: 1.25; margin: 0 0 .4em; text-wrap: balance; }
h2 { font-size: 1.35rem; line-height: 1.3; margin: 3.2rem 0 .6rem; padding-top: .8rem; border-top: 1px solid #d9d9d2; }
p, figcaption, blockquote, .note { max-width: 46rem; }
p { margin: 0 0 1em; }
a { color: #00598a; }
nav { font-size: .88rem; margin: 1.6rem 0 0; }
nav a { margin-right: 1.4em; white-space: nowrap; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.6rem 0; }
.numbers div { flex: 1 1 11rem; padding: .8rem 1.1rem; border: 1px solid #d9d9d2; border-radius: 6px;
  background: #fff; }
.numbers dt { font-size: .88rem; color: #555; }
.numbers dd { margin: 0; font-size: 1.9rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; line-height: 1.4; margin: .6rem 0 1.4rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .5em; color: #555; }
th, td { padding: .38em .9em; text-align: right; border-bottom: 1px solid #e4e4de; vertical-align: top; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
thead th { border-bottom: 1.5px solid #555; vertical-align: bottom; }
tbody th { font-weight: 400; }
thead small { display: block; font-weight: 400; color: #555; }
table.words td { text-align: left; overflow-wrap: anywhere; min-width: 8rem; }
.tables { display: flex; flex-wrap: wrap; column-gap: 4rem; align-items: flex-start; }
.tables > * { max-width: 100%; }
figure { margin: 1.4rem 0 2.2rem; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { margin-top: .6rem; font-size: .93rem; line-height: 1.5; color: #333; }
blockquote { margin: 1rem 0 1.4rem; padding: .2rem 0 .2rem 1.1rem; border-left: 3px solid #56b4e9;
  overflow-wrap: anywhere; }
.note { font-size: .93rem; color: #444; }
code { font-size: .9em; }
@media (max-width: 900px) { main { padding: 1.5rem 1.2rem 3rem; } }
@media print {
  @page { margin: 16mm; }
  body { background: #fff; font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  h2, h2 + p, blockquote { break-after: avoid; }
  h2 { margin-top: 1.6rem; }
  table, tr, .numbers { break-inside: avoid; }
}
""".strip()


def svg(figure: Figure, name: str, label: str) -> str:
    """Turn a figure into SVG that can stand inside a page among others.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Its id in the page.
    label : str
        What it shows, for readers who do not see it.

    Returns
    -------
    svg : str
    """
    file = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=PIXELS_PER_INCH, metadata=nothing, transparent=True)
    drawn = file.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    # Names of parts are global to a page, so each figure's get a prefix of their own.
    drawn = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', drawn)
    drawn = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', drawn)
    drawn = drawn.replace("url(#", f"url(#{name}-")
    box = re.search(r'viewBox="[^"]*"', drawn)
    assert box is not None
    return re.sub(r"<svg[^>]*>", f'<svg role="img" aria-label="{escape(label)}" {box[0]}>', drawn, count=1).strip()


def picture(number: int | str, name: str, label: str, caption: str, draw: Callable[[], Figure]) -> str:
    """Draw a figure and put it with its caption; `label` is plain text, `caption` HTML.

    Parameters
    ----------
    number : int or str
    name : str
        Its id in the page.
    label : str
        What it shows, for readers who do not see it.
    caption : str
    draw : callable
        Returns the figure.

    Returns
    -------
    html : str
    """
    with figure_style():
        drawn = svg(draw(), name, label)
    return f'<figure id="{name}">\n{drawn}\n<figcaption><b>Figure {number}.</b> {caption}</figcaption>\n</figure>'


def html_table(caption: str, head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "figures") -> str:
    """Lay out a table; all arguments are HTML. The first cell of a row is its heading.

    Parameters
    ----------
    caption : str
    head : sequence of str
        Empty for none.
    rows : iterable of sequences of str
    kind : str
        Its class.

    Returns
    -------
    html : str
    """
    top = "".join(f'<th scope="col">{cell}</th>' for cell in head)
    body = "\n".join(
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in rest)}</tr>' for first, *rest in rows
    )
    return (
        f'<div class="scroll"><table class="{kind}">\n<caption>{caption}</caption>\n'
        + (f"<thead><tr>{top}</tr></thead>\n" if head else "")
        + f"<tbody>\n{body}\n</tbody>\n</table></div>"
    )


def document(title: str, header: str, sections: Mapping[str, str]) -> str:
    """Compose a page; all arguments are HTML.

    Parameters
    ----------
    title : str
        The page's title and first heading.
    header : str
        What follows it.
    sections : mapping
        Heading -> content; links to them stand below the header.

    Returns
    -------
    page : str
    """
    links = "\n".join(f'<a href="#section-{i}">{heading}</a>' for i, heading in enumerate(sections, 1))
    body = "\n".join(
        f'<section aria-labelledby="section-{i}">\n<h2 id="section-{i}">{heading}</h2>\n{content}\n</section>'
        for i, (heading, content) in enumerate(sections.items(), 1)
    )
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>\n"
        f"<header>\n<h1>{title}</h1>\n{header}\n"
        f'<nav aria-label="sections">\n{links}\n</nav>\n</header>\n{body}\n</main>\n</body>\n</html>\n'
    )


def live(page: str, style: str, data: Any, program: str) -> str:
    """Let a page move: add a style, data and a program to a document, which must be readable without them.

    Parameters
    ----------
    page : str
        As from `document`.
    style : str
        CSS.
    data : JSON-serialisable
        Becomes the contents of the element ``data``.
    program : str
        JavaScript, run after the page was read.

    Returns
    -------
    page : str
    """
    # Without this character the data cannot end their element; as JSON's escape it means the same.
    values = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    scripts = f'<script type="application/json" id="data">{values}</script>\n<script>\n{program.strip()}\n</script>'
    head, middle, tail = page.partition("\n</style>")
    body, end, rest = tail.rpartition("\n</body>")
    return f"{head}\n{style.strip()}{middle}{body}\n{scripts}{end}{rest}"
