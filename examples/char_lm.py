r"""Train a character language model on a text, then let it write.

    python examples/char_lm.py
    python examples/char_lm.py --text book.txt --cell gru --prefix "Once " --save gru.npz
    python examples/char_lm.py --text time_machine --clean letters --max-tokens 10000 \
        --cell rnn --optimizer sgd --lr 1 --epochs 500 --valid 0

The last takes the settings of the book Dive into Deep Learning, which however has one-hot
characters and a constant learning rate (--embedding 0 --decay none). The text is split first;
--max-tokens shortens the part to train on, and the vocabulary is made of what is left of it.

The figures of training are the mean over the last epoch, each loss before its step. Those of
validation come after the last step: every held-out character but the first is predicted once, with
the state carried from window to window.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tinygrad_rnn as tg

F, text_data = tg.functional, tg.data.text

CELLS = {"rnn": tg.nn.RNN, "gru": tg.nn.GRU, "lstm": tg.nn.LSTM}
OPTIMIZERS = {"sgd": tg.optim.SGD, "adam": tg.optim.Adam, "rmsprop": tg.optim.RMSprop}


class CharLM(tg.nn.Module):
    """An embedding or one-hot characters, recurrent layers, logits for the next character."""

    def __init__(self, vocab_size: int, args: argparse.Namespace) -> None:
        super().__init__()
        self.vocab_size = vocab_size
        size, device = args.embedding, args.device
        self.embedding = tg.nn.Embedding(vocab_size, size, device=device) if size else None
        self.rnn = CELLS[args.cell](
            size or vocab_size, args.hidden, args.layers, dropout=args.dropout, device=device
        )
        self.dropout = tg.nn.Dropout(args.dropout)
        self.head = tg.nn.Linear(args.hidden, vocab_size, device=device)

    def forward(self, ids: tg.Tensor, state: Any = None) -> tuple[tg.Tensor, Any]:
        """Return logits (T, B, V) of what follows each of the ids (T, B), and the new state."""
        x = self.embedding(ids) if self.embedding else F.one_hot(ids, self.vocab_size)
        output, state = self.rnn(x, state)
        return self.head(self.dropout(output)), state


def train_epoch(model: CharLM, windows: Iterable[Any], optimizer: Any, args: Any) -> Any:
    """Take one step of the optimiser for each window; return the losses before the steps."""
    losses = tg.metrics.Perplexity()
    model.train()
    state = None
    for x, y in windows:
        logits, state = model(x, state)
        loss = F.cross_entropy(logits, y)
        optimizer.zero_grad()
        loss.backward()
        tg.optim.clip_grad_norm(model.parameters(), args.clip, error_if_nonfinite=True)
        optimizer.step()
        # A window that continues the last one takes its state, without the gradient's way back.
        state = tg.bptt.detach(state) if args.partition == "sequential" else None
        losses.update(loss.item(), y.size)
    return losses


@tg.no_grad()
def evaluate(model: CharLM, ids: np.ndarray, args: Any) -> Any:
    """Predict every character of a text but the first exactly once."""
    losses = tg.metrics.Perplexity()
    model.eval()
    state = None
    for x, y in text_data.evaluation(ids, args.batch, args.steps, device=args.device):
        logits, state = model(x, state)
        count = int((y.numpy() != -1).sum())  # -1 stands where the text is over
        losses.update(F.cross_entropy(logits, y, ignore_index=-1), count)
    return losses


def choose(logits: np.ndarray, args: Any) -> int:
    """Draw the next character: of the likeliest ``top_k``, the fewest that hold ``top_p``."""
    logits = logits.astype(np.float64)
    logits[0] = -np.inf  # never the unknown token
    if args.temperature == 0:
        return int(logits.argmax())
    likeliest = np.argsort(-logits)[: args.top_k]
    p = np.exp((logits[likeliest] - logits[likeliest[0]]) / args.temperature)
    p /= p.sum()
    enough = np.searchsorted(p.cumsum(), args.top_p) + 1
    p = p[:enough] / p[:enough].sum()
    return int(tg.random.generator().choice(likeliest[:enough], p=p))


@tg.no_grad()
def write(model: CharLM, vocab: text_data.Vocabulary, args: Any) -> str:
    """Return the prefix and ``length`` characters that the model makes follow it."""
    model.eval()
    ids, state, written = vocab.encode(args.prefix).astype(np.int64), None, []
    for _ in range(args.length):
        logits, state = model(tg.tensor(ids[:, None], device=args.device), state)
        ids = np.array([choose(logits[-1, 0].numpy(), args)])
        written.append(ids[0])
    return args.prefix + vocab.decode(np.array(written, np.int64))


def report(losses: Any, text: str, tokens_per_s: float) -> dict[str, float]:
    """Return the figures of a text from the losses of its characters."""
    bytes_per_char = len(text.encode("utf-8", "surrogatepass")) / len(text)
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


def progress_bar(total: int) -> Any:
    """Return a bar of tqdm, or None where it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit=" tokens", unit_scale=True, leave=False, disable=None)


