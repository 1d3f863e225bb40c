"""What a session did and how fast: the figures that `molkv run` prints."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["SessionStats"]


@dataclass(frozen=True)
class SessionStats:
    """Counts and times since the session was made or reset.

    Attributes:
        prefill_tokens: tokens that prefill ran.
        prefill_seconds: time it took, lookup included.
        decode_tokens: tokens that single steps ran.
        decode_seconds: time they took, lookup included; sampling and text are not.
        time_to_first_token_ms: from the start of the last `generate` to its first token.
        rows_read: rows read from the blob; a token that repeats within a chunk is read once.
        bytes_read: rows_read times the row stride.
        lookup_seconds: time inside reads and the window, of the times above.
    """

    prefill_tokens: int = 0
    prefill_seconds: float = 0.0
    decode_tokens: int = 0
    decode_seconds: float = 0.0
    time_to_first_token_ms: float = 0.0
    rows_read: int = 0
    bytes_read: int = 0
    lookup_seconds: float = 0.0

    @property
    def prefill_tokens_per_s(self) -> float:
        """Prefill speed; 0 before any."""
        return self.prefill_tokens / self.prefill_seconds if self.prefill_seconds else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        """Decode speed; 0 before any."""
        return self.decode_tokens / self.decode_seconds if self.decode_seconds else 0.0

    @property
    def lookup_us_per_token(self) -> float:
        """Mean time of lookup for a token, prefill and decode together."""
        tokens = self.prefill_tokens + self.decode_tokens
        return 1e6 * self.lookup_seconds / tokens if tokens else 0.0

    def to_json(self) -> dict[str, float]:
        """The figures of ``molkv run --json``."""
        return {
            "prefill_tokens": self.prefill_tokens,
            "prefill_tokens_per_s": self.prefill_tokens_per_s,
            "decode_tokens": self.decode_tokens,
            "decode_tokens_per_s": self.decode_tokens_per_s,
            "time_to_first_token_ms": self.time_to_first_token_ms,
            "rows_read": self.rows_read,
            "bytes_read": self.bytes_read,
            "lookup_us_per_token": self.lookup_us_per_token,
        }
