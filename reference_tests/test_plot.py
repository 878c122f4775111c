"""The three pictures of the front door: what they show is what they were given, and nothing else changes."""

import subprocess
import sys

import numpy as np
import pytest

import refsnn
from refsnn.errors import InputError
from refsnn.models import Raster

pytest.importorskip("matplotlib", reason="pictures are drawn by Matplotlib: pip install 'refsnn[all]'")
NAMES = ["embeddings"] + [f"encoder.{e}.{kind}" for e in range(2) for kind in ("key", "value", "context", "output")]


def marks(axes):
    """Where spikes are drawn: (time step, band) of every mark."""
    (lines,) = axes.collections
    return sorted((int(a[0]), int(a[1])) for a, _ in lines.get_segments())


def test_a_raster_has_a_mark_for_every_spike_in_the_band_of_its_token():
    spikes = np.random.default_rng(0).random((9, 3, 5)) < 0.3
    figure = refsnn.plot.raster(spikes, ["a", "good", "film"], title="encoder.1.output")
    (axes,) = figure.axes
    assert marks(axes) == sorted((t + 1, n) for t, n, _ in np.argwhere(spikes).tolist())
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "good", "film"]
    assert axes.get_title("left") == "encoder.1.output" and axes.yaxis_inverted()


def test_a_raster_takes_what_a_student_returns_and_draws_a_sample_of_many_neurons():
    spikes = np.ones((2, 1, 100))
    assert len(marks(refsnn.plot.raster(Raster(spikes, ["film"])).axes[0])) == 2 * 32
    assert len(marks(refsnn.plot.raster(spikes, neurons=7).axes[0])) == 2 * 7
    named = refsnn.plot.raster(Raster(spikes, ["film"]), ["other"])
    assert [label.get_text() for label in named.axes[0].get_yticklabels()] == ["other"]
    assert "no spikes" in [text.get_text() for text in refsnn.plot.raster(0 * spikes).axes[0].texts]


def test_settling_shows_the_mean_distance_of_every_population():
    rng = np.random.default_rng(1)
    rates = {name: rng.random((2, 3, 4)) for name in NAMES[:4]}
    asr = {t: {name: value + rng.normal(size=value.shape) / t for name, value in rates.items()} for t in (64, 4)}
    for mask in (None, np.array([[1, 1, 0], [1, 0, 0]])):
        lines = {line.get_label(): line for line in refsnn.plot.settling(asr, rates, mask=mask).axes[0].lines}
        assert list(lines) == ["1/T", *NAMES[:4]]
        for name in NAMES[:4]:
            real = np.ones((2, 3), bool) if mask is None else mask == 1
            away = [np.abs(asr[t][name] - rates[name])[real].mean() for t in (4, 64)]
            assert lines[name].get_ydata() == pytest.approx(away) and list(lines[name].get_xdata()) == [4, 64]


def test_settling_of_a_large_network_shows_one_population_for_each_encoder_unless_told():
    rates = {name: np.full((1, 1, 1), 0.5) for name in NAMES}
    asr = {8: {name: value + 0.1 for name, value in rates.items()}}

    def shown(**options):
        return [line.get_label() for line in refsnn.plot.settling(asr, rates, **options).axes[0].lines[1:]]

    assert shown() == ["embeddings", "encoder.0.output", "encoder.1.output"]
    assert shown(populations=["encoder.1.key"]) == ["encoder.1.key"]
    mine = {f"layer{i}": value for i, value in enumerate(rates.values())}  # somebody's own network
    figure = refsnn.plot.settling({8: mine}, mine)
    assert len(figure.axes[0].lines) == 1 + len(mine)


def results(**changes):
    rows = [{"t": t, "metrics": {"accuracy": v}} for t, v in ((16, 0.8), (2, 0.6))]
    metrics = {"teacher": {"accuracy": 0.95}, "rate": {"accuracy": 0.85}}
    return {"metric": "accuracy", "metrics": metrics, "spikes": rows, "examples": 40} | changes


def test_accuracy_is_drawn_in_order_of_t():
    axes = refsnn.plot.accuracy(results()).axes[0]
    teacher, rate, spikes, *_ = axes.lines
    assert teacher.get_ydata()[0] == pytest.approx(95) and rate.get_ydata()[0] == pytest.approx(85)
    assert spikes.get_xdata().tolist() == [2, 16] and spikes.get_ydata() == pytest.approx([60, 80])


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda p: p.raster(np.zeros((3, 4))), r"`spikes` has the shape \(3, 4\)"),
        (lambda p: p.raster(np.full((1, 1, 1), 0.5)), "other values than 0 and 1"),
        (lambda p: p.raster(np.full((1, 1, 1), np.nan)), "other values than 0 and 1"),
        (lambda p: p.raster(np.zeros((3, 2, 4)), ["film"]), "1 `tokens`, but `spikes` has 2"),
        (lambda p: p.raster(np.zeros((3, 2, 4)), neurons=0), "`neurons` is 0"),
        (lambda p: p.settling({}, {}), "`asr` has the timesteps"),
        (lambda p: p.settling({4: {"a": np.zeros(1)}}, {"b": np.zeros(1)}), "no population in common"),
        (lambda p: p.settling({4: {"a": np.zeros(1)}}, {"a": np.zeros(1)}, populations=["b"]), "do not both have b"),
        (lambda p: p.settling({4: {"a": np.zeros(1)}}, {"a": np.zeros(2)}), "a has the shape"),
        (lambda p: p.settling({4: {"a": np.ones((1, 2))}}, {"a": np.ones((1, 2))}, mask=[1]), "`mask` has the shape"),
        (lambda p: p.accuracy(results(spikes=[])), "lacks spikes"),
        (lambda p: p.accuracy("runs/demo"), "'runs/demo', but what"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_sentence(draw, said):
    with pytest.raises(InputError, match=said) as found:
        draw(refsnn.plot)
    assert "\n" not in str(found.value)


def test_drawing_needs_no_screen_and_leaves_pyplot_and_its_settings_alone():
    program = """
import io, sys
import numpy as np, matplotlib
settings = lambda: {name: matplotlib.rcParams[name] for name in matplotlib.rcParams if name != "backend"}
before = settings()
import refsnn
rates = {"a": np.zeros((1, 2, 3))}
for figure in (refsnn.plot.raster(np.ones((2, 1, 3))), refsnn.plot.settling({2: rates}, rates)):
    figure.savefig(io.BytesIO(), format="png")
assert settings() == before
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
