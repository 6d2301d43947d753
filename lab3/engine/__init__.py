"""Measure the pruned model at every K, from features captured once.

K is done in blocks. At the start of a block the mixing layer's output is computed afresh; for each K in it, only the
difference of the channels gone since is added, and the rest of the network is run. What is done for one block depends
on nothing before it, so a sweep resumed anywhere gives the same bits.

Three shortcuts, each on top of the one before:

- `none`: every image at every K.
- `unchanged`: an image whose features of the newly gone channels are what these channels leave behind anyway gives the
  scores it gave before, and is not run again.
- `margins`: between two K at which an image was run, its scores move close to a straight line. Where the best class is
  the same at both and leads by more than the line can be wrong, it is the best class in between, and likewise for the
  label being among the five best. How wrong the line can be is measured in every block of K on images that are run at
  every K, for each length of interval, in units of the image's own change over it, and taken `SAFETY` times. Each run
  in the middle of an interval is compared with its line, and so are audits, images that need not have been run: one
  that exceeds the bound has the whole block done again without this shortcut. All counts are those of running every
  image. The loss of images that were not run is read off the line and corrected by what the line misses on the images
  that were run at every K.
"""

from lab3.engine.point import SweepPoint, cross_entropy, is_tied
from lab3.engine.sweep import Shortcut, channel_losses, logits_of, sweep_points

__all__ = ["Shortcut", "SweepPoint", "channel_losses", "cross_entropy", "is_tied", "logits_of", "sweep_points"]
