"""Conformance: whether a backend computes what SpikingBERT is.

A backend takes part by one module (or object), its *adapter*, that has some of the functions below. Each takes and
returns NumPy arrays. What an adapter lacks counts as unsupported, and stays in the denominator.

Every function is told the precision, ``dtype``: "float64", "float32", "float16", "bfloat16", "tf32" or "bf16_f32". Real
arrays arrive as float64 for "float64" and as float32 otherwise, already rounded to numbers that the precision has;
integer arrays are int64. What comes back may be any real array that `numpy.asarray` understands.

``neurons(current, neuron, dtype) -> spikes``
    Spikes (T, …) of integrate-and-fire neurons under the currents (T, …). ``neuron`` is a dict of numbers: "vth",
    "leak" (1 is IF), "u0" (initial charge, in units of vth), "tie" (δ: a neuron fires at u ≥ vth·(1 − δ)). In the suite
    "signed" it also has "polarity", "retractable" or "ternary".
``asr(spikes, leak, dtype) -> a``
    Average spiking rate (…) of spikes (T, …): the mean weighted by leak^(T−t).
``op(name, arrays, constants, dtype) -> y``
    An operation; ``arrays`` and ``constants`` are dicts. The table `refsnn.conformance.reference.OPS` names them all.
``pullback(name, arrays, constants, cotangent, dtype) -> {array name: cotangent}``
    The operation's vector-Jacobian product, ``cotangent`` being of the shape of y (() for losses), with respect to
    every real array but masks (for "embedding", to "table").
``current(config, params, population, reads, mask, dtype) -> I``
    Input current of one population. ``params`` are its own (key and value get each other's too; the context has the
    query's, the embeddings the feedback's). ``reads`` holds what it reads, in order, (…, B, N, width) each
    ("embeddings" reads the input current first); ``mask`` is the (B, N) attention mask, 1 on tokens.
``rate_map(config, params, batch, dtype) -> {population: rates, "scores/E": raw attention scores of encoder E}``
    The equilibrium rates (B, N, width) of every population, and the scores (B, heads, N, N) of every encoder, counted
    from 0, mask included. With config["feedback"] the rates solve a = F(a); F contracts in every case of the kit.
``simulate(config, params, batch, t_conv, rule, dtype) -> {population: spikes}``
    Spikes (T, B, N, width) of every population, 0 and 1 of any real type; ``rule`` is "inst" or "running".
``gradients(config, params, batch, targets, simulated, dtype) -> {"loss": …, "gradient/NAME": …, …}``
    A distillation step's loss and gradients. ``targets`` is either {"hidden": [(B, N, W), …], "scores": [(B, heads, N,
    N), …]}, the teacher's, for the internal stage (also return "hidden" and "attention", the two parts of the loss), or
    {"logits": (B, classes), "temperature": τ}, for the prediction stage (also return "logits", the student's).
    ``simulated`` is None, or {population: rates} of the embeddings and every encoder's output: forward values of the
    read-outs, whose cotangents go through the rate map all the same. It may also return "cotangent/POPULATION", (B, N,
    width), of every population: λ, the loss's derivative by its rate, everything that the rate changes included. They
    are compared where the rate lies between its least and largest, and a failure then says whose derivative is wrong.
    In the suite "gpt" ``targets`` is {"labels": (B, N)}, the next tokens, −100 where there is none to tell; also return
    "logits".
``update(params, gradients, moments, settings, dtype) -> {"param/NAME": …, "m/NAME": …, "v/NAME": …}``
    One step of BertAdam, of all parameters that have a gradient. ``moments`` is {"m": {NAME: …}, "v": {NAME: …}};
    ``settings`` holds "lr", "beta1", "beta2", "eps", "weight_decay" and "max_norm". "lr" is this step's; only where
    "step" (from 0), "steps" and "warmup" (a fraction) are given too it is the highest, and the backend's schedule acts.
``supports(feature, dtype) -> bool``
    Optional: declines part of what a function does. Features are "neurons", "neurons:lif", "neurons:u0", "neurons:tie",
    "asr", "asr:leak", "op:NAME", "pullback:NAME", "current:KIND", "rate_map", "rate_map:feedback", "simulate:inst",
    "simulate:running", "simulate:feedback", "gradients:internal", "gradients:prediction", "gradients:feedback",
    "update", "update:warmup"; in the suite "signed" also "polarity:retractable", "polarity:ternary" and "per_feature";
    in the suite "gpt" also "gpt", of every network, and "gradients:next".
``name`` and ``dtypes``
    Optional: what the backend is called, and the precisions it has; ("float64", "float32") by default.

``config`` is a dict of plain Python numbers: the sizes of a BERT `config.json` (hidden_size, num_hidden_layers,
num_attention_heads, intermediate_size, layer_norm_eps, pad_token_id, …), the neurons' "vth", "leak", "u0", "tie", and
"feedback", a bool. In the suite "signed" it may have "polarity", and "per_feature", True: then "params" has
"encoder.layer.E.attention.output.residual.weight" and "encoder.layer.E.output.residual.weight", the synapses of
residuals, and "encoder.layer.E.attention.self.threshold" and "encoder.layer.E.intermediate.threshold", the thresholds
of context and intermediate neurons in units of vth. ``batch`` is a dict of three (B, N) arrays: "input_ids",
"token_type_ids", "attention_mask".
``params`` is a flat dict under the names of a Hugging Face checkpoint, matrices (out, in), with "feedback.weight" (no
bias), "fit.weight" and "fit.bias" (to the teacher's width) and "classifier.weight" and "classifier.bias" where they are
needed. Populations are called "embeddings" and "encoder.E.key", ".value", ".context", ".attention_output",
".intermediate", ".output", E counted from 0.

In the suite "gpt" ``config`` has the "model_type" "spiking_gpt" and the sizes of GPT-2's `config.json` (n_embd,
n_layer, n_head, n_inner, layer_norm_epsilon, …) beside the neurons' constants, "polarity" among them. Populations are
"embeddings", "block.E.attention_norm", ".key", ".value", ".context", ".attention_output", ".intermediate_norm",
".intermediate", ".output" and "final_norm"; parameters are GPT-2's, matrices (out, in), with query, key and value by
themselves ("h.E.attn.query.weight", …). "embeddings" and both kinds of ".…output" are analogue units: ``simulate`` may
leave them out.
"""
