"""The network that is compressed, as measurements ask for it."""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from lab3.app.pipeline.finetuning import finetune
from lab3.app.pipeline.materials import Work
from lab3.app.pipeline.measuring import Facts, Images
from lab3.base.backend import to_numpy
from lab3.base.graph import flatten_model, list_layers
from lab3.errors import ConfigError, ModelError, counted
from lab3.inputs.data import Dataset
from lab3.inputs.training import best_epoch
from lab3.pruning.anatomy import examine_model
from lab3.pruning.capture import Capture, capture_layers, image_weights
from lab3.pruning.compact import Proof, compact_model, compare_speed, mask_network, measure_cost, prove_compact
from lab3.pruning.joint import JointNetwork
from lab3.pruning.layers import prunable_layers
from lab3.pruning.rank import PruneStep, rank_channels
from lab3.pruning.scores import score_channels
from lab3.pruning.split import Split, split_model

_BATCH, _MAX_ALONE, _TIMING_S = 250, 1000, 1.0
Pruned = Sequence[Sequence[int]]


class NetworkProbe:
    """See `lab3.app.pipeline.measuring.Probe`; every prunable layer of the run's model, and images for two ends."""

    def __init__(self, work: Work, choosing: Dataset, certifying: Dataset) -> None:
        self._work, self._images = work, {"choosing": choosing, "certifying": certifying}
        model, prune = work.materials.model, work.config.prune
        all_names = [layer.name for layer in list_layers(model)]
        layers = [layer for layer in prunable_layers(model) if all_names.count(layer.name) == 1]
        if not layers:
            raise ModelError("layers to be compressed must have names of their own, got each name several times")
        self._splits = [split_model(model, layer.name, measured=prune.measured) for layer in layers]
        self._joint = JointNetwork([split.anatomy for split in self._splits])
        self._right_unpruned: dict[str, np.ndarray] = {}
        self._compact_once = lru_cache(maxsize=1)(self._compact)

    @property
    def n_labels(self) -> int:
        """Number of classes."""
        return self._splits[0].n_labels

    def facts(self) -> Facts:
        choosing, certifying = (len(self._images[each]) for each in ("choosing", "certifying"))
        n_alone = min(choosing, _MAX_ALONE)
        return Facts(
            names=tuple(split.layer_name for split in self._splits),
            n_channels=tuple(split.n_channels for split in self._splits),
            n_choosing=choosing,
            n_alone=n_alone,
            n_blocks=-(-n_alone // _BATCH),
            n_certifying=certifying,
            n_right=int(self._unpruned("certifying").sum()),
        )

    def rank(self) -> list[list[int]]:
        config, images = self._work.config, self._images["choosing"]
        with self._work.progress.bar("rank", len(images), "images") as advance:
            captured = capture_layers(
                self._splits,
                images.images_nhwc,
                self._work.materials.preprocess,
                weights_n=image_weights(len(images), config.prune.average, config.prune.average_batch_size),
                batch_size=config.sweep.capture_batch_size,
                keep_features=False,
                on_progress=lambda n: advance(n, ""),
            )

        def rank(split: Split, captured: Capture) -> list[int]:
            settings = {"seed": config.seed, "batch_size": config.sweep.batch_size}
            scores = score_channels(config.prune.criterion, split, captured, images.labels_n, **settings)  # type: ignore[arg-type]
            order: list[int] = rank_channels(scores.importance_c).tolist()
            return order

        return list(map(rank, self._splits, captured))

    def right_alone(self, block: int, pruned: Pruned, plans: Mapping[int, Sequence[PruneStep]]) -> list[list[int]]:
        images = self._images["choosing"]
        rows = slice(block * _BATCH, min((block + 1) * _BATCH, _MAX_ALONE))
        images_nhwc, labels_n = images.images_nhwc[rows], images.labels_n[rows]
        preprocess, stop = self._work.materials.preprocess, self._work.progress.stop_if_asked
        before_nl = self._joint.logits(images_nhwc, preprocess, pruned, batch_size=_BATCH)
        predicted = self._joint.predict_alone(images_nhwc, preprocess, plans, pruned, batch_size=_BATCH, on_block=stop)
        right = [before_nl.argmax(axis=1)[np.newaxis] == labels_n, *(each == labels_n for each in predicted.values())]
        return [each.sum(axis=1).tolist() for each in right]

    def flips(self, images: Images, pruned: Pruned) -> tuple[list[int], list[int]]:
        before_n, after_n = self._unpruned(images), self._right(images, pruned)
        labels_n, n_labels = self._images[images].labels_n, self.n_labels
        lost_l, gained_l = (
            np.bincount(labels_n[changed_n], minlength=n_labels).tolist()
            for changed_n in (before_n & ~after_n, after_n & ~before_n)
        )
        return lost_l, gained_l

    def cost(self, pruned: Pruned) -> float:
        return self._costs([self.compact(pruned)])[0]

    def saved(self, number: int, pruned: Pruned) -> float | str:
        """As half of the channels that are left save on average."""
        split = self._splits[number]
        n_half = (split.n_channels - len(pruned[number])) // 2
        if n_half == 0:
            return 0.0
        current = self.compact(pruned)
        try:
            smaller = compact_model(examine_model(current, split.layer_name), range(n_half))
        except ModelError as error:
            return str(error)
        now, then = self._costs([current, smaller])
        return (now - then) / n_half

    def tuned_accuracy(self, pruned: Pruned) -> float:
        # A model of its own: training changes it.
        compact, work = self._compact(tuple(map(tuple, pruned))), self._work
        history = finetune(compact, work.materials, work.config, work.config.compress.finetune, work.progress)
        accuracy = best_epoch(history).val_accuracy
        if accuracy is None:
            raise ConfigError(
                "compress.target_accuracy needs validation images, got none of so few training images; give more, or a "
                "larger train.validation_fraction"
            )
        work.progress.say(f"{counted(sum(map(len, pruned)), 'channel')} pruned: validation accuracy {accuracy:.4f}")
        return accuracy

    def compact(self, pruned: Pruned) -> Any:
        """The model without these channels, layer after layer. Raises as `compact_model` does."""
        return self._compact_once(tuple(map(tuple, pruned)))

    def prove(self, compact: Any, pruned: Pruned, on_block: Callable[[int], None]) -> Proof:
        """`compact` against the masked network, on all test images."""
        test, preprocess = self._work.materials.test, self._work.materials.preprocess
        masked = mask_network(self._joint, pruned)
        return prove_compact(masked, compact, test.images_nhwc, test.labels_n, preprocess, on_block=on_block)

    def _compact(self, pruned: tuple[tuple[int, ...], ...]) -> Any:
        model = self._work.materials.model
        for split, channels in zip(self._splits, pruned, strict=True):
            model = compact_model(examine_model(model, split.layer_name), channels) if channels else model
        return model

    def _unpruned(self, images: Images) -> np.ndarray:
        if images not in self._right_unpruned:
            self._right_unpruned[images] = self._right(images, [()] * len(self._splits))
        return self._right_unpruned[images]

    def _right(self, images: Images, pruned: Pruned) -> np.ndarray:
        dataset = self._images[images]
        logits_nl = self._joint.logits(
            dataset.images_nhwc,
            self._work.materials.preprocess,
            pruned,
            batch_size=_BATCH,
            on_block=self._work.progress.stop_if_asked,
        )
        right_n: np.ndarray = logits_nl.argmax(axis=1) == dataset.labels_n
        return right_n

    def _costs(self, models: Sequence[Any]) -> list[float]:
        inputs = self._work.materials.preprocess(self._work.materials.test.images_nhwc[:1])
        inputs = to_numpy(flatten_model(models[0]).feed(inputs))
        cost = self._work.config.compress.cost
        if cost == "latency":
            return [speed.seconds for speed in compare_speed(models, inputs, budget_s=_TIMING_S)]
        if cost == "bytes":
            return [float(sum(weight.nbytes for weight in model.get_weights())) for model in models]
        costs = [measure_cost(model, inputs.shape[1:]) for model in models]
        return [float(each.multiply_adds if cost == "flops" else each.parameters) for each in costs]
