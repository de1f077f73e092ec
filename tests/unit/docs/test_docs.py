"""The documentation site builds as `make docs` builds it, covers the code, and names only commands, tables and alerts that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from typing import TYPE_CHECKING, cast

import pytest
import typer.main
import yaml
from prometheus_client.metrics import MetricWrapperBase

from btc_cli.app import app
from btc_cli.lazy import LazyGroup
from btc_core import metrics
from btc_core.features.catalogue import FEATURES
from btc_core.settings import Settings
from btc_core.tables.catalogue import TABLES
from docs.generate import api
from docs.generate.__main__ import FOLDER, PAGES
from docs.generate.features import formulas
from docs.generate.pictures import CHROMIUM, NO_CHROMIUM
from serving.openapi import document, path_of
from tests.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import Browser
    from playwright.sync_api import Page as BrowserPage

PAGES_OF_SITE = sorted(path for path in (ROOT / "docs").rglob("*.md") if path.parent != FOLDER)
HAND_WRITTEN = [ROOT / "README.md", ROOT / "deploy/kubernetes/README.md", *PAGES_OF_SITE]
EVERY_PAGE = pytest.mark.parametrize("page", HAND_WRITTEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
OPTIONS_OF_BTC = {"--help", "--install-completion"}
FIGURE = r"\d[\d,.]*\d|\d"
COMMAND_LINE = cast(LazyGroup, typer.main.get_command(app))
COMMAND_LINE.load_all()
COMMANDS = COMMAND_LINE.commands


class Page(HTMLParser):
    """The text of a page, the anchors of its headings, and the files that a browser would load for it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.text = ""
        self.anchors: set[str] = set()
        self.loads: list[str] = []
        self.feed(file.read_text())

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.anchors.add(found.get("id") or "")
        if tag in {"script", "img", "iframe"} or (
            tag == "link" and found.get("rel") in {"stylesheet", "preconnect", "preload"}
        ):
            self.loads.append(found.get("src") or found.get("href") or "")

    def has(self, name: str) -> bool:
        """Return whether a table cell contains the name and nothing else."""
        return re.search(rf"^{re.escape(name)}$", self.text, re.MULTILINE) is not None


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """The pages that `docs.generate` writes."""
    return {f"reference/{name}.md": page() for name, page in PAGES.items()}


@pytest.fixture(scope="module")
def site(generated: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in strict mode from a copy of its sources."""
    copy = tmp_path_factory.mktemp("docs")
    built = build(copy, generated)
    assert built.returncode == 0, built.stdout + built.stderr
    return copy / "build" / "site"


def build(copy: Path, pages: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build the site in `copy`; `pages` replace those of the same name."""
    shutil.copy(ROOT / "mkdocs.yml", copy)
    shutil.copytree(ROOT / "docs", copy / "docs", ignore=shutil.ignore_patterns("reference", "__pycache__"))
    for name, text in pages.items():
        (copy / "docs" / name).parent.mkdir(exist_ok=True)
        (copy / "docs" / name).write_text(text)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]
    return subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)


def test_a_link_that_leads_nowhere_ends_the_build(generated: dict[str, str], tmp_path: Path) -> None:
    wrong = {
        "start.md": "# Start\n\n[a page](nowhere.md), [a heading](runbook.md#nothing)\n",
        "forgotten.md": "# In no menu\n",
    }
    built = build(tmp_path, generated | wrong)
    assert built.returncode != 0
    for name in ("nowhere.md", "#nothing", "forgotten.md"):
        assert name in built.stdout + built.stderr, name


def reference(site: Path, name: str) -> Page:
    return Page(site / "reference" / f"{name}.html")


def test_every_setting_is_in_the_reference_with_its_words(site: Path) -> None:
    page = reference(site, "settings")
    for section, field in Settings.model_fields.items():
        if not hasattr(field.annotation, "model_fields"):
            assert page.has(f"BTC_{section}".upper()), section
            continue
        for name in field.annotation.model_fields:  # type: ignore[union-attr]
            assert page.has(f"BTC_{section}_{name}".upper()), name
    assert "It must exceed the warm-up of the features, which is 24 h 30 min." in page.text, (
        "docstrings of attributes are there"
    )


def test_every_table_and_column_is_in_the_reference(site: Path) -> None:
    page = reference(site, "tables")
    assert set(TABLES) <= page.anchors
    sections = re.split(rf"^({'|'.join(TABLES)})¶?$", page.text, flags=re.MULTILINE)
    described = dict(zip(sections[1::2], sections[2::2], strict=True))
    for table in TABLES.values():
        for column in table.columns:
            assert re.search(rf"^{column.name}$", described[table.name], re.MULTILINE), (table.name, column.name)
            assert " ".join(column.meaning.split()) in described[table.name], (table.name, column.name)


def test_every_feature_is_in_the_reference_with_its_formula(site: Path) -> None:
    page = reference(site, "features")
    for feature in FEATURES:
        assert page.has(feature.name), feature.name
        assert formulas()[feature.name] in page.text, feature.name
    assert "(s.ask - s.bid) / s.mid * 10000.0" in page.text


def test_every_metric_is_in_the_reference(site: Path) -> None:
    page = reference(site, "metrics")
    for metric in (value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)):
        (family,) = metric.describe()
        assert page.has(family.name + ("_total" if family.type == "counter" else "")), family.name


def test_every_path_and_schema_of_the_api_is_in_the_reference(site: Path) -> None:
    page = reference(site, "api")
    app = api.application()
    for rule in app.url_map.iter_rules():
        assert rule.rule in page.text or path_of(rule) in page.text, rule.rule
    assert {name.lower() for name in document(app)["components"]["schemas"]} <= page.anchors


