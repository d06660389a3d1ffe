/* Draws the figures of this page again from their numbers: hover for values, drag to zoom all of them, double click to
   see everything again, click a name to hide a line. Without it the drawn pictures stay. */
(() => {
  "use strict";
  const root = document.documentElement;
  const moments = JSON.parse(document.getElementById("moments").textContent);
  const plots = [];
  let whole = null, seen = null, now = null, zooming = false;  // updates as [first, last]

  const colour = name => name.startsWith("--") ? getComputedStyle(root).getPropertyValue(name).trim() : name;
  const short = value => {
    if (value == null) return "–";
    const size = Math.abs(value);
    if (value === 0 || (size >= 1e-3 && size < 1e5)) return String(+value.toPrecision(size >= 1000 ? 6 : 4));
    return value.toExponential(3).replace("e+", "e").replace(/\.?0+e/, "e");
  };
  const lasting = seconds => seconds < 120 ? `${+seconds.toPrecision(3)} s`
    : seconds < 7200 ? `${+(seconds / 60).toPrecision(3)} min` : `${+(seconds / 3600).toPrecision(3)} h`;
  const moment = update => {
    const at = moments.update.indexOf(update);
    if (at < 0) return "";
    const steps = moments.env_steps[at], seconds = moments.seconds[at];
    return (steps == null ? "" : ` · ${steps.toLocaleString("en")} env steps`) + (seconds == null ? "" : ` · ${lasting(seconds)}`);
  };

  const behind = panel => plot => {
    const { ctx, bbox } = plot, x = value => plot.valToPos(value, "x", true), y = value => plot.valToPos(value, "y", true);
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    for (const [first, last, name] of panel.spans) {
      ctx.globalAlpha = 0.16;
      ctx.fillStyle = colour(name);
      ctx.fillRect(x(first), bbox.top, Math.max(1, x(last) - x(first)), bbox.height);
    }
    for (const [name, xs, ys] of panel.areas) {
      ctx.globalAlpha = 0.6;
      ctx.fillStyle = colour(name);
      ctx.beginPath();
      xs.forEach((value, place) => value != null && ys[place] != null && ctx.lineTo(x(value), y(ys[place])));
      ctx.fill();
    }
    ctx.restore();
  };
  const before = panel => plot => {
    const { ctx, bbox } = plot, ratio = devicePixelRatio;
    ctx.save();
    ctx.lineWidth = ratio;
    for (const [value, name] of panel.bounds) {
      const y = plot.valToPos(value, "y", true);
      if (y < bbox.top || y > bbox.top + bbox.height) continue;
      ctx.strokeStyle = colour(name);
      ctx.setLineDash([4 * ratio, 3 * ratio]);
      ctx.beginPath();
      ctx.moveTo(bbox.left, y);
      ctx.lineTo(bbox.left + bbox.width, y);
      ctx.stroke();
    }
    ctx.setLineDash([]);
    ctx.strokeStyle = ctx.fillStyle = "#d55e00";
    ctx.lineWidth = 1.5 * ratio;
    const half = 3.5 * ratio;
    for (const [kind, update] of panel.marks) {
      const x = plot.valToPos(update, "x", true), y = bbox.top + bbox.height * (kind === "down" ? 0.965 : 0.035);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.beginPath();
      if (kind === "cross") {
        ctx.moveTo(x - half, y - half); ctx.lineTo(x + half, y + half);
        ctx.moveTo(x - half, y + half); ctx.lineTo(x + half, y - half);
        ctx.stroke();
      } else {
        const tip = kind === "up" ? -half : half;
        ctx.moveTo(x, y + tip); ctx.lineTo(x - half, y - tip); ctx.lineTo(x + half, y - tip);
        ctx.fill();
      }
    }
    ctx.restore();
  };

  // Ticks of our own: uPlot's do not end where numbers are far from 1, such as gradient norms of 1e-31.
  const most = 6;
  const power = exponent => Number(`1e${exponent}`);
  const even = (low, high) => {
    const least = (high - low) / most, ten = power(Math.floor(Math.log10(least))), step = ten * [1, 2, 5, 10].find(times => times * ten >= least * (1 - 1e-9));
    const first = Math.ceil(low / step), count = Math.floor(high / step) - first + 1;
    return count > 0 && count <= 2 * most ? [...new Set(Array.from({ length: count }, (_, place) => +((first + place) * step).toPrecision(12)))] : [];
  };
  const decades = (low, high) => {
    const found = [];
    for (let exponent = Math.floor(Math.log10(low)); exponent <= Math.log10(high); exponent++) found.push(...[1, 2, 5].map(times => +(times * power(exponent)).toPrecision(6)));
    const inside = found.filter(tick => tick >= low && tick <= high), powers = inside.filter(tick => /^1(e|0*$)|^0\.0*1$/.test(String(tick)));
    return powers.length > 1 ? powers : inside;
  };
  const ticksOf = panel => (_, __, low, high) => {
    if (!(high > low) || !isFinite(high - low)) return [];
    if (panel.scale === "linear") return even(low, high);
    if (panel.scale === "log") return low > 0 ? decades(low, high) : [];
    const least = panel.linear_below, sides = [];
    if (-low > least) sides.push(...decades(Math.max(least, -high), -low).map(tick => -tick).reverse());
    if (low <= 0 && high >= 0) sides.push(0);
    if (high > least) sides.push(...decades(Math.max(least, low), high));
    return sides;
  };
  const thinned = (_, ticks) => {
    const every = Math.ceil(ticks.length / most), zero = Math.max(0, ticks.indexOf(0));
    return ticks.map((tick, place) => (place - zero) % every ? null : tick);
  };
  const range = panel => (plot, low, high) => {
    if (!zooming || low == null) return [panel.low, panel.high];
    if (panel.scale === "log") return [low / 1.3, high * 1.3];
    const room = 0.06 * (high - low) || Math.abs(high) * 0.1 || 1;
    return panel.scale === "linear" ? [low - room, high + room] : [low < 0 ? low * 1.3 : low / 1.3, high < 0 ? high / 1.3 : high * 1.3];
  };

  const follow = () => {
    for (const plot of plots) {
      const { min, max } = plot.scales.x, moved = plot.view !== now;
      if (moved && plot.panel.curves.some(curve => curve.extremes)) plot.setData(dataOf(plot.panel, ...now, plot.width), false);
      if (moved || min !== now[0] || max !== now[1]) plot.setScale("x", { min: now[0], max: now[1] });
      plot.view = now;
    }
  };
  const show = (low, high) => {
    if (now === null || low == null || (low === now[0] && high === now[1])) return;
    zooming = low > seen[0] || high < seen[1];
    now = zooming ? [low, high] : whole;
    setTimeout(follow);  // not within the change of a scale
  };
  // A line of many updates is the least and the greatest value of each of equal intervals, and after how many updates.
  const taken = curve => {
    const raw = Uint8Array.from(atob(curve.extremes.values), sign => sign.charCodeAt(0)), view = new DataView(raw.buffer);
    const size = 12, { first, width } = curve.extremes, found = { low: [], high: [], lowAt: [], highAt: [] };
    for (let at = 0, start = first; at < raw.length; at += size, start += width) {
      found.low.push(view.getFloat32(at));
      found.high.push(view.getFloat32(at + 4));
      found.lowAt.push(start + view.getUint16(at + 8));
      found.highAt.push(start + view.getUint16(at + 10));
    }
    return found;
  };
  const points = (curve, low, high, pixels) => {
    if (!curve.extremes) return [curve.x, curve.y];
    curve.taken ??= taken(curve);
    const all = curve.taken, count = all.low.length, { first, width } = curve.extremes, x = [], y = [];
    const begin = Math.max(0, Math.floor((low - first) / width) - 1), end = Math.min(count, Math.ceil((high - first) / width) + 2);
    const together = Math.max(1, Math.ceil(2 * (end - begin) / pixels));
    for (let start = begin; start < end; start += together) {
      let least = -1, most = -1;
      for (let at = start; at < Math.min(end, start + together); at++) {
        if (isNaN(all.low[at])) continue;
        if (least < 0 || all.low[at] < all.low[least]) least = at;
        if (most < 0 || all.high[at] > all.high[most]) most = at;
      }
      const ends = least < 0 ? [[first + start * width, null]] : [[all.lowAt[least], all.low[least]], [all.highAt[most], all.high[most]]];
      if (ends.length > 1 && ends[0][0] > ends[1][0]) ends.reverse();
      if (ends.length > 1 && ends[0][0] === ends[1][0]) ends.pop();
      for (const [update, value] of ends) { x.push(update); y.push(value); }
    }
    return [x, y];
  };
  const dataOf = (panel, low, high, pixels) => {
    const tables = panel.curves.map(curve => points(curve, low, high, pixels));
    return tables.length ? uPlot.join(tables, tables.map(() => [1, 2])) : [[], []];
  };
  const columns = place => innerWidth > 700 ? +place.dataset.columns : 1;
  const widthOf = place => Math.max(200, Math.floor(place.clientWidth / columns(place)));
  const draw = (place, panel, last) => {
    const data = dataOf(panel, -Infinity, Infinity, widthOf(place));
    const axis = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false } };
    const scale = panel.scale === "log" ? { distr: 3 } : panel.scale === "linear" ? {} : { distr: 4, asinh: panel.linear_below };
    const plot = new uPlot({
      width: widthOf(place),
      height: panel.height + (last ? 58 : 30),
      title: panel.title,
      padding: [8, 10, 0, 0],
      cursor: { sync: { key: "updates", scales: ["x", null] }, drag: { x: true, y: false }, points: { size: 5 } },
      legend: { live: true },
      scales: { x: { time: false }, y: { ...scale, range: range(panel) } },
      axes: [
        { ...axis, show: true, space: (_, number, low, high) => 20 + 7 * Math.round(high).toLocaleString("en").length, size: last ? 40 : 20, label: !last ? undefined : columns(place) > 1 ? "update" : place.dataset.updates, labelSize: 18,
          values: (_, ticks) => ticks.map(tick => Number.isInteger(tick) ? tick.toLocaleString("en") : "") },
        { ...axis, splits: ticksOf(panel), ...(panel.scale === "linear" ? {} : { filter: thinned, grid: { ...axis.grid, filter: thinned } }), size: 64, values: (_, ticks) => ticks.map(tick => tick == null ? "" : short(tick)) },
      ],
      series: [
        { label: "update", value: (_, update) => update == null ? "–" : update.toLocaleString("en") + moment(update) },
        ...panel.curves.map((curve, number) => ({
          label: curve.label || `line ${number + 1}`, stroke: colour(curve.colour), width: curve.width,
          paths: curve.points ? () => null : undefined, points: { show: curve.points ? true : undefined, size: 5 },
          value: (_, value) => short(value),
        })),
      ],
      hooks: {
        drawClear: [behind(panel)],
        draw: [before(panel)],
        setScale: [(plot, key) => { if (key === "x") show(plot.scales.x.min, plot.scales.x.max); }],
      },
    }, data, place);
    return Object.assign(plot, { panel });
  };

  const all = () => {
    for (const plot of plots.splice(0)) plot.destroy();
    now = null;
    zooming = false;
    const made = [];
    let low = Infinity, high = -Infinity;
    for (const figure of document.querySelectorAll("figure")) {
      const facts = figure.querySelector("script.curves");
      if (!facts) continue;
      let place = figure.querySelector(".plots");
      if (!place) {
        place = document.createElement("div");
        place.className = "plots";
        figure.append(place);
      }
      const panels = JSON.parse(facts.textContent);
      Object.assign(place.dataset, facts.dataset);
      figure.classList.add("live");
      place.style.gridTemplateColumns = `repeat(${columns(place)}, minmax(0, 1fr))`;
      panels.forEach((panel, number) => made.push(draw(place, panel, number >= panels.length - columns(place))));
      for (const panel of panels) for (const curve of panel.curves) {
        const [x] = points(curve, -Infinity, Infinity, innerWidth);
        if (x.length) { low = Math.min(low, x[0]); high = Math.max(high, x[x.length - 1]); }
      }
    }
    const room = Math.max(0.5, 0.01 * (high - low));
    seen = [low, high];
    whole = [low - room, high + room];
    plots.push(...made);
    now = whole;
    follow();
  };

  window.plots = plots;
  all();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return;
    width = innerWidth;
    all();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
})();
