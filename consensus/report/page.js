"use strict";
(() => {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const template = () => {
    const [text, line, ground] = dark.matches ? ["#e3e8ee", "#38424e", "#161b22"] : ["#1d2733", "#d9dfe6", "#ffffff"];
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, tickcolor: line, automargin: true };
    const layout = {
      font: { color: text, size: 12, family: 'system-ui, "Segoe UI", "DejaVu Sans", sans-serif' },
      hoverlabel: { bgcolor: ground, bordercolor: line, font: { color: text } },
      annotationdefaults: { font: { color: text, size: 13 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: line, activecolor: text },
      xaxis: axis,
      yaxis: axis,
    };
    return { layout };
  };
  // The buttons are named one by one: among those that a library adds by itself are some that send the data somewhere.
  const buttons = [["toImage"], ["zoom2d", "pan2d", "resetScale2d"]];
  const options = { responsive: true, displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtons: buttons };
  const draw = (chart) => {
    const figure = JSON.parse(chart.nextElementSibling.textContent);
    Plotly.react(chart, figure.data, { ...figure.layout, template: template() }, options);
  };
  const all = () => document.querySelectorAll(".chart").forEach(draw);
  dark.addEventListener("change", all);
  all();
})();
