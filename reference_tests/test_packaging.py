"""The package as others get it: built, installed into an empty environment, and used there."""

import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import refsnn

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A wheel and a source distribution, made from a copy of the checkout."""
    pytest.importorskip("build", reason="packages are built with build: pip install build")
    folder = tmp_path_factory.mktemp("package")
    hidden = shutil.ignore_patterns(".*", "_build", "generated", "runs", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, folder / "source", ignore=hidden)
    run(sys.executable, "-m", "build", "--outdir", folder / "dist", folder / "source")
    (wheel,), (source,) = (folder / "dist").glob("*.whl"), (folder / "dist").glob("*.tar.gz")
    return wheel, source


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=True)
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", built[0])
    return folder


def test_the_wheel_has_every_file_of_the_package_and_the_licence(built):
    names = set(zipfile.ZipFile(built[0]).namelist())
    package = {str(p.relative_to(ROOT)) for p in (ROOT / "refsnn").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert len(package) > 100 and package <= names and "refsnn/py.typed" in names
    assert any(name.endswith("LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"refsnn"}  # no tests, no documents


def test_the_source_distribution_has_what_tests_and_site_are_made_of(built):
    with tarfile.open(built[1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "CITATION.cff", "Makefile", "docs/conf.py", "reference_tests/conftest.py"}
    assert wanted <= names and "reference_tests/golden/tiny/manifest.json" in names


def test_numpy_and_scipy_are_enough_for_the_mathematics(environment, tmp_path):
    python = environment / "bin" / "python"
    modules = (
        "readings.simulate readings.implicit readings.certify readings.energy distillation.student conformance.judge "
        "conformance.golden conformance.parity conformance.report"
    ).split()
    run(python, "-c", "".join(f"import refsnn.{module}\n" for module in modules), cwd=tmp_path)
    assert run(python, "-m", "refsnn", "--version", cwd=tmp_path).split() == ["refsnn", refsnn.__version__]
    lacking = subprocess.run([environment / "bin" / "refsnn", "demo"], cwd=tmp_path, capture_output=True, text=True)
    assert lacking.returncode == 2 and "pip install 'refsnn[all]'" in lacking.stderr
    assert "Traceback" not in lacking.stderr


def test_the_demonstration_runs_from_the_wheel(environment, built, tmp_path):
    run(environment / "bin" / "python", "-m", "pip", "install", "--quiet", f"{built[0]}[all]")
    assert "report.html" in run(environment / "bin" / "refsnn", "demo", "--out", "run", cwd=tmp_path)
    assert (tmp_path / "run" / "report.html").is_file()
