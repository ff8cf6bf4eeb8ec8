r"""Train a character language model on a text, then sample from it.

    python examples/char_lm.py
    python examples/char_lm.py --text book.txt --cell gru --prefix "Once " --save run.ckpt --resume
    python examples/char_lm.py --sample-only run.best.ckpt --prefix "Twice " --temperature 0.5
    python examples/char_lm.py --text time_machine --clean letters --max-tokens 10000 \
        --cell rnn --optimizer sgd --lr 1 --epochs 500 --valid 0

The last command has the settings of the book Dive into Deep Learning, except that the book has
one-hot characters and a constant learning rate (--embedding 0 --decay none). The text is split
first; --max-tokens then shortens the training part, and the vocabulary is made from the result.

Every --every steps there is a report: the mean training loss since the last report, each loss taken
before its step, and the validation loss, in which every held-out character is predicted once, with
the state carried from window to window. Then the run is saved (--save run.ckpt), and so is the best
run in validation (run.best.ckpt). The same command with --resume continues: after a kill, a power
failure or Ctrl-C, the parameters are bit for bit those of an uninterrupted run, on the same machine
with the same number of threads and the same versions of Python and NumPy. --lr can be changed then.
Ctrl-C saves the run, prints a sample, and exits with status 130; the end of --minutes does the same
with status 0. A file that cannot be written, because the disk is full, does not end the run: it is
tried again at the next report, and the status is 1 if the last attempt failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tinygrad_rnn as tg

F, text_data, schedule = tg.functional, tg.data.text, tg.optim.schedule

CELLS = {"rnn": tg.nn.RNNCell, "gru": tg.nn.GRUCell, "lstm": tg.nn.LSTMCell}
OPTIMIZERS = {"sgd": tg.optim.SGD, "adam": tg.optim.Adam, "rmsprop": tg.optim.RMSprop}
PARTITIONS = {"sequential": text_data.sequential, "random": text_data.random}
DECAYS = {"cosine": schedule.cosine, "none": lambda epochs: schedule.constant()}
# A resumed run cannot change the options of the first, and does not inherit those of the second.
COURSE = """clean normalize valid max_tokens partition cell embedding hidden layers steps batch
            optimizer decay clip dropout seed"""
THIS_TIME = {"save", "resume", "sample_only", "json", "minutes"}
FIRST = 1.0  # seconds of training until the first line about it


class Data(NamedTuple):
    """A text, its two parts, the vocabulary, and the encoded parts."""

    text: str | text_data.TextFile
    train_text: str | text_data.TextFile
    valid_text: str | text_data.TextFile
    vocab: text_data.Vocabulary
    train_ids: np.ndarray
    valid_ids: np.ndarray
    sha256: str


def read(args: argparse.Namespace) -> Data:
    """Split and encode the text. A file is read piece by piece; --ids keeps its ids in a file."""
    if args.clean or not Path(args.text).is_file():
        text = text_data.corpus(args.text, args.encoding, args.clean, args.normalize)
    else:
        text = text_data.TextFile(args.text, args.encoding, args.normalize)
    train_text, valid_text = text_data.split(text, args.valid)
    train_text = train_text[: args.max_tokens]
    vocab = text_data.Vocabulary(train_text)
    ids = vocab.encode(text, out=args.ids)
    train_ids, valid_ids = ids[: len(train_text)], ids[len(text) - len(valid_text) :]
    sha256 = text_data.sha256(text)
    print(f"{args.text}: {len(text):,} characters, sha256 {sha256}")
    print(f"training on {len(train_ids):,} characters, vocabulary of {len(vocab):,}")
    if len(valid_ids):
        unknown = vocab.unknown_rate(valid_ids)
        print(f"validation on {len(valid_ids):,} characters, {unknown:.3%} unknown")
    missing = "".join(c for c in args.prefix if c not in vocab)
    if missing:
        print(f"--prefix: {missing!r} is not in the text: the model reads unknown characters")
    return Data(text, train_text, valid_text, vocab, train_ids, valid_ids, sha256)


def language_model(vocab: text_data.Vocabulary, args: Any) -> tg.models.RecurrentLM:
    """Return a model: an embedding or one-hot characters, recurrent layers, a linear layer."""
    return tg.models.RecurrentLM(
        CELLS[args.cell],
        vocab,
        args.hidden,
        args.layers,
        embedding_dim=args.embedding or None,
        dropout=args.dropout,
        device=args.device,
    )


class Run:
    """The state of a training run; attributes without an underscore are saved."""

    def __init__(self, data: Data, args: argparse.Namespace) -> None:
        self._data, self._args = data, args
        self.model = language_model(data.vocab, args)
        self.optimizer = OPTIMIZERS[args.optimizer](self.model.parameters(), lr=args.lr)
        self.scheduler = schedule.Scheduler(self.optimizer, DECAYS[args.decay](args.epochs))
        self.epoch, self.step, self.tokens, self.seconds = 0, 0, 0, 0.0  # completed
        self.windows: Any = None  # of the epoch, once it has begun
        self.state: Any = None  # the recurrent state for the next window
        self.losses = tg.metrics.Perplexity()  # of the epoch
        self.recent = tg.metrics.Perplexity()  # since the last report
        self.recent_norms: list[float] = []
        self.recent_seconds = 0.0
        self.best = math.inf
        self._unsaved: dict[Path, str] = {}  # the files that could not be written, and why
        self._lines: list[str] = []  # that are not in the log yet
        self.curve: list[tuple[float, float, float | None]] = []

    def state_dict(self) -> dict[str, Any]:
        """Return everything that the rest of the run depends on."""
        saved = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return saved | {"random": tg.random.get_state()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue the saved run."""
        if saved["windows"] is not None:
            self.begin_epoch()  # creates the windows, which load their position below
        for name in vars(self).keys() & saved.keys():
            if hasattr(part := getattr(self, name), "load_state_dict"):
                part.load_state_dict(saved[name])
            else:
                setattr(self, name, saved[name])
        self.state = tg.bptt.restore(self.state, self._args.device)
        tg.random.set_state(saved["random"])  # last, since the lines above draw numbers

    def begin_epoch(self) -> None:
        """Draw new windows; the first starts from the initial state."""
        ids, args = self._data.train_ids, self._args
        self.windows = PARTITIONS[args.partition](ids, args.batch, args.steps, device=args.device)
        self.state = None
        self.losses.reset()

    def end_epoch(self) -> None:
        """Count the epoch and set the learning rate of the next."""
        self.windows = None
        self.epoch += 1
        self.scheduler.step()

    def learn(self, x: tg.Tensor, y: tg.Tensor) -> None:
        """Take one step of the optimizer. A loss that is not finite changes nothing and raises."""
        began, random = time.perf_counter(), tg.random.get_state()
        self.model.train()
        loss, state = self.loss(x, y)
        self.optimizer.zero_grad()
        loss.backward()
        norm = tg.optim.clip_grad_norm(self.model.parameters(), self._args.clip).item()
        nats = loss.item()
        if not math.isfinite(nats + norm):
            tg.random.set_state(random)
            raise FloatingPointError(
                f"step {self.step + 1}: the loss is {nats:.6g}, the norm of its gradient "
                f"{norm:.6g}{self.first_anomaly(x, y)}: use a smaller --lr or --clip"
            )
        self.optimizer.step()
        # A window that continues the last one starts from its state, detached from its graph.
        self.state = tg.bptt.detach(state) if self._args.partition == "sequential" else None
        self.losses.update(nats, y.size)
        self.recent.update(nats, y.size)
        self.recent_norms.append(norm)
        self.step += 1
        self.tokens += y.size
        seconds = time.perf_counter() - began
        self.seconds += seconds
        self.recent_seconds += seconds

    def loss(self, x: tg.Tensor, y: tg.Tensor) -> tuple[tg.Tensor, Any]:
        """Return the mean loss of a window in nats, and the state after it."""
        logits, state = self.model(x, self.state)
        return F.cross_entropy(logits, y), state

    def first_anomaly(self, x: tg.Tensor, y: tg.Tensor) -> str:
        """Repeat the step from the same state; return the first operation that fails."""
        try:
            with tg.detect_anomaly():
                self.loss(x, y)[0].backward()
        except tg.errors.AnomalyError as error:
            return f"; {error}"
        return ""


