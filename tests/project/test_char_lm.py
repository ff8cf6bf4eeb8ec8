"""The main job: what it prints and writes, how it stops, and that it goes on to the same bit."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import io
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_examples import ROOT, run

import tinygrad_rnn as tg

SCRIPT = ROOT / "examples" / "char_lm.py"
spec = importlib.util.spec_from_file_location("char_lm", SCRIPT)
assert spec is not None and spec.loader is not None
char_lm: Any = importlib.util.module_from_spec(spec)
spec.loader.exec_module(char_lm)

# The beginning of the Daodejing, of the Thousand Character Classic, and rare characters.
CHINESE = """道可道，非常道。名可名，非常名。無名天地之始，有名萬物之母。
故常無欲，以觀其妙；常有欲，以觀其徼。此兩者同出而異名，同謂之玄。玄之又玄，眾妙之門。
𠮷野家𪚥㐀，👩\u200d🚀。天地玄黃，宇宙洪荒。日月盈昃，辰宿列張。寒來暑往，秋收冬藏。
閏餘成歲，律呂調陽。雲騰致雨，露結為霜。金生麗水，玉出崑岡。劍號巨闕，珠稱夜光。
果珍李柰，菜重芥薑。
"""
TINY = "--hidden 8 --embedding 4 --batch 4 --steps 8 --epochs 2 --every 7 --length 20".split()
CLOCKS = {"seconds", "step_seconds", "seconds_left", "tokens_per_s"}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the options for a Chinese text that gives 18 steps an epoch."""
    path = tmp_path_factory.mktemp("text") / "zh.txt"
    path.write_text(CHINESE * 4, encoding="utf-8")
    return ["--text", str(path), "--prefix", "道可"]


def job(*options: Any) -> tuple[int, str]:
    """Run the main job in this process; return its status and what it printed."""
    argv, sys.argv = sys.argv, ["char_lm.py", *map(str, options)]
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            status = char_lm.run(*char_lm.arguments())
    finally:
        sys.argv = argv
    return status, out.getvalue()


