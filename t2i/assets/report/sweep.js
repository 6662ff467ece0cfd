"use strict";
const panel = document.getElementById("panel");

function open(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // a new tab or window was asked for
  event.preventDefault();
  const link = event.currentTarget;
  panel.querySelector("h2").textContent = link.getAttribute("aria-label");
  panel.querySelector("img").src = link.querySelector("img").src;
  panel.querySelector("a").href = link.href;
  panel.querySelector("pre").textContent = link.closest("td").querySelector("pre").textContent;
  panel.showModal();
}

for (const link of document.querySelectorAll("td a")) link.onclick = open;
document.getElementById("close").onclick = () => panel.close();
