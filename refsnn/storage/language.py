"""Runs of `refsnn gpt`: what decides their numbers, and their folders.

A folder that `refsnn gpt train` fills is a GPT-2 checkpoint; one of `refsnn gpt distil` holds a spiking student, and
its teacher beside it. Logs, checkpoints of stages and settings are those of every run (`refsnn.storage.run`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args, get_type_hints

from .._version import __version__
from ..data.language import Split as SplitName
from ..data.language import Text, documents, encoded, load_byte_tokenizer, split, tokenizer_files
from ..errors import InputError, number, one_of, whole
from ..files import atomic, existing, load_tensors, new_folder, read_json, save_tensors, write_json
from ..model.gpt import GptConfig, SpikingGptConfig
from ..model.neurons import Neuron, Polarity
from ..model.parameters import Params, check_parameters
from ..readings.simulate import Rule
from .digests import array_digest, table_digest
from .gpt2 import load_gpt, save_gpt
from .recipe import Stage
from .run import Run

__all__ = ["DistilRecipe", "LanguageRun", "TrainRecipe", "copy_tokenizer"]


@dataclass(frozen=True)
class TrainRecipe:
    """All that decides the numbers of a GPT that is trained from scratch, the text aside.

    Attributes
    ----------
    seed : int
    vocab_size : int
        Tokens of the byte-level vocabulary.
    positions : int
        Tokens of a sequence.
    n_embd, n_layer, n_head : int
    epochs, batch_size : int
    lr : float
        Peak learning rate; it warms up over a tenth of the steps and decays linearly.
    dropout : float
        Of embeddings, attention weights and what half-blocks add.
    initializer_range : float
        Standard deviation of the matrices at first; GPT-2's 0.02 is small for a narrow network.
    """

    seed: int = 0
    vocab_size: int = 2000
    positions: int = 64
    n_embd: int = 192
    n_layer: int = 4
    n_head: int = 6
    epochs: int = 8
    batch_size: int = 32
    lr: float = 1e-3
    dropout: float = 0.1
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for name, least, most in (("seed", 0, 10**18), ("positions", 2, 2**20), ("epochs", 1, 10**6)):
            whole(name, getattr(self, name), least, most)
        whole("batch_size", self.batch_size, 1, 10**6)
        number("lr", self.lr, 1e-12, 10.0)
        number("dropout", self.dropout, 0.0, 0.99)
        self.config  # noqa: B018 - refuses sizes that make no network

    @property
    def config(self) -> GptConfig:
        """Sizes of the network."""
        sizes = self.vocab_size, self.positions, self.n_embd, self.n_layer, self.n_head
        return GptConfig(*sizes, initializer_range=self.initializer_range)

    @property
    def stage(self) -> Stage:
        """The one stage of training."""
        return Stage("teacher", self.epochs, self.batch_size, self.lr)


@dataclass(frozen=True)
class DistilRecipe:
    """All that decides the numbers of a spiking student, teacher and text aside.

    Attributes
    ----------
    seed : int
    t_conv : int
        T. The student learns by its spikes after T/2 and after T steps.
    rule : {"inst", "running"}
    polarity : {"unsigned", "retractable", "ternary"}
    u0 : float
        See `refsnn.model.neurons.Neuron`.
    clipped : float
        Fraction of each feature's activities that the conversion lets fall outside the rates' range.
    epochs : int
        0 leaves the student as it was converted.
    fraction : float
        Share of the sequences that an epoch takes.
    batch_size : int
    positions : int or None
        Tokens of a sequence; all that the teacher embeds, where None.
    lr : float
    hidden_weight, attention_weight : float
        Weights of these losses beside the next token's.
    """

    seed: int = 0
    t_conv: int = 8
    rule: Rule = "running"
    polarity: Polarity = "ternary"
    u0: float = 0.0
    clipped: float = 1e-2
    epochs: int = 1
    fraction: float = 0.25
    batch_size: int = 16
    positions: int | None = None
    lr: float = 2e-4
    hidden_weight: float = 1.0
    attention_weight: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("t_conv", 1), ("epochs", 0), ("batch_size", 1)):
            whole(name, getattr(self, name), least, 10**18 if name == "seed" else 10**6)
        if self.positions is not None:
            whole("positions", self.positions, 2, 2**20)
        for name in ("rule", "polarity"):
            one_of(name, getattr(self, name), get_args(get_type_hints(DistilRecipe)[name]))
        for name, least_real, most in (("clipped", 0.0, 0.5), ("fraction", 1e-6, 1.0), ("lr", 1e-12, 10.0)):
            number(name, getattr(self, name), least_real, most)
        for name in ("hidden_weight", "attention_weight"):
            number(name, getattr(self, name), 0.0, 1e6)
        self.neuron  # noqa: B018 - refuses constants out of their range

    @property
    def neuron(self) -> Neuron:
        """The constants of every neuron."""
        return Neuron(u0=self.u0, polarity=self.polarity)

    @property
    def stage(self) -> Stage:
        """The one stage of distillation."""
        return Stage("distil", self.epochs, self.batch_size, self.lr)


class LanguageRun(Run):
    """The folder of a GPT's run: of a teacher's, or of a student's with its teacher."""

    def __init__(self, folder: str | os.PathLike) -> None:
        super().__init__(folder)
        if self.exists and self.settings.get("family") != "gpt":
            raise InputError(f"{self} holds a run of another family; `refsnn gpt` reads what `refsnn gpt` made")

    @property
    def spiking(self) -> bool:
        """Whether it is a student's."""
        return read_json(self._config_file).get("model_type") == "spiking_gpt"

    @property
    def _config_file(self) -> Path:
        path = existing(self.folder, "the run") / "config.json"
        if not path.exists():
            raise InputError(f"{self} is not finished; run the same `refsnn gpt` command again to go on with it")
        return path

    @cached_property
    def corpus(self) -> list[str]:
        """Documents of the text that the run was made from."""
        sources = self.settings.get("text") or []
        if not sources:
            raise InputError(f"{self} does not remember any text; name it with `text`")
        return documents(sources)

    def text(self, which: SplitName, sources: Sequence[str | os.PathLike] = ()) -> Text:
        """Read a split of the run's text, or another text as a whole.

        Parameters
        ----------
        which : {"train", "dev", "test"}
        sources : sequence of path, optional
            Another text, none of which is held out.

        Returns
        -------
        text : Text
        """
        texts = documents(sources) if sources else split(self.corpus, which)
        return encoded(texts, self.tokenizer())

    def begin_language(
        self,
        recipe: TrainRecipe | DistilRecipe,
        text: Sequence[str | os.PathLike],
        texts: Sequence[str],
        teacher: tuple[Path, GptConfig, Params] | None = None,
    ) -> None:
        """Write down what the run is, or make sure that it is what was written down before.

        Parameters
        ----------
        recipe : TrainRecipe or DistilRecipe
        text : sequence of path
            Where the text is.
        texts : sequence of str
            Its documents.
        teacher : (Path, GptConfig, dict), optional
            Its folder and what is there.
        """
        settings = {"family": "gpt", "recipe": asdict(recipe), "text": [str(source) for source in text]}
        digests = {"text": table_digest({"documents": texts})}
        if teacher is not None:
            folder, config, params = teacher
            settings["teacher"] = str(folder)
            digests["teacher"] = array_digest((params[name] for name in sorted(params)), config.to_dict())
        self.begin(settings, digests)

    def gpt(self) -> tuple[GptConfig, Params]:
        """Read the ordinary GPT: the teacher of a student, or what was trained.

        Returns
        -------
        config : GptConfig
        params : dict
        """
        return load_gpt(self.teacher_folder if self.spiking else self.folder)

    def spiking_gpt(self) -> tuple[SpikingGptConfig, Params]:
        """Read the student.

        Returns
        -------
        config : SpikingGptConfig
        params : dict
        """
        config = SpikingGptConfig.from_dict(read_json(self._config_file), self._config_file)
        path = self.folder / "model.safetensors"
        return config, check_parameters(load_tensors(path)[0], config.shapes, path)

    def tokenizer(self) -> Any:
        """Load the tokenizer.

        Returns
        -------
        tokenizer : tokenizers.Tokenizer
        """
        return load_byte_tokenizer(self.folder, int(read_json(self._config_file)["vocab_size"]))

    def save_gpt(self, config: GptConfig, params: Params, folder: Path | None = None) -> None:
        """Write an ordinary GPT as Hugging Face reads it."""
        save_gpt(self.folder if folder is None else folder, config, params)

    def save_spiking_gpt(self, config: SpikingGptConfig, params: Params) -> None:
        """Write the student; its configuration comes last, and says that it is finished."""
        save_tensors(self.folder / "model.safetensors", params, {"refsnn": __version__})
        write_json(self.folder / "config.json", config.to_dict())


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy the tokenizer's files.

    Parameters
    ----------
    source, folder : Path
    """
    for name in tokenizer_files(source):
        with atomic(new_folder(folder) / name) as temporary:
            shutil.copyfile(source / name, temporary)
