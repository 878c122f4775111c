"""A few of the trials of `make fuzz`: damaged files and nearly right options, each answered in one sentence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TRIALS = 60


@pytest.mark.skipif(not hasattr(os, "fork"), reason="trials run in forked processes")
def test_damaged_files_and_options_are_answered_in_a_sentence():
    script = Path(__file__).with_name("fuzz.py")
    env = os.environ | {"TQDM_DISABLE": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, script, "--trials", str(TRIALS), "--seed", "7"]
    run = subprocess.run(command, capture_output=True, text=True, env=env)
    assert run.returncode == 0, run.stdout + run.stderr
    assert f"{TRIALS} of {TRIALS} inputs answered as promised" in run.stdout
