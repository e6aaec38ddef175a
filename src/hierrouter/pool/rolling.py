"""Decoding with transformers where a reply that ends makes room for the next prompt.

A batch that runs to its longest reply decodes mostly rows that have ended. Here `generate` is
called in stretches: a stretch ends as soon as some rows have, they leave the batch with their keys
and values, and waiting prompts are read and join. Prompts that begin alike (a system prompt) share
that beginning's work. `generate` decodes every token; this module only says with which rows.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad

from hierrouter.pool.checkpoint import hf
from hierrouter.pool.devices import plan_batches
from hierrouter.pool.rows import ChosenLogprobs, EnoughEnded, Row

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_TOKENS = 4096
"""Most prompt tokens, with padding, that are read at once."""
HEADROOM = 64
"""New tokens a row for which there must be room before one more row joins."""
LEAVE_TOGETHER = 16
"""A stretch ends when one row in this many has ended: joining and leaving copy what is cached."""


@dataclass(slots=True)
class _Batch:
    """Rows that are decoded side by side.

    `tokens` and `mask` (0 where there is no token of the row) are rows x width; `cache` holds the
    keys and values of all but the last column, or nothing yet.
    """

    rows: list[Row]
    tokens: torch.Tensor
    mask: torch.Tensor
    cache: Any

    @property
    def width(self) -> int:
        return self.tokens.shape[1]


def can_roll(model: Any) -> bool:
    """Whether rows may join and leave: not where layers keep a sliding window or a state."""
    layers = hf.DynamicCache(config=model.config).layers
    return all(type(layer) is hf.cache_utils.DynamicLayer for layer in layers)


class RollingDecoder:
    """Greedy replies of one model, at most `batch_tokens` tokens held at once."""

    def __init__(
        self, model: Any, stops: frozenset[int], padding: int, batch_tokens: int, roll: bool
    ) -> None:
        """Computes nothing yet.

        Args:
            model: a causal language model of transformers.
            stops: tokens that end a reply.
            padding: any token; it stands where a row has none.
            batch_tokens: bound on rows x width, padding among them; one row is always held.
            roll: whether rows may join and leave (`can_roll`); else batches run to their end.
        """
        self._model = model
        self._stops = torch.tensor(sorted(stops), device=model.device)
        self._ends = stops
        self._padding = padding
        self._batch_tokens = batch_tokens
        self._roll = roll
        self._prefix: list[int] = []
        self._prefix_cache: Any = None

    @torch.inference_mode()
    def run(self, waiting: list[Row], most_rows: int, on_end: Callable[[Row], None]) -> int:
        """Decodes until every row has ended or the accelerator's memory is full.

        Args:
            waiting: the rows; those that have ended are taken out.
            most_rows: bound on rows side by side.
            on_end: told of each row that has ended, its reply complete.

        Returns:
            0 when nothing is left waiting; else how many rows were too many for the memory.
        """
        if not self._roll:
            return self._run_whole(waiting, most_rows, on_end)
        waiting.sort(key=lambda row: (-row.left, -len(row.prompt), row.position))
        batch = self._joined([])
        reading: list[Row] = []
        try:
            self._read_prefix(waiting)
            while waiting or batch.rows:
                while reading := self._next_to_read(batch, waiting, most_rows):
                    batch = self._ended(self._joined([batch, self._read(reading)]), on_end)
                    reading = []
                if batch.rows:
                    self._stretch(batch)
                    batch = self._set_aside(self._ended(batch, on_end), waiting)
        except torch.OutOfMemoryError:
            held = [*batch.rows, *reading]
            waiting.extend(row for row in held if self._goes_on(row))
            self._report([row for row in held if not self._goes_on(row)], on_end)
            return max(1, len(held))
        return 0

    def _run_whole(self, waiting: list[Row], most_rows: int, on_end: Callable[[Row], None]) -> int:
        """The same for a model whose cache cannot be cut: batches that run to their end."""
        plan = plan_batches(
            [len(row.tokens) for row in waiting], [row.left for row in waiting], self._batch_tokens
        )
        batches = [
            [waiting[index] for index in planned[start : start + most_rows]]
            for planned in plan
            for start in range(0, len(planned), most_rows)
        ]
        for rows in batches:
            batch = self._laid_out(rows, [])
            try:
                self._advance(batch, max(row.left for row in rows), len(rows))
            except torch.OutOfMemoryError:
                return len(rows)
            for row in rows:
                waiting.remove(row)
            self._report(rows, on_end)
        return 0

    def _next_to_read(self, batch: _Batch, waiting: list[Row], most_rows: int) -> list[Row]:
        """Takes as many rows out of `waiting` as may be read at once and join."""
        taken: list[Row] = []
        width = batch.width
        widest = 0
        while waiting:
            row = waiting[0]
            rows = len(batch.rows) + len(taken) + 1
            width = max(width, len(row.tokens))
            widest = max(widest, len(row.tokens))
            full = rows > most_rows or rows * (width + HEADROOM) > self._batch_tokens
            if (rows > 1 and full) or (taken and (len(taken) + 1) * widest > READ_TOKENS):
                break
            taken.append(waiting.pop(0))
        return taken

    def _read(self, rows: list[Row]) -> _Batch:
        """Reads prompts and decodes the first new token of each."""
        batch = self._laid_out(rows, self._prefix)
        if self._prefix:
            batch.cache = hf.DynamicCache(config=self._model.config)
            for layer, (keys, values, _) in zip(
                batch.cache.layers, self._prefix_cache, strict=True
            ):
                shape = (len(rows), -1, -1, -1)
                layer.update(keys.expand(shape), values.expand(shape))
        self._advance(batch, 1, len(rows))
        return batch

    def _stretch(self, batch: _Batch) -> None:
        """Decodes until some rows have ended or the batch has grown to its bound."""
        room = self._batch_tokens // len(batch.rows) - batch.width
        steps = max(1, min(room, max(row.left for row in batch.rows)))
        if len(batch.rows) == 1:
            steps = batch.rows[0].left
        self._advance(batch, steps, -(-len(batch.rows) // LEAVE_TOGETHER))

    def _advance(self, batch: _Batch, steps: int, enough: int) -> None:
        """Decodes at most `steps` new tokens a row, fewer where `enough` rows have ended."""
        now = time.perf_counter()
        for row in batch.rows:
            row.started = now if row.started is None else row.started
        before = batch.width
        chosen = ChosenLogprobs()
        limits = torch.tensor([row.left for row in batch.rows], device=batch.tokens.device)
        output = self._model.generate(
            input_ids=batch.tokens,
            attention_mask=batch.mask,
            past_key_values=batch.cache,
            generation_config=hf.GenerationConfig(
                do_sample=False, max_new_tokens=steps, return_dict_in_generate=True
            ),
            logits_processor=hf.LogitsProcessorList([chosen]),
            stopping_criteria=hf.StoppingCriteriaList(
                [EnoughEnded(before, limits, self._stops, enough)]
            ),
        )
        batch.tokens, batch.cache = output.sequences, output.past_key_values
        batch.mask = pad(batch.mask, (0, batch.width - before), value=1)
        logprobs = torch.stack(chosen.steps, dim=1).tolist()
        for row, tokens, told in zip(
            batch.rows, batch.tokens[:, before:].tolist(), logprobs, strict=True
        ):
            end = next((i for i, token in enumerate(tokens) if token in self._ends), len(tokens))
            count = min(end + 1, row.left, len(tokens))
            row.new += tokens[:count]
            row.logprobs += told[:count]

    def _ended(self, batch: _Batch, on_end: Callable[[Row], None]) -> _Batch:
        """The batch without the rows that have ended, each of which is reported."""
        self._report([row for row in batch.rows if not self._goes_on(row)], on_end)
        return self._kept(batch, [i for i, row in enumerate(batch.rows) if self._goes_on(row)])

    def _goes_on(self, row: Row) -> bool:
        return row.left > 0 and not (row.new and row.new[-1] in self._ends)

    def _report(self, ended: list[Row], on_end: Callable[[Row], None]) -> None:
        """Tells of rows that have ended, each once."""
        now = time.perf_counter()
        for row in ended:
            if row.ended is None:
                row.ended = now
                on_end(row)

    def _set_aside(self, batch: _Batch, waiting: list[Row]) -> _Batch:
        """The batch without the rows for which it has grown too wide; they are read again later."""
        most = max(1, self._batch_tokens // (batch.width + 1))
        if len(batch.rows) <= most:
            return batch
        # What is read again costs least with the shortest.
        order = sorted(range(len(batch.rows)), key=lambda i: -len(batch.rows[i].tokens))
        going = sorted(order[:most])
        waiting[:0] = [batch.rows[index] for index in order[most:]]
        return self._kept(batch, going)

    def _kept(self, batch: _Batch, going: list[int]) -> _Batch:
        """Some of a batch's rows, without the columns in which none of them has a token."""
        if len(going) == len(batch.rows):
            return batch
        if not going:
            return self._joined([])
        index = torch.tensor(going, device=batch.tokens.device)
        mask = batch.mask[index]
        columns = mask.any(dim=0).nonzero().flatten()
        cached = columns[:-1]
        for layer in batch.cache.layers:
            layer.keys = layer.keys[index].index_select(2, cached)
            layer.values = layer.values[index].index_select(2, cached)
        rows = [batch.rows[i] for i in going]
        return _Batch(rows, batch.tokens[index][:, columns], mask[:, columns], batch.cache)

    def _joined(self, parts: Sequence[_Batch]) -> _Batch:
        """One batch of several, the narrower padded on the left."""
        parts = [part for part in parts if part.rows]
        if len(parts) == 1:
            return parts[0]
        if not parts:
            nothing = torch.empty((0, 0), dtype=torch.long)
            return _Batch([], nothing, nothing, None)
        width = max(part.width for part in parts)
        gaps = [width - part.width for part in parts]
        cache = parts[0].cache
        for number, layer in enumerate(cache.layers):
            for name in ("keys", "values"):
                held = [getattr(part.cache.layers[number], name) for part in parts]
                wide = [pad(h, (0, 0, gap, 0)) for h, gap in zip(held, gaps, strict=True)]
                setattr(layer, name, torch.cat(wide))
        return _Batch(
            [row for part in parts for row in part.rows],
            torch.cat(
                [
                    pad(part.tokens, (gap, 0), value=self._padding)
                    for part, gap in zip(parts, gaps, strict=True)
                ]
            ),
            torch.cat([pad(part.mask, (gap, 0)) for part, gap in zip(parts, gaps, strict=True)]),
            cache,
        )

    def _laid_out(self, rows: list[Row], prefix: list[int]) -> _Batch:
        """Rows as one batch: what they share first, then padding, then the rest of each."""
        rests = [row.tokens[len(prefix) :] for row in rows]
        width = len(prefix) + max(len(rest) for rest in rests)
        device = self._model.device
        tokens = torch.full((len(rows), width), self._padding)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for index, rest in enumerate(rests):
            tokens[index, : len(prefix)] = torch.tensor(prefix, dtype=torch.long)
            tokens[index, width - len(rest) :] = torch.tensor(rest)
            mask[index, : len(prefix)] = 1
            mask[index, width - len(rest) :] = 1
        return _Batch(rows, tokens.to(device), mask.to(device), None)

    def _read_prefix(self, rows: Sequence[Row]) -> None:
        """Reads what all prompts begin with, once; each must go on for a token at least."""
        first = min(rows, key=lambda row: len(row.prompt)).prompt
        alike = takewhile(
            lambda i: all(row.prompt[i] == first[i] for row in rows), range(len(first) - 1)
        )
        self._prefix = first[: sum(1 for _ in alike)] if len(rows) > 1 else []
        if self._prefix:
            batch = self._laid_out([Row(0, self._prefix, 1)], [])
            self._advance(batch, 1, 1)
            self._prefix_cache = batch.cache
