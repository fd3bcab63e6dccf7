// Tables that sort, and what stands in each of them.

// Columns: {title, unit, value(row): number or text to sort by, cell(row): nodes or text, isText,
// shade(row): 0 to 1}.
function drawCell(column, i, row) {
  const shade = column.shade?.(row);
  const ground =
      isNumber(shade) ? `background:rgb(var(--heat) / ${(0.55 * shade).toFixed(3)})` : null;
  return make(
      i === 0 ? "th" : "td",
      {scope: i === 0 ? "row" : null, class: column.isText ? "text" : null, style: ground},
      column.cell(row));
}

function table(host, columns, rows, order = 0) {
  const head = make("tr"), body = make("tbody");
  const lines = rows.map((row) => {
    const cells = columns.map((column, i) => drawCell(column, i, row));
    return {row, node: make("tr", {class: row.isDefault ? "default" : null}, cells)};
  });
  const sort = (i, isAscending) => {
    const value = (line) => columns[i].value(line.row);
    const isKnown = (v) => isNumber(v) || typeof v === "string";
    lines.sort((a, b) => {
      const [u, v] = [value(a), value(b)];
      if (!isKnown(u) || !isKnown(v))
        return isKnown(v) - isKnown(u); // what is not known comes last
      const by = typeof u === "string" ? u.localeCompare(v, "en", {numeric: true}) : u - v;
      return isAscending ? by : -by;
    });
    body.append(...lines.map((line) => line.node));
    [...head.children].forEach((th, j) => {
      if (j === i)
        th.setAttribute("aria-sort", isAscending ? "ascending" : "descending");
      else
        th.removeAttribute("aria-sort");
    });
  };
  columns.forEach((column, i) => {
    const button = make("button", {type: "button"}, column.title);
    button.addEventListener(
        "click", () => sort(i, head.children[i].getAttribute("aria-sort") !== "ascending"));
    head.append(make(
        "th", {scope: "col", class: column.isText ? "text" : null}, button,
        column.unit ? make("span", {class: "unit"}, column.unit) : null));
  });
  host.append(make("table", {}, make("thead", {}, head), body));
  sort(order, true);
}

// ---- columns -----------------------------------------------------------------------------------

const labelled = (get = (row) => row.result) => ({
  title: "configuration",
  isText: true,
  value: (row) => get(row)?.config.label,
  cell: (row) => nameOf(get(row)),
});

function nameOf(result) {
  if (!result) return none;
  return [
    swatch(kindOf(result.config), result.on_front), result.config.label,
    result.config.default ? make("span", {class: "tag"}, "default") : "",
    result.on_front ? make("span", {class: "unseen"}, ", on the front") : ""
  ];
}

const plain = (title, unit, get, format) =>
    ({title, unit, value: get, cell: (row) => format(get(row))});

function figure(title, unit, get, format) {
  return {
    title,
    unit,
    value: (row) => get(row)?.value,
    cell: (row) =>
        [format(get(row)?.value), make("span", {class: "interval"}, interval(get(row), format))]
  };
}

// Of the figures of a row, which are those of all texts or of one.
function figureColumns(get) {
  return [
    figure("mean KL", "nats", (row) => get(row)?.kl.mean, significant),
    figure("median", "nats", (row) => get(row)?.kl.median, significant),
    figure("99 %", "nats", (row) => get(row)?.kl.p99, significant),
    figure("99.9 %", "nats", (row) => get(row)?.kl.p999, significant),
    plain("max", "nats", (row) => get(row)?.kl.max, significant),
    figure("same top", "%", (row) => get(row)?.same_top, percent),
    figure("ppl ratio", "to reference", (row) => get(row)?.ppl_ratio, decimals(4)),
    figure("RMS \u0394p", "% points", (row) => get(row)?.rms_dp, percent),
  ];
}

const bitsColumn =
    plain("bits", "per value", (row) => row.result.bytes.bits_per_value, decimals(2));