def evaluate(model: tg.models.RecurrentLM, ids: np.ndarray, args: Any) -> Any:
    """Predict every character of a text exactly once."""
    losses = tg.metrics.Perplexity()
    losses.update(model.score(ids, batch_size=args.batch, steps=args.steps), len(ids))
    return losses


def write(model: tg.models.RecurrentLM, args: Any) -> str:
    """Return the prefix and ``length`` characters that the model samples after it."""
    greedy = args.temperature == 0
    sample = model.sample(
        model.vocabulary.encode(args.prefix),  # ids, since a str may have no unknown characters
        args.length,
        temperature=1 if greedy else args.temperature,
        top_k=1 if greedy else args.top_k,
        top_p=args.top_p,
        rng=args.seed,  # a generator of its own, so that sampling does not change the training
    )
    return f"\n{args.prefix}{model.vocabulary.decode(sample)}\n"


def report(run: Run, data: Data, args: argparse.Namespace) -> str:
    """Validate, log and save; return a line to print."""
    valid = evaluate(run.model, data.valid_ids, args).nats if len(data.valid_ids) else None
    if valid is not None and not math.isfinite(valid):
        raise FloatingPointError(
            f"after step {run.step}, the loss of validation is {valid}, so the run was not saved: "
            "use a smaller --lr"
        )
    loss, epoch = run.recent.nats, run.tokens / len(data.train_ids)
    left = run.seconds * max(args.epochs / epoch - 1, 0)
    figures = {
        "step": run.step,
        "epoch": epoch,
        "loss": loss,
        "valid_loss": valid,
        "gradient_norm": sum(run.recent_norms) / len(run.recent_norms),
        "lr": run.optimizer.lr,
        "tokens_per_s": run.recent.count / run.recent_seconds,
        "seconds": run.seconds,
        "seconds_left": left,
    }
    run.curve.append((epoch, loss, valid))
    run.recent.reset()
    run.recent_norms, run.recent_seconds = [], 0.0
    better, before = valid is not None and valid < run.best, run.best
    if better:
        run.best = valid
    if args.log:
        run._lines.append(json.dumps(figures))
        if attempt(run, args.log, append, run._lines):
            run._lines = []
    if args.save:
        best = args.save.with_stem(f"{args.save.stem}.best")
        if better and not attempt(run, best, save, run, data, args):
            run.best = before  # the best one in a file
        attempt(run, args.save, save, run, data, args)
    line = f"epoch {min(run.epoch + 1, args.epochs):3}, step {run.step:,}: "
    line += f"perplexity {F.perplexity(loss):.3f}"
    line += "" if valid is None else f", validation {F.perplexity(valid):.3f}"
    return line + f", {left / 60:.0f} min left"


