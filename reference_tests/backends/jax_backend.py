"""SpikingBERT in JAX: an adapter for the conformance kit, as a user of JAX would write it.

Pure functions on arrays; `jax.vjp` and `jax.value_and_grad` for every gradient, `lax.scan` over time, and a fixed point
with its own derivative (`custom_vjp`) for feedback. The kit's functions, on NumPy arrays, come last.

Shapes: B sentences of N positions, D = hidden size, h heads, T steps.
"""

import functools
import os

# Several processes share a GPU; each would take three quarters of its memory at once.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_default_matmul_precision", "highest")  # on a GPU products of float32 would be TF32's

#: Where it computes: "cpu", or "cuda".
DEVICE = os.environ.get("REFSNN_DEVICE", "cpu")
try:
    jax.config.update("jax_default_device", jax.devices(DEVICE)[0])
except RuntimeError:
    raise ImportError(f"REFSNN_DEVICE is {DEVICE}, but JAX sees {jax.default_backend()} alone") from None
#: The rate map and a step's gradients are compiled whole, and not operation by operation.
COMPILE = os.environ.get("REFSNN_COMPILE") == "1"


def compiled(function):
    return jax.jit(function) if COMPILE else function


name = "jax"
dtypes = ("float64", "float32")
MASKED = -10000.0  # added to the scores of padded keys


def to_jax(tree, dtype):
    """All real arrays in this precision; integers stay integers."""
    return jax.tree.map(lambda x: jnp.asarray(x, dtype if np.asarray(x).dtype.kind == "f" else None), tree)


def to_numpy(tree):
    return jax.tree.map(np.asarray, tree)


# --- operations ------------------------------------------------------------------------------------------------------


def embedding(ids, table, frozen_row=None):
    rows = table[ids]
    if frozen_row is None:
        return rows
    return jnp.where((ids == frozen_row)[..., None], lax.stop_gradient(rows), rows)


def linear(x, weight, bias=0):
    return x @ weight.T + bias


def layer_norm(x, weight, bias, eps):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) * lax.rsqrt(variance + eps) * weight + bias


def gelu(x):
    return jax.nn.gelu(x, approximate=False)


def tanh(x):
    return jnp.tanh(x)


def rate(current, vth, polarity="unsigned"):
    low, high = jnp.array([-1 if polarity == "ternary" else 0, 1], current.dtype)
    return lax.clamp(low, current / vth, high)  # its derivative is 0 at the edges; that of jnp.clip is 1/2


def split_heads(x, heads):  # (…, N, D) -> (…, h, N, D/h)
    return jnp.swapaxes(x.reshape(*x.shape[:-1], heads, -1), -3, -2)


def merge_heads(x):  # (…, h, N, D/h) -> (…, N, D)
    x = jnp.swapaxes(x, -3, -2)
    return x.reshape(*x.shape[:-2], -1)


def attention_scores(query, key, mask, heads):
    query, key = split_heads(query, heads), split_heads(key, heads)
    return jnp.einsum("...nd,...sd->...ns", query, key) / query.shape[-1] ** 0.5 + mask


def attention(query, key, value, mask, heads):
    weights = jax.nn.softmax(attention_scores(query, key, mask, heads))
    return merge_heads(weights @ split_heads(value, heads))


def mse(prediction, target):
    return jnp.mean((prediction - target) ** 2)


def cross_entropy(logits, labels):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def soft_cross_entropy(student, teacher, temperature):
    return -jnp.mean(jax.nn.softmax(teacher / temperature) * jax.nn.log_softmax(student / temperature))


OPS = {f.__name__: f for f in (embedding, linear, layer_norm, gelu, rate, attention_scores, attention, mse)}
OPS |= {f.__name__: f for f in (cross_entropy, soft_cross_entropy)}
OPS |= {"relu": jax.nn.relu, "tanh": tanh, "softmax": jax.nn.softmax}


# --- neurons ---------------------------------------------------------------------------------------------------------


