"""Backends with one mistake each, as real users make them: `Torch` with a few lines changed.

Each says which requirement the kit must name, what it must recognise the mistake as (where it can), and which other
requirements fail at the level where it shows first. What is built on a wrong part is wrong as well; that is not listed.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

from .torch_backend import Torch
from .torch_gpt import TorchGpt


@dataclass(frozen=True)
class Wrong:
    adapter: type[Torch]
    requirement: str  #: what the kit must name
    sentence: str = ""  #: what must follow on "this is what a backend answers where"; empty if it is not recognised
    also: tuple[str, ...] = ()  #: what fails with it at the level where it shows first
    dtype: str = "float64"
    case: str = ""  #: the one case that must catch it; empty if a level of the suites' first version does
    suite: str = "tiny"


WRONG: dict[str, Wrong] = {}


def wrong(requirement, sentence="", also="", dtype="float64", case="", suite="tiny"):
    """Enter a class in `WRONG`; the arguments are `Wrong`'s, in order."""

    def enter(adapter):
        WRONG[adapter.__name__] = Wrong(adapter, requirement, sentence, tuple(also.split()), dtype, case, suite)
        return adapter

    return enter


# --- neurons --------------------------------------------------------------------------------------------------------


@wrong("S-1", "the neuron leaks before the reset", also="S-4")
class LeakBeforeReset(Torch):
    def step(self, charge, current, neuron):
        membrane, spikes = charge or (self.initial_charge(current, neuron), torch.zeros_like(current))
        membrane = neuron["leak"] * membrane - neuron["vth"] * spikes + current
        spikes = self.fires(membrane, neuron).to(current.dtype)
        return spikes, (membrane, spikes)


@wrong("S-1", "the neuron resets to zero instead of subtracting V_th", also="S-2 S-4")
class ResetToZero(Torch):
    def reset(self, membrane, spikes, neuron):
        return membrane * (1 - spikes)


@wrong("S-1", "the neuron subtracts 1 instead of V_th", also="S-4")
class ResetByOne(Torch):
    def reset(self, membrane, spikes, neuron):
        return membrane - spikes


@wrong("S-1", "the neuron cuts negative potentials to 0", also="S-4")
class NegativePotentialsCut(Torch):
    def reset(self, membrane, spikes, neuron):
        return super().reset(membrane, spikes, neuron).clamp(min=0)


@wrong("S-1", "the neuron scales the input by 1 − λ", also="S-4")
class InputDecays(Torch):
    def integrate(self, charge, current, neuron):
        return neuron["leak"] * charge + ((1 - neuron["leak"]) or 1) * current


@wrong("S-2", "the neuron fires only above the threshold (u > V_th), not at it")
class StrictlyAbove(Torch):
    def fires(self, membrane, neuron):
        return membrane > neuron["vth"] * (1 - neuron["tie"])


@wrong("S-2", "the neuron compares with V_th itself (tie rule ignored, δ = 0)")
class TieRuleIgnored(Torch):
    def fires(self, membrane, neuron):
        return membrane >= neuron["vth"]


@wrong("S-2", "the neuron fires several times a step", also="S-1 S-4")
class SeveralSpikes(Torch):
    def fires(self, membrane, neuron):
        return (membrane / neuron["vth"]).floor().clamp(min=0)


@wrong("S-3", "the neuron hands its spikes out one step late", also="S-1 S-2 S-4")
class SpikesOneStepLate(Torch):
    def step(self, charge, current, neuron):
        charge, last = charge or (None, torch.zeros_like(current))
        spikes, charge = super().step(charge, current, neuron)
        return last, (charge, spikes)


@wrong("S-3", "the neuron leaves the first step out", also="S-1 S-2 S-4")
class FirstStepOnlyInitialises(Torch):
    def step(self, charge, current, neuron):
        if charge is None:
            return torch.zeros_like(current), self.initial_charge(current, neuron)
        return super().step(charge, current, neuron)


@wrong("S-4", "the neuron ignores the initial potential (u0 = 0)")
class ChargeIgnored(Torch):
    def initial_charge(self, current, neuron):
        return torch.zeros_like(current)


@wrong("S-4", "the neuron starts at u0 instead of u0·V_th")
class ChargeWithoutThreshold(Torch):
    def initial_charge(self, current, neuron):
        return torch.full_like(current, neuron["u0"])


@wrong("S-4", "the neuron does not let the initial potential leak")
class ChargeDoesNotLeak(Torch):
    def step(self, charge, current, neuron):
        if charge is None:
            charge = self.initial_charge(current, neuron) / neuron["leak"]
        return super().step(charge, current, neuron)


@wrong("S-4", also="S-1 S-2")
class StateKept(Torch):
    left = None  # no reset between two calls

    def step(self, charge, current, neuron):
        if charge is None and self.left is not None and self.left.shape == current.shape:
            charge = self.left
        spikes, self.left = super().step(charge, current, neuron)
        return spikes, self.left


# --- average spiking rates ------------------------------------------------------------------------------------------


@wrong("S-5", "divided by T + 1")
class DividedByOneMore(Torch):
    def average_rate(self, spikes, leak):
        return spikes.sum(0) / (len(spikes) + 1) if leak == 1 else super().average_rate(spikes, leak)


@wrong("S-5", "divided by T − 1")
class DividedByOneLess(Torch):
    def average_rate(self, spikes, leak):
        return spikes.sum(0) / (len(spikes) - 1) if leak == 1 else super().average_rate(spikes, leak)


@wrong("S-5", "the first step is left out of the average")
class FirstStepNotAveraged(Torch):
    def average_rate(self, spikes, leak):
        return spikes[1:].mean(0) if leak == 1 else super().average_rate(spikes, leak)


