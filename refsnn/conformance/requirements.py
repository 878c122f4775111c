"""What a backend must compute: the requirements' ids and titles, and what usually went wrong where one is not met.

The text of each is in ``docs/specification.md``, under the same id.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAGE", "REQUIREMENTS", "SITE", "Requirement"]

PAGE = "docs/specification.md"

#: The same page on the site, for whoever has no checkout.
SITE = "https://refsnn.readthedocs.io/en/latest/specification.html"


@dataclass(frozen=True)
class Requirement:
    """One numbered requirement of the specification.

    Attributes
    ----------
    id : str
    title : str
    often : str
        What usually went wrong where it is not met.
    """

    id: str
    title: str
    often: str

    @property
    def link(self) -> str:
        """Where its text is."""
        return f"{PAGE}#{self.id.lower()}"

    @property
    def site(self) -> str:
        """Where its text is on the site."""
        return f"{SITE}#{self.id.lower()}"


_TEXTS = [
    ("Membrane potential: reset by subtraction, then leak", "the leak acts before the reset, or the reset is to zero"),
    ("A neuron fires at u ≥ V_th(1 − δ), at most once a step", "> instead of ≥, or several spikes in a step"),
    ("The spike of step t answers to the current of step t", "spikes come one step late, or the first is missing"),
    ("The membrane starts with the charge u0·V_th", "it starts at 0, or the leak does not act on it at step 1"),
    ("Average spiking rate: the mean over all T steps", "divided by T − 1 or T + 1"),
    ("Leak-weighted average: weights λ^(T−t); λ = 1 is the mean", "the plain mean, or weights in reverse, or 0/0"),
    ("Rate map: σ(I/V_th) = clip(I/V_th, 0, 1)", "the division by V_th is missing"),
    ("Derivative of σ: 1/V_th inside, 0 outside", "a straight-through estimate: 1 outside as well"),
    ("Embedding: rows of the table", "gradients of repeated ids overwrite each other instead of adding up"),
    ("The word embedding of the padding id gets no gradient", "the framework's padding_idx was not set"),
    ("Linear map y = x Wᵀ + b", "the weight is transposed, or the bias is missing"),
    ("LayerNorm: biased variance, ε inside the root", "ε = 1e-5 (PyTorch's default), or variance over D − 1"),
    ("GELU: x·Φ(x), the exact form", "the tanh approximation (JAX's default)"),
    ("Attention scores: per head, divided by √d of the head", "no scale, or √D of all heads together"),
    ("The mask −10000 is added to padded keys before the softmax", "no mask, its sign, or multiplied afterwards"),
    ("Softmax over keys, then values averaged head by head", "normalised over queries, or heads interleaved"),
    ("ReLU and tanh of the heads; ReLU's derivative at 0 is 0", "ReLU's derivative at 0 taken as 1"),
    ("Mean squared error: mean over all entries", "a sum, or half the mean"),
    ("Soft cross-entropy: mean over batch and classes, no τ²", "summed over classes, or multiplied by τ²"),
    ("Cross-entropy: mean over the batch", "a sum over the batch"),
    ("Embedding population: constant current LayerNorm(word + position + type)", "token types or positions left out"),
    ("Key and value populations: linear maps of the encoder's input", "keys and values exchanged"),
    ("Context population: keys and values are spikes, the query is not", "the query was given neurons"),
    ("Attention output: LayerNorm(W context + b + h)", "the residual is missing, or is the context"),
    ("Intermediate population: GELU(W a + b)", "reads the encoder's input instead of the attention output"),
    ("Encoder output: LayerNorm(W intermediate + b + attention output)", "the residual is the encoder's input"),
    ("Firing order: this step's spikes forwards, the last step's back", "spikes handed on one step late"),
    ("Rule inst: the current is the map of this step's spikes", "rates or running means were fed to the map"),
    ("Rule running: I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1])", "f(ā[t]) itself used as the current"),
    ("Equilibrium: every population's rate satisfies a = F(a)", "feedback left out, or the iteration stopped early"),
    ("Attention scores observed: raw, at the rates, mask included", "taken after the softmax, or at the spikes"),
    ("Internal loss: hidden states of all positions, scores above −100", "padding left out, or masked scores kept"),
    ("Logits: the classifier on ReLU of the [CLS] rate", "a pooler, or the mean over positions"),
    ("Gradient: through the rate map; forward values may be simulated", "gradients through the simulation"),
    ("Implicit gradient: (I − Jᵀ) λ = ∂L/∂a", "(2I − Jᵀ), one step, or feedback detached"),
    (
        "BertAdam: no bias correction, decoupled decay, clipping per tensor",
        "Adam's bias correction, or one global norm",
    ),
    ("Results are as precise as the precision that is claimed", "sums accumulated in half precision"),
    ("Retractable neuron: a spike is taken back at u < −V_th·δ, if one is left", "taken back where none was fired"),
    ("Ternary neuron: fires 1 and −1, from levels of ±V_th/2", "levels of ±V_th, or no spikes of −1"),
    ("Rates of ternary neurons: clip to [−1, 1], read without ReLU", "clipped at 0, or a ReLU before the classifier"),
    ("Residual through one synapse per feature: W a + b + d ⊙ residual", "the synapses are left out"),
    ("Neurons with thresholds of their own: their current is I/θ", "θ is left out, or multiplies"),
    ("GELU of a GPT: the tanh form", "the exact form (PyTorch's default)"),
    ("Causal attention: a query sees no later key", "no causal mask, or one that is a position off"),
    ("Input of a GPT: token + position, handed on as it is", "a LayerNorm, as BERT has one, or neurons"),
    ("Norm populations: LayerNorm of the stream, before each half-block", "the LayerNorm comes after the half-block"),
    ("Keys, values, contexts and inner units of a GPT read the norm before them", "they read the stream itself"),
    ("Residual stream: W a + b + x, of analogue units without limits", "the stream is given neurons, or cut to [0, 1]"),
    ("Next tokens: read off with the table, of real positions", "the table's gradient lacks one of its two uses"),
]

REQUIREMENTS = {f"S-{i}": Requirement(f"S-{i}", title, often) for i, (title, often) in enumerate(_TEXTS, 1)}
