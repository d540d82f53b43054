// Pictures whose traces and layout are given: only colours, legends and hovering are the page's.

function drawPlots() {
  const c = colours();
  embedded("plots").forEach(({ traces, layout }, i) => {
    const plot = document.querySelectorAll(".plot")[i];
    const wide = { ...axisLook(c), showline: true, ticks: "outside", ticklen: 3, tickcolor: c.rule };
    // Black and white are the paper's and the ink's: they change places in the dark.
    const drawn = JSON.parse(JSON.stringify(traces).replaceAll('"black"', JSON.stringify(c.ink)));
    for (const trace of drawn) if (trace.line && !trace.line.color) trace.line.color = c.ink;
    Plotly.newPlot(plot, drawn, {
      ...baseLayout(c), height: 440, margin: { l: 60, r: 16, t: 8, b: 44 }, showlegend: true, hovermode: "closest", ...layout,
      xaxis: { ...wide, ...layout.xaxis }, yaxis: { ...wide, ...layout.yaxis },
      shapes: (layout.shapes || []).map((shape) => ({ ...shape, line: { color: c.ink, ...shape.line } })),
    }, CONFIG);
  });
}

darkScreen.addEventListener("change", drawPlots);
drawPlots();
