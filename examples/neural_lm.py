"""Bengio's neural probabilistic language model on words, compared with n-grams.

    python examples/neural_lm.py
    python examples/neural_lm.py --text book.txt --context 5

In an n-gram model all pairs of words are equally different: counts after "the tuple" have no effect
on predictions after "the list". The neural model learns a vector for every word and predicts from
the vectors of the last --context words; words with a similar use get similar vectors, as the output
shows for a few. The equal mixture with the trigram is better than both, since their errors differ
(Bengio, Ducharme, Vincent and Jauvin 2003, A Neural Probabilistic Language Model, section 4.2).

The targets: the neural model has a lower perplexity than the trigram, whose smoothing is chosen on
the end of the training text, and the mixture has a lower one than both.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

import tinygrad_rnn as tg

models, text_data, t = tg.models, tg.data.text, tg.training


def learn(model: models.NeuralLM, ids: np.ndarray, epochs: int, batch_size: int = 16) -> None:
    """Train with a learning rate that decays to zero."""
    windows = text_data.sequential(ids, batch_size, steps=16)
    decay = tg.optim.schedule.cosine(epochs * len(windows))
    tg.fit(
        model,
        windows,
        loss=tg.functional.cross_entropy,
        optimizer=tg.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01),
        epochs=epochs,
        callbacks=[t.ClipNorm(1.0), t.Schedule(decay, per="step"), t.Progress()],
    )


def neighbours(model: models.NeuralLM, vocab: text_data.Vocabulary, word: str) -> str:
    """Return the words whose vectors have the largest cosine with that of a word."""
    vectors = model.embedding.weight.numpy()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors[vocab.encode([word])[0]]
    return f"{word}: {' '.join(vocab.tokens[i] for i in np.argsort(-cosines)[1:6])}"


def run(args: argparse.Namespace) -> int:
    tg.manual_seed(args.seed)
    text = text_data.corpus(args.text, args.encoding)
    train, valid = text_data.split(text[:20_000] if args.smoke else text)
    vocab = text_data.Vocabulary(train, level="word", min_freq=2)
    ids, held_out = vocab.encode(train), vocab.encode(valid)
    print(f"{args.text}: {len(ids):,} words to learn from, {len(vocab):,} of them different")

    counted = models.NGram(3, vocab).tune(ids)
    model = models.NeuralLM(args.context, vocab, 64, 128, dropout=0.5)
    learn(model, ids, 1 if args.smoke else args.epochs)
    for word in [vocab.tokens[i] for i in (10, 30, 50, 100)]:
        print(neighbours(model, vocab, word))

    figures = models.compare({"trigram": counted, "neural": model}, held_out)
    halves = [-m.losses(held_out) - np.log(2) for m in (counted, model)]
    mixture = tg.functional.perplexity(-np.logaddexp(*halves).mean())
    p = {name: figure.perplexity for name, figure in figures.items()} | {"mixture": mixture}
    print(
        f"{len(held_out):,} words held out, {figures['neural'].unknown_rate:.2%} unknown;", end=" "
    )
    print("perplexity: " + ", ".join(f"{name} {value:.1f}" for name, value in p.items()))
    return int(not (args.smoke or p["mixture"] < p["neural"] < p["trigram"]))


def main() -> int:
    parser = argparse.ArgumentParser(description="Train a neural language model on words.")
    parser.add_argument("--text", default="python_docs", help="python_docs, or a file")
    parser.add_argument("--encoding", default="utf-8-sig", help="of the file")
    parser.add_argument("--context", type=int, default=4, help="words that a prediction reads")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="one epoch of little text, no target")
    args = parser.parse_args()
    if args.epochs < 1:
        parser.error(f"--epochs must be at least 1, got {args.epochs}")
    try:
        return run(args)
    except (ValueError, OSError) as error:
        sys.exit(f"neural_lm: {error}")


if __name__ == "__main__":
    sys.exit(main())
