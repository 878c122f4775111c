"""The notebooks: executed anew, and compared with the outputs they keep. notebooks/README.md says by what rules.

python reference_tests/test_notebooks.py FILE …    executes notebooks in place (`make notebooks`)
"""

import html
import importlib.util
import os
import re
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
#: A number as printed; not a digit inside of a word, nor the exponent of 10⁻³.
NUMBER = re.compile(r"(?<![\w.])([-+−]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w⁻⁰¹²³⁴⁵⁶⁷⁸⁹])")

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def test_the_notebooks_are_where_they_are_looked_for():
    assert [path.stem[:2] for path in NOTEBOOKS] == [f"{number}-" for number in range(1, 9)]


def read(path):
    nbformat = pytest.importorskip("nbformat", reason="notebooks are read by nbformat: pip install 'refsnn[test]'")
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def execute(path):
    """Execute a notebook in an empty folder, from a fresh kernel; return it and the processor time taken."""
    notebook = read(path)
    nbclient = pytest.importorskip("nbclient", reason="notebooks are executed by nbclient: pip install 'refsnn[test]'")
    pytest.importorskip("ipykernel", reason="notebooks need the kernel ipykernel: pip install 'refsnn[test]'")
    client = nbclient.NotebookClient(
        notebook,
        timeout=600,  # a cell that hangs is stopped; a busy machine is allowed for
        kernel_name="python3",
        record_timing=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    before = os.times()
    with tempfile.TemporaryDirectory() as folder:
        client.execute(cwd=folder, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return tidy(notebook), seconds


def tidy(notebook):
    """Remove what depends on the day, the machine or the editor."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells, 1):
        cell.id = f"cell-{number}"
        cell.metadata = {name: cell.metadata[name] for name in ("jupyter", "tags") if name in cell.metadata}
        outputs = cell.get("outputs", [])
        for i in range(len(outputs) - 1, 0, -1):  # how often a stream is flushed is a matter of chance
            if outputs[i].output_type == "stream" and outputs[i].name == outputs[i - 1].get("name"):
                outputs[i - 1].text += outputs.pop(i).text
    return notebook


def shown(cell):
    """What a code cell shows, as pairs of kind and text; of a plot, all that is written on it."""
    parts = []
    for output in cell.get("outputs", []):
        if output.output_type == "stream":
            kind, text = output.name, output.text
        else:
            data = output.get("data", {})
            kind = next((k for k in ("image/svg+xml", "text/html", "text/plain") if k in data), "nothing")
            text = "".join(data.get(kind, ""))
            if kind == "image/svg+xml":
                text = " ".join(re.findall(r"<text.*?</text>", text, flags=re.DOTALL))
            if kind != "text/plain":
                text = html.unescape(re.sub(r"<style.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL))
        parts.append((kind, text))
    return parts


def difference(kept, new, numbers=True):
    """Say where two printed texts differ beyond the last place printed, or return None."""
    if not numbers:
        kept, new = (NUMBER.sub("", text) for text in (kept, new))
    a, b = (NUMBER.split(text) for text in (kept, new))
    for i, (old, now) in enumerate(zip_longest(a, b, fillvalue="")):
        if i % 2 == 0 or not old or not now:
            same = old.split() == now.split()
        elif re.fullmatch(r"[-+−]?\d+", old):
            same = old == now
        else:
            unit = max(last_place(old), last_place(now))
            same = abs(number(old) - number(now)) <= 1.000001 * unit
        if not same:
            return f"{old.strip()!r} became {now.strip()!r}, after {''.join(a[max(i - 3, 0) : i])!r}"
    return None


def number(text):
    return float(text.replace("−", "-"))


def last_place(text):
    """One unit of the last place printed."""
    mantissa, _, exponent = text.lower().partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


# --- The comparison ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kept", "new", "same"),
    [
        ("rate 0.30, T = 16", "rate  0.31, T = 16", True),
        ("rate 0.30", "rate 0.32", False),
        ("T = 16", "T = 17", False),
        ("3 spikes", "3.0 spikes", False),
        ("1.2e-05", "1.3e-05", True),
        ("1.2e-05", "1.2e-04", False),
        ("−0.5", "0.5", False),
        ("encoder.0.key", "encoder.1.key", False),
        ("10⁻³ 10⁻²", "10⁻³ 10⁻¹", False),
        ("below: True", "below: False", False),
        ("[0.1, 0.2]", "[0.1, 0.2, 0.3]", False),
    ],
)
def test_the_comparison_sees_what_it_should(kept, new, same):
    assert (difference(kept, new) is None) is same
    assert difference(kept, kept) is None


def test_the_comparison_leaves_out_the_numbers_of_machine_dependent_cells():
    assert difference("took 0.3 s", "took 12 s", numbers=False) is None
    assert difference("took 0.3 s", "took 12 ms", numbers=False)


# --- The files --------------------------------------------------------------------------------------------------------


@every_notebook
def test_notebook_keeps_the_conventions(path):
    notebook = read(path)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert tidy(read(path)) == notebook, "ids or metadata are not those that `make notebooks` writes"
    cells = notebook.cells
    for wanted in ("# ", "What you will learn", "What you need to know", "Running time", "In the paper"):
        assert wanted in cells[0].source, f"the first cell lacks {wanted!r}"
    for cell in cells:
        if cell.cell_type == "code":
            assert not re.search(r"\brefsnn[\w.]*\._|import +_|from refsnn\S* import .*\b_\w", cell.source), cell.source
            for output in cell.outputs:
                assert output.output_type != "error" and output.get("name") != "stderr", output
                data = output.get("data", {})
                assert not {"image/png", "image/jpeg"} & set(data), "a plot is not a vector graphic"
                assert "<image" not in "".join(data.get("image/svg+xml", "")), "a plot holds a raster image"
            text = "\n".join(text for _, text in shown(cell))
            assert not re.search(r"(?<![\w.])/(home|root|work|tmp|usr|opt|Users)/|[A-Z]:\\", text), text


@every_notebook
def test_every_exercise_has_a_hidden_solution(path):
    cells = read(path).cells
    places = [i for i, cell in enumerate(cells) if cell.source.startswith("### Exercise ")]
    assert 3 <= len(places) <= 5
    for k, (first, end) in enumerate(zip(places, [*places[1:], len(cells)], strict=True), 1):
        assert cells[first].source.startswith(f"### Exercise {k}")
        solutions = [cell for cell in cells[first:end] if cell.cell_type == "code"]
        assert solutions and solutions[0].source.startswith(f"# Solution {k}")
        for cell in solutions:
            assert cell.metadata == {
                "jupyter": {"outputs_hidden": True, "source_hidden": True},
                "tags": cell.metadata.get("tags"),
            }
            assert "hide-cell" in cell.metadata["tags"]


# --- What is made of them ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def site():
    """The script that makes copies without solutions, slides and the site's pages of them."""
    spec = importlib.util.spec_from_file_location("site_notebooks", ROOT / "docs" / "_ext" / "site_notebooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_notebook
def test_copy_without_solutions_is_what_the_script_makes(path, site):
    kept = (site.EXERCISES / path.name).read_text(encoding="utf-8")
    assert kept == site.written(site.without_solutions(site.read(path))), "make exercises"


@every_notebook
def test_copy_without_solutions_has_the_questions_and_no_answer(path, site):
    whole, copy = read(path), read(site.EXERCISES / path.name)
    assert [c.source for c in copy.cells if c.cell_type == "markdown"] == [
        c.source.replace("](../docs/", "](../../docs/") for c in whole.cells if c.cell_type == "markdown"
    ]
    text = "\n".join(cell.source for cell in copy.cells)
    solutions = [cell.source for cell in whole.cells if cell.source.startswith("# Solution")]
    assert not [source for source in solutions if source in text] and "# Solution" not in text
    empty = [cell.source for cell in copy.cells if "your solution" in cell.source]
    assert empty == [f"# Exercise {k}: your solution" for k in range(1, len(solutions) + 1)]
    assert not [cell for cell in copy.cells if cell.get("outputs")]


def test_a_cell_of_a_solution_is_left_out_whatever_it_begins_with(site):
    def cell(text, *tags):
        return {"cell_type": "code", "source": text, "metadata": {"tags": list(tags)}, "outputs": [], "id": "x"}

    notebook = {"cells": [cell("# 1"), cell("# Solution 1: 2", "hide-cell"), cell("more = 2", "hide-cell"), cell("3")]}
    made = [site.source(c) for c in site.without_solutions(notebook)["cells"]]
    assert [made[0], *made[2:]] == ["# 1", "# Exercise 1: your solution", "3"]


@every_notebook
def test_pages_of_the_site_have_a_picture_and_links(path, site):
    assert site.picture(site.read(path)).lstrip().startswith(("<?xml", "<svg"))
    page = site.source(site.for_the_site(path)["cells"][0])
    for folder in ("notebooks", "notebooks/exercises"):
        assert f"https://colab.research.google.com/github/refsnn/refsnn/blob/main/{folder}/{path.name}" in page
        assert f"?labpath={folder.replace('/', '%2F')}%2F{path.name}" in page
        assert (ROOT / folder / path.name).exists()
    assert path.name in site.questions()


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("## Why\n\nOne thing. Another.", "## Why\n\nOne thing."),
        ("**Bold start. And end.** More.", "**Bold start.**"),
        ("**In the paper.** Equation 3. And more.", "**In the paper.** Equation 3."),
        ("$$x = 1$$\n\n* a\n* b", "$$x = 1$$\n\n* a\n* b"),
        ("At 0.5 it is half. Rest.", "At 0.5 it is half."),
        ("no end", "no end"),
    ],
)
def test_slides_keep_first_sentences(text, short, site):
    assert site.shortened(text) == short


@every_notebook
def test_slides_have_every_picture_and_the_whole_text_in_their_notes(path, site):
    whole, made = site.read(path), site.slides(site.read(path))
    kinds = [cell["metadata"]["slideshow"]["slide_type"] for cell in made["cells"]]
    assert kinds[0] == "slide" and {"slide", "subslide", "notes"} <= set(kinds)
    noted = {site.source(cell) for cell in made["cells"]}
    texts = [site.embedded(site.source(cell)) for cell in whole["cells"] if cell["cell_type"] == "markdown"]
    assert not [text for text in texts if text not in noted]
    assert not [text for text in noted if site.DOCUMENTS in text and ".svg)" in text]  # a page of slides is one file
    shown = [cell for cell, kind in zip(made["cells"], kinds, strict=True) if kind != "skip"]
    drawn = [
        cell for cell in whole["cells"] if any("image/svg+xml" in o.get("data", {}) for o in cell.get("outputs", ()))
    ]
    assert all(any(cell["outputs"] == there.get("outputs") for there in shown) for cell in drawn)


def test_pictures_of_the_documents_are_found_from_everywhere(site):
    path = next(path for path in NOTEBOOKS if "../docs/_static/architecture.svg" in site.written(site.read(path)))
    copy, page = site.without_solutions(site.read(path)), site.for_the_site(path)
    for text, folder in ((site.written(copy), site.EXERCISES), (site.written(page), ROOT / "docs" / "notebooks")):
        (found,) = re.findall(r"\]\(([^)]*architecture\.svg)\)", text)
        assert (folder / found).resolve() == ROOT / "docs" / "_static" / "architecture.svg"
    assert "](data:image/svg+xml;base64,PHN2Z" in site.written(site.slides(site.read(path)))


@pytest.mark.slow
def test_slides_are_built(tmp_path, site):
    pytest.importorskip("nbconvert", reason="slides are made by nbconvert: pip install nbconvert")
    site.write_slides(tmp_path)
    for path in NOTEBOOKS:
        page = (tmp_path / f"{path.stem}.html").read_text(encoding="utf-8")
        assert page.count("<section") > 10 and page.count("image/svg+xml") >= 2 and '<aside class="notes">' in page


# --- Their outputs ----------------------------------------------------------------------------------------------------


@every_notebook
def test_outputs_are_those_kept(path):
    kept = read(path)
    new, _ = execute(path)
    for before, after in zip(kept.cells, new.cells, strict=True):
        if before.cell_type != "code":
            continue
        old, now = shown(before), shown(after)
        assert "stderr" not in dict(now), f"{before.source}\nwrote to stderr:\n{dict(now)['stderr']}"
        kinds = [kind for kind, _ in old], [kind for kind, _ in now]
        assert kinds[0] == kinds[1], f"{before.source}\nshows {kinds[1]}, kept are {kinds[0]}: make notebooks"
        assert before.execution_count == after.execution_count, "the notebook was not executed from top to bottom"
        numbers = "machine-dependent" not in before.metadata.get("tags", [])
        for (_, a), (_, b) in zip(old, now, strict=True):
            found = difference(a, b, numbers)
            assert found is None, f"{before.source}\n{found}"


def main(paths):
    import nbformat

    for path in map(Path, paths):
        notebook, seconds = execute(path)
        temporary = path.with_suffix(".tmp")
        nbformat.write(notebook, temporary)
        temporary.replace(path)
        print(f"{path.name}: {seconds:.1f} s of processor time")


if __name__ == "__main__":
    main(sys.argv[1:] or NOTEBOOKS)
