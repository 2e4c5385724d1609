"""Words and ids follow Keras's rule, do not depend on the order of texts, and come back from the file."""

import json
import resource
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bahdanau_jax.data.tokenizer import split_words, word_spans
from bahdanau_jax.data.vocabulary import Vocabulary
from bahdanau_jax.errors import InputError
from bahdanau_jax.token_ids import FIRST_WORD, PAD, START, UNKNOWN

# Half surrogate pairs too: JSON from the web holds them.
any_text = st.text(st.characters(exclude_categories=()), max_size=60)


def test_split_words_follows_kerass_rule():
    assert split_words("It's <br />GREAT,\treally\nwell-made!") == [
        *("it's", "br", "great", "really", "well", "made")
    ]
    assert split_words("") == split_words(" .,; ") == []
    # Only space, tab and line ends separate. Keras keeps CR, which no review of IMDB has.
    assert split_words("a\u00a0b c\r\nd\re") == ["a\u00a0b", "c", "d", "e"]


def test_marks_are_words_on_request():
    text = "It's <br />GREAT,\treally well-made!! 9/10 :("
    words = ["it's", "great", ",", "really", "well-made", "!", "!", "9", "/", "10", ":", "("]
    assert split_words(text, marks=True) == words


@given(any_text.map(lambda text: text.replace("9", "<br />")))
def test_spans_give_the_words_and_marks(text):
    spans = word_spans(text, marks=True)
    words = [text[start:end].lower() for start, end in spans]
    assert words == split_words(text, marks=True)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))


def test_marks_survive_save_and_load(tmp_path):
    Vocabulary.build(["So good!"], size=100, tokenizer="marks").save(tmp_path / "v.json")
    loaded = Vocabulary.load(tmp_path / "v.json")
    assert loaded.name == "marks" and set(loaded.words) == {"so", "good", "!"}
    assert loaded.decode(loaded.encode("good!")) == ["<start>", "good", "!"]


@given(any_text)
def test_spans_give_the_words(text):
    words, spans = split_words(text), word_spans(text)
    assert len(words) == len(spans)
    for word, (start, end) in zip(words, spans, strict=True):
        # A capital sigma's lower case depends on what follows the word.
        assert text[start:end].lower().replace("ς", "σ") == word.replace("ς", "σ")


@given(any_text)
def test_joined_words_split_into_the_same_words(text):
    words = split_words(text)
    assert split_words(" ".join(words)) == words
    assert all(words)


def test_ids_are_ordered_by_frequency_then_by_word():
    vocabulary = Vocabulary.build(["b b b c c a a", "d"], size=100)
    assert vocabulary.words == ("b", "a", "c", "d")
    assert len(vocabulary) == FIRST_WORD + 4
    ids = vocabulary.encode("D, b; e")
    assert ids.dtype == np.int32
    assert ids.tolist() == [START, FIRST_WORD + 3, FIRST_WORD, UNKNOWN]


@given(st.lists(any_text, max_size=8), st.randoms(use_true_random=False))
def test_the_vocabulary_does_not_depend_on_the_order_of_the_texts(texts, random):
    shuffled = list(texts)
    random.shuffle(shuffled)
    assert Vocabulary.build(texts, size=12).words == Vocabulary.build(shuffled, size=12).words


@given(st.lists(any_text, max_size=8), st.integers(5, 40))
def test_all_ids_are_below_the_size(texts, size):
    vocabulary = Vocabulary.build(texts, size=size)
    assert FIRST_WORD <= len(vocabulary) <= size
    for ids in vocabulary.encode_all(texts):
        assert ids[0] == START
        assert ids.max() < len(vocabulary)
        assert ids.min() > PAD


@given(any_text)
def test_decode_returns_the_words(text):
    vocabulary = Vocabulary.build([text], size=1_000)
    assert vocabulary.decode(vocabulary.encode(text)) == ["<start>", *split_words(text)]


@given(any_text, st.integers(1, 10))
def test_a_cut_keeps_the_last_ids(text, max_length):
    vocabulary = Vocabulary.build([text], size=8)
    whole = vocabulary.encode(text)
    cut = vocabulary.encode(text, max_length=max_length)
    assert cut.tolist() == whole.tolist()[-max_length:]


