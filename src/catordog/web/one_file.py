"""One self-contained HTML page with a model, the runtime and the preprocessing inside.

The page is UTF-16, which holds two bytes of a network in a character: base64 would make it a third
larger. Its byte order mark tells browsers so, whatever a server says.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from base64 import b64encode
from dataclasses import asdict
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from catordog import __version__
from catordog.confidence.ood import ACCEPT
from catordog.confidence.ood_output import OutputDetector
from catordog.confidence.softmax import format_percent
from catordog.errors import CatordogError
from catordog.model.backbone import CONCEPTS, FEATURES
from catordog.model.backends.onnx import OnnxBackend
from catordog.model.classifier import Classifier
from catordog.model.onnx_graph import with_metadata
from catordog.photos.decode import DEFAULT_RULES
from catordog.web.pages import render
from catordog.web.runtime import VERSION, open_runtime

if TYPE_CHECKING:
    from catordog.model.export import Settings

_ESCAPE = 0xE000
"""Precedes a character that HTML would change, whose highest bit is flipped; see page.js."""

_NUMBERS = ("softmax.js", "verdict.js", "ood.js")
_PIXELS = ("jpeg_pixels.js", "jpeg.js", "resize.js")
_WORKER = (*_NUMBERS, *_PIXELS, "worker.js")
_PAGE = ("softmax.js", "verdict.js", "cards.js", "page.js")
"""Modules in an order in which each comes after those that it imports."""


def export(classifier: Classifier, settings: Settings) -> bytes:
    """The classifier as a page; see `catordog.model.export.export`."""
    runtime = open_runtime(settings.runtime)
    networks, description = describe(classifier)
    parts = {"model": json.dumps(description).encode(), "runtime": runtime.wasm, **networks}
    script, style = _joined(_PAGE), _read("app.css") + _read("one_file.css")
    model = classifier.model
    shown = {
        "classes": model.classes,
        "temperature": model.temperature,
        "also": classifier.has_regions,
    }
    page = render(
        "one_file.html",
        policy=_policy(script, style),
        classes=" and ".join(filter(None, [", ".join(model.classes[:-1]), model.classes[-1]])),
        threshold=format_percent(model.threshold),
        has_ood=model.ood is not None,
        version=__version__,
        runtime_version=VERSION,
        # JSON in a script must not look like its end.
        shown=Markup(json.dumps(shown).replace("<", "\\u003c")),  # nosec B704
        style=Markup(style),  # nosec B704
        script=Markup(script),  # nosec B704
        worker=Markup(_runtime_module(runtime.script) + _joined(_WORKER)),  # nosec B704
    )
    before, after = page.split("<!-- parts -->")
    packed = b"".join(_part(name, content) for name, content in parts.items())
    return b"\xff\xfe" + before.encode("utf-16-le") + packed + after.encode("utf-16-le")


def describe(classifier: Classifier) -> tuple[dict[str, bytes], dict[str, Any]]:
    """What the page's JavaScript needs to know of a classifier.

    Args:
        classifier: of an ONNX file.

    Returns:
        The networks by the name of their stage, without metadata; and a description as plain data:
        see `model` in worker.js.
    """
    model, first, backbone = classifier.model, classifier.first_stage, classifier.backbone
    networks: dict[str, bytes] = {}
    description: dict[str, Any] = {
        "classes": model.classes,
        "temperature": model.temperature,
        "threshold": model.threshold,
        "accept": ACCEPT,
        "megapixels": DEFAULT_RULES.max_megapixels,
    }
    if first is not None:
        assert isinstance(first.small, Classifier)
        networks["first"], description["first"] = _stage(first.small)
        description["looks"] = [asdict(bounds) for bounds in first.bounds]
    networks["large"], description["large"] = _stage(classifier)
    if backbone is not None:
        networks["general"] = with_metadata(backbone.trunk, {})
        description["general"] = {
            "preprocess": backbone.preprocess.to_dict(),
            "outputs": [FEATURES, CONCEPTS],
            "flip": False,
        }
    return networks, description


def _stage(classifier: Classifier) -> tuple[bytes, dict[str, Any]]:
    model, backend = classifier.model, classifier.backend
    if not isinstance(backend, OnnxBackend):
        raise CatordogError("only an ONNX file can be put into a page")
    own = model.ood is not None and classifier.backbone is None
    needs = model.ood.needs if model.ood is not None and own else ()
    return with_metadata(backend.data, {}), {
        "preprocess": {**model.preprocess.to_dict(), "padding": model.preprocess.padding},
        "outputs": ["logits", *needs, *(["regions"] if classifier.has_regions else [])],
        "temperature": model.temperature,
        "flip": model.tta_flip,
        "flipBelow": model.tta_flip_below,
        "ood": model.ood and model.ood.to_dict(),
        "learnt": own and isinstance(model.ood, OutputDetector),
    }


def _policy(script: str, style: str) -> str:
    """A policy by which the page can't connect to anything."""
    digests = {
        name: b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for name, text in (("script", script), ("style", style))
    }
    return (
        f"default-src 'none'; script-src 'sha256-{digests['script']}' 'wasm-unsafe-eval'; "
        f"style-src 'sha256-{digests['style']}'; worker-src blob:; img-src blob: data:; "
        "media-src blob: mediastream:; base-uri 'none'; form-action 'none'"
    )


def _part(name: str, content: bytes) -> bytes:
    """An element that holds bytes, compressed."""
    packed = gzip.compress(content, 9, mtime=0)
    start = f'<script type="application/octet-stream" id="{name}" data-size="{len(packed)}">'
    return start.encode("utf-16-le") + as_characters(packed) + "</script>\n".encode("utf-16-le")


def as_characters(content: bytes) -> bytes:
    """Bytes as UTF-16 text that HTML leaves as it is, nearly all of them two in a character."""
    units = np.frombuffer(content + b"\0" * (len(content) % 2), "<u2")
    surrogates = (units >= 0xD800) & (units < 0xE000)
    changed = surrogates | np.isin(units, [0, ord("\r"), ord("<"), _ESCAPE, 0xFEFF, 0xFFFE, 0xFFFF])
    result = np.repeat(units, 1 + changed)
    escapes = np.flatnonzero(changed) + np.arange(changed.sum())
    result[escapes] = _ESCAPE
    result[escapes + 1] ^= 0x8000
    return result.astype("<u2").tobytes()


def _joined(names: tuple[str, ...]) -> str:
    """Modules as one, as nothing can be imported from a file."""
    text = "\n".join(_read(name) for name in names)
    text = re.sub(r'^import \{[^}]*\} from "/\w+\.js";\n', "", text, flags=re.MULTILINE)
    return re.sub(r"^export (?=(async )?function|const)", "", text, flags=re.MULTILINE)


def _runtime_module(script: str) -> str:
    """ONNX Runtime as the constant `runtime`: its exports, in a scope of their own.

    A page of a file can't start a worker that is an ES module.
    """
    body, _, exports = script.replace("import.meta.url", "self.location.href").rpartition("export{")
    pairs = re.findall(r"(\S+) as (\w+)", exports.partition("}")[0].replace(",", " , "))
    members = ", ".join(f"{name}: {local}" for local, name in pairs if name != "default")
    return f"const runtime = (() => {{\n{body}\nreturn {{ {members} }};\n}})();\n"


def _read(name: str) -> str:
    return (files("catordog.web") / "static" / name).read_text("utf-8")
