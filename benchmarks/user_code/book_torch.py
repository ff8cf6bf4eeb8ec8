"""The job of examples/book.py in PyTorch: the same data, network and budget.

The target is the perplexity of the trigram there: PyTorch has no n-grams.
"""

import copy
import math
import subprocess
import sys
import tempfile
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

import tinygrad_rnn as tg  # for the text


class LanguageModel(nn.Module):
    def __init__(self, tokens, hidden_size=128, embedding_dim=32):
        super().__init__()
        self.tokens = tokens  # of the ids 1, 2, ...; 0 is the unknown one
        self.ids = {token: i for i, token in enumerate(tokens, 1)}
        self.embedding = nn.Embedding(len(tokens) + 1, embedding_dim)
        self.rnn = nn.GRU(embedding_dim, hidden_size)
        self.head = nn.Linear(hidden_size, len(tokens) + 1)

    def forward(self, x, state=None):
        output, state = self.rnn(self.embedding(x), state)
        return self.head(output), state

    def encode(self, text):
        return torch.tensor([self.ids.get(token, 0) for token in text])

    @torch.no_grad()
    def sample(self, prefix, n, temperature, stop):
        self.eval()
        (x, state), text = (self.encode(prefix)[:, None], None), ""
        while len(text) < n:
            logits, state = self(x, state)
            logits[-1, 0, 0] = -math.inf  # never the unknown token
            x = torch.multinomial(torch.softmax(logits[-1] / temperature, dim=-1), 1)
            if self.tokens[x.item() - 1] == stop:
                break
            text += self.tokens[x.item() - 1]
        return text


def load(path):
    saved = torch.load(path)
    model = LanguageModel(saved["tokens"])
    model.load_state_dict(saved["weights"])
    return model


def columns(ids, batch_size, offset=0):
    length = (len(ids) - offset - 1) // batch_size
    x = ids[offset : offset + length * batch_size].view(batch_size, length).T
    y = ids[offset + 1 : offset + 1 + length * batch_size].view(batch_size, length).T
    return x, y


@torch.no_grad()
def mean_loss(model, ids, batch_size):
    model.eval()
    x, y = columns(ids, batch_size)
    total, state = 0.0, None
    for window, labels in zip(x.split(32), y.split(32)):
        logits, state = model(window, state)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        total += loss.item()
    return total / y.numel()


def main():
    folder = tempfile.mkdtemp()
    text = tg.data.text.corpus("python_docs")[:150_000]
    train, valid = text[:135_000], text[135_000:]
    torch.manual_seed(0)
    model = LanguageModel(sorted(set(train)))
    train_ids, valid_ids = model.encode(train), model.encode(valid)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    losses, valid_losses, best_weights = [], [], None
    start = time.perf_counter()
    for epoch in range(1 if "--smoke" in sys.argv else 5):
        model.train()
        total, count, state = 0.0, 0, None
        x, y = columns(train_ids, 16, offset=torch.randint(32, ()).item())
        for window, labels in zip(x.split(32), y.split(32)):
            logits, state = model(window, state)
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            state = state.detach()
            total, count = total + loss.item() * labels.numel(), count + labels.numel()
        losses.append(total / count)
        valid_losses.append(mean_loss(model, valid_ids, 32))
        seconds = time.perf_counter() - start
        print(f"{epoch + 1} {losses[-1]:.4f} {valid_losses[-1]:.4f} {seconds:.2f}")
        if valid_losses[-1] == min(valid_losses):
            best_weights = copy.deepcopy(model.state_dict())
    model.load_state_dict(best_weights)
    torch.save({"tokens": model.tokens, "weights": model.state_dict()}, f"{folder}/book.pt")
    plt.plot(range(1, len(losses) + 1), losses, ".-", label="loss")
    plt.plot(range(1, len(losses) + 1), valid_losses, ".-", label="valid_loss")
    plt.xlabel("epoch")
    plt.legend()
    plt.savefig(f"{folder}/book.png")

    code = f"import book_torch; model = book_torch.load('{folder}/book.pt'); "
    code += "print('The', model.sample('The ', 300, temperature=0.5, stop='.'))"
    command = [sys.executable, "-c", code]
    # The class of the model is needed, so the process runs in the folder of this file.
    done = subprocess.run(command, cwd=sys.path[0], capture_output=True, text=True, check=True)
    perplexity = math.exp(mean_loss(model, valid_ids, 1))
    print(f"perplexity {perplexity:.2f}; {folder}")
    print(done.stdout)
    assert "--smoke" in sys.argv or (perplexity < 7.25 and "." not in done.stdout)


if __name__ == "__main__":
    main()
