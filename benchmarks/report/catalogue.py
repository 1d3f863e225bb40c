"""The benchmarks of the report: what each asks, how it is run, and what it needs."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

__all__ = ["BENCHMARKS", "CATALOGUE", "ROOT", "Benchmark"]

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "benchmarks"
_MODELS, _RESULT = "{models}", "{result}"


@dataclass(frozen=True)
class Benchmark:
    """One command, and the file that it writes.

    Attributes:
        name: of its result, and on the command line.
        title: of its section.
        script: a file in `benchmarks`, or None for ``molkv``.
        arguments: ``{models}`` stands for a folder that keeps models between runs, ``{result}``
            for the JSON file; a command without it prints its JSON.
        quick: arguments of a run that only shows that everything works.
        modules: Python packages beyond those that molkv itself needs.
        programs: that have to be installed.
        prepares: whether it knows `--prepare`, which makes models and measures nothing.
    """

    name: str
    title: str
    script: str | None
    arguments: tuple[str, ...]
    quick: tuple[str, ...]
    modules: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    prepares: bool = False

    def command(
        self, models: Path, result: Path, *, quick: bool, prepare: bool = False
    ) -> list[str]:
        """What to run, from the repository's root."""
        program = [sys.executable, *(("-m", "molkv_export.cli") if self.script is None else ())]
        if self.script is not None:
            program.append(str(BENCHMARKS / self.script))
        arguments = self.quick if quick else self.arguments
        filled = [
            argument.replace(_MODELS, str(models)).replace(_RESULT, str(result))
            for argument in arguments
        ]
        return [*program, *filled, *(["--prepare"] if prepare else [])]

    def shown(self, *, quick: bool) -> str:
        """The command as a reader would type it."""
        program = "molkv" if self.script is None else f"python benchmarks/{self.script}"
        arguments = " ".join(self.quick if quick else self.arguments)
        return f"{program} {arguments}".replace(_MODELS, "MODELS").replace(_RESULT, "RESULT")

    @property
    def prints_json(self) -> bool:
        """Whether its result is what it prints."""
        return _RESULT not in self.arguments

    def missing(self) -> str | None:
        """What has to be installed first, and how; None if nothing."""
        modules = [name for name in self.modules if find_spec(name) is None]
        if modules:
            return (
                f"{', '.join(modules)} missing: pip install --constraint constraints.txt '.[bench]'"
            )
        programs = [name for name in self.programs if shutil.which(name) is None]
        return f"apt-get install {' '.join(programs)}" if programs else None


def _peers(bits: int) -> Benchmark:
    result = ("--bits", str(bits), "--keep", "--json", _RESULT)
    return Benchmark(
        f"peers-{bits}",
        f"Beside llama.cpp and onnxruntime-genai, {bits} bits",
        "peers.py",
        ("--shape", "160m", "--folder", _MODELS, *result),
        (
            *("--shape", "small", "--folder", _MODELS, *result),
            *("--contexts", "64", "512", "--prefill", "128", "--steps", "16"),
            *("--repeats", "1", "--turns", "2"),
        ),
        modules=("llama_cpp", "gguf", "onnxruntime_genai", "transformers"),
        prepares=True,
    )


def _expert_attention(values: str) -> Benchmark:
    arguments = ("--values", values, "--json", _RESULT)
    return Benchmark(
        f"expert-attention-{values}",
        f"The expert attention kernel, {values} values",
        "expert_attention.py",
        arguments,
        (*arguments, "--quick"),
    )


CATALOGUE = (
    Benchmark(
        "experts-cost",
        "What experts on storage cost a decode step",
        "experts_cost.py",
        ("--shape", "160m", "--folder", _MODELS, "--keep", "--json", _RESULT),
        (
            *("--shape", "small", "--folder", _MODELS, "--keep", "--json", _RESULT),
            *("--contexts", "64", "512", "--turns", "1", "--processes", "2"),
        ),
        prepares=True,
    ),
    Benchmark(
        "blob-size",
        "Lookup by the size of the blob",
        "blob_size.py",
        ("--folder", _MODELS, "--json", _RESULT),
        (
            *("--folder", _MODELS, "--json", _RESULT, "--preset", "small"),
            *("--gigabytes", "0.1", "0.2", "--steps", "16", "--turns", "2"),
        ),
    ),
    _peers(4),
    _peers(8),
    Benchmark(
        "export",
        "Exporting, and opening a blob",
        "export.py",
        ("--folder", _MODELS, "--json", _RESULT),
        (
            *("--folder", _MODELS, "--json", _RESULT),
            *("--preset", "small", "--vocabulary", "2048", "--turns", "1"),
        ),
    ),
    Benchmark(
        "fidelity",
        "What quantization costs in fidelity",
        None,
        (
            *("eval", "--checkpoint", "model/molkv_model/checkpoints/tiny"),
            *("--text", "tests/parity/held_out_prose.txt", "--json"),
        ),
        (
            *("eval", "--checkpoint", "model/molkv_model/checkpoints/tiny"),
            *("--text", "tests/parity/held_out_prose.txt", "--tokens", "512", "--json"),
        ),
    ),
    Benchmark(
        "expert-rounding",
        "Rounding schemes of the experts",
        "expert_rounding.py",
        ("--json", _RESULT),
        ("--json", _RESULT, "--tokens", "512"),
    ),
    _expert_attention("int8"),
    _expert_attention("int4"),
    Benchmark(
        "row-reads",
        "Reading rows",
        "row_reads.py",
        ("--folder", _MODELS, "--json", _RESULT),
        (
            *("--folder", _MODELS, "--json", _RESULT, "--megabytes", "64"),
            *("--row-kib", "16", "--readers", "1", "4", "--turns", "2"),
        ),
        programs=("fio",),
    ),
    Benchmark(
        "backends",
        "ONNX Runtime and ExecuTorch",
        "backends.py",
        (
            *("--shapes", "tiny", "160m", "--folder", f"{_MODELS}/backends", "--keep"),
            *("--json", _RESULT),
        ),
        (
            *("--shapes", "tiny", "--folder", f"{_MODELS}/backends", "--keep"),
            *("--json", _RESULT, "--turns", "1", "--repeats", "1", "--steps", "16"),
        ),
        modules=("executorch",),
        prepares=True,
    ),
    Benchmark(
        "decode-overhead",
        "What a step spends outside the graph engine",
        "decode_overhead.py",
        ("--preset", "160m", "--folder", f"{_MODELS}/overhead", "--json", _RESULT),
        (
            *("--preset", "tiny", "--folder", f"{_MODELS}/overhead", "--json", _RESULT),
            *("--steps", "16", "--turns", "1"),
        ),
    ),
)
"""In the order of the document."""
