"""Train a language model on a book, save it, and let another process write with it.

    python examples/book.py

The book is the language reference that Python contains. The target: a lower perplexity on held-out
text than the trigram's.
"""

import subprocess
import sys
import tempfile

import tinygrad_rnn as tg

folder = tempfile.mkdtemp()
train, valid = tg.data.text.split(tg.data.text.corpus("python_docs")[:150_000])
vocab = tg.data.text.Vocabulary(train)
model = tg.models.RecurrentLM(tg.nn.GRUCell, vocab, hidden_size=128, embedding_dim=32, rng=0)
history = tg.fit(
    model, tg.data.text.sequential(vocab.encode(train), batch_size=16, steps=32, rng=0),
    loss=lambda logits, y: tg.functional.cross_entropy(logits, y, ignore_index=-1),
    optimizer=tg.optim.Adam(model.parameters(), lr=0.005),
    epochs=1 if "--smoke" in sys.argv else 5,
    valid=tg.data.text.evaluation(vocab.encode(valid), batch_size=32, steps=32),
    callbacks=[tg.training.ClipNorm(1.0), tg.training.BestModel()],
)  # fmt: skip
model.save(f"{folder}/book.npz")
history.plot(path=f"{folder}/book.png")

code = "import tinygrad_rnn as tg; model = tg.models.load('book.npz'); "
code += "print('The', model.sample('The ', 300, temperature=0.5, rng=1, stop='.'))"
command = [sys.executable, "-c", code]
sentence = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
perplexity = model.perplexity(valid)
trigram = tg.models.NGram(3, vocab).fit(train).perplexity(valid)
print(history, f"perplexity {perplexity:.2f}, trigram {trigram:.2f}; {folder}", sentence, sep="\n")
assert "--smoke" in sys.argv or (perplexity < trigram and "." not in sentence)
