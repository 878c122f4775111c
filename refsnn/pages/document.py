"""Pages of HTML that need nothing else: templates that escape all they are given, one style, figures as inline SVG."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import resources
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

from ..files import require
from . import words
from .figures.style import PIXELS_PER_INCH, figure_style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Drawing", "drawings", "render", "svg"]

#: Functions of `refsnn.pages.words` that templates write numbers with.
FILTERS = ("duration", "grouped", "listed", "percent", "plural", "population_title", "times")


class Drawing(NamedTuple):
    """A figure as SVG that can stand inside a page among others; the page's template adds what it shows, in words.

    Attributes
    ----------
    box : str
        Its view box.
    parts : markupsafe.Markup
        What stands between ``<svg>`` and ``</svg>``.
    """

    box: str
    parts: str


def svg(figure: Figure, name: str) -> Drawing:
    """Turn a figure into SVG.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    name : str
        Its id in the page. Names of parts are global to a page, so each figure's get this as a prefix.

    Returns
    -------
    drawing : Drawing
    """
    file = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", dpi=PIXELS_PER_INCH, metadata=nothing, transparent=True)
    drawn = file.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", drawn, flags=re.DOTALL)
    found = re.search(r'<svg[^>]*viewBox="([^"]*)"[^>]*>(.*)</svg>', drawn, re.DOTALL)
    assert found is not None

    def renamed(tag: re.Match[str]) -> str:
        inside = re.sub(r'\bid="', f'id="{name}-', tag[0])
        return re.sub(r'(href="|url\()#', rf"\1#{name}-", inside)

    # Inside tags only: a token or a class may be called id="x".
    return Drawing(found[1], require("markupsafe").Markup(re.sub(r"<[^>]*>", renamed, found[2].strip())))


def drawings(figures: Mapping[str, Callable[[], Figure]]) -> dict[str, Drawing]:
    """Draw figures in the pages' style.

    Parameters
    ----------
    figures : mapping
        Id in the page -> function that draws.

    Returns
    -------
    drawings : dict
    """
    with figure_style():
        return {name: svg(draw(), name) for name, draw in figures.items()}


def render(template: str, **values: Any) -> str:
    """Fill in a template of ``refsnn/pages/templates``. What is not `Markup` is text, and stays text in the page.

    Parameters
    ----------
    template : str
    **values : Any
        Everything that the template names; a name that is missing is an error.

    Returns
    -------
    page : str
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Any:
    jinja2 = require("jinja2")
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("refsnn.pages", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters |= {name: getattr(words, name) for name in FILTERS}
    files = resources.files("refsnn.pages")
    made.globals["file"] = lambda name: require("markupsafe").Markup((files / name).read_text(encoding="utf-8").strip())
    return made
