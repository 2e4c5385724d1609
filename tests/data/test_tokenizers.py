"""Every tokenizer: spans fit the tokens, what looks alike is alike, and subwords are those of Hugging Face."""

import dataclasses
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data import find_tokenizer, synthetic
from bahdanau_jax.data.find_tokenizer import check_tokenizer, learned_options, make_tokenizer
from bahdanau_jax.data.normalize import normalize, origins
from bahdanau_jax.data.subwords import Bpe, Unigram, joined_runs
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import UNKNOWN

CHINESE = [
    "房间很干净，服务也好。",
    "早餐太差，房间又吵。",
    "位置方便，早餐好。",
    "服务太差了！",
] * 3
NAMES = ("words", "marks", "characters", "bpe", "unigram")
# Marks, Hangul in parts, ligatures, half-width kana, vowel signs, invisible characters.
odd_text = st.text(
    st.one_of(
        st.sampled_from(
            "aeo \r\n\u200b\u200d\ufeff\u00ad\u2028\u0301\u0323½ﬁｶﾞﷺ각ᄀ\u1161\u11a8\u09c7\u09be房İΣς'_▁"
        ),
        st.characters(exclude_categories=()),
    ),
    max_size=40,
)


@pytest.fixture(scope="module")
def texts():
    return [
        *synthetic.make_up(train_size=60, validation_size=1, test_size=1, seed=0).train.texts,
        *CHINESE,
    ]


@pytest.fixture(scope="module")
def learned(texts):
    pytest.importorskip("tokenizers")
    return {name: Vocabulary.build(texts, size=200, tokenizer=name) for name in ("bpe", "unigram")}


@pytest.fixture(scope="module", params=NAMES)
def vocabulary(request, texts):
    if request.param in ("bpe", "unigram"):
        return request.getfixturevalue("learned")[request.param]
    return Vocabulary.build(texts, size=200, tokenizer=request.param)


@given(text=odd_text)
def test_each_token_has_a_span_and_spans_do_not_overlap(vocabulary, text):
    tokens, spans = vocabulary.tokenizer.tokens(text), vocabulary.tokenizer.spans(text)
    assert len(tokens) == len(spans) == len(vocabulary.encode(text)) - 1
    flat = [edge for span in spans for edge in span]
    assert flat == sorted(flat) and all(0 <= edge <= len(text) for edge in flat)


