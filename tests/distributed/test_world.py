"""What needs no mpiexec: a world of one, the parts of batches, the messages, the size."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_architecture import tool

import strict_device
import tinygrad_rnn as tg
from tinygrad_rnn.bptt.columns import cut, joined
from tinygrad_rnn.distributed.failure import differing
from tinygrad_rnn.distributed.messages import Alone
from tinygrad_rnn.distributed.world import tree_sum
from tinygrad_rnn.engine import backend
from tinygrad_rnn.errors import ArgumentError, DistributedError

WORLD = tg.distributed.init()
IDS = np.random.default_rng(0).integers(9, size=900)


def model_and_optimizer(dtype: Any = tg.float64) -> Any:
    tg.manual_seed(0)
    model = tg.models.RecurrentLM(tg.nn.GRUCell, 9, 8, embedding_dim=4).to(dtype)
    return model, tg.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)


def test_the_module_is_at_most_300_lines() -> None:
    code_lines = tool("count_lines").code_lines
    files = [*Path(tg.distributed.__file__).parent.glob("*.py")]
    assert sum(code_lines(file.read_text("utf-8")) for file in files) <= 300


STREAMS = {
    "sequential": lambda: tg.data.text.sequential(IDS, 8, 5, rng=1),
    "random": lambda: tg.data.text.random(IDS, 8, 5, rng=1),
    "evaluation": lambda: tg.data.text.evaluation(IDS, 8, 5),
    "windows": lambda: tg.bptt.Randomized(0.8).windows(IDS, 8, rng=np.random.default_rng(1)),
    "batches": lambda: tg.data.batches(np.arange(48.0).reshape(24, 2), IDS[:24], batch_size=8),
    "ragged": lambda: tg.data.ragged_batches(
        [IDS[:n] for n in range(1, 17)], np.arange(16), batch_size=8, rng=1
    ),
    "list": lambda: [(np.ones((8, 2)), np.arange(8))],
}


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("size", [1, 2, 8])
def test_the_shards_together_are_the_batches(
    name: str, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the order of the columns; the rest of a window, such as its strategy, is in each shard."""
    axis = int(name in ("sequential", "random", "evaluation", "windows"))
    shards = []
    for rank in range(size):
        tg.manual_seed(3)
        monkeypatch.setattr(WORLD, "rank", rank)
        monkeypatch.setattr(WORLD, "size", size)
        shards.append(list(WORLD.shard(STREAMS[name]())))
    tg.manual_seed(3)
    whole = list(STREAMS[name]())
    assert len(whole) == len(shards[0]) > 0
    for batch, *parts in zip(whole, *shards, strict=True):
        for i, array in enumerate(batch):
            pieces = [part[i] for part in parts]
            if not getattr(array, "shape", ()):
                assert pieces == [array] * size
                continue
            values = [x.numpy() if isinstance(x, tg.Tensor) else x for x in [array, *pieces]]
            place = min(axis, values[0].ndim - 1)
            np.testing.assert_array_equal(values[0], np.concatenate(values[1:], axis=place))
        if name == "windows":
            steps = len(batch.x)
            assert all(p.bptt.weights(steps) == batch.bptt.weights(steps) for p in parts)


def test_the_position_of_a_shard_is_that_of_the_whole() -> None:
    whole = tg.data.text.sequential(IDS, 8, 5, rng=1)
    shard = WORLD.shard(tg.data.text.sequential(IDS, 8, 5, rng=1))
    next(shard), next(shard), shard.next_epoch(), next(shard)
    whole.load_state_dict(shard.state_dict())
    assert (next(whole)[0] == next(shard)[0]).numpy().all()


def test_columns_that_cannot_be_divided_are_refused() -> None:
    with pytest.raises(ArgumentError, match="8 columns of a batch cannot be divided by 3"):
        cut((tg.ones(5, 8), tg.ones(5, 8)), 1, 0, 3)
    model, optimizer = model_and_optimizer()
    parallel = tg.distributed.data_parallel(model, optimizer, deterministic=True)
    x = tg.zeros(5, 6, dtype=tg.int64)
    with pytest.raises(ArgumentError, match="6 columns of a batch cannot be divided by 8"):
        parallel.gradient(lambda x, y, state: (model(x)[0].sum(), None), x, x)


