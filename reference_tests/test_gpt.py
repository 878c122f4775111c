"""The family of GPT-2s: against Hugging Face's, recorded (`record_gpt2.py`) and live; projections, rates, spikes."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL_GPT, random_gpt, random_texts
from hypothesis import given, settings
from hypothesis import strategies as st
from test_network import check_gradient_of_rates_and_scores, plain_simulation
from test_ops import assert_close, check_pullback

from refsnn import ops
from refsnn.errors import InputError
from refsnn.files import load_tensors, read_json, save_tensors, write_json
from refsnn.model.batch import Batch, attention_mask
from refsnn.model.dropout import dropout_masks
from refsnn.model.gpt import FINAL, GptConfig, gpt, gpt_shapes, initial_gpt, spiking_gpt, spiking_gpt_shapes
from refsnn.model.network import INPUT
from refsnn.model.neurons import Neuron
from refsnn.model.projections import Add, Attention, Gelu, Linear, Norm, TokenEmbeddings
from refsnn.readings.certify import certify
from refsnn.readings.rate_map import rate_map, sweep
from refsnn.readings.simulate import simulate, spike_blocks, spike_stream
from refsnn.storage.gpt2 import load_gpt, save_gpt
from refsnn.storage.records import record
from refsnn.storage.torch_files import read_torch, write_torch

RECORDED = Path(__file__).parent / "recorded"
NEURONS = [Neuron(), Neuron(polarity="retractable", u0=0.5), Neuron(polarity="ternary")]
polarities = pytest.mark.parametrize("neuron", NEURONS, ids=lambda neuron: neuron.polarity)
rules = pytest.mark.parametrize("rule", ["inst", "running"])


# ---------------------------------------------------------------------------------------------------------------------
# Hugging Face


def language_loss(params, batch, final):
    """Logits, mean cross-entropy of the real next tokens, and its pullback to `FINAL` and the table."""
    logits, read_pullback = ops.linear(final, params["wte.weight"])
    rows = np.nonzero(batch.attention_mask[:, 1:])
    loss, pullback = ops.cross_entropy(logits[:, :-1][rows], batch.input_ids[:, 1:][rows])

    def to_final():
        dlogits = np.zeros_like(logits)
        dlogits[:, :-1][rows] = pullback(1.0)
        return read_pullback(dlogits)

    return logits, loss, to_final


def in_our_names(tensors, config):
    """Hugging Face's tensors, or their gradients: c_attn in three, matrices of blocks turned."""
    found = {}
    for name, value in tensors.items():
        value = value.T if name.startswith("h.") else value
        if ".c_attn." in name:
            thirds = value[: config.n_embd], value[config.n_embd : -config.n_embd], value[-config.n_embd :]
            found |= {name.replace("c_attn", n): v for n, v in zip(("query", "key", "value"), thirds, strict=True)}
        else:
            found[name] = value
    return found


def off_by(config, params, inputs, theirs):
    """Largest differences from what Hugging Face found, relative to the largest entry: of values, and of gradients.

    Some gradients vanish in exact arithmetic: a key's bias shifts all scores of a query alike.
    """
    batch = Batch(inputs["input_ids"], np.zeros_like(inputs["input_ids"]), inputs["attention_mask"])
    network = gpt(config)
    rates, pullback = rate_map(network, params, batch)
    logits, loss, to_final = language_loss(params, batch, rates[FINAL])
    hidden = [*network.readouts[:-1], FINAL]  # theirs ends with what the last LayerNorm has made of the last block
    found = {"logits": logits, "loss": loss} | {f"hidden/{i}": rates[name] for i, name in enumerate(hidden)}
    assert {name for name in theirs if not name.startswith("grad/")} == set(found)
    values = max(np.abs(value - theirs[name]).max() / np.abs(theirs[name]).max() for name, value in found.items())
    dfinal, dtable = to_final()
    gradients = pullback({FINAL: dfinal})
    gradients["wte.weight"] = gradients["wte.weight"] + dtable  # tied: read with, and read off with
    wanted = {name.removeprefix("grad/"): value for name, value in theirs.items() if name.startswith("grad/")}
    wanted = in_our_names(wanted, config)
    assert set(gradients) == set(wanted) == set(gpt_shapes(config))
    return values, max(
        np.abs(gradient - wanted[name]).max() / max(np.abs(wanted[name]).max(), 1e-3)
        for name, gradient in gradients.items()
    )


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED / "gpt2_small.npz") as file:
        record = dict(file)
    record.pop("versions")
    inputs = {name: record.pop(name) for name in ("input_ids", "attention_mask")}
    return *load_gpt(RECORDED / "gpt2_small", np.float64), inputs, record


