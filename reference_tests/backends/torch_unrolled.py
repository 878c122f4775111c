"""The adapter in PyTorch, with a gradient that unrolls the search of the equilibrium instead of solving an equation.

Autograd keeps every sweep, as whoever knows nothing of implicit differentiation would have it.
"""

import torch

from .torch_implicit import Implicit


class Unrolled(Implicit):
    name = "torch, unrolled"

    @torch.enable_grad()
    def equilibrium(self, config, params, batch):
        if not config["feedback"]:
            return None
        last = self.readouts(config)[-1]
        start = torch.zeros_like(self.embed(config, params, batch))
        return self.iterate(lambda z: self.sweep(config, params, batch, z)[last], start)

    def backward(self, params, loss, fed_back, returned):
        return super().backward(params, loss, None, None)


backend = Unrolled()
name, dtypes, supports, gradients = backend.name, backend.dtypes, backend.supports, backend.gradients
