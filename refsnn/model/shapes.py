"""The shape of a BERT-type network, as `config.json` states it, and the names and shapes of its parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ..errors import InputError, shown

__all__ = [
    "BertConfig",
    "check_architecture",
    "check_file",
    "check_fractions",
    "check_sizes",
    "embedding_shapes",
    "encoder_shapes",
    "feature_shapes",
    "head_shapes",
    "network_shapes",
    "teacher_shapes",
]


#: Largest sizes that are believed; beyond them, a file of a few bytes would ask for all the memory there is.
LARGEST = {
    "hidden_size": 1 << 16,
    "num_hidden_layers": 1 << 10,
    "num_attention_heads": 1 << 12,
    "intermediate_size": 1 << 20,
    "vocab_size": 1 << 24,
    "max_position_embeddings": 1 << 20,
    "type_vocab_size": 1 << 16,
}

#: Keys of `config.json` that change what is computed, and the values of them that refsnn computes.
COMPUTED: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "use_task_id": (False,),
    "pruned_heads": ({}, None),
    "quantization_config": (None,),
}

#: Architectures that are called after BERT and are none, or read from left to right.
OTHERS = ("BertGeneration", "BertLMHead", "BertJapanese")


def check_sizes(config: Any, largest: Mapping[str, int], width: str, heads: str, kind: str) -> None:
    """Make sure that the sizes of a network are some that can be believed, and that heads have equal shares.

    Parameters
    ----------
    config : dataclass
    largest : mapping
        Field -> the most that is believed.
    width, heads : str
        Names of two fields.
    kind : str
        What it is of, for the message.

    Raises
    ------
    InputError
        They are not.
    """
    for name, most in largest.items():
        value = getattr(config, name)
        if not (type(value) is int and value > 0):
            raise InputError(f"{name} is {shown(value)}, but it must be a positive integer")
        if value > most:
            raise InputError(f"{name} is {shown(value)}, but at most {most} is believed of a {kind}")
    if getattr(config, width) % getattr(config, heads):
        raise InputError(
            f"{width} {getattr(config, width)} is not divisible by {heads} {getattr(config, heads)}: "
            "each head takes an equal share"
        )


def check_fractions(config: Any, names: Sequence[str]) -> None:
    """Make sure that some fields are numbers between 0 and 1.

    Parameters
    ----------
    config : dataclass
    names : sequence of str

    Raises
    ------
    InputError
        One is not.
    """
    for name in names:
        value = getattr(config, name)
        if not (isinstance(value, (int, float)) and 0 < value < 1):
            raise InputError(f"{name} is {shown(value)}, but it must be a number between 0 and 1")


def check_file(
    values: Mapping[str, Any], required: Sequence[str], computed: Mapping[str, tuple[Any, ...]], kind: str
) -> None:
    """Make sure that the contents of a `config.json` say what is needed, and ask for nothing that is not computed.

    Parameters
    ----------
    values : mapping
    required : sequence of str
        Keys.
    computed : mapping
        Key -> the values that refsnn computes.
    kind : str
        Whose file it is, for the message.

    Raises
    ------
    InputError
        A key is absent, or has another value.
    """
    if missing := [name for name in required if name not in values]:
        raise InputError(f"the configuration lacks {', '.join(missing)}; a {kind} config.json has them")
    for name, known in computed.items():
        if name in values and values[name] not in known:
            raise InputError(f"{name} is {shown(values[name])}, but refsnn computes {known[0]!r} only")


@dataclass(frozen=True)
class BertConfig:
    """Sizes and constants of a BERT-type encoder, under the names of Hugging Face's `config.json`.

    Raises
    ------
    InputError
        A size is not a positive integer, the width is not divisible by the heads, or a feature of `config.json`
        (another activation, relative positions) is one that refsnn does not compute.

    Examples
    --------
    >>> BertConfig(hidden_size=8, num_attention_heads=3)
    Traceback (most recent call last):
    refsnn.errors.InputError: hidden_size 8 is not divisible by num_attention_heads 3: each head takes an equal share
    """

    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    vocab_size: int = 30522
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    initializer_range: float = 0.02
    pad_token_id: int = 0
    hidden_act: str = "gelu"

    def __post_init__(self) -> None:
        check_sizes(self, LARGEST, "hidden_size", "num_attention_heads", "BERT")
        if self.hidden_act != "gelu":
            raise InputError(
                f"hidden_act is {shown(self.hidden_act)}, but refsnn computes 'gelu', the exact form, only"
            )
        if type(self.pad_token_id) is not int or not 0 <= self.pad_token_id < self.vocab_size:
            raise InputError(
                f"pad_token_id is {shown(self.pad_token_id)}, but it must be an integer in [0, vocab_size)"
            )
        check_fractions(self, ("layer_norm_eps", "initializer_range"))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> BertConfig:
        """Take what is known from the contents of a `config.json`, ignoring keys that do not change the computation.

        Parameters
        ----------
        values : mapping

        Returns
        -------
        config : BertConfig

        Raises
        ------
        InputError
            A required size is absent, or the file asks for something refsnn does not compute.
        """
        if not isinstance(values, Mapping):
            raise InputError(f"the configuration is a {type(values).__name__}, but a table was expected")
        required = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
        check_file(values, required, COMPUTED, "BERT-type")
        if (embedded := values.get("embedding_size", values["hidden_size"])) != values["hidden_size"]:
            raise InputError(
                f"embedding_size is {shown(embedded)} and hidden_size {shown(values['hidden_size'])}, but refsnn "
                "computes embeddings of the hidden states' width only"
            )
        known = {field.name for field in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})

    def to_dict(self) -> dict[str, Any]:
        """All fields, for `config.json`.

        Returns
        -------
        values : dict
        """
        return asdict(self)


def check_architecture(values: Mapping[str, Any]) -> None:
    """Refuse whatever is not BERT, though its parameters may have BERT's names: RoBERTa, LUKE, LayoutLM, ERNIE, ….

    Parameters
    ----------
    values : mapping
        Contents of a `config.json`. Where neither ``model_type`` nor ``architectures`` is there, it is taken for a
        BERT's, as Google wrote them. Some Chinese BERTs are called ``roberta`` for the way they were trained; their
        architectures are BERT's, and so is their padding.

    Raises
    ------
    InputError
        It names another model.

    Examples
    --------
    >>> check_architecture({"model_type": "bert", "architectures": ["BertModel"]})
    >>> check_architecture({"model_type": "luke"})
    Traceback (most recent call last):
    refsnn.errors.InputError: model_type is 'luke', but refsnn computes 'bert' only
    """
    kind, named = values.get("model_type"), values.get("architectures") or []
    trained_as_roberta = kind == "roberta" and named and values.get("pad_token_id", 0) == 0

    def ours(name: Any) -> bool:
        return isinstance(name, str) and name.startswith("Bert") and not name.startswith(OTHERS)

    others = [name for name in (named if isinstance(named, list) else [named]) if not ours(name)]
    if kind not in (None, "bert") and not (trained_as_roberta and not others):
        own = "; `refsnn gpt` reads a GPT" if kind in ("gpt2", "spiking_gpt") else ""
        raise InputError(f"model_type is {kind!r}, but refsnn computes 'bert' only{own}")
    if others:
        raise InputError(f"architectures has {others[0]!r}, but refsnn computes BertModel and BERTs with a head only")


def embedding_shapes(config: BertConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the embedding parameters.

    Parameters
    ----------
    config : BertConfig

    Returns
    -------
    shapes : dict
        Parameter name -> shape, in the order of a checkpoint.
    """
    d = config.hidden_size
    return {
        "embeddings.word_embeddings.weight": (config.vocab_size, d),
        "embeddings.position_embeddings.weight": (config.max_position_embeddings, d),
        "embeddings.token_type_embeddings.weight": (config.type_vocab_size, d),
        "embeddings.LayerNorm.weight": (d,),
        "embeddings.LayerNorm.bias": (d,),
    }


