(function () {
  var tip = document.getElementById("tip");
  document.querySelectorAll(".spot").forEach(function (spot) {
    var title = spot.querySelector("title");
    spot.setAttribute("aria-label", title.textContent);
    title.remove();
  });
  document.addEventListener("pointermove", function (event) {
    var spot = event.target.closest ? event.target.closest(".spot") : null;
    tip.hidden = !spot;
    if (!spot) { return; }
    tip.textContent = spot.getAttribute("aria-label");
    var wide = tip.offsetWidth, tall = tip.offsetHeight, x = event.clientX + 16, y = event.clientY + 16;
    tip.style.left = (x + wide > innerWidth - 8 ? event.clientX - wide - 16 : x) + "px";
    tip.style.top = Math.min(y, innerHeight - tall - 8) + "px";
  });
})();
