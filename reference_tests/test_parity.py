"""Parity with the authors' program: its recorded cases pass, and any number changed in one is noticed."""

import json
from contextlib import suppress

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


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["internal", "pred"])
def test_a_change_to_any_recorded_number_is_noticed(case, kind, every):
    for key, value in list(case[kind].items())[::every]:
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"t_conv": "16"}, "t_conv is '16'"),
        ({"t_conv": 0}, "`t_conv` is 0"),
        ({"vth": None}, "vth is None"),
        ({"leak": True}, "leak is True"),
        ({"feedback": "no"}, "feedback is 'no'"),
        ({"feedback": 1}, "feedback is 1"),
        ({"loss": ["pred"]}, "loss is"),
        ({"temperature": 0}, "temperature is 0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 10**400}, "temperature is 1"),
        ({"hidden_size": "16"}, "positive integer"),
    ],
)
def test_configurations_of_cases_are_checked(case, change, message):
    settings = json.loads(str(case["pred"]["config"])) | change
    with pytest.raises(InputError, match=message):
        check_case(case["pred"] | {"config": np.array(json.dumps(settings))})


def test_configurations_that_are_no_tables_are_refused(case):
    for text, message in (
        ("[1]", "a table was expected"),
        ("{", "not valid JSON"),
        ("[" * 10**5, "nested too deeply"),
        ('{"t_conv": ' + "9" * 5000 + "}", "not valid JSON"),
        ("{}", "t_conv is missing"),
    ):
        with pytest.raises(InputError, match=message):
            check_case(case["pred"] | {"config": np.array(text)})


def test_arrays_of_a_case_are_numbers_of_its_populations(case):
    for key, value, message in (
        ("asr/03", case["pred"]["asr/03"].astype(str), "'asr/03' is of type"),
        ("logits", case["pred"]["logits"].astype(complex), "'logits' is of type complex128"),
        ("spikes/25", case["pred"]["spikes/24"], "records 'spikes/25', but its network has populations 00 … 24"),
        ("rate/99", case["pred"]["rate/03"], "records 'rate/99'"),
        ("teacher_logits", np.array(1.0), "'teacher_logits' is a single number"),
        ("asr/3", case["pred"]["asr/03"], "records 'asr/3'"),
    ):
        with pytest.raises(InputError, match=message):
            check_case(case["pred"] | {key: value})
    without = {key: value for key, value in case["pred"].items() if not key.startswith("grad/")}
    with pytest.raises(InputError, match="lacks 'grad/"):
        check_case(without)


def test_files_that_are_no_cases_get_one_sentence(tmp_path, capsys):
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez_compressed(tmp_path / "bomb.npz", a=np.zeros(1 << 22))
    np.savez_compressed(tmp_path / "good.npz", a=np.zeros(1 << 12))
    assert read_case(tmp_path / "good.npz")["a"].shape == (1 << 12,)
    whole = bytearray((tmp_path / "good.npz").read_bytes())
    for at in range(0, len(whole), 7):
        broken = whole.copy()
        broken[at] ^= 0xFF
        (tmp_path / "broken.npz").write_bytes(broken)
        with suppress(InputError):  # or it was not needed; nothing else is raised
            read_case(tmp_path / "broken.npz")
    (tmp_path / "text.npz").write_text("spikes")
    (tmp_path / "empty.npz").write_bytes(b"")
    (tmp_path / "folder.npz").mkdir()
    for bad, words in (
        ("one.npy", "a single array"),
        ("bomb.npz", "would unpack to 34 MB"),
        ("text.npz", "cannot be read"),
        ("empty.npz", "cannot be read"),
        ("folder.npz", "cannot be read"),
    ):
        assert main(["parity", str(tmp_path / bad)]) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and words in captured.err and captured.err.count("\n") == 1, captured.err


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
