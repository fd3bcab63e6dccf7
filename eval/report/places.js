// Lines of divergence by distance and by position. All are there in grey; a few, by choice, in
// colour.

const nColour = 6;

// The default, and uniform types from the smallest to the largest.
function firstChoice(results) {
  const uniform = results.filter((r) => r.all.kl.mean.value > 0 && kindOf(r.config) === "uniform");
  const n = Math.min(4, uniform.length);
  const spread = [...Array(n).keys()].map(
      (i) => uniform[Math.round((i * (uniform.length - 1)) / Math.max(1, n - 1))]);
  return [...results.filter((r) => r.config.default), ...spread].map((r) => r.config.label);
}

// One line with its dots; the latter as marks for reachable().
function drawSeries(svg, {result, places}, colour, unit, x, y) {
  const name = result.config.label, chosen = colour ? " chosen" : "";
  const points = places.map((place, i) => ({place, x: x(i), y: y(place.kl?.value)}))
                     .filter(({place}) => place.kl?.value > 0);
  svg.append(make("svg:polyline", {
    class: `series${chosen}`,
    points: points.map((p) => `${p.x},${p.y}`).join(" "),
    style: colour && `stroke:${colour}`,
  }));
  return points.map((p) => {
    const mean = withInterval(p.place.kl, significant);
    const node = make("svg:circle", {
      class: `dot${chosen}`,
      cx: p.x,
      cy: p.y,
      r: colour ? 4 : 1.5,
      style: colour && `fill:${colour}`,
      role: "img",
      "aria-label": `${name}, ${unit} ${range(p.place)}: ${mean} nats`,
    });
    svg.append(node);
    const rows = [[unit, range(p.place)], ["mean KL, nats", mean]];
    return {node, x: p.x, y: p.y, show: () => showDetails(node, name, rows)};
  });
}

function drawPlaces(host, results, chosen, key, unit) {
  const series = results.map((result) => ({result, places: result[key] ?? []}))
                     .filter((s) => s.places.length > 0);
  if (series.length === 0) {
    host.hidden = true;
    return () => {};
  }
  const places = series[0].places;
  const values = series.flatMap((s) => s.places.map((p) => p.kl?.value)).filter((v) => v > 0);
  const low = Math.min(...values), high = Math.max(...values);
  const domain = values.length > 0 ? [low / 1.3, Math.max(high * 1.3, low * 4)] : [1e-3, 1];
  return keepDrawn(host, (width) => {
    const height = Math.round(Math.min(400, Math.max(300, 0.66 * width)));
    const room = Math.max(0, ...[...chosen.keys()].map((label) => textWidth(label, true))) + 20;
    const right = width - Math.min(0.36 * width, room);
    const area = {left: 44, right, top: 28, bottom: height - 44};
    const step = (right - area.left) / places.length;
    const x = (i) => area.left + (i + 0.5) * step, y = logScale(...domain, area.bottom, area.top);
    const svg = make("svg:svg", {
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": `Mean KL divergence by ${unit}, a line for each configuration`,
    });
    drawPlaceAxes(svg, {places, x, y, area, domain, step, unit, height});
    const isChosen = (s) => chosen.has(s.result.config.label);
    const behind =
        series.filter((s) => !isChosen(s)).flatMap((s) => drawSeries(svg, s, null, unit, x, y));
    const ends = [], front = [];
    for (const s of series.filter(isChosen)) {
      const text = s.result.config.label, colour = `var(--line-${chosen.get(text)})`;
      const marks = drawSeries(svg, s, colour, unit, x, y);
      if (marks.length > 0) ends.push({y: marks.at(-1).y, text, colour});
      front.push(...marks);
    }
    writeEnds(svg, ends, area);
    reachable(svg, [...front, ...behind], 24);
    replaceDrawing(host, svg);
  });
}

// Names at the right ends of their lines, pushed apart.
function writeEnds(svg, ends, area) {
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => {
    end.y = Math.max(end.y, i > 0 ? ends[i - 1].y + 15 : area.top);
  });
  for (let i = ends.length - 1, below = area.bottom + 15; i >= 0; below = ends[i--].y)
    ends[i].y = Math.min(ends[i].y, below - 15);
  svg.append(...ends.map(({y, text, colour}) => {
    const style = `fill:${colour}`;
    return make("svg:text", {class: "name", x: area.right + 8, y: y + 4, style}, text);
  }));
}

function drawPlaceAxes(svg, {places, x, y, area, domain, step, unit, height}) {
  const write = (text, atX, atY, anchor) =>
      svg.append(make("svg:text", {x: atX, y: atY, "text-anchor": anchor}, text));
  const line = (x1, y1, x2, y2) => svg.append(make("svg:line", {class: "grid", x1, y1, x2, y2}));
  for (const value of ticks(...domain, y, 22)) {
    line(area.left, y(value), area.right, y(value));
    write(significant(value, 1), area.left - 8, y(value) + 4, "end");
  }
  const every = Math.ceil((Math.max(...places.map((p) => textWidth(whole(p.first)))) + 8) / step);
  for (let i = 0; i < places.length; i += every) {
    line(x(i), area.bottom, x(i), area.bottom + 4);
    write(whole(places[i].first), x(i), area.bottom + 18, "middle");
  }
  write("mean KL divergence, nats", 4, 12, "start");
  write(`${unit}, up to the next`, area.left, height - 6, "start");
}

function setUpPlaces(results) {
  const chosen = new Map(firstChoice(results).map((label, i) => [label, i])); // label -> colour
  const redraw = [
    drawPlaces(at("distance"), results, chosen, "by_distance", "tokens from the end"),
    drawPlaces(at("position"), results, chosen, "by_position", "position")
  ];
  const paint = (button, label) => {
    button.setAttribute("aria-pressed", chosen.has(label));
    button.style.color = chosen.has(label) ? `var(--line-${chosen.get(label)})` : "";
  };
  at("chips").append(...results.map(({config: {label}}) => {
    const button = make("button", {type: "button"}, label);
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