def first_line(run: Run, data: Data, args: argparse.Namespace) -> str:
    """Return a line soon after the start; it changes nothing."""
    speed = run.tokens / run.seconds
    left = (args.epochs * len(data.train_ids) - run.tokens) / speed
    loss = F.perplexity(run.losses.nats) if run.losses.count else math.nan
    line = f"epoch {run.epoch + 1:3}, step {run.step:,}: perplexity {loss:.3f} so far"
    return f"{line}, {speed:,.0f} tokens/s, {left / 60:.0f} min left"


def attempt(run: Run, path: Path, write: Callable[..., None], *details: Any) -> bool:
    """Write a file and return True; if that fails (a full disk), say so and return False."""
    try:
        write(path, *details)
        run._unsaved.pop(path, None)
    except OSError as error:
        run._unsaved[path] = str(error)
        print(
            f"{path} could not be written: {error}. Training continues; it is tried again at the "
            "next report",
            file=sys.stderr,
        )
    return path not in run._unsaved


def append(path: Path, lines: list[str]) -> None:
    """Add lines to a file, or nothing."""
    length = path.stat().st_size if path.exists() else 0
    try:
        with path.open("a", encoding="utf-8") as file:
            print(*lines, sep="\n", file=file)
    except OSError:
        with contextlib.suppress(OSError):
            os.truncate(path, length)
        raise


