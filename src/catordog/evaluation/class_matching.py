"""Match the classes of a dataset with those of a model."""

from __future__ import annotations

from catordog.errors import CatordogError


def match_classes(data: tuple[str, ...], model: tuple[str, ...], name: str) -> list[int]:
    """The index among the model's classes of each class of the dataset.

    Upper and lower case are equal, and a plural with -s is the same class.

    Args:
        data: the classes of the dataset.
        model: the classes of the model.
        name: of the dataset, for the error message.

    Raises:
        CatordogError: the dataset has a class that the model doesn't know.

    >>> match_classes(("Cats", "DOG"), ("cat", "dog"), "pets")
    [0, 1]
    """

    def singular(label: str) -> str:
        label = label.casefold()
        return label[:-1] if label.endswith("s") else label

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
