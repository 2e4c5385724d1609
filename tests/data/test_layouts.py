"""Ten well-known data sets, rebuilt small as their owners publish them, are read as they are meant."""

import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_array
from sklearn.feature_extraction.text import CountVectorizer

from bahdanau_jax import Predictor
from bahdanau_jax.data import files
from bahdanau_jax.training import train
from experiments import baseline, imdb_best

N = 40


def load_files(path, **fields):
    """Reads the texts, and fits the baseline to them."""
    dataset = files.load_files(path, **fields)
    names, train = dataset.label_names, dataset.train
    occurs = csr_array(CountVectorizer(binary=True, dtype=np.float32).fit_transform(train.texts))
    models = baseline.fit(occurs, train.labels, len(names), alpha=1.0, seed=0)
    outputs = len(names) if len(names) > 2 else 1
    assert baseline.log_odds(models[1.0], occurs).shape == (len(train), outputs)
    return dataset


def texts_of(examples):
    return set(examples.texts)


def everything(dataset):
    parts = (dataset.train, dataset.validation, dataset.read_test())
    return {
        text: dataset.label_names[label]
        for part in parts
        for text, label in zip(part.texts, part.labels, strict=True)
    }


def write_imdb(root):
    """aclImdb: train and test with pos and neg; train/unsup has no labels."""
    for part, names in {"train": ("neg", "pos", "unsup"), "test": ("neg", "pos")}.items():
        for name in names:
            (root / part / name).mkdir(parents=True)
            for i in range(N if name == "unsup" else 10):
                (root / part / name / f"{i}_7.txt").write_text(f"{part} {name} <br /> review {i}")
        (root / part / "urls_pos.txt").write_text("http://www.imdb.com")
    (root / "imdb.vocab").write_text("the\n")


def test_imdb_with_its_unlabelled_reviews(tmp_path):
    root = tmp_path / "aclImdb"
    write_imdb(root)
    for dataset in (
        load_files(str(root)),
        load_files(str(root / "train"), test_path=str(root / "test")),
    ):
        assert dataset.label_names == ("neg", "pos")
        assert len(dataset.train) + len(dataset.validation) == 20
        assert texts_of(dataset.read_test()) == {
            f"test {name} <br /> review {i}" for name in ("neg", "pos") for i in range(10)
        }
        assert len(dataset.read_unlabelled()) == N


def test_sst2(tmp_path):
    """GLUE: sentence and label, tabs, quotes are characters, dev.tsv has the labels of the test."""
    train = "".join(f'film {i} is "a "" joy\t{i % 2}\n' for i in range(N)) + '" unflinching \t0\n'
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n" + train)
    (tmp_path / "dev.tsv").write_text('sentence\tlabel\n"quoted"\t1\ndull\t0\n')
    dataset = load_files(str(tmp_path / "train.tsv"), test_path=str(tmp_path / "dev.tsv"))
    assert everything(dataset)['" unflinching '] == "0"
    assert everything(dataset)['film 3 is "a "" joy'] == "1"
    assert len(everything(dataset)) == N + 3
    assert texts_of(dataset.read_test()) == {'"quoted"', "dull"}
    assert dataset.notes[0] == (
        "reading train.tsv as tab-separated, no quoting, UTF-8; header, text: sentence, label: label"
    )


def test_trec(tmp_path):
    """train_5500.label: label, blank, question; latin-1."""
    rows = [f"{('DESC:manner', 'ENTY:animal', 'HUM:ind')[i % 3]} What is {i} ?" for i in range(N)]
    path = tmp_path / "train_5500.label"
    path.write_bytes("\n".join([*rows, "ENTY:animal Who is in Québec ?", ""]).encode("latin-1"))
    found = everything(load_files(str(path)))
    assert found["Who is in Québec ?"] == found["What is 1 ?"] == "ENTY:animal"
    assert len(found) == N + 1


def write_ag_news(path):
    """No header, every field quoted: class, title, description."""
    subjects = ("war", "match", "bank", "chip")
    path.write_text(
        "".join(
            f'"{i % 4 + 1}","A {subjects[i % 4]}, {i}","He said ""no"" \\$ {i}"\n' for i in range(N)
        )
    )