def save(path: Path, run: Run, data: Data, args: argparse.Namespace) -> None:
    """Write the run, and the vocabulary and options for sampling; refuse weights that are nan."""
    for name, parameter in run.model.named_parameters():
        if not np.isfinite(parameter.numpy()).all():
            raise FloatingPointError(
                f"after step {run.step}, {name} is not finite, so the run was not saved: "
                "use a smaller --lr"
            )
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    tg.save(path, run=run, vocabulary=data.vocab, options=options, sha256=data.sha256)


def trim(log: Path, step: int) -> None:
    """Remove the lines of a log after a step: a killed run wrote them, the last one in part."""
    kept = ""
    if step and log.exists():
        with contextlib.suppress(ValueError):  # a partial line is not valid JSON
            for line in log.read_text(encoding="utf-8").splitlines():
                if json.loads(line)["step"] <= step:
                    kept += f"{line}\n"
    with tg.io.atomic_write(log) as file:
        file.write(kept.encode())


@contextlib.contextmanager
def ctrl_c(minutes: float | None = None) -> Iterator[list[int]]:
    """Record Ctrl-C, so that it ends the run between two steps; a second one interrupts it.

    The end of the minutes is recorded too, as the number 0.
    """
    pressed: list[int] = []
    timer = threading.Timer(60 * (minutes or 0), pressed.append, [0])
    timer.daemon = True
    if minutes:
        timer.start()

    try:
        with tg.training.ctrl_c(lambda: pressed.append(signal.SIGINT)):
            yield pressed
    finally:
        timer.cancel()


def progress_bar(total: int, done: int) -> Any:
    """Return a progress bar of tqdm, or None where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    options = {"unit": " tokens", "unit_scale": True, "leave": False, "disable": None}
    return tqdm(total=total, initial=done, **options)


def train(run: Run, data: Data, args: argparse.Namespace) -> str:
    """Train to the end, until Ctrl-C or for --minutes; return which of the last two, or ""."""
    bar = progress_bar(args.epochs * len(data.train_ids), run.tokens)
    say = bar.write if bar is not None else lambda line: print(line, flush=True)
    steps = args.epochs * len(data.train_ids) // (args.batch * args.steps)
    every = args.every or max(steps // 10, 1)
    said, started = False, run.seconds
    with ctrl_c(args.minutes) as pressed:
        while run.epoch < args.epochs and not pressed:
            if run.windows is None:
                run.begin_epoch()
            for x, y in run.windows:
                run.learn(x, y)
                if bar is not None:
                    bar.update(y.size)
                if run.step % every == 0:
                    say(report(run, data, args))
                    said = True
                elif not said and run.seconds - started > FIRST:
                    say(first_line(run, data, args))
                    said = True
                if args.sample_every and run.step % args.sample_every == 0:
                    say(write(run.model, args))
                if pressed:
                    break
            else:
                if run.epoch + 1 == args.epochs and run.recent.count:
                    say(report(run, data, args))
                run.end_epoch()
        if args.save:
            attempt(run, args.save, save, run, data, args)
    if bar is not None:
        bar.close()
    if run.epoch >= args.epochs:
        return ""
    return "interrupted" if any(pressed) else f"stopped after {args.minutes:g} minutes"


def figures_of(losses: Any, text: Any, tokens_per_s: float) -> dict[str, float]:
    """Return loss, perplexity, bits and speed from the losses of a text's characters."""
    pieces = [text] if isinstance(text, str) else text
    bytes_per_char = sum(len(p.encode("utf-8", "surrogatepass")) for p in pieces) / len(text)
    return {
        "loss": losses.nats,
        "perplexity": losses.value,
        "bits_per_char": losses.bits,
        "bits_per_byte": losses.bits / bytes_per_char,
        "tokens_per_s": tokens_per_s,
    }


def show(name: str, figures: dict[str, float]) -> None:
    form = (
        "{0}: loss {loss:.4f}, perplexity {perplexity:.3f}, {bits_per_char:.3f} bits a character, "
        "{bits_per_byte:.3f} bits a byte, {tokens_per_s:,.0f} tokens/s"
    )
    print(form.format(name, **figures))


