"""llama.cpp, onnxruntime-genai and molkv behind one interface, each at its fastest settings."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Engine", "GenaiEngine", "LlamaEngine", "MolkvEngine", "llama_build"]

Logits = NDArray[np.float32]


class Engine(Protocol):
    """One sequence at a time, greedy."""

    def start(self, token_ids: Sequence[int]) -> None:
        """Append a prompt to an empty sequence and choose the token that follows."""
        ...

    def step(self, token_id: int) -> None:
        """Append one token and choose the next; an engine may append its own choice instead."""
        ...

    def append(self, token_ids: Sequence[int]) -> Logits:
        """Append tokens to a sequence that may be empty; float32 [V], the logits after them."""
        ...

    def reset(self) -> None:
        """An empty sequence."""
        ...


class MolkvEngine:
    """A bundle, with its rows read from storage if it has experts.

    Args:
        bundle_folder: what `molkv export` writes.
        threads: of the graph.
        cache: part of the bundle already.
    """

    def __init__(self, bundle_folder: Path, threads: int, cache: str) -> None:
        from molkv_runtime import Bundle, Session

        bundle = Bundle.open(bundle_folder, verify_checksums=False)
        if (found := bundle.manifest.backends["onnx"].cache) != cache:
            raise ValueError(f"{bundle_folder}: cache is {found}, expected {cache}")
        self._session = Session(bundle, threads=threads)

    def start(self, token_ids: Sequence[int]) -> None:
        """See `Engine`."""
        self.append(token_ids).argmax()

    def step(self, token_id: int) -> None:
        """See `Engine`; the token given, so that experts are read as a text would."""
        self._session.step(token_id).argmax()

    def append(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine`."""
        return self._session.prefill(token_ids)

    def reset(self) -> None:
        """See `Engine`."""
        self._session.reset()


class LlamaEngine:
    """llama.cpp through the C interface that llama-cpp-python binds.

    Attention is the plain one, except where the cache's name says flash, and where it is quantized:
    llama.cpp quantizes values for flash attention alone.

    Args:
        file: GGUF.
        threads: of prefill and decode.
        cache: ``fp32``, ``f16``, ``f16 flash`` or ``q8_0``.
    """

    def __init__(self, file: Path, threads: int, cache: str) -> None:
        import llama_cpp

        self._api = llama_cpp
        # Kept, as the library keeps calling it.
        self._silent = llama_cpp.llama_log_callback(lambda *_: None)
        llama_cpp.llama_log_set(self._silent, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )
        if not model:
            raise OSError(f"{file}: llama.cpp cannot load it")
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        options = llama_cpp.llama_context_default_params()
        options.n_ctx = llama_cpp.llama_model_n_ctx_train(model)
        options.n_batch = options.n_ubatch = self._batch = 512
        options.n_threads = options.n_threads_batch = threads
        plain = llama_cpp.LLAMA_FLASH_ATTN_TYPE_DISABLED
        flash = llama_cpp.LLAMA_FLASH_ATTN_TYPE_ENABLED
        kind, options.flash_attn_type = {
            "fp32": (llama_cpp.GGML_TYPE_F32, plain),
            "f16": (llama_cpp.GGML_TYPE_F16, plain),
            "f16 flash": (llama_cpp.GGML_TYPE_F16, flash),
            "q8_0": (llama_cpp.GGML_TYPE_Q8_0, flash),
        }[cache]
        options.type_k = options.type_v = kind
        self._context = llama_cpp.llama_init_from_model(model, options)
        if not self._context:
            raise OSError(f"{file}: llama.cpp cannot make a context with a cache of {cache}")

    def start(self, token_ids: Sequence[int]) -> None:
        """See `Engine`."""
        self.append(token_ids).argmax()

    def step(self, token_id: int) -> None:
        """See `Engine`."""
        self.append([token_id]).argmax()

    def append(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine`; overwritten by the next tokens."""
        for first in range(0, len(token_ids), self._batch):
            part = token_ids[first : first + self._batch]
            ids = (self._api.llama_token * len(part))(*part)
            failed = self._api.llama_decode(
                self._context, self._api.llama_batch_get_one(ids, len(part))
            )
            if failed:
                raise RuntimeError(f"llama_decode returned {failed}")
        last = self._api.llama_get_logits_ith(self._context, -1)
        return np.ctypeslib.as_array(last, shape=(self._vocabulary,))

    def reset(self) -> None:
        """See `Engine`."""
        self._api.llama_memory_clear(self._api.llama_get_memory(self._context), False)


def llama_build() -> str:
    """What llama.cpp says that it was compiled for, such as its instruction sets."""
    import llama_cpp

    found: bytes = llama_cpp.llama_print_system_info()
    return found.decode().strip()


class GenaiEngine:
    """onnxruntime-genai.

    Args:
        folder: what its model builder writes.
        threads: of the graph; left alone, it takes one.
        cache: part of the model already.
    """

    def __init__(self, folder: Path, threads: int, cache: str) -> None:
        import onnxruntime_genai

        del cache
        self._api = onnxruntime_genai
        options = {"intra_op_num_threads": threads, "inter_op_num_threads": 1}
        config = onnxruntime_genai.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        settings = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self._context = settings["model"]["context_length"]
        self._model = onnxruntime_genai.Model(config)
        self._generator: Any = None
        self.reset()

    def start(self, token_ids: Sequence[int]) -> None:
        """See `Engine`."""
        self._generator.append_tokens(np.asarray(token_ids, np.int32))
        self._generator.generate_next_token()

    def step(self, token_id: int) -> None:
        """See `Engine`; appends its own choice, which is what it is made for."""
        del token_id
        self._generator.generate_next_token()

    def append(self, token_ids: Sequence[int]) -> Logits:
        """See `Engine`."""
        self._generator.append_tokens(np.asarray(token_ids, np.int32))
        last: Logits = self._generator.get_logits()[0, -1]
        return last

    def reset(self) -> None:
        """See `Engine`."""
        self._generator = None  # the old cache goes before the new one comes
        parameters = self._api.GeneratorParams(self._model)
        # Neither an end of text nor a length may stop it.
        parameters.set_search_options(
            max_length=self._context,
            min_length=self._context,
            do_sample=False,
            past_present_share_buffer=True,
        )
        self._generator = self._api.Generator(self._model, parameters)