def test_decode_drops_padding_and_shows_special_ids():
    vocabulary = Vocabulary(["film"])
    assert vocabulary.decode(np.array([0, 0, 1, 4, 2, 3, 0])) == [
        *("<start>", "film", "<unk>", "<unused>")
    ]
    for wrong in (-1, 5):
        with pytest.raises(InputError, match=f"id {wrong} .* 0 to 4"):
            vocabulary.decode([wrong])


def test_an_empty_review_and_one_of_100_000_words():
    vocabulary = Vocabulary(["film"])
    assert vocabulary.encode("").tolist() == [START]
    assert vocabulary.encode(" ...<>").tolist() == [START]
    long = "a film " * 50_000
    assert len(vocabulary.encode(long)) == 100_001
    cut = vocabulary.encode(long, max_length=500)
    assert cut.tolist() == [UNKNOWN, FIRST_WORD] * 250


def test_sizes_and_lengths_out_of_range_are_refused():
    with pytest.raises(InputError, match="size is 4; expected at least 5"):
        Vocabulary.build(["a"], size=4)
    with pytest.raises(InputError, match="max_length is 0"):
        Vocabulary(["a"]).encode("a", max_length=0)
    with pytest.raises(InputError, match="'a' twice"):
        Vocabulary(["a", "b", "a"])


@given(texts=st.lists(any_text, max_size=5))
def test_save_and_load_round_trip(texts, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "vocabulary.json"
    vocabulary = Vocabulary.build(texts, size=50)
    vocabulary.save(path)
    assert Vocabulary.load(path).words == vocabulary.words
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_failed_save_names_the_file_and_keeps_the_old_one(tmp_path):
    path = tmp_path / "vocabulary.json"
    path.mkdir()
    with pytest.raises(
        InputError, match=r"^\S+/vocabulary\.json cannot be written: Is a directory$"
    ):
        Vocabulary(["a"]).save(path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    path.rmdir()
    Vocabulary(["a"]).save(path)
    before = path.read_bytes()
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))
    try:
        with pytest.raises(
            InputError, match=r"vocabulary\.json cannot be written: File too large$"
        ):
            Vocabulary(["another"]).save(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [file.name for file in tmp_path.iterdir()] == ["vocabulary.json"]
    assert path.read_bytes() == before


def test_half_a_surrogate_pair_is_saved(tmp_path):
    halves = (
        "\ud83d\ude00",
        "\ud83d",
        "\N{GRINNING FACE}",
    )  # the first two code points are not the last
    Vocabulary(halves).save(tmp_path / "vocabulary.json")
    assert Vocabulary.load(tmp_path / "vocabulary.json").words == halves


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not valid JSON"),
        (b'{"words": ["a"', "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"9" * 10_000, "not valid JSON"),
        (b'["a"]', "expected"),
        (b"{}", "expected"),
        (b'{"words": "abc"}', "expected"),
        (b'{"words": ["a", 3]}', r"words\[1\] is 3"),
        (b'{"words": ["a", null]}', r"words\[1\] is None"),
        (b'{"words": [""]}', r"words\[0\] is ''"),
        (b'{"words": ["a", "b", "a"]}', "'a' twice"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, content, complaint):
    path = tmp_path / "vocabulary.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=complaint) as caught:
        Vocabulary.load(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_missing_or_huge_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        Vocabulary.load(tmp_path / "vocabulary.json")
    with pytest.raises(InputError, match="Is a directory"):
        Vocabulary.load(tmp_path)
    huge = tmp_path / "huge.json"
    with open(huge, "wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match="1,073,741,824 bytes is too large"):
        Vocabulary.load(huge)


def test_the_file_is_plain_json(tmp_path):
    Vocabulary(["film", "été"]).save(tmp_path / "vocabulary.json")
    content = json.loads((tmp_path / "vocabulary.json").read_text(encoding="utf-8"))
    assert content == {"words": ["film", "été"]}


def test_100_000_reviews_take_well_under_a_minute():
    words = [f"word{i}" for i in range(20_000)]
    rng = np.random.default_rng(0)
    texts = [" ".join(words[i] for i in rng.integers(0, 20_000, 235)) for _ in range(1_000)]
    vocabulary = Vocabulary.build(texts, size=10_000)
    start = time.process_time()
    vocabulary.encode_all(texts, max_length=500)
    assert (time.process_time() - start) * 100 < 30
