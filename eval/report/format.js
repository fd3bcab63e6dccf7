// Elements, numbers with their units, and what a configuration is called. Text only ever becomes a
// text node.

function make(name, attributes = {}, ...children) {
  const isSvg = name.startsWith("svg:");
  const node = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4)) :
                       document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false)
      node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

const at = (id) => document.getElementById(id);
const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const none = "\u2013";

function fixed(value, digits) {
  return value.toLocaleString("en", {minimumFractionDigits: digits, maximumFractionDigits: digits})
      .replace("-", "\u2212");
}

function superscript(n) {
  const raised = {"-": "\u207b", 1: "\u00b9", 2: "\u00b2", 3: "\u00b3"};
  return [...String(n)].map((c) => raised[c] ?? String.fromCharCode(0x2070 + Number(c))).join("");
}

// So many significant digits, without an exponent where that stays short.
function significant(value, digits = 3) {
  if (!isNumber(value)) return none;
  if (value === 0) return "0";
  const exponent = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  if (exponent < -4) {
    const mantissa = fixed(value / 10 ** exponent, digits - 1);
    return `${mantissa}\u202f\u00d7\u202f10${superscript(exponent)}`;
  }
  return fixed(value, Math.max(0, digits - 1 - exponent));
}

const whole = (value) => (isNumber(value) ? fixed(value, 0) : none);
const decimals = (digits) => (value) => (isNumber(value) ? fixed(value, digits) : none);
const percent = (value) => (isNumber(value) ? fixed(100 * value, 2) : none);

function signedPercent(value) {
  return isNumber(value) ? `${value < 0 ? "" : "+"}${fixed(100 * value, 1)}\u202f%` : none;
}

// "[low, high]", or nothing where there was too little to say it.
function interval(figure, format) {
  return figure && isNumber(figure.low) && isNumber(figure.high) ?
      `[${format(figure.low)}, ${format(figure.high)}]` :
      "";
}

const withInterval = (figure, format) =>
    `${format(figure?.value)} ${interval(figure, format)}`.trim();
const range = (place) =>
    (place.first === place.last ? whole(place.first) :
                                  `${whole(place.first)}\u2013${whole(place.last)}`);
const fileName = (path) => String(path ?? "").split("/").pop();
const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`;

// ---- what is shown: the figures of one configuration, by name --------------------------------

const kinds = {
  uniform: "one type for K and V",
  mixed: "different types for K and V",
  window: "window of recent F16 rows",
  unrotated: "without rotation",
  stock: "stock llama.cpp",
};

function kindOf(config) {
  if (config.stock) return "stock";
  if (config.window > 0) return "window";
  if (!config.rotation) return "unrotated";
  return config.type_k === config.type_v ? "uniform" : "mixed";
}

// One mark of 2r by 2r around (x, y), the same in the picture, the legend and the tables.
function shape(kind, x, y, r) {
  const paths = {
    mixed: `M${x} ${y - 1.25 * r}L${x + 1.25 * r} ${y}L${x} ${y + 1.25 * r}L${x - 1.25 * r} ${y}Z`,
    window: `M${x - r} ${y - r}h${2 * r}v${2 * r}h${- 2 * r}Z`,
    unrotated: `M${x - 1.15 * r} ${y - r}h${2.3 * r}L${x} ${y + 1.1 * r}Z`,
    stock: `M${x - r} ${y - r}L${x + r} ${y + r}M${x - r} ${y + r}L${x + r} ${y - r}`,
  };
  return kind in paths ? make("svg:path", {class: "shape", d: paths[kind]}) :
                         make("svg:circle", {class: "shape", cx: x, cy: y, r});
}

function swatch(kind, isFilled) {
  return make(
      "svg:svg", {
        class: `swatch mark ${kind}${isFilled ? " front" : ""}`,
        width: 14,
        height: 14,
        "aria-hidden": "true"
      },
      shape(kind, 7, 7, 4.5));
}
