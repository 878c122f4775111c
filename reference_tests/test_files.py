"""Files: logs that a kill may have cut short."""

import json

import numpy as np
import pytest

from refsnn.data.examples import Examples
from refsnn.distillation.training import train
from refsnn.files import json_lines
from refsnn.reproduction.progress import Progress
from refsnn.storage.recipe import Stage
from refsnn.storage.run import Run

ENTRIES = [{"stage": "a", "step": 3, "lr": 1e-05, "loss": 0.1}, {"stage": "b", "step": 2, "lr": 0.1, "loss": 1 / 3}]
WHOLE = "".join(json.dumps(entry) + "\n" for entry in ENTRIES)


def test_lines_are_read_as_far_as_they_were_written(tmp_path):
    path = tmp_path / "log.jsonl"
    line = json.dumps(ENTRIES[1])
    for end in range(len(line)):  # a line cut anywhere
        path.write_text(WHOLE + line[:end])
        assert json_lines(path) == ENTRIES, line[:end]
    path.write_text(WHOLE + line)  # only the line's end is missing
    assert json_lines(str(path)) == [*ENTRIES, ENTRIES[1]]
    path.write_text(line[:9] + "\n\n" + WHOLE)  # half a line that others were written after
    assert json_lines(path) == ENTRIES


@pytest.mark.parametrize("content", [b"", b"\n", b"3\n", b"null\n[1]\n", b"\x00\x00\xff\n", b'{"stage": "\xc3'])
def test_what_is_no_entry_is_skipped(tmp_path, content):
    (tmp_path / "log.jsonl").write_bytes(content)
    assert json_lines(tmp_path / "log.jsonl") == []
    assert Run(tmp_path).log() == {}


def test_a_log_taken_up_again_keeps_its_bytes(tmp_path):
    path, later = tmp_path / "log.jsonl", json.dumps(ENTRIES[1] | {"step": 3}) + "\n"
    path.write_text(WHOLE + later + later[:20])
    Run(tmp_path).forget_log_after("b", 2)
    assert path.read_text() == WHOLE
    plan = json.dumps({"title": "SST-2, internal", "steps": 7, "work": 0.1}) + "\n"
    path.write_text(plan + plan[:20])
    Progress(tmp_path, [])
    assert path.read_text() == plan


def test_where_there_is_no_log(tmp_path):
    path = tmp_path / "log.jsonl"
    assert json_lines(path) == [] and Run(tmp_path).log() == {}

    def objective(params, batch, rows):
        raise MemoryError

    examples = Examples(np.array([1]), np.array([0]), np.array([0, 1]), np.array([0]))
    with pytest.raises(MemoryError):
        train(Run(tmp_path), Stage("a", 1, 1, 0.1), {"w": np.zeros(3)}, examples, objective, [0])
    assert not path.exists()  # training begins one with its first line
    Progress(tmp_path, [])
    assert path.read_bytes() == b""
