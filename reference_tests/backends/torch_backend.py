"""SpikingBERT in PyTorch: an adapter for the conformance kit, as a user of PyTorch would write it.

Every operation is a method on tensors, named like the kit's operation and taking its arrays and constants by name; the
kit's own functions, on NumPy arrays, come last and only convert. Gradients are autograd's throughout.

Shapes: B sentences of N positions, D = hidden size, h heads, T steps.
"""

import os

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812

MASKED = -10000.0  # added to the scores of padded keys


#: Where it computes: "cpu", or "cuda".
DEVICE = os.environ.get("REFSNN_DEVICE", "cpu")
if DEVICE == "cuda" and not torch.cuda.is_available():
    raise ImportError("REFSNN_DEVICE is cuda, but PyTorch sees no GPU")
#: TF32 in float32 too, to see that the kit finds it.
FORCED = os.environ.get("REFSNN_FORCE_TF32") == "1"
#: The rate map and a neuron's step are compiled, each anew for every network and constant.
COMPILE = os.environ.get("REFSNN_COMPILE") == "1"
if COMPILE:
    torch._dynamo.config.recompile_limit = 256  # beyond it they would run as they are, without a word


def compiled(function):
    return torch.compile(function, dynamic=False) if COMPILE else function


def to_torch(array, dtype: str) -> torch.Tensor:
    """A tensor of its own; integers stay integers."""
    array = np.asarray(array)
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32" or FORCED
    kind = getattr(torch, "float32" if dtype in ("tf32", "bf16_f32") else dtype) if array.dtype.kind == "f" else None
    return torch.tensor(array, dtype=kind, device=DEVICE)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).cpu().numpy()  # NumPy has no bfloat16


def all_to_torch(arrays: dict, dtype: str) -> dict[str, torch.Tensor]:
    return {name: to_torch(array, dtype) for name, array in arrays.items()}


def all_to_numpy(tensors: dict) -> dict[str, np.ndarray]:
    return {name: to_numpy(tensor) for name, tensor in tensors.items()}


