"""Textbook definitions at 50 digits, in plain loops: what the operations of `refsnn.ops` are held against.

Every function returns an object array of mpmath numbers (or one number), so that oracles compose without rounding;
`to_float` rounds once, at the end.
"""

import mpmath
import numpy as np

MP = mpmath.mp.clone()  # a context of our own: the precision of `mpmath.mp` stays as others left it
MP.dps = 50


def to_float(x):
    """Nearest float64 array."""
    return np.asarray(x, dtype=object).astype(np.float64)


def _exact(x):
    """The same numbers, without rounding, as an object array of mpmath numbers."""
    x = np.asarray(x)
    out = np.empty(x.shape, dtype=object)
    for i in np.ndindex(x.shape):
        out[i] = MP.mpf(x[i])
    return out


def _rowwise(function, x):
    """Apply ``function: list of numbers -> list of numbers`` to every row of the last axis."""
    x = _exact(x)
    rows = [function(list(x[i])) for i in np.ndindex(x.shape[:-1])]
    out = np.empty((len(rows), len(rows[0])), dtype=object)
    for i, row in enumerate(rows):
        out[i] = row
    return out.reshape(*x.shape[:-1], -1)


def _entrywise(function, x):
    return _rowwise(lambda row: [function(v) for v in row], x)


def embedding(ids, table):
    out = np.empty((*ids.shape, table.shape[1]), dtype=object)
    for i in np.ndindex(ids.shape):
        out[i] = _exact(table[int(ids[i])])
    return out


def linear(x, weight, bias=None):
    """y_e = Σ_d W_ed x_d + b_e."""
    weight = _exact(weight)
    bias = [MP.zero] * len(weight) if bias is None else _exact(bias)
    return _rowwise(lambda row: [MP.fdot(w, row) + b for w, b in zip(weight, bias, strict=True)], x)


def layer_norm(x, weight, bias, eps="1e-12"):
    """γ (x − E x)/√(Var x + ε) + β, the variance being E (x − E x)² with weights 1/D."""
    weight, bias, eps = _exact(weight), _exact(bias), MP.mpf(eps)

    def row_norm(row):
        mean = MP.fsum(row) / len(row)
        deviation = MP.sqrt(MP.fsum((v - mean) ** 2 for v in row) / len(row) + eps)
        return [g * (v - mean) / deviation + b for v, g, b in zip(row, weight, bias, strict=True)]

    return _rowwise(row_norm, x)


def gelu(x):
    """x times the cumulative distribution of the standard normal."""
    return _entrywise(lambda v: v * MP.ncdf(v), x)


def relu(x):
    return _entrywise(lambda v: v if v > 0 else MP.zero, x)


def tanh(x):
    return _entrywise(lambda v: (MP.exp(2 * v) - 1) / (MP.exp(2 * v) + 1), x)


def clip(x):
    """The median of 0, x and 1."""
    return _entrywise(lambda v: sorted([MP.zero, v, MP.one])[1], x)


def softmax(x):
    """e^{x_i}/Σ_j e^{x_j}; exponents are unbounded at this precision, so nothing needs shifting."""

    def row_softmax(row):
        terms = [MP.exp(v) for v in row]
        return [t / MP.fsum(terms) for t in terms]

    return _rowwise(row_softmax, x)


def log_softmax(x):
    """Logarithm of the softmax, literally."""
    return _entrywise(MP.log, softmax(x))


def attention_scores(query, key, heads, mask=None):
    """S_{a,n,s} = Σ_c Q_{n,(a,c)} K_{s,(a,c)} / √d + mask_{a,n,s}; head a owns the features a·d … a·d + d − 1."""
    lead = np.broadcast_shapes(query.shape[:-2], key.shape[:-2])
    query = np.broadcast_to(_exact(query), lead + query.shape[-2:])
    key = np.broadcast_to(_exact(key), lead + key.shape[-2:])
    d = query.shape[-1] // heads
    out = np.empty((*lead, heads, query.shape[-2], key.shape[-2]), dtype=object)
    mask = np.broadcast_to(_exact(0.0 if mask is None else mask), out.shape)
    for index in np.ndindex(out.shape):
        *i, a, n, s = index
        mine = slice(a * d, (a + 1) * d)
        out[index] = MP.fdot(query[(*i, n)][mine], key[(*i, s)][mine]) / MP.sqrt(d) + mask[index]
    return out


def mix(weights, value):
    """Y_{n,(a,c)} = Σ_s P_{a,n,s} V_{s,(a,c)}."""
    lead = np.broadcast_shapes(weights.shape[:-3], value.shape[:-2])
    weights = np.broadcast_to(_exact(weights), lead + weights.shape[-3:])
    value = np.broadcast_to(_exact(value), lead + value.shape[-2:])
    d = value.shape[-1] // weights.shape[-3]
    out = np.empty((*lead, weights.shape[-2], value.shape[-1]), dtype=object)
    for index in np.ndindex(out.shape):
        *i, n, feature = index
        out[index] = MP.fdot(weights[(*i, feature // d, n)], value[(*i, slice(None), feature)])
    return out


def attention(query, key, value, heads, mask=None):
    return mix(softmax(attention_scores(query, key, heads, mask)), value)


def _mean(terms):
    terms = list(terms)
    return MP.fsum(terms) / len(terms)


def mse(prediction, target):
    return _mean((p - t) ** 2 for p, t in zip(_exact(prediction).flat, _exact(target).flat, strict=True))


def cross_entropy(logits, labels):
    """Mean over the batch of −log(probability of the true class)."""
    return _mean(-MP.log(p[int(label)]) for p, label in zip(softmax(logits), labels, strict=True))


def soft_cross_entropy(student, teacher, temperature):
    """−mean over batch and classes of p log q, p and q the softmax of teacher and student logits divided by τ."""
    p = softmax(_exact(teacher) / MP.mpf(temperature))
    q = softmax(_exact(student) / MP.mpf(temperature))
    return _mean(-a * MP.log(b) for a, b in zip(p.flat, q.flat, strict=True))
