"""The spiking GPT in PyTorch: an adapter for the suite `gpt`, built on the parts of the one for SpikingBERT.

Analogue units are not simulated as such. By the rule "inst" the stream is what this step's spikes make of it; by
"running" its mean, which others read, is what the means of the spikes make of it.
"""

import torch
import torch.nn.functional as F  # noqa: N812

from .torch_backend import MASKED, Torch, all_to_numpy, all_to_torch, to_torch

FINAL = "final_norm"


class TorchGpt(Torch):
    name = "torch-gpt"

    def supports(self, feature, dtype) -> bool:
        return feature == "gpt" or super().supports(feature, dtype)

    # --- operations -------------------------------------------------------------------------------------------------

    def gelu_tanh(self, x):
        return F.gelu(x, approximate="tanh")

    def earlier(self, queries, keys):  # (N, S), True where a key is not later than the query
        return torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)

    def with_causal(self, mask, queries, keys):
        return mask.where(self.earlier(queries, keys).to(mask.device), MASKED)

    def causal_attention(self, query, key, value, mask, heads):
        return self.attention(query, key, value, self.with_causal(mask, query.shape[-2], key.shape[-2]), heads)

    # --- the network ------------------------------------------------------------------------------------------------

    def populations(self, config) -> dict[str, list[str]]:
        reads, x = {"embeddings": ["input"]}, "embeddings"
        for e in range(config["n_layer"]):
            block = f"block.{e}."
            norm, inner = block + "attention_norm", block + "intermediate_norm"
            reads |= {norm: [x], block + "key": [norm], block + "value": [norm]}
            reads[block + "context"] = [norm, block + "key", block + "value"]
            reads[block + "attention_output"] = [block + "context", x]
            reads |= {inner: [block + "attention_output"], block + "intermediate": [inner]}
            x = block + "output"
            reads[x] = [block + "intermediate", block + "attention_output"]
        return reads | {FINAL: [x]}

    def spikes(self, population) -> bool:
        return population != "embeddings" and not population.endswith("output")

    def width(self, config, population) -> int:
        return config["n_inner"] if population.endswith("intermediate") else config["n_embd"]

    def norm(self, config, params, name, x):
        weight, bias = params[name + ".weight"], params[name + ".bias"]
        return self.layer_norm(x, weight, bias, config["layer_norm_epsilon"])

    def embed(self, config, params, batch):
        ids = batch["input_ids"]
        return self.embedding(ids, params["wte.weight"]) + params["wpe.weight"][: ids.shape[1]]

    def query(self, config, params, e, h):
        return self.dense(params, f"h.{e}.attn.query", h)

    def stream(self, params, name, a, x):
        """What a half-block adds, and what it is added to."""
        return self.dense(params, name, a) + x

    def half_block_reads(self, config, params, name, x):
        """LayerNorm before the half-block."""
        return self.norm(config, params, name, x)

    def input_current(self, config, params, population, reads, mask):
        if population == "embeddings":
            return reads[0]
        if population == FINAL:
            return self.norm(config, params, "ln_f", reads[0])
        _, e, kind = population.split(".")
        layer = f"h.{e}."
        match kind:
            case "attention_norm" | "intermediate_norm":
                return self.half_block_reads(config, params, layer + ("ln_1" if "att" in kind else "ln_2"), reads[0])
            case "key" | "value":
                return self.dense(params, f"{layer}attn.{kind}", reads[0])
            case "context":
                h, key, value = reads
                mask = self.additive_mask(mask, h.dtype)
                query = self.query(config, params, e, h)
                current = self.causal_attention(query, key, value, mask, config["n_head"])
                return self.in_thresholds(params, layer + "attn.threshold", current)
            case "intermediate":
                current = self.gelu_tanh(self.dense(params, layer + "mlp.c_fc", reads[0]))
                return self.in_thresholds(params, layer + "mlp.threshold", current)
            case "attention_output":
                return self.stream(params, layer + "attn.c_proj", *reads)
            case "output":
                return self.stream(params, layer + "mlp.c_proj", *reads)

    def passed_on(self, config, population, current):
        """Rates of neurons; analogue units have none, and pass their current on."""
        return self.rate(current, config["vth"], config["polarity"]) if self.spikes(population) else current

    def equilibrium(self, config, params, batch):
        return None

    def sweep(self, config, params, batch, fed_back=None):
        rates = {"input": self.embed(config, params, batch)}
        for population, names in self.populations(config).items():
            inputs = [rates[name] for name in names]
            current = self.input_current(config, params, population, inputs, batch["attention_mask"])
            rates[population] = self.passed_on(config, population, current)
        return rates

    def raw_scores(self, config, params, batch, rates):
        scores = []
        for e in range(config["n_layer"]):
            h, key = rates[f"block.{e}.attention_norm"], rates[f"block.{e}.key"]
            mask = self.additive_mask(batch["attention_mask"], h.dtype)
            mask = self.with_causal(mask, h.shape[-2], key.shape[-2])
            scores.append(self.attention_scores(self.query(config, params, e, h), key, mask, config["n_head"]))
        return scores

    def handed_on(self, population, current, t):
        """What others read of an analogue unit: its current now, or the mean of its currents, as the reads were."""
        return current

    @torch.no_grad()
    def timesteps(self, config, params, batch, t_conv, rule, history=None):
        x = self.embed(config, params, batch)
        reads = self.populations(config)
        charge, total, count = dict.fromkeys(reads), dict.fromkeys(reads, 0), dict.fromkeys(reads, 0)
        for t in range(1, t_conv + 1):
            seen, fired = {"input": x}, {}
            for population, names in reads.items():
                inputs = [seen[name] for name in names]
                current = self.input_current(config, params, population, inputs, batch["attention_mask"])
                if not self.spikes(population):
                    seen[population] = self.handed_on(population, current, t)
                    continue
                if rule == "running":
                    current, total[population] = self.running_current(t, current, total[population])
                fired[population], charge[population] = self.step(charge[population], current, config)
                count[population] = count[population] + fired[population].int()
                mean = count[population].to(x.dtype) / t
                seen[population] = fired[population] if rule == "inst" else mean
            yield fired

    # --- next tokens ------------------------------------------------------------------------------------------------

    def table(self, params):
        """The table that logits are read off with: that of the tokens."""
        return params["wte.weight"]

    def next_tokens(self, params, final, labels):
        logits = self.linear(final * params["readout.weight"] + params["readout.bias"], self.table(params))
        return {"loss": self.cross_entropy(logits[labels >= 0], labels[labels >= 0]), "logits": logits}

    def gradients(self, config, params, batch, targets, simulated, dtype):
        params, batch = all_to_torch(params, dtype), all_to_torch(batch, dtype)
        for param in params.values():
            param.requires_grad_()
        rates = self.sweep(config, params, batch)
        found = self.next_tokens(params, rates[FINAL], to_torch(targets["labels"], dtype))
        wanted = {f"gradient/{name}": param for name, param in params.items()}
        wanted |= {f"cotangent/{name}": rates[name] for name in self.populations(config)}
        return all_to_numpy(found | self.backward(wanted, found["loss"], None, None))


backend = TorchGpt()
name, dtypes, supports = backend.name, backend.dtypes, backend.supports
op, pullback, current = backend.op, backend.pullback, backend.current
rate_map, simulate, gradients = backend.rate_map, backend.simulate, backend.gradients
