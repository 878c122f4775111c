"""The documents: their examples run, their links lead somewhere, their commands parse, and the site builds."""

import argparse
import ast
import contextlib
import doctest
import importlib
import inspect
import io
import json
import os
import pkgutil
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import refsnn
from refsnn.commands import cli
from refsnn.conformance.requirements import PAGE, REQUIREMENTS, SITE
from refsnn.data.tasks import TASKS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PAGES = OUTSIDE + sorted(p for p in DOCS.rglob("*.md") if not {"_build", "generated"} & set(p.relative_to(DOCS).parts))

#: Modules that are not the kit's own tests.
PUBLIC = re.compile(r"^(?!.*\.(_|conftest$|test_))")

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def code(page: Path, kind: str = "") -> list[tuple[str, int, str]]:
    """Fenced and indented blocks of a page: language, line number of the first line (from 0), text."""
    lines = page.read_text(encoding="utf-8").splitlines()
    found, fence, start = [], None, 0
    for i, line in enumerate(lines):
        if match := re.match(r"\s*(```+|~~~+)\s*(\S*)", line):
            if fence is None:
                fence, start = match, i + 1
            elif match[1] == fence[1] and not match[2]:
                found.append((fence[2], start, "\n".join(lines[start:i])))
                fence = None
        elif fence is None and line.startswith("    ") and not re.match(r"\s+([*-]|\d+\.)\s", line):
            if found and found[-1][0] == "indented" and lines[i - 1].startswith("    "):  # goes on
                found[-1] = ("indented", found[-1][1], f"{found[-1][2]}\n{line}")
            else:
                found.append(("indented", i, line))
    assert fence is None, f"{page}: a fence that is opened in line {start} is not closed"
    return [block for block in found if block[0].startswith(kind)]


#: Pages that begin with the run that the demonstration leaves behind.
AFTER_THE_DEMONSTRATION = ("python.md",)


@pytest.fixture(scope="module")
def demonstration(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demonstration")
    for module in ("tokenizers", "datasets", "safetensors", "tqdm", "jinja2", "matplotlib"):
        pytest.importorskip(module)
    with contextlib.redirect_stdout(io.StringIO()):
        refsnn.demo(folder / "demo")
    return folder / "demo"


def session(page: Path) -> doctest.DocTest:
    """Return the examples of a page as one session, their line numbers the page's."""
    lines = [""] * len(page.read_text(encoding="utf-8").splitlines())
    for _, start, text in code(page, "py"):
        if ">>>" in text:
            lines[start : start + text.count("\n") + 1] = text.splitlines()
    return doctest.DocTestParser().get_doctest("\n".join(lines) + "\n", {}, page.name, str(page), 0)


@every_page
def test_examples_of_a_page_run(page, tmp_path, monkeypatch, request):
    """As one session, in an empty folder. Line numbers in what fails are the page's."""
    if page.name in AFTER_THE_DEMONSTRATION:
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "demo").symlink_to(request.getfixturevalue("demonstration"))
    examples = session(page)
    if not examples.examples:
        pytest.skip("the page has no examples")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("refsnn.data.tasks.TASKS", dict(TASKS))  # a page adds one
    out = io.StringIO()
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples, out=out.write)
    assert not out.getvalue(), out.getvalue()


def imported(text):
    """Names that Python text, with or without prompts, imports from refsnn: (module, name)."""
    found = set()
    lines = r"^(?:>>> |\.\.\. )?\s*(from refsnn[\w.]* import (?:\([^)]*\)|[^(\n]+)|import refsnn[\w.]*)"
    for line in re.findall(lines, text, re.MULTILINE):
        (node,) = ast.parse(line.strip()).body
        found |= {(getattr(node, "module", ""), alias.name) for alias in node.names}
    return found


@pytest.mark.parametrize("page", [*PAGES, *sorted((ROOT / "notebooks").glob("*.ipynb"))], ids=lambda page: page.name)
def test_what_the_front_door_has_is_not_imported_from_below(page):
    if page.suffix == ".ipynb":
        cells = json.loads(page.read_text(encoding="utf-8"))["cells"]
        texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    else:
        texts = [text for _, _, text in code(page, "py")]
    homes = {name: home.partition(":") for name, home in refsnn._HOMES.items()}
    names = {(f"refsnn.{module}", called or name) for name, (module, _, called) in homes.items()}
    found = set().union(*map(imported, texts))
    assert not found & names, f"import refsnn, and use its own names for {sorted(found & names)}"
    if page.name.startswith("1-"):
        assert found == {("", "refsnn")}, "the first notebook needs one name only"