def test_recorded_values_and_every_gradient(recorded):
    config, params, inputs, theirs = recorded
    assert not inputs["attention_mask"].all()
    values, gradients = off_by(config, params, inputs, theirs)
    assert values < 1e-12 and gradients < 1e-12


def test_parameters_are_those_of_the_file_and_both_files_hold_the_same(recorded, tmp_path):
    config, params, _, _ = recorded
    stored = load_tensors(RECORDED / "gpt2_small" / "model.safetensors")[0]
    wanted = in_our_names({name.removeprefix("transformer."): value for name, value in stored.items()}, config)
    shutil.copy(RECORDED / "gpt2_small" / "config.json", tmp_path)
    shutil.copy(RECORDED / "gpt2_small" / "pytorch_model.bin", tmp_path)
    again, other = load_gpt(tmp_path, np.float64)
    assert again == config == GptConfig(**dataclasses.asdict(SMALL_GPT) | {"initializer_range": 0.4})
    assert list(params) == list(other) == list(gpt_shapes(config)) and set(params) == set(wanted)
    for name, shape in gpt_shapes(config).items():
        assert params[name].shape == shape and params[name].dtype == np.float64
        assert params[name].flags.c_contiguous and params[name].flags.writeable
        np.testing.assert_array_equal(params[name], wanted[name], err_msg=name)
        np.testing.assert_array_equal(params[name], other[name], err_msg=name)
    assert load_gpt(tmp_path)[1]["wte.weight"].dtype == np.float32


@pytest.mark.parametrize("seed", range(4))
def test_live_against_hugging_face(tmp_path, seed):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from record_gpt2 import answer, inputs_of, model_of

    rng = np.random.default_rng(seed)
    heads = int(rng.integers(1, 5))
    config = GptConfig(
        vocab_size=int(rng.integers(5, 60)),
        n_positions=int(rng.integers(8, 16)),
        n_embd=heads * int(rng.integers(1, 9)),
        n_layer=int(rng.integers(1, 5)),
        n_head=heads,
        n_inner=[None, 7][seed % 2],
        layer_norm_epsilon=[1e-5, 1e-3][seed // 2],
        initializer_range=0.4,
    )
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name != "initializer_range"}
    model = model_of(seed, **sizes)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="4KB")
    (tmp_path / "bin").mkdir()
    model.config.save_pretrained(tmp_path / "bin")
    torch.save(model.state_dict(), tmp_path / "bin" / "pytorch_model.bin")
    torch.save(model.transformer.state_dict(), tmp_path / "body.bin")
    assert "lm_head.weight" in read_torch(tmp_path / "bin" / "pytorch_model.bin")
    (tmp_path / "whole2").mkdir()
    shutil.copy(tmp_path / "whole" / "config.json", tmp_path / "whole2")
    shutil.copy(tmp_path / "body.bin", tmp_path / "whole2" / "pytorch_model.bin")
    found, params = load_gpt(tmp_path / "whole", np.float64)
    assert found == config
    for other in ("parts", "bin", "whole2"):
        for name, value in load_gpt(tmp_path / other, np.float64)[1].items():
            np.testing.assert_array_equal(value, params[name], err_msg=name)
    inputs = inputs_of(seed, config.vocab_size, [6, 8, 2, 5])
    values, gradients = off_by(config, params, inputs, answer(model, inputs))
    assert values < 1e-12 and gradients < 1e-12
    save_gpt(tmp_path / "ours", config, params)
    written = transformers.GPT2LMHeadModel.from_pretrained(tmp_path / "ours", dtype=torch.float64)
    for name, value in model.state_dict().items():
        assert torch.equal(written.state_dict()[name], value), name
    assert written.config.layer_norm_epsilon == config.layer_norm_epsilon
    print(f"largest differences: {values:.1e} of values, {gradients:.1e} of gradients")


# ---------------------------------------------------------------------------------------------------------------------
# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """A folder, and a function that writes tensors and configuration into it, changed."""
    tensors = load_tensors(RECORDED / "gpt2_small" / "model.safetensors")[0]
    values = read_json(RECORDED / "gpt2_small" / "config.json")

    def write(tensors=tensors, **changes):
        save_tensors(tmp_path / "model.safetensors", tensors, {})
        write_json(tmp_path / "config.json", values | changes)
        return tmp_path

    return tensors, write


@pytest.mark.parametrize("prefix", ["", "transformer.", "module.transformer."])
def test_prefixes_buffers_and_a_tied_head(checkpoint, recorded, prefix):
    tensors, write = checkpoint
    params = recorded[1]
    plain = {name.removeprefix("transformer."): value for name, value in tensors.items()}
    plain |= {f"h.{e}.attn.bias": np.tril(np.ones((1, 1, 9, 9), np.uint8)) for e in range(2)}
    plain |= {f"h.{e}.attn.masked_bias": np.array(-1e4) for e in range(2)}
    found = load_gpt(
        write({f"{prefix}{name}": value for name, value in plain.items()} | {"lm_head.weight": plain["wte.weight"]}),
        np.float64,
    )[1]
    assert list(found) == list(params)
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value)