def test_ag_news(tmp_path):
    path = tmp_path / "train.csv"
    write_ag_news(path)
    dataset = load_files(str(path), label="1", text="2,3")
    assert dataset.label_names == ("1", "2", "3", "4")
    assert everything(dataset)['A match, 5\nHe said "no" \\$ 5'] == "2"
    assert len(everything(dataset)) == N
    assert "no header" in dataset.notes[0]


def test_sms_spam(tmp_path):
    """UCI: no ending, no header, a tab; quotes are characters. Kaggle's copy: latin-1, empty columns."""
    path = tmp_path / "SMSSpamCollection"
    rows = [(f"{'ham' if i % 4 else 'spam'}", f'message "{i} £') for i in range(N)]
    path.write_text("".join(f"{label}\t{text}\n" for label, text in rows))
    assert everything(load_files(str(path))) == {text: label for label, text in rows}
    path = tmp_path / "spam.csv"
    lines = [f'{label},"it\'s, {i} £",,,\r\n' for i, (label, _) in enumerate(rows)]
    path.write_bytes("".join(["v1,v2,,,\r\n", *lines]).encode("latin-1"))
    dataset = load_files(str(path), text="v2", label="v1")
    assert everything(dataset)["it's, 4 £"] == "spam"
    assert "comma-separated, quoting, windows-1252" in dataset.notes[0]


GROUPS = ("alt.atheism", "rec.autos", "sci.space")


def write_20_newsgroups(root):
    """A folder for each group, files without ending, some in latin-1."""
    for group in GROUPS:
        (root / group).mkdir(parents=True)
        for i in range(20):
            content = f"From: a@b.c ({group})\nSubject: Ren\xe9 {i}\n\nText".encode("latin-1")
            (root / group / str(49960 + i)).write_bytes(content)


def test_20_newsgroups(tmp_path):
    write_20_newsgroups(tmp_path / "20news-bydate-train")
    dataset = load_files(str(tmp_path / "20news-bydate-train"))
    assert dataset.label_names == GROUPS
    assert all("René" in text for text in everything(dataset))
    assert any("texts that are not UTF-8, read as windows-1252: 60 " in x for x in dataset.notes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "fields", "names"),
    [
        (write_ag_news, {"text": "2,3", "label": "1"}, ("1", "2", "3", "4")),
        (write_20_newsgroups, {}, GROUPS),
    ],
)
def test_the_best_recipe_trains_on_more_than_two_classes(tmp_path, write, fields, names):
    write(tmp_path / "train.csv")
    config = imdb_best.get_config()
    config.data.source, config.data.path = "files", str(tmp_path / "train.csv")
    config.data.validation_size = config.data.test_size = 0
    config.data.update(fields)
    config.init_from, config.vocab_size = "", 100
    config.max_length, config.bucket_lengths = 16, (16,)
    config.model.embedding_features = config.model.hidden_features = 4
    config.model.attention_units, config.model.head_features = 4, 4
    config.model.ngram_rows, config.batch_size, config.epochs = 4096, 16, 1
    result = train.train_and_evaluate(config, tmp_path / "run")
    assert result["splits"]["test"]["accuracy"] == 1  # of the n-grams: a word tells the class
    [prediction] = Predictor.load(tmp_path / "run")(["a chip of rec.autos"])
    assert prediction.probabilities.shape == (len(names),)
    assert prediction.probabilities.sum() == pytest.approx(1)
    assert prediction.label == names[prediction.probabilities.argmax()]


