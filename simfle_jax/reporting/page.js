// Hands every figure of the page to Plotly, and what the page's controls say to the curves. The charts are Plotly's.
"use strict";
const config = { displayModeBar: false, responsive: true, displaylogo: false };
const curves = [];
const drawn = [...document.querySelectorAll("script[data-kind]")].map((script) => {
  const figure = JSON.parse(script.textContent);
  const plot = script.parentElement.querySelector(".plot");
  if (script.dataset.kind === "curve") curves.push(plot);
  return Plotly.newPlot(plot, figure.data, figure.layout, config).then(() => {
    if (script.dataset.kind === "map") showThumbnails(plot);
  });
});

const controls = document.querySelector(".controls");
if (controls) {
  controls.addEventListener("change", () => {
    const { x, y, scale } = Object.fromEntries([...controls.querySelectorAll("select")].map((s) => [s.name, s.value]));
    for (const plot of curves) {
      const traces = { x: plot.data.map((t) => t.meta.x[x]), y: plot.data.map((t) => t.meta.y[y]) };
      Plotly.update(plot, traces, { "xaxis.title.text": x, "yaxis.type": scale });
    }
  });
}

// A point whose customdata is the id of one of the page's thumbnails shows it beside the pointer.
function showThumbnails(plot) {
  const image = document.createElement("img");
  image.className = "hover";
  image.alt = "";
  document.body.append(image);
  plot.on("plotly_hover", ({ points, event }) => {
    const source = document.getElementById(points[0].customdata);
    if (!source) return;
    image.src = source.src;
    image.style.cssText = `display:block;left:${event.clientX + 14}px;top:${event.clientY + 14}px`;
  });
  plot.on("plotly_unhover", () => (image.style.display = "none"));
}

Promise.all(drawn).then(() => (document.documentElement.dataset.ready = "yes"));
