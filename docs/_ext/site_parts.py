"""What the site adds to Sphinx: requirements that are linked wherever they are named, and formulas without scripts."""

import re
import types

import latex2mathml.converter
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

REQUIREMENT = re.compile(r"\b(S-\d+)\b")


def slug(title: str) -> str:
    """Make a heading's anchor: as GitHub does, but for requirements ("S-7 Rate map: …") their number alone."""
    number = REQUIREMENT.match(title)
    return number[1].lower() if number else re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


class RequirementLinks(SphinxPostTransform):
    """S-7 in the text of any page leads to requirement S-7 of the specification."""

    default_priority = 500
    formats = ("html",)

    def run(self, **kwargs) -> None:
        """Replace the text."""
        page = self.app.builder.get_relative_uri(self.env.docname, "specification")
        for text in list(self.document.findall(nodes.Text)):
            within = nodes.reference | nodes.title | nodes.literal | nodes.FixedTextElement | nodes.raw
            ancestor = text.parent
            while ancestor is not None and not isinstance(ancestor, within):
                ancestor = ancestor.parent
            parts = REQUIREMENT.split(text.astext())
            if ancestor is None and len(parts) > 1:
                new = [
                    nodes.reference("", part, refuri=f"{page}#{part.lower()}", internal=True, classes=["requirement"])
                    if i % 2
                    else nodes.Text(part)
                    for i, part in enumerate(parts)
                ]
                text.parent.replace(text, new)


def _visitor(display: str, tag: str):
    """Draw a formula as MathML, which browsers show themselves."""

    def visit(self, node) -> None:
        tex = node.astext().replace(r"\langle", "⟨ ").replace(r"\rangle", "⟩ ")
        mathml = latex2mathml.converter.convert(tex, display=display)
        # A bare & is left of an environment, such as aligned, that it takes for one row.
        if unknown := re.search(r"\\[a-zA-Z]+|(?<=>)&(?=<)", mathml):
            logger.warning("latex2mathml does not know %s", unknown[0], location=node)
        self.body.append(self.starttag(node, tag, "", CLASS="math notranslate nohighlight"))
        if node.get("number"):
            self.body.append(f'<span class="eqno">({get_node_equation_number(self, node)})</span>')
        self.body.append(f"{mathml}</{tag}>")
        raise nodes.SkipNode

    return visit


def literal_blocks(app: Sphinx, what: str, name: str, obj, options, lines: list[str]) -> None:
    """Set what is indented in a docstring's text, formulas and layouts, as it stands there; sections are numpydoc's."""
    end = next((i for i, line in enumerate(lines) if re.match(r"-{3,}$", line)), len(lines) + 1) - 1
    for i in range(end - 1, 0, -1):
        before = next((line for line in reversed(lines[:i]) if line), "")
        if lines[i].startswith("    ") and not lines[i - 1] and not before.startswith((" ", "*", "-", "..")):
            if not before.endswith("::"):
                lines[i:i] = ["::", ""]


def skip_aliases(app: Sphinx, what: str, name: str, obj, skip: bool, options) -> bool | None:
    """Names of types, as ``Rates = dict[str, Array]``, would be documented as if they were `dict` itself."""
    return True if isinstance(obj, types.GenericAlias) else None


def setup(app: Sphinx) -> dict:
    """Register all of it."""
    app.add_post_transform(RequirementLinks)
    app.add_html_math_renderer("mathml", (_visitor("inline", "span"), None), (_visitor("block", "div"), None))
    app.connect("autodoc-process-docstring", literal_blocks, priority=100)  # before numpydoc
    app.connect("autodoc-skip-member", skip_aliases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
