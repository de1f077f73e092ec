"""What a reader meets first: the look of the site, the first words of a page, and figures that follow from the code."""

from __future__ import annotations

import re

import pytest
import yaml

from btc_core.features.catalogue import FEATURES
from btc_core.names import QUANTILES
from tests.paths import ROOT

pytestmark = pytest.mark.unit
PAGES = sorted((*(ROOT / "docs" / "how-to").glob("*.md"), *(ROOT / "docs" / "concepts").glob("*.md")))


def test_the_site_has_the_icon_of_the_live_page_and_a_switch_of_colours() -> None:
    text = re.sub(r"!!python\S+", "", (ROOT / "mkdocs.yml").read_text())
    theme = yaml.safe_load(text)["theme"]
    logo = (ROOT / "docs" / theme["logo"]).read_bytes()
    assert logo == (ROOT / "serving" / "static" / "favicon.svg").read_bytes()
    assert [each.get("scheme") for each in theme["palette"]] == [None, "default", "slate"]
    assert all(each["toggle"]["name"] for each in theme["palette"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_it_is_for_before_its_first_command(page: object) -> None:
    first = page.read_text().split("\n\n")[1]  # type: ignore[attr-defined]
    assert not first.startswith(("```", "|", "#")), "begin with a sentence"


def test_the_number_of_features_in_the_measured_results_is_that_of_the_catalogue() -> None:
    (now,) = re.findall(r"when this was measured, (\d+) now", (ROOT / "docs" / "benchmarks.md").read_text())
    assert int(now) == len(FEATURES)


def test_the_page_about_the_api_names_every_interval() -> None:
    row = next(
        line
        for line in (ROOT / "docs/how-to/use-the-api.md").read_text().splitlines()
        if "horizons[4].intervals" in line
    )
    widths = {round(100 * (1 - 2 * quantile)) for quantile in QUANTILES if quantile < 0.5}
    assert widths <= {int(number) for number in re.findall(r"\b(99|90|80|50)\b", row)}