@every_page
def test_python_without_prompts_is_python(page):
    for _, start, text in code(page, "py"):
        if ">>>" not in text:
            compile(text, f"{page}, from line {start}", "exec")


def test_the_readme_program_prints_what_the_readme_shows():
    ((_, _, text),) = code(ROOT / "README.md", "python")
    ((_, _, shown),) = code(ROOT / "README.md", "text")
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(text, "README.md", "exec"), {})
    assert out.getvalue() == shown + "\n"
    errors = [float(number) for number in re.findall(r": (0\.\d+) from equilibrium", shown)]
    assert len(errors) == 3 and errors == sorted(errors, reverse=True), "rates should tend to the equilibrium"


def test_the_readme_fits_a_screen_or_two_and_its_numbers_are_measured_ones():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 130, "the README shows what there is; details go into docs/"
    table = re.search(r"^\| SST-2.*?\n\n", text, re.MULTILINE | re.DOTALL)[0]
    results = (DOCS / "results.md").read_text(encoding="utf-8")
    numbers = re.findall(r"\d+\.\d+", table)
    assert len(numbers) > 10 and not [number for number in numbers if number not in results]


def test_the_readme_is_cited_as_the_citation_file_says():
    cited = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    ((_, _, bibtex),) = code(ROOT / "README.md", "bibtex")
    entries = {kind: dict(re.findall(r"(\w+) += \{+(.*?)\}+,?$", body, re.MULTILINE)) for kind, body in
               re.findall(r"^@(\w+)\{\w+,\n(.*?)^\}$", bibtex, re.MULTILINE | re.DOTALL)}  # fmt: skip
    paper, software = entries["inproceedings"], entries["software"]
    for value in (*paper.values(), software["title"], software["version"]):
        for part in re.split(r" and |--|, ", value):
            assert part in cited, f"CITATION.cff does not have {part!r}"
    assert software["version"] == refsnn.__version__
    assert software["url"] in (ROOT / "setup.cfg").read_text(encoding="utf-8")


def test_the_neurons_of_other_libraries_fire_as_the_page_says():
    for library in ("torch", "snntorch", "spikingjelly"):
        pytest.importorskip(library, reason=f"a backend of the tests is missing: pip install {library}")
    names = {}
    for _, _, text in code(DOCS / "coming-from.md", "python"):
        exec(compile(text, "coming-from.md", "exec"), names)
    fired = names["spikes"]
    assert 0.2 < fired.mean() < 0.8
    assert (names["by_snntorch"] == fired).all() and (names["by_spikingjelly"] == fired).all()


def test_the_program_in_eighty_lines_agrees_as_its_page_says():
    (_, (_, _, beside), *_) = code(DOCS / "eighty-lines.md", "py")
    names = {}
    exec((DOCS / "examples" / "spikingbert.py").read_text(encoding="utf-8"), names)
    ((_, _, text), *_) = code(DOCS / "eighty-lines.md", "py")
    exec("\n".join(re.findall(r"^(?:>>>|\.\.\.) (.*)", text, re.MULTILINE)), names)
    *lines, last = [line for line in beside.splitlines() if line and not line.startswith("from spikingbert")]
    exec("\n".join(lines), names)
    assert last.endswith("# True") and eval(last, names) is True


