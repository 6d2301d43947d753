"""What choosing channels of a whole network asks for, measured once: a run that goes on finds it in its journal."""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from lab3.analysis.certificate import error_of_each, find_shortage
from lab3.analysis.tango import exact_level, tango_p
from lab3.base.reading import parse
from lab3.config import Config
from lab3.errors import RunStateError
from lab3.pruning.budget import FrontierPoint, Ks, PlanStep, choose_channels, frontier_of
from lab3.pruning.rank import PruneStep
from lab3.record.journal import Row

Images = Literal["choosing", "certifying"]
MAX_ROUNDS = 4


@dataclass(frozen=True)
class Facts:
    """Layers that can be pruned, and images. Of those that choose, `n_alone` measure each layer alone, in blocks.

    `n_right`: images of those that certify which the network gets right with no channel pruned.
    """

    names: tuple[str, ...]
    n_channels: tuple[int, ...]
    n_choosing: int
    n_alone: int
    n_blocks: int
    n_certifying: int
    n_right: int


class Probe(Protocol):
    """What measures the network itself; `pruned` are the channels of each layer."""

    def facts(self) -> Facts:
        """Layers and images."""
        ...

    def rank(self) -> list[list[int]]:
        """The channels of each layer, the least important first."""
        ...

    def right_alone(
        self, block: int, pruned: Sequence[Sequence[int]], plans: Mapping[int, Sequence[PruneStep]]
    ) -> list[list[int]]:
        """Images of a block that are right: first as `pruned`, then with each step of each layer of `plans` instead."""
        ...

    def flips(self, images: Images, pruned: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
        """By class, images right with no channel pruned and wrong with `pruned`, and the other way round."""
        ...

    def cost(self, pruned: Sequence[Sequence[int]]) -> float:
        """What the smaller network costs."""
        ...

    def saved(self, number: int, pruned: Sequence[Sequence[int]]) -> float | str:
        """What one more channel of a layer saves; or why none can be taken out."""
        ...

    def tuned_accuracy(self, pruned: Sequence[Sequence[int]]) -> float:
        """Accuracy on validation images of the smaller network, fine-tuned."""
        ...


@dataclass
class Measured:
    """A `lab3.pruning.budget.Measure`: what `rows` of a journal hold, the rest by `probe`, given to `append`.

    Without a probe, what is missing raises `RunStateError`.
    """

    rows: Sequence[Row]
    probe: Probe | None = None
    append: Callable[[Row], None] = lambda row: None
    refused: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._known: dict[tuple[str, tuple[int, ...]], Any] = {
            (row["what"], tuple(row["of"])): row["value"] for row in self.rows
        }
        [self.facts] = parse(Facts, [self._once("facts", (), lambda probe: asdict(probe.facts()))])
        self._orders: list[list[int]] = self._once("order", (), lambda probe: probe.rank())

    def lost(self, ks: Ks) -> float:
        lost_l, gained_l = self.flips("choosing", ks)
        return (sum(lost_l) - sum(gained_l)) / self.facts.n_choosing

    def flips(self, images: Images, ks: Ks) -> tuple[list[int], list[int]]:
        """See `Probe.flips`."""
        lost_l, gained_l = self._once(f"flips {images}", ks, lambda probe: probe.flips(images, self.pruned(ks)))
        return lost_l, gained_l

    def lost_alone(self, ks: Ks, levels: Mapping[int, Sequence[int]]) -> dict[int, list[float]]:
        plans = {
            layer: [PruneStep(k, tuple(sorted(self._orders[layer][:k]))) for k in found]
            for layer, found in levels.items()
        }
        asked = (*ks, *(k for layer, found in levels.items() for k in (layer, *found)))

        def right(number: int) -> list[list[int]]:
            key, pruned = (number, *asked), self.pruned(ks)
            found: list[list[int]] = self._once(
                "right alone", key, lambda probe: probe.right_alone(number, pruned, plans)
            )
            return found

        blocks = list(map(right, range(self.facts.n_blocks)))
        (n_before,), *n_right = (np.sum(each, axis=0).tolist() for each in zip(*blocks, strict=True))
        lost = self.lost(ks)
        return {
            layer: [lost + (n_before - n) / self.facts.n_alone for n in each]
            for layer, each in zip(levels, n_right, strict=True)
        }

    def saved_per_channel(self, ks: Ks) -> list[float]:
        def saved(number: int) -> float:
            name = self.facts.names[number]
            if name in self.refused:
                return 0.0
            found = self._once("saved", (number, *ks), lambda probe: probe.saved(number, self.pruned(ks)))
            if isinstance(found, str):
                self.refused[name] = found
                return 0.0
            return float(found)

        return list(map(saved, range(len(ks))))

    def cost(self, ks: Ks) -> float:
        cost: float = self._once("cost", ks, lambda probe: probe.cost(self.pruned(ks)))
        return cost

    def tuned_accuracy(self, ks: Ks) -> float:
        """See `Probe.tuned_accuracy`."""
        accuracy: float = self._once("tuned accuracy", ks, lambda probe: probe.tuned_accuracy(self.pruned(ks)))
        return accuracy

    def pruned(self, ks: Ks) -> list[list[int]]:
        """The channels of each layer that are pruned."""
        return [sorted(order[:k]) for order, k in zip(self._orders, ks, strict=True)]

    def _once(self, what: str, of: tuple[int, ...], measure: Callable[[Probe], Any]) -> Any:
        if (what, of) not in self._known:
            if self.probe is None:
                raise RunStateError(
                    f"the journal must say {what!r} of {of}, got nothing; finish the run, or start it again"
                )
            value = measure(self.probe)
            self.append({"what": what, "of": of, "value": value})
            self._known[what, of] = value
        return self._known[what, of]


@dataclass(frozen=True)
class Decision:
    """Plans as they grew, and the number of the last that is certified, 0 if none is; `reason`: why no more are.

    `taken`: the number of the plan that is fine-tuned, None without fine-tuning. `trials`: plans by number that were
    fine-tuned to reach an accuracy, and the accuracy that each reached on validation images.
    """

    plans: list[PlanStep]
    n_certified: int
    reason: str | None
    level: float
    taken: int | None = None
    trials: tuple[tuple[int, float], ...] = ()

    @property
    def frontier(self) -> list[FrontierPoint]:
        """The plans as others see them."""
        return frontier_of(self.plans, self.n_certified)

    @property
    def chosen(self) -> PlanStep:
        """The plan that is fine-tuned; without that the last certified one, or the last that the budget allowed."""
        return self.plans[self.number]

    @property
    def number(self) -> int:
        """That of the chosen plan."""
        return (self.n_certified or len(self.plans) - 1) if self.taken is None else self.taken


def decide(
    measured: Measured,
    config: Config,
    on_round: Callable[[int, PlanStep], None] = lambda number, best: None,
) -> Decision:
    """Choose channels for `budget`, and test the plans on images that chose nothing, in turn, up to one that fails."""
    budget, trains = config.compress.budget, config.compress.finetune > 0
    plans = choose_channels(measured, measured.facts.n_channels, budget, max_rounds=MAX_ROUNDS, on_round=on_round)
    n_images, taken = measured.facts.n_certifying, len(plans) - 1 if trains else None
    # The trained network has the other half of the error.
    alpha = error_of_each(config.sweep.confidence, 2 if trains else 1)
    if shortage := find_shortage(n_images, budget, alpha):
        return Decision(plans, 0, shortage, 0.0, taken)
    level = exact_level(n_images, budget, alpha)
    for number, plan in enumerate(plans[1:], start=1):
        n_lost, n_gained = map(sum, measured.flips("certifying", plan.ks))
        if tango_p(np.array(n_lost), np.array(n_gained), n_images, budget) > level:
            reason = f"the next plan lost {n_lost:,} and gained {n_gained:,} of {n_images:,} images"
            return Decision(plans, number - 1, reason, level, taken)
    return Decision(plans, len(plans) - 1, None, level, taken)


def aim(measured: Measured, config: Config, decision: Decision) -> Decision:
    """Take the largest plan that reaches the target accuracy when fine-tuned, by halves; 0, nothing pruned, if none.

    Without a target `decision` stays as it is. Validation images alone decide.
    """
    if (target := config.compress.target_accuracy) is None:
        return decision
    trials: dict[int, float] = {}

    def misses(number: int) -> bool:
        trials[number] = measured.tuned_accuracy(decision.plans[number].ks)
        return trials[number] < target

    n_reached = bisect_left(range(1, len(decision.plans)), True, key=misses)
    return replace(decision, taken=n_reached, trials=tuple(sorted(trials.items())))


def summarise(measured: Measured, decision: Decision) -> dict[str, Any]:
    """What `summary.json` says of a decision."""
    plan = decision.chosen
    is_certified = 0 < decision.number <= decision.n_certified
    lost_l, gained_l = measured.flips("certifying", plan.ks) if is_certified else ([], [])
    return {
        "is_certified": is_certified,
        "reason": decision.reason,
        "level": decision.level,
        "n_choosing": measured.facts.n_choosing,
        "n_certifying": measured.facts.n_certifying,
        "n_layers": sum(k > 0 for k in plan.ks),
        "n_pruned": sum(plan.ks),
        "lost_choosing": plan.lost,
        "accuracy_before": measured.facts.n_right / measured.facts.n_certifying,
        "class_lost": lost_l,
        "class_gained": gained_l,
        "cost_share": plan.cost / decision.plans[0].cost,
    }
