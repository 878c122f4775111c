"""Declares the options of ``pytest --pyargs refsnn.conformance --backend mypackage.adapter``.

Only where the kit is named on the command line: other projects' options of these names are left alone.
"""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config, parser, args):
    """Declare the kit's options if the kit is to run."""
    if not any("refsnn.conformance" in str(arg).replace("/", ".") for arg in args):
        return
    group = parser.getgroup("refsnn", "conformance of a spiking backend")
    group.addoption("--backend", metavar="MODULE", help="adapter of the backend (default: refsnn itself)")
    group.addoption(
        "--backend-suite", choices=("tiny", "base", "odd", "signed", "gpt"), help="sizes of the cases (default: tiny)"
    )
    group.addoption("--backend-dtype", action="append", metavar="DTYPE", help="a precision (default: the adapter's)")
    group.addoption("--backend-skips", metavar="FILE", help="ids not to ask, each with a reason after #")
    group.addoption("--backend-xfails", metavar="FILE", help="ids known to fail, each with a reason after #")
