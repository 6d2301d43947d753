"use strict";
(() => {
  const every = 2000;
  const table = document.getElementById("runs");
  const live = document.getElementById("live");

  const later = (work) => {
    const again = async () => {
      try { await work(); } catch { /* The service is away: the next try can find it. */ }
      setTimeout(again, every);
    };
    setTimeout(again, live ? 0 : every);
  };

  const put = (cell, text) => { if (cell.textContent !== text) cell.textContent = text; };

  if (table) {
    let version = Number(table.dataset.version);
    const rows = new Map([...table.tBodies[0].rows].map((row) => [row.dataset.run, row]));
    later(async () => {
      const answer = await (await fetch(`/api/runs?since=${version}`)).json();
      version = answer.version;
      for (const run of answer.runs) {
        const row = rows.get(run.path);
        if (!row) continue;
        row.cells[2].className = `name state ${run.condition}`;
        put(row.cells[2], run.state);
        put(row.cells[3], run.layer ?? "");
        put(row.cells[5], run.certified_k === null ? "" : String(run.certified_k));
        put(row.cells[6], run.certified_share === null ? "" : `${(100 * run.certified_share).toFixed(0)} %`);
        put(row.cells[7], run.parameters_left === null ? "" : `${(100 * run.parameters_left).toFixed(0)} %`);
        put(row.cells[8], run.baseline === null ? "" : run.baseline.toFixed(4));
      }
    });
  }

  if (live) {
    const name = live.dataset.run.split("/").map(encodeURIComponent).join("/");
    const points = [];
    later(async () => {
      const answer = await (await fetch(`/api/points/${name}?after=${points.length}`)).json();
      points.push(...answer.points);
      if (points.length) {
        const last = points[points.length - 1];
        const most = Math.max(1, last.k);
        const place = (p) => `${58 + (808 * p.k) / most},${316 - (304 * p.correct) / p.total}`;
        live.querySelector("polyline").setAttribute("points", points.map(place).join(" "));
        document.getElementById("live-max").textContent = String(most);
        document.getElementById("live-last").textContent =
          `K = ${last.k}: accuracy ${(last.correct / last.total).toFixed(4)}, ${points.length} points so far`;
      }
      const runs = await (await fetch("/api/runs?since=0")).json();
      const row = runs.runs.find((run) => run.path === live.dataset.run);
      if (row) {
        const state = document.getElementById("state");
        state.className = `state ${row.condition}`;
        put(state, row.state);
        if (row.condition === "finished") location.reload();
      }
    });
  }
})();
