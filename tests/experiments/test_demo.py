"""The demo answers in a browser, on this machine alone, and its errors are one line."""

import importlib
import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bahdanau_jax.runs.predictions import read_predictions, read_reviews
from experiments import demo
from experiments.config_file import ROOT

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture(scope="module")
def url(tiny_run):
    """Of the demo in a process of its own: Gradio leaves event loops and sockets open."""
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("needs gradio")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "experiments.demo", f"--workdir={tiny_run}", f"--port={port}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_the_page_is_for_this_machine_alone(url):
    assert url.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(url) as response:
        page = response.read().decode()
    (config,) = re.findall(r"window.gradio_config = (\{.*?\});\s*</script>", page)
    config = json.loads(config)
    assert not config["analytics_enabled"] and not config["stylesheets"]


def test_a_taken_port_is_named(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert demo.main(["demo", "--workdir=a", f"--port={port}"]) == 2
    assert f"--port={port}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "--workdir is missing"),
        (["--workdir=a,"], "--workdir is missing"),
        (["--workdir=a", "--port=65536"], "--port=65536"),
        (["--workdir=nowhere"], "nowhere"),
    ],
)
def test_wrong_flags(arguments, expected, monkeypatch, capsys):
    monkeypatch.setattr(demo, "gradio", lambda: None)
    assert demo.main(["demo", *arguments]) == 2
    error = capsys.readouterr().err
    assert expected in error and error.count("\n") == 1


def test_without_gradio_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert demo.main(["demo", "--workdir=a"]) == 2
    error = capsys.readouterr().err
    assert "pip install 'bahdanau-jax[demo]'" in error and error.count("\n") == 1


def test_examples_are_the_most_confident_mistakes(tiny_run):
    test, texts = read_predictions(tiny_run), read_reviews(tiny_run)
    found = demo.mistakes(tiny_run, ["neg", "pos"])
    wrong = sorted(
        (-p.max(), i) for i, p in enumerate(test.probabilities) if p.argmax() != test.labels[i]
    )
    expected = [texts[test.ids[i]] for _, i in wrong[: demo.EXAMPLES]]
    assert expected and [text for _, text in found] == expected
    assert {note for note, _ in found} <= {"taken for neg", "taken for pos"}


def test_runs_of_the_same_name_are_told_apart(tiny_run):
    assert list(demo.load([str(tiny_run)])) == ["tiny"]
    assert list(demo.load([str(tiny_run), f"{tiny_run}/../tiny"])) == [
        str(tiny_run),
        f"{tiny_run}/../tiny",
    ]


@pytest.mark.slow
def test_typing_in_a_browser(url, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    if not CHROMIUM.exists():
        pytest.skip(f"needs {CHROMIUM}")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    arguments = "headless no-sandbox disable-gpu disable-quic no-first-run disable-sync".split()
    arguments += ["disable-background-networking", "disable-component-update"]
    for argument in (*arguments, f"user-data-dir={tmp_path}"):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    with webdriver.Chrome(options=options, service=service) as browser:

        def texts(driver):
            found = "[...document.querySelectorAll('.answers .text')].map(x => x.innerText)"
            return driver.execute_script(f"return {found}")

        wait = importlib.import_module("selenium.webdriver.support.wait").WebDriverWait(browser, 60)
        browser.get(url)
        wait.until(lambda x: texts(x) == [demo.FIRST_TEXT] * 3)
        browser.find_element("css selector", "textarea").send_keys(" <b>Great</b>")
        wait.until(lambda x: texts(x) == [f"{demo.FIRST_TEXT} <b>Great</b>"] * 3)
        events = [json.loads(x["message"])["message"] for x in browser.get_log("performance")]
    asked = [
        x["params"]["request"]["url"] for x in events if x["method"] == "Network.requestWillBeSent"
    ]
    assert asked and {x.split("/")[2] for x in asked if x.startswith("http")} == {url.split("/")[2]}
