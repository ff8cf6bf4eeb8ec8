"""A recurrent language model on words: Zipf's law, the unknown word, an LSTM, sampling.

    python examples/word_lm.py
    python examples/word_lm.py --text book.txt --min-freq 3

Few words are frequent and most are rare: the frequency of the r-th word is about r^-a, and so is
that of pairs and triples, with smaller a. So most triples of a new text were never counted. Words
that occur only once are too rare to learn: they become one unknown word. Its share is printed with
every perplexity, since the unknown word is easy to predict.

The target: on held-out text the LSTM has a lower perplexity than the trigram, whose smoothing is
chosen on the end of the training text.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import tinygrad_rnn as tg

models, text_data, t = tg.models, tg.data.text, tg.training


def zipf(counts: np.ndarray) -> float:
    """Return a of the line log count = -a log rank + b through the ranks 10, 20, 40, ... 1,280."""
    ranks = [r for r in 10 * 2 ** np.arange(8) if r <= len(counts)]
    slope, _ = np.polyfit(np.log(ranks), np.log(counts[np.array(ranks) - 1]), 1)
    return float(-slope)


def learn(model: models.RecurrentLM, ids: np.ndarray, epochs: int) -> None:
    """Train with the state carried from window to window; the learning rate decays to zero."""
    windows = text_data.sequential(ids, batch_size=16, steps=32)
    decay = tg.optim.schedule.cosine(epochs * len(windows))
    tg.fit(
        model,
        windows,
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01),
        epochs=epochs,
        callbacks=[t.ClipNorm(1.0), t.Schedule(decay, per="step"), t.Progress()],
    )


def run(args: argparse.Namespace) -> int:
    tg.manual_seed(args.seed)
    text = text_data.corpus(args.text, args.encoding)
    train, valid = text_data.split(text[:20_000] if args.smoke else text)
    vocab = text_data.Vocabulary(train, level="word", min_freq=args.min_freq)
    ids, held_out = vocab.encode(train), vocab.encode(valid)
    print(f"{args.text}: {len(ids):,} words to learn from, {len(vocab):,} of them different")

    counted = models.NGram(3, vocab).tune(ids)
    slopes = ", ".join(f"{zipf(counted.counts(n)[1]):.2f}" for n in (1, 2, 3))
    print(f"Zipf's exponents of words, pairs and triples: {slopes}")
    model = models.RecurrentLM(tg.nn.LSTMCell, vocab, 128, embedding_dim=64, dropout=0.5)
    learn(model, ids, 1 if args.smoke else args.epochs)
    written = model.sample(held_out[:50], 40, temperature=0.7, rng=args.seed)
    print(f"{vocab.decode(held_out[40:50])} | {vocab.decode(written)}")

    figures = models.compare({"trigram": counted, "LSTM": model}, held_out)
    p = {name: figure.perplexity for name, figure in figures.items()}
    unknown = figures["LSTM"].unknown_rate
    print(f"{len(held_out):,} words held out, {unknown:.2%} unknown; perplexity: ", end="")
    print(", ".join(f"{name} {value:.1f}" for name, value in p.items()))
    return int(not (args.smoke or p["LSTM"] < p["trigram"]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a recurrent language model on words.")
    parser.add_argument("--text", default="python_docs", help="python_docs, or a file")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file")
    parser.add_argument("--min-freq", type=int, default=2, help="rarer words are unknown")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch of little text, no target")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    try:
        return run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"word_lm: {error}")


if __name__ == "__main__":
    sys.exit(main())
