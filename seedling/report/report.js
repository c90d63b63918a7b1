(() => {
  const data = id => JSON.parse(document.getElementById(id).textContent);
  const make = (tag, words, cls) => { const one = document.createElement(tag); if (words) one.textContent = words; if (cls) one.className = cls; return one; };
  const percent = share => (100 * share).toFixed(1) + " %";

  const { rows, left_out } = data("stories"), ids = Object.keys(rows);
  const shown = data("examples"), images = new Map(Object.values(shown).flat().filter(one => one.image).map(one => [one.id, one]));
  const image = (one, words) => { const found = make("img", "", one.kind); found.src = one.image; found.alt = words; return found; };
  const asked = document.getElementById("asked"), story = document.getElementById("story");
  const children = new Map();
  for (const id of ids) for (const parent of rows[id].p || []) children.set(parent, [...(children.get(parent) || []), id]);

  const link = (id, digits = 12) => { const one = make("button", id.slice(0, digits), "row"); one.onclick = () => tell(id); one.title = id; return one; };
  const line = (list, ...parts) => { const item = make("li"); item.append(...parts); list.append(item); };
  const linked = (list, words, all) => {
    const shown = all.slice(0, 12).flatMap((id, place) => [place ? ", " : "", rows[id] ? link(id) : id.slice(0, 12)]);
    line(list, words, ...shown, all.length > 12 ? " …" : "");
  };
  function tell(id) {
    const row = rows[id], list = make("ul");
    story.replaceChildren(make("h3", "Row " + id), ...images.has(id) ? [image(images.get(id), row.o || id)] : [], list);
    if (row.t) line(list, "“" + row.t + "”");
    line(list, (row.p ? "made by " + row.c : "collected") + (row.o ? " from " + row.o : ""));
    if (row.p) linked(list, "parents: ", row.p);
    if (row.r) line(list, make("b", "rejected: " + row.r.replaceAll("_", " ")));
    for (const [origin, why] of row.x || []) line(list, "a copy: " + origin + (why ? ", rejected: " + why.replaceAll("_", " ") : ""));
    line(list, "split " + (row.s || "none") + (row.f === undefined ? "" : ", fold " + row.f) + (row.g ? ", group " + row.g.slice(0, 12) : ""));
    line(list, row.l === undefined ? "no label" : `label ${row.l}, by ${row.b}` + (row.v === undefined ? "" : ` (given as ${row.v})`));
    if (row.w !== undefined) line(list, `its label is wrong with a probability of ${percent(row.w)}` + (row.u && row.u !== row.l ? `; suggested: ${row.u}` : ""));
    for (const [round, label] of Object.entries(row.k || {})) line(list, `round ${round} labeled it ${label}`);
    if (row.a !== undefined) line(list, `the model says ${row.a} with ${percent(row.y)}: `, make("b", row.a === row.l ? "right" : "wrong", row.a === row.l ? "" : "bad"));
    if (children.has(id)) linked(list, `${children.get(id).length} made from it: `, children.get(id));
  }
  asked.oninput = () => {
    const words = asked.value.trim().toLowerCase();
    if (!words) return story.replaceChildren();
    const fits = ids.filter(id => id.startsWith(words) || [rows[id].o || "", rows[id].t || "", ...(rows[id].x || []).map(one => one[0])].some(origin => origin.toLowerCase().includes(words)));
    if (fits.length === 1 || rows[words]) return tell(rows[words] ? words : fits[0]);
    const list = make("ul");
    for (const id of fits.slice(0, 10)) line(list, link(id), " ", [rows[id].o, rows[id].l, rows[id].t].filter(Boolean).join(", "));
    const none = left_out ? "None of the rows on this page: seedling why knows the others." : "No such row.";
    story.replaceChildren(make("p", fits.length ? `${fits.length.toLocaleString()} rows fit` : none, "soft small"), list);
  };

  const panel = document.getElementById("examples-of");
  for (const cell of document.querySelectorAll("button.cell")) cell.onclick = () => {
    const found = shown[cell.dataset.cell] || [];
    const sheet = make("div", "", found[0] && found[0].image ? "samples" : "");
    for (const one of found) {
      const figure = make("figure"), told = link(one.id, 8);
      figure.append(one.image ? image(one, cell.title) : make("p", one.text));
      const caption = make("figcaption", percent(one.sure) + " "); caption.append(told); figure.append(caption); sheet.append(figure);
      told.addEventListener("click", () => asked.scrollIntoView({ block: "center" }));
    }
    const many = Number(cell.textContent);
    panel.replaceChildren(make("h3", cell.title + (found.length < many ? ` (${found.length} of ${many}, the surest)` : "")), sheet);
  };
})();