@wrong("S-5")
class GeometricSum(Torch):
    def average_rate(self, spikes, leak):
        leak = torch.tensor(leak, dtype=spikes.dtype)
        weights = leak ** torch.arange(len(spikes) - 1, -1, -1)
        return torch.tensordot(weights, spikes, dims=1) * (1 - leak) / (1 - leak ** len(spikes))


@wrong("S-6", "the plain mean is taken, not the leak-weighted one")
class PlainMean(Torch):
    def average_rate(self, spikes, leak):
        return spikes.mean(0)


@wrong("S-6", "weights are in reverse: λ^(t−1)")
class WeightsReversed(Torch):
    def average_rate(self, spikes, leak):
        return super().average_rate(spikes.flip(0), leak)


# --- operations -----------------------------------------------------------------------------------------------------


@wrong("S-7", "V_th is missing in the rate map", also="S-8")
class RateWithoutThreshold(Torch):
    def rate(self, current, vth):
        return torch.clamp(current, 0, 1)


@wrong("S-8", "the derivative of the clip is 1 outside as well")
class StraightThroughClip(Torch):
    def rate(self, current, vth):
        x = current / vth
        return x + (torch.clamp(x, 0, 1) - x).detach()


class Overwriting(torch.autograd.Function):
    @staticmethod
    def forward(ctx, ids, table, frozen_row):
        ctx.ids, ctx.shape, ctx.frozen_row = ids, table.shape, frozen_row
        return table[ids]

    @staticmethod
    def backward(ctx, dy):
        dtable = dy.new_zeros(ctx.shape)
        dtable[ctx.ids] = dy  # should be index_add_
        if ctx.frozen_row is not None:
            dtable[ctx.frozen_row] = 0
        return None, dtable, None


@wrong("S-9", "gradients of repeated ids overwrite each other")
class RepeatedIdsOverwritten(Torch):
    def embedding(self, ids, table, frozen_row=None):
        return Overwriting.apply(ids, table, frozen_row)


@wrong("S-10", "the padding row gets a gradient")
class NoPaddingIndex(Torch):
    def embedding(self, ids, table, frozen_row=None):
        return F.embedding(ids, table)


@wrong("S-11", "the bias is missing", also="S-37")
class BiasMissing(Torch):
    def linear(self, x, weight, bias=None):
        return x @ weight.mT + (0 * bias if bias is not None else 0)


@wrong("S-12", "ε is 1e-5", also="S-37")
class DefaultEpsilon(Torch):
    def layer_norm(self, x, weight, bias, eps):
        return F.layer_norm(x, x.shape[-1:], weight, bias)


@wrong("S-12", "the variance is the unbiased one, over D − 1", also="S-37")
class UnbiasedVariance(Torch):
    def layer_norm(self, x, weight, bias, eps):
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + eps).sqrt() * weight + bias


@wrong("S-12", "ε is added outside the root", also="S-37")
class EpsilonOutsideTheRoot(Torch):
    def layer_norm(self, x, weight, bias, eps):
        std, mean = torch.std_mean(x, -1, correction=0, keepdim=True)
        return (x - mean) / (std + eps) * weight + bias


@wrong("S-13", "GELU is the tanh approximation")
class TanhGelu(Torch):
    def gelu(self, x):
        return F.gelu(x, approximate="tanh")


@wrong("S-14", "scores are not divided by √d", also="S-15 S-16")
class NoScale(Torch):
    def attention_scores(self, query, key, mask, heads):
        return self.split_heads(query, heads) @ self.split_heads(key, heads).mT + mask


@wrong("S-14", "scores are divided by √D of all heads together", also="S-15 S-16")
class ScaleOfAllHeads(Torch):
    def attention_scores(self, query, key, mask, heads):
        return self.split_heads(query, heads) @ self.split_heads(key, heads).mT / query.shape[-1] ** 0.5 + mask


@wrong("S-14", "heads are split without transposing", also="S-15 S-16")
class HeadsSplitByView(Torch):
    def split_heads(self, x, heads):
        return x.reshape(*x.shape[:-2], heads, x.shape[-2], -1)


@wrong("S-15", "ignores the mask", also="S-16")
class MaskIgnored(Torch):
    def attention_scores(self, query, key, mask, heads):
        return super().attention_scores(query, key, 0 * mask, heads)


@wrong("S-15", "adds +10000 to padded keys", also="S-16")
class MaskSubtracted(Torch):
    def attention_scores(self, query, key, mask, heads):
        return super().attention_scores(query, key, -mask, heads)


@wrong("S-15", also="S-14")
class MaskInfinite(Torch):
    def attention_scores(self, query, key, mask, heads):
        return super().attention_scores(query, key, 0 * mask, heads).masked_fill(mask < 0, -torch.inf)


@wrong("S-15", "weights are masked after the softmax", also="S-16")
class MaskAfterTheSoftmax(Torch):
    def attention(self, query, key, value, mask, heads):
        weights = self.softmax(self.attention_scores(query, key, 0 * mask, heads)) * (mask == 0)
        return self.merge_heads(weights @ self.split_heads(value, heads))


@wrong("S-15", "padding is not masked")
class MaskNotFormed(Torch):
    def additive_mask(self, mask, dtype):
        return torch.zeros_like(mask, dtype=dtype)[:, None, None, :]


@wrong("S-15", "tokens are masked and padding is not", also="S-23")
class MaskInverted(Torch):
    def additive_mask(self, mask, dtype):
        return mask[:, None, None, :].to(dtype) * -10000.0