def leaves(tree: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what a checkpoint holds, arrays as bytes, without the time that things took."""
    if isinstance(tree, dict | list | tuple):
        for key, item in tree.items() if isinstance(tree, dict) else enumerate(tree):
            if key not in CLOCKS:
                yield from leaves(item, f"{place}.{key}")
    elif isinstance(tree, np.ndarray):
        yield place, (tree.dtype, tree.shape, tree.tobytes())
    else:
        yield place, tree


def saved(path: Path) -> dict[str, Any]:
    return dict(leaves(tg.load(path)["fit"]))


def best_of(path: Path) -> float:
    return dict(tg.load(path)["fit"]["callbacks"])["Best"]["best"]


def logged(path: Path) -> list[dict[str, Any]]:
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return [dict(leaves(line)) for line in lines]


def interrupt_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Press Ctrl-C in the middle of a step."""
    start = char_lm.Report.start

    def start_and_press(self: Any, run: tg.training.Run) -> None:
        start(self, run)
        advance = run.advance

        def press(*batch: Any) -> Any:
            if run.step + 1 == step:
                signal.raise_signal(signal.SIGINT)
            return advance(*batch)

        run.advance = press

    monkeypatch.setattr(char_lm.Report, "start", start_and_press)


def script_validation(monkeypatch: pytest.MonkeyPatch, *losses: float) -> None:
    script = iter(losses)
    monkeypatch.setattr(char_lm, "evaluate", lambda *arguments: next(script))


# -- what it prints and writes ---------------------------------------------------------------------


def test_the_last_line_is_one_json_object(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    status, out = job("--smoke", "--json", "--save", path, "--cell", "gru")
    assert status == 0
    figures = json.loads(out.splitlines()[-1])
    for kind in ("", "valid_"):
        bits = figures[f"{kind}bits_per_char"]
        assert figures[f"{kind}perplexity"] == pytest.approx(2**bits)
        assert figures[f"{kind}perplexity"] == pytest.approx(math.exp(figures[f"{kind}loss"]))
        assert figures[f"{kind}bits_per_byte"] <= bits
        assert figures[f"{kind}tokens_per_s"] > 0
    assert 1 < figures["perplexity"] < figures["vocabulary"]
    assert figures["seconds"] > 0
    assert figures["sha256"] == tg.data.text.sha256(tg.data.text.corpus("python_docs"))
    assert f"vocabulary of {figures['vocabulary']}" in out
    assert f"{figures['unknown_rate']:.3%} unknown" in out

    about = tg.load(path)
    vocab = tg.data.text.Vocabulary.from_state_dict(about["vocabulary"])
    assert len(vocab) == figures["vocabulary"]
    options = SimpleNamespace(**about["options"])
    model = char_lm.language_model(vocab, options)
    model.load_state_dict(about["fit"]["model"])
    _, valid = tg.data.text.split(tg.data.text.corpus("python_docs"))
    loss = char_lm.evaluate(model, vocab.encode(valid), options)
    assert loss == pytest.approx(figures["valid_loss"], rel=1e-5)
    assert sorted(os.listdir(tmp_path)) == ["run.best.ckpt", "run.ckpt"]


def test_a_terminal_that_cannot_show_the_text(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(CHINESE * 10, encoding="gb18030")
    options = ["--text", str(path), "--encoding", "gb18030", "--prefix", "道", "--json"]
    options += ["--sample-every", "2"]
    done = run("char_lm.py", "--smoke", *options, PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.isascii()
    assert done.stdout.count("\n\\u9053") > 1
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["bits_per_byte"] < figures["bits_per_char"] / 2


def test_every_option_is_taken(tmp_path: Path) -> None:
    path, plots = tmp_path / "curve.png", importlib.util.find_spec("matplotlib") is not None
    options = "--partition random --cell rnn --layers 2 --dropout 0.2 --optimizer sgd --lr 0.5"
    options += " --decay none --embedding 0 --valid 0 --clean letters --normalize NFC --top-k 5"
    options += " --top-p 0.9 --json"
    status, out = job("--smoke", *options.split(), *["--plot", path] * plots)
    assert (status, path.exists()) == (0, plots)
    assert json.loads(out.splitlines()[-1])["valid_perplexity"] is None


@pytest.mark.parametrize(
    ("name", "message"),
    [("curve.png", "tinygrad-rnn[plot]"), ("curve.xyz", "curve.xyz ends with none of")],
)
def test_a_plot_that_cannot_be_written_is_refused_at_once(
    name: str, message: str, tmp_path: Path
) -> None:
    path = [str(ROOT)]
    if name == "curve.png":
        (tmp_path / "matplotlib.py").write_text("raise ImportError('not installed')")
        path.insert(0, str(tmp_path))
    elif importlib.util.find_spec("matplotlib") is None:
        message = "tinygrad-rnn[plot]"
    options = ["--plot", str(tmp_path / name)]
    done = run("char_lm.py", *options, PYTHONPATH=os.pathsep.join(path))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"--plot: {message if 'needs' in message else ''}" in done.stderr
    assert message in done.stderr


def test_nothing_but_numpy_is_needed(tmp_path: Path) -> None:
    for extra in ("matplotlib", "tqdm"):
        (tmp_path / f"{extra}.py").write_text("raise ImportError('not installed')")
    done = run("char_lm.py", "--smoke", PYTHONPATH=os.pathsep.join([str(tmp_path), str(ROOT)]))
    assert done.returncode == 0, done.stderr
    assert "epoch   2, step 8: perplexity" in done.stdout


def test_a_line_of_the_log_for_each_report(text: list[str], tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    _, out = job(*text, *TINY, "--log", log)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [7, 14, 21, 28, 35, 36]
    assert out.count(": perplexity") == len(lines)
    for line in lines:
        assert all(math.isfinite(figure) for figure in line.values())
        assert f"step {line['step']}: perplexity {math.exp(line['loss']):.3f}" in out
        assert f"validation {math.exp(line['valid_loss']):.3f}" in out
    assert [line["lr"] for line in lines] == [0.004] * 2 + [0.002] * 4
    left = [line["seconds_left"] for line in lines]
    assert left[0] > left[-1] >= 0


def test_writing_on_the_way_changes_nothing(text: list[str], tmp_path: Path) -> None:
    plain, writing = tmp_path / "plain.ckpt", tmp_path / "writing.ckpt"
    dropout = ["--dropout", 0.3]
    job(*text, *TINY, *dropout, "--save", plain)
    _, out = job(*text, *TINY, *dropout, "--save", writing, "--sample-every", 10)
    assert out.count("\n道可") == 4  # after steps 10, 20 and 30, and at the end
    assert saved(plain) == saved(writing)


def test_the_best_run_is_kept(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 3.0, 2.5, 2.75, 2.5, 4.0, 2.75, 5.0)
    path = tmp_path / "run.ckpt"
    job(*text, *TINY, "--save", path)
    last, best = (tg.load(tmp_path / name)["fit"] for name in ("run.ckpt", "run.best.ckpt"))
    assert (last["step"], best["step"]) == (36, 14)
    assert best_of(path) == best_of(tmp_path / "run.best.ckpt") == 2.5
    assert [row["valid_loss"] for row in last["history"]] == [3.0, 2.5, 2.75, 2.5, 4.0, 2.75]


# -- Chinese ---------------------------------------------------------------------------------------


def test_gb18030_teaches_the_same(text: list[str], tmp_path: Path) -> None:
    gb = tmp_path / "gb.txt"
    gb.write_bytes(CHINESE.replace("\n", "\r\n").encode("gb18030") * 4)
    one, other = tmp_path / "one.ckpt", tmp_path / "other.ckpt"
    _, written = job(*text, *TINY, "--save", one)
    options = ["--text", gb, "--encoding", "gb18030", "--ids", tmp_path / "ids.npy"]
    _, also_written = job(*options, "--prefix", "道可", *TINY, "--save", other)
    assert saved(one) == saved(other)
    assert tg.load(one)["vocabulary"] == tg.load(other)["vocabulary"]
    assert written.splitlines()[-2] == also_written.splitlines()[-2]
    vocab = tg.data.text.Vocabulary.from_state_dict(tg.load(one)["vocabulary"])
    assert vocab.decode(np.load(tmp_path / "ids.npy")) == CHINESE * 4
    _, sample = job("--sample-only", one, "--prefix", "天地玄", "--temperature", 0)
    assert sample.startswith("\n天地玄")
    assert len(sample.strip("\n")) >= 20


def test_what_the_text_has_not_is_said(text: list[str]) -> None:
    _, out = job(*text[:2], *TINY, "--prefix", "道x")
    assert "--prefix: 'x' is not in the text" in out


# -- how it stops and goes on ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "options"),
    [
        (1, "--cell lstm"),
        (7, "--cell gru --optimizer rmsprop --layers 2 --dropout 0.5"),
        (18, "--cell rnn --optimizer sgd --decay none"),
        (19, "--cell gru --partition random --dropout 0.2"),
        (35, "--cell lstm --partition random --valid 0"),
        (36, "--cell lstm --dropout 0.2"),
    ],
)
def test_ctrl_c_then_resume_gives_the_same_bits(
    step: int, options: str, text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name: tmp_path / name for name in ("whole.ckpt", "whole.log", "run.ckpt", "run.log")}
    course = [*text, *TINY, *options.split()]
    _, whole = job(*course, "--save", files["whole.ckpt"], "--log", files["whole.log"])
    with monkeypatch.context() as patch:
        interrupt_at(patch, step)
        status, out = job(*course, "--save", files["run.ckpt"], "--log", files["run.log"])
    assert status == 130
    assert "\n道可" in out, "nothing was written"
    assert tg.load(files["run.ckpt"])["fit"]["step"] == step
    # What was chosen at the start is known; the next call need not say it again.
    status, out = job("--save", files["run.ckpt"], "--resume")
    assert status == 0
    assert f"continuing after step {step}" in out
    assert "other versions" not in out
    assert saved(files["run.ckpt"]) == saved(files["whole.ckpt"])
    assert logged(files["run.log"]) == logged(files["whole.log"])
    assert out.splitlines()[-2] == whole.splitlines()[-2], "another text was written"


def test_kill_then_resume_gives_the_same_bits(text: list[str], tmp_path: Path) -> None:
    course = [*text, *TINY, "--every", "1", "--dropout", "0.2"]
    job(*course, "--save", tmp_path / "whole.ckpt", "--log", tmp_path / "whole.log")
    path, log = tmp_path / "run.ckpt", tmp_path / "run.log"
    command = [sys.executable, str(SCRIPT), *course, "--save", str(path), "--log", str(log)]
    chance = random.Random(5)
    reached = []
    for _ in range(3):
        process = subprocess.Popen(
            [*command, "--resume"],
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        assert process.stdout is not None
        reports = chance.randint(2, 6)
        for line in process.stdout:
            reports -= b": perplexity" in line
            if not reports:
                break
        time.sleep(chance.uniform(0, 0.02))
        process.kill()
        process.communicate()
        reached.append(tg.load(path)["fit"]["step"])
        tg.load(tmp_path / "run.best.ckpt")
    assert 0 < reached[0] < reached[1] < reached[2] < 36
    with log.open("a") as file:
        file.write('{"step": 3')  # as far as a line had come when the power failed
    status, _ = job("--save", path, "--resume")
    assert status == 0
    assert saved(path) == saved(tmp_path / "whole.ckpt")
    assert saved(tmp_path / "run.best.ckpt") == saved(tmp_path / "whole.best.ckpt")
    assert logged(log) == logged(tmp_path / "whole.log")
    files = ["run.best.ckpt", "run.ckpt", "run.log", "whole.best.ckpt", "whole.ckpt", "whole.log"]
    assert sorted(os.listdir(tmp_path)) == files


def test_ctrl_c_exits_with_130(text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *text, *TINY, "--epochs", "500", "--save", str(path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    next(line for line in process.stdout if b": perplexity" in line)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "stopped by Ctrl-C" in out.decode()
    assert f"\nsaved: {path}" in out.decode()
    assert "\n道可" in out.decode()
    assert b"Traceback" not in errors
    assert tg.load(path)["fit"]["step"] > 0


def test_without_a_file_ctrl_c_says_that_nothing_is_saved(
    text: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 3)
    status, out = job(*text, *TINY)
    assert status == 130
    assert "stopped by Ctrl-C\n" in out
    assert out.endswith("\nnot saved: no --save\n")


def test_a_new_rate_on_resume(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "run.ckpt", tmp_path / "run.log"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 20)
        job(*text, *TINY, "--save", path, "--log", log)
    status, out = job("--save", path, "--resume", "--lr", 0.001)
    assert status == 0
    assert "--lr is 0.001 from here on, before 0.004" in out
    rates = [json.loads(line)["lr"] for line in log.read_text().splitlines()]
    assert rates == [0.004] * 2 + [0.0005] * 4  # the second epoch has half the rate
    assert tg.load(path)["options"]["lr"] == 0.001


def test_the_minutes_end_the_run_as_ctrl_c_does(text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options = [*text, *TINY, "--epochs", 10000, "--save", path, "--json"]
    status, out = job(*options, "--minutes", 0.02)
    assert status == 0
    assert "stopped after 0.02 minutes\n" in out
    assert f"\nsaved: {path}\n" in out
    assert json.loads(out.splitlines()[-1])["perplexity"] > 1
    reached = tg.load(path)["fit"]["step"]
    status, out = job("--save", path, "--resume", "--minutes", 0.01)
    assert f"continuing after step {reached}" in out
    assert tg.load(path)["fit"]["step"] > reached > 0


def test_a_first_line_comes_soon(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, early = tmp_path / "plain.ckpt", tmp_path / "early.ckpt"
    _, out = job(*text, *TINY, "--save", plain)
    assert "so far" not in out
    monkeypatch.setattr(char_lm, "FIRST", 0.0)
    _, out = job(*text, *TINY, "--save", early)
    assert out.count("so far") == 1
    assert "epoch   1, step 1: perplexity" in out
    assert saved(plain) == saved(early)


def test_started_alone_it_does_not_import_mpi(tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise AssertionError")
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    assert run("char_lm.py", "--smoke", "--epochs", "1", PYTHONPATH=path).returncode == 0


def test_lines_appear_at_once_in_a_pipe(text: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), *text, *TINY, "--epochs", "100000", "--every", "100000"],
        stdout=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        | {"PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert b"characters, sha256" in process.stdout.readline()  # would wait for 8 KiB
    process.kill()
    process.communicate()


def test_the_help_has_the_defaults(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["char_lm.py", "--help"])
    with pytest.raises(SystemExit):
        char_lm.arguments()
    out = capsys.readouterr().out
    for default in ("python_docs", "lstm", "0.004", "0.0", "256", "cpu", "400"):
        assert f"default: {default}" in " ".join(out.split())
    assert "None" not in out.partition("options:")[2] and "False" not in out


# -- a full disk -----------------------------------------------------------------------------------


def fill_disk(patch: pytest.MonkeyPatch, full: Callable[[int, Path], bool]) -> list[Path]:
    """Let saving fail for the calls by number and path; return the paths of all calls."""
    calls: list[Path] = []
    save = tg.training.checkpoint.save

    def save_or_fail(path: Path, **state: Any) -> None:
        calls.append(path)
        if full(len(calls), path):
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path, **state)

    patch.setattr(tg.training.checkpoint, "save", save_or_fail)
    return calls


def test_a_full_disk_does_not_end_the_run(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = tmp_path / "whole.ckpt", tmp_path / "run.ckpt"
    job(*text, *TINY, "--save", whole)
    with monkeypatch.context() as patch, pytest.warns(UserWarning) as warned:
        calls = fill_disk(patch, lambda number, path: number in (3, 4, 5))
        status, _ = job(*text, *TINY, "--save", path)
    assert status == 0, "the last attempt was successful"
    messages = [str(warning.message) for warning in warned]
    assert len(messages) == 3
    for message, file in zip(messages, calls[2:5], strict=True):
        assert f"{file} was not written: [Errno 28] No space left on device" in message
        assert "the next time tries again" in message
    assert len(calls) == 13  # six reports, the best of each, and the end
    assert saved(path) == saved(whole)
    assert saved(tmp_path / "run.best.ckpt") == saved(tmp_path / "whole.best.ckpt")


def test_the_best_run_is_the_best_one_in_a_file(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, 3.0, 2.0, 2.5, 2.75, 4.0, 2.75, 5.0)
    fill_disk(monkeypatch, lambda number, path: number == 3)  # the best one, of the second report
    with pytest.warns(UserWarning, match="Best: .* was not written"):
        job(*text, *TINY, "--save", tmp_path / "run.ckpt")
    best = tmp_path / "run.best.ckpt"
    assert (tg.load(best)["fit"]["step"], best_of(best)) == (21, 2.5)


def test_a_run_that_was_never_saved_fails_at_its_end(
    text: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "run.ckpt"
    fill_disk(monkeypatch, lambda number, path: True)
    with pytest.warns(UserWarning, match="No space left"):
        status, out = job(*text, *TINY, "--save", path)
    assert status == 1
    assert "\n道可" in out, "nothing was written"
    last = capsys.readouterr().err.splitlines()[-2:]
    assert f"char_lm: {path} could not" in " ".join(last)
    interrupt_at(monkeypatch, 9)
    with pytest.warns(UserWarning, match="No space left"):
        status, out = job(*text, *TINY, "--save", path)
    assert status == 130
    assert "\nnot saved: [Errno 28]" in out


@pytest.mark.skipif(not hasattr(os, "truncate"), reason="the system has no limit of file sizes")
def test_files_that_cannot_grow(text: list[str], tmp_path: Path) -> None:
    """The limit is the system's, so the log is cut in the middle of a line, unless it is mended."""
    resource = pytest.importorskip("resource")
    path, log = tmp_path / "run.ckpt", tmp_path / "run.log"
    options = ["--every", "1", "--save", str(path), "--log", str(log)]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *text, *TINY, *options],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert f"char_lm: {path} could not be written" in done.stderr
    assert f"char_lm: {log} could not be written" in done.stderr
    assert os.listdir(tmp_path) == ["run.log"]
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [*range(1, len(steps) + 1)]
    assert len(steps) > 3


def test_a_run_that_is_over_stays_what_it_is(text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    _, out = job(*text, *TINY, "--save", path)
    before = saved(path)
    status, again = job("--save", path, "--resume")
    assert status == 0
    assert saved(path) == before
    assert again.splitlines()[-2] == out.splitlines()[-2]
    status, out = job("--save", path, "--resume", "--epochs", 3)  # but it can be made longer
    assert tg.load(path)["fit"]["epoch"] == 3


def test_a_run_of_the_first_version_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files: a run that was interrupted in its first epoch, and the same one in one piece."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("abcd bad cab " * 20)
    for name in ("part", "whole"):
        content = (Path(__file__).parent / "char_lm_first_version" / f"{name}.ckpt").read_bytes()
        Path(f"{name}.ckpt").write_bytes(content)
    whole = tg.load("whole.ckpt")["run"]
    status, sample = job("--sample-only", "part.ckpt")
    assert (status, sample[:3]) == (0, "\nab")
    log = [json.dumps({"step": step, "kept": True}) for step in (8, 16)]
    Path("part.log").write_text("\n".join(log))
    status, out = job("--save", "part.ckpt", "--resume", "--log", "part.log")
    assert status == 0 and "continuing after step 13\n" in out
    run = tg.load("part.ckpt")["fit"]
    for name, parameter in whole["model"].items():  # to the bit on the machine that made the files
        np.testing.assert_allclose(run["model"][name], parameter, rtol=1e-4, atol=1e-6)
    assert run["losses"]["epoch"]["total"] == pytest.approx(whole["losses"]["total"])
    assert (run["step"], run["epoch"]) == (whole["step"], whole["epoch"])
    assert best_of(Path("part.ckpt")) == pytest.approx(whole["best"])
    losses = [row["valid_loss"] for row in run["history"]]
    assert losses == pytest.approx([valid for _, _, valid in whole["curve"]])
    lines = [json.loads(line) for line in Path("part.log").read_text().splitlines()]
    assert [line["step"] for line in lines] == [8, 16, 24, 32, 40]
    assert [line["epoch"] for line in lines[1:]] == [step / 20 for step in (16, 24, 32, 40)]

    for name in ("part.ckpt", "whole.ckpt"):
        status, out = job("--save", name, "--resume", "--epochs", 3)
        assert status == 0 and "continuing after step 40\n" in out
    longer, other = (tg.load(name)["fit"] for name in ("part.ckpt", "whole.ckpt"))
    assert longer["step"] == other["step"] == 60
    for name, parameter in longer["model"].items():
        np.testing.assert_allclose(other["model"][name], parameter, rtol=1e-4, atol=1e-6)


def test_resume_starts_where_there_is_nothing_yet(text: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    status, out = job(*text, *TINY, "--save", path, "--resume")
    assert (status, path.exists(), "continuing" in out) == (0, True, False)


def test_a_loss_that_is_not_finite(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loss, calls = tg.functional.cross_entropy, []

    def broken(logits: Any, y: Any, **options: Any) -> Any:
        value = loss(logits, y, **options)
        calls.append(not options)  # validation has options
        return value if options or sum(calls) < 9 else tg.log(value * 0.0)

    monkeypatch.setattr(tg.functional, "cross_entropy", broken)
    path = tmp_path / "run.ckpt"
    message = r"^fit: step 9: the loss is -inf"
    with pytest.raises(FloatingPointError, match=message) as info, np.errstate(all="ignore"):
        job(*text, *TINY, "--save", path)
    assert "; log made inf, 1 of 1 elements of its result" in str(info.value)
    assert tg.load(path)["fit"]["step"] == 7


def test_weights_that_are_not_finite_are_not_saved(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.ckpt"
    sgd = [*text, *TINY, "--valid", 0, "--optimizer", "sgd", "--lr", 1e300, "--save", path]
    with monkeypatch.context() as patch:
        patch.setattr(tg.optim.SGD, "step", lambda self: None)
        interrupt_at(patch, 3)
        job(*sgd)
    before = path.read_bytes()
    with (
        pytest.raises(FloatingPointError, match=r"after step 4, .*weight.* is not finite"),
        np.errstate(all="ignore"),
    ):
        job("--save", path, "--resume", "--every", 1)
    assert path.read_bytes() == before


def test_a_validation_that_is_not_finite_is_not_saved(
    text: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script_validation(monkeypatch, math.inf)
    path, log = tmp_path / "run.ckpt", tmp_path / "run.jsonl"
    with pytest.raises(FloatingPointError, match="after step 7, the loss of validation is inf"):
        job(*text, *TINY, "--save", path, "--log", log)
    assert not path.exists() and not log.exists()


def test_a_run_that_diverges_stops() -> None:
    done = run("char_lm.py", *"--smoke --optimizer sgd --lr 1e38".split(), PYTHONWARNINGS="ignore")
    assert done.returncode == 1
    assert "use a smaller --lr" in done.stderr


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--text no/such/file", "no/such/file' not found"),
        ("--device cuda:99", "cuda"),
        ("--batch 100000", "too few"),
        ("--save no/such/folder/run.ckpt", "no such directory"),
        ("--temperature -1", "--temperature"),
        ("--temperature nan", "--temperature"),
        ("--text {other} --save new.ckpt --log new.ckpt", "would both write new.ckpt"),
        ("--epochs 0", "--epochs"),
        ("--prefix=", "--prefix"),
        ("--resume", "--save PATH"),
        ("--sample-only no/such/run.ckpt", "no/such/run.ckpt"),
        ("--encoding gb-18030-2022 --text {text}", "unknown encoding"),
        ("--encoding ascii --text {text}", "byte 0xe9 at offset 0"),
        ("--text {empty}", "0 tokens"),
        ("--text {short}", "too few"),
        ("--save {text} --resume", "{text}"),
        ("--save {run} --resume --hidden 9", "--hidden 8: a resumed run cannot change it to 9"),
        ("--minutes 0", "0 is not above 0"),
        ("--save {run} --resume --text {other}", "another text"),
        ("--save {alien} --resume", "not a run of this example"),
        ("--save {alien}", "{alien} exists: continue it with --resume"),
        ("--log {other}", "{other} exists"),
    ],
)
def test_an_error_is_one_message(
    options: str,
    message: str,
    text: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = {name: tmp_path / name for name in ("empty", "short", "other", "run", "alien")}
    names["empty"].write_bytes(b"")
    names["short"].write_text("道可道，非常道。\n")
    names["other"].write_text(CHINESE * 5, encoding="utf-8")
    if "{run}" in options:
        job(*text, *TINY, "--epochs", 1, "--save", names["run"])
    tg.save(names["alien"], epoch=3)
    names["text"] = Path(text[1])
    given_options = [] if "{run}" in options else [*TINY, "--max-tokens", "9000"]
    given_options += options.format(**names).split()
    monkeypatch.setattr(sys, "argv", ["char_lm.py", *given_options])
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    with pytest.raises(SystemExit) as info:
        char_lm.main()
    assert info.value.code not in (0, None)
    assert message.format(**names) in f"{info.value.code} {capsys.readouterr().err}"
