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
import pytest

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


def drawn(count: int, seed: int | None = 7, names: Any = None, together: bool = True) -> Any:
    """What `count` new threads draw after `manual_seed`: at the same time, or one after another."""
    if seed is not None:
        tg.manual_seed(seed)
    barrier, found = threading.Barrier(count if together else 1, timeout=60), {}

    def work(i: int) -> None:
        barrier.wait()
        layer = tg.nn.Dropout(0.5)
        found[i] = (*tg.rand(4).numpy().tolist(), *layer(tg.ones(60)).numpy().tolist())

    threads = [
        threading.Thread(target=work, args=(i,), name=names and names[i]) for i in range(count)
    ]
    for thread in threads if together else ():
        thread.start()
    for thread in threads:
        if not together:
            thread.start()
        thread.join()
    return [found[i] for i in range(count)]


def draws() -> tuple[float, ...]:
    return tuple(tg.rand(8).numpy().tolist())


def test_each_thread_has_a_stream_of_its_own_that_follows_from_the_seed() -> None:
    """Whichever is faster: they draw at once, or the last one first."""
    first = drawn(6)
    tg.manual_seed(7)
    main = draws()
    assert len({*first, main[: len(first[0])]}) == 7
    for together in (True, False):
        assert drawn(6, together=together) == first
    assert not set(drawn(6, seed=8)) & set(first)
    assert drawn(9)[:6] == first  # others that come later change nothing
    assert not set(drawn(6, seed=None)) & set(first)  # later threads of one seed differ, too
    tg.manual_seed(7)
    assert draws() == main  # and nothing is drawn from the main one


def test_a_named_thread_is_known_by_its_name() -> None:
    first = dict(zip("abc", drawn(3, names="abc"), strict=True))
    assert drawn(3, names="cab") == [first[name] for name in "cab"]
    assert drawn(2, names="ad")[0] == first["a"]
    assert len(set(drawn(4, names="aaaa"))) == 4  # not reproducible, but different


def test_the_workers_of_an_executor() -> None:
    def run(pool: ThreadPoolExecutor) -> set[tuple[float, ...]]:
        barrier = threading.Barrier(3, timeout=60)
        return set(pool.map(lambda _: (barrier.wait(), draws())[1], range(3)))

    results = []
    for _ in range(2):
        with ThreadPoolExecutor(3) as pool:
            for _ in range(2):  # to threads that run already the seed is news as well
                tg.manual_seed(3)
                results.append(run(pool))
                results.append(run(pool))
    assert results[0::2] == results[:1] * 4 and results[1::2] == results[1:2] * 4
    assert len(results[0] | results[1]) == 6


def test_a_thread_that_seeded_itself_keeps_its_stream() -> None:
    tg.manual_seed(1)
    expected = draws(), draws()
    with ThreadPoolExecutor(1) as thread:
        found = [thread.submit(lambda: (tg.manual_seed(1), draws())[1]).result()]
        tg.manual_seed(2)
        found.append(thread.submit(draws).result())
        assert tuple(found) == expected

        tg.manual_seed(1)
        state = tg.random.get_state()
        found = [thread.submit(lambda: (tg.random.set_state(state), draws())[1]).result()]
        tg.manual_seed(2)
        found.append(thread.submit(draws).result())
        assert tuple(found) == expected


def test_the_numbers_of_a_seed_and_a_stream_are_the_same_in_every_thread() -> None:
    def numbered(i: int) -> tuple[float, ...]:
        tg.manual_seed(4, stream=i)
        return draws()

    here = [numbered(i) for i in range(20)]
    with ThreadPoolExecutor(3) as threads:
        assert list(threads.map(numbered, range(20))) == here
    tg.manual_seed(4)
    assert here[0] == draws() and len(set(here)) == 20


def test_a_saved_state_brings_the_seed_of_the_threads_along() -> None:
    first = drawn(2)
    tg.rand(5)
    state = tg.random.get_state()
    tg.manual_seed(8)
    tg.random.set_state(state)
    assert drawn(2, seed=None) == first
    with tg.random.replay(state), ThreadPoolExecutor(1, "w") as threads:
        one = threads.submit(draws).result()
    tg.random.set_state(tg.random.get_state())  # of the same seed: no thread begins anew
    with ThreadPoolExecutor(1, "w") as threads:
        assert threads.submit(draws).result() != one


def test_a_replay_in_the_main_thread_is_no_news_to_others() -> None:
    tg.manual_seed(1)
    state = tg.random.get_state()
    tg.manual_seed(2)
    with ThreadPoolExecutor(1) as thread:
        expected = thread.submit(lambda: (draws(), draws())).result()
    tg.manual_seed(2)
    with ThreadPoolExecutor(1) as thread:
        found = [thread.submit(draws).result()]
        with tg.random.replay(state):
            found.append(thread.submit(draws).result())
    assert tuple(found) == expected


FORKING = """
import os, sys, threading
import tinygrad_rnn as tg

def child(depth=0):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        inner = child(depth - 1) if depth else []
        found = []
        thread = threading.Thread(target=lambda: found.append(tg.rand(4).numpy().tolist()))
        thread.start()
        thread.join()
        os.write(write, repr([tg.rand(4).numpy().tolist(), *found, *inner]).encode())
        os._exit(0)
    os.close(write)
    os.waitpid(pid, 0)
    with open(read) as file:
        return eval(file.read())

def family():
    found = [*child(), *child(1), tg.rand(4).numpy().tolist()]
    thread = threading.Thread(target=lambda: found.extend(child()))
    thread.start()
    thread.join()
    return found

tg.manual_seed(3)
first = family()
later = family()
assert len({str(x) for x in first + later}) == 2 * len(first), first
tg.manual_seed(3)
assert family() == first
tg.manual_seed(4)
assert not {str(x) for x in family()} & {str(x) for x in first}
print(first)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_each_forked_process_has_a_stream_of_its_own() -> None:
    """Children, their threads, grandchildren and children of a thread; the same in every run."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{FORKING}"],
            capture_output=True, text=True, check=True,
        ).stdout
        for _ in range(2)
    ]  # fmt: skip
    assert runs[0] == runs[1] and runs[0]


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
    assert "tinygrad_rnn.engine.tensor" in done.stdout


def test_importing_warns_of_nothing_and_prints_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "import tinygrad_rnn"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
