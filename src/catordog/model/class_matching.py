"""Match the classes of a dataset to those of a model by name."""

from __future__ import annotations

from catordog.errors import CatordogError


def match_classes(data: tuple[str, ...], model: tuple[str, ...], name: str) -> list[int]:
    """Find each class of a dataset among a model's classes, ignoring case and a plural s.

    Args:
        data: class names of the dataset.
        model: class names of the model.
        name: of the dataset, for the error message.

    Returns:
        For each class of the dataset, its index in `model`.

    Raises:
        CatordogError: the model has no such class.

    >>> match_classes(("Dogs", "cat"), ("cat", "dog"), "pets")
    [1, 0]
    """

    def singular(label: str) -> str:
        return label.casefold().removesuffix("s")

    known = {label.casefold(): index for index, label in enumerate(model)}
    known |= {singular(label): index for index, label in enumerate(model)}
    indices = [known.get(label.casefold(), known.get(singular(label))) for label in data]
    unknown = [label for label, index in zip(data, indices, strict=True) if index is None]
    if unknown:
        raise CatordogError(
            f"{name} has the class {' and '.join(map(repr, unknown))}, which the model doesn't "
            f"know; it knows {', '.join(model)}"
        )
    return [index for index in indices if index is not None]