class Torch:
    name = "torch"
    dtypes = ("float64", "float32", "bfloat16", *(("float16", "tf32") if DEVICE == "cuda" else ()))

    # --- operations -------------------------------------------------------------------------------------------------

    def embedding(self, ids, table, frozen_row=None):
        return F.embedding(ids, table, padding_idx=frozen_row)

    def linear(self, x, weight, bias=None):
        return F.linear(x, weight, bias)

    def layer_norm(self, x, weight, bias, eps):
        return F.layer_norm(x, x.shape[-1:], weight, bias, eps)

    def gelu(self, x):
        return F.gelu(x)

    def relu(self, x):
        return F.relu(x)

    def tanh(self, x):
        return torch.tanh(x)

    def rate(self, current, vth, polarity="unsigned"):
        return torch.clamp(current / vth, -1 if polarity == "ternary" else 0, 1)

    def softmax(self, x):
        return torch.softmax(x, dim=-1)

    def split_heads(self, x, heads):  # (…, N, D) -> (…, h, N, D/h)
        return x.unflatten(-1, (heads, -1)).transpose(-3, -2)

    def merge_heads(self, x):  # (…, h, N, D/h) -> (…, N, D)
        return x.transpose(-3, -2).flatten(-2)

    def attention_scores(self, query, key, mask, heads):
        query, key = self.split_heads(query, heads), self.split_heads(key, heads)
        return query @ key.mT / query.shape[-1] ** 0.5 + mask

    def attention(self, query, key, value, mask, heads):
        weights = self.softmax(self.attention_scores(query, key, mask, heads))
        return self.merge_heads(weights @ self.split_heads(value, heads))

    def mse(self, prediction, target):
        return F.mse_loss(prediction, target)

    def cross_entropy(self, logits, labels):
        return F.cross_entropy(logits, labels)

    def soft_cross_entropy(self, student, teacher, temperature):
        # The mean is over classes too, which F.cross_entropy would not do.
        return -(self.softmax(teacher / temperature) * F.log_softmax(student / temperature, dim=-1)).mean()

    # --- neurons ----------------------------------------------------------------------------------------------------

    def initial_charge(self, current, neuron):
        return torch.full_like(current, neuron["u0"] * neuron["vth"])

    def integrate(self, charge, current, neuron):
        return neuron["leak"] * charge + current

    def fires(self, membrane, neuron):
        return membrane >= neuron["vth"] * (1 - neuron["tie"])

    def reset(self, membrane, spikes, neuron):
        return membrane - neuron["vth"] * spikes

    def fires_signed(self, membrane, net, neuron):
        """Spikes of 1 and −1; a retractable neuron takes back only what its net count has."""
        ternary, vth, tie = neuron["polarity"] == "ternary", neuron["vth"], neuron["tie"]
        due = 0.5 if ternary else 1.0
        back = (membrane < vth * (due - 1 - tie)) & (True if ternary else net > 0)
        return (membrane >= vth * (due - tie)).to(membrane.dtype) - back.to(membrane.dtype)

    def step(self, charge, current, neuron):
        """The spikes of one step, and the charge they leave; with it, of signed neurons, their net count."""
        if neuron.get("polarity", "unsigned") != "unsigned":
            left, net = charge or (self.initial_charge(current, neuron), torch.zeros_like(current))
            membrane = self.integrate(left, current, neuron)
            spikes = self.fires_signed(membrane, net, neuron)
            return spikes, (self.reset(membrane, spikes, neuron), net + spikes)
        if charge is None:
            charge = self.initial_charge(current, neuron)
        membrane = self.integrate(charge, current, neuron)
        spikes = self.fires(membrane, neuron).to(current.dtype)
        return spikes, self.reset(membrane, spikes, neuron)

    def average_rate(self, spikes, leak):
        weights = leak ** torch.arange(len(spikes) - 1, -1, -1, dtype=torch.float64, device=spikes.device)  # λ^(T−t)
        return torch.tensordot(weights.to(spikes.dtype), spikes, dims=1) / weights.sum().item()

    def running_current(self, t, f, total):
        """I[t] = t·f(ā[t]) − (t−1)·f(ā[t−1]), and what to subtract next time."""
        return t * f - total, t * f

    def seen(self, train, t, rule):
        """What is read of a population at step t: its latest spikes or, by "running", their mean over t steps.

        ``train`` holds (spikes, their count so far) from step 0 on, where nothing fired. The last step that a later
        population has is t − 1.
        """
        spikes, count = train[-1]
        return spikes if rule == "inst" else count.to(spikes.dtype) / t

    # --- the network ------------------------------------------------------------------------------------------------

    def populations(self, config) -> dict[str, list[str]]:
        """What every population reads, in firing order; the embeddings' own input is called "input"."""
        last = f"encoder.{config['num_hidden_layers'] - 1}.output"
        reads = {"embeddings": ["input", last] if config["feedback"] else ["input"]}
        h = "embeddings"
        for e in range(config["num_hidden_layers"]):
            encoder = f"encoder.{e}."
            reads[encoder + "key"] = [h]
            reads[encoder + "value"] = [h]
            reads[encoder + "context"] = [h, encoder + "key", encoder + "value"]
            reads[encoder + "attention_output"] = [encoder + "context", h]
            reads[encoder + "intermediate"] = [encoder + "attention_output"]
            h = encoder + "output"
            reads[h] = [encoder + "intermediate", encoder + "attention_output"]
        return reads

    def readouts(self, config) -> list[str]:
        return ["embeddings"] + [f"encoder.{e}.output" for e in range(config["num_hidden_layers"])]

    def width(self, config, population) -> int:
        return config["intermediate_size" if population.endswith("intermediate") else "hidden_size"]

    def dense(self, params, name, x):
        return self.linear(x, params[name + ".weight"], params[name + ".bias"])

    def norm(self, config, params, name, x):
        return self.layer_norm(x, params[name + ".weight"], params[name + ".bias"], config["layer_norm_eps"])

    def additive_mask(self, mask, dtype):  # (B, N) -> (B, 1, 1, N)
        return (1 - mask[:, None, None, :]).to(dtype) * MASKED

    def embed(self, config, params, batch):
        """The constant input current x of the embedding population."""
        ids = batch["input_ids"]
        word = self.embedding(ids, params["embeddings.word_embeddings.weight"], config["pad_token_id"])
        position = params["embeddings.position_embeddings.weight"][: ids.shape[1]]
        kind = self.embedding(batch["token_type_ids"], params["embeddings.token_type_embeddings.weight"])
        return self.norm(config, params, "embeddings.LayerNorm", word + position + kind)

    def synapses(self, params, name, residual):
        """The residual, each feature through a synapse of its own where there are any."""
        return residual * params[name] if name in params else residual

    def in_thresholds(self, params, name, current):
        """The current, measured in the neurons' own thresholds where they have any."""
        return current / params[name] if name in params else current

    def query(self, config, params, e, h):
        return self.dense(params, f"encoder.layer.{e}.attention.self.query", h)

    def input_current(self, config, params, population, reads, mask):
        """The map f of one population, on spikes or rates alike; all leading axes are carried along."""
        if population == "embeddings":
            x, *fed_back = reads
            return x + self.linear(fed_back[0], params["feedback.weight"]) if fed_back else x
        _, e, kind = population.split(".")
        layer = f"encoder.layer.{e}."
        match kind:
            case "key" | "value":
                return self.dense(params, f"{layer}attention.self.{kind}", reads[0])
            case "context":
                h, key, value = reads
                query = self.query(config, params, e, h)
                mask = self.additive_mask(mask, h.dtype)
                current = self.attention(query, key, value, mask, config["num_attention_heads"])
                return self.in_thresholds(params, layer + "attention.self.threshold", current)
            case "attention_output":
                context, h = reads
                dense = self.dense(params, layer + "attention.output.dense", context)
                h = self.synapses(params, layer + "attention.output.residual.weight", h)
                return self.norm(config, params, layer + "attention.output.LayerNorm", dense + h)
            case "intermediate":
                current = self.gelu(self.dense(params, layer + "intermediate.dense", reads[0]))
                return self.in_thresholds(params, layer + "intermediate.threshold", current)
            case "output":
                intermediate, attention_output = reads
                dense = self.dense(params, layer + "output.dense", intermediate)
                residual = self.synapses(params, layer + "output.residual.weight", attention_output)
                return self.norm(config, params, layer + "output.LayerNorm", dense + residual)

    def sweep(self, config, params, batch, fed_back=None):
        """The rates of every population, once through the network; ``fed_back`` are the rates fed back to its start."""
        reads = self.populations(config)
        rates = {"input": self.embed(config, params, batch)}
        if fed_back is not None:
            rates[self.readouts(config)[-1]] = fed_back  # overwritten when its turn comes
        for population, names in reads.items():
            inputs = [rates[name] for name in names]
            current = self.input_current(config, params, population, inputs, batch["attention_mask"])
            signed = {"polarity": config["polarity"]} if "polarity" in config else {}
            rates[population] = self.rate(current, config["vth"], **signed)
        return rates

    def raw_scores(self, config, params, batch, rates):
        """The attention scores of every encoder, before the softmax, mask included."""
        scores = []
        for e, h in enumerate(self.readouts(config)[:-1]):
            query = self.query(config, params, e, rates[h])
            mask = self.additive_mask(batch["attention_mask"], query.dtype)
            scores.append(self.attention_scores(query, rates[f"encoder.{e}.key"], mask, config["num_attention_heads"]))
        return scores

    # --- the equilibrium and its gradient ---------------------------------------------------------------------------

    def iterate(self, f, z):
        """The fixed point of a contraction, to a few units in the last place."""
        for _ in range(500):
            previous, z = z, f(z)
            if (z - previous).abs().max() <= 4 * torch.finfo(z.dtype).eps * z.abs().max():
                break
        return z

    @torch.no_grad()
    def equilibrium(self, config, params, batch):
        """The last population's rates z = F(z); with them, one sweep gives all the others'. None without feedback."""
        if not config["feedback"]:
            return None
        last = self.readouts(config)[-1]
        start = torch.zeros_like(self.embed(config, params, batch))
        return self.iterate(lambda z: self.sweep(config, params, batch, z)[last], start)

    def adjoint(self, vjp, direct):
        """Solves (I − Jᵀ)·w = direct."""
        return self.iterate(lambda w: direct + vjp(w), direct)

    def straight_through(self, value, rate):
        return value + (rate - rate.detach())  # in this order exactly ``value``: the ReLU must see its zeros

    def unmasked(self, scores):
        return scores.where(scores > -100, 0)

    def internal_losses(self, config, params, batch, rates, scores, targets):
        parts = {"hidden": 0.0, "attention": 0.0}
        for name, target in zip(self.readouts(config), targets["hidden"], strict=True):
            parts["hidden"] += self.mse(self.dense(params, "fit", rates[name]), target)
        for student, teacher in zip(scores, targets["scores"], strict=True):
            parts["attention"] += self.mse(self.unmasked(student), self.unmasked(teacher))
        return {"loss": parts["hidden"] + parts["attention"]} | parts

    def logits(self, config, params, rates):
        cls = rates[self.readouts(config)[-1]][:, 0]
        return self.dense(params, "classifier", cls if config.get("polarity") == "ternary" else self.relu(cls))

    def prediction_losses(self, config, params, rates, targets):
        logits = self.logits(config, params, rates)
        loss = self.soft_cross_entropy(logits, targets["logits"], targets["temperature"])
        return {"loss": loss, "logits": logits}

    def backward(self, params, loss, fed_back, returned):
        """The loss's gradients by parameters, and by rates: whatever ``params`` holds.

        With feedback, ``returned`` is the sweep's answer to ``fed_back``, equal in value.
        """
        outputs, cotangents = [loss], [torch.ones_like(loss)]
        if fed_back is not None:

            def vjp(output, cotangent):
                return torch.autograd.grad(output, fed_back, cotangent, retain_graph=True)[0]

            outputs.append(returned)
            cotangents.append(self.adjoint(lambda w: vjp(returned, w), vjp(loss, cotangents[0])))
        found = torch.autograd.grad(outputs, list(params.values()), cotangents, allow_unused=True)
        return {name: gradient for name, gradient in zip(params, found, strict=True) if gradient is not None}

    # --- the optimiser ----------------------------------------------------------------------------------------------

    def scheduled(self, settings):
        """Settings whose rate is this step's; where the step is given, the rate warms up and then falls linearly."""
        if "step" not in settings:
            return settings
        done, warmup = settings["step"] / settings["steps"], settings["warmup"]
        factor = done / warmup if done < warmup else max((1 - done) / (1 - warmup), 0)
        return settings | {"lr": settings["lr"] * factor}

    def decays(self, name) -> bool:
        return not name.endswith(("bias", "LayerNorm.weight", "residual.weight", "threshold"))

    def clip_norm(self, gradient, max_norm):
        norm = torch.linalg.vector_norm(gradient)
        return gradient * (max_norm / (norm + 1e-6)) if norm > max_norm else gradient

    def adam(self, name, param, gradient, m, v, settings):
        """BertAdam on one tensor: no bias correction, decoupled weight decay."""
        beta1, beta2 = settings["beta1"], settings["beta2"]
        gradient = self.clip_norm(gradient, settings["max_norm"])
        m = beta1 * m + (1 - beta1) * gradient
        v = beta2 * v + (1 - beta2) * gradient**2
        direction = m / (v.sqrt() + settings["eps"])
        if self.decays(name):
            direction = direction + settings["weight_decay"] * param
        return param - settings["lr"] * direction, m, v

    # --- what the kit calls -----------------------------------------------------------------------------------------

    def supports(self, feature, dtype) -> bool:
        kind, _, name = feature.partition(":")
        return hasattr(self, name) if kind in ("op", "pullback") else kind != "gpt"  # torch_gpt.py has that family

    def op(self, name, arrays, constants, dtype):
        return to_numpy(getattr(self, name)(**all_to_torch(arrays, dtype), **constants))

    def pullback(self, name, arrays, constants, cotangent, dtype):
        tensors = all_to_torch(arrays, dtype)
        wanted = {n: t.requires_grad_() for n, t in tensors.items() if t.is_floating_point() and n != "mask"}
        y = getattr(self, name)(**tensors, **constants)
        found = torch.autograd.grad(y, list(wanted.values()), to_torch(cotangent, dtype))
        return all_to_numpy(dict(zip(wanted, found, strict=True)))

    def neurons(self, current, neuron, dtype):
        charge, train, step = None, [], compiled(self.step)
        for now in to_torch(current, dtype):
            spikes, charge = step(charge, now, neuron)
            train.append(spikes)
        return to_numpy(torch.stack(train))

    def asr(self, spikes, leak, dtype):
        return to_numpy(self.average_rate(to_torch(spikes, dtype), leak))

    def current(self, config, params, population, reads, mask, dtype):
        params, reads = all_to_torch(params, dtype), [to_torch(x, dtype) for x in reads]
        return to_numpy(self.input_current(config, params, population, reads, to_torch(mask, dtype)))

    @torch.no_grad()
    def rate_map(self, config, params, batch, dtype):
        params, batch = all_to_torch(params, dtype), all_to_torch(batch, dtype)
        rates = compiled(self.sweep)(config, params, batch, self.equilibrium(config, params, batch))
        scores = {f"scores/{e}": s for e, s in enumerate(self.raw_scores(config, params, batch, rates))}
        return all_to_numpy({name: rates[name] for name in self.populations(config)} | scores)

    def steps(self, config, params, batch, t_conv, rule, dtype, history=None):
        params, batch = all_to_torch(params, dtype), all_to_torch(batch, dtype)
        return self.timesteps(config, params, batch, t_conv, rule, history)

    @torch.no_grad()
    def timesteps(self, config, params, batch, t_conv, rule, history=None):
        """One timestep after the other: the spikes of every population; ``history`` limits how many are remembered."""
        reads = self.populations(config)
        x = self.embed(config, params, batch)
        silent = {name: x.new_zeros(*x.shape[:-1], self.width(config, name)) for name in reads}
        trains = {name: [(zeros, zeros.int())] for name, zeros in silent.items()}
        charge, total = dict.fromkeys(reads), dict.fromkeys(reads, 0)
        for t in range(1, t_conv + 1):
            for population, names in reads.items():
                inputs = [x if name == "input" else self.seen(trains[name], t, rule) for name in names]
                current = self.input_current(config, params, population, inputs, batch["attention_mask"])
                if rule == "running":
                    current, total[population] = self.running_current(t, current, total[population])
                spikes, charge[population] = self.step(charge[population], current, config)
                train = trains[population]
                train.append((spikes, train[-1][1] + spikes.int()))
                if history:
                    del train[:-history]
            yield {name: train[-1][0] for name, train in trains.items()}

    def simulate(self, config, params, batch, t_conv, rule, dtype):
        steps = list(self.steps(config, params, batch, t_conv, rule, dtype))
        return all_to_numpy({name: torch.stack([step[name] for step in steps]) for name in steps[0]})

    def rates_after(self, config, params, batch, t_conv, rule, dtype):
        """Average rates alone, as a benchmark needs them: no spike is kept."""
        counts = {}
        for step in self.steps(config, params, batch, t_conv, rule, dtype, history=1):
            counts = {name: counts[name] + spikes if counts else spikes for name, spikes in step.items()}
        return all_to_numpy({name: count / t_conv for name, count in counts.items()})

    def gradients(self, config, params, batch, targets, simulated, dtype):
        params, batch = all_to_torch(params, dtype), all_to_torch(batch, dtype)
        for param in params.values():
            param.requires_grad_()
        fed_back = self.equilibrium(config, params, batch)
        if fed_back is not None:
            fed_back.requires_grad_()
        rates = self.sweep(config, params, batch, fed_back)
        values = dict(rates)
        for name in self.readouts(config) if simulated is not None else []:
            values[name] = self.straight_through(to_torch(simulated[name], dtype), rates[name])
        if "logits" in targets:
            targets = targets | {"logits": to_torch(targets["logits"], dtype)}
            losses = self.prediction_losses(config, params, values, targets)
        else:
            targets = {part: [to_torch(x, dtype) for x in targets[part]] for part in ("hidden", "scores")}
            scores = self.raw_scores(config, params, batch, rates)
            losses = self.internal_losses(config, params, batch, values, scores, targets)
        wanted = {f"gradient/{name}": param for name, param in params.items()}
        wanted |= {f"cotangent/{name}": rates[name] for name in self.populations(config)}
        return all_to_numpy(losses | self.backward(wanted, losses["loss"], fed_back, rates[self.readouts(config)[-1]]))

    def update(self, params, gradients, moments, settings, dtype):
        params, gradients = all_to_torch(params, dtype), all_to_torch(gradients, dtype)
        m, v = all_to_torch(moments["m"], dtype), all_to_torch(moments["v"], dtype)
        settings = self.scheduled(settings)
        after = {}
        for name, gradient in gradients.items():
            new = self.adam(name, params[name], gradient, m[name], v[name], settings)
            after |= dict(zip((f"param/{name}", f"m/{name}", f"v/{name}"), new, strict=True))
        return all_to_numpy(after)


backend = Torch()
name, dtypes, supports = backend.name, backend.dtypes, backend.supports
neurons, asr, op, pullback, current = backend.neurons, backend.asr, backend.op, backend.pullback, backend.current
rate_map, simulate, gradients, update = backend.rate_map, backend.simulate, backend.gradients, backend.update
rates_after = backend.rates_after