def test_what_is_no_gpt2_is_refused_by_name(checkpoint, tmp_path):
    tensors, write = checkpoint
    table = tensors["transformer.wte.weight"]
    for kind in ("bert", "gpt_neo", "llama", None):
        with pytest.raises(InputError, match=r"config\.json: model_type is .*, but a GPT-2 was expected"):
            load_gpt(write(model_type=kind))
    with pytest.raises(InputError, match="is a run's student, which is no GPT-2"):
        load_gpt(write(model_type="spiking_gpt"))
    for key, value in {"activation_function": "gelu", "scale_attn_by_inverse_layer_idx": True}.items():
        with pytest.raises(InputError, match=f"{key} is {value!r}, but refsnn computes"):
            load_gpt(write(**{key: value}))
    surplus = {
        "lm_head.weight differs from wte.weight": {"lm_head.weight": table + 1},
        "holds h.2.ln_1.weight, which a GPT-2 of 2 blocks does not have": {"transformer.h.2.ln_1.weight": np.ones(12)},
        "holds score.weight, which": {"score.weight": np.ones((2, 12))},
        "holds wte.weight twice": {"wte.weight": table},
    }
    for message, more in surplus.items():
        with pytest.raises(InputError, match=message):
            load_gpt(write(tensors | more))
    one = "transformer.h.0.attn.c_attn.weight"
    with pytest.raises(InputError, match=r"lacks the parameter h\.0\.attn\.c_attn\.weight"):
        load_gpt(write({name: value for name, value in tensors.items() if name != one}))
    with pytest.raises(InputError, match=r"c_attn\.weight has shape \(36, 12\), but .* asks for \(12, 36"):
        load_gpt(write(tensors | {one: tensors[one].T}))
    with pytest.raises(InputError, match="does not exist"):
        load_gpt(tmp_path / "nowhere")


def test_what_is_saved_is_what_was_loaded_and_what_hugging_face_has(recorded, tmp_path, monkeypatch):
    config, params, _, _ = recorded
    save_gpt(tmp_path / "new" / "gpt", config, params | {"h.0.attn.threshold": np.ones(12)})
    again, found = load_gpt(tmp_path / "new" / "gpt", np.float64)
    assert again == config
    for name, value in params.items():
        np.testing.assert_array_equal(found[name], value)
    ours, theirs = (load_tensors(folder / "model.safetensors")[0] for folder in (
        tmp_path / "new" / "gpt", RECORDED / "gpt2_small"))  # fmt: skip
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value)
    values, known = read_json(tmp_path / "new" / "gpt" / "config.json"), read_json(
        RECORDED / "gpt2_small" / "config.json")  # fmt: skip
    assert values.items() <= known.items()
    with pytest.raises(InputError, match=r"the GPT-2 lacks the parameter wpe\.weight"):
        save_gpt(tmp_path / "other", config, {"wte.weight": params["wte.weight"]})
    # A file that cannot be written whole is not written: the old one stays.
    monkeypatch.setattr("refsnn.files.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(InputError, match="No space left"):
        save_gpt(tmp_path / "new" / "gpt", config, {name: 0 * value for name, value in params.items()})
    assert np.array_equal(load_gpt(tmp_path / "new" / "gpt", np.float64)[1]["wte.weight"], params["wte.weight"])


def test_older_files_of_pytorch_hold_half_precision_and_the_masks(recorded, tmp_path):
    config, params, _, _ = recorded
    save_gpt(tmp_path, config, params)
    stored = load_tensors(tmp_path / "model.safetensors")[0]
    (tmp_path / "model.safetensors").unlink()
    halves = {name.removeprefix("transformer."): value.astype(np.float16) for name, value in stored.items()}
    write_torch(tmp_path / "pytorch_model.bin", halves | {"h.1.attn.bias": np.ones((1, 1, 9, 9), bool)})
    for name, value in load_gpt(tmp_path)[1].items():
        np.testing.assert_array_equal(value, params[name].astype(np.float16).astype(np.float32))


# ---------------------------------------------------------------------------------------------------------------------
# Projections


def as_op(projection, names, mask, fixed=None):
    """A projection as a function of what it reads and of its parameters, for `check_pullback`."""

    def op(*arrays):
        reads = arrays[: len(projection.linear)]
        values = dict(zip(names, arrays[len(reads) :], strict=True)) | (fixed or {})
        y, pullback = projection(values, reads, mask)

        def to_arrays(dy):
            dreads, dparams = pullback(dy)
            assert set(dparams) == set(names)
            return tuple(map(np.array, (*dreads, *(dparams[name] for name in names))))  # copies: `Add` hands dy on

        return y, to_arrays

    return op


def drawn(projection, widths, width, shape, rng, queries=None):
    """Random reads and parameters of a projection; the first read may have fewer positions than the others."""
    reads = [rng.normal(size=(*shape, n)) for n in widths]
    if queries is not None:
        reads[0] = reads[0][..., -queries:, :]
    params = {name: rng.normal(size=one) for name, one in projection.shapes(widths, width).items()}
    params |= {name: 0.5 + np.abs(value) for name, value in params.items() if name.endswith("threshold")}
    return reads, params


ATTENTION = Attention("q", heads=2, threshold="q.threshold", causal=True)
PROJECTIONS = {
    "Norm": (Norm("ln", 1e-5), (6,)),
    "Add": (Add("dense"), (5, 6)),
    "Gelu": (Gelu("fc", "fc.threshold", tanh=True), (5,)),
    "Gelu without thresholds": (Gelu("fc", tanh=True), (5,)),
    "Attention": (ATTENTION, (6, 6, 6)),
}
projections = pytest.mark.parametrize("name", PROJECTIONS)


@projections
@settings(max_examples=10, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([(), (3,)]))
def test_pullbacks_of_projections(name, seed, positions, time):
    projection, widths = PROJECTIONS[name]
    rng = np.random.default_rng(seed)
    reads, params = drawn(projection, widths, 6, (*time, 2, positions), rng)
    fixed = {}
    if dropout := getattr(projection, "dropout", None):
        shape = (2, 2, positions, positions) if "Attention" in name else (2, positions, 6)
        fixed[dropout] = rng.integers(0, 2, shape) * 2.0
    batch = Batch(*np.ones((3, 2, positions), int))
    batch.attention_mask[1, (positions + 1) // 2 :] = 0
    op = as_op(projection, list(params), attention_mask(batch, np.dtype(float)), fixed)
    check_pullback(op, (*reads, *params.values()), rng, name, scale=100.0)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 4))
