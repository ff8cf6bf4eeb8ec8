"""What the library does to the process that it runs in: nothing behind anybody's back."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

ROOT = Path(tg.__file__).parents[1]


def trained(seed: int, meet: Callable[[], Any] = lambda: None) -> list[np.ndarray]:
    """Train a network that draws numbers, recomputes and clips; return what it has learned.

    `meet` is called between the steps, where two threads can wait for each other.
    """
    tg.manual_seed(seed)
    tg.set_default_dtype(tg.float64 if seed % 2 else tg.float32)
    embedding = tg.nn.Embedding(7, 12)
    rnn = tg.nn.LSTM(12, 16, num_layers=2, dropout=0.3)
    head = tg.nn.Linear(16, 7)
    parameters = [p for module in (embedding, rnn, head) for p in module.parameters()]
    optimizer = tg.optim.Adam(parameters, lr=0.01)
    ids = np.arange(200) * seed % 7
    state = None
    for x, y in tg.data.text.sequential(ids, batch_size=3, steps=8):
        meet()
        output, state = rnn(embedding(x), tg.bptt.detach(state))
        output = tg.checkpoint(lambda h: tg.functional.dropout(tg.tanh(h), 0.2), output)
        loss = tg.functional.cross_entropy(head(output), y)
        optimizer.zero_grad()
        loss.backward()
        with tg.no_grad():
            meet()
            assert not head(output).requires_grad
        assert tg.is_grad_enabled()
        tg.optim.clip_grad_norm(parameters, 1.0)
        optimizer.step()
    tg.set_default_dtype(tg.float32)
    return [p.numpy() for p in parameters]


def test_training_leaves_every_global_generator_alone() -> None:
    before = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002 - only watched
    trained(1)
    tg.nn.init.orthogonal(tg.zeros(3, 3))
    list(tg.data.batches(np.arange(9), batch_size=2))
    tg.data.tasks.adding(4, 5)
    after = random.getstate(), np.random.get_state(legacy=False)  # noqa: NPY002
    assert before[0] == after[0]
    np.testing.assert_equal(before[1], after[1])


def test_two_threads_train_two_models_as_one_after_the_other() -> None:
    """Bit for bit; each thread has its own grad mode, default dtype and generator."""
    apart = [trained(seed) for seed in (1, 2)]
    barrier = threading.Barrier(2, timeout=60)
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(trained, (1, 2), (barrier.wait, barrier.wait)))
    for ours, theirs in zip(together, apart, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert (a.dtype, a.tobytes()) == (b.dtype, b.tobytes())


def test_a_thread_does_not_draw_from_anothers_generator() -> None:
    tg.manual_seed(5)
    first = tg.rand(3)
    tg.manual_seed(5)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(lambda: (tg.manual_seed(9), tg.rand(100))).result()
    assert (tg.rand(3) == first).numpy().all()


def test_two_threads_walk_one_graph_each() -> None:
    """Graphs that share a leaf: each thread asks for its own gradients with ``tg.grad``."""
    w = tg.tensor([2.0, 3.0], requires_grad=True)

    def gradient(power: int) -> Any:
        return [tg.grad((w**power).sum(), w).numpy() for _ in range(50)]

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(gradient, range(1, 5)))
    for power, found in zip(range(1, 5), results, strict=True):
        for g in found:
            np.testing.assert_array_equal(g, power * w.numpy() ** (power - 1))


HEAVY = """
    asyncio concurrent cupy cupyx email hypothesis IPython jax logging matplotlib
    multiprocessing numba numpy.distutils numpy.f2py numpy.testing pandas pooch pytest requests
    scipy setuptools socket sqlite3 subprocess torch tqdm unittest xml
""".split()


def test_importing_is_light() -> None:
    """What an import of NumPy does not bring anyway."""
    code = """
        import sys
        import numpy
        before = set(sys.modules)
        import tinygrad_rnn
        print(*sorted(set(sys.modules) - before))
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
         + "\n".join(line.strip() for line in code.splitlines())],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert not set(done.stdout.split()) & set(HEAVY)
    assert "tinygrad_rnn.tensors.tensor" in done.stdout


def test_importing_warns_of_nothing_and_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import tinygrad_rnn"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
