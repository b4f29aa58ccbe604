"""Figure 4 as a page whose clouds can be turned: one file, no network."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><style>
body { font: 16px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 75rem }
.row { display: flex; flex-wrap: wrap; align-items: end }
figure { margin: .2rem } figcaption { color: #555; font-size: .8rem; text-align: center }
canvas { touch-action: none; cursor: grab; background: #fafafa; border: 1px solid #ddd }
</style></head><body>
<h1>{{ title }}</h1>
<p>Distance of each point from the red one in the space of features: blue near, yellow far.
Drag a cloud to turn all of them. Shape: <select id="shape"></select></p>
<div id="rows"></div>
<script>
const DATA = {{ data|tojson }};
const SIZE = 170;
const STOPS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
let shape = 0, yaw = 0.6, pitch = 0.35, drag = null;
const panels = [];
const color = (d) => {  // 0 to 100
  const at = Math.min(d / 25, 3.999), i = Math.floor(at), f = at - i;
  const mix = STOPS[i].map((c, j) => Math.round(c + f * (STOPS[i + 1][j] - c)));
  return `rgb(${mix})`;
};
function draw({ canvas, distances }) {
  const context = canvas.getContext("2d"), cloud = DATA.shapes[shape], distance = distances[shape];
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  const points = cloud.pos.map(([x, y, z], i) => {
    const depth = -sy * x + cy * y;
    return [cy * x + sy * y, cp * z + sp * depth, cp * depth - sp * z, i];
  }).sort((a, b) => b[2] - a[2]);  // far points first
  context.clearRect(0, 0, SIZE, SIZE);
  const dot = (x, y, r) => {
    context.beginPath();
    context.arc(SIZE / 2 + x * 0.00045 * SIZE, SIZE / 2 - y * 0.00045 * SIZE, r, 0, 7);
    context.fill();
  };
  for (const [x, y, , i] of points) { context.fillStyle = color(distance[i]); dot(x, y, 2); }
  const [x, y] = points.find((point) => point[3] === cloud.anchor);
  context.fillStyle = "red"; dot(x, y, 4);
}
const redraw = () => panels.forEach(draw);
for (const { label, cells } of DATA.rows) {
  const title = document.createElement("h3"), row = document.createElement("div");
  title.textContent = label; row.className = "row";
  for (const { caption, distances } of cells) {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const text = document.createElement("figcaption");
    canvas.width = canvas.height = SIZE; text.textContent = caption;
    canvas.onpointerdown = (e) => {
      drag = [e.clientX, e.clientY];
      canvas.setPointerCapture(e.pointerId);
    };
    canvas.onpointerup = canvas.onpointercancel = () => { drag = null; };
    canvas.onpointermove = (e) => {
      if (!drag) return;
      yaw += (e.clientX - drag[0]) / 80;
      pitch = Math.max(-1.57, Math.min(1.57, pitch + (e.clientY - drag[1]) / 80));
      drag = [e.clientX, e.clientY]; redraw();
    };
    figure.append(canvas, text); row.append(figure); panels.push({ canvas, distances });
  }
  document.getElementById("rows").append(title, row);
}
const select = document.getElementById("shape");
DATA.shapes.forEach(({ label }, i) => select.append(new Option(label, i)));
select.onchange = () => { shape = Number(select.value); redraw(); };
redraw();
</script></body></html>
"""


def page(results: dict[str, Any]) -> str:
    """Return the page of stored results."""
    rows = []
    for method, name in (("student", "student alone"), ("LSP", "student + LSP")):
        cells = [
            {"caption": f"epoch {epoch}", "distances": distances}
            for epoch, distances in results["features"][method].items()
        ]
        teacher = {"caption": "teacher", "distances": results["features"]["teacher"][""]}
        rows.append({"label": name, "cells": [*cells, teacher]})
    # What a page embeds is escaped, labels in HTML as well as in the script's data.
    environment = Environment(autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    return environment.from_string(_PAGE).render(
        title=results["title"], data={"shapes": results["scene"], "rows": rows}
    )
