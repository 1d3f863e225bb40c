"""No passage of the study's validation text was trained on, not even nearly."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.paper.corpus import (
    MOST_SHARED,
    CorpusFacts,
    Passage,
    build_corpus,
    cut_passages,
    shared_shares,
    split,
)
from benchmarks.paper.sources import SOURCES, Document, Source, SourceError, fetch
from molkv_model.corpus import Corpus

WORDS = [f"word{number}" for number in range(500)]


def prose(seed: int, words: int = 700) -> str:
    """Words in lines of ten, which no other seed has in this order."""
    chosen = random.Random(seed).choices(WORDS, k=words)  # noqa: S311 - text, not a secret
    return "".join(" ".join(chosen[n : n + 10]) + "\n" for n in range(0, words, 10))


def passages(count: int) -> list[Passage]:
    return list(cut_passages([Document("a", "".join(prose(seed) for seed in range(count)))]))


def test_passages_put_together_are_the_document() -> None:
    text = "".join(prose(seed) for seed in range(5)) + "the end"
    cut = list(cut_passages([Document("a", text)]))
    assert "".join(passage.text for passage in cut) == text
    assert all(4000 < len(passage.text) < 4200 for passage in cut[:-1])
    assert all(later.continues(sooner) for sooner, later in itertools.pairwise(cut))
    assert not cut[0].continues(cut[0])
    assert not Passage("b", 1, "").continues(Passage("a", 0, ""))


def test_about_one_in_forty_is_held_out_and_a_copy_always_with_it() -> None:
    found = passages(160)
    training, held_out, dropped = split(found)
    assert dropped == 0
    assert 0 < len(held_out) / len(found) < 0.06
    assert {passage.text for passage in training} | {p.text for p in held_out} == {
        passage.text for passage in found
    }
    for passage in held_out:
        shouted = dataclasses.replace(passage, text=passage.text.upper() + "!", document="b")
        assert shouted.is_candidate


def test_a_candidate_that_shares_much_with_the_training_text_is_dropped() -> None:
    training, held_out, _ = split(passages(80))
    copied = held_out[0]
    half = len(copied.text) // 2
    near = dataclasses.replace(training[0], document="near", text=copied.text[:half] + prose(999))
    assert not near.is_candidate
    _, left, dropped = split([*training, near, *held_out])
    assert dropped == 1
    assert left == held_out[1:]


def test_shares_are_of_runs_of_eight_words() -> None:
    eight = "one two three four five six seven eight"
    assert shared_shares([eight], [f"zero {eight.upper()}, nine"]) == [1.0]
    assert shared_shares([eight + " nine"], [eight]) == [0.5]
    assert shared_shares([eight], ["one two three four five six seven eigh"]) == [0.0]
    assert shared_shares(["too short"], [eight]) == [0.0]
    assert 0 < MOST_SHARED < 0.1


def _one_file(file: Path) -> Iterator[Document]:
    yield Document("all", file.read_text())


def local_source(folder: Path, content: str, sha256: str | None = None) -> Source:
    origin = folder / "origin.txt"
    origin.write_text(content)
    digest = sha256 or hashlib.sha256(content.encode()).hexdigest()
    return Source("local", ("cp", str(origin), "text.txt"), "text.txt", digest, "none", _one_file)


def test_a_corpus_is_built_once_with_its_facts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "".join(prose(seed) for seed in range(60))
    monkeypatch.setattr("benchmarks.paper.corpus.SOURCES", (local_source(tmp_path, content),))
    folder = tmp_path / "400"
    facts = build_corpus(folder, tmp_path / "downloads", 400)
    assert facts == CorpusFacts.read(folder)
    assert facts.bytes == {"local": len(content)}
    assert facts.digest == hashlib.sha256((folder / "tokens.safetensors").read_bytes()).hexdigest()
    corpus = Corpus.load(folder / "tokens.safetensors")
    assert len(corpus.training) == facts.training_tokens
    assert len(corpus.validation) == facts.validation_tokens
    assert corpus.largest_id() < 400
    assert facts.held_out > 0
    monkeypatch.setattr("benchmarks.paper.corpus.SOURCES", ())
    assert build_corpus(folder, tmp_path / "downloads", 400) == facts


def test_another_file_than_the_study_was_made_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"text\.txt: sha256 is .* expected 00"):
        fetch(local_source(tmp_path, "other", "00" * 32), tmp_path / "downloads")


def test_a_command_that_fails_or_is_missing_is_named(tmp_path: Path) -> None:
    command = (sys.executable, "-c", "raise SystemExit(3)")
    failing = dataclasses.replace(local_source(tmp_path, ""), command=command)
    with pytest.raises(SourceError, match=r"local: .* gave no text\.txt"):
        fetch(failing, tmp_path / "downloads")
    missing = dataclasses.replace(local_source(tmp_path, ""), command=("no-such-command",))
    with pytest.raises(SourceError, match="no-such-command is missing"):
        fetch(missing, tmp_path / "downloads")


def test_a_debian_package_that_cannot_be_unpacked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = [each for each in SOURCES if each.name == "gcide"]
    (tmp_path / source.file).write_bytes(b"no package")
    with pytest.raises(SourceError, match=r"gcide.*\.deb: dpkg-deb cannot unpack it: "):
        list(source.documents(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(SourceError, match=r"gcide.*\.deb: dpkg-deb.* is missing"):
        list(source.documents(tmp_path))


def test_every_source_is_one_exact_package() -> None:
    for source in SOURCES:
        assert any("=" in word or "@" in word[1:] for word in source.command), source.name
        assert len(source.sha256) == 64
        assert source.licence
