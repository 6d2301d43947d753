"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const slider = document.getElementById("k");
  const readout = document.getElementById("readout");
  const tilesK = document.getElementById("tiles-k");
  const charts = [...document.querySelectorAll("svg.follows")];
  const tiles = [...document.querySelectorAll(".tiles .tile")];
  const last = data.k.length - 1;
  let pruned = new Set();
  let shown = -1;

  const prunedAt = (index) => {
    const pruned = new Set();
    for (let i = 0; i <= index; i++) {
      data.new[i].forEach((channel) => pruned.add(channel));
      data.back[i].forEach((channel) => pruned.delete(channel));
    }
    return pruned;
  };

  const describe = (i) => {
    const parts = [`K = ${data.k[i]}: accuracy ${data.accuracy[i].toFixed(4)}`];
    if (data.band_low[i] !== null) {
      parts.push(`band ${data.band_low[i].toFixed(4)} to ${data.band_high[i].toFixed(4)}`);
    }
    parts.push(`${data.n_pruned[i]} channels pruned`);
    parts.push(`${data.n_lost[i]} images lost, ${data.n_gained[i]} gained`);
    const named = data.new[i].slice(0, 8).join(", ") + (data.new[i].length > 8 ? ", ..." : "");
    if (data.new[i].length) parts.push(`goes here: channel ${named}`);
    return parts.join(" · ");
  };

  const show = (index) => {
    const i = Math.min(last, Math.max(0, index));
    if (i === shown) return;
    shown = i;
    slider.value = i;
    slider.setAttribute("aria-valuetext", describe(i));
    readout.textContent = describe(i);
    for (const chart of charts) {
      const left = Number(chart.dataset.left);
      const right = Number(chart.dataset.right);
      const x = left + (data.k[i] / (Number(chart.dataset.max) || 1)) * (right - left);
      const cursor = chart.querySelector(".cursor");
      cursor.setAttribute("x1", x);
      cursor.setAttribute("x2", x);
      cursor.classList.add("on");
    }
    pruned = prunedAt(i);
    tiles.forEach((tile, channel) => tile.classList.toggle("is-pruned", pruned.has(channel)));
    tilesK.textContent = `K = ${data.k[i]}`;
  };

  const nearest = (k) => {
    let best = 0;
    data.k.forEach((value, i) => { if (Math.abs(value - k) < Math.abs(data.k[best] - k)) best = i; });
    return best;
  };

  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowDown: -1, ArrowUp: 1, PageDown: -10, PageUp: 10 };
  for (const chart of charts) {
    chart.setAttribute("tabindex", "0");
    const follow = (event) => {
      const box = chart.getBoundingClientRect();
      const at = ((event.clientX - box.left) / box.width) * chart.viewBox.baseVal.width;
      const left = Number(chart.dataset.left);
      const right = Number(chart.dataset.right);
      show(nearest(((at - left) / (right - left)) * Number(chart.dataset.max)));
    };
    chart.addEventListener("pointermove", follow);
    chart.addEventListener("pointerdown", follow);
    chart.addEventListener("keydown", (event) => {
      const target = { Home: 0, End: last }[event.key] ?? (event.key in steps ? shown + steps[event.key] : null);
      if (target === null) return;
      event.preventDefault();
      show(target);
    });
  }
  slider.addEventListener("input", () => show(Number(slider.value)));

  const table = document.getElementById("channels");
  const body = table.tBodies[0];
  const valueOf = (row, column) => {
    const text = row.cells[column].textContent.replaceAll(",", "");
    return text === "-" ? Infinity : Number(text);
  };
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.textContent === "map") return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") === "ascending";
      [...table.tHead.rows[0].cells].forEach((cell) => cell.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const sign = descending ? -1 : 1;
      const rows = [...body.rows].map((row) => [valueOf(row, column), row]);
      rows.sort((one, other) => (one[0] === other[0] ? 0 : sign * (one[0] < other[0] ? -1 : 1)));
      body.replaceChildren(...rows.map((pair) => pair[1]));
    });
  });
  document.getElementById("find").addEventListener("input", (event) => {
    const wanted = event.target.value.trim();
    for (const row of body.rows) row.hidden = wanted !== "" && row.cells[0].textContent !== wanted;
  });

  document.querySelectorAll(".control").forEach((control) => { control.hidden = false; });
  show(data.start);
})();