def test_every_command_and_option_is_in_the_reference(site: Path) -> None:
    page = reference(site, "commands")
    for name, command in COMMANDS.items():
        assert f"btc {name}" in page.text, name
        for option in (opt for param in command.params if not getattr(param, "hidden", False) for opt in param.opts):
            assert not option.startswith("--") or option in page.text, (name, option)


def test_measured_results_contain_every_figure_of_the_readme(site: Path) -> None:
    source = (ROOT / "docs/benchmarks.md").read_text()
    page = Page(site / "benchmarks.html")
    rows = re.findall(r"^\| ([^|]+) \|", source, re.MULTILINE)
    assert len(rows) > 20
    for row in rows:
        assert re.sub(r"[`*]", "", row) in page.text, row
    measured = (ROOT / "README.md").read_text().partition("## Measured")[2].partition("## Security")[0]
    results = re.findall(r"^\| [^|]+ \| ([^|]*\d[^|]*) \|", measured, re.MULTILINE)
    assert 5 < len(results) <= 8
    known = set(re.findall(FIGURE, source))
    for result in results:
        assert set(re.findall(FIGURE, result)) <= known, result


@pytest.mark.parametrize("page", HAND_WRITTEN[:2], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_of_pages_outside_the_site_lead_to_files_and_headings(page: Path, site: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        if target.startswith("http"):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve()
        assert path.exists(), target
        if anchor:
            built = site / path.relative_to(ROOT / "docs").with_suffix(".html")
            assert anchor in Page(built).anchors, target


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    for file in site.rglob("*.html"):
        assert not [url for url in Page(file).loads if re.match(r"(https?:)?//", url)], file
    for file in site.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(https?:)?//|@import", file.read_text()), file


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM)
def test_the_search_finds_a_page_from_the_disk(site: Path, browser: Browser) -> None:
    page = browser.new_page()
    assert any("concepts/the-numbers.html" in hit for hit in hits(page, site, "microprice", 1))
    assert len({hit.partition("?")[0] for hit in hits(page, site, "volatility", 5)}) > 1
    search(page, site, "xylophone")
    page.get_by_text("No matching documents").wait_for()
    page.close()


def search(page: BrowserPage, site: Path, word: str) -> None:
    """Type a word into the search of the start page."""
    page.goto((site / "index.html").as_uri())
    page.get_by_label("Search").first.fill(word)


def hits(page: BrowserPage, site: Path, word: str, at_least: int) -> list[str]:
    """The addresses that the search finds for a word, once there are so many."""
    search(page, site, word)
    links = page.locator(".md-search-result__link")
    links.nth(at_least - 1).wait_for(state="attached")
    return [link.get_attribute("href") or "" for link in links.all()]


def quoted(text: str) -> Iterator[str]:
    """Yield the `btc` commands in the prose of a page. Those of code blocks are the matter of `test_commands.py`."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from (line.partition(" |")[0] for line in re.findall(r"`(btc [^`]+)`", prose))


@EVERY_PAGE
def test_a_quoted_command_exists_with_its_options(page: Path) -> None:
    for line in quoted(page.read_text()):
        _btc, name, *words = line.split()
        if name in OPTIONS_OF_BTC:
            continue
        assert name in COMMANDS, line
        below = getattr(COMMANDS[name], "commands", {})
        command = below[words[0]] if words and words[0] in below else COMMANDS[name]
        known = {opt for param in command.params for opt in param.opts} | {"--help"}
        if name != "run":  # the words after it belong to another program
            assert {word.partition("=")[0] for word in words if word.startswith("-")} <= known, line


@EVERY_PAGE
def test_a_quoted_target_of_make_and_a_quoted_address_of_the_api_exist(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make ([a-z]+)|`make ([a-z]+)", text, re.MULTILINE)) <= {
        pair for target in targets for pair in ((target, ""), ("", target))
    }
    paths = api.application().url_map.bind("127.0.0.1")
    for path in re.findall(r"127\.0\.0\.1:5050(/[\w/]*)", text):
        assert paths.allowed_methods(path), path


def test_each_alert_has_its_section_in_the_runbook_and_names_it(site: Path) -> None:
    groups = yaml.safe_load((ROOT / "deploy/grafana/provisioning/alerting/alerts.yml").read_text())["groups"]
    alerts = {rule["title"]: rule["annotations"]["runbook"] for group in groups for rule in group["rules"]}
    text = (ROOT / "docs/runbook.md").read_text()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert set(sections) == set(alerts)
    for name, section in sections.items():
        file, _, anchor = alerts[name].partition("#")
        assert file == "docs/runbook.md"
        assert anchor in Page(site / "runbook.html").anchors
        words = re.findall(r"^\*\*(\w+)\.\*\*", section, re.MULTILINE)
        assert words == ["Meaning", "Check", "Action"], name


def test_tables_and_columns_in_quoted_sql_exist() -> None:
    for page in HAND_WRITTEN:
        for statement in re.findall(r"^```sql\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            tables = re.findall(r"(?:FROM|JOIN) \(?(\w+)", statement)
            assert tables, statement
            assert set(tables) <= set(TABLES), statement


def test_the_contents_of_the_decisions_list_every_entry_in_its_area() -> None:
    contents, entries = (ROOT / "docs/decisions.md").read_text().split("\n## Code\n", 1)
    listed = re.findall(r"^\*\*\[(.+?)\]|^- \[((?:.|\n  )+?)\]\(#", contents, re.MULTILINE)
    headings = re.findall(r"^## (.+)|^### (.+)", f"## Code\n{entries}", re.MULTILINE)
    assert sorted(" ".join("".join(each).split()) for each in listed) == sorted("".join(each) for each in headings)
