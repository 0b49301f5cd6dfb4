"""Match the classes of a dataset to those of a model by name."""

from __future__ import annotations

from catordog.errors import CatordogError


def match_classes(data: tuple[str, ...], model: tuple[str, ...], name: str) -> list[int]:
    """Find each class of a dataset among a model's classes.

    The same name in any case matches; then, if only one class qualifies, a name that differs by a
    final s.

    Args:
        data: class names of the dataset.
        model: class names of the model.
        name: of the dataset, for the error message.

    Returns:
        For each class of the dataset, its index in `model`.

    Raises:
        CatordogError: the model has no such class, or several that qualify.

    >>> match_classes(("Dogs", "cat"), ("cat", "dog"), "pets")
    [1, 0]
    """

    def singular(label: str) -> str:
        return label.casefold().removesuffix("s")

    def matches(label: str) -> list[int]:
        exact = [i for i, own in enumerate(model) if own == label]
        folded = [i for i, own in enumerate(model) if own.casefold() == label.casefold()]
        return exact or folded or [i for i, o in enumerate(model) if singular(o) == singular(label)]

    found = {label: matches(label) for label in data}
    unknown = [label for label, indices in found.items() if not indices]
    if unknown:
        raise CatordogError(
            f"{name} has the class {' and '.join(map(repr, unknown))}, which the model doesn't "
            f"know; it knows {', '.join(model)}"
        )
    for label, indices in found.items():
        if len(indices) > 1:
            candidates = " or ".join(repr(model[index]) for index in indices)
            raise CatordogError(f"{name}: the class {label!r} may be {candidates}: rename it")
    return [indices[0] for indices in found.values()]
