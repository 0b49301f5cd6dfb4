"""Options of a run beside those of trainer, model and data; imported for help, so kept light."""

from __future__ import annotations

from typing import Any, NamedTuple


class RunOption(NamedTuple):
    """An option on the command line and a key in config files."""

    metavar: str
    default: Any
    help: str


RUN_OPTIONS = {
    "name": RunOption("NAME", None, "folder of the run, runs/NAME (default: the config's name)"),
    "ckpt_path": RunOption("F", None, "resume from a checkpoint; 'last': of the newest run"),
    "save_every": RunOption("MIN", 5.0, "minutes between checkpoints (default: 5)"),
    "find": RunOption(
        "lr|batch_size",
        None,
        "train nothing, but measure a good learning rate or the largest batch size",
    ),
    "folds": RunOption(
        "K",
        None,
        "cross-validate: train K networks, each without another K-th of the photos, and average "
        "their logits",
    ),
    "compile": RunOption(
        "true|false", None, "speed the network up with torch.compile (default: on GPUs)"
    ),
}
"""By name; `lightning_cli` knows their types."""
