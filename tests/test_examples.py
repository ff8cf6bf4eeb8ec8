"""The examples run as a user runs them, and the README says what its code prints."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tinygrad_rnn as tg

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = sorted(file.name for file in (ROOT / "examples").glob("*.py"))


def run(example: str, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run an example with warnings as errors; whatever it does, it must not end in a traceback."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *options],
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"} | environment,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done


def load(example: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(example).stem, ROOT / "examples" / example)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


char_lm = load("char_lm.py")


# ------------------------------------------------------------------------------------ every example


@pytest.mark.parametrize("example", EXAMPLES)
def test_smoke(example: str) -> None:
    done = run(example, "--smoke")
    assert done.returncode == 0, done.stderr
    assert re.search(r"\d", done.stdout), "no figure"


@pytest.mark.parametrize(
    ("example", "option"),
    [
        ("adding_problem.py", "--steps"),
        ("custom_cell.py", "--steps"),
        ("mlp.py", "--epochs"),
        ("sine_wave.py", "--steps"),
    ],
)
def test_a_missed_target_is_a_failure(example: str, option: str) -> None:
    assert run(example, option, "1").returncode == 1


def test_every_example_is_listed_and_short() -> None:
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    lines = {name: len((ROOT / "examples" / name).read_text().splitlines()) for name in EXAMPLES}
    assert [name for name in EXAMPLES if f"`{name}`" not in table] == []
    assert [name for name in EXAMPLES if lines[name] >= 100] == ["char_lm.py"]


# ------------------------------------------------------------------------------------- the main job


def test_the_last_line_is_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    done = run("char_lm.py", "--smoke", "--json", "--save", str(path), "--cell", "gru")
    figures = json.loads(done.stdout.splitlines()[-1])
    for kind in ("", "valid_"):
        bits = figures[f"{kind}bits_per_char"]
        assert figures[f"{kind}perplexity"] == pytest.approx(2**bits)
        assert figures[f"{kind}perplexity"] == pytest.approx(math.exp(figures[f"{kind}loss"]))
        assert figures[f"{kind}bits_per_byte"] <= bits
        assert figures[f"{kind}tokens_per_s"] > 0
    assert 1 < figures["perplexity"] < figures["vocabulary"]
    assert figures["seconds"] > 0
    assert figures["sha256"] == tg.data.text.sha256(tg.data.text.corpus("python_docs"))

    saved = dict(np.load(path))
    about = json.loads(str(saved.pop("about")))
    vocab = tg.data.text.Vocabulary.from_state_dict(about["vocabulary"])
    assert len(vocab) == figures["vocabulary"]
    model = char_lm.CharLM(len(vocab), SimpleNamespace(**about["options"]))
    model.load_state_dict(saved)
    _, valid = tg.data.text.split(tg.data.text.corpus("python_docs"))
    losses = char_lm.evaluate(model, vocab.encode(valid), SimpleNamespace(**about["options"]))
    assert losses.nats == pytest.approx(figures["valid_loss"], rel=1e-5)
    assert list(tmp_path.iterdir()) == [path], "a temporary file is left"


def test_a_terminal_that_cannot_show_the_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text("道可道，非常道。名可名，非常名。\n" * 200, encoding="gb18030")
    options = ["--text", str(path), "--encoding", "gb18030", "--prefix", "道", "--json"]
    done = run("char_lm.py", "--smoke", *options, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert r"\u9053" in done.stdout
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["bits_per_byte"] < figures["bits_per_char"] / 2


def test_every_option_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    options = "--partition random --cell rnn --layers 2 --dropout 0.2 --optimizer sgd --lr 0.5"
    options += (
        " --decay none --embedding 0 --valid 0 --clean letters --top-k 5 --top-p 0.9 --json --plot"
    )
    done = run("char_lm.py", "--smoke", *options.split(), str(path))
    assert done.returncode == 0, done.stderr
    installed = importlib.util.find_spec("matplotlib") is not None
    assert path.exists() == installed != ("no plot" in done.stdout)
    assert json.loads(done.stdout.splitlines()[-1])["valid_perplexity"] is None


def test_nothing_but_numpy_is_needed(tmp_path: Path) -> None:
    for extra in ("matplotlib", "tqdm"):
        (tmp_path / f"{extra}.py").write_text("raise ImportError('not installed')")
    options = ["--smoke", "--plot", str(tmp_path / "curve.png")]
    done = run("char_lm.py", *options, PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 0, done.stderr
    assert "epoch   2: perplexity" in done.stdout
    assert "tinygrad-rnn[plot]" in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--text no/such/file", "there is no file"),
        ("--device cuda:99", "cuda"),
        ("--batch 100000", "too few"),
        ("--save no/such/folder/file.npz", "no such directory"),
        ("--temperature -1", "--temperature"),
        ("--epochs 0", "--epochs"),
    ],
)
def test_an_error_is_one_message(options: str, message: str) -> None:
    done = run("char_lm.py", *f"{options} --max-tokens 9000 --hidden 8".split())
    assert done.returncode != 0
    assert message in done.stderr


def test_a_run_that_diverges_stops() -> None:
    done = run("char_lm.py", *"--smoke --optimizer sgd --lr 1e38".split(), PYTHONWARNINGS="ignore")
    assert done.returncode != 0
    assert "use a smaller --lr" in done.stderr


LOGITS = st.lists(st.floats(-20, 20), min_size=3, max_size=8, unique=True).map(np.array)


def options(**given: Any) -> Any:
    return SimpleNamespace(**{"temperature": 1.0, "top_k": None, "top_p": 1.0} | given)


@given(LOGITS, st.integers(1, 8), st.floats(0.01, 1), st.floats(0.1, 3))
def test_what_is_drawn(logits: np.ndarray, top_k: int, top_p: float, temperature: float) -> None:
    choice = char_lm.choose(logits, options(temperature=temperature, top_k=top_k, top_p=top_p))
    likelier = logits[1:][logits[1:] > logits[choice]]
    assert choice > 0, "the unknown token was written"
    assert len(likelier) < top_k
    p = np.exp(np.sort(logits[1:])[::-1] / temperature)[:top_k]
    assert p[: len(likelier)].sum() / p.sum() <= top_p + 1e-9


@given(LOGITS)
def test_what_is_drawn_at_the_limits(logits: np.ndarray) -> None:
    best = 1 + logits[1:].argmax()
    for given_options in ({"temperature": 0}, {"top_k": 1}, {"top_p": 1e-12}):
        assert char_lm.choose(logits, options(**given_options)) == best


# ----------------------------------------------------------------------------------------- README

BLOCKS = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S
)


@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_the_readme_says_what_its_code_prints(code: str) -> None:
    said = re.findall(r"^ *print\(.*?\)  # (.*)$", code, re.M)
    assert len(said) == code.count("print(") > 0
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(code, {"__name__": "readme"})
    assert printed.getvalue().splitlines() == said