def test_fewer_queries_than_keys_are_the_last_ones(seed, queries, earlier):
    keys, rng = queries + earlier, np.random.default_rng(seed)
    reads, params = drawn(ATTENTION, (6, 6, 6), 6, (2, keys), rng)
    mask = np.zeros((2, 1, 1, 1))
    whole, whole_pullback = ATTENTION(params, tuple(reads), mask)
    last = (reads[0][:, earlier:], *reads[1:])
    y, pullback = ATTENTION(params, last, mask)
    assert_close(y, whole[:, earlier:], "the last queries")
    dy = rng.normal(size=y.shape)
    spread = np.zeros_like(whole)
    spread[:, earlier:] = dy
    (dh, dkey, dvalue), dparams = pullback(dy)
    (dwhole, dkeys, dvalues), dwholes = whole_pullback(spread)
    for ours, theirs in ((dh, dwhole[:, earlier:]), (dkey, dkeys), (dvalue, dvalues)):
        assert_close(ours, theirs, "cotangents of what is read")
    for name in dparams:
        assert_close(dparams[name], dwholes[name], name)
    check_pullback(as_op(ATTENTION, list(params), mask), (*last, *params.values()), rng, "fewer queries", scale=100.0)


def test_causal_attention_is_that_of_every_position_with_those_before_it():
    rng = np.random.default_rng(0)
    (h, key, value), params = drawn(ATTENTION, (6, 6, 6), 6, (2, 5), rng)
    batch = Batch(*np.ones((3, 2, 5), int))
    batch.attention_mask[1, 3:] = 0
    y, _ = ATTENTION(params, (h, key, value), attention_mask(batch, np.dtype(float)))
    query = h @ params["q.weight"].T + params["q.bias"]
    for b, lengths in enumerate(((1, 2, 3, 4, 5), (1, 2, 3, 3, 3))):
        for n, seen in enumerate(lengths):
            alone, _ = ops.attention(query[b, n : n + 1], key[b, :seen], value[b, :seen], 2)
            assert_close(y[b, n], alone[0] / params["q.threshold"], f"sequence {b}, position {n}")


def test_norms_and_sums_are_their_formulas():
    rng = np.random.default_rng(1)
    (x,), params = drawn(Norm("ln", 1e-5), (6,), 6, (2, 3), rng)
    y, _ = Norm("ln", 1e-5)(params, (x,), None)
    centred = x - x.mean(axis=-1, keepdims=True)
    x_hat = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
    assert_close(y, x_hat * params["ln.weight"] + params["ln.bias"], "Norm")
    (a, stream), params = drawn(Add("dense"), (5, 6), 6, (2, 3), rng)
    y, _ = Add("dense")(params, (a, stream), None)
    assert_close(y, a @ params["dense.weight"].T + params["dense.bias"] + stream, "Add")
    dropped, _ = Add("dense")(params | {"dense.dropout": np.zeros((2, 3, 6))}, (a, stream), None)
    assert np.array_equal(dropped, stream)  # what is left out is what is added, not the stream