STATES = st.recursive(
    st.sampled_from([(8, 3), (2, 8, 3), (4, 2, 8, 1)]).map(lambda s: tg.randn(*s)) | st.none(),
    lambda part: (
        st.lists(part, min_size=1, max_size=3)
        | st.tuples(part, part)
        | st.dictionaries(st.sampled_from("ab"), part, min_size=1)
    ),
    max_leaves=4,
)


@given(STATES, st.sampled_from([1, 2, 4, 8]))
def test_parts_of_a_state_are_joined_to_the_state(state: Any, parts: int) -> None:
    again = joined([cut(state, -2, i, parts) for i in range(parts)])
    assert repr(again) == repr(state)


@given(st.integers(1, 40))
def test_a_tree_does_not_depend_on_who_sums_its_branches(count: int) -> None:
    """Strings are added without rounding: the order is visible."""
    values = [chr(97 + i % 26) for i in range(count)]
    assert tree_sum(values) == "".join(values)
    numbers = np.random.default_rng(count).normal(size=8).astype(np.float32)
    for size in (1, 2, 4, 8):
        branches = [tree_sum(list(part)) for part in numbers.reshape(size, -1)]
        assert tree_sum(branches) == tree_sum(list(numbers))


def test_the_message_has_the_first_rank_and_line_that_differ() -> None:
    same = ("save", "a 1\nb 2")
    assert differing([same, same, ("save", "a 1\nb 3\nc 4")]) == (
        "the ranks differ: rank 0 in save: b 2; rank 2 in save: b 3"
    )
    assert differing([same, ("end", "")]).endswith("rank 0 in save: a 1; rank 1 in end")
    assert differing([("save", "a"), ("save", "a\nb")]).endswith("in save; rank 1 in save: b")


class Late(Alone):
    """Another rank that does something else, or never comes."""

    size = 2

    def __init__(self, other: tuple[str, str] | None) -> None:
        self.other = other

    def gather(self, array: Any, patience: float = 0.0) -> Any:
        if self.other is None:
            raise TimeoutError(f"{patience:.0f} s")
        return np.stack([array, array + 1])

    def objects(self, value: Any) -> list[Any]:
        return [value, self.other]


def test_every_call_finds_a_rank_that_does_something_else() -> None:
    world = tg.distributed.World(Late(("merge", "MAE")), 5.0)
    stream = tg.data.text.sequential(IDS, 8, 5, rng=1)
    for call, name in [
        (lambda: world.all_reduce(np.ones(3)), r"all_reduce: float64 \(3,\)"),
        (lambda: world.broadcast(3), "broadcast: from rank 0"),
        (lambda: world.shard(stream), "the beginning of an epoch.*: stream 'sequential'"),
        (lambda: world.merge(tg.metrics.RMSE()), "merge: RMSE"),
        (lambda: world.join(None), "save"),
        (lambda: world.save("never"), "save"),
    ]:
        with pytest.raises(DistributedError, match=f"rank 0 in {name}.*rank 1 in merge"):
            call()
    assert not Path("never").exists()
    with pytest.raises(
        DistributedError, match=r"rank 0 of 2 waited 5 s .* in all_reduce.*patience"
    ):
        tg.distributed.World(Late(None), 5.0).all_reduce(np.ones(3))


