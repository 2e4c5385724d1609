"""PyTorch: nn.LSTM on all cores, or on a GPU that PyTorch finds.

Padded, as usual: the forward state is gathered at each review's end and the attention is masked, but the
backward direction starts in the padding, since nn.LSTM takes no mask. `packed` is exact and slow on a CPU.
"""

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from benchmarks.contenders import threads
from benchmarks.data import pad
from benchmarks.network import Sizes

torch.set_num_threads(threads())
BATCH = 64  # reviews of about the same length
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Classifier(nn.Module):
    """The notebook's network. An nn.LSTM has a second bias in each direction."""

    def __init__(self, sizes: Sizes, *, packed: bool = False):
        super().__init__()
        self.packed, self.dropout = packed, sizes.dropout
        width, units = 2 * sizes.hidden_features, sizes.attention_units
        features = [sizes.embedding_features] + [width] * (sizes.num_layers - 1)
        self.embedding = nn.Embedding(sizes.vocab_size, sizes.embedding_features)
        self.encoder = nn.ModuleList(
            nn.LSTM(size, sizes.hidden_features, batch_first=True, bidirectional=True)
            for size in features
        )
        self.query = nn.Linear(width, units)
        self.key = nn.Linear(width, units, bias=False)
        self.score = nn.Linear(units, 1, bias=False)
        self.hidden = nn.Linear(width, sizes.head_features)
        self.head_dropout = nn.Dropout(sizes.head_dropout)
        self.output = nn.Linear(sizes.head_features, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Logits [batch] of ids [batch, time]."""
        mask = ids != 0
        lengths = mask.sum(dim=1)
        x = self.embedding(ids)
        for lstm in self.encoder:
            # One mask per review, shared by all steps and both directions.
            ones = x.new_ones(len(ids), 1, x.shape[-1])
            x = self._run(
                lstm, x * nn.functional.dropout(ones, self.dropout, self.training), lengths
            )
        forward, backward = x.chunk(2, dim=-1)
        last = forward[torch.arange(len(ids), device=ids.device), lengths - 1]
        query = self.query(torch.cat([last, backward[:, 0]], dim=-1))
        scores = self.score(torch.tanh(query[:, None] + self.key(x)))[:, :, 0]
        weights = scores.masked_fill(~mask, -1e9).softmax(dim=-1)
        context = torch.einsum("bt,btv->bv", weights, x)
        return self.output(self.head_dropout(torch.relu(self.hidden(context))))[:, 0]

    def _run(self, lstm, x, lengths):
        if not self.packed:
            return lstm(x)[0]
        packed = nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        return nn.utils.rnn.pad_packed_sequence(
            lstm(packed)[0], batch_first=True, total_length=x.shape[1]
        )[0]


class Network:
    """The classifier with Adam.

    Args:
      sizes, batch_size, buckets: of the network and its batches.
      packed: see above.
      by_length: predict batches of 64 reviews of about the same length, padded to the longest one.
      compiled: run it through `torch.compile`.
      bfloat16: multiply in bfloat16 (autocast).
    """

    def __init__(
        self,
        sizes: Sizes,
        *,
        batch_size: int,
        buckets: Sequence[int],
        packed: bool = False,
        by_length: bool = False,
        compiled: bool = False,
        bfloat16: bool = False,
    ):
        torch.manual_seed(0)
        self._batch_size, self._length = batch_size, buckets[-1]
        self._by_length, self._bfloat16 = by_length, bfloat16
        self.model = Classifier(sizes, packed=packed).to(DEVICE)
        if compiled:
            self.model.compile(dynamic=True)
        self._optimizer = torch.optim.Adam(self.model.parameters(), 1e-3, eps=1e-7)

    def train(self, ids: np.ndarray, labels: np.ndarray) -> float:
        loss = self.start(ids, labels)
        if DEVICE == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def start(self, ids: np.ndarray, labels: np.ndarray) -> torch.Tensor:
        """Takes one step; on a GPU without waiting for it."""
        self.model.train()
        self._optimizer.zero_grad()
        with self._autocast():
            logits = self.model(torch.from_numpy(ids).to(DEVICE))
        loss = nn.functional.binary_cross_entropy_with_logits(
            logits.float(), torch.from_numpy(labels).to(DEVICE, torch.float32)
        )
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def predict(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """Logits [n]."""
        self.model.eval()
        lengths = np.array([len(row) for row in rows])
        order = np.argsort(lengths, kind="stable") if self._by_length else np.arange(len(rows))
        size = BATCH if self._by_length else self._batch_size
        logits = np.empty(len(rows), np.float32)
        with torch.inference_mode(), self._autocast():
            for i in range(0, len(rows), size):
                chosen = order[i : i + size]
                length = int(lengths[chosen].max()) if self._by_length else self._length
                ids = torch.from_numpy(pad([rows[n] for n in chosen], length)).to(DEVICE)
                logits[chosen] = self.model(ids).float().cpu().numpy()
        return logits

    def _autocast(self):
        if self._bfloat16:
            return torch.autocast(DEVICE, torch.bfloat16)
        return contextlib.nullcontext()


def make_layer(hidden: int, inputs: np.ndarray, *, bfloat16: bool = False) -> Callable[[], None]:
    """Forward and backward through one nn.LSTM on inputs [batch, time, features]."""
    dtype = torch.bfloat16 if bfloat16 else torch.float32
    lstm = nn.LSTM(inputs.shape[-1], hidden, batch_first=True, bidirectional=True)
    lstm = lstm.to(DEVICE, dtype)
    x = torch.from_numpy(inputs).to(DEVICE, dtype).requires_grad_()

    def run() -> None:
        lstm.zero_grad()
        x.grad = None
        lstm(x)[0].square().mean().backward()
        if DEVICE == "cuda":
            torch.cuda.synchronize()

    return run