def encoder_shapes(config: BertConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of one encoder.

    Parameters
    ----------
    config : BertConfig
    layer : int
        Counted from 0, as in a checkpoint.

    Returns
    -------
    shapes : dict
        Parameter name -> shape; matrices are (out, in).
    """
    d, m = config.hidden_size, config.intermediate_size
    matrices = {
        "attention.self.query": (d, d),
        "attention.self.key": (d, d),
        "attention.self.value": (d, d),
        "attention.output.dense": (d, d),
        "intermediate.dense": (m, d),
        "output.dense": (d, m),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (out, in_) in matrices.items():
        shapes[f"encoder.layer.{layer}.{name}.weight"] = (out, in_)
        shapes[f"encoder.layer.{layer}.{name}.bias"] = (out,)
        if name.endswith("output.dense"):  # the normalisation that follows
            norm = f"encoder.layer.{layer}.{name.removesuffix('dense')}LayerNorm"
            shapes |= {f"{norm}.weight": (d,), f"{norm}.bias": (d,)}
    return shapes


def feature_shapes(config: BertConfig, layer: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what an encoder has for each feature: synapses of its residuals, thresholds of neurons.

    Parameters
    ----------
    config : BertConfig
    layer : int

    Returns
    -------
    shapes : dict
        In units in which the paper's network has 1 throughout.
    """
    d, m, prefix = config.hidden_size, config.intermediate_size, f"encoder.layer.{layer}"
    return {
        f"{prefix}.attention.self.threshold": (d,),  # of the context population
        f"{prefix}.attention.output.residual.weight": (d,),
        f"{prefix}.intermediate.threshold": (m,),
        f"{prefix}.output.residual.weight": (d,),
    }


def network_shapes(config: BertConfig, feedback: bool = False, per_feature: bool = False) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of `spiking_bert` or `bert`, heads not included.

    Parameters
    ----------
    config : BertConfig
    feedback : bool
    per_feature : bool
        See `feature_shapes`.

    Returns
    -------
    shapes : dict
    """
    shapes = embedding_shapes(config)
    for layer in range(config.num_hidden_layers):
        shapes |= encoder_shapes(config, layer)
        shapes |= feature_shapes(config, layer) if per_feature else {}
    if feedback:
        shapes["feedback.weight"] = (config.hidden_size, config.hidden_size)
    return shapes


def head_shapes(config: BertConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the pooler and the classifier (one class: regression).

    Parameters
    ----------
    config : BertConfig
    classes : int

    Returns
    -------
    shapes : dict
    """
    d = config.hidden_size
    return {
        "pooler.dense.weight": (d, d),
        "pooler.dense.bias": (d,),
        "classifier.weight": (classes, d),
        "classifier.bias": (classes,),
    }


def teacher_shapes(config: BertConfig, classes: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all parameters of a teacher with a head.

    Parameters
    ----------
    config : BertConfig
    classes : int

    Returns
    -------
    shapes : dict
    """
    return network_shapes(config) | head_shapes(config, classes)