const bytesColumn = plain("bytes", "per token", (row) => row.result.bytes.per_token, whole);

function allTable(rows) {
  table(
      at("table-all"),
      [
        labelled(), bitsColumn, bytesColumn, ...figureColumns((row) => row.result.all),
        plain(
            "prefill", "tokens/s", (row) => row.result.speed?.prefill?.tokens_per_second,
            decimals(1)),
        plain(
            "decode", "tokens/s", (row) => row.result.speed?.decode?.tokens_per_second, decimals(1))
      ],
      rows, 2);
}

// ---- windows -----------------------------------------------------------------------------------

// How a window stands to another one with so many times its bytes, as far as the intervals say it.
function verdict(window, other, bytesRatio = 1) {
  const [ours, theirs] = [window.all.kl.mean, other.all.kl.mean];
  if (!isNumber(ours.low) || !isNumber(theirs.low)) return "no interval";
  if (theirs.low > ours.high)
    return bytesRatio < 0.98 ? "less damage, more bytes" : "window better";
  if (theirs.high < ours.low)
    return bytesRatio > 1.02 ? "more damage, fewer bytes" : "window worse";
  return "intervals overlap";
}

function besideColumns(title, key, byLabel) {
  const beside = (row) => row.result[key];
  const other = (row) => byLabel.get(beside(row)?.config);
  const mean = (row) => other(row)?.all.kl.mean;
  const ratio = (row) => {
    const ours = row.result.all.kl.mean.value;
    return ours > 0 ? mean(row)?.value / ours : undefined;
  };
  const bytesCell = (row) => {
    const text = signedPercent(beside(row)?.bytes_ratio - 1);
    return beside(row)?.warning ? make("span", {class: "warning"}, `\u26a0 ${text}`) : text;
  };
  const ratioCell = (row) =>
      [isNumber(ratio(row)) ? `${significant(ratio(row))}\u202f\u00d7` : none,
       make(
           "span", {class: "interval"},
           other(row) ? verdict(row.result, other(row), beside(row).bytes_ratio) : ""),
  ];
  const label = (row) => other(row)?.config.label;
  return [
    {title, isText: true, value: label, cell: (row) => nameOf(other(row))},
    {
      title: "bytes",
      unit: "to the window",
      value: (row) => beside(row)?.bytes_ratio,
      cell: bytesCell
    },
    figure("mean KL", "nats", mean, significant),
    {title: "ratio", unit: "to the window", value: ratio, cell: ratioCell},
  ];
}

function windowTable(rows, byLabel) {
  const windows = rows.filter((row) => row.result.config.window > 0);
  if (windows.length === 0) return;
  table(
      at("table-windows"),
      [
        {...labelled(), title: "window"}, bytesColumn,
        figure("mean KL", "nats", (row) => row.result.all.kl.mean, significant),
        ...besideColumns("same bytes", "same_bytes", byLabel),
        ...besideColumns("next uniform type", "next_uniform", byLabel)
      ],
      windows, 1);
}

// ---- texts, tasks, places, bytes ---------------------------------------------------------------

function textTables(rows, texts) {
  if (texts.length === 0) return;
  table(
      at("table-texts"),
      [
        labelled(), bytesColumn,
        ...texts.map(
            (name, t) =>
                figure(name, "nats", (row) => row.result.by_text?.[t]?.kl.mean, significant))
      ],
      rows, 1);
  const each = rows.flatMap(
      (row) => texts.map((name, t) => ({...row, name, figures: row.result.by_text?.[t]})));
  table(
      at("table-texts-all"),
      [
        labelled(),
        {title: "text", isText: true, value: (row) => row.name, cell: (row) => row.name},
        ...figureColumns((row) => row.figures),
        plain("positions", "", (row) => row.figures?.positions, whole)
      ],
      each, 0);
}