@wrong("S-16", "the softmax runs over queries, not keys", also="S-15")
class SoftmaxOverQueries(Torch):
    def attention(self, query, key, value, mask, heads):
        weights = torch.softmax(self.attention_scores(query, key, mask, heads), dim=-2)
        return self.merge_heads(weights @ self.split_heads(value, heads))


@wrong("S-16", "heads are merged without transposing", also="S-15")
class HeadsMergedByView(Torch):
    def merge_heads(self, x):
        return x.reshape(*x.shape[:-3], x.shape[-2], -1)


@wrong("S-17", "ReLU's derivative at 0 is 1")
class ReluPassesAtZero(Torch):
    def relu(self, x):
        return x * (x >= 0)


@wrong("S-18", "squares are summed, not averaged")
class SquaresSummed(Torch):
    def mse(self, prediction, target):
        return F.mse_loss(prediction, target, reduction="sum")


@wrong("S-19", "classes are summed, not averaged")
class ClassesSummed(Torch):
    def soft_cross_entropy(self, student, teacher, temperature):
        return F.cross_entropy(student / temperature, self.softmax(teacher / temperature))


@wrong("S-19", "it is multiplied by τ²")
class TimesTemperatureSquared(Torch):
    def soft_cross_entropy(self, student, teacher, temperature):
        return super().soft_cross_entropy(student, teacher, temperature) * temperature**2


@wrong("S-20", "a softmax is applied before the cross-entropy, which applies one itself")
class SoftmaxTwice(Torch):
    def cross_entropy(self, logits, labels):
        return F.cross_entropy(self.softmax(logits), labels)


# --- populations ----------------------------------------------------------------------------------------------------


@wrong("S-21", "token types are taken to be 0")
class TokenTypesZero(Torch):
    def embed(self, config, params, batch):
        return super().embed(config, params, batch | {"token_type_ids": torch.zeros_like(batch["token_type_ids"])})


@wrong("S-21", "positions count from 1")
class PositionsFromOne(Torch):
    def embed(self, config, params, batch):
        name = "embeddings.position_embeddings.weight"
        return super().embed(config, params | {name: params[name][1:]}, batch)


@wrong("S-22", "keys and values are exchanged")
class KeysAndValuesExchanged(Torch):
    def input_current(self, config, params, population, reads, mask):
        other = {"key": "value", "value": "key"}
        encoder, _, kind = population.rpartition(".")
        population = f"{encoder}.{other[kind]}" if kind in other else population
        return super().input_current(config, params, population, reads, mask)


@wrong("S-23", "the query is cut to [0, 1], as if it had neurons", also="S-15")
class SpikingQuery(Torch):
    def query(self, config, params, e, h):
        return self.rate(super().query(config, params, e, h), config["vth"])


@wrong("S-24", "the residual is missing")
class NoAttentionResidual(Torch):
    def input_current(self, config, params, population, reads, mask):
        if population.endswith("attention_output"):
            reads = [reads[0], 0 * reads[1]]
        return super().input_current(config, params, population, reads, mask)


@wrong("S-25", "the intermediate population reads the encoder's input")
class IntermediateReadsInput(Torch):
    def populations(self, config):
        reads = super().populations(config)
        for e in range(config["num_hidden_layers"]):
            reads[f"encoder.{e}.intermediate"] = reads[f"encoder.{e}.key"]
        return reads


@wrong("S-26", "the residual of the encoder's output is the encoder's input")
class ResidualOfTheInput(Torch):
    def populations(self, config):
        reads = super().populations(config)
        for e in range(config["num_hidden_layers"]):
            reads[f"encoder.{e}.output"][1] = reads[f"encoder.{e}.key"][0]
        return reads


class Rewired(Torch):
    def __init__(self, reads):
        self.reads = reads

    def populations(self, config):
        return self.reads


# --- simulation -----------------------------------------------------------------------------------------------------


@wrong("S-27", "every population reads the spikes of the step before", also="S-4 S-28 S-29")
class DelayBetweenLayers(Torch):
    def seen(self, train, t, rule):
        return super().seen(train[:t], t, rule)


@wrong("S-27", "the embeddings fire last", also="S-4 S-28 S-29")
class EmbeddingsFireLast(Torch):  # so that they see this step's feedback
    def simulate(self, config, *arguments):
        first, *others = super().populations(config).items()
        return Rewired(dict([*others, first])).simulate(config, *arguments)


@wrong("S-27", "what is fed back comes two steps late")
class FeedbackTwoStepsLate(Torch):
    def seen(self, train, t, rule):
        earlier = len(train) > t
        return super().seen(train if earlier else train[:-1] or train, t, rule)


@wrong("S-28", "running means of the spikes are fed to the map", also="S-4 S-27")
class InstFedMeans(Torch):
    def seen(self, train, t, rule):
        return super().seen(train, t, "running")


@wrong("S-29", "running means of the spikes are fed to the map", also="S-27")
class RunningNotTelescoped(Torch):
    def running_current(self, t, f, total):
        return f, total


@wrong("S-29", "the rule is inst", also="S-27")
class RunningIsInst(Torch):
    def simulate(self, config, params, batch, t_conv, rule, dtype):
        return super().simulate(config, params, batch, t_conv, "inst", dtype)


# --- equilibrium ----------------------------------------------------------------------------------------------------


@wrong("S-30", "feedback is left out", also="S-27")
class FeedbackLeftOut(Torch):
    def populations(self, config):
        return super().populations(config) | {"embeddings": ["input"]}


@wrong("S-30")
class IterationStopsEarly(Torch):
    def iterate(self, f, z):
        for _ in range(5):
            z = f(z)
        return z