def conclude(run: Run, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of the last epoch and of the validation after it."""
    figures: dict[str, Any] = figures_of(run.losses, data.train_text, run.tokens / run.seconds)
    show("training", figures)
    valid: dict[str, Any] = dict.fromkeys(figures)
    if len(data.valid_ids):
        began = time.perf_counter()
        losses = evaluate(run.model, data.valid_ids, args)
        speed = losses.count / (time.perf_counter() - began)
        valid = figures_of(losses, data.valid_text, speed)
        show("validation", valid)
    figures |= {f"valid_{name}": figure for name, figure in valid.items()}
    unknown = data.vocab.unknown_rate(data.valid_ids) if len(data.valid_ids) else None
    figures |= {"seconds": run.seconds, "text": args.text, "sha256": data.sha256}
    return figures | {"vocabulary": len(data.vocab), "unknown_rate": unknown}


def plot(path: Path, curve: list[tuple[float, float, float | None]]) -> None:
    """Plot the losses over the epochs."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="loss (nats a character)")
    epochs, train, valid = zip(*curve, strict=True)
    axes.plot(epochs, train, ".-", label="training")
    if None not in valid:
        axes.plot(epochs, valid, ".-", label="validation")
    axes.legend()
    figure.savefig(path)


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return int(text)


def minutes(text: str) -> float:
    if not 0 < float(text) < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return float(text)


class Help(argparse.RawDescriptionHelpFormatter):
    """The help, with the defaults of the options that have one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        without = any(action.default is x for x in (None, False, argparse.SUPPRESS))
        return f"{action.help}" if without else f"{action.help}; default: %(default)s"


def reason_against_plot(path: Path) -> str:
    """Return why a plot could not be written at the end; empty if it can."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return "it needs matplotlib: pip install 'tinygrad-rnn[plot]'"
    known = Figure().canvas.get_supported_filetypes()
    return "" if path.suffix[1:] in known else f"{path} ends with none of {', '.join(known)}"


def arguments() -> tuple[argparse.Namespace, dict[str, Any] | None]:
    """Return the options, and the checkpoint that the run continues, or None."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("--text", default="python_docs", metavar="NAME|PATH", help="a corpus, or a file")
    add("--encoding", default="utf-8-sig", help="of the file, for example gb18030")
    add("--clean", choices=["letters"], help="a-z and space only")
    add("--normalize", choices=["NFC"], help="one code point for a letter and its accents")
    add("--ids", type=Path, metavar="PATH", help="keep the encoded text in this file (.npy)")
    add("--valid", type=float, default=0.1, help="the share of the text that is held out")
    add("--max-tokens", type=positive, help="train on the first so many characters")
    add("--partition", choices=list(PARTITIONS), default="sequential", help="how windows are cut")
    add("--cell", choices=list(CELLS), default="lstm", help="the kind of recurrent layer")
    add("--embedding", type=int, default=128, help="its size; 0 for one-hot characters")
    add("--hidden", type=positive, default=256, help="elements of the state of a layer")
    add("--layers", type=positive, default=1, help="recurrent layers")
    add("--steps", type=positive, default=35, help="characters in a window")
    add("--batch", type=positive, default=32, help="windows in a minibatch")
    add("--epochs", type=positive, default=8, help="passes over the text")
    add("--minutes", type=minutes, help="stop after so many minutes, as at Ctrl-C")
    add("--optimizer", choices=list(OPTIMIZERS), default="adam", help="the rule of the update")
    add("--lr", type=float, default=4e-3, help="the learning rate; --resume can change it")
    add("--decay", choices=list(DECAYS), default="cosine", help="of the learning rate")
    add("--clip", type=float, default=1.0, help="the largest norm of the gradient")
    add("--dropout", type=float, default=0.0, help="the share of activations that is dropped")
    add("--seed", type=int, default=0, help="of the weights, the windows and the samples")
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add(
        "--save",
        type=Path,
        metavar="PATH",
        help="save the run here, and the best one as PATH's .best",
    )
    add("--resume", action="store_true", help="continue the run at --save, if there is one")
    add(
        "--every",
        type=positive,
        metavar="STEPS",
        help="steps between reports; default: a tenth of the run",
    )
    add("--log", type=Path, metavar="PATH", help="add one line of JSON for each report")
    add("--sample-every", type=positive, metavar="STEPS", help="print a sample every so many steps")
    add("--sample-only", type=Path, metavar="PATH", help="sample from a saved model, do not train")
    add("--prefix", default="the ", help="the text that the sample continues")
    add("--length", type=positive, default=400, help="characters to sample")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest character")
    add("--top-k", type=positive, help="draw from the k likeliest characters")
    add(
        "--top-p",
        type=float,
        default=1.0,
        help="draw from the fewest characters with this probability",
    )
    add("--plot", type=Path, metavar="PATH", help="plot the losses (.png, .svg, ...)")
    add("--json", action="store_true", help="the last line is one JSON object with all figures")
    add("--smoke", action="store_true", help="a run of seconds, to test that it works")
    args, saved = parser.parse_args(), None
    if args.resume and not args.save:
        parser.error("--resume continues the run at --save PATH: pass --save too")
    source = args.sample_only or (args.save if args.resume and args.save.exists() else None)
    if source:
        saved = tg.load(source)
        if saved.keys() != {"run", "vocabulary", "options", "sha256"}:
            parser.error(f"{source} is not a run of this example")
        # Options that are not given now have their values of the saved run.
        parser.set_defaults(**{k: v for k, v in saved["options"].items() if k not in THIS_TIME})
        args = parser.parse_args()
    if args.smoke:
        args.max_tokens, args.hidden, args.epochs, args.length = 5000, 32, 2, 80
    for name in COURSE.split() if source and not args.sample_only else ():
        then, now = saved["options"].get(name), getattr(args, name)
        if then != now:
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{source} has {option} {then}: a resumed run cannot change it to {now}")
    why = reason_against_plot(args.plot) if args.plot else ""
    if why:
        parser.error(f"--plot: {why}")
    if not args.prefix:
        parser.error("--prefix: the model needs a character to start from")
    if args.temperature < 0 or not 0 < args.top_p <= 1:
        parser.error("--temperature is at least 0, --top-p above 0 and at most 1")
    for path in (args.save, args.log, args.ids, args.plot):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: no such directory")
    for path in (args.save, args.log):
        if path is not None and path.exists() and not (args.resume or args.sample_only):
            parser.error(f"{path} exists: continue it with --resume, or choose another name")
    return args, saved


def run(args: argparse.Namespace, saved: dict[str, Any] | None) -> int:
    """Train or sample, as the options say; return the exit status."""
    if args.sample_only:
        vocab = text_data.Vocabulary.from_state_dict(saved["vocabulary"])
        model = language_model(vocab, args)
        model.load_state_dict(saved["run"]["model"])
        print(write(model, args))
        return 0
    tg.manual_seed(args.seed)
    data = read(args)
    run = Run(data, args)
    print(run.model)
    if saved:
        if saved["sha256"] != data.sha256:
            raise ValueError(f"{args.save}: the run was trained on another text: {saved['sha256']}")
        run.load_state_dict(saved["run"])
        print(f"continuing after step {run.step:,}")
        if args.lr != saved["options"]["lr"]:
            run.scheduler.base_lr = args.lr
            print(f"--lr is {args.lr:g} from here on, before {saved['options']['lr']:g}")
        now = {"numpy": np.__version__, "python": platform.python_version()}
        then = tg.io.versions(args.save)
        if then != now | {"tinygrad_rnn": tg.__version__}:
            print(f"saved by other versions, {then}: the last bits may differ")
    if args.log:
        trim(args.log, run.step)
    tg.show_config(hints_only=True)  # such as that the machine is busy
    stopped = train(run, data, args)
    known = stopped != "interrupted" and run.losses.count
    figures = conclude(run, data, args) if known else {}
    print(write(run.model, args))
    if args.plot and run.curve:
        plot(args.plot, run.curve)
    if stopped:
        why = run._unsaved.get(args.save, "") if args.save else "no --save"
        print(f"{stopped}; " + (f"not saved: {why}" if why else f"saved: {args.save}"))
    if args.json and stopped != "interrupted":
        print(json.dumps(figures))
    for path, why in run._unsaved.items():
        print(f"char_lm: {path} could not be written: {why}", file=sys.stderr)
    return 130 if stopped == "interrupted" else int(bool(run._unsaved))


def main() -> None:
    # Lines appear at once also in a pipe; characters that a terminal cannot show are escaped.
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    try:
        sys.exit(run(*arguments()))
    except (ValueError, ImportError, OSError, FloatingPointError) as error:
        sys.exit(f"char_lm: {error}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
