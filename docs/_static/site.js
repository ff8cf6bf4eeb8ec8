/* An area that scrolls can be reached with the keyboard. */
"use strict"
const AREAS = "article pre, article .table-wrapper, article div.math, article figure, .cell_output"
function reachable() {
  for (const area of document.querySelectorAll(AREAS)) {
    const scrolls = area.scrollWidth > area.clientWidth || area.scrollHeight > area.clientHeight
    if (scrolls && getComputedStyle(area).overflowX !== "visible") area.tabIndex = 0
    else area.removeAttribute("tabindex")
  }
}
addEventListener("load", reachable)
addEventListener("resize", reachable)
document.addEventListener("toggle", reachable, true) // of a folded part
