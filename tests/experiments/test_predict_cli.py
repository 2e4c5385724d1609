"""The command gives the same predictions as the Predictor, from a text, a file or a pipe, in order."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import experiments.predict as cli
from bahdanau_jax import Prediction, Predictor
from bahdanau_jax.data.synthetic import make_up

ROOT = Path(cli.__file__).parent.parent


@pytest.fixture(scope="module")
def workdir(tiny_run):
    return tiny_run


@pytest.fixture(scope="module")
def texts():
    made_up = make_up(train_size=20, validation_size=1, test_size=1, seed=7).train.texts
    return ["", 'say "no", twice\nor not', "Été zyzzyva <b>", "half a pair \ud83d", *made_up]


@pytest.fixture(scope="module")
def predictions(workdir, texts):
    return Predictor.load(workdir)(texts)


def run(workdir, *arguments: str) -> None:
    assert cli.main(["predict", f"--workdir={workdir}", *arguments]) == 0


def write_jsonl(file: Path, texts) -> Path:
    file.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


@pytest.mark.parametrize("chunk", [3, 4096])
def test_jsonl_in_and_out(workdir, texts, predictions, tmp_path, monkeypatch, chunk, capsys):
    monkeypatch.setattr(cli, "CHUNK", chunk)
    file = write_jsonl(tmp_path / "in.jsonl", texts)
    run(workdir, f"--input={file}", f"--output={tmp_path}/out.jsonl", "--weights")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["row"] for record in records] == list(range(1, len(texts) + 1))
    for got, want in zip(records, predictions, strict=True):
        assert got["label"] == want.label
        assert got["words"] == [word.replace("\ud83d", "\ufffd") for word in want.words]
        assert list(got["probabilities"]) == ["neg", "pos"]
        probabilities = list(got["probabilities"].values())
        np.testing.assert_allclose(probabilities, want.probabilities, atol=1e-5)
        assert got["probability"] == max(probabilities)
        np.testing.assert_allclose(got["weights"], want.weights, atol=1e-5)
    said = capsys.readouterr().err
    assert "in.jsonl: texts or labels with bad bytes, read as U+FFFD: 1 (the first: line 4)" in said


def test_csv_in_and_out(workdir, texts, predictions, tmp_path):
    texts, predictions = texts[:3] + texts[4:], predictions[:3] + predictions[4:]  # UTF-8 only
    with open(tmp_path / "in.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("id", "body"), *((i, x) for i, x in enumerate(texts))])
    arguments = [f"--input={tmp_path}/in.csv", "--column=body", f"--output={tmp_path}/out.csv"]
    run(workdir, *arguments, "--weights")
    with open(tmp_path / "out.csv", newline="", encoding="utf-8") as file:
        records = list(csv.DictReader(file))
    assert [record["row"] for record in records] == [str(i + 1) for i in range(len(texts))]
    for got, want in zip(records, predictions, strict=True):
        assert got["label"] == want.label
        p = [float(got["probability_neg"]), float(got["probability_pos"])]
        np.testing.assert_allclose(p, want.probabilities, atol=1e-5)
        assert [word for word, _ in json.loads(got["weights"])] == want.words
    run(workdir, *arguments)  # an old output makes way
    first, second = (tmp_path / "out.csv").read_text().splitlines()[:2]
    assert first == "row,label,probability,probability_neg,probability_pos"
    assert second.startswith("1,")


@pytest.mark.slow
def test_a_pipe_is_answered_line_by_line(workdir):
    command = [sys.executable, "-P", "-m", "experiments.predict", f"--workdir={workdir}"]
    with subprocess.Popen(
        [*command, "--input=-", "--output=jsonl"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        for row, text in enumerate(["a superb film", "", "boring"], start=1):
            process.stdin.write(text + "\n")
            assert json.loads(process.stdout.readline())["row"] == row
        process.stdin.close()
        assert process.stdout.read() == "" and process.wait() == 0
        assert process.stderr.read() == ""


def test_a_text_is_displayed(workdir, capsys):
    run(workdir, "A fine\x1b[31m zyzzyva.", "word " * 200)
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "A fine [31m zyzzyva." in out and "zyzzyva" in out
    assert "(not in the vocabulary)" in out and "all even: 20.0% each" in out
    assert "the model reads the last 64 of 200 words" in out


def test_words_with_more_attention_have_stronger_colours():
    prediction = Prediction(
        label="pos",
        probability=0.9,
        probabilities=np.array([0.1, 0.9]),
        words=["<start>", "one", "two", "three"],
        weights=np.array([0.1, 0.5, 0.1, 0.3]),
        known=np.array([True, True, True, False]),
    )
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=80)
    cli.show(console, "One, two three", prediction)
    line = out.getvalue().splitlines()[1]
    strongest, middle = (
        "48;2;" + ";".join(map(str, bytes.fromhex(cli.SHADES[i][1:]))) for i in (4, 2)
    )
    # 30 is black, 4 underlines what the vocabulary lacks.
    assert line == f"\x1b[30;{strongest}mOne\x1b[0m, two \x1b[4;30;{middle}mthree\x1b[0m"
    listed = out.getvalue().splitlines()[2:6]
    assert listed[0] == f"  \x1b[30;{strongest}mone\x1b[0m       50.0%"
    assert listed[1].startswith(f"  \x1b[30;{middle}mthree\x1b[0m     30.0%  (not in")
    assert {line.split()[0] for line in listed[2:]} == {"<start>", "two"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a text"], "--workdir is missing"),
        (["--workdir=x"], "expected a text or --input; found neither"),
        (["--workdir=x", "--input=a.csv", "a text"], "found both"),
        (["--workdir=x", "--input="], "--input is empty"),
        (["--workdir=x", "--input=a.csv", "--output=b.txt"], "--output=b.txt: expected csv, jsonl"),
        (["--workdir=x", "--input=a.csv"], "x is not a run folder"),
        (["--workdir=x", "--format=xml", "a"], "--format=xml"),
        (["--workdir=x", "--wieghts", "a"], "'wieghts'"),
        (["--workdir=no/such/run", "a"], "no/such/run is not a run folder"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(capsys, arguments, message):
    assert cli.main(["predict", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("error: ") and output.err.count("\n") == 1
    assert message in output.err


def test_predictions_before_a_bad_line_of_stdin_are_kept(workdir, tmp_path, capsys, monkeypatch):
    lines = b'{"text": "a"}\n{"text": "b"}\n{"body": "c"}\n'
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    arguments = ["--input=-", "--format=jsonl", f"--output={tmp_path}/out.csv"]
    assert cli.main(["predict", f"--workdir={workdir}", *arguments]) == 2
    error = capsys.readouterr().err
    assert "line 3 has fields body" in error and "the 2 predictions before it are kept" in error
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("content", "flag", "code", "message"),
    [
        (b"id,body\n1,fine\n", "--column=bdy", 2, "no column 'bdy'; its columns are id, body"),
        (b"text,id\nfine,1\ndull\n", "--format=csv", 2, "in.csv: line 3 has 1 fields; expected 2"),
        (b"text,id\nfine,1\n", "--encoding=utf-9", 2, "--encoding is 'utf-9'; expected one of"),
        (b"a\tb\tc\nd\te\tf\n", "--header=no", 2, "no column 'text'; it has no header"),
        (None, "--format=csv", 66, "in.csv cannot be read: No such file"),
    ],
)
def test_a_fault_of_a_file_is_found_first(workdir, tmp_path, capsys, content, flag, code, message):
    if content is not None:
        (tmp_path / "in.csv").write_bytes(content)
    (tmp_path / "out.csv").write_text("kept")
    arguments = [f"--input={tmp_path}/in.csv", f"--output={tmp_path}/out.csv", flag]
    assert cli.main(["predict", f"--workdir={workdir}", *arguments]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert (tmp_path / "out.csv").read_text() == "kept"


def test_column_and_layout_of_the_run_s_own_data(workdir, tmp_path, capsys):
    shutil.copytree(workdir, run_folder := tmp_path / "run")
    config = json.loads((run_folder / "config.json").read_text())
    config["data"] |= {"path": "train.csv", "text": "2", "header": "no", "encoding": "gb18030"}
    (run_folder / "config.json").write_text(json.dumps(config))
    for name in ("new.csv", "new.txt"):
        (tmp_path / name).write_text("a,好 fine\nb,dull\n", encoding="gb18030")
        arguments = [f"--input={tmp_path}/{name}", "--encoding=gb18030"[: 99 * (name[-1] == "t")]]
        run(run_folder, *filter(None, arguments), f"--output={tmp_path}/out.csv")
        assert len((tmp_path / "out.csv").read_text().splitlines()) == 3
    said = capsys.readouterr().err
    assert "reading new.csv as comma-separated, no quoting, gb18030; no header, text: 2\n" in said
    assert "reading new.txt as txt, gb18030; a text per line\n" in said


def test_input_and_output_must_differ(workdir, tmp_path, capsys):
    (tmp_path / "a.csv").write_text("text\nfine\n")
    arguments = [f"--input={tmp_path}/a.csv", f"--output={tmp_path}/../{tmp_path.name}/a.csv"]
    assert cli.main(["predict", f"--workdir={workdir}", *arguments]) == 2
    assert "are the same file" in capsys.readouterr().err
    assert (tmp_path / "a.csv").read_text() == "text\nfine\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the system has no /dev/full")
def test_a_full_disk_is_reported_in_one_line(workdir, tmp_path, capsys):
    os.symlink("/dev/full", tmp_path / "out.csv")
    (tmp_path / "in.txt").write_text("fine\n")
    arguments = [f"--input={tmp_path}/in.txt", f"--output={tmp_path}/out.csv"]
    assert cli.main(["predict", f"--workdir={workdir}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[1].endswith("out.csv: No space left on device")
