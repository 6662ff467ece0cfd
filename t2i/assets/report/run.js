"use strict";
// The sheets of a stage one at a time, chosen by a slider; without a script they are all there, in order.
for (const viewer of document.querySelectorAll(".sheets")) {
  const figures = [...viewer.querySelectorAll("figure")];
  const slider = viewer.querySelector("input");
  const show = () => {
    figures.forEach((figure, place) => { figure.hidden = place !== Number(slider.value); });
    slider.setAttribute("aria-valuetext", figures[slider.value].querySelector("figcaption").textContent);
  };
  slider.addEventListener("input", show);
  slider.parentElement.hidden = figures.length < 2;
  show();
}