@wrong("S-31", "scores are taken after the softmax")
class ScoresAfterTheSoftmax(Torch):
    def raw_scores(self, config, params, batch, rates):
        return [self.softmax(s) for s in super().raw_scores(config, params, batch, rates)]


@wrong("S-31", "the mask is left out of the scores")
class ScoresWithoutMask(Torch):
    def raw_scores(self, config, params, batch, rates):
        everything = torch.ones_like(batch["attention_mask"])
        return super().raw_scores(config, params, batch | {"attention_mask": everything}, rates)


# --- losses and gradients -------------------------------------------------------------------------------------------


@wrong("S-32", "padding is left out of the hidden loss", also="S-34")
class PaddingLeftOut(Torch):
    def internal_losses(self, config, params, batch, rates, scores, targets):
        tokens = batch["attention_mask"].bool()
        targets = targets | {"hidden": [h[tokens] for h in targets["hidden"]]}
        return super().internal_losses(config, params, batch, {r: a[tokens] for r, a in rates.items()}, scores, targets)


@wrong("S-32", "masked scores are kept in the attention loss", also="S-34")
class MaskedScoresKept(Torch):
    def unmasked(self, scores):
        return scores


@wrong("S-32", "losses are averaged over layers", also="S-34")
class LayersAveraged(Torch):
    def internal_losses(self, config, params, batch, rates, scores, targets):
        losses = super().internal_losses(config, params, batch, rates, scores, targets)
        hidden, attention = losses["hidden"] / len(targets["hidden"]), losses["attention"] / len(scores)
        return {"loss": hidden + attention, "hidden": hidden, "attention": attention}


@wrong("S-33", "positions are averaged instead of taking [CLS]", also="S-34")
class MeanPooled(Torch):
    def logits(self, config, params, rates):
        return self.dense(params, "classifier", self.relu(rates[self.readouts(config)[-1]].mean(1)))


@wrong("S-33", "tanh stands in for ReLU", also="S-34")
class TanhHead(Torch):
    def logits(self, config, params, rates):
        return self.dense(params, "classifier", torch.tanh(rates[self.readouts(config)[-1]][:, 0]))


@wrong("S-33", "gradients pass where a simulated rate is 0")
class ReluMissing(Torch):
    def logits(self, config, params, rates):
        return self.dense(params, "classifier", rates[self.readouts(config)[-1]][:, 0])


@wrong("S-34", "simulated values are ignored", also="S-33")
class SimulatedIgnored(Torch):
    def straight_through(self, value, rate):
        return rate


@wrong("S-33", "gradients pass where a simulated rate is 0")
class ReluOfTheRates(Torch):
    def straight_through(self, value, rate):
        value = super().straight_through(value, rate)
        value.rate = rate
        return value

    def logits(self, config, params, rates):
        last = rates[self.readouts(config)[-1]]
        active = super().straight_through(self.relu(last).detach(), self.relu(getattr(last, "rate", last)))
        return self.dense(params, "classifier", active[:, 0])


@wrong("S-34")
class FitOfTheRates(Torch):
    def straight_through(self, value, rate):
        value = super().straight_through(value, rate)
        value.rate = rate
        return value

    def dense(self, params, name, x):
        y = super().dense(params, name, x)
        return super().straight_through(y.detach(), super().dense(params, name, x.rate)) if hasattr(x, "rate") else y


class OnePopulationSteeper(Torch):
    """Forward all is right; backward the derivative of one population's current is half as large again."""

    population = ""

    def input_current(self, config, params, population, reads, mask):
        current = super().input_current(config, params, population, reads, mask)
        factor = 1.5 if population == self.population else 1.0
        return current.detach() + factor * (current - current.detach()) if factor != 1 else current


@wrong("S-34", case="gradients/internal")
class IntermediateSteeper(OnePopulationSteeper):
    population = "encoder.0.intermediate"


@wrong("S-35", case="gradients/prediction-feedback")
class KeySteeperWithFeedback(OnePopulationSteeper):
    population = "encoder.1.key"


@wrong("S-35", "(2I − Jᵀ) is solved instead of (I − Jᵀ)")
class AveragedAdjoint(Torch):
    def adjoint(self, vjp, direct):
        return self.iterate(lambda w: (direct + vjp(w)) / 2, direct)


@wrong("S-35", "one step of the iteration stands in for the solution")
class OneStepAdjoint(Torch):
    def adjoint(self, vjp, direct):
        return direct


@wrong("S-35", "what is fed back is detached")
class FeedbackDetached(Torch):
    def backward(self, params, loss, fed_back, returned):
        return super().backward(params, loss, None, None)


# --- optimiser ------------------------------------------------------------------------------------------------------


@wrong("S-36", "moments are corrected for bias, as after the first step")
class BiasCorrection(Torch):
    def adam(self, name, param, gradient, m, v, settings):
        param.grad = self.clip_norm(gradient, settings["max_norm"])
        betas, decay = (settings["beta1"], settings["beta2"]), settings["weight_decay"] * self.decays(name)
        optimiser = torch.optim.AdamW([param.requires_grad_()], settings["lr"], betas, settings["eps"], decay)
        optimiser.state[param] = {"step": torch.tensor(0.0), "exp_avg": m, "exp_avg_sq": v}
        optimiser.step()
        return param, m, v


@wrong("S-36", "one norm of all gradients together is clipped")
class OneGlobalNorm(Torch):
    def update(self, params, gradients, moments, settings, dtype):
        norm = sum((g**2).sum() for g in gradients.values()) ** 0.5
        clipped = {name: g * min(1, settings["max_norm"] / (norm + 1e-6)) for name, g in gradients.items()}
        return super().update(params, clipped, moments, settings, dtype)


