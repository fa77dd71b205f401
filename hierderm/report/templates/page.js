// Tables that sort by a click on a heading: numbers by value, everything else as text.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
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
