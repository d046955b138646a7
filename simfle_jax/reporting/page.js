// Hands every figure of the page to Plotly, and what the page's controls say to the curves. The charts are Plotly's.
"use strict";
const config = { displayModeBar: false, responsive: true, displaylogo: false };
const controls = document.querySelector(".controls");
const curves = [];

const choices = () => Object.fromEntries([...controls.querySelectorAll("select")].map((s) => [s.name, s.value]));

function show(plot) {
  const { x, y, scale } = choices();
  const traces = { x: plot.data.map((t) => t.meta.x[x]), y: plot.data.map((t) => t.meta.y[y]) };
  return Plotly.update(plot, traces, { "xaxis.title.text": x, "yaxis.type": scale });
}

if (controls) controls.addEventListener("change", () => curves.forEach(show));

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

// Paper is not as wide as the window that the charts were drawn for.
const drawings = () => document.querySelectorAll(".main-svg");
addEventListener("beforeprint", () =>
  drawings().forEach((svg) => svg.setAttribute("viewBox", `0 0 ${svg.width.baseVal.value} ${svg.height.baseVal.value}`)),
);
addEventListener("afterprint", () => drawings().forEach((svg) => svg.removeAttribute("viewBox")));

// One chart after another, so that the page answers between them.
async function draw() {
  const asWritten = controls && JSON.stringify(choices());
  for (const script of document.querySelectorAll("script[data-kind]")) {
    const { data, layout } = JSON.parse(script.textContent);
    const plot = script.parentElement.querySelector(".plot");
    await Plotly.newPlot(plot, data, layout, config);
    if (script.dataset.kind === "curve") {
      curves.push(plot);
      if (JSON.stringify(choices()) !== asWritten) await show(plot); // somebody chose while this one was drawn
    }
    if (script.dataset.kind === "map") showThumbnails(plot);
    await new Promise((next) => setTimeout(next));
  }
  document.documentElement.dataset.ready = "yes";
}

draw();