def step(state, current, neuron):
    """The charge and the net count that one step leaves, and its spikes."""
    charge, net = state
    polarity, vth, tie = neuron.get("polarity", "unsigned"), neuron["vth"], neuron["tie"]
    due = 0.5 if polarity == "ternary" else 1.0
    membrane = neuron["leak"] * charge + current
    back = (membrane < vth * (due - 1 - tie)) & {"unsigned": False, "retractable": net > 0, "ternary": True}[polarity]
    spikes = (membrane >= vth * (due - tie)).astype(current.dtype) - back.astype(current.dtype)
    return (membrane - vth * spikes, net + spikes), spikes


def initial_state(current, neuron):
    return jnp.full_like(current, neuron["u0"] * neuron["vth"]), jnp.zeros_like(current)


# --- the network -----------------------------------------------------------------------------------------------------


def populations(config):
    """What every population reads, in firing order; the embeddings' own input is called "input"."""
    h = "embeddings"
    reads = {h: ("input", last(config)) if config["feedback"] else ("input",)}
    for e in range(config["num_hidden_layers"]):
        key, value, context, attention_output, intermediate, output = (
            f"encoder.{e}.{kind}" for kind in ("key", "value", "context", "attention_output", "intermediate", "output")
        )
        reads |= {key: (h,), value: (h,), context: (h, key, value), attention_output: (context, h)}
        reads |= {intermediate: (attention_output,), output: (intermediate, attention_output)}
        h = output
    return reads


def readouts(config):
    return ["embeddings"] + [f"encoder.{e}.output" for e in range(config["num_hidden_layers"])]


def last(config):
    return readouts(config)[-1]


def dense(params, name, x):
    return linear(x, params[name + ".weight"], params[name + ".bias"])


def norm(config, params, name, x):
    return layer_norm(x, params[name + ".weight"], params[name + ".bias"], config["layer_norm_eps"])


def additive_mask(mask, dtype):  # (B, N) -> (B, 1, 1, N)
    return (1 - mask[:, None, None, :]).astype(dtype) * MASKED


def embed(config, params, batch):
    """The constant input current x of the embedding population."""
    ids, kinds = batch["input_ids"], batch["token_type_ids"]
    word = embedding(ids, params["embeddings.word_embeddings.weight"], config["pad_token_id"])
    position = params["embeddings.position_embeddings.weight"][: ids.shape[1]]
    kind = params["embeddings.token_type_embeddings.weight"][kinds]
    return norm(config, params, "embeddings.LayerNorm", word + position + kind)


def input_current(config, params, population, reads, mask):
    """The map f of one population, on spikes or rates alike; all leading axes are carried along."""
    if population == "embeddings":
        return reads[0] if len(reads) == 1 else reads[0] + linear(reads[1], params["feedback.weight"])
    _, e, kind = population.split(".")
    layer = f"encoder.layer.{e}."
    if kind in ("key", "value"):
        return dense(params, f"{layer}attention.self.{kind}", *reads)
    if kind == "context":
        h, key, value = reads
        query = dense(params, layer + "attention.self.query", h)
        mixed = attention(query, key, value, additive_mask(mask, h.dtype), config["num_attention_heads"])
        return mixed / params.get(layer + "attention.self.threshold", 1)
    if kind == "attention_output":
        context, h = reads
        projected = dense(params, layer + "attention.output.dense", context)
        h = h * params.get(layer + "attention.output.residual.weight", 1)
        return norm(config, params, layer + "attention.output.LayerNorm", projected + h)
    if kind == "intermediate":
        inner = gelu(dense(params, layer + "intermediate.dense", *reads))
        return inner / params.get(layer + "intermediate.threshold", 1)
    intermediate, attention_output = reads
    attention_output = attention_output * params.get(layer + "output.residual.weight", 1)
    projected = dense(params, layer + "output.dense", intermediate)
    return norm(config, params, layer + "output.LayerNorm", projected + attention_output)


def sweep(config, params, batch, fed_back=None):
    """The rates of every population, once through the network; ``fed_back`` are the rates fed back to its start."""
    rates = {"input": embed(config, params, batch), last(config): fed_back}
    for population, reads in populations(config).items():
        current = input_current(config, params, population, [rates[r] for r in reads], batch["attention_mask"])
        rates[population] = rate(current, config["vth"], config.get("polarity", "unsigned"))
    return rates