@wrong("S-36", "biases and LayerNorm weights decay too")
class EverythingDecays(Torch):
    def decays(self, name):
        return True


@wrong("S-36", "the decay is added to the gradient")
class DecayInTheGradient(Torch):
    def adam(self, name, param, gradient, m, v, settings):
        gradient = self.clip_norm(gradient, settings["max_norm"]) + settings["weight_decay"] * param * self.decays(name)
        return super().adam(name, param, gradient, m, v, settings | {"weight_decay": 0.0, "max_norm": torch.inf})


@wrong("S-36", "ε is inside the root")
class EpsilonInTheRoot(Torch):
    def adam(self, name, param, gradient, m, v, settings):
        shift = settings["eps"] / settings["beta2"]
        param, m, v = super().adam(name, param, gradient, m, v + shift, settings | {"eps": 0.0})
        return param, m, v - settings["eps"]


# --- precision ------------------------------------------------------------------------------------------------------


@wrong("S-37", also="S-11", dtype="float32")
class HalfPrecisionSums(Torch):
    def linear(self, x, weight, bias=None):
        total = x.new_zeros((*x.shape[:-1], len(weight)), dtype=torch.float16)
        for i in range(x.shape[-1]):
            total = total + (x[..., i, None] * weight[:, i]).half()
        return total.to(x.dtype) if bias is None else total.to(x.dtype) + bias


@wrong("S-37", "numbers are rounded to bfloat16", also="S-11", dtype="float32")
class HalfPrecisionProducts(Torch):
    def linear(self, x, weight, bias=None):
        with torch.autocast("cpu", torch.bfloat16):
            return F.linear(x, weight, bias).to(x.dtype)


@wrong("S-37", "numbers are rounded to float32", also="S-11")
class SinglePrecisionProducts(Torch):
    def linear(self, x, weight, bias=None):
        return F.linear(x.float(), weight.float(), None if bias is None else bias.float()).to(x.dtype)


# --- what the suites' first version let pass ------------------------------------------------------------------------


@wrong("S-2", "the neuron subtracts V_th·(1 − δ), the level, instead of V_th", case="neurons/wide-tie")
class ResetByTheLowerLevel(Torch):
    def reset(self, membrane, spikes, neuron):
        return membrane - neuron["vth"] * (1 - neuron["tie"]) * spikes


@wrong("S-2", "the neuron compares with V_th − δ instead of V_th·(1 − δ)", case="neurons/wide-tie")
class ThresholdMinusDelta(Torch):
    def fires(self, membrane, neuron):
        return membrane >= neuron["vth"] - neuron["tie"]


class Simulated(Torch):
    """A simulation of other neurons than those that were asked for, in some networks."""

    changes: dict = {}  # noqa: RUF012

    def where(self, config, rule):
        return True

    def simulate(self, config, params, batch, t_conv, rule, dtype):
        config = config | self.changes if self.where(config, rule) else config
        return super().simulate(config, params, batch, t_conv, rule, dtype)


@wrong("S-2", case="simulate/inst-tie-rule")
class TieRuleOfSingleNeuronsOnly(Simulated):
    changes = {"tie": 0.0}  # noqa: RUF012


@wrong("S-2", case="simulate/running-tie-rule")
class TieRuleNotUnderRunning(TieRuleOfSingleNeuronsOnly):
    def where(self, config, rule):
        return rule == "running"


def _together():
    """Constants that are ignored only together with the rule running, or with feedback."""
    for constant, value in {"u0": 0.0, "vth": 1.0, "leak": 1.0, "tie": 0.0}.items():
        for what, where, case, requirement in (
            ("Running", lambda self, config, rule: rule == "running", "simulate/running-combined", "S-29"),
            ("Feedback", lambda self, config, rule: config["feedback"], "simulate/inst-combined", "S-28"),
        ):
            name = f"{constant.title()}IgnoredWith{what}"
            made = type(name, (Simulated,), {"changes": {constant: value}, "where": where})
            yield wrong(requirement, case=case)(made)


list(_together())


@wrong("S-29", case="simulate/running-combined")
class ChargeUnscaledUnderRunning(Torch):
    def simulate(self, config, params, batch, t_conv, rule, dtype):
        config = config | ({"u0": config["u0"] / config["vth"]} if rule == "running" else {})
        return super().simulate(config, params, batch, t_conv, rule, dtype)


@wrong("S-30", case="rate_map/combined")
class FeedbackNotDivided(Torch):
    def rate_map(self, config, params, batch, dtype):
        params = (
            params | {"feedback.weight": config["vth"] * params["feedback.weight"]} if config["feedback"] else params
        )
        return super().rate_map(config, params, batch, dtype)


@wrong("S-30", case="rate_map/combined")
class EpsilonHardCodedInNetworks(Torch):
    def norm(self, config, params, name, x):
        return super().norm(config | {"layer_norm_eps": 1e-12}, params, name, x)


@wrong("S-32", case="gradients/internal-combined")
class FeedbackNotDividedInGradients(Torch):
    def gradients(self, config, params, *arguments):
        params = (
            params | {"feedback.weight": config["vth"] * params["feedback.weight"]} if config["feedback"] else params
        )
        return super().gradients(config, params, *arguments)


class OtherBatch(Torch):
    """The whole network on a batch that is changed first."""

    def other(self, config, batch):
        return batch

    def rate_map(self, config, params, batch, dtype):
        return super().rate_map(config, params, self.other(config, batch), dtype)

    def simulate(self, config, params, batch, *arguments):
        return super().simulate(config, params, self.other(config, batch), *arguments)

    def gradients(self, config, params, batch, *arguments):
        return super().gradients(config, params, self.other(config, batch), *arguments)