def counted(windows: Iterable[Any], bar: Any) -> Iterator[Any]:
    """Hand the windows on and move the bar."""
    for x, y in windows:
        yield x, y
        if bar is not None:
            bar.update(y.size)


def save(path: Path, model: CharLM, vocab: text_data.Vocabulary, args: Any) -> None:
    """Write the weights, and vocabulary and options as JSON, so that no half of a file is left."""
    about = json.dumps({"vocabulary": vocab.state_dict(), "options": vars(args)}, default=str)
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        np.savez(file, about=np.array(about), **model.state_dict())
    os.replace(temporary, path)


def plot(path: Path, curve: list[tuple[int, float, float | None]]) -> None:
    """Draw the losses over the epochs."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: it needs matplotlib: pip install 'tinygrad-rnn[plot]'")
        return
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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--text", default="python_docs", metavar="NAME|PATH")
    add("--encoding", default="utf-8-sig", help="of the file")
    add("--clean", choices=["none", "letters"], default="none", help="letters: a-z and space only")
    add("--valid", type=float, default=0.1, help="the share of the text that is held out")
    add("--max-tokens", type=positive, help="train on the first so many characters")
    add("--partition", choices=["sequential", "random"], default="sequential")
    add("--cell", choices=list(CELLS), default="lstm")
    add("--embedding", type=int, default=128, help="its size; 0 for one-hot characters")
    add("--hidden", type=positive, default=256)
    add("--layers", type=positive, default=1)
    add("--steps", type=positive, default=35, help="characters in a window")
    add("--batch", type=positive, default=32, help="windows beside each other")
    add("--epochs", type=positive, default=8)
    add("--optimizer", choices=list(OPTIMIZERS), default="adam")
    add("--lr", type=float, default=4e-3, help="the learning rate")
    add("--decay", choices=["cosine", "none"], default="cosine", help="of the learning rate")
    add("--clip", type=float, default=1.0, help="the largest norm of the gradient")
    add("--dropout", type=float, default=0.0)
    add("--seed", type=int, default=0)
    add("--device", default="cpu", help="cpu, cuda or cuda:N")
    add("--prefix", default="the ", help="what the model continues")
    add("--length", type=positive, default=400, help="characters to write")
    add("--temperature", type=float, default=0.7, help="0 takes the likeliest character")
    add("--top-k", type=positive, help="draw from the k likeliest characters")
    add("--top-p", type=float, default=1.0, help="draw from the fewest that hold this probability")
    add("--save", type=Path, metavar="PATH", help="write weights and vocabulary (.npz)")
    add("--plot", type=Path, metavar="PATH", help="draw the losses (.png, .svg, ...)")
    add("--json", action="store_true", help="the last line is one JSON object with all figures")
    add("--smoke", action="store_true", help="seconds instead of minutes: does it run?")
    args = parser.parse_args()
    if args.smoke:
        args.max_tokens, args.hidden, args.epochs, args.length = 5000, 32, 2, 80
    if not args.prefix:
        parser.error("--prefix: the model needs a character to start from")
    if args.temperature < 0 or not 0 < args.top_p <= 1:
        parser.error("--temperature is at least 0, --top-p above 0 and at most 1")
    for path in (args.save, args.plot):
        if path is not None and not path.parent.is_dir():
            parser.error(f"{path}: there is no such directory")
    return args


def run(args: argparse.Namespace) -> None:
    tg.manual_seed(args.seed)
    clean = None if args.clean == "none" else args.clean
    text = text_data.corpus(args.text, encoding=args.encoding, clean=clean)
    train_text, valid_text = text_data.split(text, args.valid)
    train_text = train_text[: args.max_tokens]
    vocab = text_data.Vocabulary(train_text)
    train_ids, valid_ids = vocab.encode(train_text), vocab.encode(valid_text)
    unknown = vocab.unknown_rate(valid_ids) if valid_text else None
    digest = text_data.sha256(text)
    print(f"{args.text}: {len(text):,} characters, sha256 {digest}")
    print(f"training on {len(train_ids):,} characters, vocabulary of {len(vocab)}")
    if valid_text:
        print(f"validation on {len(valid_ids):,} characters, {unknown:.3%} unknown")

    model = CharLM(len(vocab), args)
    print(model)
    optimizer = OPTIMIZERS[args.optimizer](model.parameters(), lr=args.lr)
    schedules = {"cosine": tg.optim.schedule.cosine(args.epochs), "none": lambda epoch: 1.0}
    scheduler = tg.optim.schedule.Scheduler(optimizer, schedules[args.decay])
    minibatches = {"sequential": text_data.sequential, "random": text_data.random}[args.partition]

    bar = progress_bar(args.epochs * len(train_ids))
    tokens, training_seconds, curve = 0, 0.0, []
    start = time.perf_counter()
    for epoch in range(1, args.epochs + 1):
        began = time.perf_counter()
        windows = minibatches(train_ids, args.batch, args.steps, device=args.device)
        train = train_epoch(model, counted(windows, bar), optimizer, args)
        if not math.isfinite(train.value):
            raise FloatingPointError(f"diverged in epoch {epoch}: use a smaller --lr or --clip")
        scheduler.step()
        training_seconds += time.perf_counter() - began
        tokens += train.count
        if epoch * 10 % args.epochs >= 10:
            continue  # ten reports are enough
        line, began = f"epoch {epoch:3}: perplexity {train.value:.3f}", time.perf_counter()
        valid = evaluate(model, valid_ids, args) if valid_text else None
        valid_seconds = time.perf_counter() - began
        line += f", validation {valid.value:.3f}" if valid else ""
        line += f", {time.perf_counter() - start:.0f} s"
        print(line, flush=True) if bar is None else bar.write(line)
        curve.append((epoch, train.nats, valid.nats if valid else None))
    seconds = time.perf_counter() - start
    if bar is not None:
        bar.close()

    figures: dict[str, Any] = report(train, train_text, tokens / training_seconds)
    show("training", figures)
    if valid:
        valid_figures = report(valid, valid_text, valid.count / valid_seconds)
        show("validation", valid_figures)
        figures |= {f"valid_{name}": figure for name, figure in valid_figures.items()}
    else:
        figures |= {f"valid_{name}": None for name in figures}
    print(f"\n{write(model, vocab, args)}\n")
    if args.save:
        save(args.save, model, vocab, args)
    if args.plot:
        plot(args.plot, curve)
    if args.json:
        figures |= {"seconds": seconds, "text": args.text, "sha256": digest}
        figures |= {"vocabulary": len(vocab), "unknown_rate": unknown}
        print(json.dumps(figures))


def main() -> None:
    sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a character
    user_errors = (tg.errors.ArgumentError, tg.errors.DeviceError, ImportError, OSError)
    try:
        run(arguments())
    except (*user_errors, FloatingPointError) as error:
        sys.exit(f"char_lm: {error}")


if __name__ == "__main__":
    main()
