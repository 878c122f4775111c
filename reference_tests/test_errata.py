"""The ledger cannot grow stale: each of its figures is measured anew and compared with the page."""

import re
from pathlib import Path

import errata
import numpy as np
import pytest

from refsnn import ops
from refsnn.distillation.optim import clipped

TEXT = errata.PAGE.read_text(encoding="utf-8")
ENTRIES = re.split(r"(?m)^(?=### E-\d+ )", TEXT)[1:]


@pytest.fixture(scope="module")
def figures():
    return {name: value for experiment in errata.EXPERIMENTS for name, value in experiment().items()}


def test_every_figure_is_in_the_page_and_none_is_unknown(figures):
    assert {found["name"] for found in errata.FIGURE.finditer(TEXT)} == set(figures)
    assert TEXT.count("<!--") == len(errata.FIGURE.findall(TEXT)), "a comment that follows no figure"


def test_figures_are_those_of_the_page(figures):
    assert len(figures) > 20 and errata.FIGURE.search(TEXT), "there are no figures to compare"
    for found in errata.FIGURE.finditer(TEXT):
        name, page, value = found["name"], errata.read(found["shown"]), figures[found["name"]]
        if name.startswith("ties-"):  # decided by the machine's order of summation, which is the point of the entry
            assert 0 < value < 5 * page, f"{name}: {value:.3g}, but the page says {page}"
        else:  # the page rounds to three digits
            assert abs(value - page) <= 0.006 * abs(value), f"{name}: {value:.4g}, but the page says {page}"


def test_shown_figures_are_read_back():
    for value in (0.0, 12.0, 589_824.0, -0.0312, 3.55e-7, 52.19):
        assert errata.read(errata.shown(value)) == value


def test_entries_are_numbered_in_order_and_end_with_their_evidence():
    assert len(ENTRIES) == len(re.findall(r"(?m)^###", TEXT)) >= 10, "an entry that is not headed as the others"
    for number, entry in enumerate(ENTRIES, 1):
        assert entry.startswith(f"### E-{number} ")
        last = entry.split("\n## ")[0].strip().splitlines()
        evidence = " ".join(line for line in last[-2:])
        assert re.search(r"\*(cases|read|measured|inferred)\*", evidence), f"E-{number} names no evidence"


def test_tests_and_files_that_the_page_names_exist():
    here = Path(__file__).parent
    source = "\n".join(path.read_text(encoding="utf-8") for path in here.glob("test_*.py"))
    names, links = re.findall(r"`(test_\w+)`", TEXT), re.findall(r"\]\((\w[\w.-]*\.md)", TEXT)
    assert len(names) >= 5 and len(links) >= 3, "the patterns no longer find what the page names"
    for name in names:
        assert f"def {name}(" in source, name
    for link in links:
        assert (errata.PAGE.parent / link).is_file(), link


def test_pytorch_s_clip_and_clipping():
    torch = pytest.importorskip("torch")
    edges = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    torch.clamp(edges, 0, 1).sum().backward()
    release = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if release <= (2, 13):
        np.testing.assert_array_equal(edges.grad, ops.clip(np.array([0.0, 1.0]), 1.0)[1](np.ones(2)))
    for norm in (0.5, 1 - 5e-7, 1.0 + 1e-9, 3.0):
        parameter = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
        parameter.grad = torch.tensor([norm], dtype=torch.float64)
        torch.nn.utils.clip_grad_norm_(parameter, 1.0)
        ours = clipped(np.array([norm]), 1.0)[0]
        assert abs(parameter.grad.item() - ours) < 1e-15 + (1e-6 if 1 - 1e-6 < norm <= 1 else 0)
        if norm == 1 - 5e-7:
            assert ours - parameter.grad.item() == pytest.approx(5e-7, rel=1e-3)
