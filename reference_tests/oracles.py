"""Textbook definitions at 50 digits, in plain loops: what the operations of `refsnn.ops` are held against.

Every function returns an object array of mpmath numbers (or one number), so that oracles compose without rounding;
`to_float` rounds once, at the end. `*_pullback(dy, arguments…)` are the cotangents, from the Jacobian entry by entry;
they are written so that nothing cancels but what cancels in the sum itself.
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
    x = np.asarray(x).astype(object)  # Python numbers, exactly: mpmath does not take float32
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


def gelu_tanh(x):
    """½x(1 + tanh w) with w = √(2/π)(x + 0.044715x³); ½(1 + tanh w) = 1/(1 + e^{−2w})."""

    def one(v):
        return v / (1 + MP.exp(-2 * MP.sqrt(2 / MP.pi) * (v + MP.mpf("0.044715") * v**3)))

    return _entrywise(one, x)


def relu(x):
    return _entrywise(lambda v: v if v > 0 else MP.zero, x)


def tanh(x):
    return _entrywise(lambda v: MP.sinh(v) / MP.cosh(v), x)


def clip(x, low=0):
    """The median of 0 (or what is given in its place), x and 1."""
    return _entrywise(lambda v: sorted([MP.mpf(low), v, MP.one])[1], x)


def scale(x, weight):
    """y_md = w_d x_md."""
    return _exact(x) * _exact(weight)


def softmax(x):
    """e^{x_i}/Σ_j e^{x_j}; exponents are unbounded at this precision, so nothing needs shifting."""

    def row_softmax(row):
        terms = [MP.exp(v) for v in row]
        return [t / MP.fsum(terms) for t in terms]

    return _rowwise(row_softmax, x)


def log_softmax(x):
    """−log(1 + Σ_{j≠i} e^{x_j − x_i}): the logarithm of the softmax; log1p where it lies within 1e-50 of 0."""

    def row_log_softmax(row):
        others = [[MP.exp(w - v) for j, w in enumerate(row) if j != i] for i, v in enumerate(row)]
        return [-MP.log1p(MP.fsum(terms)) for terms in others]

    return _rowwise(row_log_softmax, x)


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
    return _mean(-log_p[int(label)] for log_p, label in zip(log_softmax(logits), labels, strict=True))


def soft_cross_entropy(student, teacher, temperature):
    """−mean over batch and classes of p log q, p and q the softmax of teacher and student logits divided by τ."""
    p = softmax(_exact(teacher) / MP.mpf(temperature))
    log_q = log_softmax(_exact(student) / MP.mpf(temperature))
    return _mean(-a * b for a, b in zip(p.flat, log_q.flat, strict=True))


def rate(current, vth):
    """Clipped current in units of the threshold."""
    return clip(_exact(current) / MP.mpf(vth))


# ---------------------------------------------------------------------------------------------------------------------
# Cotangents


def _zeros(shape):
    out = np.empty(shape, dtype=object)
    out.fill(MP.zero)
    return out


def _slopes(slope, dy, x):
    """dy · f'(x), entry by entry."""
    return _exact(dy) * _entrywise(slope, x)


def embedding_pullback(dy, ids, table):
    """Every place adds its cotangent to the row it read."""
    dtable, dy = _zeros(table.shape), _exact(dy)
    for i in np.ndindex(ids.shape):
        dtable[int(ids[i])] += dy[i]
    return dtable


def linear_pullback(dy, x, weight, bias=None):
    """∂y_me/∂x_md = W_ed, ∂y_me/∂W_ed = x_md, ∂y_me/∂b_e = 1."""
    dx, dweight, dbias = _zeros(x.shape), _zeros(weight.shape), _zeros(len(weight))
    dy, x, weight = _exact(dy), _exact(x), _exact(weight)
    for (*m, e), t in np.ndenumerate(dy):
        dx[tuple(m)] += t * weight[e]
        dweight[e] += t * x[tuple(m)]
        dbias[e] += t
    return (dx, dweight) if bias is None else (dx, dweight, dbias)


def layer_norm_pullback(dy, x, weight, bias, eps="1e-12"):
    """∂y_i/∂x_j = γ_i ((δ_ij − 1/D)/s − (x_i − m)(x_j − m)/(D s³)), s = √(Var x + ε); ∂y_i/∂γ_i = (x_i − m)/s."""
    dx, dweight, dbias = _zeros(x.shape), _zeros(weight.shape), _zeros(weight.shape)
    dy, x, weight, eps = _exact(dy), _exact(x), _exact(weight), MP.mpf(eps)
    width = len(weight)
    for row in np.ndindex(x.shape[:-1]):
        mean = MP.fsum(x[row]) / width
        c = [v - mean for v in x[row]]
        s = MP.sqrt(MP.fsum(v**2 for v in c) / width + eps)
        for i, t in enumerate(dy[row]):
            dweight[i] += t * c[i] / s
            dbias[i] += t
            for j in range(width):
                kronecker = 1 if i == j else 0
                dx[(*row, j)] += t * weight[i] * ((kronecker - MP.one / width) / s - c[i] * c[j] / (width * s**3))
    return dx, dweight, dbias


def gelu_pullback(dy, x):
    """(x Φ)' = Φ + x φ."""
    return _slopes(lambda v: MP.ncdf(v) + v * MP.npdf(v), dy, x)


