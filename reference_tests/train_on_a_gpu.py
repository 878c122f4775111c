"""Any command of refsnn, with its two longest trainings of deep students on a GPU by PyTorch: minutes, not hours.

    REFSNN_DEVICE=cuda python reference_tests/train_on_a_gpu.py reproduce --config deep --data glue --out runs/deep

These are the stage `teacher`, and the stage `internal` in the mode `few-steps`. Text, batches and their order, learning
rates, conversion, files and evaluation are refsnn's own: whatever is said of the student is said by the reference.
Losses and gradients are those of refsnn's objectives (test_train_on_a_gpu.py); sums are rounded in another order, and
dropout draws other masks.
"""

import sys
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F  # noqa: N812
from backends.torch_backend import DEVICE, Torch, to_numpy, to_torch

from refsnn.commands.cli import main
from refsnn.distillation import stages, training
from refsnn.distillation.optim import BertAdam
from refsnn.model.parameters import SCALES


class Bert(Torch):
    """The adapter's network with analogue units, which is BERT; dropout where BERT has it."""

    dropout = 0.0

    def rate(self, current, vth, polarity="unsigned"):
        return current

    def dropped(self, x):
        return F.dropout(x, self.dropout) if self.dropout else x

    def embed(self, config, params, batch):
        return self.dropped(super().embed(config, params, batch))

    def dense(self, params, name, x):
        y = super().dense(params, name, x)
        return self.dropped(y) if name.endswith("output.dense") else y

    def softmax(self, x):
        return self.dropped(super().softmax(x))

    def classify(self, config, params, rates):
        cls = rates[self.readouts(config)[-1]][:, 0]
        return self.dense(params, "classifier", self.tanh(self.dense(params, "pooler.dense", cls)))


def described(bert):
    return bert.to_dict() | {"feedback": False, "vth": 1.0}


def tensors(arrays):
    return {name: to_torch(array, str(array.dtype)) for name, array in arrays.items()}


@dataclass
class Taught:
    """The teacher's loss: `objective(params, batch, rows) -> (losses to be added up, by name)`, for autograd."""

    config: object
    labels: torch.Tensor
    frozen: tuple = ()
    model: Bert = field(default_factory=Bert)

    def __call__(self, params, batch, rows):
        config = described(self.config)
        z = self.model.classify(config, params, self.model.sweep(config, params, batch))
        labels = self.labels[rows]
        loss = F.mse_loss(z, labels[:, None].to(z.dtype)) if labels.is_floating_point() else F.cross_entropy(z, labels)
        return {"loss": loss}


