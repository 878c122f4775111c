"""Where the tests find data that is not part of the project, and small networks to try things on.

REFSNN_DATA names a folder with `glue/` and `teachers/`, REFSNN_CASES one with cases of the authors' program; by default
both are looked for beside the checkout, in `../shared`. Tests that need what is not there skip and say so.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from refsnn.model.batch import Batch
from refsnn.model.gpt import GptConfig, gpt_shapes, spiking_gpt_shapes
from refsnn.model.parameters import initial_parameters
from refsnn.model.shapes import BertConfig, network_shapes

ROOT = Path(__file__).resolve().parents[1]
# A shell that starts the tests in the background has them ignore SIGINT, and what they start would, too.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: Scripts that made recorded values and constants, and backends: they need packages that the tests do not.
collect_ignore_glob = [
    "fuzz.py",
    "mutants.py",
    "on_a_gpu.py",
    "train_on_a_gpu.py",
    "record_*.py",
    "fit_*.py",
    "backends/[!_]*.py",
]


def _folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable, ROOT.parent / "shared" / default))
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; set {variable} to the folder that holds this data")
    return folder


@pytest.fixture(scope="session")
def data() -> Path:
    return _folder("REFSNN_DATA", "data")


@pytest.fixture(scope="session")
def cases() -> list[Path]:
    found = sorted(_folder("REFSNN_CASES", "authors_cases").glob("case_*.npz"))
    assert found, "the folder of cases holds none"
    return found


SMALL = BertConfig(
    vocab_size=30,
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    max_position_embeddings=9,
)


def random_parameters(
    config: BertConfig, seed: int, feedback: bool = False, scale: float = 0.4, extra=None, per_feature=False
):
    """Parameters without zeros or ones, so that no term of a formula can be left out unnoticed."""
    rng = np.random.default_rng(seed)
    params = initial_parameters(network_shapes(config, feedback, per_feature) | (extra or {}), rng, scale, np.float64)
    params = {name: value + 0.2 * rng.normal(size=value.shape) for name, value in params.items()}
    if feedback:
        params["feedback.weight"] *= 0.3
    return params


def random_batch(config: BertConfig, seed: int, size: int = 2, positions: int = 5) -> Batch:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, positions + 1, size)
    lengths[0] = positions
    mask = (np.arange(positions) < lengths[:, None]).astype(int)
    ids = rng.integers(1, config.vocab_size, (size, positions)) * mask
    return Batch(ids, rng.integers(0, 2, (size, positions)) * mask, mask)


SMALL_GPT = GptConfig(vocab_size=23, n_positions=9, n_embd=12, n_layer=2, n_head=3, n_inner=20)


def random_gpt(config: GptConfig, seed: int, spiking: bool = True, scale: float = 0.4):
    """Parameters of a GPT, or of its student, without zeros or ones."""
    rng = np.random.default_rng(seed)
    shapes = spiking_gpt_shapes(config) if spiking else gpt_shapes(config)
    params = initial_parameters(shapes, rng, scale, np.float64)
    return {name: value + 0.2 * rng.normal(size=value.shape) for name, value in params.items()}


def random_texts(config: GptConfig, seed: int, size: int = 2, positions: int = 5) -> Batch:
    """Token ids, the id 0 among them, of several lengths."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, positions + 1, size)
    lengths[0] = positions
    mask = (np.arange(positions) < lengths[:, None]).astype(int)
    return Batch(rng.integers(0, config.vocab_size, (size, positions)), np.zeros_like(mask), mask)


@pytest.fixture
def seen(tmp_path):
    """A function that says how a page looks in a browser: by how much each width is too narrow, and its background."""
    names = ("chromium", "chromium-browser", "google-chrome")
    if not (browser := next(filter(None, map(shutil.which, names)), None)):
        pytest.skip(f"no browser is installed ({', '.join(names)}); it shows the pages")

    def look(page: str, dark: bool, widths=(390, 800, 1280)) -> tuple[list[int], str]:
        text = json.dumps(page).replace("<", "\\u003c")
        host = tmp_path / "host.html"
        host.write_text(
            f"<body><script>const page = {text}, said = [];"
            f"for (const width of {list(widths)}) {{ const frame = document.createElement('iframe');"
            "frame.style = `width:${width}px;height:900px;border:0`; frame.onload = () => {"
            "const root = frame.contentDocument.documentElement;"
            "const paper = getComputedStyle(root.querySelector('body')).backgroundColor;"
            "said.push([width, root.scrollWidth - root.clientWidth, paper]);"
            "document.title = JSON.stringify(said); };"
            "frame.srcdoc = page; document.body.append(frame); }</script>",
            encoding="utf-8",
        )
        scheme = f"--blink-settings=preferredColorScheme={0 if dark else 1}"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", scheme]
        command = [browser, *options, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", host.as_uri()]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        said = sorted(json.loads(re.search(r"<title>(.*?)</title>", shown)[1]))
        assert [width for width, *_ in said] == sorted(widths)
        return [lacking for _, lacking, _ in said], said[0][2]

    return look


@pytest.fixture
def dask(tmp_path):
    """A scheduler with three workers, as processes; their addresses and processes."""
    pytest.importorskip("distributed", reason="Dask is not installed: pip install 'refsnn[cluster]'")
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    file = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(file)]
    start = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", *common]
    quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": env, "cwd": tmp_path}
    running = [subprocess.Popen(start, **quietly)]
    worker = [sys.executable, "-m", "distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny", *common]
    running += [subprocess.Popen(worker, **quietly) for _ in range(3)]
    deadline = time.monotonic() + 60
    while not file.exists():
        assert time.monotonic() < deadline and running[0].poll() is None, "the scheduler does not start"
        time.sleep(0.05)
    try:
        yield json.loads(file.read_text())["address"], running[1:]
    finally:
        for process in running:
            process.kill()
            process.wait()