def gelu_tanh_pullback(dy, x):
    """(x S)' = S + 2x w' S(1 − S), S = 1/(1 + e^{−2w}); 1 − S is S of −x."""

    def slope(v):
        c, cube = MP.sqrt(2 / MP.pi), MP.mpf("0.044715")
        w = c * (v + cube * v**3)
        up, down = 1 / (1 + MP.exp(-2 * w)), 1 / (1 + MP.exp(2 * w))
        return up + 2 * v * c * (1 + 3 * cube * v**2) * up * down

    return _slopes(slope, dy, x)


def relu_pullback(dy, x):
    return _slopes(lambda v: MP.mpf(v > 0), dy, x)


def tanh_pullback(dy, x):
    return _slopes(lambda v: 1 / MP.cosh(v) ** 2, dy, x)


def clip_pullback(dy, x):
    return _slopes(lambda v: MP.mpf(0 < v < 1), dy, x)


def scale_pullback(dy, x, weight):
    """∂y_md/∂x_md = w_d, ∂y_md/∂w_d = x_md."""
    dx, dweight = _zeros(x.shape), _zeros(len(weight))
    dy, x, weight = _exact(dy), _exact(x), _exact(weight)
    for (*m, d), t in np.ndenumerate(dy):
        dx[(*m, d)] += t * weight[d]
        dweight[d] += t * x[(*m, d)]
    return dx, dweight


def rate_pullback(dy, current, vth):
    return clip_pullback(dy, _exact(current) / MP.mpf(vth)) / MP.mpf(vth)


def softmax_pullback(dp, x):
    """∂p_j/∂x_i = p_i (δ_ij − p_j); because Σ p = 1, dx_i = p_i Σ_j p_j (dp_i − dp_j)."""
    p, dp = softmax(x), _exact(dp)
    dx = _zeros(p.shape)
    for i in np.ndindex(p.shape):
        row = i[:-1]
        dx[i] = p[i] * MP.fsum(q * (dp[i] - t) for q, t in zip(p[row], dp[row], strict=True))
    return dx


def attention_scores_pullback(dscores, query, key, heads, mask=None):
    """∂S_{a,n,s}/∂Q_{n,(a,c)} = K_{s,(a,c)}/√d, and the other way round. Leading axes are the same everywhere."""
    dquery, dkey = _zeros(query.shape), _zeros(key.shape)
    dscores, query, key = _exact(dscores), _exact(query), _exact(key)
    d = query.shape[-1] // heads
    for (*i, a, n, s), t in np.ndenumerate(dscores):
        mine = slice(a * d, (a + 1) * d)
        dquery[(*i, n, mine)] += t * key[(*i, s, mine)] / MP.sqrt(d)
        dkey[(*i, s, mine)] += t * query[(*i, n, mine)] / MP.sqrt(d)
    return dquery, dkey


def mix_pullback(dy, weights, value):
    """∂Y_{n,(a,c)}/∂P_{a,n,s} = V_{s,(a,c)}, ∂Y_{n,(a,c)}/∂V_{s,(a,c)} = P_{a,n,s}. Leading axes are the same."""
    dweights, dvalue = _zeros(weights.shape), _zeros(value.shape)
    dy, weights, value = _exact(dy), _exact(weights), _exact(value)
    d = value.shape[-1] // weights.shape[-3]
    for (*i, n, feature), t in np.ndenumerate(dy):
        for s in range(value.shape[-2]):
            dweights[(*i, feature // d, n, s)] += t * value[(*i, s, feature)]
            dvalue[(*i, s, feature)] += t * weights[(*i, feature // d, n, s)]
    return dweights, dvalue


def attention_pullback(dy, query, key, value, heads, mask=None):
    """The chain rule over the three operations."""
    scores = attention_scores(query, key, heads, mask)
    dweights, dvalue = mix_pullback(dy, softmax(scores), value)
    dscores = softmax_pullback(dweights, scores)
    return *attention_scores_pullback(dscores, query, key, heads, mask), dvalue


def mse_pullback(dloss, prediction, target):
    dprediction = MP.mpf(dloss) * 2 * (_exact(prediction) - _exact(target)) / prediction.size
    return dprediction, -dprediction


def cross_entropy_pullback(dloss, logits, labels):
    """p_c/B for a wrong class c; for the true one (p_c − 1)/B, which is −Σ of the wrong ones'."""
    dlogits = softmax(logits) * MP.mpf(dloss) / len(labels)
    for row, label in zip(dlogits, labels, strict=True):
        row[int(label)] = -MP.fsum(v for c, v in enumerate(row) if c != label)
    return dlogits


def soft_cross_entropy_pullback(dloss, student, teacher, temperature):
    """L = −Σ p log q/n; ∂log q_c/∂z_i = (δ_ci − q_i)/τ and p by the Jacobian of the softmax."""
    tau = MP.mpf(temperature)
    z_student, z_teacher = _exact(student) / tau, _exact(teacher) / tau
    p, q = softmax(z_teacher), softmax(z_student)
    scale = MP.mpf(dloss) / (p.size * tau)
    return (q - p) * scale, softmax_pullback(-log_softmax(z_student) * scale, z_teacher)
