"""axe-core, which checks the accessibility of a page in a browser."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
import tarfile

import pytest

_RUN = """
axe.run().then(found => {
  const pre = document.createElement("pre");
  pre.id = "axe";
  pre.textContent = JSON.stringify(found.violations.map(one => [one.id, one.nodes.slice(0, 3).map(node => node.html)]));
  document.body.append(pre);
})
"""


@pytest.fixture(scope="module")
def axe(tmp_path_factory):
    """Return a function that adds axe-core to a page, which then contains its violations (`violations_in`)."""
    folder = tmp_path_factory.mktemp("axe")
    if shutil.which("npm") is None:
        pytest.skip("there is no npm")
    done = subprocess.run(["npm", "pack", "axe-core@4"], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("axe-core cannot be installed")
    with tarfile.open(next(folder.glob("*.tgz"))) as package:
        source = package.extractfile("package/axe.min.js").read().decode()
    return lambda page: page.replace("</body>", f"<script>{source}</script><script>{_RUN}</script></body>")


def violations_in(dom: str) -> list[object]:
    """Return the violations that axe-core wrote into the page."""
    found: list[object] = json.loads(html.unescape(re.search('<pre id="axe">(.*?)</pre>', dom, re.DOTALL)[1]))
    return found