@wrong("S-15", case="simulate/padding")
class MaskFromIds(OtherBatch):
    def other(self, config, batch):
        return batch | {"attention_mask": (batch["input_ids"] != config["pad_token_id"]).astype(int)}


@wrong("S-15", case="rate_map/padding")
class MaskByLength(OtherBatch):
    def other(self, config, batch):
        mask = batch["attention_mask"]
        return batch | {"attention_mask": (range(mask.shape[1]) < mask.sum(1)[:, None]).astype(int)}


@wrong("S-15", case="current/context-holes")
class CurrentMaskedByLength(Torch):
    def additive_mask(self, mask, dtype):
        return super().additive_mask((torch.arange(mask.shape[1]) < mask.sum(1)[:, None]).to(mask.dtype), dtype)


@wrong("S-10", case="gradients/internal-padding")
class PaddingRowByMask(Torch):
    def embed(self, config, params, batch):
        seen = batch["attention_mask"][..., None] == 1
        plain = self.embedding

        def embedding(ids, table, frozen_row=None):
            rows = plain(ids, table)
            return rows if frozen_row is None else torch.where(seen, rows, rows.detach())

        self.embedding = embedding
        try:
            return super().embed(config, params, batch)
        finally:
            del self.embedding


@wrong("S-10", case="gradients/internal-padding")
class PaddingIdZeroHardCoded(Torch):
    def embed(self, config, params, batch):
        return super().embed(config | {"pad_token_id": 0}, params, batch)


@wrong("S-15", case="op/attention-all-padded")
class MaskFilledIn(Torch):
    def attention(self, query, key, value, mask, heads):
        scores = self.attention_scores(query, key, 0 * mask, heads).masked_fill(mask < 0, -10000.0)
        return self.merge_heads(self.softmax(scores) @ self.split_heads(value, heads))


@wrong("S-16", case="op/softmax-large")
class SoftmaxWithoutMaximum(Torch):
    def softmax(self, x):
        return x.exp() / x.exp().sum(-1, keepdim=True)


@wrong("S-16", case="op/attention-large")
class AttentionWithoutMaximum(SoftmaxWithoutMaximum):
    pass


@wrong("S-19", case="op/soft_cross_entropy-large")
class LogarithmOfASoftmax(Torch):
    def soft_cross_entropy(self, student, teacher, temperature):
        return -(self.softmax(teacher / temperature) * self.softmax(student / temperature).log()).mean()


@wrong("S-20", case="op/cross_entropy-large")
class LogarithmOfASoftmaxOfLabels(Torch):
    def cross_entropy(self, logits, labels):
        return F.nll_loss(self.softmax(logits).log(), labels)


class CutOtherwise(Torch):
    def cut(self, student, teacher):
        raise NotImplementedError

    def internal_losses(self, config, params, batch, rates, scores, targets):
        kept = [self.cut(s, t) for s, t in zip(scores, targets["scores"], strict=True)]
        scores = [torch.where(k, s, torch.zeros_like(s)) for k, s in zip(kept, scores, strict=True)]
        cut = [torch.where(k, t, torch.zeros_like(t)) for k, t in zip(kept, targets["scores"], strict=True)]
        return super().internal_losses(config, params, batch, rates, scores, targets | {"scores": cut})


@wrong("S-32", case="gradients/internal-cut")
class ScoresCutByTheStudent(CutOtherwise):
    def cut(self, student, teacher):
        return student > -100


@wrong("S-32", case="gradients/internal-cut")
class ScoresCutByTheTeacher(CutOtherwise):
    def cut(self, student, teacher):
        return teacher > -100


@wrong("S-32", case="gradients/internal-cut")
class ScoresCutByEither(CutOtherwise):
    def cut(self, student, teacher):
        return (student > -100) & (teacher > -100)


@wrong("S-32", case="gradients/internal-cut")
class ScoresCutAtAThousand(Torch):
    def unmasked(self, scores):
        return scores.where(scores > -1000, 0)


@wrong("S-12", case="op/layer_norm-near-constant")
class VarianceByOnePass(Torch):
    def layer_norm(self, x, weight, bias, eps):
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / ((x**2).mean(-1, keepdim=True) - mean**2 + eps).sqrt() * weight + bias


@wrong("S-5", case="asr/300-leak-1")
class SpikesCountedInBytes(Torch):
    def average_rate(self, spikes, leak):
        return spikes.to(torch.uint8).sum(0, dtype=torch.uint8) / len(spikes)


@wrong("S-5", dtype="bfloat16", case="asr/300-leak-1")
class SpikesCountedInHalfPrecision(Torch):
    def average_rate(self, spikes, leak):
        total = 0 * spikes[0]
        for now in spikes:
            total = total + now
        return total / len(spikes)


# --- sizes that are no powers of two, and long simulations ------------------------------------------------------------


@wrong("S-22", case="current/key-spikes", suite="odd")
class TailOfFeaturesForgotten(Torch):
    def linear(self, x, weight, bias=None):
        y = super().linear(x, weight, bias)
        whole = y.shape[-1] // 32 * 32
        return torch.cat([y[..., :whole], 0 * y[..., whole:]], -1) if whole else y


@wrong("S-26", case="current/output-rates", suite="odd")
class TailOfSumsForgotten(Torch):
    def linear(self, x, weight, bias=None):
        whole = x.shape[-1] // 16 * 16 or x.shape[-1]
        return super().linear(x[..., :whole], weight[:, :whole], bias)