def test_memory_order_does_not_matter() -> None:
    """It is what MPI sends: an array in Fortran order is copied, or refused."""
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    found = WORLD.all_reduce(array)
    assert found.flags.c_contiguous and (found == array).all() and found is not array
    with pytest.raises(ArgumentError, match="in_place: an array contiguous in C order"):
        WORLD.all_reduce(array, in_place=True)
    with pytest.raises(ArgumentError, match="in_place"):
        WORLD.all_reduce([1.0, 2.0], in_place=True)
    own = np.ones(3)
    assert WORLD.all_reduce(own, in_place=True) is own
    assert backend.to_numpy(WORLD.all_reduce(tg.ones(2))).tolist() == [1.0, 1.0]
    assert WORLD.all_reduce(tg.tensor(2.0)).shape == ()


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("dtype", [tg.float16, tg.float32, tg.float64])
def test_a_gradient_is_that_of_the_mean_loss(deterministic: bool, dtype: Any) -> None:
    """Padding counts by its number, of micro-batches too; the state is carried."""
    model, optimizer = model_and_optimizer(dtype)
    parallel = tg.distributed.data_parallel(model, optimizer, deterministic)
    x, y = next(tg.data.text.sequential(IDS, 16, 7, rng=0))
    padded = np.where(np.random.default_rng(0).random(y.shape) < 0.3, -1, y.numpy())

    def loss(x: Any, y: Any, state: Any) -> Any:
        logits, state = model(x, state)
        return tg.functional.cross_entropy(logits, y, ignore_index=-1), state

    carried, least = (
        None,
        {"float16": 3e-3, "float32": 1e-6, "float64": 1e-14}[str(np.dtype(dtype))],
    )
    for _ in range(2):
        expected, after = loss(x, tg.tensor(padded), tg.bptt.detach(carried))
        model.zero_grad()
        expected.backward()
        wanted = [p.grad.numpy() for p in model.parameters()]
        nats, state = parallel.gradient(loss, x, tg.tensor(padded), state=carried)
        assert nats == pytest.approx(expected.item(), abs=least * 10)
        assert parallel.labels == (padded >= 0).sum()
        for p, grad in zip(model.parameters(), wanted, strict=True):
            np.testing.assert_allclose(p.grad.numpy(), grad, 0, least)
        np.testing.assert_allclose(state.numpy(), after.numpy(), 0, least)
        carried = state


def test_accumulated_gradients_are_averaged_once() -> None:
    model, optimizer = model_and_optimizer()
    parallel = tg.distributed.data_parallel(model, optimizer)
    batches = list(itertools.islice(tg.data.text.sequential(IDS, 4, 7, rng=0), 3))

    def loss(x: Any, y: Any) -> Any:
        return tg.functional.cross_entropy(model(x)[0], y) / len(batches)

    for x, y in batches[:-1]:
        loss(x, y).backward()
    parallel.backward(loss(*batches[-1]), count=28)
    found = [p.grad.numpy() for p in model.parameters()]
    model.zero_grad()
    sum(loss(x, y) for x, y in batches).backward()
    for grad, p in zip(found, model.parameters(), strict=True):
        np.testing.assert_allclose(grad, p.grad.numpy(), 0, 1e-14)


@pytest.mark.parametrize("deterministic", [False, True])
def test_fit_in_a_world_of_one_is_fit(deterministic: bool, tmp_path: Path) -> None:
    """Also one that is saved in the middle of an epoch, by another process than the first."""
    found = []
    for way in ("plain", "world", "interrupted"):
        model, optimizer = model_and_optimizer()
        parallel = tg.distributed.data_parallel(model, optimizer, deterministic)
        for last in (2, 3) if way == "interrupted" else (3,):
            history = tg.fit(
                model, WORLD.shard(tg.data.text.sequential(IDS, 8, 7, rng=1)), epochs=last,
                loss=tg.functional.cross_entropy, optimizer=optimizer,
                valid=tg.data.text.sequential(IDS, 4, 7, rng=1),
                callbacks=[tg.training.Checkpoint(tmp_path / way, resume=True)]
                + [parallel] * (way != "plain"),
            )  # fmt: skip
        figures = [row | {"seconds": 0} for row in history]
        found.append((figures, [p.numpy() for p in model.parameters()]))
    (figures, arrays), *others = found
    for other, parameters in others:
        assert [sorted(row) for row in other] == [sorted(row) for row in figures]
        for row, expected in zip(other, figures, strict=True):
            assert row == pytest.approx(expected, rel=1e-12)
        for array, expected in zip(parameters, arrays, strict=True):
            np.testing.assert_allclose(array, expected, 0, 1e-13)


class Act(tg.training.Callback):
    """Do something at the start of a run, or after its first step."""

    def __init__(self, **actions: Any) -> None:
        self.actions = actions

    def start(self, run: Any) -> None:
        self.actions.get("start", id)(run)

    def step(self, run: Any) -> None:
        if run.step == 1:
            self.actions.get("step", id)(run)


def fitted(*callbacks: Any) -> Any:
    """Train a model of one parameter for 5 epochs of one step."""
    model, x = tg.nn.Linear(1, 1), tg.ones(4, 1)
    optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
    parallel = tg.distributed.data_parallel(model, optimizer)
    return tg.fit(
        model, [(x, x)], epochs=5, loss=tg.functional.mse_loss, optimizer=optimizer,
        callbacks=[parallel if c is None else c for c in callbacks],
    )  # fmt: skip


