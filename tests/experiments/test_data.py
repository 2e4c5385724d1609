"""`python -m experiments.data` shows a config's data without training; baseline and run say the same."""

import pytest

from experiments import baseline, data


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "reviews.tsv"
    rows = [f'a "{("fine", "dull")[i % 2]} film {i}\t{("pos", "neg")[i % 2]} \n' for i in range(60)]
    path.write_text("sentence\tmood\n" + "".join(rows) + "odd one\tPos\n\tneg\n")
    return path


def test_the_table_names_what_was_read(path, capsys):
    arguments = ["--config=experiments/own_data.py", f"--config.data.path={path}"]
    columns = ["--config.data.text=sentence", "--config.data.label=mood"]
    assert data.main(["data", *arguments, *columns]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for expected in (
        "reading reviews.tsv as tab-separated, no quoting, UTF-8; header, text: sentence, label: mood",
        "reviews.tsv: labels with blanks around them, removed: 60 (the first: line 2)",
        "reviews.tsv: empty texts, left out: 1 (the first: line 63)",
        "texts 49 6 6",
        "neg 24 (49.0%) 3 (50.0%) 3 (50.0%)",
        "scripts: latin 100.0%",
        "warning: classes with a single text, kept in train and never tested: Pos",
        "warning: the labels 'Pos' and 'pos' differ only by case or blanks",
        'reviews.tsv:2 [pos] a "fine film 0',
    ):
        assert expected in shown
    assert data.main(["data", *arguments, "--config.data.text=body"]) == 2
    error = capsys.readouterr().err
    assert "reviews.tsv has no column 'body'; its columns are sentence, mood" in error
    assert error.count("\n") == 1


def test_the_baseline_says_how_it_read_and_warns(path, capsys, tmp_path):
    fields = {"source": "files", "path": str(path), "test_size": 10}
    result = baseline.train_and_evaluate(fields, tmp_path, ngrams=1, seed=0)
    assert result["splits"]["test"]["accuracy"] == 1
    said = capsys.readouterr().err
    assert said.startswith("reading reviews.tsv as tab-separated") and "differ only by case" in said
