(() => {
  const data = id => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, text, cls) => { const element = document.createElement(tag); if (text) element.textContent = text; if (cls) element.className = cls; return element; };
  const percent = share => (100 * share).toFixed(1) + " %";

  const { rows, left_out } = data("stories"), ids = Object.keys(rows);
  const examples = data("examples"), images = new Map(Object.values(examples).flat().filter(row => row.image).map(row => [row.id, row]));
  const image = (row, text) => { const element = make("img", "", row.kind); element.src = row.image; element.alt = text; return element; };
  const query = document.getElementById("row-query"), story = document.getElementById("story");
  const madeFrom = new Map();
  for (const id of ids) for (const parent of rows[id].p || []) madeFrom.set(parent, [...(madeFrom.get(parent) || []), id]);

  const link = (id, digits = 12) => { const button = make("button", id.slice(0, digits), "row"); button.onclick = () => tell(id); button.title = id; return button; };
  const line = (list, ...parts) => { const item = make("li"); item.append(...parts); list.append(item); };
  const linked = (list, text, all) => {
    const links = all.slice(0, 12).flatMap((id, index) => [index ? ", " : "", rows[id] ? link(id) : id.slice(0, 12)]);
    line(list, text, ...links, all.length > 12 ? " …" : "");
  };
  function tell(id) {
    const row = rows[id], list = make("ul");
    story.replaceChildren(make("h3", "Row " + id), ...images.has(id) ? [image(images.get(id), row.o || id)] : [], list);
    if (row.t) line(list, "“" + row.t + "”");
    line(list, (row.p ? "made by " + row.c : "collected") + (row.o ? " from " + row.o : ""));
    if (row.p) linked(list, "parents: ", row.p);
    if (row.r) line(list, make("b", "rejected: " + row.r.replaceAll("_", " ")));
    for (const [origin, reason] of row.x || []) line(list, "copy: " + origin + (reason ? ", rejected: " + reason.replaceAll("_", " ") : ""));
    line(list, "split " + (row.s || "none") + (row.f === undefined ? "" : ", fold " + row.f) + (row.g ? ", group " + row.g.slice(0, 12) : ""));
    line(list, row.l === undefined ? "no label" : `label ${row.l}, by ${row.b}` + (row.v === undefined ? "" : ` (originally ${row.v})`));
    if (row.w !== undefined) line(list, `label error with probability ${percent(row.w)}` + (row.u && row.u !== row.l ? `; suggested label: ${row.u}` : ""));
    for (const [round, label] of Object.entries(row.k || {})) line(list, `pseudo-label of round ${round}: ${label}`);
    if (row.a !== undefined) line(list, `the model predicts ${row.a} with confidence ${percent(row.y)}: `, make("b", row.a === row.l ? "right" : "wrong", row.a === row.l ? "" : "bad"));
    if (madeFrom.has(id)) linked(list, `${madeFrom.get(id).length} rows made from it: `, madeFrom.get(id));
  }
  query.oninput = () => {
    const words = query.value.trim().toLowerCase();
    if (!words) return story.replaceChildren();
    const matches = ids.filter(id => id.startsWith(words) || [rows[id].o || "", rows[id].t || "", ...(rows[id].x || []).map(copy => copy[0])].some(text => text.toLowerCase().includes(words)));
    if (matches.length === 1 || rows[words]) return tell(rows[words] ? words : matches[0]);
    const list = make("ul");
    for (const id of matches.slice(0, 10)) line(list, link(id), " ", [rows[id].o, rows[id].l, rows[id].t].filter(Boolean).join(", "));
    const none = left_out ? "No such row on this page: seedling why finds the others." : "No such row.";
    story.replaceChildren(make("p", matches.length ? `${matches.length.toLocaleString()} rows match` : none, "soft small"), list);
  };

  const open = element => { for (let part = element && element.closest("details"); part; part = part.parentElement.closest("details")) part.open = true; };
  const openTarget = () => { const target = document.getElementById(location.hash.slice(1)); if (target) { open(target); target.scrollIntoView(); } };
  const openAll = () => { for (const part of document.querySelectorAll("details.part")) part.open = true; };
  addEventListener("hashchange", openTarget); addEventListener("beforeprint", openAll); if (location.hash) openTarget();
  const button = document.getElementById("open-all"), parts = () => [...document.querySelectorAll("details.part")];
  button.onclick = () => { const closing = parts().every(part => part.open); for (const part of parts()) part.open = !closing; button.textContent = closing ? "Open all parts" : "Close all parts"; };

  const panel = document.getElementById("examples-of");
  for (const cell of document.querySelectorAll("button.cell")) cell.onclick = () => {
    const shown = examples[cell.dataset.cell] || [];
    const sheet = make("div", "", shown[0] && shown[0].image ? "samples" : "");
    for (const row of shown) {
      const figure = make("figure"), button = link(row.id, 8);
      figure.append(row.image ? image(row, cell.title) : make("p", row.text));
      const caption = make("figcaption", percent(row.confidence) + " "); caption.append(button); figure.append(caption); sheet.append(figure);
      button.addEventListener("click", () => { open(query); query.scrollIntoView({ block: "center" }); });
    }
    const total = Number(cell.textContent);
    panel.replaceChildren(make("h3", cell.title + (shown.length < total ? ` (${shown.length} of ${total}, most confident first)` : "")), sheet);
  };
})();
