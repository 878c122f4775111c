"""Students and teachers as values: a configuration and its parameters, and what they are asked.

Every method is a line or two over the pure functions of the rooms below; for more, call those.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._version import __version__
from .data.examples import Examples, encode_texts
from .data.metrics import answer, decide
from .data.tokenizer import load_tokenizer
from .distillation.predict import predict_rates, predict_spikes, predict_teacher
from .distillation.student import Scheme, logits, prediction_gradients, true_loss
from .distillation.teacher import Encoding, classify, encode
from .errors import InputError
from .files import existing, new_folder, read_json, save_tensors, write_json, write_text
from .model.batch import Batch, checked_batch
from .model.network import Network, first_position
from .model.parameters import Params, check_parameters, initial_parameters
from .model.shapes import BertConfig, teacher_shapes
from .model.student import StudentConfig
from .ops import Array
from .parallel import threads
from .readings.equilibrium import equilibrium
from .readings.rate_map import Rates
from .readings.simulate import Rule, simulate, spike_blocks, timesteps
from .storage.checkpoints import bert_folder, class_names, load_student, load_teacher
from .storage.run import Run

__all__ = ["Raster", "Student", "Teacher", "load"]

#: Texts, or pairs of texts for a task of pairs.
Texts = Sequence[str | tuple[str, str]]


class Raster(NamedTuple):
    """Spikes of one population on one text.

    Attributes
    ----------
    spikes : (T, N, D) array of 0 and 1
    tokens : list of N str
    """

    spikes: Array
    tokens: list[str]


@dataclass(frozen=True)
class _Reader:
    """What a student and a teacher share: parameters that fit, texts turned into tokens, answers out of class scores.

    Attributes
    ----------
    config : StudentConfig or BertConfig
    params : dict
        Parameter name -> array; see ``config.shapes`` or `refsnn.model.shapes.teacher_shapes`.
    classes : tuple of str
        Names of the classes; empty for a regression, or where they are not known.
    tokenizer : tokenizers.Tokenizer or None
        Without one, batches of token ids can be read, and texts cannot.
    pairs : bool
        Whether the model was trained on pairs of texts.
    """

    config: Any
    params: Params
    classes: tuple[str, ...] = ()
    tokenizer: Any = None
    pairs: bool = False

    def __repr__(self) -> str:
        bert = self._bert
        sizes = f"{bert.num_hidden_layers} encoders × {bert.hidden_size}"
        return f"<{type(self).__name__}: {sizes}, classes {', '.join(self.classes) or 'not named'}>"

    @property
    def _bert(self) -> BertConfig:
        return self.config.bert if isinstance(self.config, StudentConfig) else self.config

    def examples(self, texts: Texts) -> Examples:
        """Turn texts into token ids, cut to the length that the model was trained with.

        Parameters
        ----------
        texts : sequence of str, or of pairs of str

        Returns
        -------
        examples : Examples
        """
        if self.tokenizer is None:
            raise InputError("there is no tokenizer to read texts with; load the model from a folder that has one")
        examples = encode_texts(texts, self.tokenizer)
        if examples.kinds.max() >= self._bert.type_vocab_size:
            raise InputError(
                f"the second text of a pair has the token type {examples.kinds.max()}, but type_vocab_size is "
                f"{self._bert.type_vocab_size}; give texts alone"
            )
        return examples

    def batch(self, texts: Texts) -> Batch:
        """Turn texts into one batch, padded to the longest.

        Parameters
        ----------
        texts : sequence of str, or of pairs of str

        Returns
        -------
        batch : Batch
        """
        examples = self.examples(texts)
        return examples.batch(np.arange(len(examples)), self._bert.pad_token_id)

    def _taken(self, inputs: Texts | Batch) -> Batch:
        """Take a batch that fits, or make one of texts."""
        return checked_batch(inputs, self._bert) if isinstance(inputs, Batch) else self.batch(inputs)

    def _named(self, logits: Array) -> list[Any]:
        """Name the classes with the largest scores, or give the score of a regression."""
        found = decide(logits).tolist()
        return [self.classes[i] for i in found] if self.classes else found


@dataclass(frozen=True, repr=False)
class Student(_Reader):
    """A spiking student.

    Examples
    --------
    >>> import refsnn
    >>> config = refsnn.BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
    ...                            intermediate_size=32)
    >>> student = Student.random(refsnn.StudentConfig(config, teacher_width=16, classes=2))
    >>> student.logits(refsnn.Batch.of([[3, 14, 15], [9]]), t_conv=16).shape
    (2, 2)
    """

    def __post_init__(self) -> None:
        check_parameters(self.params, self.config.shapes, "the student")

    @classmethod
    def random(cls, config: StudentConfig, *, seed: int = 0, scale: float = 0.3, dtype: Any = np.float64) -> Student:
        """Draw a student's parameters at random, for examples and tests.

        Parameters
        ----------
        config : StudentConfig
        seed : int
        scale : float
            Standard deviation of the matrices; BERT's own 0.02 leaves so small a network almost silent.
        dtype : floating type

        Returns
        -------
        student : Student
        """
        return cls(config, initial_parameters(config.shapes, np.random.default_rng(seed), scale, dtype))

    @property
    def network(self) -> Network:
        """The populations and their projections."""
        config: StudentConfig = self.config
        return config.network

    def logits(self, inputs: Texts | Batch, *, t_conv: int | None = None, rule: Rule = "inst") -> Array:
        """Class scores, by the rate map or by spikes.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch
        t_conv : int, optional
            Timesteps after which the spikes are read; by default the rates' equilibrium decides.
        rule : {"inst", "running"}
            Integration rule of the spikes.

        Returns
        -------
        logits : (B, classes) array
        """
        t_conv = None if t_conv is None else timesteps("t_conv", t_conv)
        if isinstance(inputs, Batch):
            network, last = first_position(self.network), self.network.readouts[-1]
            batch = self._taken(inputs)
            if t_conv is None:
                rates = equilibrium(network, self.params, batch).rates
            else:
                rates = simulate(network, self.params, batch, t_conv, rule, keep=[last], threads=threads())[t_conv]
            return logits(self.params, rates[last], network.rectified)[0]
        if t_conv is None:
            return predict_rates(self.config, self.params, self.examples(inputs))
        found = predict_spikes(self.config, self.params, self.examples(inputs), [t_conv], rule, activity=False)
        return found[t_conv].logits

    def predict_proba(self, inputs: Texts | Batch, *, t_conv: int | None = None, rule: Rule = "inst") -> Array:
        """Probabilities of the classes; the scores themselves of a regression.

        Parameters
        ----------
        inputs, t_conv, rule
            See `logits`.

        Returns
        -------
        probabilities : (B, classes) array
        """
        return answer(self.logits(inputs, t_conv=t_conv, rule=rule))

    def predict(self, inputs: Texts | Batch, *, t_conv: int | None = None, rule: Rule = "inst") -> list[Any]:
        """Names of the most probable classes (their numbers where they have no names); the scores of a regression.

        Parameters
        ----------
        inputs, t_conv, rule
            See `logits`.

        Returns
        -------
        answers : list
        """
        return self._named(self.logits(inputs, t_conv=t_conv, rule=rule))

    def rates(self, inputs: Texts | Batch) -> Rates:
        """Average spiking rates of every population at the equilibrium.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch

        Returns
        -------
        rates : dict
            Population name -> (B, N, width) array in [0, 1]; of ternary neurons in [−1, 1].
        """
        return equilibrium(self.network, self.params, self._taken(inputs)).rates

    def simulate(self, inputs: Texts | Batch, t_conv: int | Sequence[int], *, rule: Rule = "inst") -> dict[int, Rates]:
        """Average spiking rates of every population after one or several numbers of timesteps.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch
        t_conv : int or sequence of int
        rule : {"inst", "running"}

        Returns
        -------
        rates : dict
            T -> population name -> (B, N, width) array in [0, 1]; of ternary neurons in [−1, 1].
        """
        return simulate(self.network, self.params, self._taken(inputs), t_conv, rule, threads=threads())

    def raster(self, text: str | tuple[str, str], population: str, *, t_conv: int, rule: Rule = "inst") -> Raster:
        """Spikes of one population on one text.

        Parameters
        ----------
        text : str or pair of str
        population : str
            Such as ``"encoder.1.output"``.
        t_conv : int
        rule : {"inst", "running"}

        Returns
        -------
        raster : Raster
        """
        batch = self.batch([text])
        if population not in (known := [p.name for p in self.network.populations]):
            raise InputError(f"there is no population {population!r}; there are {', '.join(known)}")
        blocks = spike_blocks(self.network, self.params, batch, t_conv, rule)
        spikes = np.concatenate([block[population][:, 0] for _, block in blocks])  # (T, N, D)
        return Raster(spikes, [self.tokenizer.id_to_token(i) for i in batch.input_ids[0].tolist()])

    def value_and_grad(self, batch: Batch, labels: Array, *, scheme: Scheme = Scheme()) -> tuple[float, Params]:
        """Loss against true labels at the equilibrium, and its gradient by implicit differentiation.

        Parameters
        ----------
        batch : Batch
        labels : (B,) array
            Class indices, integers, for the cross-entropy; or scores, floats, for the mean squared error.
        scheme : refsnn.distillation.student.Scheme
            How the equilibrium is searched for and the adjoint equation solved.

        Returns
        -------
        loss : float
        gradients : dict
            Parameter name -> array; absent where the loss does not depend on it.
        """
        losses, gradients, _ = prediction_gradients(
            self.network, self.params, self._taken(batch), lambda z: true_loss(z, labels), scheme=scheme
        )
        return float(losses["prediction"]), dict(gradients)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `load` reads: `config.json`, `model.safetensors`, and `tokenizer.json` if there is one.

        Parameters
        ----------
        folder : path
        """
        _save(folder, self.config.to_dict(), self)