def raw_scores(config, params, batch, rates):
    """The attention scores of every encoder, before the softmax, mask included."""
    scores = []
    for e, h in enumerate(readouts(config)[:-1]):
        query = dense(params, f"encoder.layer.{e}.attention.self.query", rates[h])
        mask = additive_mask(batch["attention_mask"], query.dtype)
        scores.append(attention_scores(query, rates[f"encoder.{e}.key"], mask, config["num_attention_heads"]))
    return scores


def equilibrium(config, params, batch):
    """The rates of every population that solve a = F(a); without feedback one sweep does."""
    if not config["feedback"]:
        return sweep(config, params, batch)

    def once(params, z):
        return sweep(config, params, batch, z)[last(config)]

    start = jnp.zeros_like(embed(config, params, batch))
    return sweep(config, params, batch, fixed_point(once, params, start))


def iterate(f, z):
    """The fixed point of a contraction, to a few units in the last place."""

    def moving(state):
        count, previous, z = state
        small = 4 * jnp.finfo(z.dtype).eps * jnp.abs(z).max()
        return (count < 500) & (jnp.abs(z - previous).max() > small)

    def advance(state):
        count, _, z = state
        return count + 1, z, f(z)

    return lax.while_loop(moving, advance, (1, z, f(z)))[-1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fixed_point(f, params, start):
    """The z with z = f(params, z)."""
    return iterate(lambda z: f(params, z), start)


def fixed_point_forward(f, params, start):
    z = fixed_point(f, params, start)
    return z, (params, z)


def fixed_point_backward(f, saved, cotangent):
    params, z = saved
    _, vjp = jax.vjp(f, params, z)
    w = iterate(lambda w: cotangent + vjp(w)[1], cotangent)  # (I − Jᵀ)·w = cotangent
    return vjp(w)[0], jnp.zeros_like(z)


fixed_point.defvjp(fixed_point_forward, fixed_point_backward)


def distillation_loss(config, params, batch, targets, simulated):
    """The loss, and everything else that the kit asks for."""
    rates = equilibrium(config, params, batch)
    values = dict(rates)
    if simulated is not None:  # the read-outs' values; in this order the sum is exactly the simulated one
        values |= {r: simulated[r] + (rates[r] - lax.stop_gradient(rates[r])) for r in readouts(config)}
    if "logits" in targets:
        cls = values[last(config)][:, 0]
        logits = dense(params, "classifier", cls if config.get("polarity") == "ternary" else jax.nn.relu(cls))
        return soft_cross_entropy(logits, targets["logits"], targets["temperature"]), {"logits": logits}
    hidden = sum(
        mse(dense(params, "fit", values[r]), teacher)
        for r, teacher in zip(readouts(config), targets["hidden"], strict=True)
    )
    scores = raw_scores(config, params, batch, rates)
    distance = sum(
        mse(jnp.where(student > -100, student, 0), jnp.where(teacher > -100, teacher, 0))
        for student, teacher in zip(scores, targets["scores"], strict=True)
    )
    return hidden + distance, {"hidden": hidden, "attention": distance}


# --- what the kit calls ----------------------------------------------------------------------------------------------


def supports(feature, dtype):
    kind, _, op_name = feature.partition(":")
    return op_name in OPS if kind in ("op", "pullback") else kind != "gpt"


def op(name, arrays, constants, dtype):
    return to_numpy(OPS[name](**to_jax(arrays, dtype), **constants))


def pullback(name, arrays, constants, cotangent, dtype):
    arrays = to_jax(arrays, dtype)
    real = {n: x for n, x in arrays.items() if jnp.issubdtype(x.dtype, jnp.floating) and n != "mask"}
    _, vjp = jax.vjp(lambda real: OPS[name](**(arrays | real), **constants), real)
    return to_numpy(vjp(to_jax(cotangent, dtype))[0])


def neurons(current, neuron, dtype):
    current = to_jax(current, dtype)
    _, spikes = lax.scan(lambda state, now: step(state, now, neuron), initial_state(current[0], neuron), current)
    return to_numpy(spikes)


def asr(spikes, leak, dtype):
    weights = jnp.asarray(leak ** np.arange(len(spikes) - 1.0, -1, -1), dtype)  # λ^(T−t)
    return to_numpy(jnp.tensordot(weights, to_jax(spikes, dtype), axes=1) / weights.sum())


def current(config, params, population, reads, mask, dtype):
    params, reads, mask = to_jax((params, list(reads), mask), dtype)
    return to_numpy(input_current(config, params, population, reads, mask))


def rate_map(config, params, batch, dtype):
    @compiled
    def found(params, batch):
        rates = equilibrium(config, params, batch)
        scores = {f"scores/{e}": s for e, s in enumerate(raw_scores(config, params, batch, rates))}
        return {population: rates[population] for population in populations(config)} | scores

    return to_numpy(found(*to_jax((params, batch), dtype)))


def simulate(config, params, batch, t_conv, rule, dtype):
    params, batch = to_jax((params, batch), dtype)
    reads, x, running = populations(config), embed(config, params, batch), rule == "running"

    def network_step(state, t):
        charge, total, count, seen = state  # what is seen: by "inst" spikes, by "running" the mean of all so far
        charge, total, count, seen, fired = dict(charge), dict(total), dict(count), dict(seen), {}
        if config["feedback"] and running:
            seen[last(config)] = count[last(config)] / t  # of t − 1 steps and the silent first one
        for population, names in reads.items():
            inputs = [x if name == "input" else seen[name] for name in names]
            now = input_current(config, params, population, inputs, batch["attention_mask"])
            if running:  # I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1])
                now, total[population] = t * now - total[population], t * now
            charge[population], fired[population] = step(charge[population], now, config)
            count[population] = count[population] + fired[population]
            seen[population] = count[population] / t if running else fired[population]
        return (charge, total, count, seen), fired

    intermediate = jnp.zeros((*x.shape[:-1], config["intermediate_size"]), x.dtype)
    zeros = {p: intermediate if p.endswith("intermediate") else jnp.zeros_like(x) for p in reads}
    charge = {population: initial_state(zero, config) for population, zero in zeros.items()}
    steps = jnp.arange(1, t_conv + 1, dtype=x.dtype)
    return to_numpy(lax.scan(network_step, (charge, zeros, zeros, zeros), steps)[1])


def gradients(config, params, batch, targets, simulated, dtype):
    params, batch, targets, simulated = to_jax((params, batch, targets, simulated), dtype)
    loss = jax.value_and_grad(lambda params: distillation_loss(config, params, batch, targets, simulated), has_aux=True)
    (value, others), found = compiled(loss)(params)
    return to_numpy({"loss": value} | others | {f"gradient/{name}": gradient for name, gradient in found.items()})


def update(params, gradients, moments, settings, dtype):
    """One step of BertAdam: no bias correction, decoupled weight decay, each gradient clipped by itself."""
    params, gradients, moments = to_jax((params, gradients, moments), dtype)
    beta1, beta2, after = settings["beta1"], settings["beta2"], {}
    rate = settings["lr"]
    if "step" in settings:  # the rate warms up, and then falls linearly
        done, warmup = settings["step"] / settings["steps"], settings["warmup"]
        rate *= min(done / warmup, (1 - done) / (1 - warmup))
    for name, gradient in gradients.items():
        length = jnp.linalg.norm(gradient.ravel())
        gradient *= jnp.where(length > settings["max_norm"], settings["max_norm"] / (length + 1e-6), 1)
        m = beta1 * moments["m"][name] + (1 - beta1) * gradient
        v = beta2 * moments["v"][name] + (1 - beta2) * gradient**2
        spared = name.endswith(("bias", "LayerNorm.weight", "residual.weight", "threshold"))
        decay = 0 if spared else settings["weight_decay"]
        param = params[name] - rate * (m / (jnp.sqrt(v) + settings["eps"]) + decay * params[name])
        after |= {f"param/{name}": param, f"m/{name}": m, f"v/{name}": v}
    return to_numpy(after)
