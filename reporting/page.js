"use strict";
// What is folded away is wanted on paper.
const opened = new Set();
addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach(part => {
  opened.add(part);
  part.open = true;
}));
addEventListener("afterprint", () => {
  opened.forEach(part => { part.open = false; });
  opened.clear();
});

// Charts: plotly is unpacked when the first one comes into view; a picture that cannot be replaced stays.
let loading;
function plotly() {
  loading ??= (async () => {
    const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), byte => byte.charCodeAt(0));
    const script = document.createElement("script");
    script.textContent = await new Response(
      new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
    document.head.append(script);
    return window.Plotly;
  })();
  return loading;
}

const dark = matchMedia("(prefers-color-scheme: dark)"), touch = matchMedia("(pointer: coarse)");
function themed(layout) {
  const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
  const axis = { gridcolor: color("--line"), zerolinecolor: color("--line"), linecolor: color("--quiet") };
  return {
    ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: color("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
    hoverlabel: { bgcolor: color("--ground"), bordercolor: color("--quiet"), font: { color: color("--ink") } },
    dragmode: touch.matches ? false : "zoom",  // a finger scrolls the page
    ...Object.fromEntries(["xaxis", "yaxis", "yaxis2"].filter(name => layout[name])
      .map(name => [name, { ...axis, ...layout[name] }])),
  };
}

async function draw(figure) {
  const told = JSON.parse(figure.querySelector("script").textContent), box = figure.querySelector(".plot");
  const webgl = !told.webgl || document.createElement("canvas").getContext("webgl");
  if (figure.clientWidth < told.least || !webgl) return;
  const Plotly = await plotly(), show = () => themed(told.layout);
  figure.classList.add("drawn");
  await Plotly.newPlot(box, told.data, show(), { responsive: true, displaylogo: false });
  dark.addEventListener("change", () => Plotly.react(box, told.data, show()));
}

if (document.getElementById("plotly") && window.DecompressionStream && window.IntersectionObserver) {
  const watch = new IntersectionObserver(seen => seen.filter(one => one.isIntersecting).forEach(one => {
    watch.unobserve(one.target);
    draw(one.target).catch(error => {
      one.target.classList.remove("drawn");
      console.warn(error);
    });
  }), { rootMargin: "300px" });
  document.querySelectorAll("figure.chart").forEach(figure => watch.observe(figure));
}
