"""Tell the language of a name: classes of sequences of different lengths.

    python examples/classify_names.py

Names of two to five syllables in four languages, which share some syllables: "noribel" can be of
two of them. The target: the language of 92 % of new names; with the syllables known, 97 % are
possible.
"""

import sys
import tempfile

import numpy as np

import tinygrad_rnn as tg

syllables = {
    "Anu": "ka nu ra mi ta ela una iko",
    "Bel": "ka no ri mi bel dor gan eth",
    "Cor": "ta no ri so bel cor vin ast",
    "Dys": "ra nu so dy ys cor gwe llan",
}
rng = np.random.default_rng(0)
languages = rng.choice(list(syllables), size=3000)
names = ["".join(rng.choice(syllables[x].split(), rng.integers(2, 6))) for x in languages]
classes, labels = np.unique(languages, return_inverse=True)

vocab = tg.data.text.Vocabulary("".join(names[:2000]))
ids = [vocab.encode(name) for name in names]
model = tg.models.Classifier(tg.nn.GRUCell, vocab, classes, hidden_size=32, rng=0)
history = tg.fit(
    model, tg.data.ragged_batches(ids[:2000], labels[:2000], batch_size=32, rng=0),
    loss=tg.functional.cross_entropy, optimizer=tg.optim.Adam(model.parameters(), lr=0.01),
    epochs=1 if "--smoke" in sys.argv else 10,
    valid=tg.data.ragged_batches(ids[2000:2500], labels[2000:2500], batch_size=500, shuffle=False),
    callbacks=[tg.training.EarlyStopping(patience=3), tg.training.BestModel()],
)  # fmt: skip

confusion = tg.metrics.Confusion(classes)
confusion.update(model.probabilities(names[2500:]), labels[2500:])
confusion.plot(path := f"{tempfile.mkdtemp()}/names.png")
print(history, confusion, f"accuracy {confusion.accuracy:.1%}; {path}", sep="\n")
assert "--smoke" in sys.argv or confusion.accuracy > 0.92
