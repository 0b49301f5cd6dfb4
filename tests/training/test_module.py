"""ClassifierModule with DataLoaders of the user's own, without PhotosDataModule."""

from __future__ import annotations

import lightning as L
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

import catordog
from catordog.errors import CatordogError
from catordog.photos.preprocess import Preprocess
from catordog.photos.splits import SplitFractions
from catordog.photos.synthetic import draw
from catordog.training.module import ClassifierModule
from catordog.training.tensorboard import confusion_figure

SIZE = 32
NETWORK = {"widths": [8, 16], "blocks": [1, 1]}
PREPROCESS = Preprocess(SIZE)


def photos(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised photos `float32 [n, 3, S, S]` of cats (even) and dogs (odd), and labels."""
    pixels = np.stack([np.asarray(draw(i, 3, size=SIZE).image) for i in range(n)])
    return torch.from_numpy(PREPROCESS.normalise(pixels)), torch.arange(n) % 2


@pytest.fixture(scope="module")
def dataset() -> TensorDataset:
    return TensorDataset(*photos(160))


def fit(module: ClassifierModule, dataset: TensorDataset, folder, epochs: int = 1) -> L.Trainer:
    trainer = L.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    train = DataLoader(dataset, batch_size=32, shuffle=True)
    trainer.fit(module, train, DataLoader(dataset, batch_size=32))
    return trainer


def test_it_trains_with_a_plain_dataloader_and_catordog_loads_its_checkpoint(dataset, tmp_path):
    L.seed_everything(0, verbose=False)
    module = ClassifierModule(
        ["cat", "dog"], size=SIZE, network_args=NETWORK, optimizer="muon", lr=0.05, tta_flip=True
    )
    trainer = fit(module, dataset, tmp_path, epochs=6)
    assert float(trainer.callback_metrics["val/accuracy"]) > 0.6
    assert int(module.confusion.compute().sum()) == len(dataset)  # of the last epoch alone
    classifier = catordog.load(trainer.checkpoint_callback.best_model_path)
    assert classifier.classes == ("cat", "dog")
    image = draw(0, 3, size=SIZE).image
    normalised = photos(1)[0]
    with torch.inference_mode():
        module.eval()
        expected = (module(normalised) + module(normalised.flip(3)))[0] / 2
    assert classifier.logits([image])[0] == pytest.approx(expected.numpy(), abs=1e-4)


def test_preprocessing_and_class_weights_that_it_is_given_are_used(dataset):
    module = ClassifierModule(["cat", "dog"], size=SIZE, network_args=NETWORK)
    module.use_data(Preprocess(SIZE, "crop"), SplitFractions(0.3, 0.3), torch.tensor([1.0, 0.0]))
    checkpoint: dict[str, object] = {}
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["catordog"]["preprocess"]["resize"] == "crop"
    assert checkpoint["catordog"]["split_fractions"] == {"val": 0.3, "test": 0.3}
    cats = [tensor[0::2] for tensor in dataset.tensors]
    module.log = lambda *_, **__: None
    module.eval()  # batch norms would mix cats and dogs
    cats_count, dogs_do_not = (
        module.training_step(cats, 0),
        module.training_step(dataset.tensors, 0),
    )
    assert dogs_do_not.item() == pytest.approx(cats_count.item(), rel=1e-4)
    module.use_data(class_weights=None)
    assert module.training_step(dataset.tensors, 0).item() != pytest.approx(cats_count.item())


def test_whitening_needs_photos(dataset, tmp_path):
    module = ClassifierModule(["cat", "dog"], size=SIZE, network_args=NETWORK, whiten=True)
    with pytest.raises(CatordogError, match="whiten needs training photos"):
        fit(module, dataset, tmp_path)
    module.use_data(sample=lambda: dataset.tensors[0])
    fit(module, dataset, tmp_path)
    assert not module.network.stem[0].weight.requires_grad


@pytest.mark.parametrize(
    ("name", "reason"),
    [("not sure", "is a verdict"), ("Neither", "is a verdict"), ("a\nb", "control character"),
     ("", "is empty"), ("cat", "is there twice")],
)  # fmt: skip
def test_class_names_that_results_could_not_tell_apart_are_refused(name, reason):
    with pytest.raises(CatordogError, match=reason):
        ClassifierModule(["cat", name], size=32)


@pytest.mark.parametrize("classes", [3, 200])
def test_the_confusion_figure_takes_any_names_and_any_number_of_classes(classes):
    names = tuple(f"${number}_to_$10" for number in range(classes))
    figure = confusion_figure([[1] * classes for _ in names], names)
    assert max(figure.get_size_inches()) < 25
    figure.canvas.draw()
    texts = figure.axes[0].texts
    assert len(texts) == (9 if classes == 3 else 0)
