// Lines of divergence by distance and by position. All are there in grey; a few, by choice, in colour.

const nColour = 6;

// The default, and uniform types from the smallest to the largest.
function firstChoice(results) {
  const uniform = results.filter((r) => r.all.kl.mean.value > 0 && kindOf(r.config) === "uniform");
  const n = Math.min(4, uniform.length);
  const spread = [...Array(n).keys()].map((i) => uniform[Math.round((i * (uniform.length - 1)) / Math.max(1, n - 1))]);
  return [...results.filter((r) => r.config.default), ...spread].map((r) => r.config.label);
}

function drawPlaces(host, results, chosen, key, unit) {
  const series = results.map((result) => ({ result, places: result[key] ?? [] })).filter((s) => s.places.length > 0);
  if (series.length === 0) { host.hidden = true; return () => {}; }
  const places = series[0].places;
  const values = series.flatMap((s) => s.places.map((p) => p.kl?.value)).filter((v) => v > 0);
  const low = Math.min(...values, Infinity), high = Math.max(...values, 0);
  const domain = values.length > 0 ? [low / 1.3, Math.max(high * 1.3, low * 4)] : [1e-3, 1];
  return keepDrawn(host, (width) => {
    const height = Math.round(Math.min(400, Math.max(300, 0.66 * width)));
    const names = series.filter((s) => chosen.has(s.result.config.label));
    const room = Math.min(0.36 * width, 12 + Math.max(0, ...names.map((s) => textWidth(s.result.config.label, true))));
    const area = { left: 44, right: width - room - 8, top: 28, bottom: height - 44 };
    const step = (area.right - area.left) / places.length;
    const x = (i) => area.left + (i + 0.5) * step, y = logScale(...domain, area.bottom, area.top);
    const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `Mean KL divergence by ${unit}, a line for each configuration` });
    drawPlaceAxes(svg, { places, x, y, area, domain, step, unit, height });
    const ends = [], marks = [];
    for (const isChosen of [false, true]) {
      for (const s of series.filter((one) => chosen.has(one.result.config.label) === isChosen)) {
        const colour = isChosen ? `var(--line-${chosen.get(s.result.config.label)})` : null;
        const points = s.places.map((p, i) => ({ place: p, x: x(i), y: p.kl?.value > 0 ? y(p.kl.value) : null }))
          .filter((p) => p.y !== null);
        svg.append(make("svg:polyline", { class: `series${isChosen ? " chosen" : ""}`, points: points.map((p) => `${p.x},${p.y}`).join(" "),
          style: colour && `stroke:${colour}` }));
        for (const p of points) {
          const node = make("svg:circle", { class: `dot${isChosen ? " chosen" : ""}`, cx: p.x, cy: p.y, r: isChosen ? 4 : 1.5,
            style: colour && `fill:${colour}`, role: "img",
            "aria-label": `${s.result.config.label}, ${unit} ${range(p.place)}: ${withInterval(p.place.kl, significant)} nats` });
          svg.append(node);
          marks.push({ node, x: p.x, y: p.y, show: () => showDetails(node, s.result.config.label,
            [[unit, range(p.place)], ["mean KL, nats", withInterval(p.place.kl, significant)]]) });
        }
        if (isChosen && points.length > 0) ends.push({ y: points.at(-1).y, text: s.result.config.label, colour });
      }
    }
    writeEnds(svg, ends, area);
    if (marks.length > 0) reachable(svg, marks.reverse(), 24);
    replaceDrawing(host, svg);
  });
}

// Names at the right ends of their lines, pushed apart.
function writeEnds(svg, ends, area) {
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { end.y = Math.max(end.y, i > 0 ? ends[i - 1].y + 15 : area.top); });
  for (let i = ends.length - 1, below = area.bottom + 15; i >= 0; below = ends[i--].y) ends[i].y = Math.min(ends[i].y, below - 15);
  svg.append(...ends.map((end) => make("svg:text", { class: "name", x: area.right + 8, y: end.y + 4, style: `fill:${end.colour}` }, end.text)));
}

function drawPlaceAxes(svg, { places, x, y, area, domain, step, unit, height }) {
  for (const value of ticks(...domain, y, 22)) {
    svg.append(make("svg:line", { class: "grid", x1: area.left, x2: area.right, y1: y(value), y2: y(value) }),
      make("svg:text", { x: area.left - 8, y: y(value) + 4, "text-anchor": "end" }, significant(value, 1)));
  }
  const every = Math.ceil((Math.max(...places.map((p) => textWidth(whole(p.first)))) + 8) / step);
  places.forEach((place, i) => {
    if (i % every !== 0) return;
    svg.append(make("svg:line", { class: "grid", x1: x(i), x2: x(i), y1: area.bottom, y2: area.bottom + 4 }),
      make("svg:text", { x: x(i), y: area.bottom + 18, "text-anchor": "middle" }, whole(place.first)));
  });
  svg.append(make("svg:text", { x: 4, y: 12 }, "mean KL divergence, nats"),
    make("svg:text", { x: area.left, y: height - 6 }, `${unit}, up to the next`));
}

function setUpPlaces(results) {
  const chosen = new Map(firstChoice(results).map((label, i) => [label, i])); // label -> colour
  const redraw = [drawPlaces(at("distance"), results, chosen, "by_distance", "tokens from the end"),
    drawPlaces(at("position"), results, chosen, "by_position", "position")];
  const paint = (button, label) => {
    button.setAttribute("aria-pressed", chosen.has(label));
    button.style.color = chosen.has(label) ? `var(--line-${chosen.get(label)})` : "";
  };
  at("chips").append(...results.map(({ config: { label } }) => {
    const button = make("button", { type: "button" }, label);
    button.addEventListener("click", () => {
      if (!chosen.delete(label)) {
        const used = new Set(chosen.values());
        if (used.size === nColour) { // the one that was chosen first makes room
          const [first] = chosen.keys();
          used.delete(chosen.get(first));
          chosen.delete(first);
        }
        chosen.set(label, [...Array(nColour).keys()].find((i) => !used.has(i)));
      }
      for (const other of at("chips").children) paint(other, other.textContent);
      redraw.forEach((draw) => draw());
    });
    paint(button, label);
    return button;
  }));
}
