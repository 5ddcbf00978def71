"""What a stand-in has answered, and what that has cost."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(slots=True)
class Spending:
    """Counts since the start; `refused` and `failed` cost nothing."""

    requests: int = 0
    questions: int = 0
    usd: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    refused: int = 0
    failed: int = 0

    def book(self, questions: int, usd_per_1k: float, prompt_tokens: int, completion_tokens: int) -> None:
        """Count an answered request."""
        self.requests += 1
        self.questions += questions
        self.usd = self.questions * usd_per_1k / 1000
        self.prompt_tokens += prompt_tokens
        self.completion_tokens += completion_tokens

    def dump(self) -> dict[str, float]:
        """Return the counts by name."""
        return asdict(self)
