"""refsnn: the reference implementation of SpikingBERT in NumPy and SciPy.

The names below are the whole vocabulary of a user; each is imported when it is first asked for, so that
``import refsnn`` takes no time. ``docs/python.md`` shows them in ten minutes, and says which are stable.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._version import __version__

if TYPE_CHECKING:
    from .data.tasks import Task
    from .distillation.gpt import distil_gpt, train_gpt
    from .distillation.stages import distill
    from .errors import InputError, NotConverged
    from .evaluation.evaluate import evaluate_run as evaluate
    from .evaluation.generate import generate, write_text
    from .evaluation.perplexity import evaluate_gpt
    from .model import neurons
    from .model.batch import Batch
    from .model.families import bert, spiking_bert
    from .model.gpt import GptConfig, SpikingGptConfig, gpt, spiking_gpt
    from .model.network import Network
    from .model.neurons import Neuron
    from .model.parameters import initial_parameters
    from .model.shapes import BertConfig, network_shapes
    from .model.student import StudentConfig
    from .models import Student, Teacher, load
    from .pages import plot
    from .readings.certify import certify
    from .readings.energy import count, full_count
    from .readings.equilibrium import equilibrium
    from .readings.implicit import implicit_gradient as gradient
    from .readings.rate_map import rate_map
    from .readings.simulate import simulate
    from .reproduction.demo import demo
    from .storage.language import DistilRecipe, TrainRecipe
    from .storage.recipe import Recipe
    from .storage.records import record
    from .storage.run import Run

#: Where each name lives, and what it is called there if that is something else.
_HOMES = {
    "Batch": "model.batch",
    "BertConfig": "model.shapes",
    "DistilRecipe": "storage.language",
    "GptConfig": "model.gpt",
    "InputError": "errors",
    "Network": "model.network",
    "Neuron": "model.neurons",
    "NotConverged": "errors",
    "Recipe": "storage.recipe",
    "Run": "storage.run",
    "SpikingGptConfig": "model.gpt",
    "Student": "models",
    "StudentConfig": "model.student",
    "Task": "data.tasks",
    "Teacher": "models",
    "TrainRecipe": "storage.language",
    "bert": "model.families",
    "certify": "readings.certify",
    "count": "readings.energy",
    "demo": "reproduction.demo",
    "distil_gpt": "distillation.gpt",
    "distill": "distillation.stages",
    "equilibrium": "readings.equilibrium",
    "evaluate": "evaluation.evaluate:evaluate_run",
    "evaluate_gpt": "evaluation.perplexity",
    "full_count": "readings.energy",
    "generate": "evaluation.generate",
    "gpt": "model.gpt",
    "gradient": "readings.implicit:implicit_gradient",
    "initial_parameters": "model.parameters",
    "load": "models",
    "network_shapes": "model.shapes",
    "neurons": "model.neurons:",
    "plot": "pages.plot:",
    "rate_map": "readings.rate_map",
    "record": "storage.records",
    "simulate": "readings.simulate",
    "spiking_bert": "model.families",
    "spiking_gpt": "model.gpt",
    "train_gpt": "distillation.gpt",
    "write_text": "evaluation.generate",
}

__all__ = [
    "Batch",
    "BertConfig",
    "DistilRecipe",
    "GptConfig",
    "InputError",
    "Network",
    "Neuron",
    "NotConverged",
    "Recipe",
    "Run",
    "SpikingGptConfig",
    "Student",
    "StudentConfig",
    "Task",
    "Teacher",
    "TrainRecipe",
    "__version__",
    "bert",
    "certify",
    "count",
    "demo",
    "distil_gpt",
    "distill",
    "equilibrium",
    "evaluate",
    "evaluate_gpt",
    "full_count",
    "generate",
    "gpt",
    "gradient",
    "initial_parameters",
    "load",
    "network_shapes",
    "neurons",
    "plot",
    "rate_map",
    "record",
    "simulate",
    "spiking_bert",
    "spiking_gpt",
    "train_gpt",
    "write_text",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {', '.join(__all__)}")
    home, colon, called = _HOMES[name].partition(":")
    module = import_module(f".{home}", __name__)
    found = module if colon and not called else getattr(module, called or name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return __all__
