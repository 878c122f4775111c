"""Lets pytest run the kit; `refsnn.conformance.plugin` declares the options."""

import pytest

from ..errors import InputError
from . import reference
from .ask import declared, known_precision
from .cases import cases
from .child import load_adapter
from .judge import read_exemptions
from .report import nothing_tested, stale


class _Kit:
    """What the command line chose."""

    def __init__(self, config: pytest.Config) -> None:
        def option(name: str):  # absent where the tests of refsnn itself are run
            return config.getoption(f"--{name}", None)

        self.adapter = load_adapter(option("backend")) if option("backend") else reference
        self.cases = cases(option("backend-suite") or "tiny")
        self.dtypes = option("backend-dtype") or declared(self.adapter)
        for dtype in self.dtypes:
            known_precision(dtype)
        self.skips, self.xfails = read_exemptions(option("backend-skips")), read_exemptions(option("backend-xfails"))
        self.results: list = []


_KIT = pytest.StashKey["_Kit"]()


def _kit(config: pytest.Config) -> _Kit:
    if _KIT not in config.stash:
        try:
            config.stash[_KIT] = _Kit(config)
        except InputError as error:
            raise pytest.UsageError(str(error)) from None
    return config.stash[_KIT]


def pytest_generate_tests(metafunc):
    """Make one test of every case and precision."""
    if "question" in metafunc.fixturenames:
        kit = _kit(metafunc.config)
        chosen = [(case, dtype) for case in kit.cases for dtype in kit.dtypes if case.asked_in(dtype)]
        ids = [f"{case.id}-{dtype}" for case, dtype in chosen]
        metafunc.parametrize("question", chosen, ids=ids)


@pytest.fixture(scope="session")
def kit(request):
    """Return the backend, the rules, and the results so far."""
    return _kit(request.config)


def pytest_sessionfinish(session):
    """Set another status than 0 for a run whose tests were all skipped: it has shown nothing."""
    kit = session.config.stash.get(_KIT, None)
    if kit is not None and kit.results and nothing_tested(kit.results) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter, config):
    """Warn of rules that no longer apply, and count what is unsupported."""
    kit = config.stash.get(_KIT, None)
    if kit is None or not kit.results:
        return
    complete = len(kit.results) == sum(case.asked_in(dtype) for case in kit.cases for dtype in kit.dtypes)
    warnings = stale(kit.results, kit.skips, kit.xfails) if complete else []
    for warning in (*filter(None, [nothing_tested(kit.results)]), *warnings):
        terminalreporter.write_line(f"WARNING {warning}")
    passed = sum(result.status == "passed" for result in kit.results)
    name = getattr(kit.adapter, "name", "the backend")
    terminalreporter.write_line(f"{name}: {passed} of {len(kit.results)} cases passed")
