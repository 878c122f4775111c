"""What is made of the notebooks: copies without solutions, slides, a gallery, links that open them elsewhere.

``python docs/_ext/site_notebooks.py exercises`` writes notebooks/exercises/ (`make exercises`), ``slides FOLDER`` a set
of slides for each notebook (`make slides`).
"""

import base64
import copy
import json
import re
import sys
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
EXERCISES = ROOT / "notebooks" / "exercises"

#: How a notebook's text leads to documents and their pictures.
DOCUMENTS = "](../docs/"
#: Marks the cell whose picture stands for its notebook.
PICTURE = "thumbnail"

#: Marks cells that are solutions, and those that slides show without their code.
SOLUTION, HIDDEN = "hide-cell", "hide-input"


def repository() -> str:
    """Read the repository's address from setup.cfg."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return re.search(r"^Source = (\S+)$", config["metadata"]["project_urls"], re.MULTILINE)[1]


def read(path: Path) -> dict:
    """Read a notebook."""
    return json.loads(path.read_text(encoding="utf-8"))


def written(notebook: dict) -> str:
    """Lay a notebook out as Jupyter does."""
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def source(cell: dict) -> str:
    """Join the lines of a cell."""
    return "".join(cell["source"])


def is_solution(cell: dict) -> bool:
    """Whether a cell is the solution of an exercise."""
    return SOLUTION in cell["metadata"].get("tags", [])


def title(notebook: dict) -> str:
    """Take a notebook's title from its first line."""
    return source(notebook["cells"][0]).splitlines()[0].removeprefix("# ")


def _code(text: str) -> dict:
    return {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": [], "source": _lines(text)}


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


INSTALL = """\
# Where refsnn is not installed (on Colab, say), run this first, without the #:
# %pip install --quiet "refsnn[all] @ git+{}"
"""


def without_solutions(notebook: dict) -> dict:
    """Copy a notebook for a class: no outputs, and an empty cell in place of each solution."""
    made = copy.deepcopy(notebook)
    cells = []
    for cell in made["cells"]:
        if is_solution(cell):
            number = re.match(r"# Solution (\d+)", source(cell))
            if number:
                cells.append(_code(f"# Exercise {number[1]}: your solution"))
            continue
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"], cell["metadata"] = [], None, {}
        else:
            cell["source"] = _lines(source(cell).replace(DOCUMENTS, "](../../docs/"))
        cells.append(cell)
    cells.insert(1, _code(INSTALL.format(repository()).rstrip("\n")))
    for number, cell in enumerate(cells, 1):
        cell["id"] = f"cell-{number}"
    made["cells"] = [dict(sorted(cell.items())) for cell in cells]
    return made


def _data(output: dict) -> dict:
    return output.get("data", {})


def picture(notebook: dict) -> str:
    """Find the picture that stands for a notebook: the first one of the marked cell."""
    (marked,) = (cell for cell in notebook["cells"] if PICTURE in cell["metadata"].get("tags", []))
    drawn = [data["image/svg+xml"] for data in map(_data, marked["outputs"]) if "image/svg+xml" in data]
    return "".join(drawn[0])


def links(name: str, folder: str = "notebooks") -> str:
    """Write links, in Markdown, that open a notebook in Colab, in Binder, and as a file."""
    owner = repository().removeprefix("https://github.com/")
    place = f"{folder}/{name}"
    return (
        f"[Colab](https://colab.research.google.com/github/{owner}/blob/main/{place}) · "
        f"[Binder](https://mybinder.org/v2/gh/{owner}/main?labpath={place.replace('/', '%2F')}) · "
        f"[file](https://github.com/{owner}/raw/main/{place})"
    )


def for_the_site(path: Path) -> dict:
    """Copy a notebook for the site: links between documents, and where else it opens, below the title."""
    notebook = read(path)
    first = source(notebook["cells"][0])
    heading, _, rest = first.partition("\n")
    bar = f"Open in {links(path.name)}. Without solutions: {links(path.name, 'notebooks/exercises')}."
    notebook["cells"][0]["source"] = _lines(f"{heading}\n\n{bar}\n{rest}")
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = _lines(source(cell).replace(DOCUMENTS, "](../"))
    return notebook


def questions() -> dict[str, str]:
    """Read the question of each notebook from the table of notebooks/README.md."""
    text = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| \[[^]]*\]\(([\w-]+\.ipynb)\) \| (.*?) \|$", text, re.MULTILINE))