@given(st.text(st.characters(exclude_categories=("Cs",), max_codepoint=0x2FFF), max_size=30))
def test_a_span_of_a_character_holds_it(text):
    starts, form = origins(text), normalize(text)
    assert len(starts) == len(form) + 1
    edges = sorted(set(starts))
    parts = [normalize(text[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    assert "".join(parts).replace("ς", "σ") == form.replace("ς", "σ")


def test_only_one_capital_has_a_lower_case_of_two_characters():
    assert [c for c in map(chr, range(0x110000)) if len(c.lower()) > 1] == ["İ"]


@pytest.mark.parametrize(
    "written",
    [
        "Ok, so\r\nfine",
        "Ok, so\rfine",
        "Ok, so\u2028fine",
        "Ok, so <br /><br />fine",
        "\ufeffOk, so fine\n",
        "Ok,\u00a0so\u200bfine",
        "O\u00adk, s\u200do ﬁne",
        "Ｏｋ，\u3000ｓｏ　ｆｉｎｅ",
        "OK, SO FINE",
    ],
)
@pytest.mark.parametrize("name", ["characters", "bpe", "unigram"])
def test_what_looks_alike_gives_the_same_tokens(name, written, request):
    if name == "characters":
        tokenizer = make_tokenizer(name, {})
    else:
        tokenizer = request.getfixturevalue("learned")[name].tokenizer
    assert tokenizer.tokens(written) == tokenizer.tokens("ok, so fine")
    shown = [written[a:b] for a, b in tokenizer.spans(written)]
    assert "".join(normalize("".join(shown)).split()) == "ok,sofine"


def test_spans_of_characters_by_hand():
    text = "e\u0301½\u200b好"
    assert make_tokenizer("characters", {}).tokens(text) == ["é", "1", "⁄", "2", " ", "好"]
    assert make_tokenizer("characters", {}).spans(text) == [
        (0, 2),
        (2, 3),
        (3, 3),
        (3, 3),
        (3, 4),
        (4, 5),
    ]


def test_vowel_signs_stay_inside_their_words():
    assert joined_runs("नमस्ते, ที่นี่!") == "▁नमस्ते , ▁ที่นี่ !"
    assert joined_runs("x" * 150) == f"▁{'x' * 64} {'x' * 64} {'x' * 22}"


def peer(vocabulary):
    """The same model in Hugging Face's `tokenizers`."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    if vocabulary.name == "unigram":
        scores = [tuple(pair) for pair in vocabulary.options["scores"]]
        tokenizer = Tokenizer(models.Unigram([("<unk>", 0.0), *scores], unk_id=0))
    else:
        merges = [tuple(pair) for pair in vocabulary.options["merges"]]
        pieces = [c for pair in merges for c in "".join(pair)] + [a + b for a, b in merges]
        ids = {piece: i for i, piece in enumerate(dict.fromkeys(["<unk>", *pieces]))}
        tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tokenizer, set(tokenizer.get_vocab())


@pytest.mark.parametrize("name", ["bpe", "unigram"])
def test_subwords_are_those_of_hugging_face(learned, name, texts):
    tokenizer, known = peer(learned[name])
    for text in [*texts, "Unforgettable!! good房间goood", "aaaaaaaa bbbb"]:
        runs = "".join(c if c in known or c == " " else "" for c in joined_runs(text))
        expected = tokenizer.encode(runs).tokens
        assert [p for run in runs.split() for p in learned[name].tokenizer.split(run)] == expected
    assert len(learned[name]) <= 200
    assert max(map(len, learned[name].words)) > 3  # it has learned something


def test_few_ids_and_half_a_surrogate_pair():
    pytest.importorskip("tokenizers")
    with pytest.raises(
        InputError, match="not large enough .*; expected a larger config.vocab_size"
    ):
        Vocabulary.build(["abcdefgh"], size=8, tokenizer="unigram")
    for name in ("bpe", "unigram"):
        vocabulary = Vocabulary.build(["\ud800 good good"] * 3, size=20, tokenizer=name)
        assert vocabulary.tokenizer.tokens("\ud800")[-1] == "\ud800"
    with pytest.raises(InputError, match=r"texts\[1\] is None \(NoneType\)"):
        Vocabulary.build(["a", None], size=20, tokenizer="bpe")


def test_an_unseen_character_is_a_token_of_its_own(learned):
    for vocabulary in learned.values():
        assert vocabulary.tokenizer.tokens("🦜")[-1] == "🦜"
        assert vocabulary.encode("🦜")[-1] == UNKNOWN


def test_a_file_of_words_and_tokenizer_gives_the_same_ids(vocabulary, texts, tmp_path):
    vocabulary.save(tmp_path / "v.json")
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert (loaded.words, loaded.name) == (vocabulary.words, vocabulary.name)
    for text in texts:
        assert loaded.encode(text).tolist() == vocabulary.encode(text).tolist()


def test_bpe_learns_the_same_from_the_same_texts(learned, texts):
    assert learned_options("bpe", {}, texts, 196) == learned["bpe"].options
    # Any iterable of texts will do, though it is read twice.
    assert Vocabulary.build(iter(texts), size=200, tokenizer="bpe").words == learned["bpe"].words


def test_nearly_all_characters_of_held_out_chinese_are_known():
    held_out = "早餐很差，位置吵。"
    shares = []
    for name in ("words", "characters"):
        ids = Vocabulary.build(CHINESE, size=100, tokenizer=name).encode(held_out)[1:]
        shares.append((ids != UNKNOWN).mean())
    assert shares == [0, 1]


@dataclasses.dataclass
class Halves:
    """A tokenizer of one's own, with an option."""

    at: int = 1

    def tokens(self, text):
        return [text[: self.at], text[self.at :]]

    def spans(self, text):
        return [(0, min(self.at, len(text))), (min(self.at, len(text)), len(text))]


class Frequent:
    """One that learns: the most frequent letter is its only word."""

    def __init__(self, letter):
        self.letter = letter

    @staticmethod
    def learn(texts, size):
        text = "".join(texts)
        return {"letter": max(sorted(set(text)), key=text.count)}

    def tokens(self, text):
        return [c for c in text if c == self.letter]

    def spans(self, text):
        return [(i, i + 1) for i, c in enumerate(text) if c == self.letter]


def test_a_tokenizer_of_ones_own(tmp_path):
    name = f"{__name__}:Halves"
    vocabulary = Vocabulary.build(["abc", "a"], size=9, tokenizer=name, options={"at": 2})
    assert vocabulary.words == ("a", "ab", "c")  # "" is no word
    vocabulary.save(tmp_path / "v.json")
    assert Vocabulary.load(tmp_path / "v.json").encode("abc").tolist() == [1, 5, 6]
    learning = Vocabulary.build(["abb", "b"], size=9, tokenizer=f"{__name__}:Frequent")
    assert (learning.words, learning.options) == (("b",), {"letter": "b"})


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("letters", {}, "config.tokenizer.name is 'letters'; expected 'words', 'marks',"),
        ("words", {"at": 2}, "config.tokenizer.options has at; expected none with 'words'"),
        (
            f"{__name__}:Halves",
            {"size": 2},
            "config.tokenizer.options has size, which Halves does not take",
        ),
        (f"{__name__}:Vanished", {}, "has no name Vanished"),
        ("collections:Counter", {}, "which has no method tokens"),
        ("fractions:Fraction", {"numerator": "x"}, "cannot be made with its options .ValueError"),
    ],
)
def test_a_wrong_tokenizer_is_refused_in_one_line(name, options, message):
    with pytest.raises(InputError, match=message) as caught:
        check_tokenizer(name, options)
    assert "\n" not in str(caught.value)


def test_learning_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setattr(find_tokenizer, "find_spec", lambda name: None)
    for act in (
        lambda: check_tokenizer("bpe", {}),
        lambda: Vocabulary.build(["a"], size=9, tokenizer="bpe"),
    ):
        with pytest.raises(InputError, match=r"pip install 'bahdanau-jax\[subwords\]'"):
            act()
    assert Bpe([("a", "b")]).tokens("ab") == ["▁", "ab"]  # encoding needs nothing
    assert Unigram([("▁ab", -1.0)]).spans("ab") == [(0, 2)]


@pytest.mark.parametrize("bad", [float("nan"), None, 3, b"fine"])
def test_what_is_no_text_is_named_with_its_position(bad):
    vocabulary = Vocabulary(["fine"])
    found = re.escape(ascii(bad))
    for act in (
        lambda: Vocabulary.build(["fine", bad], size=9),
        lambda: vocabulary.encode_all(["fine", bad]),
        lambda: vocabulary.gather(["fine", bad], "."),
    ):
        with pytest.raises(InputError, match=rf"^texts\[1\] is {found} \(\w+\); expected a text$"):
            act()
    with pytest.raises(InputError, match=rf"^the text is {found} \(\w+\); expected a text$"):
        vocabulary.encode(bad)


@pytest.mark.parametrize(
    "tokenizer", ["words", {"name": "words"}, {"name": "nowhere", "options": {}}]
)
def test_a_damaged_tokenizer_is_refused_with_its_file(tmp_path, tokenizer):
    (tmp_path / "v.json").write_text(json.dumps({"words": ["a"], "tokenizer": tokenizer}))
    with pytest.raises(InputError, match=r"v.json: ") as caught:
        Vocabulary.load(tmp_path / "v.json")
    assert "\n" not in str(caught.value)
