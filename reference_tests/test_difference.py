"""Two records are compared up to the decision in which they part."""

import numpy as np
import pytest
from conftest import SMALL, random_batch, random_parameters

from refsnn.commands.cli import main
from refsnn.conformance.difference import first_difference
from refsnn.errors import InputError
from refsnn.model.neurons import Neuron
from refsnn.model.student import StudentConfig
from refsnn.readings.certify import certify
from refsnn.storage.records import record, write_record


@pytest.fixture(params=["inst", "running"])
def records(request, tmp_path):
    """Two records of one network with feedback; the second lacks a spike, and all that follows differs at random."""
    config = StudentConfig(SMALL, neuron=Neuron(leak=0.9, u0=0.5), feedback=True)
    params, batch = random_parameters(SMALL, 0, feedback=True), random_batch(SMALL, 1)
    spikes = record(config.network, params, batch, 12, request.param)
    name, at = "encoder.0.context", (6, 1, 0, 3)
    other = {key: train.copy() for key, train in spikes.items()}
    other[name][at] = 1 - other[name][at]
    other["encoder.1.output"][6:] = 1 - other["encoder.1.output"][6:]
    other["embeddings"][7:] = 0
    paths = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    for path, trains in zip(paths, (spikes, other), strict=True):
        write_record(path, config, batch, trains, request.param, "float64", params)
    return paths, config, params, batch, request.param, (spikes, other)


def test_the_first_difference_says_what_the_neuron_had(records, capsys, tmp_path):
    paths, config, params, batch, rule, (spikes, other) = records
    found = first_difference(*paths)
    assert (found.population, found.t, found.index) == ("encoder.0.context", 7, (1, 0, 3))
    assert sorted(found.spikes) == [0, 1] and found.spikes[0] == (found.u >= found.level)
    verdict = certify(config.network, params, batch, other, rule)["encoder.0.context"].first_wrong
    assert (verdict.t, verdict.index) == (7, (1, 0, 3))
    assert abs(verdict.u - found.u) <= 1e-12 and abs(verdict.level - found.level) <= 1e-12
    for name, read in found.read.items():
        assert np.array_equal(read, spikes[name][6, 1, 0])
    assert set(found.read) == {"embeddings", "encoder.0.key", "encoder.0.value"}
    differing = sum(int((spikes[name] != other[name]).sum()) for name in spikes)
    assert found.differing == differing
    assert main(["diff", *map(str, paths), "--plot", str(tmp_path / "u.svg")]) == 1
    printed = capsys.readouterr().out
    assert "encoder.0.context at t = 7, index (1, 0, 3)" in printed and f"{differing:,} of" in printed
    assert "<svg" in (tmp_path / "u.svg").read_text(encoding="utf-8")


def test_equal_records_and_such_as_cannot_be_compared(records, tmp_path, capsys):
    (one, _), config, params, batch, rule, (spikes, _) = records
    assert main(["diff", str(one), str(one)]) == 0
    assert "the same spikes" in capsys.readouterr().out
    shorter = {name: train[:5] for name, train in spikes.items()}
    write_record(tmp_path / "short", config, batch, shorter, rule, "float64", params)
    with pytest.raises(InputError, match="records of one length"):
        first_difference(one, tmp_path / "short")
    tokens = batch._replace(input_ids=batch.input_ids * 0 + 1)
    write_record(tmp_path / "tokens", config, tokens, spikes, rule, "float64", params)
    with pytest.raises(InputError, match="different tokens"):
        first_difference(one, tmp_path / "tokens")
    assert main(["diff", str(one), str(tmp_path / "none")]) == 2


@pytest.mark.parametrize("polarity", ["retractable", "ternary"])
@pytest.mark.parametrize("rule", ["inst", "running"])
def test_a_difference_of_signed_neurons_is_at_a_level_of_theirs(tmp_path, polarity, rule):
    config = StudentConfig(SMALL, neuron=Neuron(polarity=polarity, vth=0.6))
    params, batch = random_parameters(SMALL, 2), random_batch(SMALL, 3)
    spikes = record(config.network, params, batch, 12, rule)
    name = next(name for name, train in spikes.items() if (train == -1).any())
    at = tuple(np.argwhere(spikes[name] == -1)[0])
    other = {key: train.copy() for key, train in spikes.items()}
    other[name][at] = 0
    for path, trains in (("one", spikes), ("other", other)):
        write_record(tmp_path / path, config, batch, trains, rule, "float64", params)
    found = first_difference(tmp_path / "one", tmp_path / "other")
    verdict = certify(config.network, params, batch, other, rule)[name].first_wrong
    assert (found.t, found.index) == (at[0] + 1, at[1:]) == (verdict.t, verdict.index)
    assert found.spikes == (-1, 0) and found.asked == -1 and found.lower
    assert abs(verdict.u - found.u) <= 1e-12 and abs(verdict.level - found.level) <= 1e-12
    assert "fired −1, in the second it did not fire" in str(found) and "fires −1 below" in str(found)