@dataclass(frozen=True, repr=False)
class Teacher(_Reader):
    """A BERT with a pooler and a classifier."""

    def __post_init__(self) -> None:
        check_parameters(self.params, self._shapes, "the teacher")

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return teacher_shapes(self.config, len(np.atleast_1d(self.params.get("classifier.weight", ()))))

    def logits(self, inputs: Texts | Batch) -> Array:
        """Class scores.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch

        Returns
        -------
        logits : (B, classes) array
        """
        if isinstance(inputs, Batch):
            return classify(self.config, self.params, self._taken(inputs))[0]
        return predict_teacher(self.config, self.params, self.examples(inputs))

    def predict_proba(self, inputs: Texts | Batch) -> Array:
        """Probabilities of the classes; the scores themselves of a regression.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch

        Returns
        -------
        probabilities : (B, classes) array
        """
        return answer(self.logits(inputs))

    def predict(self, inputs: Texts | Batch) -> list[Any]:
        """Names of the most probable classes (their numbers where they have no names); the scores of a regression.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch

        Returns
        -------
        answers : list
        """
        return self._named(self.logits(inputs))

    def encode(self, inputs: Texts | Batch) -> Encoding:
        """Hidden states and attention scores of every encoder: what distillation compares the student with.

        Parameters
        ----------
        inputs : texts, pairs of texts, or Batch

        Returns
        -------
        encoding : Encoding
        """
        return encode(self.config, self.params, self._taken(inputs))

    def value_and_grad(self, batch: Batch, labels: Array) -> tuple[float, Params]:
        """Loss against true labels, and its gradient.

        Parameters
        ----------
        batch : Batch
        labels : (B,) array
            See `Student.value_and_grad`.

        Returns
        -------
        loss : float
        gradients : dict
        """
        z, pullback = classify(self.config, self.params, self._taken(batch))
        loss, loss_pullback = true_loss(z, labels)
        return float(loss), dict(pullback(loss_pullback(1.0)))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write a folder that `load` and Hugging Face's programs read.

        Parameters
        ----------
        folder : path
        """
        _save(folder, {"model_type": "bert", **self.config.to_dict()}, self)


def load(source: str | os.PathLike[str]) -> Student | Teacher:
    """Load a model.

    Parameters
    ----------
    source : path or str
        The folder of a run, whose student it is; of a saved student; of a BERT with a classifier, such as the
        ``teacher`` of a run; or the id of such a folder on the Hugging Face hub.

    Returns
    -------
    model : Student or Teacher

    Raises
    ------
    InputError
        There is no such folder, it holds neither, or a file of it is damaged.
    """
    folder = bert_folder(source)
    values = read_json(existing(folder / "config.json", "the model's configuration"))
    run = Run(folder)
    task = run.task if run.exists else None
    pairs = len(task.sentences) == 2 if task else bool(values.get("pairs"))
    if values.get("model_type") == "spiking_bert":
        config, params = load_student(folder)
        names = task.classes if task else class_names(folder / "config.json", config.classes)
        limit = run.recipe.limit if run.exists else config.bert.max_position_embeddings
        return Student(config, params, names, _tokenizer(folder, config.bert, limit), pairs)
    bert, params = load_teacher(folder)
    names = class_names(folder / "config.json", len(params["classifier.bias"]))
    return Teacher(bert, params, names, _tokenizer(folder, bert, bert.max_position_embeddings), pairs)


def _tokenizer(folder: Path, config: BertConfig, limit: int) -> Any:
    """Load a folder's tokenizer, if it has one, with the limit of length that it was saved with."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "vocab.txt")):
        return None
    saved = read_json(folder / "tokenizer.json").get("truncation") if (folder / "tokenizer.json").exists() else None
    limit = min(limit, saved["max_length"]) if saved else limit
    return load_tokenizer(folder, config.vocab_size, limit)


def _save(folder: str | os.PathLike[str], values: Mapping[str, Any], model: _Reader) -> None:
    path = new_folder(folder)
    save_tensors(path / "model.safetensors", model.params, {"refsnn": __version__})
    if model.tokenizer is not None:
        write_text(path / "tokenizer.json", model.tokenizer.to_str(pretty=True))
    names = {"id2label": {str(i): name for i, name in enumerate(model.classes)}} if model.classes else {}
    write_json(path / "config.json", {**values, **names, **({"pairs": True} if model.pairs else {})})
