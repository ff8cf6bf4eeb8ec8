r"""Train a character language model on a text, then sample from it.

    python examples/char_lm.py
    python examples/char_lm.py --text book.txt --cell gru --prefix "Once " --save run.ckpt --resume
    python examples/char_lm.py --sample-only run.best.ckpt --prefix "Twice " --temperature 0.5
    python examples/char_lm.py --text time_machine --clean letters --max-tokens 10000 \
        --cell rnn --optimizer sgd --lr 1 --epochs 500 --valid 0
    mpiexec -n 4 python examples/char_lm.py --save run.ckpt --resume

The fourth command has the settings of the book Dive into Deep Learning, except that the book has
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

Under mpiexec the processes train one model: each reads its columns of a --batch and of the held-out
text, and the first one prints, writes and samples. SIGTERM is as Ctrl-C there. The same number of
processes continues a run to the same bits; another one has other last digits and dropout masks.

The training loop is `tg.fit`; its callbacks `Report` and `Best` are below.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import platform
import sys
import time
import warnings
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
FIRST = 1.0  # seconds until the first line about the training


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
    world = tg.distributed.init()
    ids = vocab.encode(text, out=args.ids) if world.rank == 0 or not args.ids else None
    world.meet("read")  # from here on the file of --ids is there
    ids = np.load(args.ids, mmap_mode="r") if ids is None else ids
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


def evaluate(model: tg.models.RecurrentLM, ids: np.ndarray, args: Any) -> float:
    """Return the mean loss of a text, every character of which is predicted exactly once."""
    world, metric, state = tg.distributed.init(), tg.metrics.Perplexity(), None
    if world.size == 1:
        return model.score(ids, batch_size=args.batch, steps=args.steps)
    windows = text_data.evaluation(np.insert(ids, 0, 0), args.batch, args.steps, args.device)
    with model.evaluating(), tg.no_grad():
        for x, y in world.shard(windows):  # the columns of this rank
            logits, state = model(x, state)
            losses = F.cross_entropy(logits, y, ignore_index=-1, reduction="none")
            metric.update(losses.numpy()[y.numpy() >= 0])
    return world.merge(metric).nats


def write(model: tg.models.RecurrentLM, args: Any) -> str:
    """Return the prefix and ``length`` characters that the model samples after it."""
    if tg.distributed.init().rank:
        return ""  # which is not printed
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


class Report(tg.training.Progress):
    """Validate, and print a row of figures; print the samples on the way."""

    def __init__(self, data: Data, args: argparse.Namespace) -> None:
        self.data, self.args, self.said = data, args, False

    def start(self, run: tg.training.Run) -> None:
        """Make the progress bar."""
        super().start(run)
        self.run, self.began = run, time.monotonic()

    def line(self, loss: float, more: str) -> str:
        """Return a line about the training so far."""
        epoch = min(self.run.epoch + 1, self.args.epochs)
        line = f"epoch {epoch:3}, step {self.run.step:,}: perplexity {F.perplexity(loss):.3f}"
        return f"{line}{more}, {self.seconds_left / 60:.0f} min left"

    @property
    def speed(self) -> float:
        """Characters a second, without the time of validation."""
        return self.run.step * self.args.batch * self.args.steps / self.run.step_seconds

    @property
    def seconds_left(self) -> float:
        """The time of the steps to come."""
        steps = self.args.epochs * len(self.run.batches)
        return max(steps / self.run.step - 1, 0) * self.run.step_seconds

    def step(self, run: tg.training.Run) -> None:
        """Print a sample now and then, and a line soon after the start."""
        super().step(run)
        if self.args.sample_every and run.step % self.args.sample_every == 0:
            self.say(write(run.model, self.args))
        if not self.said and run.step % run.every and time.monotonic() - self.began > FIRST:
            sums, self.said = run.losses.epoch, True
            loss = sums.total / sums.count if sums.count else math.nan
            self.say(self.line(loss, f" so far, {self.speed:,.0f} tokens/s"))

    def report(self, run: tg.training.Run) -> None:
        """Validate and print."""
        before, loss, valid = [{"step": 0, "seconds": 0.0}, *run.history][-2], None, ""
        if len(self.data.valid_ids):
            loss = evaluate(run.model, self.data.valid_ids, self.args)
            if not math.isfinite(loss):
                raise FloatingPointError(f"after step {run.step}, the loss of validation is {loss}")
            valid = f", validation {F.perplexity(loss):.3f}"
        tokens = (run.step - before["step"]) * self.args.batch * self.args.steps
        run.figures |= {
            "valid_loss": loss,
            "tokens_per_s": tokens / (run.step_seconds - before["seconds"]),
            "seconds": run.step_seconds,
            "seconds_left": self.seconds_left,
        }
        self.say(self.line(run.figures["loss"], valid))
        self.said = True


class Best(tg.training.Checkpoint):
    """Save the run where its validation is the best one in a file."""

    saved, best = ("best",), math.inf

    def report(self, run: tg.training.Run) -> None:
        """Save the run if it is better."""
        before, loss = self.best, run.figures["valid_loss"]
        if loss is not None and loss < before:
            self.best = loss
            self.save(run)
            self.best = before if run.agree(self.error is not None) else loss

    def start(self, run: tg.training.Run) -> None:
        """Do not continue this file."""

    step = epoch = tg.training.Callback.step  # nor save at other times


def converted(old: dict[str, Any], batches: tg.data.ResumableIterator) -> dict[str, Any]:
    """Return the run of a file that this example wrote when it had a loop of its own."""
    recent = {"norms": math.fsum(old["recent_norms"]), "steps": len(old["recent_norms"])}
    epoch = {"norms": 0.0, "steps": old["windows"]["position"] if old["windows"] else 0}
    rows = [{"epoch": epoch, "loss": loss, "valid_loss": v} for epoch, loss, v in old["curve"]]
    if rows:
        rows[-1]["step"] = old["step"] - recent["steps"]
        rows[-1]["seconds"] = old["seconds"] - old["recent_seconds"]
    same = ("model", "optimizer", "epoch", "step", "seconds", "state", "random")
    return {name: old[name] for name in same} | {
        "step_seconds": old["seconds"],
        "losses": {"epoch": old["losses"] | epoch, "recent": old["recent"] | recent},
        "batches": old["windows"] or batches.state_dict() | {"position": len(batches)},
        "in_epoch": old["windows"] is not None,
        "valid": None,
        "callbacks": [
            ["Schedule", {"scheduler": old["scheduler"]}],
            ["Best", {"best": old["best"]}],
        ],
        "history": rows,
        "stopped": "",
    }


def shown(name: str, loss: float, text: Any, tokens_per_s: float) -> dict[str, float]:
    """Print and return figures of a text: loss, perplexity, bits and speed."""
    pieces = [text] if isinstance(text, str) else text
    bytes_per_char = sum(len(p.encode("utf-8", "surrogatepass")) for p in pieces) / len(text)
    bits = loss / math.log(2)
    print(
        f"{name}: loss {loss:.4f}, perplexity {F.perplexity(loss):.3f}, {bits:.3f} bits a "
        f"character, {bits / bytes_per_char:.3f} bits a byte, {tokens_per_s:,.0f} tokens/s"
    )
    figures = {"loss": loss, "perplexity": F.perplexity(loss), "bits_per_char": bits}
    return figures | {"bits_per_byte": bits / bytes_per_char, "tokens_per_s": tokens_per_s}


def conclude(report: Report, data: Data, args: argparse.Namespace) -> dict[str, Any]:
    """Print and return the figures of the last epoch and of the validation after it."""
    run, sums = report.run, report.run.losses.epoch
    figures: dict[str, Any] = shown(
        "training", sums.total / sums.count, data.train_text, report.speed
    )
    valid, unknown = dict.fromkeys(figures), None
    if len(data.valid_ids):
        began = time.perf_counter()
        loss = evaluate(run.model, data.valid_ids, args)
        speed = len(data.valid_ids) / (time.perf_counter() - began)
        valid = shown("validation", loss, data.valid_text, speed)
        unknown = data.vocab.unknown_rate(data.valid_ids)
    figures |= {f"valid_{name}": figure for name, figure in valid.items()}
    figures |= {"seconds": run.step_seconds, "text": args.text, "sha256": data.sha256}
    return figures | {"vocabulary": len(data.vocab), "unknown_rate": unknown}


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
    add("--save", type=Path, metavar="PATH", help="save the run here, the best one as PATH's .best")
    add("--resume", action="store_true", help="continue the run at --save, if there is one")
    add("--every", type=positive, metavar="N", help="report every N steps; default: 10 times")
    add("--log", type=Path, metavar="PATH", help="add one line of JSON for each report")
    add("--sample-every", type=positive, metavar="STEPS", help="print a sample every so many steps")
    add("--sample-only", type=Path, metavar="PATH", help="sample from a saved model, do not train")
    add("--prefix", default="the ", help="the text that the sample continues")
    add("--length", type=positive, default=400, help="characters to sample")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest character")
    add("--top-k", type=positive, help="draw from the k likeliest characters")
    add("--top-p", type=float, default=1.0, help="draw from the likeliest with this probability")
    add("--plot", type=Path, metavar="PATH", help="plot the losses (.png, .svg, ...)")
    add("--json", action="store_true", help="the last line is one JSON object with all figures")
    add("--smoke", action="store_true", help="a run of seconds, to test that it works")
    args, saved = parser.parse_args(), None
    if args.resume and not args.save:
        parser.error("--resume continues the run at --save PATH: pass --save too")
    source = args.sample_only or (args.save if args.resume and args.save.exists() else None)
    if source:
        saved = tg.load(source)
        if saved.keys() - {"run", "fit"} != {"vocabulary", "options", "sha256"}:
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
    if args.batch % (ranks := tg.distributed.init().size):
        parser.error(f"--batch {args.batch} cannot be divided by the {ranks} processes of mpiexec")
    if not args.temperature >= 0 or not 0 < args.top_p <= 1:
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
        model = language_model(text_data.Vocabulary.from_state_dict(saved["vocabulary"]), args)
        model.load_state_dict(saved.get("fit", saved.get("run"))["model"])
        print(write(model, args))
        return 0
    tg.manual_seed(args.seed)
    world, data = tg.distributed.init(), read(args)
    model = language_model(data.vocab, args)
    print(model)
    windows = PARTITIONS[args.partition](data.train_ids, args.batch, args.steps, device=args.device)
    batches = world.shard(windows)
    options = {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()}
    about = {"vocabulary": data.vocab, "options": options, "sha256": data.sha256}
    if saved:
        resume(args, saved, batches, about)
    tg.show_config(hints_only=True)  # such as that the machine is busy

    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.lr)
    parallel = [tg.distributed.data_parallel(model, optimizer)] if world.launched else []
    report = Report(data, args)
    decay = tg.training.Schedule(DECAYS[args.decay](args.epochs))
    callbacks = [report, tg.training.ClipNorm(args.clip), decay]
    if args.minutes:
        callbacks.append(tg.training.TimeLimit(args.minutes))
    files = [tg.training.Log(args.log, resume=True)] if args.log else []
    if args.save:
        files.append(Best(args.save.with_stem(f"{args.save.stem}.best"), extra=about))
        files.append(tg.training.Checkpoint(args.save, resume=True, lr=args.lr, extra=about))
    try:
        tg.fit(
            model,
            batches,
            loss=F.cross_entropy,
            optimizer=optimizer,
            epochs=args.epochs,
            every=args.every or max(args.epochs * len(batches) // 10, 1),
            callbacks=[*parallel, *callbacks, *files],
        )
    except OSError as error:  # the last attempt to write one of the files
        if all(error is not file.error for file in files):
            raise

    run, by_ctrl_c = report.run, report.run.stopped == "stopped by Ctrl-C"
    figures = conclude(report, data, args) if run.step and not by_ctrl_c else {}
    print(write(model, args))
    if args.plot and run.history and world.rank == 0:
        run.history.plot("loss", *["valid_loss"] * bool(len(data.valid_ids)), path=args.plot)
    if run.stopped:
        why = files[-1].error if args.save else "no --save"
        print(f"not saved: {why}" if why else f"saved: {args.save}")
    if args.json and not by_ctrl_c:
        print(json.dumps(figures))
    unwritten = [file for file in files if file.error]
    for file in unwritten:
        print(f"char_lm: {file.path} could not be written: {file.error}", file=sys.stderr)
    return 130 if by_ctrl_c else int(bool(unwritten))


def resume(args: Any, saved: dict[str, Any], batches: Any, about: dict[str, Any]) -> None:
    """Check and announce a run that is continued."""
    if saved["sha256"] != about["sha256"]:
        raise ValueError(f"{args.save}: the run was trained on another text: {saved['sha256']}")
    then = tg.io.versions(args.save)
    if "run" in saved:
        saved["fit"] = converted(saved["run"], batches)
        tg.distributed.init().save(args.save, fit=saved["fit"], **about)
    print(f"continuing after step {saved['fit']['step']:,}")
    if args.lr != saved["options"]["lr"]:
        print(f"--lr is {args.lr:g} from here on, before {saved['options']['lr']:g}")
    now = {"numpy": np.__version__, "python": platform.python_version()}
    now["tinygrad_rnn"] = tg.__version__
    if any(then[name] != version for name, version in now.items()):
        print(f"saved by other versions, {then}: the last bits may differ")


def fail(message: str) -> None:
    """Exit with a message; one that all ranks have is printed once."""
    world = tg.distributed.init()
    world.meet(f"char_lm: {message}")
    sys.exit(1 if world.rank else f"char_lm: {message}")


def main() -> None:
    # Lines appear at once also in a pipe; characters that a terminal cannot show are escaped.
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    warnings.simplefilter("always", UserWarning)  # about each file that could not be written
    warnings.formatwarning = lambda message, *details: f"char_lm: {message}\n"
    # Under mpiexec rank 0 prints, and a rank waits for the others so many seconds (--ids, --plot).
    world = tg.distributed.init(patience=600)
    try:
        with contextlib.redirect_stderr(sys.stdout if world.rank else sys.stderr):
            options = arguments()
        sys.exit(run(*options))
    except FloatingPointError as error:
        cause, _, _ = world.broadcast(str(error)).partition(": use a smaller")
        fail(f"{cause}: use a smaller --lr or --clip")
    except (ValueError, ImportError, OSError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