@pytest.mark.parametrize("first", [0, 3])
def test_token_embeddings_count_their_positions_from_the_first(first):
    rng, drive = np.random.default_rng(2), TokenEmbeddings(first)
    batch = Batch(np.array([[4, 1, 4], [0, 4, 2]]), *np.ones((2, 2, 3), int))
    tables = rng.normal(size=(5, 4)), rng.normal(size=(7, 4))

    def op(token, position):
        y, pullback = drive({"wte.weight": token, "wpe.weight": position}, batch)
        return y, lambda dy: tuple(pullback(dy)[name] for name in ("wte.weight", "wpe.weight"))

    wanted = tables[0][batch.input_ids] + tables[1][first : first + 3]
    assert np.array_equal(op(*tables)[0], wanted)
    check_pullback(op, tables, rng, "TokenEmbeddings")
    dtoken, dposition = op(*tables)[1](np.ones((2, 3, 4)))
    assert (dtoken[:, 0] == [1, 1, 1, 0, 3]).all() and dposition[:, 0].sum() == 6  # the id 0 is a token like any other
    mask = rng.integers(0, 2, (2, 3, 4)) * 2.0
    params = {"wte.weight": tables[0], "wpe.weight": tables[1], "embeddings.dropout": mask}
    assert np.array_equal(drive(params, batch)[0], wanted * mask)


@projections
def test_bounds_of_the_derivative_hold(name):
    """By power iteration, over each read alone: what the bound must not be below."""
    projection, widths = PROJECTIONS[name]
    rng = np.random.default_rng(3)
    for queries in (None, 2) if "Attention" in name else (None,):
        reads, params = drawn(projection, widths, 6, (2, 4), rng, queries)
        mask = np.zeros((2, 1, 1, 1))
        for i, bound in enumerate(projection.norms(params, tuple(reads), mask)):
            v, largest = rng.normal(size=reads[i].shape), 0.0
            for _ in range(60):
                v = v / np.linalg.norm(v)
                moved = tuple(r + 1e-30j * v if i == j else r.astype(complex) for j, r in enumerate(reads))
                u = projection(params, moved, mask)[0].imag / 1e-30
                v, largest = projection(params, tuple(reads), mask)[1](u)[0][i], max(largest, np.linalg.norm(u))
            assert 0 < largest <= bound * (1 + 1e-9), i


def test_the_bound_of_constant_rows_is_that_of_epsilon():
    params = {"ln.weight": np.array([-3.0, 2.0]), "ln.bias": np.zeros(2)}
    assert Norm("ln", 1e-4).norms(params, (np.ones((1, 3, 2)),), np.zeros(1)) == pytest.approx((300,), rel=1e-12)


# ---------------------------------------------------------------------------------------------------------------------
# Rates


CONFIGS = st.builds(
    lambda heads, d, layers, m: GptConfig(
        vocab_size=11, n_positions=7, n_embd=heads * d, n_layer=layers, n_head=heads, n_inner=m
    ),
    heads=st.integers(1, 3),
    d=st.integers(2, 4),
    layers=st.integers(1, 3),
    m=st.integers(1, 9),
)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    CONFIGS,
    st.sampled_from([0.6, 1.0, 1.5]),
    st.integers(0, 99),
    st.integers(1, 3),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.4]),
    st.sampled_from(["unsigned", "retractable", "ternary", None]),
)
def test_gradient_through_the_rate_map_and_the_scores(config, vth, seed, size, positions, dropout, polarity):
    network = gpt(config) if polarity is None else spiking_gpt(config, Neuron(vth=vth, polarity=polarity))
    params, batch = random_gpt(config, seed, spiking=polarity is not None), random_texts(config, seed, size, positions)
    learnt = [name for name in params if not name.startswith("readout.")]
    check_gradient_of_rates_and_scores(network, params, batch, dropout, seed, learnt)


def test_the_student_is_the_teacher_where_no_neuron_clips():
    """With currents between 0 and 1, or −1 and 1, rates are what analogue units have, and the stream is a plain sum."""
    params, batch = random_gpt(SMALL_GPT, 3), random_texts(SMALL_GPT, 3)
    params = {name: value if name.startswith(("wte", "wpe")) else 0.1 * value for name, value in params.items()}
    params |= {name: np.ones_like(value) for name, value in params.items() if name.endswith("threshold")}
    teacher = rate_map(gpt(SMALL_GPT), params, batch)[0]
    student = rate_map(spiking_gpt(SMALL_GPT, Neuron(polarity="ternary")), params, batch)[0]
    for name, value in teacher.items():
        assert np.abs(value).max() < 1 or name in (INPUT, "embeddings") or name.endswith("output"), name
        np.testing.assert_allclose(student[name], value, rtol=0, atol=1e-13, err_msg=name)
    assert np.abs(teacher["block.1.output"]).max() > 1  # the stream has no limits


