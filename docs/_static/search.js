/* Excerpts below the results of the search. They are in a script (excerpts.js), since a page that is
   opened as a file may not read other files. EXCERPTS has the sections of each page, as pairs of an
   anchor and the text. A result leads to the section that fits the query best. */
"use strict"
const query = new URLSearchParams(location.search).get("q") ?? ""
const stems = splitQuery(query.toLowerCase()).map(word => { // early, earliest: earl
  const stem = new Stemmer().stemWord(word)
  const differ = [...stem].findIndex((letter, at) => letter !== word[at])
  return differ < 0 ? stem : stem.slice(0, differ)
})
const SHOWN = 240

function fit([, text]) { // the phrase first, then the number of different words
  const lower = text.toLowerCase()
  return 10 * lower.includes(query.toLowerCase()) + stems.filter(s => lower.includes(s)).length
}

function excerpt(text) {
  const lower = text.toLowerCase()
  const phrase = lower.indexOf(query.toLowerCase())
  const found = stems.map(stem => lower.indexOf(stem)).filter(at => at >= 0)
  const at = phrase >= 0 ? phrase : Math.min(...found, text.length)
  const start = found.length ? Math.max(0, text.lastIndexOf(" ", Math.max(0, at - SHOWN / 3))) : 0
  const end = text.indexOf(" ", start + SHOWN)
  return (start ? "… " : "") + text.slice(start, end < 0 ? undefined : end).trim() + (end < 0 ? "" : " …")
}

function marked(text) {
  const paragraph = document.createElement("p")
  paragraph.className = "context"
  const words = stems.length ? text.split(new RegExp(`((?:${stems.join("|")})\\w*)`, "i")) : [text]
  words.forEach((part, number) => {
    const mark = number % 2 ? document.createElement("mark") : document.createElement("span")
    mark.textContent = part
    paragraph.append(mark)
  })
  return paragraph
}

function complete(result) {
  const link = result.querySelector("a")
  const [file, anchor] = link.getAttribute("href").split("#")
  const sections = EXCERPTS[file.replace(/\.html$/, "")] ?? []
  const chosen = sections.filter(([id]) => !anchor || id === anchor)
  const [id, text] = (chosen.length ? chosen : sections).reduce(
    (best, section) => (fit(section) > fit(best) ? section : best), ["", ""])
  if (!text) return
  if (!anchor && id) link.setAttribute("href", `${file}#${id}`)
  result.append(marked(excerpt(text)))
}

new MutationObserver(changes => {
  for (const { addedNodes } of changes)
    for (const node of addedNodes) if (node.matches?.("ul.search > li")) complete(node)
}).observe(document.getElementById("search-results"), { childList: true, subtree: true })
