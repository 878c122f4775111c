"""A few habits of prose that hide what is meant, each with what to write instead; none that is a matter of taste."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Pattern -> what to write. Nothing here may hit a sentence that is right.
HABITS = {
    r"\b(held|hold|holds|holding) (it |them |something |anything |these |those )?against\b": "test, compare with",
    r"\bthe same words\b": "the same command",
    r"\bgoes on where it was\b": "resumes",
    r"\bby each \w+ others\b": "each … takes its own share of",
    r"\blearnt of (it|them|this)\b": "was distilled from it, learnt from it",
    r"`refsnn \w+` cannot be asked": "`refsnn …` will not work",
    r"\bon the mean\b": "on average",
    r"\b[Ss]ome (ten|twenty|thirty|forty|fifty|hundred|thousand|\d+)\b": "about a hundred",
    r"\bshall\b": "should, must",
    r"\bso made\b": "made in this way",
    r"\bas of `": "as … has it",
    r'"""(Give|Tell)\b': "Return, Compute, Say: what the function does",
    r"\b[Ww]hat costs what\b": "performance",
    r"(?<!there)(?<!where) (is|are) none[.;)]": "is malformed, is skipped, is no …",
    r"\b[Ll]east and greatest\b": "lowest and highest; min–max",
}


def texts():
    """What people read: documents, notebooks' text, the package's docstrings, messages and templates."""
    generated = {"_build", "generated", "notebooks"}
    for path in sorted((ROOT / "docs").rglob("*")):
        if path.suffix in (".md", ".py") and not generated & set(path.relative_to(ROOT / "docs").parts[:-1]):
            yield path, path.read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "notebooks/README.md"):
        yield ROOT / name, (ROOT / name).read_text(encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        yield path, "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    for path in sorted((ROOT / "refsnn").rglob("*")):
        if path.suffix in (".py", ".html", ".toml"):
            yield path, path.read_text(encoding="utf-8")


def found(pattern, text):
    """Line numbers and lines; a sentence may go on in the next line, whatever its margin."""
    for match in re.finditer(pattern.replace(" ", r"\s+(?:#:?\s+)?"), text):
        number = text.count("\n", 0, match.start()) + 1
        yield number, text.splitlines()[number - 1].strip()


@pytest.mark.parametrize("pattern", HABITS)
def test_prose_says_what_it_means(pattern):
    seen = [
        f"{path.relative_to(ROOT)}, line {number}: {line}"
        for path, text in texts()
        for number, line in found(pattern, text)
    ]
    assert not seen, f"write instead: {HABITS[pattern]}\n" + "\n".join(seen)


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("numbers to be held against", 1),
        ("it is right on the\nmean", 1),
        ("    # 88.5 on the\n    # mean", 1),
        ("each by each thread others", 1),
        ("some hundred cases", 1),
        ("A pair is none.", 1),
        ("there is none.", 0),
        ("None where it is None.", 0),
        ("some of the thousand", 0),
        ("the mean on the dev split", 0),
    ],
)
def test_habits_are_seen_and_nothing_else_is(text, times):
    assert sum(len(list(found(pattern, text))) for pattern in HABITS) == times
