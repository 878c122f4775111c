"""Parity with the authors' program: its recorded cases pass, and any number changed in one is noticed."""

import json

import numpy as np
import pytest

from refsnn.commands.cli import main
from refsnn.conformance.parity import check_case, read_case
from refsnn.errors import InputError


def test_recorded_cases_agree_in_every_quantity(cases):
    for path in cases:
        comparisons = check_case(read_case(path))
        assert [c.name for c in comparisons if not c.passed] == []
        names = {c.name.split("/")[0] for c in comparisons}
        assert {"spikes", "asr", "rate", "rate_attn", "loss", "gradient"} <= names
        recorded = [key for key in read_case(path) if key.startswith("grad/")]
        assert sum(c.name.startswith("gradient/") for c in comparisons) == len(recorded)


@pytest.fixture(scope="module")
def case(cases):
    return {path.stem.removeprefix("case_"): read_case(path) for path in cases}


@pytest.mark.parametrize("kind", ["internal", "pred"])
def test_a_change_to_any_recorded_number_is_noticed(case, kind):
    for key, value in case[kind].items():
        group = key.split("/")[0]
        unused = ("pooler_layer", "s25.fc") + (("fit_dense",) if kind == "pred" else ("classification",))
        if key == "config" or group in ("input_ids", "token_type_ids", "attention_mask"):
            continue
        if any(word in key for word in unused) or (kind == "pred" and group in ("rep", "teacher_rep", "teacher_att")):
            continue  # not part of this loss
        changed = value * (1 + 1e-9)
        if group == "spikes":
            changed = value.copy()
            at = np.unravel_index(int(value.argmax()), value.shape)
            changed[at] = 1 - changed[at]
        if np.all(changed == value):
            continue  # all zeros
        comparisons = check_case(case[kind] | {key: changed})
        assert not all(c.passed for c in comparisons), key


def test_nan_never_passes(case):
    for key in ("rate/03", "loss", "logits", "grad/classification.weight"):
        comparisons = check_case(case["pred"] | {key: np.full_like(case["pred"][key], np.nan)})
        assert not all(c.passed for c in comparisons), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "other"}, "loss"),
        ({"hidden_size": 15}, "divisible"),
        ({"vocab_size": 10}, "input_ids"),
        ({"t_conv": 3}, "spikes"),
        ({"intermediate_size": 99}, "shape"),
    ],
)
def test_cases_that_do_not_fit_together_are_refused(case, change, message):
    settings = json.loads(str(case["pred"]["config"])) | change
    with pytest.raises(InputError, match=message):
        check_case(case["pred"] | {"config": np.array(json.dumps(settings))})


def test_a_missing_array_is_named(case):
    broken = {k: v for k, v in case["pred"].items() if k != "spikes/07"}
    with pytest.raises(InputError, match="spikes/07"):
        check_case(broken)


def test_command_line_status(cases, case, tmp_path, capsys):
    assert main(["parity", *map(str, cases)]) == 0
    out = capsys.readouterr().out
    assert out.count("passed:") == len(cases)
    assert "0 unexplained" in out
    wrong = case["pred"] | {"rate/24": case["pred"]["rate/24"] + 1e-6}
    np.savez(tmp_path / "wrong.npz", **wrong)
    assert main(["parity", str(tmp_path / "wrong.npz")]) == 1
    assert "***" in capsys.readouterr().out
    (tmp_path / "cut.npz").write_bytes(cases[0].read_bytes()[:9000])
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    for bad in ("absent.npz", "cut.npz", "pickle.npy"):
        assert main(["parity", str(tmp_path / bad)]) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("refsnn: ") and captured.err.count("\n") == 1
