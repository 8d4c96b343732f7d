"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, from = document) => Array.from(from.querySelectorAll(selector));
  const show = (element) => { if (element) element.hidden = false; };

  // Dark or light: what the system says until somebody says otherwise.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (system.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  // Pages from files may have no storage.
  const stored = (work) => { try { return work(localStorage); } catch { return null; } };
  const kept = stored((storage) => storage.getItem("rbuild-theme"));
  if (kept === "dark" || kept === "light") root.dataset.theme = kept;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    stored((storage) => storage.setItem("rbuild-theme", root.dataset.theme));
    name();
  });
  system.addEventListener("change", name);
  name();
  show(theme);

  // What a link goes to is unfolded; what somebody typed may be no link.
  const decoded = (text) => { try { return decodeURIComponent(text); } catch { return ""; } };
  const unfold = () => {
    const id = decoded(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", unfold);
  // The same link once more.
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    const href = link && link.getAttribute("href");
    if (href && href === location.hash) unfold();
  });
  unfold();

  all(".tools").forEach(show);
  all("[data-fold]").forEach((button) => button.addEventListener("click", () => {
    all("details", button.closest("section")).forEach((one) => { one.open = button.dataset.fold === "open"; });
  }));

  // Files whose paths have the text in them.
  const filter = document.getElementById("filter");
  const hits = document.getElementById("hits");
  let due = 0;
  const sift = () => {
    const wanted = filter.value.trim().toLowerCase();
    let n = 0;
    for (const layer of all(".layer")) {
      let has = false;
      for (const file of all(".files li", layer)) {
        const fits = file.children[1].textContent.toLowerCase().includes(wanted);
        file.hidden = !fits;
        if (fits) { n += 1; has = true; }
      }
      layer.open = wanted !== "" && has;
    }
    hits.textContent = wanted === "" ? "" : `${n} of the files listed here`;
  };
  if (filter) filter.addEventListener("input", () => { clearTimeout(due); due = setTimeout(sift, 80); });

  // What the browser would show late is shown at once, to the keyboard too.
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.hidden = true;
  document.body.append(tip);
  let told = null;
  const tell = (one) => {
    told = one;
    tip.hidden = !one;
    if (!one) return;
    const box = one.getBoundingClientRect();
    tip.textContent = one.getAttribute("aria-label");
    const left = Math.max(8, Math.min(box.left, innerWidth - tip.offsetWidth - 8));
    const above = box.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 8 ? above : box.bottom + 8}px`;
  };
  for (const one of all(".bar, .row")) {
    const title = one.querySelector(":scope > title");
    one.setAttribute("aria-label", title.textContent);
    title.remove();
    for (const event of ["mouseenter", "focus"]) one.addEventListener(event, () => tell(one));
    for (const event of ["mouseleave", "blur"]) one.addEventListener(event, () => tell(null));
  }
  addEventListener("scroll", () => tell(told), { passive: true, capture: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") tell(null); });
})();
