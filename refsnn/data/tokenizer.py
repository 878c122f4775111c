"""A checkpoint's own WordPiece tokenizer, with every setting that its files state."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ..errors import InputError
from ..files import existing, not_a_pointer, read_json, read_text, require
from ..schema import checked

__all__ = ["TOKENIZER", "load_tokenizer"]

#: Files that a tokenizer is loaded from.
TOKENIZER = ("tokenizer.json", "vocab.txt", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json")

#: BERT's special tokens under the names of settings; a vocabulary may lack the last.
SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}

#: Settings of `tokenizer_config.json` and what each is in the normalizer of a `tokenizer.json`.
NORMALIZER = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "clean_text": "clean_text",
}

#: All settings that are looked at, with their types; others do not change token ids.
SETTINGS: dict[str, Any] = {
    "tokenizer_class": str | None,
    "do_lower_case": bool,
    "strip_accents": bool | None,
    "tokenize_chinese_chars": bool,
    "clean_text": bool,
    "truncation_side": Literal["left", "right"],
    "added_tokens_decoder": dict[str, dict],
}

#: Settings of which one value only is computed, if they are there.
ONLY: dict[str, tuple[Any, ...]] = {
    "padding_side": ("right",),
    "do_basic_tokenize": (True,),
    "never_split": (None, []),
    "wordpieces_prefix": ("##",),
}

#: Classes of tokenizers that are BERT's under another name, and those that are whatever their `tokenizer.json` says.
BERTS = ("Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "LayoutLM")
GENERIC = ("PreTrainedTokenizerFast", "PreTrainedTokenizer", "TokenizersBackend")


def load_tokenizer(folder: str | os.PathLike, vocab_size: int, max_length: int) -> Any:
    """Load a checkpoint's own WordPiece tokenizer: `tokenizer.json`, or else `vocab.txt`.

    What `tokenizer_config.json`, `added_tokens.json` and `special_tokens_map.json` say is done as Hugging Face's
    programs do it, where a setting that is there wins over `tokenizer.json`; what cannot be done is refused by name.

    Parameters
    ----------
    folder : path
    vocab_size : int
        Rows of the word embedding; every token id must have one.
    max_length : int
        Longer inputs are cut, the longer sentence of a pair first.

    Returns
    -------
    tokenizer : tokenizers.Tokenizer
        Makes ``[CLS] a [SEP]`` of a text and ``[CLS] a [SEP] b [SEP]``, with types 0 and 1, of two.

    Raises
    ------
    InputError
        There is no tokenizer, it lacks BERT's special tokens, a setting cannot be honoured, or it does not fit the word
        embedding.
    """
    tokenizers = require("tokenizers")
    folder = existing(folder, "the tokenizer's folder")
    settings = _settings(folder)
    saved, plain = folder / "tokenizer.json", folder / "vocab.txt"
    if saved.exists():
        source, tokenizer = saved, _from_json(tokenizers, saved, settings)
    elif plain.exists():
        source, tokenizer = plain, _from_vocabulary(tokenizers, plain, settings)
    else:
        raise InputError(f"{folder} has neither tokenizer.json nor vocab.txt; copy the checkpoint's tokenizer there")
    missing = [t for name, t in SPECIAL.items() if name != "mask_token" and tokenizer.token_to_id(t) is None]
    if missing:
        raise InputError(f"{source} lacks BERT's special tokens {', '.join(missing)}; it is not a BERT vocabulary")
    side = settings.get("truncation_side") or (tokenizer.truncation or {}).get("direction", "right")
    if (tokenizer.padding or {}).get("direction", "right") != "right" and "padding_side" not in settings:
        raise InputError(f"{source}: it pads on the left, but refsnn pads on the right only")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    _add_tokens(tokenizers, tokenizer, folder, settings)
    _frame(tokenizers, tokenizer, source)
    largest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if largest >= vocab_size:
        raise InputError(
            f"{source} has token ids up to {largest}, but the checkpoint embeds only {vocab_size}: "
            "it is another model's vocabulary"
        )
    tokenizer.enable_truncation(max_length=max_length, strategy="longest_first", direction=side)
    return tokenizer


def _settings(folder: Path) -> dict[str, Any]:
    """Read `tokenizer_config.json` and make sure that every setting of it is one that can be honoured."""
    path = folder / "tokenizer_config.json"
    settings = checked(path, read_json(path), SETTINGS, closed=False) if path.exists() else {}
    for name, allowed in ONLY.items():
        if name in settings and settings[name] not in allowed:
            raise InputError(f"{path}: {name} is {settings[name]!r}, but refsnn computes {allowed[0]!r} only")
    kind = (settings.get("tokenizer_class") or "BertTokenizer").removesuffix("Fast").removesuffix("Tokenizer")
    if kind not in BERTS and settings.get("tokenizer_class") not in GENERIC:
        raise InputError(
            f"{path}: tokenizer_class is {settings['tokenizer_class']!r}, but refsnn computes BertTokenizer only"
        )
    _check_special(path, settings)
    if (special := folder / "special_tokens_map.json").exists():
        _check_special(special, read_json(special))
    return settings


def _check_special(path: Path, settings: Mapping[str, Any]) -> None:
    for name, token in SPECIAL.items():
        if settings.get(name) is not None and _content(settings[name]) != token:
            raise InputError(f"{path}: {name} is {_content(settings[name])!r}, but refsnn computes {token!r} only")


def _content(token: Any) -> Any:
    """Text of a token, which may be written out with its properties."""
    return token.get("content") if isinstance(token, dict) else token


def _from_vocabulary(tokenizers: Any, path: Path, settings: Mapping[str, Any]) -> Any:
    """Make BERT's tokenizer: line i of the vocabulary is the token i; empty lines at the end are skipped."""
    tokens = read_text(path).split("\n")
    while tokens and not tokens[-1].strip():
        tokens.pop()
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        **{theirs: settings[name] for name, theirs in NORMALIZER.items() if name in settings}
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = tokenizers.decoders.WordPiece()
    return tokenizer