@wrong("S-23", case="current/context-spikes", suite="odd")
class SixteenKeysAtMost(Torch):
    def attention(self, query, key, value, mask, heads):
        return super().attention(query, key[..., :16, :], value[..., :16, :], mask[..., :16], heads)


@wrong("S-29", case="simulate/running-single", suite="odd")
class RunningCountsInBytes(Torch):
    def seen(self, train, t, rule):
        spikes, count = train[-1]
        return super().seen([(spikes, count.to(torch.uint8))], t, rule)


@wrong("S-28", case="simulate/inst-single", suite="odd")
class RoomForSixtyFourSteps(Torch):
    def simulate(self, config, params, batch, t_conv, rule, dtype):
        spikes = super().simulate(config, params, batch, t_conv, rule, dtype)
        return {name: np.concatenate([train[:64], 0 * train[64:]]) for name, train in spikes.items()}


@wrong("S-21", case="rate_map/single")
class SeveralSequencesExpected(Torch):
    def rate_map(self, config, params, batch, dtype):
        found = super().rate_map(config, params, batch, dtype)
        return {name: value.squeeze() for name, value in found.items()}


# --- what an optimiser's names, gaps and schedule hide ----------------------------------------------------------------


def _spared():
    for kind in ("embeddings", "fit.weight", "classifier.weight", "feedback"):
        spared = f"{kind.partition('.')[0].title()}DoNotDecay"

        def decays(self, name, kind=kind):
            return Torch.decays(self, name) and kind not in name

        yield wrong("S-36", case="update/names")(type(spared, (Torch,), {"decays": decays}))


list(_spared())


@wrong("S-36", case="update/names")
class NormsByShape(Torch):
    def update(self, params, gradients, moments, settings, dtype):
        found = super().update(params, gradients, moments, settings, dtype)
        flat = [name for name in gradients if params[name].ndim == 1]  # one-dimensional, so it "is" a bias
        for name in (name for name in gradients if name not in flat and name.endswith("embeddings.weight")):
            found[f"param/{name}"] = found[f"param/{name}"] + settings["lr"] * settings["weight_decay"] * params[name]
        return found


@wrong("S-36", case="update/names")
class ZeroGradientsSkipped(Torch):
    def update(self, params, gradients, moments, settings, dtype):
        found = super().update(params, gradients, moments, settings, dtype)
        for name in (name for name, gradient in gradients.items() if not gradient.any()):
            found |= {f"param/{name}": params[name], f"m/{name}": moments["m"][name], f"v/{name}": moments["v"][name]}
        return found


@wrong("S-36", case="update/names")
class MissingGradientsTakenAsZero(Torch):
    def update(self, params, gradients, moments, settings, dtype):
        zeros = {name: 0 * param for name, param in params.items()}
        return super().update(params, zeros | gradients, moments, settings, dtype)


@wrong("S-36", case="update/warm-up")
class NoWarmUp(Torch):
    def scheduled(self, settings):
        return settings


@wrong("S-36", case="update/warm-up")
class WarmUpFromOne(Torch):
    def scheduled(self, settings):
        return super().scheduled(settings | ({"step": settings["step"] + 1} if "step" in settings else {}))


@wrong("S-36", case="update/warm-down")
class WarmUpWithoutDecline(Torch):
    def scheduled(self, settings):
        done = settings["step"] / settings["steps"]
        return settings if done >= settings["warmup"] else super().scheduled(settings)


# --- signed spikes --------------------------------------------------------------------------------------------------


def wrong_signed(requirement, sentence="", also=""):
    return wrong(requirement, sentence, also, suite="signed")


@wrong_signed("S-38", "the neuron takes back spikes that it has not fired")
class TakesBackWhatIsNotThere(Torch):
    def fires_signed(self, membrane, net, neuron):
        return super().fires_signed(membrane, torch.ones_like(net), neuron)


@wrong_signed("S-38", "the neuron fires −1 at the lower level itself", also="S-39")
class TakesBackAtTheLevel(Torch):
    def fires_signed(self, membrane, net, neuron):
        ternary, vth, tie = neuron["polarity"] == "ternary", neuron["vth"], neuron["tie"]
        due = 0.5 if ternary else 1.0
        back = (membrane <= vth * (due - 1 - tie)) & (True if ternary else net > 0)
        return (membrane >= vth * (due - tie)).to(membrane.dtype) - back.to(membrane.dtype)


@wrong_signed("S-38", "the neuron takes a spike back only from −V_th on")
class TakesBackAtMinusOne(Torch):
    def fires_signed(self, membrane, net, neuron):
        if neuron["polarity"] == "ternary":
            return super().fires_signed(membrane, net, neuron)
        back = (membrane < -neuron["vth"]) & (net > 0)
        return (membrane >= neuron["vth"] * (1 - neuron["tie"])).to(membrane.dtype) - back.to(membrane.dtype)


@wrong_signed("S-38", "the neuron compares with the levels themselves", also="S-39")
class SignedTieRuleIgnored(Torch):
    def fires_signed(self, membrane, net, neuron):
        return super().fires_signed(membrane, net, neuron | {"tie": 0.0})


@wrong_signed("S-39", "the neuron never fires −1", also="S-38")
class PolarityIgnored(Torch):
    def step(self, charge, current, neuron):
        return super().step(charge, current, {k: v for k, v in neuron.items() if k != "polarity"})


