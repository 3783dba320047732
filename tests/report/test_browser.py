"""A real browser shows the page: not blank, with its headings and numbers, in light, in dark and on paper."""

from __future__ import annotations

import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from trainrun_operator.report import write_report
from trainrun_trainer import reporting

from tests.report import rundirs
from tests.trainer import stage_folders

INSTALLER = Path(__file__).parents[1] / "browser.sh"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1280,2200",
)
DARK = "--blink-settings=preferredColorScheme=0"


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of headless Chromium, installed by tests/browser.sh where that is possible."""
    installed = subprocess.run([str(INSTALLER)], capture_output=True, text=True, timeout=280, check=False)
    found = shutil.which("chromium")
    if installed.returncode != 0 or found is None:
        pytest.skip(f"no Chromium: {installed.stderr.strip()[-300:]}")
    return found


def browse(chromium: str, page: Path, profile: Path, *arguments: str) -> str:
    command = [chromium, *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def rows_of(png: Path) -> list[bytes]:
    """The scan lines of a PNG, still filtered: those of a blank page are all alike."""
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        if data[at + 4 : at + 8] == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    stride = 1 + width * depth // 8 * {2: 3, 6: 4}[colour]
    raw = zlib.decompress(packed)
    assert len(raw) == stride * height
    return [raw[start : start + stride] for start in range(0, len(raw), stride)]


@pytest.mark.parametrize("extra", [(), (DARK,)], ids=["light", "dark"])
def test_screenshot_is_not_blank(chromium: str, tmp_path: Path, extra: tuple[str, ...]) -> None:
    """Text and drawings fill the page from top to bottom."""
    page = write_report(rundirs.survived(tmp_path / "run"))
    shot = tmp_path / "shot.png"
    browse(chromium, page, tmp_path / "profile", f"--screenshot={shot}", *extra)
    rows = rows_of(shot)
    assert len(set(rows)) > 500
    for third in range(3):
        part = rows[third * len(rows) // 3 : (third + 1) * len(rows) // 3]
        assert len(set(part)) > 100


def test_dom_has_headings_and_numbers(chromium: str, tmp_path: Path) -> None:
    """What the browser parsed, not what we wrote."""
    page = write_report(rundirs.survived(tmp_path / "run"))
    dom = browse(chromium, page, tmp_path / "profile", "--dump-dom")
    for words in (
        '<h1>law-cpt <span class="badge good">Succeeded</span></h1>',
        "<h2>Where the time went</h2>",
        "<h2>Recovery</h2>",
        "60.000",
        "71.2 %",
        "NodeLost",
        "kill-worker@step=25",
    ):
        assert words in dom
    assert dom.count("<svg") == 4
    assert dom.count("<polyline") == 3


@pytest.mark.parametrize("extra", [(), (DARK,)], ids=["light", "dark"])
def test_report_of_stages(chromium: str, tmp_path: Path, extra: tuple[str, ...]) -> None:
    """The report stage's page, parsed and painted from top to bottom."""
    reporting.write_report(tmp_path, stage_folders.chain(tmp_path), "Law for everyone", tmp_path)
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    dom = browse(chromium, page, tmp_path / "profile", "--dump-dom", f"--screenshot={shot}", *extra)
    assert "<h1>Law for everyone</h1>" in dom
    assert dom.count("<svg") == 5 and dom.count("<polyline") == 8
    rows = rows_of(shot)
    for third in range(3):
        assert len(set(rows[third * len(rows) // 3 : (third + 1) * len(rows) // 3])) > 100


def test_prints_on_two_pages(chromium: str, tmp_path: Path) -> None:
    """Paper: the story, the curves and the ledger on the first page, the evidence on the second."""
    page = write_report(rundirs.survived(tmp_path / "run"))
    paper = tmp_path / "paper.pdf"
    browse(chromium, page, tmp_path / "profile", f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    assert paper.read_bytes().count(b"/Type /Page\n") == 2