@pytest.mark.parametrize("ending", ["json", "json.gz", "jsonl", "ndjson.zst"])
def test_yelp(tmp_path, ending):
    """yelp_academic_dataset_review.json: an object a line, stars as 1.0 to 5.0."""
    path = tmp_path / f"yelp_academic_dataset_review.{ending}"
    records = [
        {"review_id": f"x{i}", "business_id": f"b{i % 9}", "stars": float(i % 5 + 1), "text": f"é {i}\n"}
        for i in range(N)
    ]  # fmt: skip
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    if ending.endswith("zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    dataset = load_files(str(path), label="stars", id="review_id", group="business_id")
    assert dataset.label_names == ("1", "2", "3", "4", "5")
    assert everything(dataset) == {x["text"]: str(int(x["stars"])) for x in records}
    business = {x["text"]: x["business_id"] for x in records}
    parts = [dataset.train, dataset.validation, dataset.read_test()]
    groups = [{business[text] for text in part.texts} for part in parts]
    assert groups[0] and groups[2] and not groups[0] & groups[2] and not groups[0] & groups[1]
    by_id = {x["review_id"]: x["text"] for x in records}
    assert [by_id[name] for name in dataset.train.ids] == list(dataset.train.texts)


def test_amazon_in_fasttext_format(tmp_path):
    path = tmp_path / "train.ft.txt"
    path.write_text(
        "".join(f'__label__{i % 2 + 1} Title {i}: "The rest, of it\n' for i in range(N))
    )
    dataset = load_files(str(path))
    assert dataset.label_names == ("1", "2")
    assert everything(dataset)['Title 3: "The rest, of it'] == "2"


def test_doccano(tmp_path):
    """JSON lines with a list of labels; texts nobody has labelled have an empty one."""
    path = tmp_path / "all.jsonl"
    records = [
        {"id": i, "text": f"text {i}", "label": ["pos"] if i % 2 else ["neg"]} for i in range(N)
    ]
    lines = [json.dumps(x) for x in [*records, {"id": N, "text": "not yet", "label": []}]]
    path.write_text("\n".join(lines))
    dataset = load_files(str(path))
    assert everything(dataset) == {x["text"]: x["label"][0] for x in records}
    assert dataset.read_unlabelled() == ["not yet"]
    line = "all.jsonl: texts without a label, kept as unlabelled: 1 (the first: line 41)"
    assert line in dataset.notes


def test_label_studio(tmp_path):
    """A JSON list of tasks. The label is nested deep in each of them."""
    path = tmp_path / "project-1.json"

    def task(i):
        choice = {"value": {"choices": [("Positive", "Negative")[i % 2]]}, "type": "choices"}
        return {"id": i, "annotations": [{"id": i, "result": [choice]}], "data": {"text": f"t {i}"}}

    path.write_text(json.dumps([task(i) for i in range(N)], indent=2))
    dataset = load_files(str(path), text="data.text", label="annotations.0.result.0.value.choices")
    assert everything(dataset) == {f"t {i}": ("Positive", "Negative")[i % 2] for i in range(N)}
    message = "row 1 has fields id, annotations.0.id, .*data.text; expected a field 'text'"
    with pytest.raises(ValueError, match=message):
        load_files(str(path))


@pytest.mark.parametrize("form", ["parquet", "arrow", "feather"])
def test_several_columns_of_parquet_and_arrow(tmp_path, form):
    table = pa.table(
        {
            "idx": range(N),
            "premise": [f"premise {i}" for i in range(N)],
            "hypothesis": [f"hypothesis {i}" if i else None for i in range(N)],
            "label": pa.array([i % 3 == 0 for i in range(N)]).dictionary_encode(),
        }
    )
    path = tmp_path / f"train.{form}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=7)
    elif form == "arrow":  # as Hugging Face's datasets write it
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table)
    found = everything(load_files(str(path), text="premise,hypothesis"))
    assert found["premise 3\nhypothesis 3"] == "true" and found["premise 0"] == "true"
    assert len(found) == N
    assert everything(load_files(str(path), text="2,3", label="4")) == found


def test_class_names_that_hugging_face_keeps_in_parquet(tmp_path):
    label = {"names": ["negative", "positive"], "_type": "ClassLabel"}
    info = json.dumps({"info": {"features": {"label": label}}})
    table = pa.table({"text": [f"film {i}" for i in range(N)], "label": [i % 2 for i in range(N)]})
    table = pa.concat_tables([table, pa.table({"text": ["unknown"], "label": [-1]})])
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "a.parquet")
    dataset = load_files(str(tmp_path / "a.parquet"))
    assert everything(dataset)["film 3"] == "positive" and dataset.label_names == tuple(
        label["names"]
    )
    assert dataset.read_unlabelled() == ["unknown"]