def test_an_interrupt_by_a_callback_ends_all_after_the_next_step() -> None:
    """Its message is that of the next gradient. Another run can follow; after a signal, none."""
    for _ in range(2):
        history = fitted(None, Act(step=lambda run: run.interrupt("enough")))
        assert (len(history), history.stopped) == (1, "enough")
        assert not WORLD.interrupted
    found: list[Any] = []

    def signalled(run: Any) -> None:
        found.append(run)
        WORLD.signalled = True

    try:
        assert fitted(None, Act(step=signalled)).stopped == "stopped by Ctrl-C"
        assert (found[0].step, WORLD.interrupted, found[0].interrupted) == (2, True, True)
    finally:
        WORLD.signalled = WORLD.interrupted = False


def test_figures_that_decide_are_those_of_the_first_process() -> None:
    best = tg.training.BestModel("loss")
    act = Act(start=lambda run: setattr(run, "agree", lambda value: 1.0))
    history = fitted(None, act, best, tg.training.EarlyStopping(2, "loss"))
    assert len(history) == 3 and best.best == 1.0


def test_callbacks_that_replace_the_step_come_after_the_ranks() -> None:
    def replace(run: Any) -> None:
        advance = run.advance
        run.advance = lambda *batch: advance(*batch)

    assert len(fitted(None, Act(start=replace), tg.training.CudaGraph())) == 5
    with pytest.raises(ArgumentError, match="DataParallel comes after one that replaces the tr"):
        fitted(Act(start=replace), None)


def test_a_cuda_graph_is_refused() -> None:
    with (
        strict_device.installed(),
        tg.default_device("cuda"),
        pytest.raises(ArgumentError, match=r"DataParallel with CudaGraph: .*leave out CudaGraph"),
    ):
        fitted(None, tg.training.CudaGraph())


def test_a_process_that_does_not_write_leaves_no_file(tmp_path: Path) -> None:
    class Second(tg.training.Callback):
        def start(self, run: Any) -> None:
            run.writes = False

    model = tg.nn.Linear(1, 1)
    path, best = tmp_path / "run.ckpt", tmp_path / "best.ckpt"
    tg.fit(
        model, [(tg.ones(4, 1), tg.ones(4, 1))], loss=tg.functional.mse_loss, epochs=2,
        optimizer=tg.optim.SGD(model.parameters(), lr=0.1),
        callbacks=[
            Second(), tg.training.Checkpoint(path), tg.training.Progress(),
            tg.training.BestModel("loss", path=best),
        ],
    )  # fmt: skip
    assert not path.exists() and not best.exists()


def test_a_parameter_without_a_gradient_keeps_none() -> None:
    used, unused = tg.nn.Linear(2, 1), tg.nn.Linear(2, 1)
    model = tg.nn.Sequential(used, unused)
    parallel = tg.distributed.data_parallel(model, tg.optim.SGD(model.parameters(), lr=1.0))
    parallel.backward(used(tg.ones(3, 2)).mean())
    assert used.weight.grad is not None and unused.weight.grad is None


def test_random_numbers_of_a_step_do_not_move_the_librarys_generator() -> None:
    """It draws one number a step on all ranks, whatever the model draws."""
    model, optimizer = model_and_optimizer()
    parallel = tg.distributed.data_parallel(model, optimizer)
    x = tg.zeros(5, 8, dtype=tg.int64)
    after = []
    for draws in (0, 100):
        tg.manual_seed(4)
        parallel.gradient(lambda x, y, s, n=draws: (model(x)[0].sum() + tg.rand(n).sum(), s), x, x)
        after.append(tg.rand(3).numpy().tolist())
    assert after[0] == after[1]


