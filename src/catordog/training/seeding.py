"""Seeds for random draws that depend on the step alone, so that a resumed run repeats them."""

from __future__ import annotations

import numpy as np


def step_seed(seed: int, step: int, *stream: int) -> int:
    """The seed of one step's draws, an unsigned 32-bit integer.

    Args:
        seed: of the run.
        step: index of the training batch since the run began.
        stream: tells draws of the same step apart, such as the rank and the purpose.

    >>> step_seed(0, 7) == step_seed(0, 7) != step_seed(0, 8)
    True
    """
    return int(np.random.SeedSequence((seed, step, *stream)).generate_state(1)[0])
