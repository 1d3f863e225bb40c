"""Results with the fields that benchmarks write, small and with round figures."""

from __future__ import annotations

import copy
from typing import Any

RUN = {
    "date": "2026-11-27",
    "seconds": 90.0,
    "command": "python benchmarks/example.py",
    "quick": False,
    "machine": {
        "processor": "Example CPU",
        "architecture": "x86_64",
        "cores": 2,
        "memory_bytes": 24 << 30,
        "system": "Linux 6.1",
        "versions": {"python": "3.11.7", "onnxruntime": "1.32.0"},
    },
}


def experts_cost() -> dict[str, Any]:
    memory = {
        "no experts": {"peak_bytes": 300_000_000, "window_bytes": 0},
        "warm": {"peak_bytes": 340_000_000, "window_bytes": 20_000_000},
    }
    steps = {
        64: {"no experts": 0.004, "warm": 0.004, "cold": 0.0041},
        1024: {"no experts": 0.006, "warm": 0.006, "cold": 0.0061},
    }
    return {
        "benchmark": "experts_cost",
        "shape": "160m",
        "blob_bytes": 2_000_000_000,
        "threads": 2,
        "processes": 5,
        "results": [
            {
                "dense": "int4",
                "cache": "int8",
                "context": context,
                "step_s": step,
                "lookup_s": {"warm": 0.00005, "cold": 0.0002},
                "ratio": {kind: step["no experts"] / step[kind] for kind in ("warm", "cold")},
                "ratio_range": {kind: [0.9, 1.1] for kind in ("warm", "cold")},
                "floor": 0.99,
                "eager_s": 0.04,
                "memory": memory,
            }
            for context, step in steps.items()
        ],
    }


def blob_size() -> dict[str, Any]:
    results = [
        {"gigabytes": size, "lookup_s": {"warm": 0.00002, "cold": cold}}
        for size, cold in ((0.5, 0.0001), (8, 0.00011))
    ]
    return {"benchmark": "blob_size", "preset": "160m", "results": results}


def peers(bits: int) -> dict[str, Any]:
    speeds = {"prefill": 1000.0, "decode_64": 300.0, "decode_1024": 200.0}
    variants = [
        *(("molkv", "int8", experts) for experts in (False, True)),
        ("llama.cpp", "f16", False),
        ("onnxruntime-genai", "int8", False),
    ]
    return {
        "benchmark": "peers",
        "shape": "160m",
        "load": {"threads": 2, "prefill": 512, "steps": 64, "contexts": [64, 1024]},
        "exact": [{"engine": "llama.cpp", "error": 2e-6}],
        "results": [
            {
                "engine": engine,
                "bits": bits,
                "cache": cache,
                "experts": experts,
                "block": 64 if engine == "onnxruntime-genai" else None,
                "variant": f"{bits} bits, cache {cache}",
                "load_s": 0.4,
                **{f"{name}_tokens_per_s": rate for name, rate in speeds.items()},
                "peak_rss_bytes": 300_000_000,
                "file_bytes": 90_000_000,
                "storage_bytes": 2_000_000_000 if experts else 0,
                "error": 0.1,
            }
            for engine, cache, experts in variants
        ],
        "ratios": [
            {
                "bits": bits,
                "cache": "int8",
                "experts": True,
                "figure": name,
                "tokens_per_s": rate,
                "best_peer": "llama.cpp",
                "best_peer_variant": f"{bits} bits, cache f16",
                "best_peer_tokens_per_s": rate / 1.5,
                "ratio": 1.5,
            }
            for name, rate in speeds.items()
        ],
    }


def export() -> dict[str, Any]:
    checkpoint = 700 << 20
    return {
        "benchmark": "export",
        "preset": "160m",
        "vocabulary": 8192,
        "results": {
            "open": [{"gibibytes": 0.5, "python_us": 120.0, "native_us": 60.0}],
            "compute": [{"threads": 2, "rate": 80e9, "peak": 100e9, "share": 0.8}],
            "ranks": {
                "one": {"seconds": 20.0, "cores": 1.1},
                "two": {"seconds": 11.0, "cores": 0.9},
                "ratio": 20 / 11,
            },
            "memory": {
                "checkpoint_bytes": checkpoint,
                "peak_bytes": {"experts": checkpoint + (512 << 20), "onnx": checkpoint},
            },
        },
    }