def test_wrong_arguments() -> None:
    model, optimizer = model_and_optimizer()
    with pytest.raises(ArgumentError, match="backend: 'mpi' or 'nccl', got 'gloo'"):
        tg.distributed.init("gloo")
    with pytest.raises(ArgumentError, match="a module, then its optimizer"):
        tg.distributed.data_parallel(optimizer, model)
    with pytest.raises(ArgumentError, match="micro_batches=6 must be a power of 2"):
        tg.distributed.data_parallel(model, optimizer, deterministic=True, micro_batches=6)
    parallel = tg.distributed.data_parallel(model, optimizer, deterministic=True)
    with pytest.raises(ArgumentError, match="deterministic=True needs gradient"):
        parallel.backward(tg.ones(1, requires_grad=True).sum())
    padding = tg.full((7, 8), -1, dtype=tg.int64)
    with pytest.raises(ArgumentError, match="have no labels"):
        parallel.gradient(lambda x, y, s: (model(x)[0].sum(), s), padding * 0, padding)


def test_a_step_after_an_interrupt_ends_the_program() -> None:
    model, optimizer = model_and_optimizer()
    parallel = tg.distributed.data_parallel(model, optimizer)
    parallel.world = tg.distributed.World(Alone(), 5.0)
    parallel.world.signalled = True
    parallel.backward(model.head.weight.sum())
    assert parallel.world.interrupted
    with pytest.raises(SystemExit):
        parallel.backward(model.head.weight.sum())


class Communicator:
    """NCCL for one GPU: a sum over one process is the array."""

    calls: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, size: int, key: Any, rank: int) -> None:
        assert (size, key, rank) == (1, "key", 0)

    def allReduce(self, *arguments: Any) -> None:
        self.calls.append(arguments)


def test_nccl_sums_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in for CuPy, which refuses what would copy to the host."""
    nccl = types.SimpleNamespace(NcclCommunicator=Communicator, get_unique_id=lambda: "key")
    nccl.NCCL_FLOAT32, nccl.NCCL_SUM = 7, 0
    monkeypatch.setattr("tinygrad_rnn.distributed.world._worlds", [])
    Communicator.calls.clear()
    with strict_device.installed() as cupy, tg.default_device("cpu"):
        monkeypatch.setattr(cupy.cuda, "nccl", nccl, raising=False)
        world = tg.distributed.init("nccl")
        assert tg.distributed.init() is world and world.messages.name == "NCCL, one process"
        model = tg.nn.Linear(3, 2)
        assert model.weight.device == "cuda:0"
        optimizer = tg.optim.SGD(model.parameters(), lr=0.1)
        parallel = tg.distributed.data_parallel(model, optimizer)
        parallel.backward((model(tg.ones(4, 3)) ** 2).mean(), 4)
        ((source, target, size, kind, operation, _),) = Communicator.calls
        assert (source, size, kind, operation) == (target, 6 + 2 + 2, 7, 0)
        assert model.weight.grad.device == "cuda:0"
        assert world.all_reduce(np.ones(3)).tolist() == [1.0] * 3
        assert len(Communicator.calls) == 1  # an array of the host is not for NCCL


def python(code: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI_"))}
    environment |= {"PYTHONPATH": str(Path(tg.__file__).parents[1])} | variables
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )


def test_without_mpiexec_mpi_is_not_imported() -> None:
    code = "import sys, tinygrad_rnn as tg; tg.distributed.init(); print('mpi4py' in sys.modules)"
    assert python(code).stdout == "False\n"


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_one_error_names_the_extra(variable: str, tmp_path: Path) -> None:
    (tmp_path / "mpi4py.py").write_text("raise ModuleNotFoundError('no')")
    code = "import tinygrad_rnn as tg; tg.distributed.init()"
    path = os.pathsep.join([str(tmp_path), str(Path(tg.__file__).parents[1])])
    done = python(code, **{variable: "2"}, PYTHONPATH=path)
    last = done.stderr.strip().splitlines()[-1]
    assert last.endswith("init: mpi4py is not installed: pip install 'tinygrad-rnn[mpi]'")


def test_a_program_gets_its_threads_before_numpy_is_loaded(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import os, sys; print(os.environ['OMP_NUM_THREADS'], sys.argv[1:])")
    code = (
        "import runpy, sys; sys.argv = ['x', sys.argv[0] and '', '-7']; "
        f"sys.argv[1:] = [{str(program)!r}, '-7']; "
        "runpy.run_module('tinygrad_rnn.distributed', run_name='__main__')"
    )
    done = python(code, TINYGRAD_RNN_NUM_THREADS="3")
    assert done.stdout == "3 ['-7']\n", done.stderr
