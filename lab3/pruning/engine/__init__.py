"""Measure the pruned model at every K, from features captured once.

K is done in blocks. At the start of a block the mixing layer's output is computed afresh; for each K in it, only the
difference of the channels pruned since is added, and the rest of the network is run. What is done for one block depends
on nothing before it, so a sweep resumed anywhere gives the same bits.

Which images are run at a K is the shortcut. The first two are exact by construction: every count and loss is that of
running all images.

- `none`: every image at every K.
- `unchanged`: an image whose features of the newly pruned channels are what these channels leave behind anyway has the
  same input as before, so it has the same scores, and is not run again.
- `inferred`: not exact. Between two K at which an image was run, its scores mostly move close to a straight line. Where
  the best class is the same at both and leads by more than the line is thought to be wrong, it is taken to be the best
  class in between, and likewise for the label being among the five best. How wrong the line is, is measured in every
  block of K on 256 random images run at every K, for each length of interval, in units of the image's own change over
  it, and taken `SAFETY` times. That says nothing of an image unlike those: one that is wrong between two K alone can be
  missed. Each run in the middle of an interval is held against its line, and so are audits, a random hundredth of what
  was inferred: one that contradicts has the whole block done again without inferring. Every point says how many images
  were inferred (`n_inferred`) and audited (`n_audited`), and its loss is an estimate with a standard error (`loss_se`).
"""

from lab3.pruning.engine.point import SweepPoint, cross_entropy, follow, is_about_chance, is_tied, margins_of
from lab3.pruning.engine.sweep import SweepEngine, TallyBlocks, channel_losses, logits_of, sweep_points
from lab3.pruning.engine.tally import Tally

__all__ = [
    "SweepEngine", "SweepPoint", "Tally", "TallyBlocks", "channel_losses", "cross_entropy",
    "follow", "is_about_chance", "is_tied", "logits_of", "margins_of",
    "sweep_points",
]  # fmt: skip