def test_torch_finds_the_same_gradient_of_the_student():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    config, neuron = SMALL_GPT, Neuron(vth=0.8, polarity="ternary")
    arrays, batch = random_gpt(config, 7), random_texts(config, 7, size=3)
    p = {name: torch.tensor(value, requires_grad=True) for name, value in arrays.items()}
    ids, seen = torch.tensor(batch.input_ids), torch.tensor(batch.attention_mask, dtype=torch.bool)
    (size, positions), d, heads = ids.shape, config.n_embd, config.n_head

    def linear(name, x):
        return functional.linear(x, p[f"{name}.weight"], p[f"{name}.bias"])

    def spiking(current):
        return (current / neuron.vth).clamp(-1, 1)

    def norm(name, x):
        return spiking(functional.layer_norm(x, (d,), p[f"{name}.weight"], p[f"{name}.bias"], 1e-5))

    visible = torch.tril(torch.ones(positions, positions, dtype=torch.bool)) & seen[:, None, None, :]
    x = p["wte.weight"][ids] + p["wpe.weight"][:positions]
    for e in range(config.n_layer):
        h = norm(f"h.{e}.ln_1", x)
        q, k, v = linear(f"h.{e}.attn.query", h), spiking(linear(f"h.{e}.attn.key", h)), spiking(
            linear(f"h.{e}.attn.value", h))  # fmt: skip
        q, k, v = (part.view(size, positions, heads, -1).transpose(1, 2) for part in (q, k, v))
        context = functional.scaled_dot_product_attention(q, k, v, visible).transpose(1, 2).reshape(x.shape)
        x = x + linear(f"h.{e}.attn.c_proj", spiking(context / p[f"h.{e}.attn.threshold"]))
        inner = functional.gelu(linear(f"h.{e}.mlp.c_fc", norm(f"h.{e}.ln_2", x)), approximate="tanh")
        x = x + linear(f"h.{e}.mlp.c_proj", spiking(inner / p[f"h.{e}.mlp.threshold"]))
    final = norm("ln_f", x)
    weights = np.random.default_rng(8).normal(size=final.shape)
    (final * torch.tensor(weights)).sum().backward()
    rates, pullback = rate_map(spiking_gpt(config, neuron), arrays, batch)
    np.testing.assert_allclose(rates[FINAL], final.detach().numpy(), rtol=0, atol=1e-12)
    for name, gradient in pullback({FINAL: weights}).items():
        theirs = p[name].grad.numpy()
        assert np.abs(gradient - theirs).max() <= 1e-12 * max(np.abs(theirs).max(), 1), name


def test_dropout_leaves_out_what_its_masks_say():
    network, params, batch = spiking_gpt(SMALL_GPT), random_gpt(SMALL_GPT, 3), random_texts(SMALL_GPT, 4, size=3)
    masks = dropout_masks(network, batch, 0.25, np.random.default_rng(0), np.float64)
    layers = [f"h.{e}.{part}.dropout" for e in range(2) for part in ("attn.query", "attn.c_proj", "mlp.c_proj")]
    assert list(masks) == ["embeddings.dropout", *layers]
    values = np.concatenate([mask.ravel() for mask in masks.values()])
    assert set(values) == {0.0, 4 / 3}
    assert abs((values == 0).mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(values))
    nothing = {name: np.zeros_like(mask) for name, mask in masks.items()}
    stream = rate_map(network, params | {k: v for k, v in nothing.items() if "c_proj" in k}, batch)[0]
    for name in ("block.0.attention_output", "block.0.output", "block.1.output"):
        assert np.array_equal(stream[name], stream[INPUT])  # half-blocks that add nothing leave the stream alone
    blind = rate_map(network, params | {k: v for k, v in nothing.items() if "query" in k}, batch)[0]
    assert not blind["block.0.context"].any()
    assert not rate_map(network, params | {"embeddings.dropout": nothing["embeddings.dropout"]}, batch)[0][INPUT].any()


# ---------------------------------------------------------------------------------------------------------------------
# Spikes


@polarities
def test_running_integration_reaches_the_rate_map(neuron):
    network, params, batch = spiking_gpt(SMALL_GPT, neuron), random_gpt(SMALL_GPT, 1), random_texts(SMALL_GPT, 1)
    target, _ = rate_map(network, params, batch)
    found = simulate(network, params, batch, [128, 512, 2048], "running")
    error = {t: {name: np.abs(rates[name] - target[name]).mean() for name in rates} for t, rates in found.items()}
    for name in found[128]:
        assert error[512][name] < 0.5 * error[128][name] + 1e-12, name
        assert error[2048][name] < 0.12 * error[128][name] + 1e-12, name
    # Like 1/T, on the whole.
    total = {t: sum(values.values()) for t, values in error.items()}
    assert 0.15 < total[512] / total[128] < 0.35 and 0.15 < total[2048] / total[512] < 0.35


