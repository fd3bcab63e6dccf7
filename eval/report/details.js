// The card beside a mark, and the ways to reach a mark: pointer, tap and arrow keys.

const details = at("details");

function hideDetails() {
  details.hidden = true;
  for (const node of document.querySelectorAll(".on")) node.classList.remove("on");
}

function showDetails(node, title, rows, note) {
  hideDetails();
  node.classList.add("on");
  details.replaceChildren(
      make("h4", {}, title),
      make("dl", {}, rows.map(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      note ? make("p", {class: "soft"}, note) : "");
  details.hidden = false;
  const mark = node.getBoundingClientRect(), card = details.getBoundingClientRect();
  const width = document.documentElement.clientWidth, gap = 12;
  const right = mark.right + gap, left = mark.left - gap - card.width;
  const x = right + card.width <= width - 8 ? right :
      left >= 8                             ? left :
                                              Math.max(8, (width - card.width) / 2);
  const isBeside = x === right || x === left;
  let y = isBeside ? mark.top - card.height / 3 : mark.bottom + gap;
  y = Math.max(8, isBeside ? Math.min(y, window.innerHeight - card.height - 8) : y);
  details.style.left = `${x + window.scrollX}px`;
  details.style.top = `${y + window.scrollY}px`;
}

// Marks: [{node, x, y, show}] in the order of the arrow keys; x and y as in the svg's view box. One
// of them is a stop of the tab key. The pointer takes the nearest one, so that a finger need not
// hit it.
function reachable(svg, marks, reach = 36) {
  if (marks.length === 0) return;
  let current = 0;
  const focus = (i) => {
    marks[current].node.setAttribute("tabindex", -1);
    current = (i + marks.length) % marks.length;
    marks[current].node.setAttribute("tabindex", 0);
    marks[current].node.focus({preventScroll: true});
  };
  const steps = {ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1};
  const nearest = (event) => {
    const box = svg.getBoundingClientRect(), scale = svg.viewBox.baseVal.width / box.width;
    const x = (event.clientX - box.left) * scale, y = (event.clientY - box.top) * scale;
    const distances = marks.map((mark) => Math.hypot(mark.x - x, mark.y - y));
    const best = distances.indexOf(Math.min(...distances));
    return distances[best] <= reach ? best : -1;
  };
  marks.forEach((mark, i) => {
    mark.node.setAttribute("tabindex", i === 0 ? 0 : -1);
    mark.node.addEventListener("focus", () => {
      current = i;
      mark.show();
    });
    mark.node.addEventListener("blur", hideDetails);
    mark.node.addEventListener("keydown", (event) => {
      if (event.key in steps)
        focus(i + steps[event.key]);
      else if (event.key === "Home")
        focus(0);
      else if (event.key === "End")
        focus(marks.length - 1);
      else if (event.key === "Escape")
        hideDetails();
      else
        return;
      event.preventDefault();
    });
  });
  svg.addEventListener("pointermove", (event) => {
    const i = event.pointerType === "mouse" ? nearest(event) : -1;
    if (i >= 0)
      marks[i].show();
    else if (event.pointerType === "mouse")
      hideDetails();
  });
  svg.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse") hideDetails();
  });
  svg.addEventListener("click", (event) => {
    const i = nearest(event);
    if (i >= 0) {
      focus(i);
      marks[i].show();
    } else
      hideDetails();
  });
}

// ---- axes --------------------------------------------------------------------------------------

// Of a logarithmic axis: numbers of 1, 2, 5 in each decade, or more or fewer of them, least apart
// by `apart` pixels.
function ticks(low, high, scale, apart) {
  for (const digits
           of [[1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3, 4, 5, 6, 8], [1, 2, 3, 5, 7],
               [1, 2, 5], [1, 3], [1]]) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
      for (const digit of digits) {
        const value = Number((digit * 10 ** e).toPrecision(3));
        if (value >= low * 0.9999 && value <= high * 1.0001) found.push(value);
      }
    }
    if (found.every((v, i) => i === 0 || Math.abs(scale(v) - scale(found[i - 1])) >= apart))
      return found;
  }
  return [low];
}

const logScale = (low, high, from, to) => (value) =>
    from + ((to - from) * Math.log(value / low)) / Math.log(high / low);

let measuring;
function textWidth(text, isBold) {
  measuring ??= document.createElement("canvas").getContext("2d");
  measuring.font = `${isBold ? "700 " : ""}12px ${getComputedStyle(document.body).fontFamily}`;
  return measuring.measureText(text).width;
}

// Drawn again whenever its width changes; on paper the drawing is scaled.
function keepDrawn(host, draw) {
  let width = 0;
  const update = () => {
    if (host.clientWidth === width || host.clientWidth === 0) return;
    width = host.clientWidth;
    draw(width);
  };
  update();
  new ResizeObserver(update).observe(host);
  return () => draw(width);
}

function replaceDrawing(host, svg) {
  hideDetails();
  host.querySelector("svg")?.remove();
  host.append(svg);
}
