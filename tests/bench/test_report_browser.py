"""The report in a real browser: Chromium, driven over its debugging pipe, without a network and without a driver."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe"),
    *("--disable-dev-shm-usage", "--disable-extensions", "--mute-audio", "--host-resolver-rules=MAP * ~NOTFOUND"),
)
TIMEOUT_S = 60
# Where screenshots stay for somebody who wants to look at them.
KEEP = os.environ.get("SEARCHKIT_SCREENSHOTS")

LIMIT = {
    **{"title": "this machine", "precision": "fp32", "rates": "measured here", "gmacs_per_s": 60.0},
    **{"gbytes_per_s": 12.0, "limit_ms": 60.0, "bound_by": "compute"},
    "layers": [
        {"macs": 3_000_000_000, "weight_bytes": 1_000_000, "read_bytes": 40_000_000, "written_bytes": 30_000_000}
    ],
}
ROOFLINE = {
    **{"schema": 1, "kind": "roofline", "resolution": "512x1024"},
    "here": {
        "backend": "onnxruntime",
        "results": [
            {"network": name, "limit": LIMIT, "measured_p50_ms": ms}
            for name, ms in (("ssr", 84.6), ("fasterseg", 96.0), ("erfnet", 151.8))
        ],
    },
}


class Chromium:
    """A browser with one page. Messages are JSON with a NUL behind each, as the DevTools protocol says."""

    def __init__(self, program: str, profile: Path) -> None:
        from_us, self._writing = os.pipe()
        self._reading, to_us = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        # The browser reads from descriptor 3 and writes to 4.
        shell = ["bash", "-c", f'exec "$@" 3<&{from_us} 4>&{to_us}', "bash", *command]
        self._process = subprocess.Popen(
            shell,
            pass_fds=(from_us, to_us),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._env(profile),
        )
        os.close(from_us)
        os.close(to_us)
        self._rest, self._number, self.events = b"", 0, []
        target = self._call("Target.createTarget", {"url": "about:blank"}, None)["targetId"]
        self._session = self._call("Target.attachToTarget", {"targetId": target, "flatten": True}, None)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    @staticmethod
    def _env(profile):
        home = profile / "home"
        home.mkdir(parents=True)
        return os.environ | {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}

    def call(self, method, **parameters):
        return self._call(method, parameters, self._session)

    def _call(self, method, parameters, session):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._writing, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _next(self):
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._reading], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            data = os.read(self._reading, 1 << 20)
            assert data, "the browser has ended"
            self._rest += data
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def open(self, path, *, width=1280, dark=False, scale=1):
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=scale, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def ask(self, expression):
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def complaints(self):
        """What the console says, and every request that left the file."""
        found = []
        for event in self.events:
            method, parameters = event.get("method"), event.get("params", {})
            if method in (
                "Runtime.exceptionThrown",
                "Runtime.consoleAPICalled",
                "Log.entryAdded",
                "Network.loadingFailed",
            ):
                found.append(parameters)
            if method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(
                ("file:", "data:")
            ):
                found.append(parameters["request"]["url"])
        return found

    def close(self):
        os.close(self._writing)
        os.close(self._reading)
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        # Where everything is checked a missing browser is a failure.
        assert not os.environ.get("CI"), "chromium is not installed"
        pytest.skip("chromium is not installed: `apt-get install chromium` to run these")
    found = Chromium(program, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    from bench.cli import main

    path = tmp_path_factory.mktemp("report") / "report.html"
    roofline = path.with_name("roofline.json")
    roofline.write_text(json.dumps(ROOFLINE))
    files = [
        str(RESULTS / "xeon-2cores-backends-512x1024.json"),
        str(RESULTS / "epyc-2cores-onnxruntime-512x1024.json"),
    ]
    assert main(["report", *files, str(roofline), "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_page_is_whole(browser, report, width, dark):
    browser.open(report, width=width, dark=dark)
    if KEEP:
        browser.screenshot(Path(KEEP) / f"report-{width}-{'dark' if dark else 'light'}.png")
    assert browser.complaints() == []
    images = browser.ask("[...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(images) == 4
    assert all(images)
    assert browser.ask("document.documentElement.scrollWidth") <= width
    ground = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 23, 28)" if dark else "rgb(255, 255, 255)")


@pytest.mark.parametrize("width", [320, 1280])
def test_one_plot_of_each_pair_is_shown(browser, report, width):
    browser.open(report, width=width)
    shown = browser.ask(
        "[...document.querySelectorAll('.wide, .narrow')].filter(e => e.offsetParent).map(e => e.className)"
    )
    assert len(shown) >= 3
    assert set(shown) == {"narrow" if width == 320 else "wide"}


@pytest.mark.parametrize("width", [320, 1280])
def test_no_text_of_a_plot_is_cut_or_covered(browser, report, width):
    """Every word of a drawing lies inside it, and no two of them overlap by more than their rim."""
    browser.open(report, width=width)
    found = browser.ask(
        """[...document.querySelectorAll('svg')].filter(s => s.getBoundingClientRect().width).flatMap(s => {
          const whole = s.getBoundingClientRect(), texts = [...s.querySelectorAll('text')];
          const boxes = texts.map(t => t.getBoundingClientRect());
          const out = texts.filter((t, i) => boxes[i].left < whole.left - 1 || boxes[i].right > whole.right + 1 ||
            boxes[i].top < whole.top - 1 || boxes[i].bottom > whole.bottom + 1).map(t => 'cut: ' + t.textContent);
          for (let i = 0; i < boxes.length; i++) for (let j = 0; j < i; j++) {
            const a = boxes[i], b = boxes[j];
            if (Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1 &&
                Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 4)
              out.push('covered: ' + texts[i].textContent + ' / ' + texts[j].textContent);
          }
          return out;
        })"""
    )
    assert found == []


def test_it_prints(browser, report):
    browser.open(report, dark=True)
    pdf = base64.b64decode(browser.call("Page.printToPDF", preferCSSPageSize=False, printBackground=True)["data"])
    if KEEP:
        (Path(KEEP) / "report.pdf").write_bytes(pdf)
    assert pdf.startswith(b"%PDF-")
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") + pdf.count(b"/Type/Page") > 1
    # A4 less its margins, at 96 px an inch: what is wider would be cut, as paper does not scroll.
    browser.open(report, width=700, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print", features=[])
    assert browser.ask("document.documentElement.scrollWidth") <= 700
    if KEEP:
        browser.screenshot(Path(KEEP) / "print.png")
    assert browser.ask("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_keyboard_reaches_the_report_first(browser, report):
    browser.open(report)
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.ask("document.activeElement.getAttribute('href')") == "#report"


def test_a_hostile_name_stays_text(browser, tmp_path):
    from bench.cli import main

    tree = json.loads((RESULTS / "epyc-2cores-onnxruntime-512x1024.json").read_text())
    for entry in tree["measurements"]:
        entry["network"]["name"] = "<img src=x onerror=document.title='owned'>" + entry["network"]["name"]
    file, page = tmp_path / "hostile.json", tmp_path / "report.html"
    file.write_text(json.dumps(tree))
    assert (
        main(["report", str(file), "-o", str(page), "--title", "</title><script>document.title='owned'</script>"]) == 0
    )
    browser.open(page)
    assert browser.complaints() == []
    assert browser.ask("document.title") == "</title><script>document.title='owned'</script>"
    assert browser.ask("document.images.length + document.scripts.length") == 0
    assert browser.ask("document.documentElement.scrollWidth") <= 1280
