"""The kit as tests: one for every case and precision."""

import pytest

from .judge import exempted


def test_backend(question, kit):
    """Put one case to the backend."""
    case, dtype = question
    result = exempted(kit.adapter, case, dtype, kit.skips, kit.xfails)
    kit.results.append(result)
    match result.status:
        case "failed":
            pytest.fail(result.message, pytrace=False)
        case "xfailed":
            pytest.xfail(result.message)
        case "skipped" | "unsupported":
            pytest.skip(f"{result.status}: {result.message}")