const outOf = (title, get) => ({
  title,
  unit: "right of all",
  value: (row) => get(row)?.right / get(row)?.of,
  cell: (row) => (get(row) ? `${whole(get(row).right)} of ${whole(get(row).of)}` : none)
});

function taskColumns(title, task) {
  return [
    outOf(title, task), figure("rate", "%", (row) => task(row)?.rate, percent),
    plain("lost", "answers", (row) => task(row)?.lost, whole),
    plain("won", "answers", (row) => task(row)?.won, whole),
    plain("p", "McNemar", (row) => task(row)?.p, (value) => significant(value, 2))
  ];
}

function depthColumn(depth, i) {
  const rate = (row) => row.result.tasks.passkey?.by_depth?.[i]?.rate;
  const title = `at ${fixed(100 * depth, 0)} %`;
  return {
    ...figure(title, "right, %", rate, percent),
    shade: (row) => rate(row) && 1 - rate(row).value,
  };
}

function taskTables(rows, reference) {
  const config = {label: "reference", rotation: true, type_k: "f16", type_v: "f16"};
  const first = reference ? [{result: {config, bytes: {}, tasks: reference}}] : [];
  const tested = [...first, ...rows].filter((row) => row.result.tasks);
  if (tested.length === 0) return;
  const [passkey, copy] = ["passkey", "copy"].map((name) => (row) => row.result.tasks[name]);
  const tokens = (row) => copy(row)?.tokens;
  const columns = [labelled(), bytesColumn];
  if (tested.some(passkey)) columns.push(...taskColumns("passkey", passkey));
  if (tested.some(copy)) {
    columns.push(...taskColumns("copy", copy), outOf("copied tokens", tokens));
    columns.push(figure("rate", "%", (row) => tokens(row)?.rate, percent));
  }
  table(at("table-tasks"), columns, tested, 1);
  const depths = tested.map((row) => passkey(row)?.by_depth ?? []).find((list) => list.length > 0);
  if (!depths) return;
  const byDepth = depths.map((place, i) => depthColumn(place.depth, i));
  const label = {...labelled(), title: "passkey by depth"};
  table(at("table-depths"), [label, bytesColumn, ...byDepth], tested, 1);
}

function placeTables(rows) {
  const keys = {"table-distance": "by_distance", "table-position": "by_position"};
  const places =
      rows.flatMap(({result}) => Object.values(keys).flatMap((key) => result[key] ?? []));
  const values = places.map((place) => place.kl?.value).filter((value) => value > 0);
  const low = Math.log(Math.min(...values)), high = Math.log(Math.max(...values));
  const shade = (kl) =>
      (kl?.value > 0 && high > low ? (Math.log(kl.value) - low) / (high - low) : 0);
  for (const [host, key] of Object.entries(keys)) {
    const first = rows[0]?.result[key] ?? [];
    if (first.length === 0) continue;
    const columns = first.map((place, i) => {
      const kl = (row) => row.result[key]?.[i]?.kl;
      return {...figure(range(place), "", kl, significant), shade: (row) => shade(kl(row))};
    });
    table(at(host), [labelled(), bytesColumn, ...columns], rows, 1);
  }
}

function bytesTable(rows) {
  const bytes = (title, unit, get) => plain(title, unit, (row) => get(row.result.bytes), whole);
  table(
      at("table-bytes"),
      [
        labelled(), bytes("cache", "bytes per token", (b) => b.cold_per_token),
        bytes("rows in F16", "bytes per token", (b) => b.per_token - b.cold_per_token), bytesColumn,
        bitsColumn, bytes("cache", "bytes", (b) => b.cold),
        bytes("F16 rows at most", "bytes", (b) => b.hot_peak),
        bytes("window, sinks, tables", "bytes at the end", (b) => b.hot),
        bytes("staging", "bytes at the end", (b) => b.staging), bytes("cells", "", (b) => b.cells)
      ],
      rows, 3);
}
