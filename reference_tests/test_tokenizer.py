"""Tokenizers: the ids that Hugging Face's programs make of the same files, or a refusal that names the setting."""

import json
import shutil
from pathlib import Path

import pytest
from test_training import write_task, write_teacher

from refsnn.commands.cli import main
from refsnn.data.tokenizer import TOKENIZER, load_tokenizer
from refsnn.errors import InputError
from refsnn.files import read_json, write_json
from refsnn.storage.checkpoints import save_description
from refsnn.storage.run import Run

RECORDED = json.loads((Path(__file__).parent / "recorded" / "tokenizers.json").read_text())
VOCABULARY = RECORDED["vocabulary"].split(" ")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def tokenizer_json(lowercase=True, frame=True, added=True, **changes):
    """A `tokenizer.json` of BERT's parts."""
    normalizer = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": t, **flags, "special": True} for i, t in enumerate(SPECIAL) if added],
        "normalizer": normalizer | {"lowercase": lowercase},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]} if frame else None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: i for i, token in enumerate(VOCABULARY)},
        },
    } | changes


BERT = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
#: Recorded case -> the files beside `vocab.txt`.
FILES = {
    "vocab_only": {},
    "lower_keep_accents": {"tokenizer_config.json": BERT | {"strip_accents": False}},
    "no_chinese": {"tokenizer_config.json": BERT | {"tokenize_chinese_chars": False}},
    "added_json": {"tokenizer_config.json": BERT, "added_tokens.json": {"[E1]": 160, "newword": 161}},
    "json_nopost": {"tokenizer_config.json": BERT, "tokenizer.json": tokenizer_json(frame=False, added=False)},
    "json_cased_cfg_lower": {"tokenizer_config.json": BERT, "tokenizer.json": tokenizer_json(lowercase=False)},
}


def write(folder, **files):
    folder.mkdir(exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    for name, value in files.items():
        write_json(folder / name, value)
    return folder


def ids(folder, *texts, max_length=512, size=170):
    tokenizer = load_tokenizer(folder, size, max_length)
    return [tokenizer.encode(*(text if isinstance(text, tuple) else [text])).ids for text in texts]


@pytest.mark.parametrize("name", FILES)
def test_the_ids_that_were_recorded(tmp_path, name):
    folder = write(tmp_path / "a", **FILES[name])
    save_description(write(tmp_path / "b"), {}, folder)  # a run's copy reads the same
    load_tokenizer(folder, 170, 512).save(str(write(tmp_path / "c") / "tokenizer.json"))  # and so does what is saved
    for place in (folder, tmp_path / "b", tmp_path / "c"):
        assert ids(place, *RECORDED["texts"]) == RECORDED["cases"][name]
        pair = load_tokenizer(place, 170, 512).encode("good film", "film")
        assert [pair.ids, pair.type_ids] == RECORDED["pair"]
        assert ids(place, "", ("", ""), ("good", "")) == [[2, 3], [2, 3, 3], [2, 158, 3, 3]]


@pytest.mark.parametrize("settings", [{"do_lower_case": False}, {"do_lower_case": False, "strip_accents": True}])
def test_settings_win_over_the_file_whichever_way(tmp_path, settings):
    texts = [*RECORDED["texts"], "SCHÖN schön Film film"]
    by_vocabulary = write(tmp_path / "a", **{"tokenizer_config.json": settings})
    by_json = write(tmp_path / "b", **{"tokenizer_config.json": settings, "tokenizer.json": tokenizer_json()})
    assert ids(by_vocabulary, *texts) == ids(by_json, *texts)
    cased = ids(by_json, "Film film")[0]
    assert cased == [2, VOCABULARY.index("Film"), VOCABULARY.index("film"), 3]
    kept = ids(by_json, "schön")[0]
    assert (VOCABULARY.index("schon") in kept) == settings.get("strip_accents", False)


def test_a_file_without_settings_is_taken_at_its_word(tmp_path):
    for lowercase, film in ((False, "Film"), (True, "film")):
        generic = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": not lowercase}
        for files in ({}, {"tokenizer_config.json": {}}, {"tokenizer_config.json": generic}):
            folder = write(tmp_path / "a", **{"tokenizer.json": tokenizer_json(lowercase)}, **files)
            assert ids(folder, "Film") == [[2, VOCABULARY.index(film), 3]]


def test_added_tokens_and_their_properties(tmp_path):
    def entry(content, **properties):
        flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False, "special": False}
        return {"content": content} | flags | properties

    decoder = {"161": entry("New"), "160": entry("[E1]", special=True), "2": entry("[CLS]", special=True)}
    decoder |= {"162": entry("odd", single_word=True), "163": entry("[E2]", normalized=True)}
    config = BERT | {"added_tokens_decoder": decoder}
    expected = [[2, 160, 158, 160, 3], [2, 161, 158, 3], [2, 162, 1, 3], [2, 163, 163, 3]]
    for more in ({}, {"tokenizer.json": tokenizer_json()}, {"added_tokens.json": {"ignored": 164}}):
        folder = write(tmp_path / f"{len(more)}{len(str(more))}", **{"tokenizer_config.json": config}, **more)
        found = ids(folder, "[E1] good[E1]", "New good", "odd oddx!"[:8], "[e2] [E2]")
        assert found[:2] == expected[:2] and found[3] == expected[3]
        assert found[2][:2] == [2, 162] and 162 not in found[2][2:]
        assert 164 not in ids(folder, "ignored")[0]  # the newer file says all that there is
    folder = write(tmp_path / "older", **FILES["added_json"])
    assert ids(folder, "[e1] NewWord") == [[2, 160, 161, 3]]  # no special ones, so they are lowered as the text is
    special = {"additional_special_tokens": ["good", {"content": "film"}]}
    folder = write(tmp_path / "special", **{"special_tokens_map.json": special})
    assert ids(folder, "goodfilm GOOD") == [[2, 158, 157, 158, 3]]  # whole wherever they stand, as they are spelled
    folder = write(tmp_path / "mine", **{"tokenizer_config.json": {"extra_special_tokens": {"mark": "[M]"}}})
    assert ids(folder, "[M]") == [[2, 160, 3]]