@rules
@pytest.mark.parametrize("neuron", [*NEURONS, Neuron(vth=0.8, leak=0.9, u0=0.5)], ids=repr)
def test_simulation_equals_its_plain_definition(rule, neuron):
    config = dataclasses.replace(SMALL_GPT, n_embd=6, n_inner=5)
    network, params, batch = spiking_gpt(config, neuron), random_gpt(config, 5), random_texts(config, 5, 2, 4)
    expected = plain_simulation(network, params, batch, 12, rule)
    for block in (1, 5, 12):
        blocks = [dict(spikes) for _, spikes in spike_blocks(network, params, batch, 12, rule, block)]
        for p in network.populations:
            ours = np.concatenate([spikes[p.name] for spikes in blocks])
            where = f"{p.name}, block {block}"
            if p.neuron is None:
                np.testing.assert_allclose(ours, expected[p.name], rtol=0, atol=1e-12, err_msg=where)
            else:
                np.testing.assert_array_equal(ours, expected[p.name], err_msg=where)


def spikes_of(network, params, batch, t_conv, rule, earlier=None):
    """All spikes, (T, B, N, width) of every population."""
    record = {}
    for _, name, fired in spike_stream(network, params, batch, t_conv, rule, earlier=earlier or {}):
        record.setdefault(name, []).append(fired)
    return {name: np.concatenate(parts) for name, parts in record.items()}


@rules
@polarities
def test_no_position_sees_a_later_one(rule, neuron):
    network, params = spiking_gpt(SMALL_GPT, neuron), random_gpt(SMALL_GPT, 2)
    ids = np.random.default_rng(2).integers(0, SMALL_GPT.vocab_size, (2, 6))
    kept, changed = (Batch(ids + (np.arange(6) == 4) * more, 0 * ids, 0 * ids + 1) for more in (0, 1))
    changed = changed._replace(input_ids=changed.input_ids % SMALL_GPT.vocab_size)
    one, two = (spikes_of(network, params, batch, 24, rule) for batch in (kept, changed))
    differ = 0
    for name in one:
        np.testing.assert_array_equal(one[name][:, :, :4], two[name][:, :, :4], err_msg=name)
        differ += np.any(one[name][:, :, 5:] != two[name][:, :, 5:])
    assert differ > len(one) / 2  # while later ones do see it
    rates = [sweep(network, params, batch)[0] for batch in (kept, changed)]
    for name in rates[0]:
        np.testing.assert_array_equal(rates[0][name][:, :4], rates[1][name][:, :4], err_msg=name)


@rules
@polarities
@pytest.mark.parametrize("news", [1, 3])
def test_keys_and_values_of_earlier_positions_are_all_that_later_ones_need(rule, neuron, news):
    """In float64: the same sums in other shapes may round differently, which the tie rule is there for."""
    network, params, positions, t_conv = spiking_gpt(SMALL_GPT, neuron), random_gpt(SMALL_GPT, 4), 7, 48
    ids = np.random.default_rng(4).integers(0, SMALL_GPT.vocab_size, (2, positions))
    batch = Batch(ids, 0 * ids, 0 * ids + 1)
    batch.attention_mask[1, -1] = 0  # a shorter text among them
    whole = spikes_of(network, params, batch, t_conv, rule)
    first = positions - news
    tail = Batch(*(part[:, first:] for part in batch))
    cached = {name: train[:, :, :first] for name, train in whole.items() if name.endswith(("key", "value"))}
    assert len(cached) == 2 * SMALL_GPT.n_layer
    continued = dataclasses.replace(network, drive=TokenEmbeddings(first))
    for earlier in (cached, {name: train.astype(np.int8) for name, train in cached.items()}):
        found = spikes_of(continued, params, tail, t_conv, rule, earlier)
        for p in network.populations:
            wanted = whole[p.name][:, :, first:]
            if p.neuron is None:
                np.testing.assert_allclose(found[p.name], wanted, rtol=0, atol=1e-12, err_msg=p.name)
            else:
                np.testing.assert_array_equal(found[p.name], wanted, err_msg=p.name)


