"""SpikingBERT's forward pass in plain NumPy: spikes, rates, class scores.

B sentences of N tokens; D neurons a token, M in intermediate populations; H heads; C classes.
Parameters p have the names of a Hugging Face BERT; matrices are (out, in).
"""

from math import erf, sqrt

import numpy as np

VTH, LEAK, U0, TIE = 1.0, 1.0, 0.0, 1e-9  # threshold, leak (1: none), first charge, slack of ties


def linear(p, name, x):  # S-11
    return x @ p[name + ".weight"].T + p[name + ".bias"]  # (B, N, in) @ (in, out) -> (B, N, out)


def layer_norm(p, name, x):  # S-12
    centred = x - x.mean(-1, keepdims=True)  # (B, N, D)
    width = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)  # (B, N, 1)
    return p[name + ".weight"] * centred / width + p[name + ".bias"]  # (B, N, D)


def gelu(x):  # S-13
    return x * (1 + np.vectorize(erf)(x / sqrt(2))) / 2  # (B, N, M)


def split(x, H):
    return x.reshape(*x.shape[:2], H, -1).swapaxes(1, 2)  # (B, N, D) -> (B, H, N, D/H)


def softmax(z):  # S-16
    e = np.exp(z - z.max(-1, keepdims=True))  # (B, H, N, N)
    return e / e.sum(-1, keepdims=True)  # (B, H, N, N)


def embed(p, ids, kinds):  # S-21
    words = p["embeddings.word_embeddings.weight"][ids]  # (B, N) -> (B, N, D)
    places = p["embeddings.position_embeddings.weight"][: ids.shape[1]]  # (N, D)
    types = p["embeddings.token_type_embeddings.weight"][kinds]  # (B, N) -> (B, N, D)
    return layer_norm(p, "embeddings.LayerNorm", words + places + types)  # (B, N, D)


def fire(net, name, current):  # S-1 to S-4
    charge, count = net.get(name, (U0 * VTH, 0))  # what is left in the membranes, spikes so far
    u = LEAK * charge + current  # (B, N, width)
    spikes = (u >= VTH * (1 - TIE)).astype(float)  # (B, N, width), 0 or 1
    net[name] = u - VTH * spikes, count + spikes  # twice (B, N, width)
    return spikes


def encoder(p, e, h, mask, H, net):  # one step of encoder e, which reads the spikes h (B, N, D)
    at, name = f"encoder.layer.{e}.", f"encoder.{e}."
    key = fire(net, name + "key", linear(p, at + "attention.self.key", h))  # (B, N, D); S-22
    value = fire(net, name + "value", linear(p, at + "attention.self.value", h))  # (B, N, D)
    query = split(linear(p, at + "attention.self.query", h), H)  # real: (B, H, N, D/H); S-23
    scores = query @ split(key, H).swapaxes(2, 3) / sqrt(query.shape[3])  # (B, H, N, N); S-14
    weights = softmax(scores - 10000.0 * (1 - mask[:, None, None, :]))  # (B, H, N, N); S-15
    mixed = (weights @ split(value, H)).swapaxes(1, 2).reshape(h.shape)  # (B, N, D); S-16
    context = fire(net, name + "context", mixed)  # (B, N, D)
    x = linear(p, at + "attention.output.dense", context) + h  # (B, N, D); S-24
    x = layer_norm(p, at + "attention.output.LayerNorm", x)  # (B, N, D)
    middle = fire(net, name + "attention_output", x)  # (B, N, D)
    x = gelu(linear(p, at + "intermediate.dense", middle))  # (B, N, M); S-25
    wide = fire(net, name + "intermediate", x)  # (B, N, M)
    x = linear(p, at + "output.dense", wide) + middle  # (B, N, D); S-26
    return fire(net, name + "output", layer_norm(p, at + "output.LayerNorm", x))  # (B, N, D)


def spiking_bert(p, ids, kinds, mask, T, E, H):  # (B, N) three times; T steps, E encoders
    net, x = {}, embed(p, ids, kinds)  # the same current in every step: (B, N, D)
    for _ in range(T):  # S-27, S-28
        h = fire(net, "embeddings", x)  # (B, N, D)
        for e in range(E):
            h = encoder(p, e, h, mask, H, net)  # (B, N, D)
    rates = {name: count / T for name, (_, count) in net.items()}  # S-5
    cls = np.maximum(rates[f"encoder.{E - 1}.output"][:, 0], 0)  # (B, D), at [CLS]; S-33
    return rates, linear(p, "classifier", cls)  # (B, C)