@dataclass
class FewSteps:
    """The student's loss after T/2 and T steps, at simulated rates; of true or soft labels."""

    student: object
    bert: object
    teacher: dict
    pairs: list
    labels: torch.Tensor
    recipe: object
    frozen: tuple = stages.FROZEN

    def __post_init__(self):
        if self.student.populations or self.student.feedback:
            raise SystemExit("only students without feedback, and without constants of single populations, train here")

    def __call__(self, params, batch, rows):
        adapter, teacher, bert = Torch(), Bert(), described(self.bert)
        network, dtype = self.student.network, str(params["fit.weight"].dtype).removeprefix("torch.")
        config = self.student.to_dict() | {"tie": network.populations[0].neuron.delta(dtype)}
        with torch.no_grad():
            activities = teacher.sweep(bert, self.teacher, batch)
            hidden = [activities[name] for name in teacher.readouts(bert)]
            every = teacher.raw_scores(bert, self.teacher, batch, activities)
            targets = {"hidden": [hidden[i] for i in self.pairs], "scores": [every[i - 1] for i in self.pairs[1:]]}
            soft = teacher.classify(bert, self.teacher, activities)
        steps, counts, losses = self.recipe.t_conv, {}, {}
        times = sorted({max(steps // 2, 1), steps})
        simulation = adapter.timesteps(config, params, batch, steps, self.recipe.rule, history=1)
        for t, spikes in enumerate(simulation, 1):
            counts = {name: counts[name] + s if counts else s for name, s in spikes.items()}
            if t in times:
                rates = self.at(adapter, config, params, batch, {name: count / t for name, count in counts.items()})
                for name, loss in self.compared(adapter, config, params, batch, rates, targets, soft, rows).items():
                    losses[name] = losses.get(name, 0) + loss / len(times)
        return losses

    def at(self, adapter, config, params, batch, simulated):
        """Every population's simulated rate in value, with the derivative of its rate map there."""
        rates = {"input": adapter.embed(config, params, batch)}
        for population, names in adapter.populations(config).items():
            inputs = [rates[name] for name in names]
            current = adapter.input_current(config, params, population, inputs, batch["attention_mask"])
            x, low = current / config["vth"], self.student.neuron.low
            inside = (x > low) & (x < 1)  # what PyTorch's clamp answers at the edges depends on its version
            rates[population] = adapter.straight_through(simulated[population], x.where(inside, 0.0))
        return rates

    def compared(self, adapter, config, params, batch, rates, targets, soft, rows):
        losses = {"hidden": 0.0, "attention": 0.0}
        for name, target in zip(adapter.readouts(config), targets["hidden"], strict=True):
            losses["hidden"] += F.mse_loss(adapter.dense(params, "fit", rates[name]), target)
        if weight := self.recipe.attention_weight:
            for s, target in zip(adapter.raw_scores(config, params, batch, rates), targets["scores"], strict=True):
                losses["attention"] += weight * F.mse_loss(adapter.unmasked(s), adapter.unmasked(target))
        z, labels = adapter.logits(config, params, rates), self.labels[rows]
        if labels.is_floating_point():
            losses["prediction"] = F.mse_loss(z, labels[:, None].to(z.dtype))
        elif self.recipe.targets == "soft":
            losses["prediction"] = adapter.soft_cross_entropy(z, soft, self.recipe.temperature)
        else:
            losses["prediction"] = F.cross_entropy(z, labels)
        return losses


def step(params, gradients, moments, lr, optimiser):
    """BertAdam on all tensors at once, in place; every gradient is clipped by itself."""
    names = list(gradients)
    p, g = [params[name] for name in names], [gradients[name] for name in names]
    m, v = ([moments[kind][name] for name in names] for kind in "mv")
    norms = torch._foreach_norm(g)
    limit = optimiser.max_norm
    g = torch._foreach_mul(g, [torch.where(n > limit, limit / (n + 1e-6), 1.0) for n in norms])
    torch._foreach_lerp_(m, g, 1 - optimiser.beta1)
    torch._foreach_mul_(v, optimiser.beta2)
    torch._foreach_addcmul_(v, g, g, 1 - optimiser.beta2)
    size = torch._foreach_sqrt(v)
    torch._foreach_add_(size, optimiser.eps)
    decaying = [tensor for name, tensor in zip(names, p, strict=True) if not name.endswith(("bias", *SCALES))]
    torch._foreach_mul_(decaying, 1 - lr * optimiser.weight_decay)
    torch._foreach_addcdiv_(p, m, size, -lr)


def differentiated(objective, params, batch, rows):
    """The losses and the gradients of their sum; parameters that the stage leaves alone have none."""
    wanted = {name: tensor.requires_grad_() for name, tensor in params.items() if not name.endswith(objective.frozen)}
    losses = objective(params, batch, rows)
    found = torch.autograd.grad(sum(losses.values()), list(wanted.values()), allow_unused=True)
    for tensor in wanted.values():
        tensor.requires_grad_(False)
    return losses, {name: g for name, g in zip(wanted, found, strict=True) if g is not None}


def train(run, stage, params, examples, objective, seed, pad=0, save_every=20.0, constrain=None):
    """Take the place of `refsnn.distillation.training.train`, which goes on with every other stage."""
    if not isinstance(objective, Taught | FewSteps) or training.finished(run, stage) is not None or not stage.epochs:
        return original(run, stage, params, examples, objective, seed, pad, save_every, constrain)
    run.stage_checkpoint(stage.name).parent.mkdir(exist_ok=True)
    run.forget_log_after(stage.name, 0)
    steps = stage.steps(len(examples))
    journal = training._Journal(run, stage, steps)
    params, optimiser = tensors(params), BertAdam()
    moments = {kind: {name: torch.zeros_like(tensor) for name, tensor in params.items()} for kind in "mv"}
    gathered, since = {}, 0
    for number, rows in enumerate(training._steps(examples, stage, seed, 0)):
        lr = stage.lr * training._factor(stage, number, steps)
        batch = examples.batch(rows, pad)
        batch = {name: torch.tensor(ids, device=DEVICE) for name, ids in zip(batch._fields, batch, strict=True)}
        losses, gradients = differentiated(objective, params, batch, torch.tensor(rows, device=DEVICE))
        step(params, gradients, moments, lr, optimiser)
        gathered = {name: gathered.get(name, 0) + torch.as_tensor(loss).detach() for name, loss in losses.items()}
        since += 1
        if since == journal.interval or number + 1 == steps:
            means = {name: float(total) / since for name, total in gathered.items()}
            run.append_log({"stage": stage.name, "step": number + 1, "lr": lr, **means})
            gathered, since = {}, 0
    params = {name: to_numpy(tensor) for name, tensor in params.items()}
    journal.save(steps, params)
    return params


def teacher_objective(config, examples):
    return Taught(config, torch.tensor(examples.labels, device=DEVICE))


def few_steps_objective(recipe, student, config, teacher, pairs, examples):
    labels = torch.tensor(examples.labels, device=DEVICE)
    return FewSteps(student, config, tensors(teacher), pairs, labels, recipe)


def with_dropout(objective, network, probability, seed):
    if isinstance(objective, FewSteps):
        raise SystemExit("the student trains here without dropout; leave out --dropout-student")
    if isinstance(objective, Taught):
        torch.manual_seed(hash(tuple(seed)) % 2**31)
        objective.model.dropout = probability
        return objective
    return own_dropout(objective, network, probability, seed)


original, own_dropout = stages.train, stages._with_dropout

if __name__ == "__main__":
    stages.train, stages._with_dropout = train, with_dropout
    stages._teacher_objective, stages._few_steps_objective = teacher_objective, few_steps_objective
    sys.exit(main())
