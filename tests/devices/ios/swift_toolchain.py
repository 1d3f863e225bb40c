"""Swift 6 from Debian trixie in a chroot, which stays in build/ for the next run.

Run `python tests/devices/ios/swift_toolchain.py COMMAND...` to try something in it: the repository
is at /molkv there, `swift build --package-path /molkv/ios_demo --scratch-path /build` builds.

Commands run in a mount namespace of their own, so that what they see beside the chroot's own files
is unmounted when they end, however they end.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[3]
SUITE: Final = "trixie"
PACKAGES: Final = (
    "swiftlang",
    "libc6-dev",
    "libstdc++-14-dev",
    # What native/runner is compiled with, and CryptoKit's stand-in.
    "nlohmann-json3-dev",
    "libssl-dev",
    # What every system has: folders, a shell, the usual commands.
    "base-files",
    "base-passwd",
    "coreutils",
    "dash",
)
# Where commands see the repository, read-only, and the folder of builds.
REPOSITORY: Final = Path("/molkv")
BUILD: Final = Path("/build")
_DEVICES: Final = ("null", "zero", "random", "urandom")


class SwiftToolchainError(Exception):
    """The chroot cannot be made, or a command in it cannot be run."""


@dataclass(frozen=True)
class SwiftToolchain:
    """A chroot with Swift in it.

    Attributes:
        chroot: its folder.
        build: a folder beside it, for what Swift builds.
        shared: other folders that commands see, read-only, under the same path.
    """

    chroot: Path
    build: Path
    shared: tuple[Path, ...] = field(default=())

    def run(
        self, *command: str | Path, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in the chroot; its exit status is the caller's to judge."""
        binds = [(ROOT, REPOSITORY, True), (self.build, BUILD, False)]
        binds += [(path, path, True) for path in self.shared]
        script = ["set -e", f"mount -t proc proc {shlex.quote(f'{self.chroot}/proc')}"]
        script += [_bind(Path("/dev") / name, self.chroot / "dev" / name) for name in _DEVICES]
        for source, target, read_only in binds:
            inside = self.chroot / target.relative_to("/")
            script += [f"mkdir -p {shlex.quote(str(inside))}", _bind(source, inside)]
            if read_only:
                script.append(f"mount -o remount,bind,ro {shlex.quote(str(inside))}")
        settings = {
            "PATH": "/usr/libexec/swift/bin:/usr/bin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "TMPDIR": "/tmp",  # noqa: S108 - the chroot's own
            **(environment or {}),
        }
        words = ["chroot", str(self.chroot), "env", "-i"]
        words += [f"{name}={value}" for name, value in settings.items()]
        script.append("exec " + shlex.join([*words, *map(str, command)]))
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
                *("--kill-child", "sh", "-c", "\n".join(script)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
            check=False,
        )

    def done(self, *command: str | Path, environment: Mapping[str, str] | None = None) -> str:
        """What a command that succeeds prints."""
        result = self.run(*command, environment=environment)
        assert result.returncode == 0, result.stdout[-8000:]
        return result.stdout


def _bind(source: Path, target: Path) -> str:
    quoted = shlex.quote(str(target))
    touch = f"[ -e {quoted} ] || touch {quoted}; " if not source.is_dir() else ""
    return f"{touch}mount --bind {shlex.quote(str(source))} {quoted}"


def make_swift_toolchain(folder: Path = ROOT / "build" / "swift") -> SwiftToolchain:
    """The chroot of a folder; made on first use, which takes a minute and 3 GB.

    Raises:
        SwiftToolchainError: this system cannot make it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # What makes a chroot another one: then it gets another name.
    chroot = folder / "-".join((SUITE, platform.machine(), f"{hash_of(PACKAGES):08x}"))
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not chroot.exists():
            for old in folder.glob(f"{SUITE}-*"):
                shutil.rmtree(old)
            _make_chroot(chroot)
    build = folder / "build"
    build.mkdir(exist_ok=True)
    return SwiftToolchain(chroot, build)


def hash_of(words: tuple[str, ...]) -> int:
    """A number that changes with the words, and not from run to run."""
    number = 5381
    for byte in "\n".join(words).encode():
        number = (33 * number + byte) & 0xFFFFFFFF
    return number


def debian_mirror() -> str:
    """Where this machine's own apt has Debian from.

    Raises:
        SwiftToolchainError: it has it from nowhere.
    """
    choice = ("--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages", "Origin: Debian")
    listing = subprocess.run(
        ["apt-get", "indextargets", *choice],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    for line in listing.splitlines():
        codename, address = line.split()
        if "-" not in codename:  # neither security nor updates, which lie elsewhere
            return address
    raise SwiftToolchainError("apt knows no mirror of Debian: run `apt-get update` first")


def _make_chroot(chroot: Path) -> None:
    if os.geteuid() != 0:
        raise SwiftToolchainError("a chroot is made and entered as root only: run as root")
    partial = chroot.with_name("partial")
    if partial.exists():
        shutil.rmtree(partial)
    # The packages are unpacked and no script of theirs is run: that is all a compiler needs.
    command = ["mmdebstrap", "--mode=root", "--variant=extract"]
    command += ['--aptopt=Acquire::Languages "none"', f"--include={','.join(PACKAGES)}"]
    result = subprocess.run(
        ["nice", "-n", "5", *command, SUITE, partial, debian_mirror()],
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        raise SwiftToolchainError(f"mmdebstrap failed:\n{result.stderr[-3000:]}")
    partial.rename(chroot)


def main() -> None:
    """Runs a command in the chroot."""
    result = make_swift_toolchain().run(*sys.argv[1:])
    sys.stdout.write(result.stdout)
    sys.exit(result.returncode)


if __name__ == "__main__":
    main()
