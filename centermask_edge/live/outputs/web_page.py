"""The page with all cameras: one file, nothing from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache

STYLE = """
:root { color-scheme: dark }
body { margin: 0; background: #16181c; color: #e8e8e8; font: 15px/1.4 system-ui, sans-serif }
header { padding: 10px 16px }
main { display: grid; gap: 10px; padding: 0 16px 16px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)) }
figure { margin: 0; background: #22252b; border-radius: 6px; overflow: hidden }
img { display: block; width: 100%; height: auto; min-height: 120px }
figcaption { display: flex; gap: 12px; padding: 6px 10px; overflow-wrap: anywhere }
figcaption b { flex: 1 }
.late { outline: 2px solid #e6503c }
"""

# A browser opens six connections to a server at most, and a stream keeps one for itself.
SCRIPT = """
"use strict";
const query = location.search, shown = new Map(), most = 4;
const main = document.querySelector("main"), state = document.querySelector("header");
function streams() { return shown.size <= most; }
function show(view, path) {
  if (view.streams === streams()) return;
  view.streams = streams();
  view.img.onload = view.img.onerror = null;
  if (view.streams) {
    view.img.onerror = () => { view.streams = null; };
    view.img.src = "/" + path + ".mjpg" + query;
    return;
  }
  const join = query ? query + "&" : "?";
  const next = () => { view.img.src = "/" + path + ".jpg" + join + "t=" + Date.now(); };
  view.img.onload = () => setTimeout(next, 200);
  view.img.onerror = () => setTimeout(next, 1000);
  next();
}
function add(camera) {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const img = document.createElement("img"), name = document.createElement("b");
  const numbers = document.createElement("span");
  name.textContent = img.alt = camera.camera;
  caption.append(name, numbers);
  figure.append(img, caption);
  main.append(figure);
  shown.set(camera.path, {figure, img, numbers, streams: null});
}
async function refresh() {
  try {
    const answer = await fetch("/health" + query, {cache: "no-store"});
    if (!answer.ok) throw new Error("HTTP " + answer.status);
    const health = await answer.json();
    for (const camera of health.cameras) if (!shown.has(camera.path)) add(camera);
    for (const camera of health.cameras) {
      const view = shown.get(camera.path), late = camera.seconds_since > 2;
      show(view, camera.path);
      view.figure.classList.toggle("late", late);
      const words = late ? "no picture for " + Math.round(camera.seconds_since) + " s"
        : camera.rate_hz.toFixed(1) + " Hz, " + Math.round(camera.age_ms) + " ms old";
      view.numbers.textContent = (camera.state ? camera.state + ": " : "") + words;
    }
    state.textContent = health.cameras.length ? health.cameras.length + " cameras"
      : "Waiting for the first picture.";
  } catch (error) {
    state.textContent = "No connection (" + error.message + ").";
    for (const view of shown.values()) view.streams = null;
  }
  setTimeout(refresh, 1000);
}
refresh();
"""

PAGE = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>centermask-edge</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>{STYLE}</style></head>
<body><header>Loading.</header><main></main><script>{SCRIPT}</script></body></html>
"""


@lru_cache(maxsize=1)
def policy() -> str:
    """The Content-Security-Policy under which only this page's own script and style run."""
    style, script = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (STYLE, SCRIPT)
    )
    return (
        f"default-src 'none'; img-src 'self' data:; connect-src 'self'; "
        f"style-src 'sha256-{style}'; script-src 'sha256-{script}'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    )
