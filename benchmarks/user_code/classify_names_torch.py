"""The job of examples/classify_names.py in PyTorch: the same data, network and budget."""

import copy
import math
import sys
import tempfile
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence
from torch.utils.data import DataLoader

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

vocab = {token: i for i, token in enumerate(sorted(set("".join(names[:2000]))), 1)}  # 0: unknown
ids = [torch.tensor([vocab.get(token, 0) for token in name]) for name in names]


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(len(vocab) + 1, 32, batch_first=True)
        self.head = nn.Linear(32, len(classes))

    def forward(self, x, lengths):
        vectors = nn.functional.one_hot(x, len(vocab) + 1).float()
        packed = pack_padded_sequence(vectors, lengths, batch_first=True, enforce_sorted=False)
        _, h = self.rnn(packed)
        return self.head(h[-1])


def collate(rows):
    sequences, y = zip(*rows)
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    return pad_sequence(sequences, batch_first=True), lengths, torch.tensor(y)


torch.manual_seed(0)
model = Classifier()
rows = list(zip(ids, labels))
loader = DataLoader(rows[:2000], batch_size=32, shuffle=True, collate_fn=collate)
x_valid, lengths_valid, y_valid = collate(rows[2000:2500])
optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
best, best_weights, waited = math.inf, None, 0
start = time.perf_counter()
for epoch in range(1 if "--smoke" in sys.argv else 10):
    model.train()
    total = 0.0
    for x, lengths, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x, lengths), y)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(x)
    model.eval()
    with torch.no_grad():
        valid_loss = nn.functional.cross_entropy(model(x_valid, lengths_valid), y_valid).item()
    seconds = time.perf_counter() - start
    print(f"{epoch + 1} {total / 2000:.4f} {valid_loss:.4f} {seconds:.2f}")
    waited += 1
    if valid_loss < best:
        best, best_weights, waited = valid_loss, copy.deepcopy(model.state_dict()), 0
    if waited == 3:
        break
model.load_state_dict(best_weights)

x, lengths, y = collate(rows[2500:])
with torch.no_grad():
    predicted = model(x, lengths).argmax(dim=1)
confusion = np.zeros((len(classes), len(classes)), int)
np.add.at(confusion, (y.numpy(), predicted.numpy()), 1)
accuracy = confusion.trace() / confusion.sum()
plt.imshow(confusion / confusion.sum(axis=1, keepdims=True), cmap="Greys", vmin=0, vmax=1)
plt.xticks(range(len(classes)), classes)
plt.yticks(range(len(classes)), classes)
plt.xlabel("predicted")
plt.ylabel("true")
plt.savefig(path := f"{tempfile.mkdtemp()}/names.png")
print(confusion)
print(f"accuracy {accuracy:.1%}; {path}")
assert "--smoke" in sys.argv or accuracy > 0.92