def _from_json(tokenizers: Any, path: Path, settings: Mapping[str, Any]) -> Any:
    """Read a `tokenizer.json`; where it is a BERT's, settings that are there win over its normalizer."""
    not_a_pointer(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exceptions
        raise InputError(f"{path} cannot be read as a tokenizer ({error})") from None
    changes = {theirs: settings[name] for name, theirs in NORMALIZER.items() if name in settings}
    if settings.get("tokenizer_class") in GENERIC or not changes:
        return tokenizer
    values = read_json(path)
    before = values.get("normalizer") or {}
    if before.get("type") != "BertNormalizer":
        named = ", ".join(name for name in NORMALIZER if name in settings)
        raise InputError(
            f"{path}: its normalizer is {before.get('type')!r}, to which {named} of tokenizer_config.json cannot be "
            "applied; only a BertNormalizer has them"
        )
    names = NORMALIZER.values()
    tokenizer.normalizer = tokenizers.normalizers.BertNormalizer(
        **{name: before[name] for name in names if name in before} | changes
    )
    return tokenizer


def _add_tokens(tokenizers: Any, tokenizer: Any, folder: Path, settings: Mapping[str, Any]) -> None:
    """Add the tokens that are kept whole: those of the files, at the ids that they state, and the special ones."""
    config, added = folder / "tokenizer_config.json", folder / "added_tokens.json"
    wanted: dict[int, tuple[Path, Any]] = {}
    if added.exists() and "added_tokens_decoder" not in settings:
        ids = read_json(added)
        for token, number in checked(added, ids, dict.fromkeys(ids, int)).items():
            special = token in SPECIAL.values()
            wanted[number] = added, tokenizers.AddedToken(token, normalized=not special, special=special)
    properties = {"content": str, "lstrip": bool, "rstrip": bool, "normalized": bool, "single_word": bool}
    for number, values in settings.get("added_tokens_decoder", {}).items():
        where = f"added_tokens_decoder.{number}"
        values = checked(config, values, properties | {"special": bool}, where, ["content"], closed=False)
        if not number.isascii() or not number.isdigit():
            raise InputError(f"{config}: {where} is no token id, which is a whole number")
        known = {name: value for name, value in values.items() if name in properties or name == "special"}
        wanted[int(number)] = config, tokenizers.AddedToken(**known)
    for number, (source, token) in sorted(wanted.items()):
        add = tokenizer.add_special_tokens if token.special else tokenizer.add_tokens
        add([token])
        if tokenizer.token_to_id(token.content) != number:
            raise InputError(
                f"{source}: the token {token.content!r} is to have the id {number}, but in this vocabulary it has "
                f"{tokenizer.token_to_id(token.content)}; the files are not of one tokenizer"
            )
    usual = [token for token in SPECIAL.values() if tokenizer.token_to_id(token) is not None]
    tokenizer.add_special_tokens([*usual, *_more_special(folder, settings)])


def _more_special(folder: Path, settings: Mapping[str, Any]) -> list[Any]:
    """Tokens of one's own that a tokenizer has beside BERT's."""
    path = folder / "special_tokens_map.json"
    found: list[str] = []
    for values in (settings, read_json(path) if path.exists() else {}):
        for name in ("additional_special_tokens", "extra_special_tokens"):
            listed = values.get(name) or []
            for token in map(_content, listed.values() if isinstance(listed, dict) else listed):
                if not isinstance(token, str):
                    raise InputError(f"{folder}: {name} holds {token!r}, but texts were expected")
                found.append(token)
    return list(dict.fromkeys(found))


def _frame(tokenizers: Any, tokenizer: Any, source: Path) -> None:
    """Make sure of [CLS] and [SEP] around and between texts, and of the types 0 and 1."""
    cls, sep, text = (tokenizer.token_to_id(token) for token in ("[CLS]", "[SEP]", "[UNK]"))
    if tokenizer.post_processor is None:
        tokenizer.post_processor = tokenizers.processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    one, two = tokenizer.encode("[UNK]"), tokenizer.encode("[UNK]", "[UNK]")
    if (one.ids, one.type_ids) != ([cls, text, sep], [0, 0, 0]) or (two.ids, two.type_ids) != (
        [cls, text, sep, text, sep],
        [0, 0, 0, 1, 1],
    ):
        raise InputError(
            f"{source}: its post-processor makes {' '.join(two.tokens)} of two texts [UNK], but [CLS] [UNK] [SEP] "
            "[UNK] [SEP] with the types 0 and 1 was expected"
        )
