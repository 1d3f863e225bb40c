"""What the Kotlin tests run on: bundles, what Python generates from them, and broken ones."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from molkv_export import export
from molkv_runtime.bundle import Bundle
from molkv_runtime.sampler import SamplingConfig
from molkv_runtime.session import Session
from tests.attacks.bundle_folders import attacks
from tests.small_models import write_checkpoint, write_tokenizer

TINY: Final = Path(__file__).parents[3] / "model" / "molkv_model" / "checkpoints" / "tiny"
# Name, kind of small model, with a tokenizer or without, and how it is exported.
_BUNDLES: Final[tuple[tuple[str, str, bool, dict[str, str]], ...]] = (
    ("small", "molkv", True, {"experts": "int8"}),
    ("plain", "molkv", False, {"experts": "int8"}),
    ("half", "molkv", False, {"experts": "f16"}),
    ("stored", "molkv-key-gelu-untied", True, {"experts": "int8", "embedding": "storage"}),
    ("mole-int4", "mole", False, {"experts": "int4"}),
    ("dense", "dense", False, {}),
    ("quantized", "molkv", True, {"experts": "int4", "dense": "int4", "cache": "int8"}),
)
_PROMPTS: Final = (
    "The President of the United States",
    "Call me 🐋🚢. 日本語と中文 — naïve",
    "🇳🇴 👩‍👩‍👧 \u0301combining",
)
# At this temperature the trained model, too, breaks characters into pieces. So flat a choice among
# all tokens depends on the last bits of logits; this seed's stands when they err by 1e-5.
_SAMPLING: Final = SamplingConfig(temperature=2.5, top_k=0, top_p=1.0, min_p=0.0, seed=2**63 + 35)
# What Kotlin says otherwise than the Python session does, by attack.
_OTHER_WORDS: Final[dict[str, tuple[str, ...]]] = {
    "graph-without-identity": ("dense.onnx: ", "identity is missing"),
    "graph-that-wants-embeddings": ("dense.onnx: ", "embedding is storage", "says missing"),
    "graph-that-has-the-embedding": ("dense.onnx: ", "embedding is missing", "says storage"),
    "manifest-is-a-folder": ("manifest.json: ", "directory"),
}


def write_payloads(folder: Path) -> None:
    """Writes `bundles`, `attacks` and `expected.json`."""
    bundles = folder / "bundles"
    export(TINY, bundles / "tiny", experts="int8")
    tokenizer = write_tokenizer(folder / "tokenizer.json")
    for name, kind, with_tokenizer, options in _BUNDLES:
        checkpoint = folder / "checkpoints" / name
        write_checkpoint(checkpoint, kind, tokenizer=tokenizer if with_tokenizer else None)
        export(checkpoint, bundles / name, **options)
    _write_attacks(bundles / "plain", folder / "attacks")
    generations = [
        _generation(bundles / name, prompt, sampling)
        for name in ("tiny", "small", "stored")
        for prompt in _PROMPTS
        for sampling in (SamplingConfig(), _SAMPLING)
    ]
    (folder / "expected.json").write_text(json.dumps({"generations": generations}))


def _generation(bundle: Path, prompt: str, sampling: SamplingConfig) -> dict[str, Any]:
    with Session(Bundle.open(bundle), engine="reference", threads=1) as session:
        tokens = session.generate(prompt, max_new_tokens=40, sampling=sampling, stop_ids=())
        listed = [(token.id, token.text) for token in tokens]
    return {
        "bundle": bundle.name,
        "prompt": prompt,
        "sampling": {**asdict(sampling), "seed": str(sampling.seed)},
        "tokens": listed,
    }


def _write_attacks(bundle: Path, folder: Path) -> None:
    expected = {}
    for attack in attacks():
        shutil.copytree(bundle, folder / attack.name)
        attack.edit(folder / attack.name)
        message = _OTHER_WORDS.get(attack.name, attack.message)
        expected[attack.name] = {"when": attack.when, "error": attack.error, "message": message}
    (folder / "expected.json").write_text(json.dumps(expected))
