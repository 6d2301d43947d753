"""Several layers of one network pruned together: what each costs alone beside the others, and what all cost.

The network is divided where a pruned layer's channels are first read. Each part is compiled once, with the pruned
channels as an argument: it serves every layer before it and every set of channels, and what stands before the layer
runs once for all sets.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from lab3.base.arrays import blocks_of
from lab3.base.backend import compile_function, fill_block, to_numpy, to_tensor
from lab3.base.graph import run_steps
from lab3.pruning.anatomy import Anatomy
from lab3.pruning.capture import Preprocess
from lab3.pruning.rank import PruneStep

PrunedChannels = Sequence[Sequence[int]]  # of each layer


@dataclass(frozen=True)
class _Part:
    """Steps between two places: slots that they take and give, and numbers of the layers whose channels they read."""

    takes: tuple[int, ...]
    gives: tuple[int, ...]
    layers: tuple[int, ...]
    run: Callable[..., list[Any]]


class JointNetwork:
    """A network with channels of several layers removed: 0 where the next layers that mix or join channels read them.

    `anatomies`: of layers of one model, each with the effect `remove`. The model's weights are never touched.
    """

    def __init__(self, anatomies: Sequence[Anatomy]) -> None:
        self.anatomies = tuple(anatomies)
        self._scores = anatomies[0].scores
        owner = {slot: number for number, each in enumerate(anatomies) for slot in each.parts.frontier}
        alone = [{slot for step in each.parts.alone for slot in step.outputs} for each in anatomies]
        self._reads = [
            {
                slot: owner[slot]
                for slot in step.input_slots
                if slot in owner and step.outputs[0] not in alone[owner[slot]]
            }
            for step in self._scores.steps
        ]
        firsts = [
            next(index for index, reads in enumerate(self._reads) if number in reads.values())
            for number in range(len(anatomies))
        ]
        edges = [*sorted({0, *firsts}), len(self._reads)]
        self._parts = [self._part(start, stop) for start, stop in pairwise(edges)]
        self._start = [edges.index(first) for first in firsts]

    def logits(
        self,
        images_nhwc: np.ndarray,
        preprocess: Preprocess,
        pruned: PrunedChannels,
        *,
        batch_size: int = 250,
        on_block: Callable[[], None] = lambda: None,
    ) -> np.ndarray:
        """The logits of each image with `pruned` channels of each layer removed, float32 `(N, L)`."""
        logits_nl = np.empty((len(images_nhwc), self._scores.n_labels), np.float32)
        masks = self._masks(pruned)
        for rows, block in self._blocks(images_nhwc, preprocess, batch_size):
            on_block()
            logits_nl[rows] = self._finish(0, [block], masks)[: rows.stop - rows.start]
        return logits_nl

    def predict_alone(
        self,
        images_nhwc: np.ndarray,
        preprocess: Preprocess,
        plans: Mapping[int, Sequence[PruneStep]],
        pruned: PrunedChannels,
        *,
        batch_size: int = 250,
        on_block: Callable[[], None] = lambda: None,
    ) -> dict[int, np.ndarray]:
        """The predicted class of each image at each step of each layer in `plans`, uint16 `(K, N)` by its number.

        A step stands in place of what `pruned` has of its layer; of the other layers `pruned` are removed beside it.
        """
        predicted = {number: np.empty((len(steps), len(images_nhwc)), np.uint16) for number, steps in plans.items()}
        base = self._masks(pruned)
        masks = {
            number: [base | self._masks([step.pruned_channels], number) for step in steps]
            for number, steps in plans.items()
        }
        for rows, block in self._blocks(images_nhwc, preprocess, batch_size):
            on_block()
            states = [[block]]
            for part in self._parts[:-1]:
                states.append(part.run(*states[-1], *(base[number] for number in part.layers)))
            for number, predicted_kn in predicted.items():
                start = self._start[number]
                for predicted_n, each in zip(predicted_kn, masks[number], strict=True):
                    logits_nl = self._finish(start, states[start], each)
                    predicted_n[rows] = logits_nl.argmax(axis=1)[: rows.stop - rows.start]
        return predicted

    def _blocks(self, images_nhwc: np.ndarray, preprocess: Preprocess, batch_size: int) -> Any:
        size = min(batch_size, len(images_nhwc))
        for rows in blocks_of(len(images_nhwc), size):
            yield rows, to_tensor(fill_block(preprocess(images_nhwc[rows]), size))

    def _masks(self, pruned: PrunedChannels, first: int = 0) -> dict[int, Any]:
        """True for pruned channels, bool `(C,)` on the device, by the number of the layer, counted from `first`."""
        sizes = [each.n_channels for each in self.anatomies[first : first + len(pruned)]]
        return {
            number: to_tensor(np.isin(np.arange(size), list(channels)))
            for number, (size, channels) in enumerate(zip(sizes, pruned, strict=True), start=first)
        }

    def _finish(self, start: int, state: list[Any], masks: Mapping[int, Any]) -> np.ndarray:
        for part in self._parts[start:]:
            state = part.run(*state, *(masks[number] for number in part.layers))
        return to_numpy(state[0])

    def _part(self, start: int, stop: int) -> _Part:
        graph, scores = self.anatomies[0].graph, self._scores
        steps, reads = scores.steps[start:stop], self._reads[start:stop]
        takes, gives = self._live_slots(start), self._live_slots(stop)
        layers = tuple(sorted({number for each in reads for number in each.values()}))

        def run(*arrays: Any) -> list[Any]:
            values = dict(zip(takes, arrays[: len(takes)], strict=True))
            masks = dict(zip(layers, arrays[len(takes) :], strict=True))
            if start == 0:
                values[graph.input_slot] = graph.feed(values[graph.input_slot])
            for step, of_layers in zip(steps, reads, strict=True):
                removed = {slot: self.anatomies[n].remove_from(values[slot], masks[n]) for slot, n in of_layers.items()}
                done = run_steps([step], {slot: values[slot] for slot in step.input_slots} | removed)
                values.update({slot: done[slot] for slot in step.outputs})
            found = [values[slot] for slot in gives]
            return [scores.logits(found[0])] if stop == len(scores.steps) else found

        return _Part(takes, gives, layers, compile_function(run))

    def _live_slots(self, index: int) -> tuple[int, ...]:
        """What is known before step `index` and needed from it on."""
        after = self._scores.steps[index:]
        made = {slot for step in after for slot in step.outputs}
        return tuple(sorted({self._scores.slot, *(slot for step in after for slot in step.input_slots)} - made))
