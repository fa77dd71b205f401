// Tables that sort by a click on a heading: numbers by value, everything else as text.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const rising = head.getAttribute("aria-sort") === "descending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column];
        const text = (cell.firstChild ? cell.firstChild.textContent : "").trim();
        const number = parseFloat(text.replace(/[%+]/g, ""));
        return Number.isNaN(number) ? text : number;
      };
      const order = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1; // cells without a number come last
        const sign = rising ? 1 : -1;
        return typeof x === "number" ? sign * (x - y) : sign * x.localeCompare(y);
      };
      const body = table.tBodies[0];
      body.append(...[...body.rows].sort(order));
    });
  });
}

// Maps whose points show their image: each image is in the page once, and the points hold its number.
for (const map of document.querySelectorAll("figure.map")) {
  const tip = map.querySelector(".tip");
  const show = (point) => {
    const [content, text] = [images[point.dataset.n], point.dataset.t];
    tip.replaceChildren();
    if (content) {
      const image = document.createElement("img");
      image.src = "data:image/jpeg;base64," + content;
      image.alt = "";
      tip.append(image);
    }
    tip.append(text);
    tip.hidden = false;
    const box = map.getBoundingClientRect(), at = point.getBoundingClientRect();
    tip.style.left = Math.min(at.left - box.left + 12, box.width - 130) + "px";
    tip.style.top = at.top - box.top + 12 + "px";
  };
  map.addEventListener("pointerover", (event) => event.target.dataset.t && show(event.target));
  map.addEventListener("click", (event) => event.target.dataset.t && show(event.target));
  map.addEventListener("pointerleave", () => (tip.hidden = true));
}

// Plots and tables go out of the page as files: SVG, PNG made of it, and CSV. Names say what is in them.
const save = (name, content) => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = (document.body.dataset.slug + "-" + name).replace(/^-/, "");
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};
const offer = (place, what, kinds) => {
  const line = document.createElement("p");
  line.className = "get";
  line.append(what);
  for (const [kind, act] of Object.entries(kinds)) {
    const button = document.createElement("button");
    button.textContent = kind;
    button.addEventListener("click", act);
    line.append(button);
  }
  place.after(line);
};
const standalone = (svg) => { // black on white, whatever the page's colours
  const copy = svg.cloneNode(true), box = svg.viewBox.baseVal;
  const paper = document.createElementNS(svg.namespaceURI, "rect");
  for (const node of [copy, paper]) {
    node.setAttribute("width", box.width);
    node.setAttribute("height", box.height);
  }
  paper.setAttribute("fill", "#ffffff");
  copy.prepend(paper);
  copy.removeAttribute("style");
  const text = new XMLSerializer().serializeToString(copy);
  return text.replaceAll("currentColor", "#000000").replace(/var\(--\w+, (#\w+)\)/g, "$1");
};
const picture = (svg, name) => {
  const image = new Image(), scale = 2400 / svg.viewBox.baseVal.width;
  image.onload = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [image.width * scale, image.height * scale].map(Math.round);
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((content) => save(name, content));
  };
  image.src = "data:image/svg+xml," + encodeURIComponent(standalone(svg));
};
for (const figure of document.querySelectorAll(":is(.plot, .map)[data-name]")) {
  const layouts = figure.querySelectorAll(":scope > svg, :scope > div > svg"), name = figure.dataset.name;
  const svg = layouts[layouts.length > 1 ? 1 : 0]; // the one for a page of paper
  offer(figure, "This plot:", {
    SVG: () => save(name + ".svg", new Blob([standalone(svg)], { type: "image/svg+xml" })),
    PNG: () => picture(svg, name + ".png"),
  });
}

// A cell holds a value and, in small, its interval and p: each is a column of its own.
const PARTS = { "": /^$/, low: /^(\S+) to \S+$/, high: /^\S+ to (\S+)$/, p: /^p = (.*)$/ };
const partOf = (cell, part) => {
  if (part) return [...cell.querySelectorAll("small")].map((small) => small.textContent.match(PARTS[part])?.[1]).find(Boolean) ?? "";
  const rest = cell.cloneNode(true);
  for (const small of rest.querySelectorAll("small")) small.remove();
  return rest.textContent.replace("▼", "").trim();
};
const quoted = (text) => {
  const computed = /^[=+@\t\r-]/.test(text) && !/^[-+]?[\d.]+%?$/.test(text); // a spreadsheet would, so it gets an apostrophe
  const shown = computed ? "'" + text : text;
  return /[",\n]/.test(shown) ? '"' + shown.replaceAll('"', '""') + '"' : shown;
};
const csv = (table) => {
  const rows = [...table.tBodies[0].rows], heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
  const columns = [...rows[0].cells].flatMap((_, place) =>
    Object.keys(PARTS).filter((part) => !part || rows.some((row) => partOf(row.cells[place], part))).map((part) => [place, part]));
  const lines = rows.map((row) => columns.map(([place, part]) => partOf(row.cells[place], part)));
  if (heads.length) lines.unshift(columns.map(([place, part]) => (heads[place].textContent + " " + part).trim()));
  return lines.map((line) => line.map(quoted).join(",") + "\r\n").join("");
};
for (const table of document.querySelectorAll("table[data-name]")) {
  const make = () => save(table.dataset.name + ".csv", new Blob(["\ufeff", csv(table)], { type: "text/csv" }));
  offer(table.parentNode, "This table:", { CSV: make });
}

// On paper everything is unfolded.
let folded = [];
addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const part of folded) part.open = true;
});
addEventListener("afterprint", () => folded.forEach((part) => (part.open = false)));