def test_the_rust_program_agrees_with_the_golden_neurons(tmp_path):
    if not (compiler := shutil.which("rustc")):
        pytest.skip("there is no Rust compiler: no program called rustc")
    ((_, _, text),) = code(DOCS / "golden.md", "rust")
    (tmp_path / "neurons.rs").write_text(text, encoding="utf-8")
    built = subprocess.run(
        [compiler, "-O", "--edition", "2021", "-D", "warnings", "neurons.rs"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    cases = sorted((ROOT / "reference_tests/golden/tiny/neurons").glob("*.safetensors"))
    assert len(cases) >= 10
    for case in cases:
        run = subprocess.run([tmp_path / "neurons", case], capture_output=True, text=True)
        assert run.returncode == 0 and run.stdout.endswith(" 0 wrong\n"), (case.name, run.stdout, run.stderr)


def test_the_javascript_program_reads_a_golden_file(tmp_path):
    load_file = pytest.importorskip("safetensors.numpy").load_file
    if not (node := shutil.which("node")):
        pytest.skip("there is no JavaScript engine: no program called node")
    ((_, _, text),) = code(DOCS / "golden.md", "javascript")
    (tmp_path / "golden").symlink_to(ROOT / "reference_tests/golden/tiny")
    (tmp_path / "read.js").write_text(text, encoding="utf-8")
    run = subprocess.run([node, "read.js"], cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    case = load_file(ROOT / "reference_tests/golden/tiny/op/gelu.safetensors")
    assert [float(x) for x in run.stdout.split()] == [case["input/x"].flat[0], case["output/y"].flat[0]]


def anchors(page: Path) -> set[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", h).lower()).replace(" ", "-") for h in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text)) | set(re.findall(r"^\(([\w-]+)\)=$", text, re.MULTILINE))


def links(page: Path) -> list[str]:
    """Targets of a page's links within the project."""
    text = re.sub(r"^```.*?^```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", target)]


@every_page
def test_links_within_the_project_lead_somewhere(page):
    broken = []
    for target in links(page):
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            broken.append(target)
    assert not broken


def commands(page: Path) -> list[tuple[str, bool]]:
    """What a page shows as ``refsnn …`` in blocks of code, without prompt and remark; whether dots end it."""
    found = []
    for language, _, text in code(page):
        if language not in ("indented", "", "sh", "shell", "bash", "console", "text"):
            continue
        for line in re.sub(r"\\\n\s*", "", text).splitlines():
            if match := re.match(r"\s*(?:\$ )?(?:python -m )?(refsnn .*)", line):
                shown = re.split(r"\s#|\s{3,}", match[1])[0].strip()
                found.append((re.sub(r" ?(…|\.\.\.)$", "", shown), shown.endswith(("…", "..."))))
    return found


def files_named(page: Path) -> list[str]:
    """Files of the code that a page names."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"(?<![\w/.-])((?:refsnn|reference_tests|notebooks)/[\w./-]+\.\w+)", text)


def names_of_the_code(page: Path) -> set[str]:
    """Modules and what is in them, as a page names them."""
    return set(re.findall(r"`(refsnn(?:\.\w+)+)", page.read_text(encoding="utf-8")))


@every_page
def test_files_and_names_of_the_code_exist(page):
    if page.name.lower() == "changelog.md":
        pytest.skip("it names what was there once")
    assert not [path for path in files_named(page) if not (ROOT / path).exists()]
    for name in names_of_the_code(page):
        found, *rest = name.split(".")
        value = importlib.import_module(found)
        for part in rest:
            found += f".{part}"
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(found)
            assert hasattr(value, part), f"there is no {name}"
            value = getattr(value, part)


@every_page
def test_commands_shown_are_understood(page):
    for command, shortened in commands(page):
        words, err = shlex.split(command)[1:], io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
            try:
                cli.parser(words).parse_args(words)
                complaint = ""
            except SystemExit as stop:
                complaint = err.getvalue().splitlines()[-1] if stop.code else ""
        assert not complaint or (shortened and "arguments are required" in complaint), f"{command}: {complaint}"


def commands_named(page: Path) -> set[str]:
    """Commands that a page's text speaks of."""
    return set(re.findall(r"`refsnn ([a-z]+)[ `]", page.read_text(encoding="utf-8")))


@every_page
def test_commands_named_in_the_text_exist(page):
    (choices,) = (a.choices for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    assert commands_named(page) <= set(choices)


#: What pages are searched for -> at least so many hits in all of them together.
SEARCHED = {
    links: 100,
    commands: 50,
    commands_named: 25,
    files_named: 20,
    names_of_the_code: 30,
    lambda page: session(page).examples: 50,
    lambda page: [text for _, _, text in code(page, "py") if ">>>" not in text]: 5,
    lambda page: imported("\n".join(text for _, _, text in code(page, "py"))): 15,
}


def test_what_pages_are_searched_for_is_there():
    """A search that finds nothing, because its pattern or the pages changed, would pass every test above."""
    assert len(PAGES) > 20 and {"README.md", "specification.md", "own-data.md"} <= {page.name for page in PAGES}
    for search, least in SEARCHED.items():
        assert sum(len(search(page)) for page in PAGES) >= least, search.__name__


def test_requirements_are_on_the_site_under_their_numbers():
    documentation = re.search(
        r"^ *Documentation = (\S+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert SITE.startswith(f"{documentation[1]}/") and SITE.endswith(f"/{Path(PAGE).stem}.html")
    headings = re.findall(r"^### (S-\d+) ", (ROOT / PAGE).read_text(encoding="utf-8"), re.MULTILINE)
    assert headings == list(REQUIREMENTS)


def test_links_to_other_places_are_addresses():
    """By their pattern alone: no network is asked."""
    for page in PAGES:
        for target in re.findall(r"\]\((?:<)?([a-z]+:[^)\s>]*)", page.read_text(encoding="utf-8")):
            assert re.fullmatch(r"https://[\w.-]+\.[a-z]{2,}(/[\w.~:/?#@!$&'*+,;=%-]*)?|mailto:\S+@\S+", target), (
                page,
                target,
            )


def test_every_public_module_has_its_page():
    modules = {m.name for m in pkgutil.walk_packages(refsnn.__path__, "refsnn.") if PUBLIC.search(m.name)}
    listed = re.findall(r"^ *(refsnn\.[\w.]+)$", (DOCS / "api" / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(modules)


def public_functions():
    for module in pkgutil.walk_packages(refsnn.__path__, "refsnn."):
        if PUBLIC.search(module.name):
            found = importlib.import_module(module.name)
            for name in getattr(found, "__all__", ()):
                member = getattr(found, name)
                if inspect.isfunction(member) and member.__module__ == module.name:
                    yield f"{module.name}.{name}", member


def test_every_public_function_says_what_it_takes_and_gives():
    validate = pytest.importorskip("numpydoc.validate", reason="docstrings are read by numpydoc").validate
    assert len(list(public_functions())) > 150
    lacking = []
    for name, function in public_functions():
        found = validate(name)
        # No docstring; parameters not, or by mistake, described; sections in another order than the standard's.
        lacking += [
            f"{name}: {text}" for code, text in found["errors"] if code in ("GL08", "PR01", "PR02", "PR03", "GL07")
        ]
        gives = inspect.signature(function).return_annotation not in (None, "None")
        if gives and not re.search(r"^(Returns|Yields)\n---", inspect.getdoc(function) or "", re.MULTILINE):
            lacking.append(f"{name}: what it returns is not said")
    assert not lacking, "\n".join(lacking)


def test_the_site_builds_without_warnings(tmp_path):
    for module in ("sphinx", "myst_nb", "numpydoc", "furo", "sphinx_copybutton", "latex2mathml"):
        pytest.importorskip(module, reason=f"the site is built with {module}: pip install 'refsnn[docs]'")
    source = tmp_path / "project"  # what the build generates does not go into the checkout
    ignore = shutil.ignore_patterns("_build", "generated")
    for folder in ("docs", "refsnn", "notebooks", "reference_tests/backends"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, source / folder, ignore=ignore)
    for path in [*OUTSIDE, ROOT / "setup.cfg"]:
        shutil.copy(path, source)
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-d",
        tmp_path / "trees",
        "docs",
        tmp_path / "html",
    ]
    built = subprocess.run(command, cwd=source, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    assert built.returncode == 0, built.stderr
    pages = {path.stem for path in (tmp_path / "html").glob("*.html")}
    assert {page.stem for page in DOCS.glob("*.md")} <= pages
    simulate = (tmp_path / "html" / "api" / "generated" / "refsnn.readings.simulate.html").read_text(encoding="utf-8")
    assert 'id="refsnn.readings.simulate.simulate"' in simulate and "Yields" in simulate
    attention = (tmp_path / "html" / "api" / "refsnn.ops.attention.html").read_text(encoding="utf-8")
    assert 'id="refsnn.ops.attention.mix"' in attention  # the module, not the function of that name
