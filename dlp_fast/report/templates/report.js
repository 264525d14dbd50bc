"use strict";
// The gallery draws only the cards that are near the window, so that thousands of images scroll without a stutter.
(() => {
  const pick = id => document.getElementById(id);
  const make = (tag, name, text) => {
    const element = document.createElement(tag);
    if (name) element.className = name;
    if (text !== undefined) element.textContent = text;  // never markup: names are strangers' text
    return element;
  };
  const data = JSON.parse(pick("data").textContent);
  const gallery = pick("gallery"), size = data.id.length;
  const sheets = Array.from(document.querySelectorAll("#sheets img"));
  const KEYS = { k: "keep", d: "drop", s: "suspect", r: "suggested", c: "" };
  const SIGNS = { keep: "✓ keep", drop: "✕ drop", suspect: "! suspect" };
  const SHAPES = { suspected_poisoned: "▲", probably_mislabeled: "■", suspected_clean: "●", undecided: "◇" };
  const NARROWEST = 158, GAP = 10, BEYOND = 700;  // pixels: of a card, between cards, drawn above and below the window
  const said = word => word.replaceAll("_", " ");
  // a new label is "relabel:2", by the place of the class among the names
  const kind = word => word.startsWith("relabel:") ? "relabel" : word;
  const named = word => data.names[Number(word.slice(8))];
  const sign = word => kind(word) === "relabel" ? `→ ${named(word)}` : SIGNS[word] || "";
  const spoken = word => kind(word) === "relabel" ? `relabel to ${named(word)}` : word;
  const known = word => Object.hasOwn(SIGNS, word) || (/^relabel:\d+$/.test(word) && Number(word.slice(8)) < data.classes);
  const suggestion = i => data.label[i] === data.prediction[i] ? "" : `relabel:${data.prediction[i]}`;
  const suggests = data.id.some((_, i) => suggestion(i));
  const NOTHING = "nothing is suggested: the network gives the label that is there";

  // ---- what a person has decided: by id; kept in the browser as what differs from the decisions of the run
  const paths = new Map(data.id.map((id, i) => [id, data.path[i]]));
  const place = new Map(data.id.map((id, i) => [id, i]));
  const given = new Map();
  for (const [id, path, word] of data.given) { given.set(id, word); paths.set(id, path); }
  const key = "dlp_fast.decisions." + data.run;
  let marks = new Map(given), history = [], kept = true, unsaved = false;

  function read() {
    marks = new Map(given);
    let changes = {};
    try { changes = JSON.parse(localStorage.getItem(key) || "{}"); } catch (error) { kept = false; }
    for (const [text, word] of Object.entries(changes || {})) {
      const id = Number(text);
      if (paths.has(id) && (word === "" || known(word))) set(id, word);
    }
  }
  function set(id, word) { if (word) marks.set(id, word); else marks.delete(id); }
  function write() {
    const changes = {};
    for (const [id, word] of marks) if (given.get(id) !== word) changes[id] = word;
    for (const id of given.keys()) if (!marks.has(id)) changes[id] = "";
    unsaved = true;
    try { localStorage.setItem(key, JSON.stringify(changes)); kept = true; } catch (error) { kept = false; }
  }
  function mark(ids, word) {
    const new_of = id => word === "suggested" ? suggestion(place.get(id)) : word;
    const those = word === "suggested" ? ids.filter(new_of) : ids;
    if (!those.length) return announce(NOTHING);
    const step = those.filter(id => (marks.get(id) || "") !== new_of(id)).map(id => [id, marks.get(id) || ""]);
    if (!step.length) return;
    for (const [id] of step) set(id, new_of(id));
    history.push(step);
    const text = word === "suggested" ? "as suggested" : spoken(word) || "no mark";
    changed(step.length === 1 ? `image ${step[0][0]}: ${spoken(new_of(step[0][0])) || "no mark"}` : `${step.length} images: ${text}`);
  }
  function undo() {
    const step = history.pop();
    if (!step) return announce("nothing to undo");
    for (const [id, word] of step) set(id, word);
    const at = list.indexOf(place.get(step[0][0]));
    if (at >= 0) go(at);
    changed(`undone: ${step.length} ${step.length === 1 ? "image" : "images"}`);
  }
  function changed(text) {
    write();
    for (const [i, card] of cards) dress(card, i);
    count();
    announce(text);
  }
  const announce = text => { pick("told").textContent = text; };

  // ---- which images, in which order
  let list = [], active = 0;
  const tests = {
    "": () => true,
    border: i => data.border[i],
    duplicates: i => data.group[i] >= 0,
    differs: i => data.label[i] !== data.prediction[i],
    benign: i => data.findings_of[i].some(k => data.benign[k]),
  };
  data.decisions.forEach((word, k) => { tests[word] = i => data.decision[i] === k; });
  const marked = {
    "": () => true, any: word => word !== undefined, none: word => word === undefined,
    keep: word => word === "keep", drop: word => word === "drop", suspect: word => word === "suspect",
    relabel: word => word !== undefined && kind(word) === "relabel",
  };
  function choose() {
    const which = tests[pick("by-list").value], has = marked[pick("by-mark").value];
    const finding = pick("by-finding") ? pick("by-finding").value : "", label = pick("by-class").value;
    const order = pick("sort").value, column = data[order.replace("-", "")], sign = order.startsWith("-") ? -1 : 1;
    list = [];
    for (let i = 0; i < size; i++) {
      if (which(i) && has(marks.get(data.id[i])) && (label === "" || data.label[i] === Number(label))
        && (finding === "" || data.findings_of[i].includes(Number(finding)))) list.push(i);
    }
    list.sort((a, b) => sign * (column[a] - column[b]) || a - b);
    active = 0;
    for (const card of cards.values()) card.remove();
    cards.clear();
    arrange();
    count();
  }
  function count() {
    const by = { keep: 0, drop: 0, suspect: 0, relabel: 0 };
    for (const word of marks.values()) by[kind(word)]++;
    pick("shown").textContent = `${list.length} of ${size} shown`;
    pick("counts").textContent = marks.size
      ? `${marks.size} decided: ${by.keep} keep, ${by.drop} drop, ${by.suspect} suspect`
        + (by.relabel ? `, ${by.relabel} relabel` : "") : "nothing decided yet";
    pick("undo").disabled = !history.length;
    pick("unkept").hidden = kept;
  }

  // ---- the cards near the window
  const cards = new Map(), decoded = new Map();
  let width = 0, columns = 1, wide = 0, tall = 0;
  function arrange() {
    width = gallery.clientWidth;
    columns = Math.max(1, Math.floor((width + GAP) / (NARROWEST + GAP)));
    wide = (width - GAP * (columns - 1)) / columns;
    if (list.length) {
      const probe = card(list[0], false);
      probe.style.width = `${wide}px`;
      gallery.append(probe);
      tall = probe.offsetHeight + GAP;
      probe.remove();
    }
    gallery.style.height = `${Math.max(60, Math.ceil(list.length / columns) * tall)}px`;
    pick("empty").hidden = list.length > 0;
    for (const [i, one] of cards) put(one, i);
    draw();
  }
  function put(one, i) {
    const at = one.at;
    one.style.width = `${wide}px`;
    one.style.left = `${(at % columns) * (wide + GAP)}px`;
    one.style.top = `${Math.floor(at / columns) * tall}px`;
  }
  function draw() {
    if (!list.length) return;
    const top = -gallery.getBoundingClientRect().top;
    const from = Math.max(0, Math.floor((top - BEYOND) / tall)) * columns;
    const to = Math.min(list.length, Math.ceil((top + innerHeight + BEYOND) / tall) * columns);
    const wanted = new Set(list.slice(from, to));
    if (list[active] !== undefined) wanted.add(list[active]);
    for (const [i, one] of cards) if (!wanted.has(i)) { one.remove(); cards.delete(i); }
    const add = (i, at) => {
      if (cards.has(i)) return;
      const one = card(i, true);
      one.at = at;
      one.setAttribute("aria-posinset", at + 1);
      one.setAttribute("aria-setsize", list.length);
      put(one, i);
      cards.set(i, one);
      gallery.append(one);
    };
    for (let at = from; at < to; at++) add(list[at], at);
    if (list[active] !== undefined) add(list[active], active);
    point();
  }
  function card(i, picture) {
    const one = make("div", `card ${data.decisions[data.decision[i]]}`);
    one.id = `image-${data.id[i]}`;
    one.index = i;
    one.setAttribute("role", "option");
    const canvas = make("canvas");
    canvas.width = data.width;
    canvas.height = data.height;
    if (picture) paint(canvas, i);
    const lines = make("div", "lines");
    const line = (...parts) => { const row = make("div"); row.append(...parts); lines.append(row); return row; };
    const word = data.decisions[data.decision[i]], differs = data.label[i] !== data.prediction[i];
    line(`${SHAPES[word] || ""} ${said(word)}`).className = "state";
    line("label ", make("b", "", data.names[data.label[i]]));
    line(`${data.final} ${differs ? "≠ " : ""}`, make("b", differs ? "differs" : "", data.names[data.prediction[i]]),
      ` ${Math.round(100 * data.confidence[i])} %`);
    line(`rank ${data.rank[i]}, ${data.entropy[i].toPrecision(3)} bits`);
    line(`id ${data.id[i]}${data.group[i] >= 0 ? `, duplicates ${data.group[i]}` : ""}`);
    line(make("span", "soft", data.path[i]));
    const acts = make("div", "acts");
    acts.setAttribute("aria-hidden", "true");  // for mouse and finger; the bar below and the keys do the same
    for (const name of Object.keys(SIGNS)) { const act = make("span", "act", name); act.dataset.mark = name; acts.append(act); }
    one.append(canvas, make("div", "badge"), lines, acts);
    if (suggests) {
      const other = make("div", "acts"), act = make("span", "act new", suggestion(i) ? sign(suggestion(i)) : "\u00a0");
      other.setAttribute("aria-hidden", "true");
      if (suggestion(i)) { act.dataset.mark = suggestion(i); act.title = spoken(suggestion(i)); } else act.classList.add("none");
      other.append(act);
      one.append(other);
    }
    one.title = `image ${data.id[i]}: ${data.path[i]}`;
    dress(one, i);
    return one;
  }
  function dress(one, i) {
    const word = marks.get(data.id[i]) || "";
    one.dataset.mark = kind(word);
    one.querySelector(".badge").textContent = sign(word);
    for (const act of one.querySelectorAll(".act")) act.classList.toggle("on", act.dataset.mark === word);
    one.setAttribute("aria-label", `image ${data.id[i]}, label ${data.names[data.label[i]]}, ${data.final} says `
      + `${data.names[data.prediction[i]]}, ${said(data.decisions[data.decision[i]])}, ${suggestion(i) ? "another label is suggested, " : ""}${word ? `decided ${spoken(word)}` : "not decided"}`);
  }
  function paint(canvas, i) {
    const each = data.across * data.across, number = Math.floor(i / each), cell = i % each, sheet = sheets[number];
    if (!decoded.has(number)) decoded.set(number, sheet.decode());
    decoded.get(number).then(() => canvas.getContext("2d").drawImage(sheet, (cell % data.across) * data.width,
      Math.floor(cell / data.across) * data.height, data.width, data.height, 0, 0, data.width, data.height));
  }

  // ---- moving about: the gallery has the focus, one card is the active one
  function point() {
    for (const [i, one] of cards) {
      const here = i === list[active];
      one.classList.toggle("active", here);
      one.setAttribute("aria-selected", String(here));
    }
    const i = list[active];
    if (i === undefined) gallery.removeAttribute("aria-activedescendant");
    else gallery.setAttribute("aria-activedescendant", `image-${data.id[i]}`);
    pick("chosen").textContent = i === undefined ? "" : `image ${data.id[i]}: ${data.path[i]}`;
  }
  function go(at, scroll = true) {
    active = Math.max(0, Math.min(list.length - 1, at));
    if (scroll) {
      const box = gallery.getBoundingClientRect(), top = box.top + Math.floor(active / columns) * tall;
      const bottom = innerHeight - pick("marking").offsetHeight - 8;
      if (top < 8) scrollBy({ top: top - 8, behavior: "instant" });
      else if (top + tall > bottom) scrollBy({ top: Math.min(top - 8, top + tall - bottom), behavior: "instant" });
    }
    draw();
  }
  function press(word, move) {
    const i = list[active];
    if (i === undefined) return;
    if (word === "suggested" && !suggestion(i)) return announce(NOTHING);
    if (word === "suggested") word = suggestion(i);
    const again = word && marks.get(data.id[i]) === word;
    mark([data.id[i]], again ? "" : word);
    if (move && !again && pick("on").checked) go(active + 1);
  }
  gallery.addEventListener("keydown", event => {
    const letter = event.key.toLowerCase();
    if ((event.ctrlKey || event.metaKey) && letter === "z") { undo(); event.preventDefault(); return; }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const page = Math.max(1, Math.floor(innerHeight / (tall || 1)) - 1) * columns;
    const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page,
      Home: -size, End: size };
    if (event.key in steps) go(active + steps[event.key]);
    else if (letter in KEYS) press(KEYS[letter], true);
    else if (letter === "z") undo();
    else return;
    event.preventDefault();
  });
  gallery.addEventListener("click", event => {
    const one = event.target.closest(".card");
    if (!one) return;
    gallery.focus({ preventScroll: true });
    go(one.at, false);
    const act = event.target.closest(".act");
    if (act) press(act.dataset.mark, false);
  });
  for (const button of document.querySelectorAll("#marking [data-mark]"))
    button.addEventListener("click", () => press(button.dataset.mark, true));
  for (const button of document.querySelectorAll("#all-shown [data-mark]"))
    button.addEventListener("click", () => mark(list.map(i => data.id[i]), button.dataset.mark));
  pick("undo").addEventListener("click", undo);

  // ---- the file for --decisions
  const cell = text => /[",;\t\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  pick("download").addEventListener("click", () => {
    const rows = Array.from(marks).sort((a, b) => a[0] - b[0]);
    const label = word => kind(word) === "relabel" ? cell(named(word)) : "";
    const lines = rows.map(([id, word]) => `${id},${cell(paths.get(id))},${kind(word)},${label(word)}\n`);
    const text = "sample_id,path,override,label\n" + lines.join("");
    const link = make("a");
    link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
    link.download = data.file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    unsaved = false;
    announce(`${rows.length} ${rows.length === 1 ? "decision" : "decisions"} written to ${data.file}`);
  });
  addEventListener("beforeunload", event => { if (unsaved && !kept) event.preventDefault(); });
  addEventListener("storage", event => { if (event.key === key) { read(); history = []; for (const [i, one] of cards) dress(one, i); count(); } });

  for (const button of document.querySelectorAll("[data-finding]")) button.addEventListener("click", () => {
    pick("by-finding").value = button.dataset.finding;
    for (const id of ["by-list", "by-class", "by-mark"]) pick(id).value = "";
    choose();
    pick("images").scrollIntoView();
    gallery.focus({ preventScroll: true });
  });
  for (const id of ["by-list", "by-finding", "by-class", "by-mark", "sort"])
    if (pick(id)) pick(id).addEventListener("change", choose);
  const soon = what => {
    let waiting = false;
    return () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; what(); });
    };
  };
  addEventListener("scroll", soon(draw), { passive: true });
  new ResizeObserver(soon(() => { if (gallery.clientWidth !== width) arrange(); })).observe(gallery);
  pick("workplace").hidden = false;
  read();
  choose();
})();
