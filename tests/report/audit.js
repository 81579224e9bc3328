// What is wrong with a page, as lists of lines by kind. Runs in the page as one expression.
(() => {
  const found = { layout: [], contrast: [], structure: [] };
  const root = document.scrollingElement, all = [...document.body.querySelectorAll("*")];
  const shown = e => e.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true, opacityProperty: true });
  const told = e => `<${e.tagName.toLowerCase()} class="${e.getAttribute("class") || ""}"> ${e.textContent.trim().slice(0, 60)}`;
  const texts = e => [...e.childNodes].filter(n => n.nodeType === 3 && n.data.trim());
  const boxes = node => { const r = document.createRange(); r.selectNodeContents(node); return [...r.getClientRects()].filter(b => b.width); };

  // Layout: nothing wider than the window, no text outside of what clips it, nothing too small to read or on top of another.
  if (root.scrollWidth > root.clientWidth) found.layout.push(`the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
  const clips = v => v === "hidden" || v === "clip", scrolls = v => v === "auto" || v === "scroll";
  const paper = matchMedia("print").matches;
  for (const e of all.filter(e => shown(e) && texts(e).length && !e.closest("svg"))) {
    for (const box of texts(e).flatMap(boxes)) {
      let free = false;  // inside something that scrolls sideways
      for (let a = e; a !== document.documentElement; a = a.parentElement) {
        const style = getComputedStyle(a), b = a.getBoundingClientRect();
        if (scrolls(style.overflowX) && !paper) { free = true; break; }
        if (clips(style.overflowX) && (box.right > b.right + 1 || box.left < b.left - 1)) found.layout.push(`cut sideways: ${told(e)}`);
        if (clips(style.overflowY) && (box.bottom > b.bottom + 1 || box.top < b.top - 1)) found.layout.push(`cut in height: ${told(e)}`);
      }
      if (!free && (box.right > root.clientWidth + 1 || box.left < -1)) found.layout.push(`outside of the window: ${told(e)}`);
    }
    if (parseFloat(getComputedStyle(e).fontSize) < (paper ? 5 : 11)) found.layout.push(`tiny text: ${told(e)}`);
  }
  for (const cell of document.querySelectorAll("td,th")) {
    if (shown(cell) && cell.scrollWidth > cell.clientWidth + 1) found.layout.push(`wider than its cell: ${told(cell)}`);
  }
  for (const svg of [...document.querySelectorAll("svg")].filter(shown)) {
    const frame = svg.getBoundingClientRect(), drawn = [...svg.querySelectorAll("text")].filter(shown);
    const places = drawn.map(t => t.getBoundingClientRect());
    drawn.forEach((t, i) => {
      const b = places[i];
      if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.top < frame.top - 1 || b.bottom > frame.bottom + 1)
        found.layout.push(`outside of its chart: ${told(t)}`);
      if (parseFloat(getComputedStyle(t).fontSize) * t.getScreenCTM().a < 8.5) found.layout.push(`tiny in its chart: ${told(t)}`);
      for (let k = 0; k < i; k++) {
        const o = places[k];
        if (b.left < o.right - 1 && o.left < b.right - 1 && b.top < o.bottom - 3 && o.top < b.bottom - 3)
          found.layout.push(`one upon the other: ${told(t)} and ${told(drawn[k])}`);
      }
    });
  }
  for (const image of document.images) {
    if (!image.naturalWidth) found.layout.push(`no picture: ${image.alt}`);
    else if (shown(image) && Math.abs(image.width / image.height / (image.naturalWidth / image.naturalHeight) - 1) > 0.03)
      found.layout.push(`distorted: ${image.alt}`);
  }

  // Contrast by WCAG 2.2 (1.4.3 text, 1.4.11 lines and areas that carry meaning).
  const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = text => {
    const given = text.match(/^rgba?\(([^)]+)\)$/);
    if (given) { const v = given[1].split(/[\s,/]+/).map(Number); return [...v.slice(0, 3), v.length > 3 ? v[3] : 1]; }
    pixel.clearRect(0, 0, 1, 1); pixel.fillStyle = text; pixel.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = pixel.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])).concat(1);
  const ground = e => {
    const layers = [];
    for (let a = e; a; a = a.parentElement) {
      const color = rgba(getComputedStyle(a).backgroundColor);
      if (color[3]) layers.push(color);
      if (color[3] === 1) break;
    }
    const dark = !paper && matchMedia("(prefers-color-scheme: dark)").matches;
    return layers.reverse().reduce((below, top) => over(top, below), dark ? [18, 18, 18, 1] : [255, 255, 255, 1]);
  };
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
  for (const e of all.filter(e => shown(e) && texts(e).length)) {
    const style = getComputedStyle(e), below = ground(e), size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const got = ratio(over(rgba(e.closest("svg") ? style.fill : style.color), below), below);
    if (got < (large ? 3 : 4.5)) found.contrast.push(`${got.toFixed(2)}: ${told(e)}`);
  }
  for (const e of document.querySelectorAll("svg :is(rect,circle,line,polyline,path):not(.grid)")) {
    const style = getComputedStyle(e), below = ground(e.closest("svg"));
    const inks = [e.tagName === "line" ? "none" : style.fill, style.stroke].filter(c => c !== "none").map(rgba);
    if (inks.length && Math.max(...inks.map(c => ratio(over(c, below), below))) < 3) found.contrast.push(`faint ${e.outerHTML.slice(0, 80)}`);
  }
  for (const e of document.querySelectorAll(".swatch")) {
    if (ratio(rgba(getComputedStyle(e).backgroundColor), ground(e.parentElement)) < 3) found.contrast.push(`faint swatch ${told(e.parentElement)}`);
  }

  // Structure: what a screen reader needs.
  const say = line => found.structure.push(line);
  if (!document.documentElement.lang) say("no lang");
  if (!document.title.trim()) say("no title");
  if (!document.querySelector('meta[name="viewport"]')) say("no viewport");
  if (document.querySelectorAll("main").length !== 1) say("not one main");
  const levels = [...document.querySelectorAll("h1,h2,h3,h4,h5,h6")].map(h => Number(h.tagName[1]));
  if (levels.filter(n => n === 1).length !== 1 || levels[0] !== 1) say(`headings ${levels}: not one h1 at the top`);
  levels.forEach((n, i) => { if (i && n > levels[i - 1] + 1) say(`a heading of level ${n} after ${levels[i - 1]}`); });
  for (const h of document.querySelectorAll("h1,h2,h3,summary,a,caption,figcaption")) if (!h.textContent.trim()) say(`empty ${h.outerHTML.slice(0, 80)}`);
  for (const image of document.images) if (!image.alt.trim()) say(`no alt: ${image.outerHTML.slice(0, 80)}`);
  for (const svg of document.querySelectorAll("svg"))
    if (svg.getAttribute("aria-hidden") !== "true" && !(svg.getAttribute("role") === "img" && (svg.getAttribute("aria-label") || svg.querySelector("title"))))
      say(`no text for ${svg.outerHTML.slice(0, 80)}`);
  for (const table of document.querySelectorAll("table")) {
    if (!table.querySelector("th")) say(`no th: ${told(table)}`);
    for (const th of table.querySelectorAll("th")) if (!["row", "col", "rowgroup", "colgroup"].includes(th.scope)) say(`no scope: ${th.outerHTML.slice(0, 80)}`);
    const wide = [...table.rows].map(row => [...row.cells].reduce((n, c) => n + c.colSpan, 0));
    if (new Set(wide).size > 1) say(`rows of ${[...new Set(wide)]} cells: ${told(table)}`);
    if (!table.caption && !table.closest("[aria-label]")) say(`no name: ${told(table)}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
  if (new Set(ids).size < ids.length) say("ids are not unique");
  for (const a of document.querySelectorAll('a[href^="#"]')) if (!document.getElementById(a.getAttribute("href").slice(1))) say(`leads nowhere: ${told(a)}`);
  for (const e of document.querySelectorAll("script,iframe,object,embed,link,form,base")) say(`a ${e.tagName}`);
  for (const e of document.querySelectorAll("*")) for (const a of e.attributes) if (a.name.startsWith("on")) say(`${a.name} at ${told(e)}`);
  for (const key of Object.keys(found)) found[key] = [...new Set(found[key])].slice(0, 25);
  return found;
})()
