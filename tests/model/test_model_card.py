"""The embedded checkpoint's card and the document say the same, and what they say is so."""

from __future__ import annotations

import re
from pathlib import Path

from molkv_model import load
from molkv_model.embedded import tiny_checkpoint
from molkv_model.model_card import CardText, ModelCard, ScoredModel
from tests.model.small_models import small

ROOT = Path(__file__).parents[2]
LOSS = r"\d\.\d{4}"


def rows_of_losses(text: str) -> list[list[str]]:
    """Of each table row that holds losses: the parameters and the losses."""
    rows = [line for line in text.splitlines() if len(re.findall(LOSS, line)) > 1]
    return [re.findall(rf"\d,\d{{3}},\d{{3}}|{LOSS}", row) for row in rows]


def test_the_document_quotes_the_card_of_the_embedded_model() -> None:
    card = (tiny_checkpoint() / "README.md").read_text()
    document = (ROOT / "docs" / "model.md").read_text().split("## The embedded tiny model\n")[1]
    assert len(rows_of_losses(card)) == 3
    assert rows_of_losses(document)[:3] == rows_of_losses(card)


def test_the_card_of_the_embedded_model_is_about_that_model() -> None:
    card = (tiny_checkpoint() / "README.md").read_text()
    count = sum(parameter.numel() for parameter in load(tiny_checkpoint()).parameters())
    assert f"| parameters | {count:,} before" in card
    (makefile_line,) = re.findall(r"molkv train (--preset .*?)\\\n\s*(.*?) --text", makefile())
    assert f"molkv train {makefile_line[0]}{makefile_line[1]} --text corpus/*.txt" in card
    (saved,) = re.findall(rf"validation loss of the saved weights \| ({LOSS})", card)
    assert rows_of_losses(card)[0][-1] == saved


def makefile() -> str:
    return (ROOT / "Makefile").read_text()


def test_a_long_history_is_shown_at_a_few_steps_and_gaps_stay_empty() -> None:
    steps = range(10, 101, 10)
    model = ScoredModel(small(), 1000, 1.5, {step: 3 - step / 100 for step in steps})
    other = ScoredModel(small("dense"), 900, 1.75, {10: 4.0})
    text = CardText(sha256=["00"], size=10, training=500, validation=50)
    card = ModelCard(model, text, 100_000, 100, "float16", {"seed": 3}, compared=[other])
    rows = rows_of_losses(card.to_markdown())
    assert rows == [["2.9000", "2.7000", "2.5000", "2.3000", "1.5000"], ["4.0000", "1.7500"]]
    assert "each training position about 200.0 times" in card.to_markdown()
    assert "| seed | 3 |" in card.to_markdown()
