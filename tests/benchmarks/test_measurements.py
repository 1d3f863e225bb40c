"""What a benchmark measures is what it says, and what it writes is what the report reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import backends
import cached_files
import experts_cost
import numpy as np
import peer_candidates
import peers
import pytest
import random_bundles
from rich.progress import Progress

from benchmarks import export
from molkv_model.config import preset
from tests.benchmarks import results

LOAD = experts_cost.Load(contexts=(5,), steps=3, turns=4, threads=1, processes=3)


@dataclass
class Events:
    """What sessions and the page cache are told, in order, as (kind, what, ids)."""

    told: list[tuple[str, str, tuple[int, ...]]] = field(default_factory=list)

    def turns(self) -> list[list[tuple[str, str, tuple[int, ...]]]]:
        """Cut at each reset."""
        found: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
        for event in self.told:
            if event[1] == "reset":
                found.append([])
            found[-1].append(event)
        return found


class FakeSession:
    """Takes as long for a lookup as it is told to."""

    def __init__(self, kind: str, events: Events) -> None:
        self.kind, self.events, self.position = kind, events, 0
        self.model = SimpleNamespace(vocab_size=1000)
        self.bundle = SimpleNamespace(expert_files=[Path(kind)])
        self.stats = SimpleNamespace(lookup_seconds=0.0)

    def reset(self) -> None:
        self.position = 0
        self.stats.lookup_seconds = 0.0
        self.events.told.append((self.kind, "reset", ()))

    def prefill(self, ids: Sequence[int]) -> None:
        self.position += len(ids)
        self.stats.lookup_seconds += 100.0
        self.events.told.append((self.kind, "prefill", tuple(ids)))

    def step(self, token: int) -> None:
        self.position += 1
        assert self.position <= LOAD.contexts[0] + LOAD.steps
        self.stats.lookup_seconds += self.position
        self.events.told.append((self.kind, "step", (token,)))


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Events:
    found = Events()
    monkeypatch.setattr(
        experts_cost, "drop", lambda files: found.told.append((files[0].name, "drop", ()))
    )
    return found


def take_turns(events: Events) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    sessions: Any = {kind: FakeSession(kind, events) for kind in experts_cost.KINDS}
    blob: Any = SimpleNamespace(read=lambda ids: events.told.append(("blob", "read", tuple(ids))))
    generator = np.random.default_rng(5)
    return experts_cost.take_turns(sessions, blob, LOAD, 5, generator)


def test_a_cold_turn_leaves_the_rows_of_warm_ones_in_the_page_cache(events: Events) -> None:
    take_turns(events)
    first, *turns = events.turns()
    known = tuple(token for kind, what, (token, *_) in first if (kind, what) == ("warm", "step"))
    assert len(turns) == LOAD.turns * len(experts_cost.KINDS)
    for turn in turns:
        kind = turn[0][0]
        whats = [what for _, what, _ in turn]
        stepped = tuple(ids[0] for _, what, ids in turn if what == "step")
        if kind == "cold":
            assert whats == ["reset", "prefill", "drop", *["step"] * LOAD.steps, "read"]
            assert stepped != known
            assert turn[-1] == ("blob", "read", known)
        else:
            assert whats == ["reset", "prefill", *["step"] * LOAD.steps]
            assert stepped == known


def test_every_turn_is_at_the_context_that_is_named_and_has_its_own_lookups(
    events: Events,
) -> None:
    seconds, lookups = take_turns(events)
    for kind in experts_cost.KINDS:
        assert len(seconds[kind]) == LOAD.turns * LOAD.steps
        assert lookups[kind] == [6.0, 7.0, 8.0] * LOAD.turns  # of no prefill


def test_figures_are_medians_over_processes_and_the_range_of_ratios_is_kept() -> None:
    processes = [
        {
            "step_s": {**dict.fromkeys(experts_cost.KINDS, 1.0), "warm": warm},
            "lookup_s": dict.fromkeys(experts_cost.STORED, lookup),
        }
        for warm, lookup in ((2.0, 0.3), (1.0, 0.1), (4.0, 0.2))
    ]
    found = experts_cost.summary(processes)
    assert found["step_s"]["warm"] == 2.0
    assert found["lookup_s"]["cold"] == 0.2
    assert found["ratio"] == {"warm": 0.5, "cold": 1.0, "embedding": 1.0}
    assert found["ratio_range"]["warm"] == [0.25, 1.0]


def test_a_context_without_room_for_its_steps_is_refused() -> None:
    room = preset("tiny").max_position_embeddings
    experts_cost.require_room("tiny", experts_cost.Load((room - 3,), 3, 1, 1, 1))
    with pytest.raises(SystemExit, match=f"tiny has a context of {room} tokens: shorten"):
        experts_cost.require_room("tiny", experts_cost.Load((8, room - 2), 3, 1, 1, 1))


def test_a_file_that_stays_in_the_page_cache_ends_the_benchmark(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(1 << 20))
    assert cached_files.resident_share(file) == 1.0
    monkeypatch.setattr(cached_files, "drop_from_page_cache", lambda _: None)
    with pytest.raises(SystemExit, match="100% stayed in the page cache"):
        cached_files.drop([file])


class FakeEngine:
    """Whose clock only it moves: 100 s for an empty sequence, 1 s for a prompt or a step."""

    def __init__(self) -> None:
        self.clock = 0.0

    def reset(self) -> None:
        self.clock += 100

    def start(self, token_ids: Sequence[int]) -> None:
        self.clock += len(token_ids)

    def step(self, token_id: int) -> None:
        del token_id
        self.clock += 1

    def append(self, token_ids: Sequence[int]) -> Any:
        raise NotImplementedError


def test_an_empty_sequence_is_no_part_of_prefill(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = FakeEngine()
    monkeypatch.setattr(peers.time, "perf_counter", lambda: engine.clock)
    assert peers.prefill(engine, [1, 2, 3]) == 3.0
    assert peers.decode(engine, [1, 2], [3, 4]) == [1.0, 1.0]
    assert engine.clock == 3 * 100 + 3 + 2 * (2 + 2)


def test_experts_on_stored_rows_are_exactly_torchs(tmp_path: Path) -> None:
    candidate = peer_candidates.Candidate(peer_candidates.MOLKV, 32, "fp32", experts=True)
    random_bundles.make_model(preset("tiny"), tmp_path)
    candidate.make(tmp_path)
    expected = peers.torch_logits(tmp_path, experts=True)
    found = peers.engine_logits(candidate, tmp_path, 1, expected.shape[1])
    assert peers.relative_error(found, expected) <= peers.LIMITS[32]


def test_llama_has_every_cache_that_may_be_its_fastest() -> None:
    for bits in (4, 8):
        variants = peer_candidates.candidates_of(bits, 32)
        caches = {each.cache for each in variants if each.engine == peer_candidates.LLAMA}
        assert caches == {"f16", "f16 flash", "q8_0"}


def test_a_checkpoint_without_its_last_file_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def in_child(function: Any, *arguments: Any) -> None:
        target = arguments[-1]
        made.append(target)
        if function is random_bundles.write_checkpoint:
            target.mkdir(exist_ok=True)
            (target / "config.json").touch()
        else:
            target.touch()

    monkeypatch.setattr(random_bundles, "in_child", in_child)
    whole, blob = random_bundles.checkpoint_path(tmp_path, experts=True), tmp_path / "experts.molkv"
    dense = random_bundles.checkpoint_path(tmp_path, experts=False)
    whole.mkdir()
    (whole / "model.safetensors").touch()
    random_bundles.make_model(preset("tiny"), tmp_path)
    assert made == [whole, dense, blob]
    random_bundles.make_model(preset("tiny"), tmp_path)
    assert made == [whole, dense, blob]


@pytest.mark.parametrize("program", [experts_cost, peers])
def test_models_of_two_shapes_are_kept_apart(
    program: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Made(Exception):  # noqa: N818 - ends the program where models would be made
        pass

    roots: list[Path] = []

    def make(*arguments: Any) -> None:
        roots.append(next(each for each in arguments if isinstance(each, Path)))
        raise Made

    monkeypatch.setattr(program, "find_spec", lambda _: True, raising=False)
    monkeypatch.setattr(program, "in_child", lambda *_: 32)
    monkeypatch.setattr(program, "make_bundles" if program is experts_cost else "make_model", make)
    for shape in ("small", "160m"):
        options = ["--shape", shape, "--folder", str(tmp_path), "--keep", "--contexts", "64"]
        monkeypatch.setattr("sys.argv", ["program", *options])
        with pytest.raises(Made):
            program.main()
    assert roots == [tmp_path / "small", tmp_path / "160m"]


def test_backends_without_executorch_have_versions_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def version(name: str) -> str:
        if name == "executorch":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(backends, "version", version)
    found = backends.machine()
    assert found["onnxruntime"] == "1.0"
    assert "executorch" not in found


# What the report's fixtures have is what benchmarks write.


def fields(value: Any) -> Any:
    """The names of an object's fields, and of those inside; of a list, its first element's."""
    if isinstance(value, dict):
        return {str(name): fields(each) for name, each in value.items()}
    return fields(value[0]) if isinstance(value, list) and value else None


def assert_written(fixture: Any, written: Any) -> None:
    """Every field that the fixture has is written; a benchmark may write more."""
    if isinstance(fixture, dict):
        for name, inside in fixture.items():
            assert name in written, name
            assert_written(inside, written[name])


def test_the_fixture_of_export_has_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = {"seconds": 2.0, "rate": 1e9, "peak": 2e9, "cores": 1.0}
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    expected = fields(results.export()["results"])
    peaks = dict.fromkeys(expected["memory"]["peak_bytes"], 1 << 30)
    monkeypatch.setattr(export, "run", lambda work, *_: rows if work == "rows" else peaks)
    monkeypatch.setattr(export, "OPEN_GIB", (0.01,))
    monkeypatch.setattr(export, "OPENINGS", 1)
    written = {
        "open": export.opening(preset("tiny"), tmp_path),
        "compute": export.compute(checkpoint, tmp_path, 1, 1),
        "ranks": export.ranks(checkpoint, tmp_path, 1),
        "memory": export.memory(checkpoint, tmp_path, 1),
    }
    assert set(expected) == set(written)
    assert_written(expected, fields(written))


def test_the_fixture_of_experts_cost_has_what_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = {"peak_bytes": 3, "resident_bytes": 2, "window_bytes": 1}
    steps = {
        "step_s": dict.fromkeys(experts_cost.KINDS, 0.5),
        "lookup_s": dict.fromkeys(experts_cost.STORED, 0.1),
        "load_average": 0.0,
    }
    answers = {
        experts_cost.measure_eager: 1.0,
        experts_cost.measure_memory: memory,
        experts_cost.measure_steps: steps,
    }
    monkeypatch.setattr(experts_cost, "in_child", lambda function, *_: answers[function])
    monkeypatch.setattr(experts_cost, "floor", lambda *_: 0.9)
    with Progress(disable=True) as progress:
        written = experts_cost.measure(tmp_path, LOAD, True, progress)
    assert_written(fields(results.experts_cost()["results"]), fields(written))


def test_the_fixture_of_peers_has_what_it_writes() -> None:
    load = peers.Load(contexts=(64, 1024), prefill=512, steps=1, repeats=1, threads=1)
    turn = {
        "load_s": 1.0,
        "prefill_s": [1.0],
        "step_s": {64: [1.0], 1024: [2.0]},
        "libraries_bytes": 1,
        "peak_rss_bytes": 2,
    }
    of_variant = {"bits": 4, "cache": "int8", "experts": False, "variant": "x"}
    rows = [
        {"engine": engine, **of_variant, **peers.figures([turn], load)}
        for engine in ("molkv", "llama.cpp")
    ]
    fixture = results.peers(4)
    assert_written(fields(fixture["ratios"]), fields(peers.compare_with_peers(rows)))
    measured = {name for name in rows[0] if name.endswith(("_s", "_bytes"))}
    described = set(fixture["results"][0])
    assert measured - {"libraries_bytes"} <= described
    assert np.isfinite(rows[0]["decode_1024_tokens_per_s"])