@pytest.mark.parametrize("kind", ["vocab.txt", "tokenizer.json"])
def test_which_side_is_cut(tmp_path, kind):
    folder = write(tmp_path / "a", **({} if kind == "vocab.txt" else {kind: tokenizer_json()}))
    assert ids(folder, "a b c d", ("a b c", "d"), max_length=5) == [[2, 5, 6, 7, 3], [2, 5, 3, 8, 3]]
    for side, first in (("left", [2, 6, 7, 8, 3]), ("right", [2, 5, 6, 7, 3])):
        write_json(folder / "tokenizer_config.json", {"truncation_side": side})
        assert ids(folder, "a b c d", max_length=5) == [first]
    (folder / "tokenizer_config.json").unlink()
    cut = {"direction": "Left", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
    write_json(folder / "tokenizer.json", tokenizer_json(truncation=cut))
    assert ids(folder, "a b c d", max_length=5) == [[2, 6, 7, 8, 3]]


PADDING = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
SWAPPED = {"type": "BertProcessing", "sep": ["[CLS]", 2], "cls": ["[SEP]", 3]}
ROBERTA = {"type": "RobertaProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2], "trim_offsets": True}
ROBERTA |= {"add_prefix_space": False}
REFUSED = {
    "left padding": ({"tokenizer_config.json": {"padding_side": "left"}}, "padding_side is 'left'"),
    "left padding of the file": ({"tokenizer.json": tokenizer_json(padding=PADDING | {"pad_token": "[PAD]"})}, "left"),
    "no side": ({"tokenizer_config.json": {"truncation_side": "middle"}}, "truncation_side is 'middle'"),
    "a word for true": ({"tokenizer_config.json": {"do_lower_case": "yes"}}, "do_lower_case is 'yes'"),
    "accents by number": ({"tokenizer_config.json": {"strip_accents": 1}}, "strip_accents is 1"),
    "no basic": ({"tokenizer_config.json": {"do_basic_tokenize": False}}, "do_basic_tokenize is False"),
    "never split": ({"tokenizer_config.json": {"never_split": ["a"]}}, r"never_split is \['a'\]"),
    "prefix": ({"tokenizer_config.json": {"wordpieces_prefix": "@@"}}, "wordpieces_prefix is '@@'"),
    "Japanese": ({"tokenizer_config.json": {"tokenizer_class": "BertJapaneseTokenizer"}}, "'BertJapaneseTokenizer'"),
    "RoBERTa": ({"tokenizer_config.json": {"tokenizer_class": "RobertaTokenizerFast"}}, "'RobertaTokenizerFast'"),
    "another cls": ({"tokenizer_config.json": {"cls_token": "<s>"}}, "cls_token is '<s>'"),
    "another sep": ({"special_tokens_map.json": {"sep_token": {"content": "</s>"}}}, "sep_token is '</s>'"),
    "gap": ({"added_tokens.json": {"[E1]": 165}}, r"'\[E1\]' is to have the id 165, .* it has 160"),
    "taken": (
        {"tokenizer_config.json": {"added_tokens_decoder": {"7": {"content": "[CLS]"}}}},
        r"'\[CLS\]' is to have the id 7, .* it has 2",
    ),
    "no id": ({"tokenizer_config.json": {"added_tokens_decoder": {"x": {"content": "a"}}}}, "x is no token id"),
    "no content": ({"tokenizer_config.json": {"added_tokens_decoder": {"9": {}}}}, "content .* is missing"),
    "ids in words": ({"added_tokens.json": {"[E1]": "160"}}, r"\[E1\] is '160'"),
    "beyond the embedding": (
        {"added_tokens.json": {f"[E{i}]": 160 + i for i in range(11)}},
        "up to 170, but the checkpoint embeds only 170",
    ),
    "swapped": ({"tokenizer.json": tokenizer_json(post_processor=SWAPPED)}, r"post-processor makes \[SEP\] \[UNK\]"),
    "as RoBERTa": ({"tokenizer.json": tokenizer_json(post_processor=ROBERTA)}, "post-processor"),
    "another normalizer": (
        {"tokenizer.json": tokenizer_json(normalizer={"type": "NFC"}), "tokenizer_config.json": BERT},
        "normalizer is 'NFC', to which do_lower_case",
    ),
    "no tokenizer": ({"tokenizer.json": {"version": "1.0"}}, "cannot be read as a tokenizer"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_honoured_is_named(tmp_path, what):
    files, words = REFUSED[what]
    with pytest.raises(InputError, match=words) as said:
        ids(write(tmp_path / "a", **files), "good")
    assert any(name in str(said.value) for name in (*files, "vocab.txt has")) and len(str(said.value)) < 400


@pytest.mark.parametrize("end", ["", "\n", "\n\n", "\r\n", "\n \n\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_lines_of_a_vocabulary(tmp_path, end, mark):
    folder = write(tmp_path / "a")
    between = "\r\n" if "\r" in end else "\n"
    (folder / "vocab.txt").write_bytes((mark + between.join(VOCABULARY) + end).encode())
    assert ids(folder, *RECORDED["texts"], size=160) == RECORDED["cases"]["vocab_only"]


def test_vocabularies_that_are_none(tmp_path):
    folder = write(tmp_path / "a")
    (folder / "vocab.txt").write_text("\n".join(["", *VOCABULARY]))  # within, an empty line has an id
    assert ids(folder, "good") == [[3, 159, 4]]
    for content, words in (
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"vocab\.txt is a Git LFS pointer"),
        (b"[PAD]\n\xff\n", r"vocab\.txt is not UTF-8"),
        (b"", r"lacks BERT's special tokens \[PAD\], \[UNK\], \[CLS\], \[SEP\]"),
        ("\n".join(VOCABULARY).replace("[SEP]", "</s>").encode(), r"lacks BERT's special tokens \[SEP\]"),
    ):
        (folder / "vocab.txt").write_bytes(content)
        with pytest.raises(InputError, match=words):
            ids(folder, "good")
    (folder / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InputError, match=r"tokenizer\.json is a Git LFS pointer"):
        ids(folder, "good")
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(InputError, match="has neither"):
        ids(folder, "good")


def test_a_run_reads_its_text_as_its_teacher_does(tmp_path, capsys):
    teacher = write_teacher(tmp_path / "bert")
    words = (teacher / "vocab.txt").read_text().split("\n")[:-1]
    write_json(teacher / "tokenizer_config.json", {"do_lower_case": False, "truncation_side": "left"})
    write_json(teacher / "special_tokens_map.json", {"additional_special_tokens": [words[5]]})
    arguments = "--task sst2 --encoders 1 --max-length 16 --epochs-general 0 --epochs-teacher 0 --epochs-internal 0"
    arguments += f" --epochs-prediction 1 --targets true --data {write_task(tmp_path / 'data', 8)} --teacher {teacher}"
    assert main(["distill", *arguments.split(), "--out", str(tmp_path / "run")]) == 0, capsys.readouterr().err
    for folder in (tmp_path / "run", tmp_path / "run" / "teacher"):
        for name in TOKENIZER:
            assert (folder / name).exists() == (teacher / name).exists(), name
    assert read_json(tmp_path / "run" / "tokenizer_config.json")["truncation_side"] == "left"
    tokenizer = Run(tmp_path / "run").tokenizer()
    assert tokenizer.truncation["direction"] == "left"
    assert tokenizer.encode(f"x{words[5]}y {words[5].upper()}").ids.count(5) == 1