def test_earlier_spikes_that_do_not_fit_are_refused():
    network, params, batch = spiking_gpt(SMALL_GPT), random_gpt(SMALL_GPT, 0), random_texts(SMALL_GPT, 0)
    for earlier, message in (
        ({"block.0.keys": np.zeros((9, 2, 3, 12))}, "the earlier spikes of population 'block.0.keys' is not known"),
        ({"block.0.key": np.zeros((3, 2, 3, 12))}, r"the earlier spikes of block.0.key have shape \(3, 2, 3, 12\)"),
        ({"block.0.key": np.zeros((9, 1, 3, 12))}, "was expected"),
        (
            {"block.0.key": np.zeros((9, 2, 3, 12)), "block.0.value": np.zeros((9, 2, 4, 12))},
            "the earlier spikes are of 3 and 4 positions, but as many were expected of every population",
        ),
    ):
        with pytest.raises(InputError, match=message):
            list(spike_stream(network, params, batch, 9, earlier=earlier))


@rules
@pytest.mark.parametrize("neuron", [*NEURONS, Neuron(vth=0.7, leak=0.9, u0=0.5)], ids=repr)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_certificate_accepts_our_spikes_and_finds_every_flipped_one(rule, neuron, dtype):
    network, batch = spiking_gpt(SMALL_GPT, neuron), random_texts(SMALL_GPT, 4)
    params = {name: value.astype(dtype) for name, value in random_gpt(SMALL_GPT, 4).items()}
    spikes = record(network, params, batch, 15, rule)
    assert set(spikes) == {p.name for p in network.populations if p.neuron is not None}
    given, precision = (network, params, batch), np.dtype(dtype).name
    verdicts = certify(*given, spikes, rule, precision)
    assert set(verdicts) == set(spikes) and sum(v.wrong for v in verdicts.values()) == 0
    assert sum(v.undecidable for v in verdicts.values()) < 1e-3 * sum(v.decisions for v in verdicts.values())
    rng = np.random.default_rng(0)
    for name, train in spikes.items():
        at = tuple(rng.integers(0, n) for n in train.shape)
        flipped = train.copy()
        flipped[at] = 1 - abs(flipped[at])
        verdict = certify(*given, spikes | {name: flipped}, rule, precision, block=4)[name]
        assert (verdict.first_wrong.t, verdict.first_wrong.index) == (at[0] + 1, at[1:]), name


@rules
def test_certificate_finds_a_stream_that_spikes(rule):
    """Its own record is not asked for: what it should have handed on follows from the spikes that it read."""
    network, params, batch = spiking_gpt(SMALL_GPT), random_gpt(SMALL_GPT, 4), random_texts(SMALL_GPT, 4)
    stream = tuple(p if p.neuron else dataclasses.replace(p, neuron=Neuron()) for p in network.populations)
    spikes = record(dataclasses.replace(network, populations=stream), params, batch, 15, rule)
    spikes = {name: train for name, train in spikes.items() if network[name].neuron is not None}
    verdicts = certify(network, params, batch, spikes, rule)
    assert all(v.wrong for name, v in verdicts.items() if name.endswith("norm"))
    assert not any(v.wrong for name, v in verdicts.items() if not name.endswith("norm"))


def test_what_passes_through_the_stream_is_not_spikes():
    network, params, batch = spiking_gpt(SMALL_GPT), random_gpt(SMALL_GPT, 6), random_texts(SMALL_GPT, 6)
    record = spikes_of(network, params, batch, 9, "inst")
    drive = network.drive(params, batch)[0]
    np.testing.assert_array_equal(record["embeddings"], np.broadcast_to(drive, record["embeddings"].shape))
    for e in range(2):
        before = record["embeddings" if e == 0 else f"block.{e - 1}.output"]
        middle, after = record[f"block.{e}.attention_output"], record[f"block.{e}.output"]
        for found, x, name, spikes in (
            (middle, before, f"h.{e}.attn.c_proj", record[f"block.{e}.context"]),
            (after, middle, f"h.{e}.mlp.c_proj", record[f"block.{e}.intermediate"]),
        ):
            assert np.isin(spikes, (0, 1)).all()
            np.testing.assert_allclose(found, x + Linear(name)(params, (spikes,), None)[0], rtol=0, atol=1e-12)


def test_initial_parameters_are_those_of_gpt2():
    config = GptConfig(vocab_size=100, n_positions=50, n_embd=64, n_layer=8, n_head=4)
    params = initial_gpt(config, np.random.default_rng(0))
    assert {name: value.shape for name, value in params.items()} == gpt_shapes(config)
    for name, value in params.items():
        assert value.dtype == np.float32
        if name.endswith("bias"):
            assert not value.any()
        elif value.ndim == 1:
            assert (value == 1).all()
        else:
            wanted = 0.02 / 4 if name.endswith("c_proj.weight") else 0.02  # √(2·8) = 4
            assert value.std() == pytest.approx(wanted, rel=0.05), name
    more = spiking_gpt_shapes(config).keys() - gpt_shapes(config).keys()
    assert len(more) == 2 * 8 + 2