def gallery(folder: str) -> str:
    """Write the list of notebooks with a picture each; `folder` leads from the page to the site's notebooks."""
    items = []
    for path in NOTEBOOKS:
        name, place = title(read(path)), f"{folder}/{path.stem}"
        shown = f"[![]({place}.svg)]({place}.ipynb)"
        items.append(f"* {shown}\n  [{name}]({place}.ipynb)\\\n  {questions()[path.name]}\n")
    return "\n".join(items)


def shortened(text: str) -> str:
    """Shorten a text for a slide: headings, formulas, lists, code and tables, and the first sentence of a paragraph.

    A label in bold, such as **In the paper.**, is no sentence: the one after it stays, too.
    """
    parts = []
    for part in re.split(r"\n\s*\n", text.strip()):
        if re.match(r"#|!\[|\$\$|\* |- |\d+\. |```|\||    ", part):
            parts.append(part)
        else:
            label = re.match(r"(?:\*\*[^*.?!:]+[.?!:]\*\*\s+)?", part)[0]
            rest = part[len(label) :]
            sentence = re.match(r".*?[.?!:](?=\**(?:\s|$))", rest, re.DOTALL)
            parts.append(label + (sentence[0] + "**" * (sentence[0].count("**") % 2) if sentence else rest))
    return "\n\n".join(parts)


def embedded(text: str) -> str:
    """Put the documents' pictures into the text itself: slides are one file."""

    def data(found: re.Match) -> str:
        drawn = (ROOT / "docs" / found[1]).read_bytes()
        return f"](data:image/svg+xml;base64,{base64.b64encode(drawn).decode()})"

    return re.sub(re.escape(DOCUMENTS) + r"([^)]*\.svg)\)", data, text)


def slides(notebook: dict) -> dict:
    """Arrange a notebook as slides; what a slide leaves out of the text stands in the speaker's notes."""
    made = copy.deepcopy(notebook)
    cells = []
    for cell in made["cells"]:
        if cell["cell_type"] == "markdown":
            text = embedded(source(cell))
            cell["source"] = _lines(text)
            kind = "slide" if text.startswith("#") else "subslide"
            short = shortened(text)
            cells.append({**cell, "source": _lines(short), "metadata": _slide(kind)})
            if short != text.strip():
                cells.append({**cell, "metadata": _slide("notes"), "id": f"{cell['id']}-notes"})
            continue
        draws = any("image/svg+xml" in _data(output) for output in cell["outputs"])
        kind = "subslide" if is_solution(cell) or draws else "-" if cell["outputs"] else "skip"
        cell["metadata"] = _slide(kind) | ({"tags": [HIDDEN]} if draws else {})
        cells.append(cell)
    made["cells"] = cells
    return made


def _slide(kind: str) -> dict:
    return {"slideshow": {"slide_type": kind}}


def write_exercises(folder: Path = EXERCISES) -> None:
    """Write the copies without solutions."""
    folder.mkdir(exist_ok=True)
    for path in NOTEBOOKS:
        (folder / path.name).write_text(written(without_solutions(read(path))), encoding="utf-8")


def write_slides(folder: Path) -> None:
    """Write a page of slides for each notebook; nbconvert makes it, and reveal.js, from the net, shows it."""
    import nbformat
    from nbconvert import SlidesExporter
    from traitlets.config import Config

    settings = Config()
    settings.SlidesExporter.reveal_scroll = True
    settings.TagRemovePreprocessor.remove_input_tags = {HIDDEN}
    exporter = SlidesExporter(config=settings)
    exporter.register_preprocessor("nbconvert.preprocessors.TagRemovePreprocessor", enabled=True)
    folder.mkdir(parents=True, exist_ok=True)
    for path in NOTEBOOKS:
        page, _ = exporter.from_notebook_node(nbformat.reads(written(slides(read(path))), as_version=4))
        (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")


def write_site(folder: Path) -> None:
    """Write the site's copies, their pictures and the gallery."""
    folder.mkdir(exist_ok=True)
    for path in NOTEBOOKS:
        (folder / path.name).write_text(written(for_the_site(path)), encoding="utf-8")
        (folder / f"{path.stem}.svg").write_text(picture(read(path)), encoding="utf-8")
    (folder / "gallery.txt").write_text(gallery("notebooks"), encoding="utf-8")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["exercises"]:
            write_exercises()
        case ["slides", folder]:
            write_slides(Path(folder))
        case _:
            sys.exit(__doc__)