@wrong_signed("S-39", "the neuron fires 1 and −1 from ±V_th")
class TernaryFromTheThreshold(Torch):
    def fires_signed(self, membrane, net, neuron):
        if neuron["polarity"] != "ternary":
            return super().fires_signed(membrane, net, neuron)
        vth, tie = neuron["vth"], neuron["tie"]
        return (membrane >= vth * (1 - tie)).to(membrane.dtype) - (membrane < -vth * (1 + tie)).to(membrane.dtype)


@wrong_signed("S-40", "rates are cut at 0, not at −1")
class TernaryRateCut(Torch):
    def rate(self, current, vth, polarity="unsigned"):
        return super().rate(current, vth)


@wrong_signed("S-40")
class TernaryThroughRelu(Torch):
    def logits(self, config, params, rates):
        return super().logits({k: v for k, v in config.items() if k != "polarity"}, params, rates)


@wrong_signed("S-41", "the synapses of the residuals are left out")
class SynapsesIgnored(Torch):
    def synapses(self, params, name, residual):
        return residual


@wrong_signed("S-41")
class SynapsesAfterTheSum(Torch):
    def norm(self, config, params, name, x):
        synapses = params.get(name.replace("LayerNorm", "residual") + ".weight", 1)
        return super().norm(config, params, name, x * synapses)

    def synapses(self, params, name, residual):
        return residual


@wrong_signed("S-42", "neurons' own thresholds are left out")
class OwnThresholdsIgnored(Torch):
    def in_thresholds(self, params, name, current):
        return current


@wrong_signed("S-42", "currents are multiplied by neurons' own thresholds, not divided")
class OwnThresholdsMultiply(Torch):
    def in_thresholds(self, params, name, current):
        return current * params[name] if name in params else current


# --- spiking GPTs -----------------------------------------------------------------------------------------------------


def wrong_gpt(requirement, sentence="", also="", case=""):
    return wrong(requirement, sentence, also, case=case, suite="gpt")


@wrong_gpt("S-43", "GELU is the exact form")
class ExactGelu(TorchGpt):
    def gelu_tanh(self, x):
        return F.gelu(x)


@wrong_gpt("S-44", "a query sees later keys")
class LooksAhead(TorchGpt):
    def earlier(self, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool)


@wrong_gpt("S-44", "positions of queries count from the first key")
class LastQueriesAreFirst(TorchGpt):
    def earlier(self, queries, keys):
        return torch.ones(queries, keys, dtype=torch.bool).tril()


@wrong_gpt("S-45")
class InputNormalised(TorchGpt):
    def embed(self, config, params, batch):
        return self.norm(config, params, "h.0.ln_1", super().embed(config, params, batch))


@wrong_gpt("S-45", "positions are left out")
class PositionsLeftOut(TorchGpt):
    def embed(self, config, params, batch):
        return self.embedding(batch["input_ids"], params["wte.weight"])


@wrong_gpt("S-46", "ε of LayerNorm is 1e-5")
class UsualEpsilon(TorchGpt):
    def norm(self, config, params, name, x):
        return super().norm(config | {"layer_norm_epsilon": 1e-5}, params, name, x)


@wrong_gpt("S-46")
class NormAfterTheHalfBlock(TorchGpt):
    def half_block_reads(self, config, params, name, x):
        return x

    def stream(self, params, name, a, x):
        norm = name.replace("attn.c_proj", "ln_1").replace("mlp.c_proj", "ln_2")
        y = super().stream(params, name, a, x)
        return self.layer_norm(y, params[norm + ".weight"], params[norm + ".bias"], 2.0**-6) if norm in params else y


@wrong_gpt("S-47", "keys and values are exchanged")
class KeysForValues(TorchGpt):
    def input_current(self, config, params, population, reads, mask):
        block, _, kind = population.rpartition(".")
        other = {"key": "value", "value": "key"}.get(kind)
        return super().input_current(config, params, f"{block}.{other}" if other else population, reads, mask)


@wrong_gpt("S-48", "the residual stream is left out")
class StreamLeftOut(TorchGpt):
    def stream(self, params, name, a, x):
        return self.dense(params, name, a)


@wrong_gpt("S-48", "the residual stream is made of neurons")
class StreamOfNeurons(TorchGpt):
    def spikes(self, population):
        return population != "embeddings"


@wrong_gpt("S-48", "the residual stream is made of neurons", case="simulate/gpt-running")
class StreamSpikesInSimulations(TorchGpt):
    simulating = False

    def spikes(self, population):
        return population != "embeddings" if self.simulating else super().spikes(population)

    def simulate(self, config, params, batch, t_conv, rule, dtype):
        self.simulating = True
        found = super().simulate(config, params, batch, t_conv, rule, dtype)
        self.simulating = False
        return {name: train for name, train in found.items() if self.spikes(name)}


@wrong_gpt("S-48", case="simulate/gpt-running")
class StepsOfTheStreamAmongMeans(TorchGpt):
    def handed_on(self, population, current, t):
        before = self.integrals.get(population, 0) if t > 1 else 0
        self.integrals[population] = t * current
        return t * current - before

    integrals = {}  # noqa: RUF012 - one simulation after the other


@wrong_gpt("S-49")
class TableDetachedFromTheLogits(TorchGpt):
    def table(self, params):
        return super().table(params).detach()


@wrong_gpt("S-49", "the scale of the read-out is left out")
class ReadOutUnscaled(TorchGpt):
    def next_tokens(self, params, final, labels):
        ones = {"readout.weight": torch.ones_like(final[0, 0]), "readout.bias": torch.zeros_like(final[0, 0])}
        return super().next_tokens(params | ones, final, labels)


@wrong_gpt("S-49")
class PaddingIsATokenToo(TorchGpt):
    def next_tokens(self, params, final, labels):
        return super().next_tokens(params, final, labels.clamp(min=0))