def fidelity() -> dict[str, Any]:
    figures = {"int8": (0.00003, 0.996), "int4": (0.0048, 0.951)}
    scored = {"tokens": 1000, "perplexity": 35.19, "perplexity_error": 0.7}
    return {
        "text": "prose.txt",
        "reference": scored,
        "results": [
            {
                **scored,
                "experts": experts,
                "dense": "fp32",
                "cache": "fp32",
                "dense_bytes": 5 << 20,
                "blob_bytes": 12 << 20,
                "kl_divergence": nats,
                "kl_divergence_error": None,
                "same_top1": same,
                "same_top1_error": 0.001,
            }
            for experts, (nats, same) in figures.items()
        ],
    }


def expert_rounding() -> dict[str, Any]:
    estimates = {"kl_divergence": 0.00003, "kl_divergence_error": 1e-7}
    same = {"same_top1": 0.99, "same_top1_error": 0.001}
    results = [{"scheme": "int8 keys, int8 values", **estimates, **same}]
    return {"benchmark": "expert_rounding", "positions": 1000, "results": results}


def expert_attention() -> dict[str, Any]:
    shape = {"tokens": 1, "value_size": 768, "window": 64, "experts": 4, "heads": 4}
    medians = {"floor": 20.0, "avx2": 30.0, "onnxruntime function": 900.0}
    results = [{"shape": shape, "rows in": "memory", "microseconds": medians}]
    return {"benchmark": "expert_attention", "results": results}


def row_reads() -> dict[str, Any]:
    seconds = {"fio": 0.1, "molkv": 0.1, "molkv, no CRC": 0.09, "mmap": 0.2, "mmap, random": 0.3}
    results = [
        {"row_bytes": 4096, "readers": readers, "cold": cold, "rows": 1000, "seconds": seconds}
        for readers in (1, 4)
        for cold in (True, False)
    ]
    results[0]["seconds"] = {**seconds, "fio, direct": 0.1, "molkv, direct": 0.1}
    return {"benchmark": "row_reads", "results": results}


def backends() -> dict[str, Any]:
    sizes = dict.fromkeys(("file_bytes", "model_bytes", "peak_bytes"), 10_000_000)
    speeds = {"prefill_tokens_per_s": 900.0, "decode_tokens_per_s": 60.0}
    costs = {"load_s": 0.1, "export_s": 3.0}
    return {
        "benchmark": "backends",
        "load": {"threads": 2, "prefill": 512, "prompt": 64},
        "results": [
            {"shape": "tiny", "backend": backend, "dense": dense, **sizes, **speeds, **costs}
            for backend, dense in (("onnx", "fp32"), ("executorch", "int4"))
        ],
    }


def decode_overhead() -> dict[str, Any]:
    figures = {"step_us": 1000.0, "graph_us": 950.0, "outside_us": 50.0, "share_outside": 0.05}
    results = [{"engine": "native", "sampling": "greedy", **figures}]
    return {"benchmark": "decode_overhead", "preset": "160m", "results": results}


def every_result() -> dict[str, dict[str, Any]]:
    """One of each benchmark in the catalogue, by its name."""
    results = {
        "experts-cost": experts_cost(),
        "blob-size": blob_size(),
        "peers-4": peers(4),
        "peers-8": peers(8),
        "export": export(),
        "fidelity": fidelity(),
        "expert-rounding": expert_rounding(),
        "expert-attention-int8": expert_attention(),
        "expert-attention-int4": expert_attention(),
        "row-reads": row_reads(),
        "backends": backends(),
        "decode-overhead": decode_overhead(),
    }
    return {name: {**found, "run": copy.deepcopy(RUN)} for name, found in results.items()}
