"""The sampler of mutants: it breaks what it says, in modules and by tests that exist."""

import ast

import pytest
from mutants import ROOT, SAME, TESTS, Fastest, mutants, mutated

SOURCE = '''"""A docstring."""
x = 1 + 2.5 if not a <= b and -c else True
x *= 3
'''


def test_each_mutant_is_one_change():
    tree = ast.parse(SOURCE)
    sources = {name: mutated(tree, *at) for *_, name, at in [(*m[:3], m[3:]) for m in mutants(tree)]}
    plain = ast.unparse(tree)
    changed = {name: [new for old, new in zip(plain.split("\n"), text.split("\n"), strict=True) if old != new]
               for name, text in sources.items()}  # fmt: skip
    assert changed == {
        "Add → Sub": ["x = 1 - 2.5 if not a <= b and -c else True"],
        "1 → 2": ["x = 2 + 2.5 if not a <= b and -c else True"],
        "2.5 → 3.5": ["x = 1 + 3.5 if not a <= b and -c else True"],
        "LtE → Lt": ["x = 1 + 2.5 if not a < b and -c else True"],
        "And → Or": ["x = 1 + 2.5 if not a <= b or -c else True"],
        "USub gone": ["x = 1 + 2.5 if not a <= b and +c else True"],
        "True → False": ["x = 1 + 2.5 if not a <= b and -c else False"],
        "Mult → Div": ["x /= 3"],
        "3 → 4": ["x *= 4"],
    }
    assert ast.unparse(tree) == plain, "the tree itself stays as it is"


@pytest.mark.parametrize("module", TESTS)
def test_modules_and_their_tests_exist(module):
    source = (ROOT / "refsnn" / module).read_text(encoding="utf-8")
    assert mutants(ast.parse(source))
    for test in TESTS[module].split():
        file, _, name = test.partition("::")
        assert f"def {name}" in (ROOT / "reference_tests" / file).read_text(encoding="utf-8"), test


def test_what_is_known_to_be_the_same_program_is_one_mutant():
    """One of those that there still are: two on a line would hide each other."""
    for (module, line, change), why in SAME.items():
        lines = (ROOT / "refsnn" / module).read_text(encoding="utf-8").splitlines()
        found = [(lines[m[0] - 1].strip(), m[2]) for m in mutants(ast.parse("\n".join(lines)))]
        assert why and found.count((line, change)) == 1, (module, line, change)


def test_the_fastest_tests_run_first():
    class Item:
        def __init__(self, name):
            self.nodeid = name

    items = [Item(name) for name in ("slow", "new", "quick", "as quick")]
    Fastest({"slow": 20.0, "quick": 0.011, "as quick": 0.01}).pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["quick", "as quick", "new", "slow"]
