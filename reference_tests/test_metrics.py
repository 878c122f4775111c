"""Metrics: the same numbers as scikit-learn's and SciPy's, and something to say where those are undefined."""

import warnings

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from refsnn.data.metrics import METRICS, agreement, answer, decide, measure, task_metrics
from refsnn.data.tasks import TASKS
from refsnn.errors import InputError

CLASSES = st.integers(2, 4).flatmap(
    lambda classes: st.lists(st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1)), min_size=1)
)
#: Few different values, so that there are ties and constants; and any.
SCORES = st.one_of(
    st.lists(st.tuples(st.sampled_from([0.0, 0.1, 2.5]), st.sampled_from([1.0, 3.2, 5.0])), min_size=2),
    st.lists(st.tuples(st.floats(-1e3, 1e3, width=32), st.floats(0, 5, width=32)), min_size=2),
)


@pytest.fixture(scope="module")
def sklearn():
    return pytest.importorskip("sklearn.metrics", reason="compared with scikit-learn, which is not installed")


def test_of_classes_as_scikit_learn_has_them(sklearn):
    def f1(truth, predicted):
        return sklearn.f1_score(truth == 1, predicted == 1, zero_division=0)

    theirs = {"accuracy": sklearn.accuracy_score, "f1": f1, "matthews": sklearn.matthews_corrcoef}

    @settings(max_examples=150, deadline=None, derandomize=True)
    @given(CLASSES)
    def compare(pairs):
        predicted, truth = np.array(pairs).T
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn remarks on single classes
            for name, function in theirs.items():
                assert METRICS[name](predicted, truth) == pytest.approx(function(truth, predicted), abs=1e-12), name

    compare()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(SCORES)
def test_of_scores_as_scipy_has_them(pairs):
    predicted, truth = np.array(pairs).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy remarks on constants, which are NaN here and there
        pearson = scipy.stats.pearsonr(predicted, truth).statistic
        spearman = scipy.stats.spearmanr(predicted, truth).statistic
    assert METRICS["pearson"](predicted, truth) == pytest.approx(pearson, abs=1e-9, nan_ok=True)
    assert METRICS["spearman"](predicted, truth) == pytest.approx(spearman, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("predicted", "truth", "expected"),
    [
        ([0, 0, 0], [0, 0, 0], (1.0, 0.0, 0.0)),  # one class, rightly
        ([1, 1, 1], [1, 1, 1], (1.0, 1.0, 0.0)),
        ([0, 0, 0], [1, 0, 1], (1 / 3, 0.0, 0.0)),  # one class predicted
        ([1, 1, 1], [1, 0, 1], (2 / 3, 0.8, 0.0)),
        ([1, 0], [0, 1], (0.0, 0.0, -1.0)),
        ([1], [1], (1.0, 1.0, 0.0)),  # a single example
        ([0], [1], (0.0, 0.0, 0.0)),
    ],
)
def test_classes_that_leave_nothing_to_compare(predicted, truth, expected):
    assert tuple(METRICS[name](predicted, truth) for name in ("accuracy", "f1", "matthews")) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["pearson", "spearman"])
def test_scores_that_leave_nothing_to_compare(name):
    constant = [0.1] * 3  # whose computed mean is not 0.1
    assert np.mean(constant) != 0.1
    for predicted, truth in [(constant, [1.0, 2.0, 3.0]), ([1.0, 2.0, 3.0], constant), (constant, constant)]:
        assert np.isnan(METRICS[name](predicted, truth))
    assert np.isnan(METRICS[name]([2.0], [2.0]))
    assert np.isnan(METRICS[name]([1.0, np.nan, 2.0], [1.0, 2.0, 3.0]))


def test_correlations_at_extremes():
    x = np.array([1e-200, 3e-200, 2e-200])
    assert METRICS["pearson"](x, -1e300 * x) == pytest.approx(-1)
    assert -1 <= METRICS["pearson"](np.linspace(0, 1, 7), np.linspace(5, 0, 7)) <= 1  # never beyond by rounding
    assert METRICS["spearman"](np.array([1, 2, 3], np.float32), [10.0, np.inf, 5.0]) == -0.5


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("classes", [1, 2, 3])
def test_class_scores_that_say_nothing_have_no_answer(value, classes):
    logits = np.ones((5, classes))
    logits[1, 0] = logits[4, -1] = value
    other, labels = np.zeros((5, classes)), np.zeros(5, int)
    task = TASKS[{1: "stsb", 2: "sst2", 3: "mnli"}[classes]]
    for use in (
        lambda: decide(logits),
        lambda: answer(logits),
        lambda: task_metrics(task, logits, labels),
        lambda: agreement(logits, other),
        lambda: agreement(other, logits),
    ):
        with pytest.raises(InputError, match=r"^2 of 5 examples have class scores that are NaN or infinite"):
            use()


def test_correlations_of_almost_constant_scores_say_nothing_aside():
    almost = 1 + np.array([0.0, 1e-15, 3e-15])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert METRICS["pearson"](almost, [1.0, 2.0, 3.0]) > 0.8
        assert METRICS["spearman"](almost, [1.0, 2.0, 3.0]) == pytest.approx(1)


def test_large_counts_do_not_overflow(sklearn):
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400_000)  # as many as QQP has questions
    predicted = np.where(rng.random(len(truth)) < 0.8, truth, 1 - truth)
    assert METRICS["matthews"](predicted, truth) == pytest.approx(
        sklearn.matthews_corrcoef(truth, predicted), rel=1e-12
    )


@pytest.mark.parametrize("name", METRICS)
def test_what_cannot_be_measured(name):
    with pytest.raises(InputError, match="no predictions"):
        METRICS[name]([], [])
    for predicted, truth in [([1, 0], [1]), ([[1, 0]], [[1, 0]]), (1, 1)]:
        with pytest.raises(InputError, match="shapes"):
            METRICS[name](predicted, truth)


def test_several_at_once_are_plain_numbers():
    values = measure(list(METRICS), np.array([1, 0, 1]), np.array([1, 1, 0]))
    assert list(values) == list(METRICS)
    assert all(type(value) is float for value in values.values())
