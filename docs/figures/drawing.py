"""Vector drawings that carry their own colours, for light and dark.

A drawing is text: no library draws it, and the same input gives the same bytes. Its style sheet names colours once for
light and once for dark (``prefers-color-scheme``), and it brings its own background, so that it can be read wherever a
page puts it.
"""

from html import escape

__all__ = ["arrow", "drawing", "number", "rect", "text"]

#: Name of a colour -> on a light and on a dark background.
COLOURS = {
    "paper": ("#fdfdfb", "#16181c"),
    "ink": ("#1d1f23", "#e9e9e6"),
    "soft": ("#5b6069", "#a7adb7"),
    "rule": ("#c9ccd1", "#4a4f58"),
    "band": ("#f1f1ec", "#1e2127"),
    "blue": ("#0072b2", "#63b8ec"),
    "blue-pale": ("#e3f0f8", "#15303f"),
    "vermillion": ("#c14f00", "#ff9352"),
    "green": ("#00805d", "#37c79a"),
    "purple": ("#a3588a", "#e0a0c6"),
}


def number(x: float) -> str:
    """Write a coordinate without digits that nobody sees."""
    return f"{x:.2f}".rstrip("0").rstrip(".")


def _attributes(values: dict) -> str:
    def written(value: float | str) -> str:
        return escape(value) if isinstance(value, str) else number(value)

    names = {"kind": "class", "text_anchor": "text-anchor"}
    return "".join(f' {names.get(key, key)}="{written(value)}"' for key, value in values.items() if value is not None)


def text(x: float, y: float, words: str, kind: str = "", anchor: str | None = None) -> str:
    """Write one line of text; `anchor` is start, middle or end."""
    return f"<text{_attributes({'x': x, 'y': y, 'kind': kind or None, 'text_anchor': anchor})}>{escape(words)}</text>"


def rect(x: float, y: float, width: float, height: float, kind: str, radius: float = 6) -> str:
    """Draw a box with round corners."""
    return f"<rect{_attributes({'x': x, 'y': y, 'width': width, 'height': height, 'rx': radius, 'kind': kind})}/>"


def arrow(points: list[tuple[float, float]], kind: str = "line", head: str | None = "head") -> str:
    """Draw a line through the points with a head at its end."""
    line = " ".join(f"{number(x)},{number(y)}" for x, y in points)
    marker = f' marker-end="url(#{head})"' if head else ""
    return f'<polyline class="{kind}" points="{line}"{marker}/>'


def drawing(width: int, height: int, title: str, style: str, parts: list[str], definitions: str = "") -> str:
    """Put parts into a file: title for those who do not see it, colours for light and dark, background."""

    def colours(i: int) -> str:
        return "".join(f"--{name}:{both[i]};" for name, both in COLOURS.items())

    heads = "".join(
        f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 .6 8 4 0 7.4z" fill="var(--{colour})"/></marker>'
        for name, colour in (("head", "soft"), ("head-teach", "vermillion"), ("head-back", "green"))
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img" aria-labelledby="title">',
            f'<title id="title">{escape(title)}</title>',
            "<style>",
            f"svg{{{colours(0)}color-scheme:light dark}}",
            f"@media (prefers-color-scheme:dark){{svg{{{colours(1)}}}}}",
            "text{fill:var(--ink);font:14px system-ui,-apple-system,'Segoe UI',Verdana,'DejaVu Sans',sans-serif}",
            style.strip(),
            "</style>",
            f"<defs>{heads}{definitions}</defs>",
            rect(0, 0, width, height, "paper", 10),
            *parts,
            "</svg>",
            "",
        ]
    )
